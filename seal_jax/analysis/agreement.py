"""How one reward chooses by another: correlations and picks within passages.

Of several self-edits of one passage a cheap reward likes one best; here is what that
one is worth by the true reward. Numbers in, numbers out; `agreement` reads files and
prints. Values are [passage][edit] or [passage][edit][seed]; None is what was not had.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from seal_jax.analysis import stats

type Values = Sequence[Sequence[float | None]]
type Seeds = Sequence[Sequence[Sequence[float | None]]]
type MeanSe = tuple[float | None, float | None]

_ROUNDING = 1e-12  # beside the values
_TIE = 1e-9
_MOST_SPLITS = 70  # all of them for up to 8 seeds
_DRAWS = 2_000
_FEWEST = 5  # passages that an interval takes
_FEWEST_EDITS = 3  # of two, any correlation is 1 or -1


# One passage


@dataclasses.dataclass(frozen=True)
class Choice:
    """A reward's choice among the edits of one passage.

    Correlations are None for fewer than three edits, and where one of the two rewards
    is the same for all, as are `found` and `chance` where the true one is: there is
    nothing to find then.
    """

    pearson: float | None
    spearman: float | None
    found: float | None  # share of the picks (ties: all of them) that are truly best
    chance: float | None  # the same for a random pick
    pick: float  # mean true reward of the picks
    mean: float  # ... of all edits
    best: float  # ... of the truly best
    products: tuple[float, float, float]  # sums of squares: proxy x true, both alone


def choice(
    true: Sequence[float | None], proxy: Sequence[float | None]
) -> Choice | None:
    """How `proxy` chooses among edits whose true rewards are `true`.

    An edit without true reward is left out; one without proxy is never picked and has
    no part in correlations. None if no edit has both.

    Raises:
      ValueError: not as many of one as of the other.
    """
    if len(true) != len(proxy):
        raise ValueError(
            f"{len(proxy)} rewards for {len(true)} edits; give one to each, or None"
        )
    known = [t for t in true if t is not None]
    both = [
        (t, p)
        for t, p in zip(true, proxy, strict=True)
        if t is not None and p is not None
    ]
    if not both:
        return None
    y, x = np.array(both, float).T
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("rewards must be finite; give None for what was not measured")
    dx, dy = _deviations(x), _deviations(y)
    picked = y[_is_best(x)]
    best = _is_best(np.array(known, float))
    some, several = not best.all(), len(both) >= _FEWEST_EDITS
    ranks = [_deviations(_ranks(values)) for values in (x, y)]
    return Choice(
        pearson=_correlation(dx, dy) if several else None,
        spearman=_correlation(*ranks) if several else None,
        found=float((picked >= max(known) - _TIE).mean()) if some else None,
        chance=float(best.mean()) if some else None,
        pick=float(picked.mean()),
        mean=statistics.fmean(known),
        best=max(known),
        products=(float(dx @ dy), float(dx @ dx), float(dy @ dy)),
    )


def _deviations(values: np.ndarray) -> np.ndarray:
    """From their mean; exactly 0 where all are equal but for rounding."""
    found = values - values.mean()
    still = np.ptp(values) <= _ROUNDING * np.abs(values).max()
    return np.zeros_like(found) if still else found


def _correlation(dx: np.ndarray, dy: np.ndarray) -> float | None:
    """Pearson's, of deviations; None where one side does not vary.

    By hand, as the pooled one is made of the same sums of products, and
    `scipy.stats.pearsonr` takes no deviations that count as 0.
    """
    return _quotient(float(dx @ dy), math.sqrt(dx @ dx) * math.sqrt(dy @ dy))


def _quotient(a: float, b: float) -> float | None:
    return a / b if b > 0 else None


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1; equal values, up to rounding, share the mean of theirs."""
    from scipy import stats as scipy_stats  # Seconds to import, and seldom needed.

    return scipy_stats.rankdata(np.round(values, 12))


def _is_best(values: np.ndarray) -> np.ndarray:
    """Which values are the highest, up to rounding."""
    return values >= values.max() - _TIE


def _average(choices: Sequence[Choice]) -> Choice:
    """Of several choices about one passage, field by field."""
    means = {
        field.name: mean(getattr(c, field.name) for c in choices)
        for field in dataclasses.fields(Choice)
        if field.name != "products"
    }
    products = [
        statistics.fmean(p) for p in zip(*(c.products for c in choices), strict=True)
    ]
    return Choice(**means, products=tuple(products))  # pyright: ignore


def mean(values: Iterable[float | None]) -> float | None:
    """Of what is known; None of nothing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


# Many passages


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
    return _summary([choice(own, other) for own, other in _paired(true, proxy)])


def agree_halves(true: Seeds, proxy: Seeds) -> Agreement | None:
    """How half of the seeds of `proxy` agree with the other half of `true`.

    Each passage is split in all ways (at most 70, drawn at random), and counts once, by
    the mean. With an odd number of seeds the true reward has the larger half.

    Args:
      true, proxy: [passage][edit][seed], of the same trainings.

    Returns:
      as `agree`. Left out are passages without two seeds, edits without any, and
      passages whose edits differ in seeds: those that have more were given them for
      being good with the first, so the later ones would judge a chosen few.

    Raises:
      ValueError: other passages or edits in one than in the other.
    """
    found = []
    for own, other in _paired(true, proxy):
        seeds = min(map(_seeds, (own, other)))
        choices = [
            choice([_at(edit, b) for edit in own], [_at(edit, a) for edit in other])
            for a, b in _splits(seeds)
        ]
        known = [c for c in choices if c is not None]
        found.append(_average(known) if known else None)
    return _summary(found)


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


def _at(values: Sequence[float | None], seeds: Sequence[int]) -> float | None:
    return mean(values[s] for s in seeds if s < len(values))


def _summary(choices: Sequence[Choice | None]) -> Agreement | None:
    known = [c for c in choices if c is not None]
    if not known:
        return None
    products = np.array([c.products for c in known])
    gains = np.array([(c.pick - c.mean, c.best - c.mean) for c in known])
    return Agreement(
        passages=len(known),
        pooled=_scalar(_pooled(products.sum(0))),
        pooled_interval=_interval(products, _pooled),
        pearson=_mean_se(c.pearson for c in known),
        spearman=_mean_se(c.spearman for c in known),
        found=_mean_se(c.found for c in known),
        chance=mean(c.chance for c in known),
        pick=_mean_se(c.pick for c in known),
        mean=statistics.fmean(c.mean for c in known),
        best=statistics.fmean(c.best for c in known),
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
    if len(rows) < _FEWEST:
        return None, None
    picks = np.random.default_rng(0).integers(len(rows), size=(_DRAWS, len(rows)))
    found = value(rows[picks].sum(1))
    found = found[~np.isnan(found)]
    if not len(found):
        return None, None
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


def _mean_se(values: Iterable[float | None]) -> MeanSe:
    known = [value for value in values if value is not None]
    return stats.mean_se(known) if known else (None, None)
