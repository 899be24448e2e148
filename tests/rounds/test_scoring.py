"""Rewards: what counts, what is left out, and what is asked again."""

import dataclasses
import json

import make_run as run_maker
import pytest

from seal_jax.rewards import names as reward_names
from seal_jax.rounds import graded as graded_
from seal_jax.rounds import scoring, trials
from seal_jax.rounds.graded import Exam, Trial
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question

PASSAGES = [
    Passage("p0", "Karsk", "text", (Question("a?", "A"), Question("b?", "B"))),
    Passage("p1", "Marl", "words", (Question("c?", "C"),)),
]
EDITS = [Edit(p, e, "prompt", f"edit {p}{e}") for p in (0, 1) for e in (0, 1)]


def trial(edit, seed, *, failed=None, likelihoods=()):
    asked = len(PASSAGES[EDITS[edit].item].questions)
    answers = () if failed else tuple(f"e{edit} s{seed} q{q}" for q in range(asked))
    return Trial(edit, seed, answers, (), likelihoods, 1.0, failed)


OUTCOMES = [[trial(e, s) for s in range(2)] for e in range(4)]


@pytest.fixture
def make_run(tmp_path):
    with run_maker.opened(tmp_path) as make:
        yield make


def by_answer(table, default=True):
    """A grader that looks answers up."""
    return lambda items: [table.get(answer, default) for _, _, answer in items]


def never(items):
    raise AssertionError(f"asked again: {items}")


def rewards(run, outcomes=OUTCOMES, *, final=True, phase="round_1"):
    exams = [Exam(passage) for passage in PASSAGES]
    return scoring.reward(run, exams, EDITS, outcomes, phase=phase, final=final)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([None], None), ([1, None, 0], 0.5), ([True, False, None], 0.5)],
)
def test_mean_is_over_what_is_there(values, expected):
    assert graded_.mean(values) == expected


def test_empty_rate_counts_blank_answers():
    assert graded_.empty_rate([]) is None
    assert graded_.empty_rate(["", " \n", "x", "y"]) == 0.5


def test_every_answer_is_graded_with_its_own_question(make_run):
    asked = []
    run = make_run(lambda items: asked.extend(items) or [True] * len(items))
    rewards(run)
    assert asked[:4] == [
        ("a?", "A", "e0 s0 q0"),
        ("b?", "B", "e0 s0 q1"),
        ("a?", "A", "e0 s1 q0"),
        ("b?", "B", "e0 s1 q1"),
    ]
    assert asked[-1] == ("c?", "C", "e3 s1 q0")
    assert len(asked) == 12


def test_a_reward_is_the_mean_over_seeds_of_the_mean_over_questions(make_run):
    wrong = dict.fromkeys(["e0 s0 q0", "e1 s0 q0", "e1 s0 q1", "e3 s1 q0"], False)
    graded = rewards(make_run(by_answer(wrong)))
    assert [g.rewards for g in graded] == [(0.5, 1), (0, 1), (1, 1), (1, 0)]
    assert [g.reward for g in graded] == [0.75, 0.5, 1.0, 0.5]
    assert graded[0].scores == ((False, True), (True, True))


def test_a_missing_judgement_is_never_counted_as_wrong(make_run):
    table = {"e0 s0 q0": None, "e1 s0 q0": None, "e1 s0 q1": None, "e3 s0 q0": None}
    table |= {"e3 s1 q0": None, "e1 s1 q0": False}
    graded = rewards(make_run(by_answer(table), grade__max_missing=0.5))
    assert [g.rewards for g in graded] == [(1, 1), (None, 0.5), (1, 1), (None, None)]
    assert [g.reward for g in graded] == [1.0, 0.5, 1.0, None]
    assert graded[0].scores[0] == (None, True)


def test_a_failed_adapter_scores_zero_and_is_not_graded(make_run):
    asked = []
    outcomes = [list(edit_trials) for edit_trials in OUTCOMES]
    outcomes[0][1] = trial(0, 1, failed="broke")
    outcomes[2][0] = trial(2, 0, failed="broke")
    run = make_run(lambda items: asked.extend(items) or [True] * len(items))
    graded = rewards(run, outcomes)
    assert len(asked) == 12 - 2 - 1
    assert [g.reward for g in graded] == [0.5, 1.0, 0.5, 1.0]
    assert graded[0].scores[1] == (0.0, 0.0)
    row = scoring.edit_row(run, graded[0], PASSAGES, round=1, kept=False)
    assert row["failed"] == "broke"
    assert row["answers"][1] == [] and len(row["answers"][0]) == 2
    assert json.loads(json.dumps(row)) == row


def test_log_likelihood_rewards_and_the_floor_under_them(make_run):
    outcomes = [
        [trial(e, s, likelihoods=(-1.0 - e, -3.0 - s)) for s in (0, 1)] for e in (0, 1)
    ]
    outcomes += [[trial(e, s, likelihoods=(-5.0,)) for s in (0, 1)] for e in (2, 3)]
    outcomes[3][0] = trial(3, 0, failed="broke")
    run = make_run(by_answer({}), select__reward="log_likelihood")
    graded = rewards(run, outcomes)
    assert [g.reward for g in graded[:3]] == [-2.25, -2.75, -5.0]
    assert graded[3].rewards == (reward_names.WORST, -5.0)
    # What was not measured is not said to be.
    assert graded[3].measured["log_likelihood"] == (None, -5.0)
    # Whatever was measured beats an edit with a failed adapter.
    assert graded[3].reward is not None and graded[3].reward < -1e5


def test_an_edit_that_was_refused_has_no_reward_and_is_counted(make_run):
    graded = rewards(make_run(by_answer({})), [*OUTCOMES[:3], []])
    assert [g.reward for g in graded] == [1.0, 1.0, 1.0, None]
    refused = dataclasses.replace(EDITS[3], redrawn=("not json",), refused="epochs")
    graded[3] = dataclasses.replace(graded[3], edit=refused)
    assert graded_.counts(graded) == {
        "edits": 4,
        "drawn": 5,
        "trained": 3,
        "trained_mean": 1.0,
        "refused": {"epochs": 1, "not json": 1},
    }


# What is kept and what is asked again


def test_complete_grades_are_never_asked_again(make_run):
    first = rewards(make_run(by_answer({"e0 s0 q0": False})))
    assert rewards(make_run(never)) == first
    first = rewards(make_run(by_answer({})), final=False, phase="ladder/oracle")
    assert rewards(make_run(never), final=False, phase="ladder/oracle") == first


def test_a_final_grade_keeps_its_gaps(make_run):
    first = rewards(make_run(by_answer({"e0 s0 q0": None}), grade__max_missing=0.2))
    again = rewards(make_run(never, grade__max_missing=0.2))
    assert again == first
    assert again[0].scores[0] == (None, True)


def test_a_grade_that_is_not_final_is_asked_again_until_it_is_complete(make_run):
    kwargs = {"final": False, "phase": "ladder/self_edits"}
    gap = by_answer({"e0 s0 q0": None})
    first = rewards(make_run(gap, grade__max_missing=0.2), **kwargs)
    assert first[0].scores[0] == (None, True)
    full = by_answer({"e0 s0 q0": False})
    second = rewards(make_run(full, grade__max_missing=0.2), **kwargs)
    assert second[0].scores[0] == (False, True)
    assert rewards(make_run(never), **kwargs) == second


@pytest.mark.parametrize("final", [True, False])
def test_too_many_missing_stop_the_run_and_keep_nothing(make_run, final):
    three = dict.fromkeys(["e0 s0 q0", "e1 s0 q0", "e2 s0 q0"], None)
    with pytest.raises(scoring.MissingJudgementsError) as caught:
        rewards(make_run(by_answer(three), grade__max_missing=0.2), final=final)
    message = str(caught.value)
    assert "round_1: 3 of 12" in message and "grade.max_missing=0.2" in message
    assert "\n" not in message
    graded = rewards(make_run(by_answer({}), grade__max_missing=0.2), final=final)
    assert all(g.reward == 1.0 for g in graded)


def test_as_many_as_allowed_do_not(make_run):
    three = dict.fromkeys(["e0 s0 q0", "e1 s0 q0", "e2 s0 q0"], None)
    graded = rewards(make_run(by_answer(three), grade__max_missing=0.25))
    assert [g.reward for g in graded] == [1.0, 1.0, 1.0, 1.0]


def test_nothing_to_grade_is_no_error(make_run):
    outcomes = [[trial(e, s, failed="broke") for s in range(2)] for e in range(4)]
    asked = []
    run = make_run(lambda items: asked.extend(items) or [])
    assert [g.reward for g in rewards(run, outcomes)] == [0.0] * 4
    assert asked == []


def test_baselines_are_per_passage_and_leave_gaps_out(make_run, monkeypatch):
    answers = [["x", "y"], ["z"]]
    monkeypatch.setattr(trials, "base_answers", lambda *args, **kwargs: answers)
    run = make_run(by_answer({"y": None, "z": None}), grade__max_missing=1.0)
    assert scoring.baselines(run, None, PASSAGES, phase="round_1") == [1.0, None]
