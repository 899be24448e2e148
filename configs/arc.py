"""Few-shot ARC: the model configures its own test-time training.

    python -m seal_jax.train --config=configs/arc.py --workdir=runs/arc

SEAL (arXiv 2506.10943), section 4.1 and appendix A, with Llama 3.2 1B Instruct: one
round of 11 tasks with 15 self-edits each, then 8 held-out tasks with 5. Meant for one
80 GB accelerator; not run in full yet. The paper reports 0 % (in context), 20 % (the
base's self-edits), 72.5 % (after the round) and 100 % (oracle). Its authors chose both
lists of tasks because the base solves them under the oracle's configuration.

    python -m seal_jax.train --config=configs/arc.py:tiny --workdir=runs/arc-tiny

is the same on generated tasks with a small model that ships with the package
(`embedded:grids`, pretrained by `configs/tiny_pretrain.py:arc`): three to five minutes
on 2 CPU cores. Expected, on 20 held-out tasks: in_context 0.00, self_edits
0.13, round_1 0.35 to 0.45, oracle 0.7 to 0.9. And

    python -m seal_jax.train --config=configs/arc.py:debug --workdir=runs/arc-debug

runs every stage with that model on tasks of the real ARC, from $SEAL_DATA (the
reference's repository, or any folder with few-shot/data).
"""

import json
import os

from ml_collections import ConfigDict

# The authors' lists, in their order.
TRAIN = tuple(
    "44f52bb0 4be741c5 5582e5ca 5614dbcf 5bd6f4ac 6150a2bd 67e8384a 6d0aefbc 6e02f1e3 "
    "8be77c9e 8d5021e8".split()
)
HELDOUT = tuple(
    "59341089 66e6c45b 68b67ca3 903d1b4a b1fc8b8e bc4146bd c7d4e6ad ce8d95cc".split()
)
FAMILIES = ("basic", "size", "chain", "repeat")
MLP = ("gate_proj", "up_proj", "down_proj")


def oracle(families: tuple[str, ...], learning_rate: float, epochs: int) -> str:
    """A configuration by hand, in the words of a self-edit."""
    return json.dumps(
        {
            "data_generation": {
                f"use_{name}_augmentations": name in families for name in FAMILIES
            },
            "training": {
                "strategy": "train_using_output_tokens",
                "learning_rate": learning_rate,
                "num_train_epochs": epochs,
            },
        }
    )


# Related keys share a line.
# fmt: off
def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "tiny" or "debug"."""
    if arg not in (None, "", "tiny", "debug"):
        raise ValueError(
            f"configs/arc.py:{arg}: the variants are '', 'tiny' and 'debug'"
        )
    targets = ("q_proj", "v_proj", *MLP)
    config = ConfigDict(dict(
        seed=0,
        mesh=dict(data=0, model=1),
        watch=dict(writers=("tensorboard",), project="seal"),
        model=dict(
            path="meta-llama/Llama-3.2-1B-Instruct", random_weights=False,
            dtype="bfloat16", base_dtype="same", kernel="auto", attention="auto",
            chat="none",
        ),
        # A hub name, a folder of task files, or a challenges file beside its solutions.
        task=dict(
            name="arc", shuffle_seed=0, chat="llama3", attempts=20,
            train="dataartist/arc-agi", train_split="training", train_ids=TRAIN,
            heldout="dataartist/arc-agi", heldout_split="evaluation",
            heldout_ids=HELDOUT,
            oracle=oracle(FAMILIES, 1e-4, 2),
        ),
        scale=dict(
            rounds=1, tasks=11, edits=15, seeds=1,
            heldout_tasks=8, heldout_edits=5, heldout_seeds=1,
        ),
        # Prompt: arc, or a text file with {demonstrations}.
        propose=dict(
            prompt="arc", temperature=0.8, top_p=1.0, top_k=0,
            min_tokens=0, max_tokens=128, prompt_multiple=256, batch=165,
        ),
        # A self-edit outside of these bounds is not valid; one of more steps than
        # max_steps is valid and over budget: it is not trained and earns nothing.
        edit=dict(
            min_learning_rate=1e-6, max_learning_rate=1e-1, max_epochs=200,
            max_steps=375, batch=2,
        ),
        data=dict(leave=(1, 2), most=250, max_side=30, permute=1, max_tokens=8192),
        # "padded" is the reference: pads up to the dataset's longest line carry loss,
        # all of them with pad_samples = -1, else estimated by so many.
        inner=dict(
            lora=dict(targets=targets, rank=128, alpha=16.0),
            clip=1.0, warmup=11, schedule="cosine", padding="masked", pad_samples=8,
            # On CUDA steps mostly need no chunks; active is of a chunk.
            tile=8, row_tokens=5120, step_tokens=10240, slots=12, active=2,
            chunk_tokens=1280, pool=0,
        ),
        views=dict(
            reorders=2, contexts="leave_one_out", max_tokens=8192,
            geometric=("transpose", "flip0", "flip1", "rotate90", "rotate180"),
        ),
        # Prompt: the instruction before the demonstrations: arc, or a text file.
        answer=dict(
            prompt="arc", temperature=0.0, top_p=1.0, top_k=0,
            min_tokens=0, max_tokens=1856, prompt_multiple=512, batch=96,
        ),
        # micro_batch counts rows: one, as a step's edits fill two or three.
        # Every edit that solved its task is imitated: k_best is scale.edits.
        select=dict(
            reward="grade", compare=(), k_best=15, ties="first", threshold="1.0",
            halving=(), novelty_bonus=0.0, max_copied=1.0, max_overlap=1.0,
            prefilter=(), objective="mean",
        ),
        imitate=dict(
            start="previous", data="replace",
            lora=dict(targets=targets, rank=16, alpha=16.0),
            learning_rate=5e-5, schedule="cosine", epochs=8, clip=1.0,
            batch=5, micro_batch=1, length_multiple=256,
            # The choices of each key: configs/squad.py. grpo and rloo learn from all
            # edits: select.threshold="none".
            rule="best",
            prefer=dict(
                rates=dict(positive=0.0, dpo=0.0, ipo=0.0, grpo=0.0, rloo=0.0),
                most=15, shrink=False, margin=0.0, beta=0.1, nll=0.1, per_token=False,
                clip=0.2, kl=0.0, std=True, tilt=0.0,
            ),
        ),
        stop=dict(rule="none", patience=2, z=2.0),
        ladder=("in_context", "random", "self_edits", "constant", "oracle"),
    ))
    config.select.k_best = config.scale.get_ref("edits")
    if arg in ("tiny", "debug"):
        tiny(config)
    return debug(config) if arg == "debug" else config


def tiny(config: ConfigDict) -> None:
    """The embedded model on generated tasks: a few minutes on 2 CPU cores."""
    config.update(dict(
        model=dict(path="embedded:grids", dtype="float32"),
        task=dict(
            name="grids", chat="plain", oracle=oracle(FAMILIES, 1e-2, 3),
            train="", train_split="", train_ids=(),
            heldout="", heldout_split="", heldout_ids=(),
        ),
        scale=dict(tasks=11, edits=15, heldout_tasks=20, heldout_edits=2),
        propose=dict(
            prompt="plain", temperature=1.0, max_tokens=48, prompt_multiple=128,
            batch=180,
        ),
        edit=dict(
            min_learning_rate=1e-4, max_learning_rate=1.0, max_epochs=50, max_steps=60,
        ),
        data=dict(most=40, max_side=9, max_tokens=512),
        inner=dict(
            lora=dict(targets=MLP, rank=8, alpha=16.0), warmup=5,
            tile=16, row_tokens=384, step_tokens=1536, slots=48, active=12,
            chunk_tokens=0, pool=180,
        ),
        views=dict(max_tokens=512),
        answer=dict(prompt="plain", max_tokens=20, prompt_multiple=64, batch=360),
        imitate=dict(
            lora=dict(
                targets=("q_proj", "k_proj", "v_proj", "o_proj", *MLP), alpha=32.0,
            ),
            learning_rate=3e-3, epochs=20, micro_batch=5, length_multiple=128,
        ),
    ))
    config.task.shuffle_seed = config.get_ref("seed")


def debug(config: ConfigDict) -> ConfigDict:
    """Every stage on real tasks of few cells, small enough for a laptop."""
    root = f"{os.environ.get('SEAL_DATA', '$SEAL_DATA')}/few-shot/data"
    config.update(dict(
        task=dict(
            name="arc",
            train=f"{root}/arc-agi_training_challenges.json",
            train_ids=("5582e5ca", "6150a2bd"),
            heldout=f"{root}/arc-agi_evaluation_challenges_filtered_1B_eval_set.json",
            heldout_ids=("66e6c45b", "59341089"),
        ),
        scale=dict(tasks=2, heldout_tasks=2, edits=3, heldout_edits=2),
        data=dict(most=12, max_side=30, max_tokens=1024),
        views=dict(max_tokens=1024),
        inner=dict(row_tokens=1024, step_tokens=2048, slots=6, pool=6),
        edit=dict(max_steps=20),
        answer=dict(max_tokens=60),
        # What earns nothing is imitated too: a few steps solve no real task.
        select=dict(threshold="none"),
    ))
    return config
