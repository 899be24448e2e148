"""Verdicts in closed form, by table, and as properties of any rounds."""

import math
import re
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.analysis import plateau, stats

N = 9  # a square: the standard error is the deviation over 3


def noisy(mean, flip=1):
    """N values whose difference to another `flip` has a known standard error."""
    return [mean + flip * d for d in (-0.3, -0.2, -0.1, 0, 0, 0, 0.1, 0.2, 0.3)]


def flat(mean):
    return [mean] * N


SE = statistics.stdev(noisy(0)) / 3  # of flat minus noisy


@pytest.mark.parametrize("rule", plateau.RULES)
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_steady_growth_never_stops(rule, patience):
    # The items' noise moves on by one each round: at most 2 SE of any difference.
    rounds = [[v + 0.3 * r for v in np.roll(noisy(0), r)] for r in range(9)]
    assert 0.3 / (2 * SE) > 2
    for n in range(len(rounds) + 1):
        assert plateau.verdict(rounds[:n], rule=rule, patience=patience) is None
    alike = [flat(0.05 * r) for r in range(12)]
    for n in range(len(alike) + 1):
        assert plateau.verdict(alike[:n], rule=rule, patience=patience) is None
    assert plateau.plateaus(alike) is None


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_no_change_stops_after_the_patience(patience):
    rounds = [flat(0.4)] * 9
    for n in range(patience + 1):
        assert plateau.verdict(rounds[:n], rule="plateau", patience=patience) is None
    got = plateau.verdict(rounds[: patience + 1], rule="plateau", patience=patience)
    assert got is not None
    assert (got.kind, got.round, got.best) == ("plateau", patience, 0)
    assert plateau.verdict(rounds, rule="regression", patience=patience) is None
    assert plateau.plateaus(rounds) == 0


@pytest.mark.parametrize("rule", ["regression", "plateau"])
def test_a_drop_stops_at_once_and_names_its_numbers(rule):
    rounds = [noisy(0.1), flat(0.9), noisy(0.5)]
    got = plateau.verdict(rounds, rule=rule, patience=2)
    z = -0.4 / SE
    assert got == plateau.Verdict(
        "regression",
        2,
        1,
        f"round 2 is below round 1, the best so far (-0.400 ± {SE:.3f}, z = {z:.1f}, "
        "9 items): a regression",
    )
    assert plateau.verdict(rounds, rule="none") is None


@pytest.mark.parametrize("factor, stops", [(0.99, True), (1.01, False)])
def test_z_is_the_border_of_both(factor, stops):
    bound = 0.4 / SE * factor
    drop = plateau.verdict([flat(0.9), noisy(0.5)], rule="regression", z=bound)
    assert (drop is not None) == stops
    rise = plateau.verdict([flat(0.1), noisy(0.5)], rule="plateau", patience=1, z=bound)
    assert (rise is None) == stops
    assert plateau.plateaus([flat(0.1), noisy(0.5)], z=bound) == (None if stops else 0)


def test_a_plateau_names_its_nearest_round():
    rounds = [flat(0.1), flat(0.5), noisy(0.49), noisy(0.52, -1)]
    got = plateau.verdict(rounds, rule="plateau", patience=2)
    assert got == plateau.Verdict(
        "plateau",
        3,
        1,
        "none of rounds 2 to 3 is above round 1, the best before, by z = 2 (the "
        f"nearest, round 3: +0.020 ± {SE:.3f}, z = +{0.02 / SE:.1f}, 9 items): "
        "a plateau",
    )
    one = plateau.verdict([flat(0.5), noisy(0.49)], rule="plateau", patience=1, z=2.5)
    assert one is not None
    assert one.reason.startswith(
        "round 1 is not above round 0 (before any), the best before, by z = 2.5 (the"
    )


# rounds, patience, kind and best
CASES = {
    "no rounds": ([], 1, None),
    "the base only": ([flat(0.5)], 1, None),
    # The last two are compared with what was before them, not with each other.
    "rose within the patience": ([flat(0.1), flat(0.5), flat(0.5)], 2, None),
    "rose before": ([flat(0.1), *[flat(0.5)] * 3], 2, ("plateau", 1)),
    "the first of equals": ([*[flat(0.5)] * 4], 2, ("plateau", 0)),
    "below the best, not the last": (
        [flat(0.9), flat(0.5), flat(0.6)],
        2,
        ("regression", 0),
    ),
    "a drop in noise is a plateau": (
        [flat(0.5), noisy(0.49)],
        1,
        ("plateau", 0),
    ),
    "all items by the same": ([flat(0.5), flat(0.49)], 1, ("regression", 0)),
    "by rounding only": ([flat(0.3), flat(0.1 + 0.2)], 1, ("plateau", 0)),
    "four items": ([[0.9] * 4, [0.1] * 4, [0.1] * 4], 1, None),
    "five items": ([[0.9] * 5, [0.1] * 5], 1, ("regression", 0)),
    "four known in both": (
        [[None, *[0.9] * 5], [*[0.1] * 4, None, None]],
        1,
        None,
    ),
    "five known in both": (
        [[None, *[0.9] * 6], [*[0.1] * 6, None]],
        1,
        ("regression", 0),
    ),
    "an unknown round is never the best": (
        [[None] * N, flat(0.5), flat(0.4)],
        1,
        ("regression", 1),
    ),
    "an unknown round stops nothing": ([flat(0.5), [None] * N, flat(0.5)], 2, None),
    "nothing known": ([[None] * N] * 3, 1, None),
    "no items": ([[], []], 1, None),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict(case):
    rounds, patience, want = CASES[case]
    got = plateau.verdict(rounds, rule="plateau", patience=patience)
    assert (got and (got.kind, got.best)) == want
    if got:
        assert got.round == len(rounds) - 1 and "\n" not in got.reason


PLATEAUS = {
    "none": ([], None),
    "one": ([flat(0.5)], None),
    "after the first": ([flat(0.1), noisy(0.5), flat(0.5), noisy(0.52, -1)], 1),
    "a dip and back": ([flat(0.1), flat(0.5), flat(0.2), flat(0.5)], 1),
    "only downwards": ([flat(0.5), flat(0.4), flat(0.3)], 0),
    "rises last": ([flat(0.5), flat(0.5), flat(0.9)], None),
    "unknown later": ([flat(0.5), flat(0.5), [None] * N], None),
}


@pytest.mark.parametrize("case", PLATEAUS)
def test_plateaus(case):
    rounds, want = PLATEAUS[case]
    assert plateau.plateaus(rounds) == want


@pytest.mark.parametrize(
    "rounds, options, message",
    [
        ([], {"rule": "stop"}, "rule='stop' must be one of none, regression, plateau"),
        ([], {"rule": "none", "patience": 0}, "patience=0 must be at least 1"),
        ([], {"rule": "none", "z": 0.0}, "z=0.0 must be positive and finite"),
        ([], {"rule": "none", "z": math.nan}, "z=nan must be positive and finite"),
        ([[1.0], [1.0, 2.0]], {"rule": "none"}, "rounds of 1 and 2 items: all must be"),
    ],
)
def test_refuses(rounds, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        plateau.verdict(rounds, **options)
    assert "\n" not in str(refused.value)


value = st.none() | st.integers(0, 4).map(lambda i: i / 4)


@given(
    st.lists(st.lists(value, min_size=8, max_size=8), max_size=6),
    st.integers(1, 3),
    st.sampled_from([0.5, 2.0]),
)
def test_any_rounds(rounds, patience, z):
    strict = plateau.verdict(rounds, rule="regression", patience=patience, z=z)
    either = plateau.verdict(rounds, rule="plateau", patience=patience, z=z)
    if strict is not None:
        assert strict == either and strict.kind == "regression"
    if either is None:
        return

    def gain(later):
        pairs = zip(rounds[later], rounds[either.best], strict=True)
        return np.array([a - b for a, b in pairs if a is not None and b is not None])

    def errors(diffs, bound):
        return bound * diffs.std(ddof=1) / math.sqrt(len(diffs))

    newest = gain(either.round)
    assert len(newest) >= stats.FEWEST and either.best < either.round
    if either.kind == "regression":
        assert newest.mean() < 0
        assert newest.mean() <= -errors(newest, z * (1 - 1e-9))
    else:
        assert either.best < len(rounds) - patience
        for later in range(len(rounds) - patience, len(rounds)):
            diffs = gain(later)
            assert diffs.mean() <= 0 or diffs.mean() < errors(diffs, z * (1 + 1e-9))


def test_a_false_alarm_is_rare_in_one_round_and_at_z_2_not_in_eight():
    rng = np.random.default_rng(0)

    def share(rounds, z, draws):
        noise = rng.normal(size=(draws, 1 + rounds, 60)).tolist()
        stops = [
            any(
                plateau.verdict(run[:n], rule="regression", z=z)
                for n in range(2, 2 + rounds)
            )
            for run in noise
        ]
        return statistics.fmean(stops)

    # One side of a normal beyond 2: 2.3 %.
    assert 0.01 < share(1, 2.0, 600) < 0.04
    # What the module says of many rounds: 44 % and 5 %.
    assert 0.34 < share(8, 2.0, 150) < 0.54
    assert share(8, 3.0, 150) < 0.11
