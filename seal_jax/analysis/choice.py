"""What one reward's choice among the edits of a passage is worth by the true one.

Numbers in, numbers out: a value for each edit, None where it was not had.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np

from seal_jax.analysis import stats

_ROUNDING = 1e-12  # beside the values
_TIE = 1e-9
_FEWEST_EDITS = 3  # of two, any correlation is 1 or -1


@dataclasses.dataclass(frozen=True)
class Choice:
    """A reward's choice among the edits of one passage.

    Correlations are None for fewer than three edits, and where one of the two rewards
    is the same for all, as are `found` and `chance` where the true one is: there
    is nothing to find then.
    """

    pearson: float | None
    spearman: float | None
    found: float | None  # share of the picks (ties: all) that are truly best
    chance: float | None  # the same for a random pick
    pick: float  # mean true reward of the picks
    mean: float  # ... of all edits
    best: float  # ... of the truly best
    products: tuple[float, float, float]  # sums of squares: proxy x true, both alone


def of(true: Sequence[float | None], proxy: Sequence[float | None]) -> Choice | None:
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
    graded = [t for t in true if t is not None]
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
    best = _is_best(np.array(graded, float))
    differ, correlate = not best.all(), len(both) >= _FEWEST_EDITS
    ranks = [_deviations(_ranks(values)) for values in (x, y)]
    return Choice(
        pearson=_correlation(dx, dy) if correlate else None,
        spearman=_correlation(*ranks) if correlate else None,
        found=float((picked >= max(graded) - _TIE).mean()) if differ else None,
        chance=float(best.mean()) if differ else None,
        pick=float(picked.mean()),
        mean=statistics.fmean(graded),
        best=max(graded),
        products=(float(dx @ dy), float(dx @ dx), float(dy @ dy)),
    )


def _deviations(values: np.ndarray) -> np.ndarray:
    """From their mean; exactly 0 where all are equal but for rounding."""
    deviations = values - values.mean()
    still = np.ptp(values) <= _ROUNDING * np.abs(values).max()
    return np.zeros_like(deviations) if still else deviations


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


def average(choices: Sequence[Choice]) -> Choice:
    """Of several choices about one passage, field by field."""
    means = {
        field.name: stats.mean(getattr(c, field.name) for c in choices)
        for field in dataclasses.fields(Choice)
        if field.name != "products"
    }
    products = [
        statistics.fmean(p) for p in zip(*(c.products for c in choices), strict=True)
    ]
    return Choice(**means, products=tuple(products))  # pyright: ignore
