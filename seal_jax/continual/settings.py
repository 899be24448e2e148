"""A continual experiment as frozen dataclasses, built once from a config file.

`sequences` runs it.
"""

import dataclasses
import functools
from typing import Annotated, Protocol

from seal_jax.generation.settings import Decoding, ModelSource
from seal_jax.rewards.settings import GradeConfig
from seal_jax.rounds.experiment import Experiment
from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import (
    Bound,
    Items,
    Seed,
    Share,
    Tokens,
    Weight,
    shown,
)
from seal_jax.runtime.settings import MeshConfig
from seal_jax.runtime.writers import WatchConfig
from seal_jax.tasks import knowledge, strategies
from seal_jax.tasks.settings import EditConfig, TaskConfig
from seal_jax.training.inner_rules import EDITS
from seal_jax.training.settings import MASKED, PLAIN, EngineOptions, InnerConfig

# What an arm may add to merging one self-edit after the other, or do instead.
MERGE = "merge"
# The row that learns nothing: the base with the passage of each question in view.
IN_CONTEXT = "in_context"
CONTROLS = ("gate", "replay", "kl", "orthogonal", "keep", "best", "penalty")
# Those that ask questions in order to choose.
CHOOSING = frozenset({"gate", "best", "penalty"})

# Pairs that cannot be in the same arm.
_APART = (
    ("keep", "gate"),
    ("keep", "replay"),
    ("keep", "orthogonal"),
    ("keep", "penalty"),
    ("best", "penalty"),
)


@dataclasses.dataclass(frozen=True)
class SequenceConfig:
    """`count` sequences of `passages` each, and passages in none of them as probes."""

    count: Annotated[int, Bound(1, 10_000)]
    passages: Annotated[int, Bound(2, 1000)]
    probes: Items

    def __post_init__(self):
        config_rules.check(self, "sequence")
        config_rules.at_most(
            "sequence.count * sequence.passages",
            self.count * self.passages,
            config_rules.MOST_ITEMS,
        )


@dataclasses.dataclass(frozen=True)
class ControlsConfig:
    """Strengths of the controls; an arm reads those of the controls in it.

    Attributes:
      replay: earlier training lines of the sequence, mixed into those of an edit.
      kl: weight of the mean divergence from the un-edited base per token, nats.
      kl_texts, kl_tokens: texts that the base writes for it, and their longest.
      orthogonal: weight of the overlap with the frozen A's (O-LoRA).
      gate_budget: the most forgetting of earlier questions, a share of them.
      gate_steps, gate_least: halvings, and the smallest scale (`controls.gate`).
      keep_floor: the share of a question's words that sends it to a kept adapter.
    """

    replay: Annotated[int, Bound(1, 10_000)]
    kl: Weight
    kl_texts: Annotated[int, Bound(1, 10_000)]
    kl_tokens: Tokens
    orthogonal: Weight
    gate_budget: Share
    gate_steps: Annotated[int, Bound(0, 30)]
    gate_least: Annotated[float, Bound(1e-9, 1.0)]
    keep_floor: Share

    def __post_init__(self):
        config_rules.check(self, "retain")


@dataclasses.dataclass(frozen=True)
class RetainConfig(ControlsConfig):
    """The strengths, and those of the controls that take one of several self-edits.

    Attributes:
      candidates: self-edits per passage of which `best` and `penalty` commit one.
      penalty: weight of forgetting in their reward (`controls.penalized`).
    """

    candidates: Annotated[int, Bound(2, 1000)]
    penalty: Weight


class Stepped(Experiment, knowledge.Settings, Protocol):
    """An experiment in which many models learn side by side, step after step.

    `steps`: what each model learns one after the other, a block of its stack each;
    `chooses`: whether any arm asks questions in order to choose (`halves`);
    `candidates_of`: self-edits of which an arm commits one; `penalty_of`: what it
    forgets weighs so much in that choice.
    """

    @property
    def inner(self) -> InnerConfig: ...
    @property
    def retain(self) -> ControlsConfig: ...
    @property
    def steps(self) -> int: ...
    @property
    def chooses(self) -> bool: ...
    def controls_of(self, arm: str) -> frozenset[str]: ...
    def candidates_of(self, arm: str) -> int: ...
    def penalty_of(self, arm: str) -> float: ...
    def engine_of(self, arm: str) -> EngineOptions: ...


@dataclasses.dataclass(frozen=True)
class Continual:
    """The whole experiment: every field that can matter.

    `arms` are rows of the result, walked over the same sequences with the same random
    numbers: "merge", or controls joined by "+", such as "replay+gate". Spaces between
    them are dropped, since an arm's name is also that of its files. "in_context" learns
    nothing: it is the ceiling of what puts passages into weights.
    """

    seed: Seed
    mesh: MeshConfig
    model: ModelSource
    task: TaskConfig
    sequence: SequenceConfig
    propose: Decoding
    edit: EditConfig
    inner: InnerConfig
    answer: Decoding
    grade: GradeConfig
    retain: RetainConfig
    arms: tuple[str, ...]
    watch: WatchConfig

    def __post_init__(self):
        config_rules.check(self)
        strategies.one_step(self.propose.prompt)
        if self.inner.rule != EDITS:
            raise ValueError(
                f"inner.rule={shown(self.inner.rule)}: a sequence learns by {EDITS!r}; "
                "for other rules see configs/deploy.py, whose arms name them"
            )
        if not self.arms:
            raise ValueError(f"arms=() must hold at least one arm; use ({MERGE!r},)")
        names = tuple("+".join(_parts(arm)) for arm in self.arms)
        object.__setattr__(self, "arms", names)
        seen: dict[frozenset[str], str] = {}
        for arm in self.arms:
            parts = frozenset({arm}) if arm == IN_CONTEXT else controls(arm)
            if parts in seen:
                raise ValueError(
                    f"arms: {arm!r} and {seen[parts]!r} must differ; leave one out"
                )
            seen[parts] = arm
            check_divergence(self, arm, parts)

    @property
    def controls(self) -> frozenset[str]:
        """Those of any arm."""
        return frozenset().union(*map(controls, self.learning_arms))

    @property
    def learning_arms(self) -> tuple[str, ...]:
        """The rows that learn."""
        return tuple(arm for arm in self.arms if arm != IN_CONTEXT)

    @property
    def chooses(self) -> bool:
        """Whether any arm asks questions in order to choose (`halves`)."""
        return bool(self.controls & CHOOSING)

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
    def steps(self) -> int:
        """Passages of a sequence."""
        return self.sequence.passages

    def controls_of(self, arm: str) -> frozenset[str]:
        """The controls of an arm."""
        return controls(arm)

    def candidates_of(self, arm: str) -> int:
        """Self-edits of one passage that an arm tries."""
        return self.retain.candidates if controls(arm) & {"best", "penalty"} else 1

    def penalty_of(self, arm: str) -> float:
        """What an arm's choice counts forgetting for."""
        return self.retain.penalty if "penalty" in controls(arm) else 0.0

    @property
    def candidates(self) -> int:
        """The most self-edits of one passage that any arm tries."""
        return max(map(self.candidates_of, self.learning_arms), default=1)

    @property
    def adapters(self) -> int:
        """The most that are trained in one phase."""
        return self.sequence.count * self.candidates

    @property
    def lines_per_step(self) -> int:
        """Training lines of one optimizer step."""
        return 1

    @property
    def engine(self) -> EngineOptions:
        """What the inner loop has to be made for: the most that any arm needs."""
        options = [self.engine_of(arm) for arm in self.learning_arms]
        return functools.reduce(EngineOptions.joined, options, PLAIN)

    def engine_of(self, arm: str) -> EngineOptions:
        """What one arm's inner loop is made for."""
        return engine_of(self, controls(arm), rows=self.sequence.count)


def engine_of(exp: Stepped, parts: frozenset[str], *, rows: int) -> EngineOptions:
    """What controls ask of the inner loop of so many models.

    Kept adapters train on the base; all others on what their model has learned, of
    which there is most before the last step, and before the only one nothing.
    """
    before = 0 if "keep" in parts else (exp.steps - 1) * exp.inner.lora.rank
    pushed = "orthogonal" in parts and before
    return EngineOptions(
        frozen_rank=before,
        frozen_rows=rows if before else 0,
        orthogonal=exp.retain.orthogonal if pushed else 0.0,
        divergence="kl" in parts,
    )


def check_divergence(exp: Stepped, arm: str, parts: frozenset[str]) -> None:
    """Refuses an arm with "kl" whose texts cannot lie beside the training lines.

    Raises:
      ValueError: see above.
    """
    if "kl" not in parts:
        return
    if exp.inner.loss.mode != MASKED:
        raise ValueError(
            f"arms: {arm!r} reads texts beside the training lines, which needs "
            f"inner.loss.mode={MASKED!r}, not {exp.inner.loss.mode!r}"
        )
    if exp.retain.kl_tokens > exp.inner.row_tokens:
        raise ValueError(
            f"retain.kl_tokens={exp.retain.kl_tokens} must be at most "
            f"inner.row_tokens={exp.inner.row_tokens}, since a text of arm {arm!r} "
            f"lies in one row; use {exp.inner.row_tokens} or less"
        )


def _parts(arm: str) -> list[str]:
    return [part.strip() for part in arm.split("+")]


def controls(arm: str, of: str = "") -> frozenset[str]:
    """The controls of an arm; none of "merge". `of`: the name it is a part of.

    Raises:
      ValueError: an unknown control, the same twice, or some that exclude each other.
    """
    parts, arm = _parts(arm), of or arm
    if parts == [MERGE]:
        return frozenset()
    for part in parts:
        if part not in CONTROLS:
            raise ValueError(
                f"arms: {shown(part)} in {shown(arm)} must be one of {CONTROLS}; "
                f"{MERGE!r} and {IN_CONTEXT!r} stand alone"
            )
    if len(set(parts)) < len(parts):
        raise ValueError(
            f"arms: {shown(arm)} must name each control once; leave one out"
        )
    for first, second in _APART:
        if {first, second} <= set(parts):
            raise ValueError(
                f"arms: {first!r} and {second!r} exclude each other in {shown(arm)}; "
                "make two arms of them"
            )
    return frozenset(parts)
