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


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "tiny" or "debug"."""
    if arg not in (None, "", "tiny", "debug"):
        raise ValueError(
            f"configs/squad_cpt.py:{arg}: the variants are '', 'tiny' and 'debug'"
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

    # Who writes the self-edits; empty: the model itself.
    config.writer = ConfigDict()
    config.writer.path = ""

    # Only the training side is read: the questions are about what was trained on.
    config.task = ConfigDict()
    config.task.name = "squad"
    config.task.train = "rajpurkar/squad"
    config.task.train_split = "validation"
    config.task.train_start = 0
    config.task.heldout = ""
    config.task.heldout_split = ""
    config.task.heldout_start = 0
    config.task.shuffle_seed = 42
    config.task.forward_share = 0.0

    config.pool = ConfigDict()
    config.pool.passages = 200
    config.pool.edits = 5
    config.pool.how = "lora"
    config.pool.copies = "each"
    config.pool.questions = 0
    config.pool.seeds = 1
    config.pool.edits_file = ""

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
    config.edit.split = "whole"
    config.edit.quirks = "fixed"

    config.inner = ConfigDict()
    config.inner.lora = ConfigDict()
    config.inner.lora.targets = ("q_proj", "v_proj")
    config.inner.lora.rank = 32
    config.inner.lora.alpha = 64.0
    config.inner.learning_rate = 1e-3
    config.inner.epochs = 3
    config.inner.batch = 8
    config.inner.warmup_share = 0.0
    config.inner.clip = 1.0
    config.inner.loss = ConfigDict()
    config.inner.loss.mode = "masked"
    config.inner.loss.pad_to = 2048
    config.inner.loss.pad_samples = 0
    # Sizes of 0 are chosen from the compiled program and the device's memory. A global
    # step has inner.batch rows: with 2048 tokens each they would not fit 80 GB.
    config.inner.tile = 16
    config.inner.row_tokens = 1024
    config.inner.step_tokens = 0
    config.inner.slots = 0
    config.inner.active = 0
    config.inner.pool = 0

    config.full = ConfigDict()
    config.full.learning_rate = 7e-5
    config.full.epochs = 1
    config.full.batch = 8
    config.full.micro_batch = 1
    config.full.warmup_share = 0.03
    config.full.clip = 1.0
    config.full.length_multiple = 256

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

    config.arms = ("base", "passage_only", "sentence_split", "self_edits")
    if arg in ("tiny", "debug"):
        tiny(config)
    return debug(config) if arg == "debug" else config


def tiny(config: ConfigDict) -> None:
    """The embedded model and its world; rates, rank and epochs are its own."""
    config.model.path = "embedded:tiny"
    config.model.dtype = "float32"
    config.task.name = "world"
    config.task.train = config.task.train_split = ""
    config.task.shuffle_seed = config.get_ref("seed")
    config.task.forward_share = 0.2
    config.pool.passages = 48
    config.pool.edits = 3
    config.pool.copies = "once"
    config.propose.prompt = "plain"
    config.propose.top_p = 1.0
    config.propose.min_tokens = 0
    config.propose.max_tokens = 64
    config.propose.prompt_multiple = 64
    config.propose.batch = 144
    config.edit.split = "lines"
    config.inner.lora.targets = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    config.inner.lora.rank = 16
    config.inner.lora.alpha = 32.0
    config.inner.learning_rate = 3e-3
    config.inner.epochs = 10
    config.inner.loss.pad_to = 128
    config.inner.tile = 4
    config.inner.row_tokens = 64
    config.inner.step_tokens = 512
    config.inner.slots = 4
    config.inner.active = 4
    config.inner.pool = 4
    config.full.learning_rate = 1e-3
    config.full.epochs = 10
    config.full.micro_batch = 2
    config.full.length_multiple = 64
    config.answer.prompt = "plain"
    config.answer.max_tokens = 4
    config.answer.prompt_multiple = 20
    config.answer.batch = 288
    config.arms = (
        "base",
        "passage_only",
        "sentence_split",
        "self_edits",
        "oracle",
    )


def debug(config: ConfigDict) -> ConfigDict:
    """Every stage, in less than a minute."""
    config.pool.passages = 4
    config.pool.edits = 2
    config.inner.epochs = 2
    config.full.epochs = 2
    config.propose.batch = 8
    config.answer.batch = 24
    return config
