"""Continual self-edits: 64 sequences of 8 passages, and what they forget.

    python -m seal_jax.train --config=configs/continual.py --workdir=runs/continual

SEAL (arXiv 2506.10943), the forgetting experiment: a model learns 8 SQuAD passages, one
after the other, each by one self-edit that it writes itself, and after each answers the
questions of all passages so far. Meant for one 80 GB accelerator; not run in full yet.
The reported run starts from the policy that two rounds have trained:
`--config.model.path=runs/squad/policy`. Of the released runs the mean over the passages
learned falls below the un-edited model's at passage 5 and ends at 0.25 against 0.31.

    python -m seal_jax.train --config=configs/continual.py:tiny --workdir=runs/forget

is the same on the generated world with the embedded model, and all controls: ways of
not forgetting, each a row. `:debug` runs four rows on two sequences of two passages,
in about a minute.

`arms` names the rows: "merge" alone, or controls, also several joined by "+":

    in_context  nothing is learned; each passage stands before its questions
    merge       each edit is added to all that was learned before
    gate        ... at a smaller scale, or not, if earlier questions are lost by it
    replay      earlier training lines are mixed into those of an edit
    kl          training also keeps the model near the base, on texts the base wrote
    orthogonal  an edit is pushed off the directions that earlier ones read
    keep        no edit is added: each is an adapter, and a question is sent to one
    best        of several self-edits the one that answers its own passage best is taken
    penalty     ... but what it makes the model forget counts against it

`keep` cannot be joined with gate, replay, orthogonal or penalty, nor `best` with
`penalty`. `kl` needs `--config.inner.loss.mode=masked`: the paper's own loss, which is
the default here ("reference"), bars it.

Of each row the summary tells the share of questions answered: `learned`, of a passage
right after its own edit; `kept`, of all but the last passage after the last edit;
`final`, of all passages after the last edit; `general`, of the probes, which no edit is
about.

Where an arm chooses (gate, best, penalty), half of each passage's questions decide, and
all rows report the other half (`seal_jax.continual.halves`).

On 2 CPU cores that other work shared, `:tiny` took 13 minutes. Expected, over 24
sequences:

                final  general
    un-edited   0.073  1.000
    merge       0.115  0.211
    gate        0.241  0.584
    replay      0.233  0.353
    kl          0.278  0.546
    orthogonal  0.158  0.359
    keep        0.444  0.998
    best        0.125  0.214
    penalty     0.120  0.215
"""

from ml_collections import ConfigDict

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


# Related keys share a line.
# fmt: off
def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "tiny" or "debug"."""
    if arg not in (None, "", "tiny", "debug"):
        raise ValueError(
            f"configs/continual.py:{arg}: the variants are '', 'tiny' and 'debug'"
        )
    config = ConfigDict(dict(
        seed=0,
        mesh=dict(data=0, model=1),
        watch=dict(writers=("tensorboard",), project="seal"),
        model=dict(
            path="Qwen/Qwen2.5-7B", random_weights=False, dtype="bfloat16",
            base_dtype="same", kernel="auto", attention="auto", chat="none",
        ),
        # Sequences are cut from `train`, the probes of general ability from `heldout`,
        # here behind the passages on which configs/squad.py trains its policy.
        task=dict(
            name="squad", shuffle_seed=42, forward_share=0.0,
            train="rajpurkar/squad", train_split="validation", train_start=0,
            heldout="rajpurkar/squad", heldout_split="train", heldout_start=1000,
        ),
        sequence=dict(count=64, passages=8, probes=10),
        propose=dict(
            prompt="implications", temperature=1.0, top_p=0.95, top_k=0,
            min_tokens=1, max_tokens=2048, prompt_multiple=128, batch=64,
        ),
        edit=dict(split="lines", quirks="fixed"),
        inner=dict(
            lora=dict(targets=("q_proj", "v_proj"), rank=32, alpha=64.0),
            learning_rate=1e-3, epochs=10, clip=1.0,
            loss=dict(mode="reference", pad_to=2048, pad_samples=8),
            tile=1, row_tokens=1024, step_tokens=0, slots=0, active=0,
            chunk_tokens=512, pool=0, rule="edits",
        ),
        answer=dict(
            prompt="concise", temperature=0.0, top_p=1.0, top_k=0,
            min_tokens=0, max_tokens=64, prompt_multiple=32, batch=384,
        ),
        # A judge: see configs/squad.py.
        grade=dict(name="recall", threshold=0.6, max_missing=0.02),
        # The gate's values are those of STABLE. "kl" needs inner.loss.mode=masked.
        retain=dict(
            replay=8, kl=1.0, kl_texts=64, kl_tokens=64, orthogonal=0.5,
            gate_budget=0.07, gate_steps=5, gate_least=0.1, keep_floor=0.4,
            candidates=5, penalty=1.0,
        ),
        # The rows, as the head of this file tells them.
        arms=("in_context", "merge"),
    ))
    if arg in ("tiny", "debug"):
        tiny(config)
    return debug(config) if arg == "debug" else config


def tiny(config: ConfigDict) -> None:
    """The generated world and the embedded model, with the settings of tiny.py."""
    config.update(dict(
        model=dict(path="embedded:tiny", dtype="float32"),
        task=dict(
            name="world", forward_share=0.2, train="", train_split="",
            heldout="", heldout_split="", heldout_start=0,
        ),
        sequence=dict(count=24),
        propose=dict(
            prompt="plain", top_p=1.0, min_tokens=0, max_tokens=64, prompt_multiple=64,
            batch=120,
        ),
        # All sequences step together, and no more: a place in a step costs what it
        # costs, used or not.
        inner=dict(
            lora=dict(targets=ALL, rank=4, alpha=8.0), learning_rate=1e-2,
            loss=dict(mode="masked", pad_to=128, pad_samples=0),
            tile=4, row_tokens=64, step_tokens=384, slots=24, active=24,
            chunk_tokens=0, pool=120,
        ),
        answer=dict(prompt="plain", max_tokens=4, prompt_multiple=20, batch=720),
        # Chosen on seed 1.
        retain=dict(
            replay=16, kl=4.0, kl_tokens=32, orthogonal=10.0, gate_budget=0.02,
            keep_floor=0.45, candidates=3,
        ),
        arms=(
            "in_context", "merge", "gate", "replay", "kl", "orthogonal", "keep", "best",
            "penalty",
        ),
    ))
    config.task.shuffle_seed = config.get_ref("seed")


def debug(config: ConfigDict) -> ConfigDict:
    """Every stage, on two sequences of two passages."""
    config.update(dict(
        sequence=dict(count=2, passages=2, probes=2),
        propose=dict(batch=4),
        inner=dict(
            lora=dict(targets=("q_proj", "v_proj")), epochs=2,
            slots=4, active=4, pool=4,
        ),
        answer=dict(batch=24),
        retain=dict(kl_texts=4, kl_tokens=16, gate_steps=1, candidates=2),
        arms=("in_context", "merge", "replay+gate", "keep"),
    ))
    return config
