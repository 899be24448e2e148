"""Means with standard errors, and paired differences: numbers in, numbers out.

An entry that was not measured (a judgement that could not be had) is None and is left
out; it never counts as 0. What the data cannot say is None as well, so that every
result is plain JSON.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# A spread this small beside the values is the rounding of equal numbers: 0.6 - 0.4 and
# 0.4 - 0.2 differ in the last bit. Dividing by it would report an enormous z.
_ROUNDING = 1e-12

# Places drawn at a time: 8 MB of them.
_CHUNK = 1 << 20

# A difference over fewer items, and its standard error all the more, says nothing.
FEWEST = 5


def enough(count: object) -> bool:
    """Whether `count` items make a z and an interval; so do those nobody counted."""
    if isinstance(count, bool) or not isinstance(count, int | float):
        return True
    return not math.isfinite(count) or count >= FEWEST


def mean_se(values: Sequence[float | None]) -> tuple[float, float | None]:
    """Mean and its standard error, s / sqrt(n) with s the n - 1 deviation.

    Returns:
      (mean, se). se is None for one value, and 0.0 when all values are equal.

    Raises:
      ValueError: no measured value, or one that is not finite.
    """
    measured = [_finite(v) for v in values if v is not None]
    if not measured:
        raise ValueError(
            f"values={list(values)[:3]}: a mean needs at least one measured value; "
            "leave the row out"
        )
    size = max(map(abs, measured))
    return statistics.fmean(measured), _standard_error(measured, size)


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the measured values; None where none is."""
    measured = [value for value in values if value is not None]
    return statistics.fmean(measured) if measured else None


def mean_se_of_any(
    values: Iterable[float | None],
) -> tuple[float | None, float | None]:
    """`mean_se`, or (None, None) where no value is measured."""
    measured = [value for value in values if value is not None]
    return mean_se(measured) if measured else (None, None)


def interval(
    values: Sequence[float | None], *, share: float = 0.95, draws: int = 10_000
) -> tuple[float, float] | tuple[None, None]:
    """Percentile bootstrap of the mean: items are drawn with replacement.

    With few items, or shares near 0 or 1, this tells more than a standard error; with
    all values equal it has no width, which is no proof of certainty.

    Returns:
      (low, high) that hold `share` of the resampled means; None for fewer than two
      values. The same for the same values.

    `scipy.stats.bootstrap` would draw the same resamples from this generator, but take
    its percentiles at 100 * (1 - share) / 2 as rounded otherwise, so that the ends, all
    of whose digits summary.json holds, differ in the last one.
    """
    measured = np.array([_finite(v) for v in values if v is not None])
    count = len(measured)
    if count < 2:
        return None, None
    means = [measured[picks].mean(1) for picks in resamples(count, draws)]
    tail = 50 * (1 - share)
    low, high = np.percentile(np.concatenate(means), (tail, 100 - tail))
    return float(low), float(high)


def resamples(count: int, draws: int) -> Iterator[np.ndarray]:
    """Places of `count` items, drawn with replacement `draws` times: rows `[., count]`.

    A few rows at a time, or those of 10,000 items would take 1.6 GB; the generator goes
    on where it was, so together they are one draw of all. The same at every call.
    """
    rng = np.random.default_rng(0)
    rows = max(1, _CHUNK // max(count, 1))
    for begin in range(0, draws, rows):
        yield rng.integers(count, size=(min(rows, draws - begin), count))


def paired(
    a: Sequence[float | None], b: Sequence[float | None]
) -> tuple[float, float | None, float | None]:
    """Mean of a - b over the same items, its standard error, and z = diff / se.

    An item that is None on either side is left out on both.

    Returns:
      (diff, se, z). se is None for one item. z is None where there is no se, or where
      every difference is the same (se 0.0): then the noise is unknown.

    Raises:
      ValueError: lengths differ, no item measured on both sides, or not finite.
    """
    if len(a) != len(b):
        raise ValueError(
            f"lengths {len(a)} and {len(b)}: paired values must be of the same items, "
            "in the same order; match them by id first"
        )
    both = [
        (_finite(x), _finite(y))
        for x, y in zip(a, b, strict=True)
        if x is not None and y is not None
    ]
    if not both:
        raise ValueError(
            f"{len(a)} pairs, none measured on both sides: a difference needs at least "
            "one; leave the row out"
        )
    diffs = [x - y for x, y in both]
    diff = statistics.fmean(diffs)
    se = _standard_error(diffs, max(max(abs(x), abs(y)) for x, y in both))
    return diff, se, diff / se if se else None


def _standard_error(values: list[float], size: float) -> float | None:
    """Of values computed from numbers as large as `size`."""
    if len(values) < 2:
        return None
    deviation = statistics.stdev(values)
    if deviation <= _ROUNDING * size:
        return 0.0
    return deviation / math.sqrt(len(values))


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(
            f"value={value} must be finite; give None for what was not measured"
        )
    return float(value)


def student(
    values: Sequence[float | None], *, share: float = 0.95
) -> tuple[float, float] | tuple[None, None]:
    """Student's interval of the mean of a few independent, roughly normal values.

    Runs of other seeds are such: few enough that a bootstrap's interval is too short.

    Returns:
      (low, high); None for fewer than two values.
    """
    from scipy import special  # Seconds to import, and seldom needed.

    measured = [value for value in values if value is not None]
    if len(measured) < 2:
        return None, None
    average, se = mean_se(measured)
    half = float(special.stdtrit(len(measured) - 1, (1 + share) / 2)) * (se or 0.0)
    return average - half, average + half
