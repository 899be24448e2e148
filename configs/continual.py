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
not forgetting, each a row. `:debug` runs three rows on two sequences of two passages,
in about a minute.

`config.arms` names the rows: "merge" alone, or controls, also several joined by "+":

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

On 2 CPU cores that other work shared, `:tiny` took 13 minutes. Expected, over 24
sequences:

                final  general
    un-edited   0.076  1.000
    merge       0.113  0.211
    gate        0.266  0.676
    replay      0.231  0.353
    kl          0.279  0.546
    orthogonal  0.163  0.359
    keep        0.464  0.998
    best        0.150  0.227
    penalty     0.171  0.263
"""

from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "tiny" or "debug"."""
    if arg not in (None, "", "tiny", "debug"):
        raise ValueError(
            f"configs/continual.py:{arg}: the variants are '', 'tiny' and 'debug'"
        )
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

    # Sequences are cut from `train`, the probes of general ability from `heldout`, here
    # behind the passages on which configs/squad.py trains its policy.
    config.task = ConfigDict()
    config.task.name = "squad"
    config.task.train = "rajpurkar/squad"
    config.task.train_split = "validation"
    config.task.train_start = 0
    config.task.heldout = "rajpurkar/squad"
    config.task.heldout_split = "train"
    config.task.heldout_start = 1000
    config.task.shuffle_seed = 42
    config.task.forward_share = 0.0

    config.sequence = ConfigDict()
    config.sequence.count = 64
    config.sequence.passages = 8
    config.sequence.probes = 10

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

    # The gate's values are those of STABLE. "kl" needs inner.loss.mode=masked.
    config.retain = ConfigDict()
    config.retain.replay = 8
    config.retain.kl = 1.0
    config.retain.kl_texts = 64
    config.retain.kl_tokens = 64
    config.retain.orthogonal = 0.5
    config.retain.gate_budget = 0.07
    config.retain.gate_steps = 5
    config.retain.gate_least = 0.1
    config.retain.keep_floor = 0.4
    config.retain.candidates = 5
    config.retain.penalty = 1.0

    # The rows, as the head of this file tells them.
    config.arms = ("merge",)
    if arg in ("tiny", "debug"):
        tiny(config)
    return debug(config) if arg == "debug" else config


def tiny(config: ConfigDict) -> ConfigDict:
    """The generated world and the embedded model, with the settings of tiny.py."""
    config.model.path = "embedded:tiny"
    config.model.dtype = "float32"
    config.task.name = "world"
    config.task.train = config.task.heldout = ""
    config.task.train_split = config.task.heldout_split = ""
    config.task.heldout_start = 0
    config.task.shuffle_seed = config.get_ref("seed")
    config.task.forward_share = 0.2
    config.sequence.count = 24
    config.propose.prompt = "plain"
    config.propose.top_p = 1.0
    config.propose.min_tokens = 0
    config.propose.max_tokens = 64
    config.propose.prompt_multiple = 64
    config.propose.batch = 120
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
    config.inner.loss.mode = "masked"
    config.inner.loss.pad_to = 128
    config.inner.loss.pad_samples = 0
    config.inner.tile = 4
    config.inner.row_tokens = 64
    # All sequences step together, and no more: a place in a step costs what it costs,
    # used or not.
    config.inner.step_tokens = 384
    config.inner.slots = config.inner.active = config.sequence.count
    config.inner.pool = 120
    config.answer.prompt = "plain"
    config.answer.max_tokens = 4
    config.answer.prompt_multiple = 20
    config.answer.batch = 720
    # Chosen on seed 1.
    config.retain.replay = 16
    config.retain.kl = 4.0
    config.retain.kl_tokens = 32
    config.retain.orthogonal = 10.0
    config.retain.gate_budget = 0.02
    config.retain.keep_floor = 0.45
    config.retain.candidates = 3
    config.arms = (
        "merge",
        "gate",
        "replay",
        "kl",
        "orthogonal",
        "keep",
        "best",
        "penalty",
    )
    return config


def debug(config: ConfigDict) -> ConfigDict:
    """Every stage, on two sequences of two passages."""
    config.sequence.count = config.sequence.passages = 2
    config.sequence.probes = 2
    config.propose.batch = 4
    config.inner.epochs = 2
    config.inner.slots = config.inner.active = config.inner.pool = 8
    config.answer.batch = 24
    config.retain.kl_texts = 4
    config.retain.kl_tokens = 16
    config.retain.gate_steps = 1
    config.retain.candidates = 2
    config.arms = ("merge", "replay+gate", "keep")
    return config
