"""The embedded default: two SEAL rounds on a generated world, on a laptop's CPU.

    make demo
    python -m seal_jax.train --config=configs/tiny.py --workdir=runs/tiny

A 0.9M-parameter model that ships with the package (`seal_jax/assets/tiny`, pretrained
by `configs/tiny_pretrain.py`) reads passages about people and firms it has never met,
and learns to write self-edits that its own adapters learn from. Learning rates,
ranks and epochs are this model's own, not those of `configs/squad.py`.

    python -m seal_jax.train --config=configs/tiny.py:rounds --workdir=runs/rounds
    python -m seal_jax.train --config=configs/tiny.py:rewards --workdir=runs/rewards

`:rounds` goes on for eight rounds of 24 passages (`benchmarks/eight_rounds.py` runs it
in variants). `:rewards` is one round with 8 seeds for each edit in which every other
reward is measured beside the true one (`python -m seal_jax.agreement runs/rewards`).

On 2 CPU cores the first takes between two and four minutes. Expected, on 96 held-out
passages: base 0.07, passage_only 0.28, self_edits 0.46, round_1 0.66, round_2 0.77,
oracle 0.97.
"""

from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "rounds", "rewards", or "debug" for a run of about a minute."""
    if arg not in (None, "", "rounds", "rewards", "debug"):
        raise ValueError(
            f"configs/tiny.py:{arg}: the variants are '', 'rounds', 'rewards' and "
            "'debug'"
        )
    config = ConfigDict()
    config.seed = 0

    config.mesh = ConfigDict()
    config.mesh.data = 0
    config.mesh.model = 1

    config.model = ConfigDict()
    config.model.path = "embedded:tiny"
    config.model.random_weights = False
    config.model.dtype = "float32"
    config.model.kernel = "auto"

    config.task = ConfigDict()
    config.task.name = "world"
    config.task.train = ""
    config.task.train_split = ""
    config.task.train_start = 0
    config.task.heldout = ""
    config.task.heldout_split = ""
    config.task.heldout_start = 0
    config.task.shuffle_seed = config.get_ref("seed")
    config.task.forward_share = 0.2

    config.scale = ConfigDict()
    config.scale.rounds = 2
    config.scale.passages = 48
    config.scale.edits = 5
    config.scale.seeds = 2
    config.scale.heldout_passages = 96
    config.scale.heldout_edits = 1
    config.scale.heldout_seeds = 1

    config.propose = ConfigDict()
    config.propose.prompt = "plain"
    config.propose.temperature = 1.0
    config.propose.top_p = 1.0
    config.propose.top_k = 0
    config.propose.min_tokens = 0
    config.propose.max_tokens = 64
    config.propose.prompt_multiple = 64
    config.propose.batch = 240

    config.edit = ConfigDict()
    config.edit.split = "lines"
    config.edit.quirks = "fixed"

    config.inner = ConfigDict()
    config.inner.lora = ConfigDict()
    config.inner.lora.targets = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    config.inner.lora.rank = 4
    config.inner.lora.alpha = 8.0
    config.inner.learning_rate = 1e-2
    config.inner.epochs = 10
    config.inner.clip = 1.0
    config.inner.loss = ConfigDict()
    config.inner.loss.mode = "masked"
    config.inner.loss.pad_to = 128
    config.inner.loss.pad_samples = 0
    config.inner.tile = 4
    config.inner.row_tokens = 64
    config.inner.step_tokens = 640
    config.inner.slots = 120
    config.inner.active = 64
    config.inner.pool = 120

    config.answer = ConfigDict()
    config.answer.prompt = "plain"
    config.answer.temperature = 0.0
    config.answer.top_p = 1.0
    config.answer.top_k = 0
    config.answer.min_tokens = 0
    config.answer.max_tokens = 4
    config.answer.prompt_multiple = 20
    config.answer.batch = 720

    config.grade = ConfigDict()
    config.grade.name = "recall"
    config.grade.threshold = 0.6
    config.grade.max_missing = 0.02
    config.grade.judge = ConfigDict()
    config.grade.judge.base_url = "http://localhost:8000/v1"
    config.grade.judge.model = "judge"
    config.grade.judge.concurrency = 16
    config.grade.judge.retries = 4
    config.grade.judge.timeout_s = 60.0
    config.grade.judge.api_key_env = "OPENAI_API_KEY"
    config.grade.judge.temperature = 0.0
    config.grade.judge.backoff_s = 1.0

    # For rewards that take no gold answers. rubric: rules, or judge (grade.judge).
    config.label_free = ConfigDict()
    config.label_free.rubric = "rules"
    config.label_free.questions = 6
    config.label_free.quiz = ConfigDict()
    config.label_free.quiz.prompt = "plain"
    config.label_free.quiz.temperature = 1.0
    config.label_free.quiz.top_p = 1.0
    config.label_free.quiz.top_k = 0
    config.label_free.quiz.min_tokens = 0
    config.label_free.quiz.max_tokens = 96
    config.label_free.quiz.prompt_multiple = 64
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
    config.imitate.lora.targets = config.inner.lora.targets
    config.imitate.lora.rank = 16
    config.imitate.lora.alpha = 32.0
    config.imitate.learning_rate = 3e-3
    config.imitate.schedule = "linear"
    config.imitate.epochs = 6
    config.imitate.batch = 8
    config.imitate.micro_batch = 8
    config.imitate.clip = 1.0
    config.imitate.length_multiple = 128

    # rule: none, regression, or plateau (either).
    config.stop = ConfigDict()
    config.stop.rule = "none"
    config.stop.patience = 2
    config.stop.z = 2.0

    config.ladder = (
        "base",
        "passage_only",
        "sentence_split",
        "self_edits",
        "random_kept",
        "oracle",
    )
    if arg == "rounds":
        config.scale.rounds = 8
        config.scale.passages = 24
        config.ladder = ("base", "self_edits")
    if arg == "rewards":
        config.scale.rounds = 1
        config.scale.seeds = 8
        config.select.compare = ("log_likelihood", "majority", "self_asked", "rubric")
        config.ladder = ("base", "self_edits")
    if arg == "debug":
        config.scale.passages = 4
        config.scale.edits = 2
        config.scale.seeds = 1
        config.scale.heldout_passages = 4
        config.inner.slots = config.inner.active = 8
        config.inner.pool = 8
        config.inner.epochs = 2
        config.propose.batch = 8
        config.answer.batch = 24
        config.imitate.epochs = 1
    return config
