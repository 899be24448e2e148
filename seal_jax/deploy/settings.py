"""The experiment on learning on the job as frozen dataclasses (`days`).

`configs/deploy.py` is one.
"""

import dataclasses
import functools
from typing import Annotated, Self

from seal_jax.continual import settings as continual_settings
from seal_jax.continual.settings import MERGE, ControlsConfig
from seal_jax.generation.settings import Decoding, ModelSource
from seal_jax.rewards.settings import GradeConfig
from seal_jax.rounds.settings import LabelFreeConfig
from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound, Seed, shown
from seal_jax.runtime.settings import MeshConfig
from seal_jax.runtime.writers import WatchConfig
from seal_jax.tasks import strategies
from seal_jax.tasks.settings import EditConfig, TaskConfig
from seal_jax.training import inner_rules
from seal_jax.training.inner_rules import (
    DISTILL,
    DISTILL_EDITS,
    EDITS,
    MIX,
    ON_POLICY,
    QUIZ,
)
from seal_jax.training.settings import PLAIN, EngineOptions, InnerConfig

# What a night trains on: nothing, or what an inner rule makes of the day's log.
NONE = "none"
RULES = (NONE, EDITS, DISTILL_EDITS, QUIZ, DISTILL, ON_POLICY, MIX)
# Of `continual`, those that need no second self-edit.
CONTROLS = ("gate", "replay", "kl", "orthogonal", "keep")
# Beside what was asked, questions that the model asks itself about the log.
DREAM = "dream"
# What statements are made from.
LOG, EDIT, BOTH = CONTEXTS = ("log", "edit", "both")
# Who teaches, where a rule has a teacher: the un-edited base, or last night's model.
BASE, PREVIOUS = TEACHERS = ("base", "previous")


@dataclasses.dataclass(frozen=True)
class Arm:
    """A row: what a night trains on, and what keeps the model from forgetting."""

    rule: str
    controls: frozenset[str]
    dreams: bool

    @property
    def asks(self) -> bool:
        """Whether the log's questions are what is trained on; else statements are."""
        return self.rule != NONE and inner_rules.RULES[self.rule].asks

    @property
    def trained(self) -> tuple[str, ...]:
        """The inner rules of its training lines."""
        if self.rule == NONE:
            return ()
        return (self.rule, QUIZ) if self.dreams and not self.asks else (self.rule,)

    @classmethod
    def of(cls, name: str) -> Self:
        """The arm of a name such as "quiz+gate+dream".

        Raises:
          ValueError: no such rule or control, one twice, or some that exclude each
            other.
        """
        rule, *rest = parts(name)
        if rule not in RULES:
            raise ValueError(
                f"arms: {shown(rule)} in {shown(name)} must be one of {RULES}; begin "
                "an arm with its rule"
            )
        for part in rest:
            if part not in (MERGE, DREAM, *CONTROLS):
                raise ValueError(
                    f"arms: {shown(part)} in {shown(name)} must be one of "
                    f"{(MERGE, DREAM, *CONTROLS)}; leave it out"
                )
        if rule == NONE and rest:
            raise ValueError(
                f"arms: {NONE!r} trains on nothing and stands alone, not as "
                f"{shown(name)}; leave out {shown('+'.join(rest))}"
            )
        if rest.count(DREAM) > 1:
            raise ValueError(f"arms: {shown(name)} must name {DREAM!r} once")
        own = "+".join(part for part in rest if part != DREAM)
        found = continual_settings.controls(own, name) if own else ()
        return cls(rule, frozenset(found), DREAM in rest)


def parts(name: str) -> list[str]:
    """What an arm's name is made of."""
    return [part.strip() for part in name.split("+")]


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """`count` models at their jobs side by side, each for `days` days.

    Attributes:
      logs: a file of sessions as they were (`logs`), of which the first `count` streams
        and the first `days` days are taken; empty: sessions are about passages of the
        task.
      count: streams, at most.
      days: of each, at most.
      sessions: of a day. Of logs without days, so many are one.
      asked: of a passage's questions those that users ask; the others never are.
      probes: passages of no session, for what no night shall change.
    """

    logs: str
    count: Annotated[int, Bound(1, 10_000)]
    days: Annotated[int, Bound(1, 1000)]
    sessions: Annotated[int, Bound(1, 1000)]
    asked: Annotated[int, Bound(1, 1000)]
    probes: Annotated[int, Bound(0, 20_000)]

    def __post_init__(self):
        config_rules.check(self, "stream")
        config_rules.at_most(
            "stream.count * stream.days * stream.sessions",
            self.count * self.days * self.sessions,
            config_rules.MOST_ITEMS,
        )


@dataclasses.dataclass(frozen=True)
class NightConfig:
    """How a day's sessions are consolidated.

    `context`: what statements are made from, "log" (the session's context as it
    stands), "edit" (what the model writes about it), or "both", as SEAL does.
    `teacher`: of rules that have one, "base" (the un-edited model) or "previous" (the
    model as it was before the night), with the context in view.
    """

    context: str
    teacher: str

    def __post_init__(self):
        config_rules.one_of("night.context", self.context, CONTEXTS)
        config_rules.one_of("night.teacher", self.teacher, TEACHERS)


@dataclasses.dataclass(frozen=True)
class Deploy:
    """The whole experiment: every field that can matter.

    `arms` are rows of the result, over the same sessions with the same random numbers:
    a rule of `RULES`, perhaps joined by "+" with controls of `continual` and "dream",
    such as "quiz+gate". "none" learns nothing. Where an arm dreams, the model asks
    itself `label_free.questions` questions about each session.
    """

    seed: Seed
    mesh: MeshConfig
    model: ModelSource
    task: TaskConfig
    stream: StreamConfig
    night: NightConfig
    propose: Decoding
    label_free: LabelFreeConfig | None
    edit: EditConfig
    inner: InnerConfig
    answer: Decoding
    grade: GradeConfig
    retain: ControlsConfig
    arms: tuple[str, ...]
    watch: WatchConfig

    def __post_init__(self):
        config_rules.check(self)
        strategies.one_step(self.propose.prompt)
        if self.inner.rule != EDITS:
            raise ValueError(
                f"inner.rule={shown(self.inner.rule)}: here arms name the rules, each "
                f"one of {RULES}; use inner.rule={EDITS!r}, and such as "
                f"arms=({QUIZ!r},)"
            )
        if not self.arms:
            raise ValueError(f"arms=() must hold at least one arm; use ({EDITS!r},)")
        object.__setattr__(self, "arms", tuple("+".join(parts(a)) for a in self.arms))
        seen: dict[Arm, str] = {}
        for name in self.arms:
            arm = Arm.of(name)
            if arm in seen:
                raise ValueError(
                    f"arms: {name!r} and {seen[arm]!r} must differ; leave one out"
                )
            seen[arm] = name
            continual_settings.check_divergence(self, name, arm.controls)
            for rule in arm.trained:
                self.inner.check_rule(rule, f"arm {name!r}")
            if arm.rule == DISTILL_EDITS and self.night.context == LOG:
                raise ValueError(
                    f"arms: {name!r} learns from the self-edit, which night.context="
                    f"{LOG!r} has none of; use {BOTH!r}"
                )
            if arm.rule == MIX and self.night.teacher == PREVIOUS:
                raise ValueError(
                    f"arms: {name!r} draws answers from the un-edited base, and "
                    f"night.teacher={PREVIOUS!r} is another model; use {BASE!r}"
                )
            if inner_rules.RULES.get(arm.rule, inner_rules.Rule()).taught and (
                self.night.teacher == PREVIOUS and "keep" in arm.controls
            ):
                raise ValueError(
                    f"arms: {name!r} keeps adapters apart, and night.teacher="
                    f"{PREVIOUS!r} is one model; use {BASE!r}"
                )
            if arm.dreams:
                config_rules.needs_group(self.label_free, "label_free", f"arm {name!r}")

    @property
    def idle(self) -> list[str]:
        """Settings away from their defaults that no arm reads, each in one line."""
        learning = [Arm.of(arm) for arm in self.learning_arms]
        found = []
        if self.night.context != BOTH and all(arm.asks for arm in learning):
            found.append(
                f"night.context={self.night.context!r} is what statements are made "
                "from, and does nothing: no arm learns statements"
            )
        if self.night.teacher != BASE and not any(
            inner_rules.RULES[arm.rule].taught for arm in learning
        ):
            found.append(
                f"night.teacher={self.night.teacher!r} does nothing: no arm has a "
                "teacher"
            )
        return found

    @property
    def learning_arms(self) -> tuple[str, ...]:
        """The rows that learn."""
        return tuple(arm for arm in self.arms if Arm.of(arm).rule != NONE)

    @property
    def steps(self) -> int:
        """Nights."""
        return self.stream.days

    @property
    def chooses(self) -> bool:
        """Whether any arm asks questions in order to choose (`halves`)."""
        return any("gate" in Arm.of(arm).controls for arm in self.arms)

    def controls_of(self, arm: str) -> frozenset[str]:
        """The controls of an arm."""
        return Arm.of(arm).controls

    def candidates_of(self, arm: str) -> int:
        """One: a night has one training."""
        del arm
        return 1

    def penalty_of(self, arm: str) -> float:
        """Nothing: no arm chooses among trainings."""
        del arm
        return 0.0

    @property
    def imitate(self) -> None:
        """None: no policy learns to write."""

    @property
    def turn_end(self) -> str:
        """The token that ends an answer; empty: the model's own end of text."""
        return ""

    @property
    def adapters(self) -> int:
        """The most that are trained in one night."""
        return self.stream.count if self.learning_arms else 0

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
        found, sessions = Arm.of(arm), self.stream.sessions
        of_controls = continual_settings.engine_of(
            self, found.controls, rows=self.stream.count
        )
        dreams = self.label_free.questions if found.dreams and self.label_free else 0
        asked = sessions * (self.stream.asked + dreams)
        written = sessions * self.propose.max_tokens
        again, earlier = self.replayed(arm), self.stream.days - 1
        of_rules = self.inner.engine(
            found.trained,
            asked=asked + min(again, earlier * asked),
            answer=self.answer.max_tokens,
            written=written + min(again * self.longest_line, earlier * written),
        )
        return of_controls.joined(of_rules)

    def replayed(self, arm: str) -> int:
        """Lines of earlier nights that an arm trains on again, at most."""
        return self.retain.replay if "replay" in Arm.of(arm).controls else 0

    @property
    def longest_line(self) -> int:
        """Tokens of the longest line of a self-edit."""
        return min(self.propose.max_tokens, self.inner.row_tokens)
