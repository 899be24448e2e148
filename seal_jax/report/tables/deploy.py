"""Runs on the job that differ in their seed: each row's measures over them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from seal_jax.analysis import stats
from seal_jax.runtime import formatting

# Over all nights, or after the last one.
MEASURES = ("learned", "final", "rephrased", "unasked", "general", "drift")


@dataclasses.dataclass(frozen=True)
class OverSeeds:
    """Mean over runs and half of Student's 95 % interval, and each run's value.

    Both are None where a run has none, and `half` of a single run.
    """

    mean: float | None
    half: float | None
    values: tuple[float | None, ...]

    @property
    def text(self) -> str:
        """0.123 ± 0.045, or "-"."""
        return formatting.plus_minus(self.mean, self.half)


def value(arm: Mapping[str, Any], measure: str) -> float | None:
    """A measure of a row of one run; None: it has none."""
    found = arm.get(measure)
    return formatting.measured(
        found.get("mean") if isinstance(found, Mapping) else found
    )


def by_night(arm: Mapping[str, Any], measure: str) -> list[float | None]:
    """A measure of a row of one run, night by night."""
    told = arm.get("by_night")
    values = told.get(measure) if isinstance(told, Mapping) else None
    return [value({"": v}, "") for v in values] if isinstance(values, list) else []


def over_seeds(values: Sequence[float | None]) -> OverSeeds:
    """The runs' values together."""
    if not values or None in values:
        return OverSeeds(None, None, tuple(values))
    low, high = stats.student(values)
    half = None if low is None or high is None else (high - low) / 2
    return OverSeeds(stats.mean(values), half, tuple(values))
