"""Races against a plain loop; grades of schedules where the answer is known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.analysis import halving, stats, variance
from seal_jax.analysis.halving import Rung
from seal_jax.report import read_seeds

RANKING = "knowledge-incorporation/results/query_server/train/rank_iter0.json"


def loop(rewards, plan):
    """One race, training by training: (picks, trainings)."""
    left, spent, cost = list(range(len(rewards))), 0, 0
    for rung in plan:
        cost += len(left) * (rung.seeds - spent)
        spent = rung.seeds

        def mean(e, seeds=rung.seeds):
            known = [r for r in rewards[e][:seeds] if r is not None]
            return sum(known) / len(known) if known else -math.inf

        left = sorted(left, key=lambda e: (-mean(e), e))[: rung.keep]
    return left, cost


reward = st.one_of(st.none(), st.integers(0, 4).map(float))


@given(st.data())
def test_race_is_the_plain_loop(data):
    edits = data.draw(st.integers(1, 6))
    rewards = data.draw(
        st.lists(
            st.lists(reward, min_size=8, max_size=8), min_size=edits, max_size=edits
        )
    )
    plan = halving.schedule(edits, first=data.draw(st.integers(1, 2)))
    plan = tuple(r for r in plan if r.seeds <= 8)
    array = np.array([[np.nan if r is None else r for r in own] for own in rewards])
    picks, cost = loop(rewards, plan)
    assert halving.race(array[None], plan)[0].tolist() == picks
    assert halving.trainings(plan, edits) == cost


def test_schedules():
    assert halving.schedule(5) == (Rung(1, 3), Rung(2, 2), Rung(4, 1))
    assert halving.trainings(halving.schedule(5), 5) == 5 + 3 + 2 * 2
    assert halving.schedule(8, first=3, factor=3, picks=2) == (Rung(3, 4), Rung(9, 2))
    assert halving.schedule(1) == (Rung(1, 1),)
    assert halving.trainings(halving.uniform(3), 5) == 15


def test_pairs():
    plan = halving.from_pairs(((1, 3), (2, 2), (4, 1)))
    assert plan == halving.schedule(5)
    halving.check(plan, edits=5, seeds=4)
    assert halving.from_pairs(()) == ()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: halving.from_pairs([(1, 2, 3)]), r"\(1, 2, 3\) must be a pair"),
        (lambda: halving.from_pairs([(1, 0)]), r"\(1, 0\) must be .* of at least 1"),
        (
            lambda: halving.from_pairs(json.loads("[[1.0, 1]]")),
            r"\(1.0, 1\) must be .* whole",
        ),
        (lambda: halving.from_pairs([(True, 1)]), r"\(True, 1\) must be"),
        (
            lambda: halving.check(halving.uniform(4), edits=5, seeds=3),
            "needs 4 seeds of 3; shorten",
        ),
        (lambda: halving.check((), edits=5, seeds=3), "must not be empty"),
        (lambda: halving.schedule(3, picks=4), "edits=3, picks=4"),
        (lambda: halving.schedule(3, factor=1), "factor=1"),
        (lambda: halving.trainings((), 5), "must not be empty"),
        (lambda: halving.trainings((Rung(2, 3), Rung(2, 1)), 5), "seeds must grow"),
        (lambda: halving.trainings((Rung(1, 6),), 5), "between 1 and the edits left"),
        (lambda: halving.trainings((Rung(1, 0),), 5), "between 1 and the edits left"),
        (
            lambda: halving.race(np.zeros((1, 5, 2)), halving.uniform(3)),
            "needs 3 seeds of 2",
        ),
        (
            lambda: halving.held_out([[[1.0, 2.0]] * 5], halving.uniform(2)),
            "leaves no seed of 2",
        ),
        (
            lambda: halving.held_out(
                [[[1.0, 2.0]]], halving.uniform(1), of=[[[1.0, 2.0, 3.0]]]
            ),
            "must be of the same trainings",
        ),
        (
            lambda: halving.resample(
                [[[1.0, 1.0]] * 2], halving.uniform(1), edit=0.1, seed=0.1
            ),
            "edit=0.1: must be a variance, and 0 for",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_survivors():
    rewards = [[0.5, 0.5], [None, 0.9], [], [0.2, 0.8], [None]]
    assert halving.survivors(rewards, 2) == [1, 0]  # the first of equal means
    assert halving.survivors(rewards, 5) == [1, 0, 3, 2, 4]  # not measured: last
    assert halving.survivors([[]], 1) == [0]
    # 0.3 by another order of summing is the same mean.
    assert halving.survivors([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], 1) == [0]


def test_held_out_without_luck_is_the_true_lead():
    rewards = [[[0.2] * 3, [0.8] * 3], [[0.5] * 3, [0.5] * 3, [0.2] * 3]]
    got = halving.held_out(rewards, (Rung(1, 2), Rung(2, 1)), draws=20)
    assert got == pytest.approx([0.3, 0.1])


def test_held_out_of_pure_luck_is_nothing_and_unbiased():
    rng = np.random.default_rng(5)
    rewards = rng.normal(size=(2000, 5, 3)).tolist()
    mean, error = stats.mean_se(halving.held_out(rewards, halving.uniform(2), draws=20))
    assert error is not None and abs(mean) < 3 * error < 0.06
    assert stats.mean_se(variance.best_lead(rewards))[0] > 0.6


def test_held_out_is_the_expected_gain():
    rng = np.random.default_rng(6)
    true = rng.normal(0, 0.3, (3000, 5, 1))
    rewards = (true + rng.normal(0, 0.6, (3000, 5, 4))).tolist()
    mean, error = stats.mean_se(halving.held_out(rewards, halving.uniform(2), draws=20))
    parts = variance.Components(3000, 15000, 60000, 0.0, 0.36, 0.09, 0.0)
    assert error is not None
    assert abs(mean - variance.expected_gain(parts, 5, 2).real) < 3 * error < 0.03


def test_held_out_by_another_measure_and_with_gaps():
    rewards = [[[1.0, 1.0], [0.0, 0.0]], [], [[None, None], [None, None]]]
    judge = [[[0.2, 0.2], [0.6, 0.6]], [], [[None, None], [None, None]]]
    got = halving.held_out(rewards, halving.uniform(1), of=judge, draws=10)
    assert got == [pytest.approx(-0.2), None, None]
    assert halving.held_out([[[], []]], halving.uniform(1)) == [None]
    few = halving.held_out([[[1.0, 1.0]]], halving.uniform(1, picks=2))
    assert few == [None]


def measured(rng, *, passages=400, edits=5, seeds=3):
    true = rng.normal(0, 0.3, (passages, edits, 1))
    level = rng.normal(0, 1, (passages, 1, 1))
    return (level + true + rng.normal(0, 0.6, (passages, edits, seeds))).tolist()


@pytest.mark.parametrize("edits, seeds", [(5, 1), (5, 6), (12, 3)])
def test_resampled_normals_give_the_normal_gain(edits, seeds):
    rewards = measured(np.random.default_rng(7))
    plan = halving.uniform(seeds)
    got = halving.resample(rewards, plan, edit=0.09, seed=0.36, edits=edits, draws=50)
    parts = variance.Components(0, 0, 0, 0.0, 0.36, 0.09, 0.0)
    want = variance.expected_gain(parts, edits, seeds)
    assert got.trainings == edits * seeds
    assert got.gain == pytest.approx(want.real, rel=0.05)
    assert got.perfect == pytest.approx(want.perfect, rel=0.05)
    assert got.share == pytest.approx(want.real / want.perfect, rel=0.05)


def test_resampling_without_luck_or_worth():
    rewards = measured(np.random.default_rng(8), passages=20)
    sure = halving.resample(rewards, halving.uniform(1), edit=0.1, seed=0.0)
    assert sure.share == 1.0
    none = halving.resample(rewards, halving.uniform(1), edit=0.0, seed=0.1)
    assert (none.gain, none.perfect, none.share) == (0.0, 0.0, None)


def test_passages_without_repeated_seeds_or_edits_are_no_obstacle():
    rewards = [*measured(np.random.default_rng(9), passages=20), [[1.0], [0.5]], []]
    got = halving.resample(rewards, halving.uniform(2), edit=0.09, seed=0.36)
    assert got.share is not None and 0.3 < got.share < 0.8


def test_uniform_trainings():
    curve = [(5, 0.1), (10, 0.2), (20, 0.3)]
    assert halving.uniform_trainings(0.25, curve) == 15
    assert halving.uniform_trainings(0.1, curve) == 5
    assert halving.uniform_trainings(0.05, curve) is None
    assert halving.uniform_trainings(0.31, curve) is None
    assert halving.uniform_trainings(0.0, [(5, 0.0), (10, 0.0)]) is None


def test_halving_reaches_the_same_quality_with_fewer_trainings(seal_data):
    """On the released ranking: 5 edits as drawn, and 20 of the same kind."""
    (run,) = read_seeds.read(seal_data / RANKING)
    parts = variance.anova(run.rewards)

    def grade(plan, edits):
        return halving.resample(
            run.rewards, plan, edit=parts.edit, seed=parts.seed, edits=edits
        )

    few, same = grade(halving.schedule(5), 5), grade(halving.uniform(3), 5)
    assert (few.trainings, same.trainings) == (12, 15)
    assert few.gain == pytest.approx(same.gain, rel=0.03)
    many, same = grade(halving.schedule(20), 20), grade(halving.uniform(6), 20)
    assert (many.trainings, same.trainings) == (68, 120)
    assert many.gain > same.gain
    # Nothing assumed: raced on two seeds, graded on the third.
    plan = (Rung(1, 3), Rung(2, 1))
    raced = halving.held_out(run.rewards, plan)
    uniform = halving.held_out(run.rewards, halving.uniform(2))
    diff, error, _ = stats.paired(raced, uniform)
    assert halving.trainings(plan, 5) == 8 < 10
    assert error is not None and diff > -2 * error
