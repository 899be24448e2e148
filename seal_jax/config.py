"""Groups of settings that kinds of experiments share, as frozen dataclasses.

A config file (`configs/*.py`) writes every field that is declared here; there are no
defaults below it (`config_rules.build`). The experiments themselves: `config_rounds`,
`config_few_shot`, `config_continual`, `config_pooled`.
"""

import dataclasses

from seal_jax import (
    config_rules,
    grade,
    plan,
    self_edit,
)
from seal_jax.judge import JudgeConfig

TASKS = ("squad", "world")


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """`path`: directory or hub name. `random_weights`: use only its config.

    `kernel`: implementation of the low-rank matmul, one of
    `lora_matmul.api.IMPLEMENTATIONS`.
    """

    path: str
    random_weights: bool
    dtype: str
    kernel: str

    def __post_init__(self):
        config_rules.one_of("model.dtype", self.dtype, ("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices: `data` shards of adapters and rows, each with the base over `model`.

    `data = 0`: as many as the devices allow.
    """

    data: int
    model: int

    def __post_init__(self):
        config_rules.at_least("mesh.data", self.data, 0)
        config_rules.at_least("mesh.model", self.model, 1)


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Where passages come from.

    `name = "squad"`: `train` and `heldout` are local JSON files in SEAL's format or hub
    names (with the `_split` to take); each list is shuffled with `shuffle_seed` and
    taken from `_start` on. `name = "world"`: passages are generated from `shuffle_seed`
    with `forward_share`; the four source fields must be empty.
    """

    name: str
    train: str
    train_split: str
    train_start: int
    heldout: str
    heldout_split: str
    heldout_start: int
    shuffle_seed: int
    forward_share: float

    def __post_init__(self):
        config_rules.one_of("task.name", self.name, TASKS)
        for name in ("train", "train_split", "heldout", "heldout_split"):
            if self.name == "world" and (value := getattr(self, name)):
                raise ValueError(
                    f"task.{name}={value!r} is not read by task.name='world', which is "
                    "generated; use task.name='squad' for files, or ''"
                )
        config_rules.within("task.forward_share", self.forward_share, 0.0, 1.0)
        config_rules.at_least("task.train_start", self.train_start, 0)
        config_rules.at_least("task.heldout_start", self.heldout_start, 0)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """One prompt and how its continuation is drawn; `prompt` is a name or a file."""

    prompt: str
    temperature: float
    top_p: float
    top_k: int
    min_tokens: int
    max_tokens: int
    prompt_multiple: int
    batch: int

    def __post_init__(self):
        config_rules.at_least("max_tokens", self.max_tokens, 1)
        config_rules.at_least("min_tokens", self.min_tokens, 0)
        config_rules.at_least("batch", self.batch, 1)
        config_rules.at_least("prompt_multiple", self.prompt_multiple, 1)
        config_rules.within("temperature", self.temperature, 0.0, 100.0)
        config_rules.within("top_p", self.top_p, 1e-6, 1.0)
        config_rules.at_least("top_k", self.top_k, 0)


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """From a self-edit to training lines; see `self_edit.split`."""

    split: str
    quirks: str

    def __post_init__(self):
        config_rules.one_of("edit.split", self.split, self_edit.RULES)
        config_rules.one_of("edit.quirks", self.quirks, self_edit.QUIRKS)


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """An adapter's shape; the applied scale is `alpha / rank`."""

    targets: tuple[str, ...]
    rank: int
    alpha: float


@dataclasses.dataclass(frozen=True)
class InnerSizes:
    """What every inner loop has; sizes of `plan.PlanConfig` and `inner.InnerConfig`.

    A size of 0 is chosen to fit the device (`capacity.choose`). No size changes what an
    adapter learns, but for `row_tokens`: where a self-edit is text, longer lines are
    cut there.
    """

    lora: LoraConfig
    clip: float
    tile: int
    row_tokens: int
    step_tokens: int
    slots: int
    active: int
    pool: int

    def __post_init__(self):
        config_rules.positive("inner.clip", self.clip)
        for name in ("step_tokens", "slots", "active", "pool"):
            config_rules.at_least(f"inner.{name}", getattr(self, name), 0)
        # Whatever is open, the rest must be a legal plan.
        plan.PlanConfig(
            self.tile,
            self.row_tokens,
            self.step_tokens or self.row_tokens,
            self.slots or 1,
            self.active or 1,
        )


@dataclasses.dataclass(frozen=True)
class InnerConfig(InnerSizes):
    """The inner loop of passages: a line a step, linear decay."""

    learning_rate: float
    epochs: int
    loss: plan.LossConfig

    def __post_init__(self):
        super().__post_init__()
        config_rules.at_least("inner.epochs", self.epochs, 1)
        config_rules.positive("inner.learning_rate", self.learning_rate)


@dataclasses.dataclass(frozen=True)
class GradeConfig:
    """`name`: a local rule of `grade.LOCAL`, or "judge" for the endpoint `judge`.

    `judge` may be left out where none is asked.

    `max_missing`: share of a phase's judgements that may be missing before the run
    stops, to be continued later. Missing ones stay out of every mean. Those of the
    ladder are asked for again by a later run; a round's are not, once the policy has
    learned from its selection.
    """

    name: str
    threshold: float
    max_missing: float
    judge: JudgeConfig | None

    def __post_init__(self):
        config_rules.one_of("grade.name", self.name, (*grade.LOCAL, "judge"))
        config_rules.within("grade.threshold", self.threshold, 0.0, 1.0)
        config_rules.within("grade.max_missing", self.max_missing, 0.0, 1.0)
        if self.name == "judge":
            self.endpoint("grade.name='judge'")

    def endpoint(self, why: str) -> JudgeConfig:
        """The judge, which a setting (`why`) asks for.

        Raises:
          ValueError: the group was left out.
        """
        return config_rules.needs_group(self.judge, "grade.judge", why)
