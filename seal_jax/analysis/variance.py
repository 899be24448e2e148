"""Edits or luck: the parts of a reward's variance, and what selection gains by it.

The reward of one training is the passage's level, plus what the edit is worth, plus
luck of the seed; a nested analysis of variance tells how large each part is (Searle,
Casella and McCulloch, Variance Components, ch. 5). The best of several noisy means is
partly the luckiest: only the share `reliability` of its lead is there again at the next
seed.

Rewards are nested sequences, rewards[passage][edit][seed]; None is not measured. Every
list may have its own length.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

type Rewards = Sequence[Sequence[Sequence[float | None]]]


@dataclasses.dataclass(frozen=True)
class Components:
    """Variance components of rewards, as estimated (so possibly below 0)."""

    passages: int
    edits: int  # in all passages together
    trainings: int
    mean: float  # over passages, of their mean over edits, of their mean over seeds
    seed: float  # between the seeds of an edit
    edit_raw: float  # between the true values of a passage's edits
    passage_raw: float | None  # between passages; None for one passage

    @property
    def edit(self) -> float:
        """`edit_raw`, or 0 where the estimate is below it."""
        return max(0.0, self.edit_raw)

    @property
    def passage(self) -> float | None:
        """`passage_raw`, or 0 where the estimate is below it."""
        return None if self.passage_raw is None else max(0.0, self.passage_raw)

    @property
    def clipped(self) -> tuple[str, ...]:
        """Which components were estimated below 0, and so count as 0."""
        estimates = {"edit": self.edit_raw, "passage": self.passage_raw}
        return tuple(k for k, v in estimates.items() if v is not None and v < 0)

    def of_means(self, seeds: int) -> float:
        """Variance among a passage's edits of their means over `seeds` seeds."""
        return self.edit + self.seed / _count("seeds", seeds)


def anova(rewards: Rewards) -> Components:
    """Variance components of a nested design, balanced or not.

    Sums of squares are set equal to their expectations, so every raw component is
    unbiased whatever the distributions.

    Raises:
      ValueError: no edit with two seeds, or no passage with two edits: then the parts
        cannot be told apart; or a reward that is not finite.
    """
    rows = _sums(rewards)
    runs, edits, ratio, within, between = rows[:, :5].sum(0)
    trainings, centre = rows[:, 0], rows[:, 5]
    passages = len(rows)
    seed = within / (runs - edits)
    edit_raw = (between - (edits - passages) * seed) / (runs - ratio)
    passage_raw = None
    if passages > 1:
        grand = (trainings * centre).sum() / runs
        square = (trainings * (centre - grand) ** 2).sum()
        spread = ratio - rows[:, 7].sum() / runs
        square -= (passages - 1) * seed + spread * edit_raw
        passage_raw = float(square / (runs - (trainings**2).sum() / runs))
    return Components(
        passages=passages,
        edits=int(edits),
        trainings=int(runs),
        mean=float(rows[:, 6].mean()),
        seed=float(seed),
        edit_raw=float(edit_raw),
        passage_raw=passage_raw,
    )


def reliability(parts: Components, seeds: int) -> float | None:
    """Share of the variance among means over `seeds` seeds that is not luck, 0..1.

    Also the correlation of two such means of fresh seeds, and the share of a lead that
    is expected to remain (regression to the mean). None where nothing varies.
    """
    total = parts.of_means(seeds)
    return parts.edit / total if total > 0 else None


def reliability_interval(
    rewards: Rewards, seeds: int, *, share: float = 0.95, draws: int = 10_000
) -> tuple[float, float] | tuple[None, None]:
    """Percentile bootstrap of `reliability`: passages are drawn with replacement.

    Returns:
      (low, high); None for fewer than two passages. The same for the same rewards.
    """
    rows = _sums(rewards)
    passages = len(rows)
    if passages < 2:
        return None, None
    rng = np.random.default_rng(0)
    times = rng.multinomial(passages, np.full(passages, 1 / passages), size=draws)
    runs, edits, ratio, within, between = (times @ rows[:, :5]).T
    # A draw may by chance hold no repeated seed, or no second edit.
    ok = (runs - edits > 0.5) & (edits - passages > 0.5)
    runs, edits, ratio, within, between = (
        v[ok] for v in (runs, edits, ratio, within, between)
    )
    seed = within / (runs - edits)
    edit = np.maximum(0, (between - (edits - passages) * seed) / (runs - ratio))
    total = edit + seed / _count("seeds", seeds)
    values = edit[total > 0] / total[total > 0]
    if not len(values):
        return None, None
    tail = 50 * (1 - share)
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)


def _sums(rewards: Rewards) -> np.ndarray:
    """Per passage: trainings, edits, sum of n^2 over trainings, squares within edits,
    squares between edits, weighted mean, mean of means, sum of n^2."""
    rows = []
    for passage in rewards:
        samples = [sample for edit in passage if (sample := _measured(edit))]
        if not samples:
            continue
        n = np.array([len(sample) for sample in samples], float)
        means = np.array([math.fsum(sample) / len(sample) for sample in samples])
        centre = (n * means).sum() / n.sum()
        within = sum(
            float(((np.array(sample) - m) ** 2).sum())
            for sample, m in zip(samples, means, strict=True)
        )
        between = (n * (means - centre) ** 2).sum()
        squares = (n**2).sum()
        ratio = squares / n.sum()
        rows.append(
            (n.sum(), len(n), ratio, within, between, centre, means.mean(), squares)
        )
    rows = np.array(rows).reshape(-1, 8)
    runs, edits = rows[:, 0].sum(), rows[:, 1].sum()
    if runs == edits or edits == len(rows):
        raise ValueError(
            f"{len(rows)} passages, {edits:.0f} edits, {runs:.0f} trainings: needs an "
            "edit with two seeds and a passage with two edits to tell edits from luck; "
            "grade with more"
        )
    return rows


def _measured(edit: Sequence[float | None]) -> list[float]:
    values = [float(r) for r in edit if r is not None]
    for value in values:
        if not math.isfinite(value):
            raise ValueError(
                f"reward={value} must be finite; give None for what was not measured"
            )
    return values


# What selection gains


@dataclasses.dataclass(frozen=True)
class Gain:
    """What the best of some edits has over the mean edit, in units of the reward."""

    edits: int
    seeds: int
    apparent: float  # in the rewards it was chosen by
    real: float  # at fresh seeds: apparent * reliability
    perfect: float  # if it were chosen by the true values

    @property
    def trainings(self) -> int:
        """Of each passage."""
        return self.edits * self.seeds


def expected_gain(parts: Components, edits: int, seeds: int) -> Gain:
    """Of the best of `edits` by the mean over `seeds` seeds, for normal rewards."""
    top = normal_maximum(edits)
    spread = math.sqrt(parts.of_means(seeds))
    return Gain(
        edits=edits,
        seeds=seeds,
        apparent=top * spread,
        real=top * parts.edit / spread if spread > 0 else 0.0,
        perfect=top * math.sqrt(parts.edit),
    )


def splits(
    parts: Components, trainings: int, *, most_edits: int | None = None
) -> list[Gain]:
    """Ways to spend at most `trainings` on a passage, by real gain, the best first.

    One for each number of edits up to `most_edits`, with as many seeds as that leaves.
    Equal gains: fewer trainings first.
    """
    most = min(_count("trainings", trainings), most_edits or trainings)
    options = [expected_gain(parts, e, trainings // e) for e in range(1, most + 1)]
    return sorted(options, key=lambda g: (-g.real, g.trainings))


def normal_maximum(count: int) -> float:
    """Expected maximum of `count` independent standard normals."""
    from scipy import integrate, special  # Seconds to import, and seldom needed.

    _count("count", count)

    def tails(x: float) -> float:
        """P(max > x) - P(max < -x), whose integral over x > 0 is E[max]."""
        return 1 - special.ndtr(x) ** count - special.ndtr(-x) ** count

    # Beyond 12 even a million of them contribute nothing. For one, rounding may leave a
    # number below 0.
    return max(0.0, float(integrate.quad(tails, 0, 12)[0]))


def best_lead(rewards: Rewards) -> list[float | None]:
    """Per passage, its best edit's mean reward minus the mean over its edits."""
    leads: list[float | None] = []
    for passage in rewards:
        means = [
            math.fsum(sample) / len(sample) for e in passage if (sample := _measured(e))
        ]
        leads.append(max(means) - math.fsum(means) / len(means) if means else None)
    return leads


def _count(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name}={value} must be at least 1; give 1 or more")
    return value
