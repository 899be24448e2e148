"""Many passages at once: one model learns the self-edits of 200 and answers for all.

    python -m seal_jax.train --config=configs/squad_cpt.py --workdir=runs/cpt

SEAL (arXiv 2506.10943), section 4.2, "continued pretraining", as its first version did
it: 5 self-edits for each of 200 passages, each a document beside its passage, and one
adapter trained on all 2000 texts for 750 steps. Meant for one 80 GB accelerator; not
run yet. The paper's first version reports 32.7 % (base), 32.2 (passages only), 41.0
(the base's self-edits) and 43.8 (those of the policy after two rounds).

The second version trains all weights and gets 36.0, 50.6 and 58.2 (31.2, 43.4 and 46.4
with all 2067 passages). Its settings are in `full`; weights, gradients and AdamW's
moments of 7.6e9 parameters are 122 GB together, so it takes more than one such
accelerator:

    --config.pool.how=full --config.pool.copies=once --config.pool.questions=500
    --config.mesh.model=4 --config.pool.passages=2067

Self-edits of another model than the one that learns are `--config.writer.path=DIR` (the
policy that configs/squad.py leaves), and those that SEAL's authors released
`--config.pool.edits_file=FILE --config.task.train=FILE`. A file with `:tiny` or
`:debug` also needs SQuAD's kind of task, which has no ideal edits, and passages short
enough for the embedded model:

    --config.task.name=squad
    --config.arms="('base', 'passage_only', 'sentence_split', 'self_edits')"

Otherwise than the reference, the end of a text is one token of loss, not padding up to
2048. A passage longer than `inner.row_tokens` is refused; only self-edits are cut
there, less than one in a hundred, and a row's `cut` in the summary is how many were.
All rows here are trained alike, at a rate of 1e-3 and 8 texts a step; of the published
ones 32.2 (passages only) had 1e-4, and 43.8 took 4 texts a step, without accumulation.

    python -m seal_jax.train --config=configs/squad_cpt.py:tiny --workdir=runs/cpt_tiny

does it on the embedded world, in one or two minutes on 2 CPU cores; add
`--config.pool.how=full` for all weights. `:debug` takes less than one. Expected with
seed 0 on 2 CPU cores, mean and standard error over the 48 passages:

                    adapter        all weights
    base            0.108 ± 0.016  0.108 ± 0.016
    passage_only    0.118 ± 0.017  0.142 ± 0.019
    sentence_split  0.174 ± 0.020  0.188 ± 0.023
    self_edits      0.521 ± 0.029  0.424 ± 0.024
    oracle          0.497 ± 0.035  0.503 ± 0.030
"""

from ml_collections import ConfigDict

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


# Related keys share a line.
# fmt: off
def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "tiny" or "debug"."""
    if arg not in (None, "", "tiny", "debug"):
        raise ValueError(
            f"configs/squad_cpt.py:{arg}: the variants are '', 'tiny' and 'debug'"
        )
    config = ConfigDict(dict(
        seed=0,
        mesh=dict(data=0, model=1),
        watch=dict(writers=("tensorboard",), project="seal"),
        model=dict(
            path="Qwen/Qwen2.5-7B", random_weights=False, dtype="bfloat16",
            base_dtype="same", kernel="auto", attention="auto", chat="none",
        ),
        # Who writes the self-edits; empty: the model itself.
        writer=dict(path=""),
        # Only the training side is read: the questions are about what was trained on.
        task=dict(
            name="squad", shuffle_seed=42, forward_share=0.0,
            train="rajpurkar/squad", train_split="validation", train_start=0,
            heldout="", heldout_split="", heldout_start=0,
        ),
        pool=dict(
            passages=200, edits=5, how="lora", copies="each", questions=0, seeds=1,
            edits_file="",
        ),
        propose=dict(
            prompt="implications", temperature=1.0, top_p=0.95, top_k=0,
            min_tokens=1, max_tokens=2048, prompt_multiple=128, batch=64,
        ),
        edit=dict(split="whole", quirks="fixed"),
        # Sizes of 0 are chosen from the compiled program and the device's memory. A
        # global step has inner.batch rows: with 2048 tokens each they would not fit
        # 80 GB.
        inner=dict(
            lora=dict(targets=("q_proj", "v_proj"), rank=32, alpha=64.0),
            learning_rate=1e-3, epochs=3, batch=8, warmup_share=0.0, clip=1.0,
            loss=dict(mode="masked", pad_to=2048, pad_samples=0),
            tile=8, row_tokens=1024, step_tokens=0, slots=0, active=0,
            chunk_tokens=0, pool=0, rule="edits",
        ),
        # Read with pool.how=full.
        full=dict(
            learning_rate=7e-5, epochs=1, batch=8, micro_batch=1, warmup_share=0.03,
            clip=1.0, length_multiple=256,
        ),
        answer=dict(
            prompt="concise", temperature=0.0, top_p=1.0, top_k=0,
            min_tokens=0, max_tokens=64, prompt_multiple=32, batch=384,
        ),
        # A judge: see configs/squad.py.
        grade=dict(name="recall", threshold=0.6, max_missing=0.02),
        arms=("base", "in_context", "passage_only", "sentence_split", "self_edits"),
    ))
    if arg in ("tiny", "debug"):
        tiny(config)
    return debug(config) if arg == "debug" else config


def tiny(config: ConfigDict) -> None:
    """The embedded model and its world; rates, rank and epochs are its own."""
    config.update(dict(
        model=dict(path="embedded:tiny", dtype="float32"),
        task=dict(name="world", train="", train_split="", forward_share=0.2),
        pool=dict(passages=48, edits=3, copies="once"),
        propose=dict(
            prompt="plain", top_p=1.0, min_tokens=0, max_tokens=64, prompt_multiple=64,
            batch=144,
        ),
        edit=dict(split="lines"),
        inner=dict(
            lora=dict(targets=ALL, rank=16, alpha=32.0),
            learning_rate=3e-3, epochs=10, loss=dict(pad_to=128),
            tile=4, row_tokens=64, step_tokens=512, slots=4, active=4, pool=4,
        ),
        full=dict(learning_rate=1e-3, epochs=10, micro_batch=2, length_multiple=64),
        answer=dict(prompt="plain", max_tokens=4, prompt_multiple=20, batch=288),
        arms=(
            "base", "in_context", "passage_only", "sentence_split", "self_edits",
            "oracle",
        ),
    ))
    config.task.shuffle_seed = config.get_ref("seed")


def debug(config: ConfigDict) -> ConfigDict:
    """Every stage, in less than a minute."""
    config.update(dict(
        pool=dict(passages=4, edits=2),
        inner=dict(epochs=2),
        full=dict(epochs=2),
        propose=dict(batch=8),
        answer=dict(batch=24),
    ))
    return config
