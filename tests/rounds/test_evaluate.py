"""Seeds go where they can decide: a race over the edits of each item."""

import functools
import itertools

import make_run as run_maker
import numpy as np
import pytest
from make_run import BLANK

from seal_jax.analysis import halving
from seal_jax.rounds import evaluate, label_free, scoring, trials
from seal_jax.rounds.graded import Trial
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question

EDITS = 4


def passages(count):
    questions = tuple(Question(f"q{i}?", "yes") for i in range(8))
    return [Passage(f"p{i}", "Karsk", f"text {i}", questions) for i in range(count)]


def edits(count):
    return [Edit(p, e, "", f"{p} {e}") for p in range(count) for e in range(4)]


@pytest.fixture(autouse=True)
def no_base(monkeypatch):
    """Stands in for the policy without an adapter: it knows nothing."""
    monkeypatch.setattr(
        scoring, "baselines", lambda run, policy, items, phase: [0.0] * len(items)
    )


@pytest.fixture
def make_run(tmp_path):
    with run_maker.opened(tmp_path) as make:
        yield functools.partial(make, scale__edits=EDITS, scale__seeds=4)


@pytest.fixture
def adapters(monkeypatch):
    """Stands in for training: trial (edit i, seed s) answers `table[i, s]` right.

    Returns the table, and the (seeds, edits) of each call.
    """
    table = np.random.default_rng(0).integers(0, 9, size=(12, 8))
    calls = []

    def adapt(run, policy, edits, exams, *, phase, round_index, seeds, among):
        calls.append((phase, tuple(seeds), tuple(sorted(among))))

        def trial(i, s):
            right = table[i, s]
            answers = ("yes",) * right + ("no",) * (8 - right)
            return Trial(i, s, answers, (), (), 1.0, None)

        return [
            [trial(i, s) for s in seeds] if i in among else []
            for i in range(len(edits))
        ]

    monkeypatch.setattr(trials, "adapt_and_answer", adapt)
    return table, calls


def evaluated(run, items, edits):
    """The edits with their rewards, as a round has them."""
    adapt = functools.partial(trials.adapt_and_answer, run, BLANK, edits, round_index=1)
    rewarded, baseline = evaluate.evaluate(
        run, BLANK, items, edits, adapt, phase="round_1", round_index=1
    )
    assert baseline == [0.0] * len(items)
    return rewarded


def graded(run, count=3):
    return evaluated(run, passages(count), edits(count))


def test_without_a_race_every_edit_gets_all_seeds(make_run, adapters):
    table, calls = adapters
    rewarded = graded(make_run())
    assert calls == [("round_1", (0, 1, 2, 3), tuple(range(12)))]
    for i, g in enumerate(rewarded):
        assert g.rewards == pytest.approx(table[i, :4] / 8)
        assert not g.out


PLAN = ((1, 3), (2, 2), (4, 1))


def test_a_race_is_that_of_halving_for_each_item(make_run, adapters):
    table, calls = adapters
    rewarded = graded(make_run(select__halving=PLAN))
    assert [seeds for _, seeds, _ in calls] == [(0,), (1,), (2, 3)]
    assert [len(among) for *_, among in calls] == [12, 9, 6]
    picks = halving.race(table.reshape(3, 4, 8)[:, :, :4] / 8, halving.from_pairs(PLAN))
    for p in range(3):
        of_item = [g for g in rewarded if g.edit.item == p]
        assert [g.edit.edit for g in of_item if not g.out] == [picks[p, 0]]
        # The rewards of those that are out stay as they were.
        spent = sorted(len(g.rewards) for g in of_item)
        assert spent == [1, 2, 4, 4]
    trained = sum(len(g.trials) for g in rewarded)
    assert trained == 3 * halving.trainings(halving.from_pairs(PLAN), EDITS)


def test_refused_edits_take_no_part(make_run, adapters, monkeypatch):
    del adapters
    tried = edits(1)
    plain = trials.adapt_and_answer

    def adapt(run, policy, given, exams, **rest):
        outcomes = plain(run, policy, given, exams, **rest)
        return [[] if e.refused else t for e, t in zip(given, outcomes, strict=True)]

    monkeypatch.setattr(trials, "adapt_and_answer", adapt)
    tried[0] = Edit(0, 0, "", "0 0", refused="too long")
    run = make_run(select__halving=((1, 2), (4, 1)))
    rewarded = evaluated(run, passages(1), tried)
    assert rewarded[0].reward is None and rewarded[0].out
    assert sum(not g.out for g in rewarded) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select__halving": ((1, 5), (4, 1))}, "keep be between 1 and the edits"),
        ({"select__halving": ((2, 3), (1, 1))}, "seeds must grow"),
        ({"select__halving": ((1, 2), (3, 1))}, "must end with scale.seeds=4"),
        ({"select__halving": ((1, 2), (4, 1)), "select__k_best": 2}, "k_best=2"),
    ],
)
def test_a_race_that_cannot_be_run_is_refused(make_run, changes, message):
    with pytest.raises(ValueError, match=message):
        make_run(**changes)


def test_majority_is_the_vote_of_the_other_edits(make_run, monkeypatch):
    answers = {0: "ab", 1: "ab", 2: "ax", 3: "yx"}

    def adapt(run, policy, edits, exams, *, seeds, among, **rest):
        return [
            [Trial(i, s, tuple(answers[i]), (), (), 1.0, None) for s in seeds]
            for i in among
        ]

    monkeypatch.setattr(trials, "adapt_and_answer", adapt)
    item = Passage("p", "t", "text", (Question("1?", "yes"), Question("2?", "yes")))
    run = make_run(select__reward="majority", select__compare=("grade",))
    rewarded = evaluated(run, [item], edits(1))
    # Question 1: the others say a, a, y or x-wards; 2: b, x, x against b, b, x ...
    expected = [
        sum(_elected(answers, e, q) == answers[e][q] for q in range(2)) / 2
        for e in range(4)
    ]
    assert [g.reward for g in rewarded] == expected
    assert all(g.measured["grade"] == (0.0,) * 4 for g in rewarded)


def _elected(answers, edit, question):
    """By hand: the answer most of the other edits give, the first given of equals."""
    votes = [answers[e][question] for e in range(4) if e != edit]
    return max(votes, key=lambda v: (votes.count(v), -votes.index(v)))


def test_a_rubric_alone_trains_nothing(make_run, monkeypatch):
    def never(*_, **__):
        raise AssertionError("an adapter was trained")

    monkeypatch.setattr(trials, "adapt_and_answer", never)
    run = make_run(select__reward="rubric")
    values = iter(itertools.count())
    task = run.task
    object.__setattr__(task, "judged", lambda pairs: [next(values) / 8 for _ in pairs])
    rewarded = graded(run, count=2)
    assert [g.reward for g in rewarded] == [i / 8 for i in range(8)]
    assert all(g.measured == {"rubric": (i / 8,)} for i, g in enumerate(rewarded))
    # As decided: a second run does not ask again.
    assert label_free.rubric(run, passages(2), edits(2), phase="round_1") == [
        i / 8 for i in range(8)
    ]
