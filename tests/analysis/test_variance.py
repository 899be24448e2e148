"""Variance components by hand and on data made with known ones; the released run."""

import math

import numpy as np
import pytest

from seal_jax.analysis import variance
from seal_jax.report import read_seeds

RANKING = "knowledge-incorporation/results/query_server/train/rank_iter0.json"


def made(*, passages, edits, seeds, passage, edit, seed, rng):
    """Rewards with these standard deviations; `seeds` may be an array of counts."""
    counts = np.broadcast_to(seeds, (passages, edits))
    rewards = []
    for p in range(passages):
        level = rng.normal(0, passage)
        own = []
        for e in range(edits):
            value = level + rng.normal(0, edit)
            own.append(list(value + rng.normal(0, seed, counts[p, e])))
        rewards.append(own)
    return rewards


def trust(parts, seeds) -> float:
    got = variance.reliability(parts, seeds)
    assert got is not None
    return got


def parts(*, edit, seed):
    return variance.Components(10, 50, 150, 0.4, seed, edit, 0.0)


def test_by_hand():
    # Passage 0: means 1 and 5 around 3; passage 1: means 10 and 10. Squares within
    # edits 2 + 2 + 0 + 8 on 4 degrees; between 2 * (4 + 4) on 2.
    got = variance.anova([[[0, 2], [4, 6]], [[10, 10], [8, 12]]])
    assert (got.passages, got.edits, got.trainings) == (2, 4, 8)
    assert got.mean == 6.5
    assert got.seed == 3.0
    assert got.edit_raw == (8 - 3) / 2 == got.edit
    # Passages: squares 4 * 3.5^2 * 2 = 98 on 1 degree, of which edits give 8.
    assert got.passage == (98 - 8) / 4
    assert got.clipped == ()
    assert got.of_means(2) == 2.5 + 3 / 2 == 4.0  # as measured: (8 + 0) / 2


def test_below_zero_is_clipped_and_said():
    got = variance.anova([[[0, 2], [2, 0]], [[1, 1], [3, -1]]])
    assert got.edit_raw < 0 and got.passage_raw is not None and got.passage_raw <= 0
    assert got.edit == 0.0 == got.passage
    assert "edit" in got.clipped
    assert variance.reliability(got, 3) == 0.0
    assert variance.expected_gain(got, 5, 3).real == 0.0


@pytest.mark.parametrize("ragged", [False, True])
def test_estimates_are_unbiased(ragged):
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 6, (30, 5)) if ragged else 3
    got = np.array(
        [
            (c.seed, c.edit_raw, c.passage_raw)
            for c in (
                variance.anova(
                    made(
                        passages=30,
                        edits=5,
                        seeds=counts,
                        passage=0.5,
                        edit=0.4,
                        seed=0.6,
                        rng=rng,
                    )
                )
                for _ in range(200)
            )
        ]
    )
    error = got.std(0, ddof=1) / math.sqrt(len(got))
    z = (got.mean(0) - [0.36, 0.16, 0.25]) / error
    assert abs(z).max() < 3.5
    assert error.max() < 0.008  # the test could see a wrong coefficient


def test_what_was_not_measured_is_left_out():
    full = [[[0.1, 0.5], [0.4]], [[0.3, 0.2, 0.9], [0.8, 0.7]]]
    gaps = [
        [[0.1, None, 0.5], [None], [0.4, None]],
        [],
        [[None]],
        [[0.3, 0.2, 0.9], [], [0.8, 0.7, None]],
    ]
    assert variance.anova(gaps) == variance.anova(full)
    a, b = (variance.reliability_interval(r, 3, draws=50) for r in (gaps, full))
    assert a == b
    first, second = variance.best_lead(full)
    assert variance.best_lead(gaps) == [first, None, None, second]


@pytest.mark.parametrize(
    "rewards, message",
    [
        ([[[1.0], [2.0]]], "1 passages, 2 edits, 2 trainings: needs an edit with two"),
        ([[[1.0, 2.0]], [[0.0, 1.0]]], "and a passage with two edits"),
        ([], "0 passages, 0 edits, 0 trainings"),
        ([[[None]]], "0 passages"),
        ([[[math.nan, 1.0]]], "reward=nan must be finite"),
    ],
)
def test_refuses(rewards, message):
    with pytest.raises(ValueError, match=message):
        variance.anova(rewards)


def test_one_passage_has_no_variance_between_passages():
    got = variance.anova([[[0, 2], [4, 6]]])
    assert got.passage is None and got.passage_raw is None and got.edit == 7.0
    assert variance.reliability_interval([[[0, 2], [4, 6]]], 3) == (None, None)


def test_reliability_is_spearman_browns_formula():
    c = parts(edit=0.2, seed=0.6)
    one = trust(c, 1)
    assert one == pytest.approx(0.25)
    for k in (2, 3, 10):
        assert variance.reliability(c, k) == pytest.approx(
            k * one / (1 + (k - 1) * one)
        )
    assert variance.reliability(parts(edit=0.0, seed=0.0), 3) is None
    with pytest.raises(ValueError, match="seeds=0 must be at least 1"):
        variance.reliability(c, 0)


def test_reliability_is_the_correlation_of_two_measurements():
    rng = np.random.default_rng(2)
    rewards = np.array(
        made(passages=4000, edits=4, seeds=6, passage=1, edit=0.3, seed=0.6, rng=rng)
    )
    means = rewards.reshape(4000, 4, 2, 3).mean(3)
    centred = means - means.mean(1, keepdims=True)
    seen = np.corrcoef(centred[..., 0].ravel(), centred[..., 1].ravel())[0, 1]
    c = parts(edit=0.09, seed=0.36)
    assert variance.reliability(c, 3) == pytest.approx(seen, abs=0.03)


def test_interval_holds_the_estimate_and_shrinks_with_passages():
    widths = []
    for passages in (25, 400):
        rng = np.random.default_rng(3)
        rewards = made(
            passages=passages, edits=5, seeds=3, passage=1, edit=0.4, seed=0.6, rng=rng
        )
        low, high = variance.reliability_interval(rewards, 3, draws=2000)
        assert low is not None and high is not None
        assert low < trust(variance.anova(rewards), 3) < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)


@pytest.mark.parametrize(
    "count, want",
    [
        (1, 0.0),
        (2, 1 / math.sqrt(math.pi)),
        (3, 1.5 / math.sqrt(math.pi)),
        (4, 1.0293753730),
        (5, 1.1629644736),
        (10, 1.5387527308),
        (100, 2.5075936364),
    ],
)
def test_normal_maximum(count, want):
    assert variance.normal_maximum(count) == pytest.approx(want, abs=1e-9)


def test_expected_gain_is_what_selection_gives():
    rng = np.random.default_rng(4)
    true = rng.normal(0, 0.3, (40_000, 5))
    means = true + rng.normal(0, 0.6 / math.sqrt(2), true.shape)
    at = (np.arange(len(true)), means.argmax(1))
    gain = variance.expected_gain(parts(edit=0.09, seed=0.36), 5, 2)
    assert gain.apparent == pytest.approx(means[at].mean(), abs=0.01)
    assert gain.real == pytest.approx(true[at].mean(), abs=0.01)
    assert gain.perfect == pytest.approx(true.max(1).mean(), abs=0.01)
    assert gain.trainings == 10


def test_splits_are_all_ways_best_first():
    c = parts(edit=0.0057, seed=0.0367)
    got = variance.splits(c, 15)
    assert {(g.edits, g.seeds) for g in got} == {(e, 15 // e) for e in range(1, 16)}
    assert [g.real for g in got] == sorted((g.real for g in got), reverse=True)
    assert (got[0].edits, got[0].seeds) == (7, 2)
    assert variance.splits(c, 15, most_edits=5)[0].edits == 5
    # Without luck one seed is enough; without worth nothing helps, so spend least.
    best = variance.splits(parts(edit=1.0, seed=0.0), 12)[0]
    assert (best.edits, best.seeds) == (12, 1)
    assert variance.splits(parts(edit=0.0, seed=1.0), 12)[0].real == 0.0


def test_released_ranking(seal_data):
    """Numbers published with the analysis of this file, to their precision."""
    (run,) = read_seeds.read(seal_data / RANKING)
    got = variance.anova(run.rewards)
    assert (got.passages, got.edits, got.trainings) == (50, 250, 750)
    assert round(got.mean, 4) == 0.4018
    assert round(got.seed, 4) == 0.0367
    assert round(got.of_means(3), 4) == 0.0179
    assert round(got.edit, 4) == 0.0057
    assert round(trust(got, 3), 2) == 0.32
    assert round(trust(got, 12), 2) == 0.65
    gain = variance.expected_gain(got, 5, 3)
    assert (round(gain.real, 2), round(gain.perfect, 3)) == (0.05, 0.088)
    leads = [lead for lead in variance.best_lead(run.rewards) if lead is not None]
    assert round(sum(leads) / 50, 3) == 0.141
    assert got.clipped == ()
