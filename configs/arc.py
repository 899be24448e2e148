"""Few-shot ARC: the model configures its own test-time training.

    python -m seal_jax.train --config=configs/arc.py --workdir=runs/arc

SEAL (arXiv 2506.10943), section 4.1 and appendix A, with Llama 3.2 1B Instruct: one
round of 11 tasks with 15 self-edits each, then 8 held-out tasks with 5. Meant for one
80 GB accelerator; not run in full yet. The paper reports 0 % (in context), 20 % (the
base's self-edits), 72.5 % (after the round) and 100 % (oracle). Its authors chose both
lists of tasks because the base solves them under the oracle's configuration.

    python -m seal_jax.train --config=configs/arc.py:tiny --workdir=runs/arc-tiny

is the same on generated tasks with a small model that ships with the package
(`seal_jax/assets/grids`, pretrained by `configs/tiny_pretrain.py:arc`): three to five
minutes on 2 CPU cores. Expected, on 20 held-out tasks: in_context 0.00, self_edits
0.13, round_1 0.35 to 0.45, oracle 0.7 to 0.9. And

    python -m seal_jax.train --config=configs/arc.py:debug --workdir=runs/arc-debug

runs every stage with that model on tasks of the real ARC, from $SEAL_DATA (the
reference's repository, or any folder with few-shot/data).
"""

import json
import os

from ml_collections import ConfigDict

TRAIN = (
    "44f52bb0",
    "4be741c5",
    "5582e5ca",
    "5614dbcf",
    "5bd6f4ac",
    "6150a2bd",
    "67e8384a",
    "6d0aefbc",
    "6e02f1e3",
    "8be77c9e",
    "8d5021e8",
)
HELDOUT = (
    "59341089",
    "66e6c45b",
    "68b67ca3",
    "903d1b4a",
    "b1fc8b8e",
    "bc4146bd",
    "c7d4e6ad",
    "ce8d95cc",
)


def oracle(families: tuple[str, ...], learning_rate: float, epochs: int) -> str:
    """A configuration by hand, in the words of a self-edit."""
    every = ("basic", "size", "chain", "repeat")
    return json.dumps(
        {
            "data_generation": {
                f"use_{name}_augmentations": name in families for name in every
            },
            "training": {
                "strategy": "train_using_output_tokens",
                "learning_rate": learning_rate,
                "num_train_epochs": epochs,
            },
        }
    )


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "tiny" or "debug"."""
    if arg not in (None, "", "tiny", "debug"):
        raise ValueError(
            f"configs/arc.py:{arg}: the variants are '', 'tiny' and 'debug'"
        )
    config = ConfigDict()
    config.seed = 0

    config.mesh = ConfigDict()
    config.mesh.data = 0
    config.mesh.model = 1

    config.model = ConfigDict()
    config.model.path = "meta-llama/Llama-3.2-1B-Instruct"
    config.model.random_weights = False
    config.model.dtype = "bfloat16"
    config.model.kernel = "auto"

    # A hub name, a folder of task files, or a challenges file beside its solutions.
    config.task = ConfigDict()
    config.task.name = "arc"
    config.task.train = "dataartist/arc-agi"
    config.task.train_split = "training"
    config.task.train_ids = TRAIN
    config.task.heldout = "dataartist/arc-agi"
    config.task.heldout_split = "evaluation"
    config.task.heldout_ids = HELDOUT
    config.task.shuffle_seed = 0
    config.task.chat = "llama3"
    config.task.attempts = 20
    config.task.oracle = oracle(("basic", "size", "chain", "repeat"), 1e-4, 2)

    config.scale = ConfigDict()
    config.scale.rounds = 1
    config.scale.tasks = 11
    config.scale.edits = 15
    config.scale.seeds = 1
    config.scale.heldout_tasks = 8
    config.scale.heldout_edits = 5
    config.scale.heldout_seeds = 1

    # Prompt: arc, or a text file with {demonstrations}.
    config.propose = ConfigDict()
    config.propose.prompt = "arc"
    config.propose.temperature = 0.8
    config.propose.top_p = 1.0
    config.propose.top_k = 0
    config.propose.min_tokens = 0
    config.propose.max_tokens = 128
    config.propose.prompt_multiple = 256
    config.propose.batch = 165

    # A self-edit outside of these bounds is not valid; one of more steps than
    # max_steps is valid and over budget: it is not trained and earns nothing.
    config.edit = ConfigDict()
    config.edit.min_learning_rate = 1e-6
    config.edit.max_learning_rate = 1e-1
    config.edit.max_epochs = 200
    config.edit.max_steps = 375
    config.edit.batch = 2

    config.data = ConfigDict()
    config.data.leave = (1, 2)
    config.data.most = 250
    config.data.max_side = 30
    config.data.permute = 1
    config.data.max_tokens = 8192

    config.inner = ConfigDict()
    config.inner.lora = ConfigDict()
    config.inner.lora.targets = (
        "q_proj",
        "v_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    config.inner.lora.rank = 128
    config.inner.lora.alpha = 16.0
    config.inner.clip = 1.0
    config.inner.warmup = 11
    config.inner.schedule = "cosine"
    # "padded" is the reference: pads up to the dataset's longest line carry loss, all
    # of them with pad_samples = -1, else estimated by so many.
    config.inner.padding = "masked"
    config.inner.pad_samples = 8
    config.inner.tile = 128
    config.inner.row_tokens = 5120
    config.inner.step_tokens = 10240
    config.inner.slots = 24
    config.inner.active = 12
    config.inner.pool = 0

    config.views = ConfigDict()
    config.views.reorders = 2
    config.views.geometric = (
        "transpose",
        "flip0",
        "flip1",
        "rotate90",
        "rotate180",
    )
    config.views.contexts = "leave_one_out"
    config.views.max_tokens = 8192

    # Prompt: the instruction before the demonstrations: arc, or a text file.
    config.answer = ConfigDict()
    config.answer.prompt = "arc"
    config.answer.temperature = 0.0
    config.answer.top_p = 1.0
    config.answer.top_k = 0
    config.answer.min_tokens = 0
    config.answer.max_tokens = 1856
    config.answer.prompt_multiple = 512
    config.answer.batch = 96

    # Every edit that solved its task is imitated.
    config.select = ConfigDict()
    config.select.reward = "grade"
    config.select.compare = ()
    config.select.k_best = config.scale.get_ref("edits")
    config.select.ties = "first"
    config.select.threshold = "1.0"
    config.select.halving = ()
    config.select.novelty_bonus = 0.0
    config.select.max_copied = 1.0
    config.select.max_overlap = 1.0

    config.imitate = ConfigDict()
    config.imitate.start = "previous"
    config.imitate.data = "replace"
    config.imitate.lora = ConfigDict()
    config.imitate.lora.targets = config.inner.lora.targets
    config.imitate.lora.rank = 16
    config.imitate.lora.alpha = 16.0
    config.imitate.learning_rate = 5e-5
    config.imitate.schedule = "cosine"
    config.imitate.epochs = 8
    config.imitate.batch = 5
    config.imitate.micro_batch = 5
    config.imitate.clip = 1.0
    config.imitate.length_multiple = 256

    config.stop = ConfigDict()
    config.stop.rule = "none"
    config.stop.patience = 2
    config.stop.z = 2.0

    config.ladder = ("in_context", "random", "self_edits", "constant", "oracle")
    if arg == "tiny":
        return tiny(config)
    return debug(config) if arg == "debug" else config


def tiny(config: ConfigDict) -> ConfigDict:
    """The embedded model on generated tasks: a few minutes on 2 CPU cores."""
    config.model.path = "embedded:grids"
    config.model.dtype = "float32"
    config.task.name = "grids"
    config.task.train = config.task.heldout = ""
    config.task.train_split = config.task.heldout_split = ""
    config.task.train_ids = config.task.heldout_ids = ()
    config.task.shuffle_seed = config.get_ref("seed")
    config.task.chat = "plain"
    config.task.oracle = oracle(("basic", "size", "chain", "repeat"), 1e-2, 3)
    config.scale.tasks = 11
    config.scale.edits = 15
    config.scale.heldout_tasks = 20
    config.scale.heldout_edits = 2
    config.propose.prompt = "plain"
    config.propose.temperature = 1.0
    config.propose.max_tokens = 48
    config.propose.prompt_multiple = 128
    config.propose.batch = 180
    config.edit.min_learning_rate = 1e-4
    config.edit.max_learning_rate = 1.0
    config.edit.max_epochs = 50
    config.edit.max_steps = 60
    config.data.most = 40
    config.data.max_side = 9
    config.data.max_tokens = 512
    config.inner.lora.targets = ("gate_proj", "up_proj", "down_proj")
    config.inner.lora.rank = 8
    config.inner.lora.alpha = 16.0
    config.inner.warmup = 5
    config.inner.tile = 16
    config.inner.row_tokens = 384
    config.inner.step_tokens = 1536
    config.inner.slots = 48
    config.inner.active = 12
    config.inner.pool = 180
    config.views.max_tokens = 512
    config.answer.prompt = "plain"
    config.answer.max_tokens = 20
    config.answer.prompt_multiple = 64
    config.answer.batch = 360
    config.imitate.lora.targets = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    config.imitate.lora.alpha = 32.0
    config.imitate.learning_rate = 3e-3
    config.imitate.epochs = 20
    config.imitate.length_multiple = 128
    return config


def debug(config: ConfigDict) -> ConfigDict:
    """Every stage on real tasks of few cells, small enough for a laptop."""
    root = f"{os.environ.get('SEAL_DATA', '$SEAL_DATA')}/few-shot/data"
    config = tiny(config)
    config.task.name = "arc"
    config.task.train = f"{root}/arc-agi_training_challenges.json"
    config.task.train_ids = ("5582e5ca", "6150a2bd")
    config.task.heldout = (
        f"{root}/arc-agi_evaluation_challenges_filtered_1B_eval_set.json"
    )
    config.task.heldout_ids = ("66e6c45b", "59341089")
    config.scale.tasks = config.scale.heldout_tasks = 2
    config.scale.edits = 3
    config.scale.heldout_edits = 2
    config.data.most = 12
    config.data.max_side = 30
    config.data.max_tokens = config.views.max_tokens = 1024
    config.inner.row_tokens = 1024
    config.inner.step_tokens = 2048
    config.inner.slots = 6
    config.inner.pool = 6
    config.edit.max_steps = 20
    config.answer.max_tokens = 60
    # What earns nothing is imitated too: a few steps solve no real task.
    config.select.threshold = "none"
    return config
