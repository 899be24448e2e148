"""What a caller may set, with types and bounds; no jax."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from seal_jax.generation.settings import CHATS, DTYPES, NONE
from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import (
    Batch,
    Bound,
    ClipNorm,
    Epochs,
    LearningRate,
    Seed,
)
from seal_jax.training.settings import COSINE, LINEAR, MOST_SLOTS

ALL = "all"
AUTO = "auto"
MOST_DEVICES = 65_536


class TrainOptions(TypedDict, total=False):
    """Keywords of `train_adapters`, which says what they do."""

    rank: int
    targets: Sequence[str]
    alpha: float | None
    learning_rate: float
    epochs: int
    batch: int
    warmup: int
    schedule: str
    clip: float
    seed: int
    pool: int
    progress: bool


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """The same, with the values of those that were left out."""

    rank: Annotated[int, Bound(1, 65_536)] = 16
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    alpha: Annotated[float, Bound(1e-3, 1e6)] | None = None
    learning_rate: LearningRate = 1e-3
    epochs: Epochs = 10
    batch: Batch = 1
    warmup: Annotated[int, Bound(0, 1_000_000)] = 0
    schedule: str = LINEAR
    clip: ClipNorm = 1.0
    seed: Seed = 0
    pool: Annotated[int, Bound(0, MOST_SLOTS)] = 0
    progress: bool = True

    def __post_init__(self):
        config_rules.one_of("schedule", self.schedule, (LINEAR, COSINE))
        config_rules.distinct("targets", self.targets)

    @property
    def scale_alpha(self) -> float:
        """Alpha, which is twice the rank unless it was given."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


@dataclasses.dataclass(frozen=True)
class LoadSettings:
    """Of `load`: the weights' dtype, the prompts' form, how devices share the work."""

    dtype: str = AUTO
    chat: str = NONE
    data: Annotated[int, Bound(0, MOST_DEVICES)] = 0
    model: Annotated[int, Bound(1, MOST_DEVICES)] = 1

    def __post_init__(self):
        config_rules.one_of("dtype", self.dtype, (AUTO, *DTYPES))
        config_rules.one_of("chat", self.chat, CHATS)


class WriteOptions(TypedDict, total=False):
    """Keywords of `Model.generate`, which says what they do."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    progress: bool


@dataclasses.dataclass(frozen=True)
class WriteSettings:
    """The same, with the values of those that were left out."""

    max_tokens: Annotated[int, Bound(1, 2**20)] = 64
    # Logits are divided by it: next to 0 they would overflow.
    temperature: Annotated[float, Bound(0.0, 100.0, least=1e-3)] = 0.0
    top_p: Annotated[float, Bound(1e-6, 1.0)] = 1.0
    top_k: Annotated[int, Bound(0, 10_000_000)] = 0
    seed: Seed = 0
    progress: bool = False


def build[T: (TrainSettings, WriteSettings, LoadSettings)](
    cls: type[T], where: str, given: TrainOptions | WriteOptions | dict[str, Any]
) -> T:
    """The settings of a call, numbers of numpy taken as Python's; `where` is the call.

    Raises:
      ValueError: a keyword that there is not, with the nearest one; a wrong type; a
        number out of its bounds.
    """
    values: dict[str, Any] = dataclasses.asdict(cls()) | given
    plain = {
        name: value.item() if type(value).__module__ == "numpy" else value
        for name, value in values.items()
    }
    return config_rules.build(cls, plain, where)
