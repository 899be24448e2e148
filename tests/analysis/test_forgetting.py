import itertools
import math
import random
import statistics

import pytest

from seal_jax.analysis import forgetting, stats
from seal_jax.analysis.forgetting import Matrix

# Two passages: learned .5 -> .7 and .2 -> .6; the second edit costs the first .3.
FORGETS = Matrix(((0.5, 0.2), (0.7,), (0.4, 0.6)))
ONE = Matrix(((0.5,), (0.75,)))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (forgetting.seen, [0.7, 0.5]),
        (forgetting.seen_base, [0.5, 0.35]),
        (forgetting.fresh, [0.7, 0.6]),
        (forgetting.final, [0.4, 0.6]),
        (forgetting.lag, [0.65, 0.4]),
        (forgetting.lag_base, [0.35, 0.5]),
    ],
)
def test_curves_of_two_passages(curve, expected):
    assert curve(FORGETS) == pytest.approx(expected, abs=1e-15)


def test_single_numbers_of_two_passages():
    assert forgetting.backward_transfer(FORGETS) == pytest.approx(0.4 - 0.7)
    assert forgetting.final_gain(FORGETS) == pytest.approx(0.4 - 0.5)
    assert forgetting.retention(FORGETS) == pytest.approx(0.4 / 0.7)


def test_one_passage_has_nothing_earlier():
    assert forgetting.lag(ONE) == [0.75]
    assert forgetting.seen(ONE) == [0.75]
    assert forgetting.backward_transfer(ONE) is None
    assert forgetting.final_gain(ONE) is None
    assert forgetting.retention(ONE) is None


def test_nothing_learned_has_no_retention():
    assert forgetting.retention(Matrix(((0.5, 0.2), (0.0,), (0.3, 0.6)))) is None


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        (((0.5, 0.2), (0.7,), (0.4, 0.6)), None),
        (((0.5, 0.2), (0.7,), (0.1, 0.3)), 2),
        (((0.5, 0.2), (0.4,), (0.9, 0.9)), 1),
        # .2 + .1 and .3 + 0 differ in the last bit: equal is not below.
        (((0.1, 0.2), (0.1,), (0.3, 0.0)), None),
        (((0.3, 0.0), (0.3,), (0.1, 0.2)), None),
    ],
)
def test_crossing_is_the_first_edit_below_the_unedited_model(means, expected):
    assert forgetting.crossing(Matrix(means)) == expected


def sequences(count: int, n: int = 3) -> list[Matrix]:
    draw = random.Random(7)
    lengths = [n, *range(1, n + 1)]
    return [
        Matrix(tuple(tuple(draw.random() for _ in range(k)) for k in lengths))
        for _ in range(count)
    ]


def test_pooling_in_two_steps_equals_the_statistics_of_all_sequences():
    single = sequences(9)
    runs = [
        forgetting.pool(single[:4]),
        forgetting.pool(single[4:8]),
        single[8],
    ]
    got = forgetting.pool(runs)
    assert [run.sequences for run in runs] == [4, 4, 1]
    assert got.sequences == 9
    assert got.deviations is not None
    errors = forgetting.standard_errors(got)
    assert errors is not None
    for t, row in enumerate(got.means):
        for p, mean in enumerate(row):
            values = [matrix.means[t][p] for matrix in single]
            assert mean == pytest.approx(statistics.fmean(values))
            deviation = statistics.stdev(values)
            assert got.deviations[t][p] == pytest.approx(deviation)
            assert errors[t][p] == pytest.approx(deviation / 3)


def test_a_run_without_deviations_leaves_them_unknown():
    known = forgetting.pool(sequences(2))
    unknown = Matrix(known.means, 2)
    got = forgetting.pool([known, unknown])
    assert got.sequences == 4
    assert got.deviations is None
    assert forgetting.standard_errors(got) is None


def test_estimates_of_equal_runs_are_the_usual_mean_and_error():
    runs = sequences(6)
    values = [forgetting.seen(run)[2] for run in runs]
    got = forgetting.estimates(runs, forgetting.seen)[2]
    assert got == pytest.approx(stats.mean_se(values))


@pytest.mark.parametrize("curve", [forgetting.seen, forgetting.lag, forgetting.final])
def test_means_of_linear_curves_are_those_of_the_pooled_matrix(curve):
    single = sequences(5)
    runs = [forgetting.pool(single[:3]), forgetting.pool(single[3:])]
    means = [mean for mean, _ in forgetting.estimates(runs, curve)]
    assert means == pytest.approx(curve(forgetting.pool(single)))


def test_estimates_count_runs_by_their_sequences():
    # Shares .75 and .25 of values .2 and .6: mean .3, deviations -.1 and .3,
    # weighted -.075 and .075, so the error is sqrt(2 * 2 * .075 ** 2) = .15.
    runs = [Matrix(((0.5,), (0.2,)), 3), Matrix(((0.5,), (0.6,)))]
    [(mean, se)] = forgetting.estimates(runs, forgetting.seen)
    assert (mean, se) == pytest.approx((0.3, 0.15))


def test_errors_of_one_run_are_unknown_and_of_equal_runs_0():
    assert forgetting.estimates([ONE], forgetting.seen) == [(0.75, None)]
    got = forgetting.estimates([ONE] * 3, forgetting.seen)
    assert got == [(0.75, 0.0)]


def test_averages_stay_in_range_when_all_is_right():
    perfect = Matrix(((1.0,), (1.0,)), 3)
    for count in range(1, 12):
        assert forgetting.pool([perfect] * count).means == perfect.means


BAD = {
    "sequences=0 must be at least 1": {"means": ONE.means, "sequences": 0},
    "deviations of 1 sequence": {"means": ONE.means, "deviations": ONE.means},
    "means have 1 rows": {"means": ((),)},
    "means have 0 rows": {"means": ()},
    "means, row 0: has 1 cells and must have 2, the passages asked": {
        "means": ((0.5,), (0.7,), (0.4, 0.6))
    },
    "means, row 1: has 2 cells and must have 1, the passages learned": {
        "means": ((0.5, 0.2), (0.7, 0.1), (0.4, 0.6))
    },
    "means, row 2, passage 1: 1.5 must be in 0..1": {
        "means": ((0.5, 0.2), (0.7,), (1.5, 0.6))
    },
    "means, row 0, passage 1: nan must be in 0..1": {"means": ((math.nan,), (0.5,))},
    "deviations, row 1, passage 1: -0.1 must be": {
        "means": ONE.means,
        "sequences": 2,
        "deviations": ((0.1,), (-0.1,)),
    },
    "deviations have 3 rows and means 2": {
        "means": ONE.means,
        "sequences": 2,
        "deviations": FORGETS.means,
    },
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_matrix_is_refused_in_one_line(message):
    with pytest.raises(ValueError) as caught:
        Matrix(**BAD[message])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_runs_of_different_kinds_are_not_averaged():
    kinds = [
        FORGETS,
        ONE,
        Matrix(ONE.means, dataset="d"),
        Matrix(ONE.means, base_model="m"),
    ]
    for pair in itertools.combinations(kinds, 2):
        with pytest.raises(ValueError, match="runs to average must share it"):
            forgetting.pool(pair)
    with pytest.raises(ValueError, match="at least one run"):
        forgetting.pool([])
