"""How one reward chooses by another: correlations and picks within passages.

Of several self-edits of one passage a cheap reward likes one best; here is what that
one is worth by the true reward (`choice`), over many passages. Numbers in, numbers out:
values are [passage][edit] or [passage][edit][seed], None where not measured.
"""

import dataclasses
import functools
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from seal_jax.analysis import choice, stats
from seal_jax.analysis.choice import Choice

type Values = Sequence[Sequence[float | None]]
type Seeds = Sequence[Sequence[Sequence[float | None]]]
type MeanSe = tuple[float | None, float | None]
# What the seeds of an edit come to.
type Whole = Callable[[Iterable[float | None]], float | None]

_ROUNDING = 1e-12
_MOST_SPLITS = 70  # all of them for up to 8 seeds
_DRAWS = 2_000


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A reward beside the true one; pairs are (mean, standard error) over passages.

    Intervals hold 95 % of what resampled passages give (percentile bootstrap); they are
    None for fewer than five passages.
    """

    passages: int
    pooled: float | None
    pooled_interval: MeanSe
    pearson: MeanSe
    spearman: MeanSe
    found: MeanSe
    chance: float | None
    pick: MeanSe
    mean: float
    best: float
    captured: float | None  # (pick - mean) / (best - mean), of the sums
    captured_interval: MeanSe


def agree(true: Values, proxy: Values) -> Agreement | None:
    """How `proxy` agrees with `true`, both [passage][edit]; None: no passage has both.

    Raises:
      ValueError: other passages or edits in one than in the other.
    """
    return _summary([choice.of(t, p) for t, p in _paired(true, proxy)])


def agree_halves(
    true: Seeds, proxy: Seeds, *, whole: Whole = stats.mean
) -> Agreement | None:
    """How half of the seeds of `proxy` agree with the other half of `true`.

    Each passage is split in all ways (at most 70, drawn at random), and counts once, by
    the mean. With an odd number of seeds the true reward has the larger half.

    Args:
      true, proxy: [passage][edit][seed], of the same trainings.
      whole: what the seeds of an edit come to.

    Returns:
      as `agree`. Left out are passages without two seeds, edits without any, and
      passages whose edits differ in seeds: those that have more were given them for
      being good with the first, so the later ones would judge a chosen few.

    Raises:
      ValueError: other passages or edits in one than in the other.
    """
    averages = []
    for true_edits, proxy_edits in _paired(true, proxy):
        seeds = min(_seeds(true_edits), _seeds(proxy_edits))
        choices = [
            choice.of(
                [_at(edit, b, whole) for edit in true_edits],
                [_at(edit, a, whole) for edit in proxy_edits],
            )
            for a, b in _splits(seeds)
        ]
        valid = [c for c in choices if c is not None]
        averages.append(choice.average(valid) if valid else None)
    return _summary(averages)


def _seeds(edits: Sequence[Sequence[float | None]]) -> int:
    """How many all edits have that have any; 0 where they differ."""
    counts = {len(seeds) for seeds in edits if seeds}
    return counts.pop() if len(counts) == 1 else 0


def _paired[T](true: Sequence[T], proxy: Sequence[T]) -> Iterable[tuple[T, T]]:
    if len(true) != len(proxy):
        raise ValueError(
            f"rewards of {len(proxy)} passages beside {len(true)}: both must be of the "
            "same ones, in the same order"
        )
    return zip(true, proxy, strict=True)


def _splits(seeds: int) -> list[tuple[list[int], list[int]]]:
    half, everyone = seeds // 2, range(seeds)
    if not half:
        return []
    if math.comb(seeds, half) <= _MOST_SPLITS:
        parts = [list(part) for part in itertools.combinations(everyone, half)]
    else:
        rng = np.random.default_rng(0)
        parts = [rng.permutation(seeds)[:half].tolist() for _ in range(_MOST_SPLITS)]
    return [(part, [s for s in everyone if s not in part]) for part in parts]


def _at(
    values: Sequence[float | None], seeds: Sequence[int], whole: Whole
) -> float | None:
    return whole(values[s] for s in seeds if s < len(values))


def _summary(choices: Sequence[Choice | None]) -> Agreement | None:
    valid = [c for c in choices if c is not None]
    if not valid:
        return None
    products = np.array([c.products for c in valid])
    gains = np.array([(c.pick - c.mean, c.best - c.mean) for c in valid])
    return Agreement(
        passages=len(valid),
        pooled=_scalar(_pooled(products.sum(0))),
        pooled_interval=_interval(products, _pooled),
        pearson=stats.mean_se_of_any(c.pearson for c in valid),
        spearman=stats.mean_se_of_any(c.spearman for c in valid),
        found=stats.mean_se_of_any(c.found for c in valid),
        chance=stats.mean(c.chance for c in valid),
        pick=stats.mean_se_of_any(c.pick for c in valid),
        mean=statistics.fmean(c.mean for c in valid),
        best=statistics.fmean(c.best for c in valid),
        captured=_scalar(_captured(gains.sum(0))),
        captured_interval=_interval(gains, _captured),
    )


def _pooled(sums: np.ndarray) -> np.ndarray:
    """Correlation from sums of products on the last axis; nan where undefined."""
    return _ratio(sums[..., 0], np.sqrt(sums[..., 1]) * np.sqrt(sums[..., 2]))


def _captured(sums: np.ndarray) -> np.ndarray:
    return _ratio(sums[..., 0], sums[..., 1])


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    there = b > _ROUNDING
    return np.where(there, a / np.where(there, b, 1.0), np.nan)


def _scalar(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(
    rows: np.ndarray, value: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float] | tuple[None, None]:
    """Of `value` of the rows' sum, when rows are drawn with replacement."""
    if len(rows) < stats.FEWEST:
        return None, None
    sums = [rows[picks].sum(1) for picks in stats.resamples(len(rows), _DRAWS)]
    values = value(np.concatenate(sums))
    values = values[~np.isnan(values)]
    if not len(values):
        return None, None
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


# All rewards of the same edits

TRUE = "grade"


@dataclasses.dataclass(frozen=True)
class AllRewards:
    """All rewards of the edits of one round or file: {name: [passage][edit][seed]}.

    A reward that has no seeds has one value; TRUE is among the names. Of a race `raced`
    is the number of seeds that all edits had, the only ones that are in. `objective`:
    what an edit's seeds come to, their "mean" or "max". `sifted`: only those are in
    that a prefilter let through: among them its own reward looks worse than it is, as
    the edits that it liked least were not tried.
    """

    name: str
    rewards: Mapping[str, Seeds]
    raced: int | None = None
    objective: str = "mean"
    sifted: bool = False

    @property
    def has_choice(self) -> bool:
        """Whether a passage has more than one edit."""
        return max(map(len, self.rewards[TRUE]), default=0) > 1

    # Computed once, since the tables and each chart of a report ask for it.
    @functools.cached_property
    def agreements(self) -> dict[str, Agreement | None]:
        """`compare` of these."""
        return compare(self.rewards, objective=self.objective)


def compare(
    rewards: Mapping[str, Seeds], *, objective: str = "mean"
) -> dict[str, Agreement | None]:
    """{reward: its agreement with the true one}, also on other seeds where there are.

    The ceiling, "grade, other seeds", comes first.
    """
    whole = _largest if objective == "max" else stats.mean
    true = _of_edits(rewards[TRUE], whole)
    results: dict[str, Agreement | None] = {}
    for name in (TRUE, *(name for name in rewards if name != TRUE)):
        if name != TRUE:
            results[name] = agree(true, _of_edits(rewards[name], whole))
        halves = agree_halves(rewards[TRUE], rewards[name], whole=whole)
        if halves is not None:
            results[f"{name}, other seeds"] = halves
    return results


def _of_edits(rewards: Seeds, whole: Whole) -> Values:
    return [[whole(seeds) for seeds in edits] for edits in rewards]


def _largest(values: Iterable[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)
