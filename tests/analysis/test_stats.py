import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats as scipy_stats

from seal_jax.analysis import stats


@pytest.mark.parametrize(
    ("values", "mean", "se"),
    [
        ([1.0, 2.0, 3.0, 4.0], 2.5, math.sqrt(5 / 3) / 2),  # s^2 = 5/3
        ([0.0, 1.0], 0.5, 0.5),
        ([0.25, None, 0.75, None], 0.5, 0.25),
        ([True, False], 0.5, 0.5),
        ([0.1] * 7, 0.1, 0.0),
        ([0.3], 0.3, None),
        ([None, 0.3], 0.3, None),
    ],
)
def test_mean_se(values, mean, se):
    got_mean, got_se = stats.mean_se(values)
    assert got_mean == pytest.approx(mean, abs=1e-15)
    assert got_se == (None if se is None else pytest.approx(se, abs=1e-15))
    # Exactly zero, not the rounding of a variance.
    assert (got_se == 0.0) == (se == 0.0)


@pytest.mark.parametrize(
    ("a", "b", "diff", "se", "z"),
    [
        # diffs 1, 2, 3: s = 1, se = 1 / sqrt 3
        ([2, 4, 6], [1, 2, 3], 2.0, 3**-0.5, 2 * 3**0.5),
        ([1, 2], [2, 1], 0.0, 1.0, 0.0),
        ([2, None, 6, 4], [1, 5, 3, None], 2.0, 1.0, 2.0),
        ([0.6, 0.4], [0.4, 0.2], 0.2, 0.0, None),  # 0.6 - 0.4 != 0.2 in float64
        ([0.5, 0.5], [0.5, 0.5], 0.0, 0.0, None),
        ([0.7], [0.5], 0.2, None, None),
    ],
)
def test_paired(a, b, diff, se, z):
    got = stats.paired(a, b)
    for value, expected in zip(got, (diff, se, z), strict=True):
        if expected is None:
            assert value is None
        else:
            assert value == pytest.approx(expected, abs=1e-12)
    assert (got[1] == 0.0) == (se == 0.0)


def test_paired_is_antisymmetric():
    a, b = [0.1, 0.9, 0.4], [0.3, 0.2, 0.2]
    diff, se, z = stats.paired(a, b)
    assert z is not None
    assert stats.paired(b, a) == (-diff, se, -z)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.mean_se([]), "at least one"),
        (lambda: stats.mean_se([None]), "at least one"),
        (lambda: stats.mean_se([1.0, math.nan]), "value=nan must be finite"),
        (lambda: stats.paired([1.0], [1.0, 2.0]), "lengths 1 and 2"),
        (lambda: stats.paired([1.0, None], [None, 2.0]), "2 pairs, none"),
        (lambda: stats.paired([math.inf], [1.0]), "value=inf must be finite"),
    ],
)
def test_bad_values_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_counts_that_make_a_z():
    counts = (stats.FEWEST - 1, stats.FEWEST, None, "-", float("nan"))
    assert [stats.enough(n) for n in counts] == [False, True, True, True, True]


@pytest.mark.parametrize("count", [2, 3, 129, 1000])
def test_an_interval_is_that_of_one_large_draw(count, monkeypatch):
    values = np.random.default_rng(1).random(count)
    picks = np.random.default_rng(0).integers(count, size=(10_000, count))
    at_once = np.percentile(values[picks].mean(1), (2.5, 97.5))
    for places in (1, 1000, 1 << 20):
        monkeypatch.setattr(stats, "_CHUNK", places)
        draws = 10_000 if places > 1 else 200
        if draws == 10_000:
            assert stats.interval(values.tolist()) == tuple(at_once)
        rows = np.concatenate(list(stats.resamples(count, draws)))
        assert np.array_equal(rows, picks[:draws])


def test_an_interval_of_many_items_takes_little_memory():
    values = np.random.default_rng(1).random(20_000)
    tracemalloc.start()
    stats.interval(values.tolist(), draws=400)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All places at once are 64 MB, and as many bytes of what is there.
    assert peak < 32e6


def test_students_interval_is_scipys():
    values = [0.1, 0.3, None, 0.2, -0.1]
    measured = [v for v in values if v is not None]
    want = scipy_stats.t.interval(
        0.95, 3, loc=np.mean(measured), scale=scipy_stats.sem(measured)
    )
    assert stats.student(values) == pytest.approx(want)
    assert stats.student([0.1, None]) == (None, None)
    assert stats.student([0.5, 0.5]) == (0.5, 0.5)
