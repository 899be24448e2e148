"""The experiment of rounds over many seeds, each a program without the host; no jax.

It is `PassageRounds` with a group `over_seeds`, for what has a form on tokens alone.
"""

import dataclasses
from typing import Annotated, Any

from seal_jax.generation.settings import NONE
from seal_jax.rounds.ladder_rows import IN_CONTEXT
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound, shown
from seal_jax.tasks import strategies
from seal_jax.tasks.knowledge import PROMPTS
from seal_jax.tasks.settings import TASKS
from seal_jax.training.inner_rules import EDITS, RULES
from seal_jax.training.outer_rules import BEST, POSITIVE
from seal_jax.training.settings import MASKED

MOST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class SeedsConfig:
    """`count` runs of seeds `seed`, `seed + 1`, ..., each with passages of its own.

    `chunk` seeds are one call, and one unit of the journal; `together` of them are
    computed side by side. `march` adapters train in step. Neither changes what comes
    out but by rounding; both cost memory.
    """

    count: Annotated[int, Bound(2, 10_000)]
    chunk: Annotated[int, Bound(1, 10_000)]
    together: Annotated[int, Bound(1, 10_000)]
    march: Annotated[int, Bound(1, config_rules.MOST_ADAPTERS)]

    def __post_init__(self):
        config_rules.check(self, "over_seeds")
        for name, whole in (("chunk", "count"), ("together", "chunk")):
            part, of = getattr(self, name), getattr(self, whole)
            if of % part:
                raise ValueError(
                    f"over_seeds.{whole}={of} must be a multiple of over_seeds.{name}="
                    f"{part}, so that one program does for all; use {name}=1"
                )


@dataclasses.dataclass(frozen=True)
class OverSeeds(PassageRounds):
    """Everything that decides the result of all seeds."""

    over_seeds: SeedsConfig

    def __post_init__(self):
        super().__post_init__()
        for key, value, allowed in self._formed():
            if value not in allowed:
                raise ValueError(
                    f"{key}={shown(value)} has no form on tokens; use "
                    f"{' or '.join(map(repr, allowed))}, or leave the group over_seeds "
                    "out"
                )
        if self.propose.prompt in strategies.TWO_STEPS:
            raise ValueError(
                f"propose.prompt={shown(self.propose.prompt)} is of two steps and has "
                "no form on tokens; use 'plain', or leave the group over_seeds out"
            )
        for row in self.ladder:
            if row in (IN_CONTEXT, PROMPTS) or row in RULES:
                raise ValueError(
                    f"ladder={shown(self.ladder)}: {row!r} has no form on tokens; "
                    "leave it out, or leave the group over_seeds out"
                )
        if self.model.base_dtype != "same":
            raise ValueError(
                f"model.base_dtype={self.model.base_dtype!r} is for the packed engine, "
                "which rounds over seeds do not run; use 'same', or leave the group "
                "over_seeds out"
            )
        for key, first in (
            ("seed", self.seed),
            ("task.shuffle_seed", self.task.shuffle_seed),
        ):
            last = first + self.over_seeds.count - 1
            config_rules.at_most(f"{key} + over_seeds.count - 1", last, MOST_SEED)

    def _formed(self) -> list[tuple[str, Any, tuple[Any, ...]]]:
        """Settings that a program without the host has, and what they may be."""
        select, imitate = self.select, self.imitate
        return [
            ("model.chat", self.model.chat, (NONE,)),
            ("task.name", self.task.name, TASKS),
            ("edit.split", self.edit.split, ("lines",)),
            ("edit.quirks", self.edit.quirks, ("fixed",)),
            ("inner.rule", self.inner.rule, (EDITS,)),
            ("inner.loss.mode", self.inner.loss.mode, (MASKED,)),
            ("grade.name", self.grade.name, ("recall",)),
            ("select.reward", select.reward, ("grade",)),
            ("select.compare", select.compare, ((),)),
            ("select.halving", select.halving, ((),)),
            ("select.prefilter", select.prefilter, ((),)),
            ("select.objective", select.objective, ("mean",)),
            ("select.novelty_bonus", select.novelty_bonus, (0.0,)),
            ("select.max_copied", select.max_copied, (1.0,)),
            ("select.max_overlap", select.max_overlap, (1.0,)),
            ("imitate.rule", imitate.rule, (BEST, POSITIVE)),
            ("imitate.start", imitate.start, ("previous",)),
            ("imitate.data", imitate.data, ("replace",)),
            ("stop.rule", self.stop.rule, ("none",)),
            ("mesh.model", self.mesh.model, (1,)),
        ]

    @property
    def adapters(self) -> int:
        """None that the packed engine trains."""
        return 0

    def at(self, index: int) -> "OverSeeds":
        """The experiment of one seed, the first being 0."""
        task = dataclasses.replace(
            self.task, shuffle_seed=self.task.shuffle_seed + index
        )
        return dataclasses.replace(self, seed=self.seed + index, task=task)
