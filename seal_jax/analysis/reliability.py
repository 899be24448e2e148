"""What seeds tell of edits, of rewards that several seeds measured.

`variance` and `halving` hold the statistics; here they meet rewards that have a name, a
judge beside them, and perhaps a race behind them.
"""

import dataclasses
import math
from collections.abc import Sequence

from seal_jax.analysis import halving, stats, variance
from seal_jax.analysis.variance import Rewards


@dataclasses.dataclass(frozen=True)
class SeedRewards:
    """rewards[passage][edit][seed], and what the same trainings are to be graded by."""

    name: str
    rewards: Rewards
    judge: Rewards  # shares of right answers; the rewards where those are not known
    raced: int | None = None  # of a race: the seeds that all edits had, and are in


@dataclasses.dataclass(frozen=True)
class Trust:
    """How far the rewards of the best edits can be trusted."""

    parts: variance.Components
    edits: int  # of the passage that has most
    seeds: int  # of the edit that has most
    reliability: float | None
    lead: float  # of the best edits over their passages' means
    lead_se: float | None

    @property
    def real(self) -> float | None:
        """What is expected to remain of the lead at fresh seeds."""
        return None if self.reliability is None else self.lead * self.reliability


def trust(rewards: Rewards) -> Trust:
    """The parts of the variance, and the lead of the best edits.

    Raises:
      ValueError: as `variance.anova`.
    """
    parts, seeds = variance.anova(rewards), most_seeds(rewards)
    lead, error = stats.mean_se(variance.best_lead(rewards))
    return Trust(
        parts=parts,
        edits=max(map(len, rewards)),
        seeds=seeds,
        reliability=variance.reliability(parts, seeds),
        lead=lead,
        lead_se=error,
    )


def is_separable(rewards: Rewards) -> bool:
    """Whether there are seeds and edits enough to tell edits from luck."""
    try:
        variance.anova(rewards)
    except ValueError:
        return False
    return True


def most_seeds(rewards: Rewards) -> int:
    """Seeds of the edit that has most."""
    return max((len(seeds) for passage in rewards for seeds in passage), default=0)


def have_same_seeds(a: Rewards, b: Rewards) -> bool:
    """Whether both have a value for the same trainings."""
    return all(
        len(x) == len(y)
        for p, q in zip(a, b, strict=True)
        for x, y in zip(p, q, strict=True)
    )


def are_equal(a: Rewards, b: Rewards) -> bool:
    """Whether both, of the same trainings, are the same up to rounding."""
    pairs = [
        (x, y)
        for p, q in zip(a, b, strict=True)
        for e, f in zip(p, q, strict=True)
        for x, y in zip(e, f, strict=True)
    ]
    return all(
        x is y if x is None or y is None else math.isclose(x, y, abs_tol=1e-9)
        for x, y in pairs
    )


# Schedules


def halvings(edits: int) -> list[halving.Schedule]:
    """The schedules that are compared: halved once, and until one edit is left."""
    once = (halving.Rung(1, math.ceil(edits / 2)), halving.Rung(2, 1))
    return [once, *(halving.schedule(edits, first=first) for first in (1, 2, 3))]


def resample(
    rewards: Rewards,
    parts: variance.Components,
    plans: Sequence[halving.Schedule],
    *,
    edits: int,
    draws: int,
) -> list[halving.Grade]:
    """`halving.resample` of each plan, with the variances of `parts`."""
    return [
        halving.resample(
            rewards,
            plan,
            edit=parts.edit,
            seed=parts.seed,
            edits=edits,
            draws=draws,
        )
        for plan in plans
    ]


def held_out(
    measured: SeedRewards, plan: halving.Schedule
) -> tuple[float | None, float | None]:
    """Gain on the seeds not raced with, and its standard error over passages.

    Only of passages that have such seeds, and as many edits as the plan takes.
    """
    most = plan[-1].seeds
    pairs = [
        (rewards, judge)
        for rewards, judge in zip(measured.rewards, measured.judge, strict=True)
        if most_seeds([rewards]) > most and len(rewards) >= plan[0].keep
    ]
    gains = halving.held_out(
        [rewards for rewards, _ in pairs], plan, of=[judge for _, judge in pairs]
    )
    gains = [gain for gain in gains if gain is not None]
    return stats.mean_se(gains) if gains else (None, None)
