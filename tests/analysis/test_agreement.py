"""Closed forms: perfect, reversed and constant rewards; ties, gaps and halves."""

import itertools
import statistics

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from seal_jax.analysis import agreement, choice

TRUE = [[0.1, 0.5, 0.3], [0.9, 0.2, 0.4], [0.0, 0.0, 0.6]]


def scaled(factor, values=TRUE):
    return [[factor * v + p for v in own] for p, own in enumerate(values)]


def agree(true, proxy):
    found = agreement.agree(true, proxy)
    assert found is not None
    return found


def test_a_perfect_reward():
    got = agree(TRUE, scaled(3.0))
    assert got.passages == 3
    assert got.pearson == got.spearman == got.found == (pytest.approx(1), 0.0)
    assert got.pick[0] == pytest.approx(got.best) == pytest.approx(2 / 3)
    assert got.mean == pytest.approx((0.3 + 0.5 + 0.2) / 3)
    assert got.captured == pytest.approx(1)
    twice = agree(TRUE * 2, scaled(3.0, TRUE * 2))
    assert twice.captured_interval == (pytest.approx(1), pytest.approx(1))
    assert got.chance == pytest.approx(1 / 3)


def test_a_reversed_reward():
    got = agree(TRUE, scaled(-3.0))
    assert got.pearson == got.spearman == (pytest.approx(-1), 0.0)
    assert got.found == (0.0, 0.0)
    assert got.pick[0] == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert got.captured == pytest.approx((0.1 - 1 / 3) / (2 / 3 - 1 / 3))


def test_a_constant_reward_says_nothing_and_picks_the_mean():
    got = agree(TRUE, [[0.1 + 0.2, 0.3, 0.3]] * 3)  # equal but for rounding
    assert got.pearson == got.spearman == (None, None)
    assert got.pooled is None and got.pooled_interval == (None, None)
    assert got.found[0] == got.chance == pytest.approx(1 / 3)
    assert got.pick[0] == pytest.approx(got.mean)
    assert got.captured == pytest.approx(0)


def test_nothing_can_be_found_where_all_edits_are_alike():
    got = agree([[0.6 - 0.4, 0.2], [0.3, 0.3]], [[1.0, 2.0], [2.0, 1.0]])
    assert got.found == got.pearson == (None, None)
    assert got.chance is None and got.captured is None and got.pooled is None
    assert got.captured_interval == (None, None)
    assert got.pick[0] == got.mean == got.best == pytest.approx(0.25)


def test_ties_are_shared():
    got = choice.of([0.0, 1.0, 0.5, 1.0], [2.0, 2.0, 1.0, 2.0])
    assert got is not None
    assert got.found == pytest.approx(2 / 3) and got.chance == 0.5
    assert got.pick == pytest.approx(2 / 3)
    # Ranks 1, 3.5, 2, 3.5 beside 3, 3, 1, 3.
    expected = np.corrcoef([1, 3.5, 2, 3.5], [3, 3, 1, 3])[0, 1]
    assert got.spearman == pytest.approx(expected)


def test_missing_rewards_are_neither_picked_nor_counted():
    true, proxy = [0.2, 0.8, None, 0.4], [1.0, None, 9.0, 2.0]
    got = choice.of(true, proxy)
    assert got is not None
    assert (got.pick, got.best) == (0.4, 0.8)
    assert got.mean == pytest.approx(1.4 / 3)
    assert got.pearson is None and got.found == 0.0  # two edits have both
    assert choice.of([None, 0.5], [1.0, None]) is None
    assert agree([[None], [0.5]], [[1.0], [1.0]]).passages == 1
    assert agreement.agree([[None]], [[1.0]]) is agreement.agree([], []) is None


def test_one_passage_has_no_error():
    got = agree([[0.0, 0.5, 1.0]], [[0.0, 0.5, 1.0]])
    assert got.pearson == (pytest.approx(1), None)
    assert got.captured_interval == got.pooled_interval == (None, None)


@pytest.mark.parametrize(
    "true, proxy, words",
    [
        ([[1.0]], [], "of 0 passages beside 1"),
        ([[1.0, 2.0]], [[1.0]], "1 rewards for 2 edits"),
        ([[1.0]], [[float("nan")]], "must be finite"),
    ],
)
def test_bad_rewards_are_refused_in_one_line(true, proxy, words):
    with pytest.raises(ValueError, match=words) as error:
        agreement.agree(true, proxy)
    assert "\n" not in str(error.value)


NUMBERS = st.lists(st.tuples(*[st.integers(-9, 9)] * 2), min_size=2, max_size=6)


@hypothesis.given(NUMBERS)
def test_correlations_are_numpys(pairs):
    y, x = np.array(pairs, float).T
    got = choice.of(y.tolist(), x.tolist())
    assert got is not None
    undefined = np.ptp(x) == 0 or np.ptp(y) == 0 or len(x) < 3
    assert (got.pearson is None) == undefined
    if got.pearson is not None:
        assert got.pearson == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
        ranks = [[(v < w).sum() + (v == w).sum() / 2 for w in v] for v in (x, y)]
        expected = np.corrcoef(ranks)[0, 1]
        assert got.spearman == pytest.approx(expected, abs=1e-9)


@hypothesis.given(st.lists(NUMBERS, min_size=1, max_size=4))
def test_pooled_is_the_correlation_of_deviations(passages):
    true = [[float(t) for t, _ in own] for own in passages]
    proxy = [[float(p) for _, p in own] for own in passages]
    y, x = (
        np.concatenate([np.array(own) - np.mean(own) for own in side])
        for side in (true, proxy)
    )
    got = agree(true, proxy)
    assert got.mean <= got.best + 1e-9
    if got.pooled is None:
        assert np.ptp(x) < 1e-9 or np.ptp(y) < 1e-9
    else:
        expected = (x @ y) / np.sqrt((x @ x) * (y @ y))
        assert got.pooled == pytest.approx(expected, abs=1e-9)


def test_halves_are_averaged_over_all_splits():
    rng = np.random.default_rng(1)
    true = rng.random((3, 4, 4)).tolist()
    expected = []
    for own in np.array(true):
        values = []
        for half in itertools.combinations(range(4), 2):
            rest = [s for s in range(4) if s not in half]
            values.append(np.corrcoef(own[:, half].mean(1), own[:, rest].mean(1))[0, 1])
        expected.append(statistics.fmean(values))
    got = agreement.agree_halves(true, true)
    assert got is not None
    assert got.pearson[0] == pytest.approx(statistics.fmean(expected))


def test_halves_of_noiseless_seeds_agree_and_of_pure_noise_do_not():
    sure = [[[v] * 3 for v in own] for own in TRUE]
    got = agreement.agree_halves(sure, sure)
    assert got is not None and got.captured == pytest.approx(1)
    noise = np.random.default_rng(0).random((300, 5, 4)).tolist()
    got = agreement.agree_halves(noise, noise)
    assert got is not None and got.pooled is not None
    assert abs(got.pooled) < 0.1
    assert agree(*[[[e[0] for e in p] for p in noise]] * 2).pooled == pytest.approx(1)


def test_a_proxy_is_told_by_the_seeds_that_do_not_judge_it():
    # The seeds contradict each other: what one half likes, the other does not.
    own = [[[0.0, 1.0], [1.0, 0.0]]]
    got = agreement.agree_halves(own, own)
    assert got is not None
    assert got.pooled == pytest.approx(-1) and got.pick == (0.0, None)


def test_without_two_seeds_there_are_no_halves():
    assert agreement.agree_halves([[[0.5], [0.2]]], [[[0.5], [0.2]]]) is None
    assert agreement.agree_halves([[[0.5, 0.1]]], [[[0.5]]]) is None


def test_edits_that_differ_in_seeds_have_no_halves():
    # Only those have the later seeds that were lucky with the first.
    raced = [[0.0, 0.2], [1.0, 0.8], [0.5]]
    assert agreement.agree_halves([raced], [raced]) is None
    # One that was refused has no seeds, and no part in the choice.
    refused = [[0.0, 0.2], [1.0, 0.8], []]
    got = agreement.agree_halves([raced, refused], [raced, refused])
    assert got is not None and got.passages == 1
    # Products of the deviations ±0.5 and ±0.3, over the mean of their squares.
    assert got.pooled == pytest.approx(0.3 / 0.34)


def test_of_two_edits_no_correlation_is_told_but_the_pick_is():
    got = agree([[0.0, 1.0]], [[3.0, 5.0]])
    assert got.pearson == got.spearman == (None, None)
    assert got.pooled == pytest.approx(1) and got.captured == pytest.approx(1)


@pytest.mark.parametrize(("passages", "known"), [(4, False), (5, True)])
def test_an_interval_takes_five_passages(passages, known):
    got = agree(*[[[0.0, 0.5, 1.0]] * passages] * 2)
    for interval in (got.pooled_interval, got.captured_interval):
        assert (interval != (None, None)) == known


def test_many_seeds_are_split_at_random_and_always_alike():
    true = np.random.default_rng(2).random((2, 3, 12)).tolist()
    assert agreement.agree_halves(true, true) == agreement.agree_halves(true, true)
