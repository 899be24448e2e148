"""Self-improvement without labels: a policy learns chains that most of it agrees on.

    python -m seal_jax.train --config=configs/lmsi.py --config.task.train=FILE \
        --config.task.heldout=FILE --workdir=runs/lmsi

Huang et al. 2022 (arXiv 2210.11610): for each question, of which no answer is read,
`chains.samples` chains of thought are drawn; those that reach the answer that most of
them reach are all kept, written in four formats, and the policy is fine-tuned on them;
`scale.rounds` times. Questions are rows of a file with the columns `task.question` and
`task.answer`, in GSM8K's form or with the answer alone. With a way to the hub,

    --config.task.train=openai/gsm8k:main --config.task.train_split=train
    --config.task.heldout=openai/gsm8k:main --config.task.heldout_split=test

Real sizes are meant for one 80 GB accelerator and have not been run. The paper's own
are 32 chains at temperature 0.7, 10,000 steps of 32 rows at a rate of 5e-5.

    python -m seal_jax.train --config=configs/lmsi.py:tiny --workdir=runs/lmsi_tiny

does it on a generated world of two-hop questions, with an embedded model that was
pretrained for it, in 4 to 6 minutes on one core. Over seeds 20 to 22 the questions that
were trained on are answered without a chain 0.28 of the time before and 0.65 after,
held-out ones 0.26 before and 0.25 after: docs/findings.md, "Without labels".
"""

from ml_collections import ConfigDict

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


# Related keys share a line.
# fmt: off
def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "tiny" or "debug"."""
    if arg not in (None, "", "tiny", "debug"):
        raise ValueError(
            f"configs/lmsi.py:{arg}: the variants are '', 'tiny' and 'debug'"
        )
    config = ConfigDict(dict(
        seed=0,
        mesh=dict(data=0, model=1),
        watch=dict(writers=("tensorboard",), project="seal"),
        model=dict(
            path="Qwen/Qwen2.5-7B", random_weights=False, dtype="bfloat16",
            base_dtype="same", kernel="auto", attention="auto", chat="none",
        ),
        # "rows" of files or of the hub, or "hops", a generated world. `examples`: a
        # file of worked questions that prompts show; empty: four about numbers.
        task=dict(
            name="rows", question="question", answer="answer", examples="",
            train="", train_split="", train_start=0,
            heldout="", heldout_split="", heldout_start=0,
            shuffle_seed=42,
        ),
        # scale.heldout=0 holds nothing out; then no gold answer is needed.
        scale=dict(rounds=2, questions=2000, heldout=500),
        # threshold: the least share of a majority that is learned from, 0 takes all.
        # cap: chains kept of a question, 0 keeps all.
        chains=dict(
            samples=32, threshold=0.0, cap=0, shots=4,
            formats=("few_chain", "few_direct", "zero_chain", "zero_direct"),
        ),
        # Chains; prompts are "plain" or "instruct", which says the form in words.
        propose=dict(
            prompt="instruct", temperature=0.7, top_p=1.0, top_k=0,
            min_tokens=1, max_tokens=256, prompt_multiple=128, batch=256,
        ),
        # start="previous" trains on the policy of the round before, "base" on the first
        # one; data="accumulate" on the rows of all rounds so far.
        imitate=dict(
            rule="best", start="previous", data="replace",
            lora=dict(targets=ALL, rank=64, alpha=128.0),
            learning_rate=5e-5, schedule="linear", epochs=1, batch=32, micro_batch=2,
            clip=1.0, length_multiple=512,
        ),
        # The greedy rows.
        answer=dict(
            prompt="instruct", temperature=0.0, top_p=1.0, top_k=0,
            min_tokens=0, max_tokens=256, prompt_multiple=128, batch=256,
        ),
        # What is learned: "majority"; "random_chain", as many chains drawn at random, a
        # control; "gold", the chains that reach the gold answer, an oracle.
        arms=("majority",),
    ))
    if arg in ("tiny", "debug"):
        tiny(config)
    return debug(config) if arg == "debug" else config


def tiny(config: ConfigDict) -> None:
    """The embedded model of two-hop questions and its world."""
    config.update(dict(
        model=dict(path="embedded:hops", dtype="float32"),
        task=dict(name="hops"),
        scale=dict(questions=96, heldout=96),
        chains=dict(samples=8, cap=3, shots=1),
        propose=dict(
            prompt="plain", temperature=1.0, min_tokens=0, max_tokens=32,
            prompt_multiple=32, batch=192,
        ),
        imitate=dict(
            lora=dict(rank=16, alpha=32.0), learning_rate=4e-3, epochs=2,
            micro_batch=8, length_multiple=64,
        ),
        answer=dict(prompt="plain", max_tokens=32, prompt_multiple=32, batch=192),
        arms=("majority", "random_chain", "gold"),
    ))
    config.task.shuffle_seed = config.get_ref("seed")


def debug(config: ConfigDict) -> ConfigDict:
    """Every stage, in about a minute."""
    config.update(dict(
        scale=dict(questions=8, heldout=8),
        chains=dict(samples=4),
        propose=dict(batch=16),
        imitate=dict(epochs=1),
        answer=dict(batch=16),
    ))
    return config
