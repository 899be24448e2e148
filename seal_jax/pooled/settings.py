"""The experiment on many passages at once as frozen dataclasses (`pooled`).

`configs/squad_cpt.py` is one.
"""

import dataclasses
import math
from typing import Annotated

from seal_jax.generation.settings import Decoding, ModelSource
from seal_jax.rewards.settings import GradeConfig
from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import (
    Batch,
    Bound,
    Edits,
    Items,
    Seed,
    Share,
    shown,
)
from seal_jax.runtime.settings import MeshConfig
from seal_jax.runtime.writers import WatchConfig
from seal_jax.tasks.settings import EditConfig, TaskConfig
from seal_jax.training.inner_rules import EDITS
from seal_jax.training.settings import (
    MASKED,
    PLAIN,
    EngineOptions,
    FullConfig,
    InnerConfig,
)

HOW = ("lora", "full")
COPIES = ("once", "each")

# The rows: first those of the base as it is, closed-book and with the passage of each
# question in view; those after them are trained `pool.seeds` times.
BASE, IN_CONTEXT = UNTRAINED = ("base", "in_context")
ARMS = (*UNTRAINED, "passage_only", "sentence_split", "self_edits", "oracle")


@dataclasses.dataclass(frozen=True)
class WriterConfig:
    """Who writes the self-edits: the model at `path`, or if that is empty `model`.

    It is loaded to write and freed before anything is trained; dtype and kernel are
    those of `model`.
    """

    path: str


@dataclasses.dataclass(frozen=True)
class PoolConfig:
    """What is trained on together, and how.

    The training set is `edits` self-edits for each of `passages` passages. `copies`:
    each passage itself is in it "once", or once for "each" edit, as SEAL's first code
    had it. `edits_file`: the self-edits are the first completions of this file in
    SEAL's format, and none are written; empty: they are.

    `how`: "lora" trains one adapter, "full" all weights. `questions`: so many of all
    passages' are asked, drawn at random; 0: all, and more than there are is refused.
    `seeds`: trainings of every row.
    """

    passages: Items
    edits: Edits
    how: str
    copies: str
    questions: Annotated[int, Bound(0, 10_000_000)]
    seeds: Edits
    edits_file: str

    def __post_init__(self):
        config_rules.check(self, "pool")
        names = ("passages", "edits", "seeds")
        config_rules.at_most(
            "texts of all trainings, " + " * ".join(f"pool.{name}" for name in names),
            math.prod(getattr(self, name) for name in names),
            config_rules.MOST_ADAPTERS,
        )
        config_rules.one_of("pool.how", self.how, HOW)
        config_rules.one_of("pool.copies", self.copies, COPIES)


@dataclasses.dataclass(frozen=True)
class PooledInner(InnerConfig):
    """The one adapter's training: `batch` texts a step.

    The rate climbs over the share `warmup_share` of the steps, then falls linearly to
    zero.
    """

    batch: Batch
    warmup_share: Share

    def __post_init__(self):
        super().__post_init__()
        config_rules.check(self, "inner")
        config_rules.one_of("inner.rule", self.rule, (EDITS,))
        # Others cost a pad's forward pass for each text, or take one text a step.
        config_rules.one_of("inner.loss.mode", self.loss.mode, (MASKED,))
        least = self.batch * self.row_tokens
        if 0 < self.step_tokens < least:
            raise ValueError(
                f"inner.step_tokens={self.step_tokens} must have room for inner.batch="
                f"{self.batch} rows of inner.row_tokens={self.row_tokens}; use {least} "
                "or 0"
            )


@dataclasses.dataclass(frozen=True)
class Pooled:
    """Everything that decides the result of a run on many passages at once.

    The passages are those of `task.train`; nothing is held out, since the questions are
    about what was trained on.
    """

    seed: Seed
    mesh: MeshConfig
    model: ModelSource
    writer: WriterConfig
    task: TaskConfig
    pool: PoolConfig
    propose: Decoding
    edit: EditConfig
    inner: PooledInner
    full: FullConfig
    answer: Decoding
    grade: GradeConfig
    arms: tuple[str, ...]
    watch: WatchConfig

    def __post_init__(self):
        config_rules.check(self)
        for arm in self.arms:
            config_rules.one_of("arms", arm, ARMS)
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise ValueError(
                f"arms={shown(self.arms)} must differ; name at least one, once"
            )
        if self.pool.how == "full" and self.model.base_dtype != "same":
            raise ValueError(
                f"model.base_dtype={self.model.base_dtype!r} is for weights that stay "
                "as they are, and pool.how='full' trains them; use "
                "model.base_dtype='same', or pool.how='lora'"
            )
        if self.writer.path and self.pool.edits_file:
            raise ValueError(
                f"writer.path={shown(self.writer.path)} has nothing to write with "
                f"pool.edits_file={shown(self.pool.edits_file)}; leave one of them "
                "empty"
            )

    @property
    def trained_arms(self) -> tuple[str, ...]:
        """Rows that something is trained for, in the order of `ARMS`."""
        return tuple(a for a in ARMS if a in self.arms and a not in UNTRAINED)

    @property
    def untrained_arms(self) -> tuple[str, ...]:
        """The other rows."""
        return tuple(arm for arm in UNTRAINED if arm in self.arms)

    @property
    def adapters(self) -> int:
        """The most that are trained at a time; of full fine-tuning there are none."""
        if self.pool.how == "full":
            return 0
        return len(self.trained_arms) * self.pool.seeds

    @property
    def lines_per_step(self) -> int:
        """Training lines of one adapter's optimizer step."""
        return 1 if self.pool.how == "full" else self.inner.batch

    @property
    def imitate(self) -> None:
        """None: no policy learns to write."""

    @property
    def label_free(self) -> None:
        """None: no policy asks itself."""

    @property
    def turn_end(self) -> str:
        """The token that ends an answer; empty: the model's own end of text."""
        return ""

    @property
    def engine(self) -> EngineOptions:
        """What the inner loop has to be made for besides (`capacity.choose`)."""
        return PLAIN
