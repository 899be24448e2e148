"""The paper's setting: knowledge incorporation on SQuAD with Qwen2.5-7B.

    python -m seal_jax.train --config=configs/squad.py --workdir=runs/squad

SEAL (arXiv 2506.10943), section 4.2 and appendix B: two rounds of 50 passages, 5
self-edits each, 3 adapters per edit; then 200 held-out passages, one edit, one adapter.
Meant for one 80 GB accelerator; not run in full yet.

The paper reports 32.7 % (base), 33.5 (passage only), 39.7 (the base's self-edits), 43.7
(round 1) and 47.0 (round 2), graded by GPT-4.1; the local grader used here by default
agrees with those verdicts on about 86 % of answers.

Where the reference differs from its paper, this file follows the code: the inner LoRA
is on q_proj and v_proj, and generation stops at 2048 new tokens.

    python -m seal_jax.train --config=configs/squad.py:debug --workdir=runs/debug

runs every stage on a CPU in about two minutes, on real passages with a small random
model of bytes. It reads squad_val.json of the reference from $SEAL_DATA (its
repository, or any folder with knowledge-incorporation/data/squad_val.json).
"""

import os

from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, or "debug"."""
    if arg not in (None, "", "debug"):
        raise ValueError(f"configs/squad.py:{arg}: the variants are '' and 'debug'")
    config = ConfigDict()
    config.seed = 0

    config.mesh = ConfigDict()
    config.mesh.data = 0
    config.mesh.model = 1

    config.model = ConfigDict()
    config.model.path = "Qwen/Qwen2.5-7B"
    config.model.random_weights = False
    config.model.dtype = "bfloat16"
    config.model.kernel = "auto"

    # A hub name, or a JSON file in SEAL's format (squad_train.json, squad_val.json).
    config.task = ConfigDict()
    config.task.name = "squad"
    config.task.train = "rajpurkar/squad"
    config.task.train_split = "train"
    config.task.train_start = 0
    config.task.heldout = "rajpurkar/squad"
    config.task.heldout_split = "validation"
    config.task.heldout_start = 0
    config.task.shuffle_seed = 42
    config.task.forward_share = 0.0

    config.scale = ConfigDict()
    config.scale.rounds = 2
    config.scale.passages = 50
    config.scale.edits = 5
    config.scale.seeds = 3
    config.scale.heldout_passages = 200
    config.scale.heldout_edits = 1
    config.scale.heldout_seeds = 1

    # Prompts: implications, implications-long, implications-very-long, rewrite,
    # self-qa, or a text file with {title} and {passage}.
    config.propose = ConfigDict()
    config.propose.prompt = "implications"
    config.propose.temperature = 1.0
    config.propose.top_p = 0.95
    config.propose.top_k = 0
    config.propose.min_tokens = 1
    config.propose.max_tokens = 2048
    config.propose.prompt_multiple = 128
    config.propose.batch = 64

    config.edit = ConfigDict()
    config.edit.split = "lines"
    config.edit.quirks = "fixed"

    config.inner = ConfigDict()
    config.inner.lora = ConfigDict()
    config.inner.lora.targets = ("q_proj", "v_proj")
    config.inner.lora.rank = 32
    config.inner.lora.alpha = 64.0
    config.inner.learning_rate = 1e-3
    config.inner.epochs = 10
    config.inner.clip = 1.0
    config.inner.loss = ConfigDict()
    config.inner.loss.mode = "reference"
    config.inner.loss.pad_to = 2048
    config.inner.loss.pad_samples = 8
    # Sizes of 0 are chosen from the compiled program and the device's memory.
    # SQuAD's longest passages take nearly 1000 tokens.
    config.inner.tile = 16
    config.inner.row_tokens = 1024
    config.inner.step_tokens = 0
    config.inner.slots = 0
    config.inner.active = 0
    config.inner.pool = 0

    config.answer = ConfigDict()
    config.answer.prompt = "concise"
    config.answer.temperature = 0.0
    config.answer.top_p = 1.0
    config.answer.top_k = 0
    config.answer.min_tokens = 0
    config.answer.max_tokens = 64
    config.answer.prompt_multiple = 32
    config.answer.batch = 384

    # The judge is any OpenAI-compatible endpoint; it is used with grade.name=judge.
    config.grade = ConfigDict()
    config.grade.name = "recall"
    config.grade.threshold = 0.6
    config.grade.max_missing = 0.02
    config.grade.judge = ConfigDict()
    config.grade.judge.base_url = "https://api.openai.com/v1"
    config.grade.judge.model = "gpt-4.1-2025-04-14"
    config.grade.judge.concurrency = 16
    config.grade.judge.retries = 4
    config.grade.judge.timeout_s = 60.0
    config.grade.judge.api_key_env = "OPENAI_API_KEY"
    config.grade.judge.temperature = 0.0
    config.grade.judge.backoff_s = 1.0

    # For rewards that take no gold answers. rubric: rules, or judge (grade.judge).
    config.label_free = ConfigDict()
    config.label_free.rubric = "rules"
    config.label_free.questions = 10
    config.label_free.quiz = ConfigDict()
    config.label_free.quiz.prompt = "ask"
    config.label_free.quiz.temperature = 1.0
    config.label_free.quiz.top_p = 0.95
    config.label_free.quiz.top_k = 0
    config.label_free.quiz.min_tokens = 0
    config.label_free.quiz.max_tokens = 512
    config.label_free.quiz.prompt_multiple = 128
    config.label_free.quiz.batch = config.propose.batch

    # reward, and more to compare: grade, log_likelihood, majority, self_asked, rubric.
    # ties: first, shortest, random. threshold: none, baseline, or a number in quotes.
    # halving: (seeds, keep) pairs, as ((1, 3), (2, 2), (4, 1)) with scale.seeds = 4.
    config.select = ConfigDict()
    config.select.reward = "grade"
    config.select.compare = ()
    config.select.k_best = 1
    config.select.ties = "first"
    config.select.threshold = "none"
    config.select.halving = ()
    config.select.novelty_bonus = 0.0
    config.select.max_copied = 1.0
    config.select.max_overlap = 1.0

    # start: previous or base. data: replace or accumulate.
    config.imitate = ConfigDict()
    config.imitate.start = "previous"
    config.imitate.data = "replace"
    config.imitate.lora = ConfigDict()
    config.imitate.lora.targets = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    config.imitate.lora.rank = 64
    config.imitate.lora.alpha = 128.0
    config.imitate.learning_rate = 3e-4
    config.imitate.schedule = "linear"
    config.imitate.epochs = 2
    config.imitate.batch = 10
    config.imitate.micro_batch = 1
    config.imitate.clip = 1.0
    config.imitate.length_multiple = 256

    # rule: none, regression, or plateau (either).
    config.stop = ConfigDict()
    config.stop.rule = "none"
    config.stop.patience = 2
    config.stop.z = 2.0

    config.ladder = ("base", "passage_only", "self_edits")
    return debug(config) if arg == "debug" else config


def debug(config: ConfigDict) -> ConfigDict:
    """Every stage, on real passages, small enough for a laptop."""
    root = os.environ.get("SEAL_DATA", "$SEAL_DATA")
    passages = f"{root}/knowledge-incorporation/data/squad_val.json"
    config.model.path = "embedded:debug"
    config.model.random_weights = True
    config.model.dtype = "float32"
    config.task.train = config.task.heldout = passages
    config.task.train_start = 200
    config.scale.passages = 3
    config.scale.edits = 2
    config.scale.seeds = 2
    config.scale.heldout_passages = 3
    config.propose.max_tokens = 160
    config.propose.prompt_multiple = 1024
    config.propose.batch = 6
    config.label_free.quiz.max_tokens = 160
    config.label_free.quiz.prompt_multiple = 1024
    config.label_free.quiz.batch = 3
    config.inner.lora.rank = 4
    config.inner.lora.alpha = 8.0
    config.inner.epochs = 2
    config.inner.row_tokens = 2048
    config.inner.step_tokens = 4096
    config.inner.slots = 4
    config.answer.max_tokens = 16
    config.answer.prompt_multiple = 128
    config.answer.batch = 24
    config.imitate.lora.rank = 4
    config.imitate.lora.alpha = 8.0
    config.imitate.batch = 3
    config.imitate.length_multiple = 1024
    return config
