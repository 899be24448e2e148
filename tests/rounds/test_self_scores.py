"""The policy's verdict on its own edits: what is asked, averaged, and missing."""

import dataclasses
import types

import jax
import make_run as run_maker
import numpy as np
import pytest

from seal_jax.generation import policies
from seal_jax.rounds import evaluate, label_free, self_scores
from seal_jax.rounds.graded import Trial
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question

ITEMS = [
    Passage(f"p{i}", f"Title {i}", f"text {i}.", (Question("x?", "y"),))
    for i in range(2)
]
EDITS = [Edit(p, e, "", f"edit {p} {e}") for p in (0, 1) for e in (0, 1)]


@dataclasses.dataclass(frozen=True)
class Blank(policies.Policy):
    """A policy that reads a token for each word."""

    def encode(self, text):
        return [1] * len(text.split())

    @property
    def context(self):
        return 400


BLANK = Blank(None, {}, None, (0,), None)


@pytest.fixture
def make(tmp_path):
    with run_maker.opened(tmp_path) as make:
        yield lambda **changes: make(
            label_free__rubric="self", label_free__samples=2, **changes
        )


@pytest.fixture
def says(monkeypatch):
    """Sets what the policy replies, by a function of prompts; returns the calls."""
    calls, rule = [], [lambda prompts: ["3"] * len(prompts)]

    def write(writer, prompts, keys, decoding, **_):
        assert len(prompts) == len(keys)
        calls.append((prompts, np.asarray(jax.random.key_data(keys)), decoding))
        return rule[0](prompts)

    monkeypatch.setattr(policies, "write", write)
    return types.SimpleNamespace(calls=calls, rule=rule)


def scores(run, edits=EDITS, round_index=1):
    return label_free.verdicts(
        run, BLANK, ITEMS, edits, phase="round_1", round_index=round_index
    )


def test_scores_are_means_of_the_samples_that_can_be_read(make, says):
    replies = ["5", "4", "1", "no idea", "?", "!", "0", "0"]
    says.rule[0] = lambda prompts: replies
    told = []
    run = make(say=told.append)
    assert scores(run) == [0.9, 0.2, None, 0.0]
    ((prompts, keys, decoding),) = says.calls
    assert ["edit 0 0" in p for p in prompts] == [True] * 2 + [False] * 6
    assert all("text 1." in p and "Title 1" in p for p in prompts[4:])
    assert len({str(key) for key in keys}) == len(replies)  # No two draw alike.
    quiz = run.exp.label_free.quiz
    assert decoding == dataclasses.replace(
        quiz, min_tokens=0, max_tokens=self_scores.REPLY_TOKENS
    )
    assert "round_1: 3 of 8 scores of its own could not be read" in told
    counted = {"self_scores": 8, "unread_self_scores": 3}
    assert self_scores.figures(run, "round_1") == counted
    assert self_scores.figures(run, "round_2") == {}
    # Finished work is not asked for again.
    assert scores(run) == [0.9, 0.2, None, 0.0] and len(says.calls) == 1


def test_what_is_refused_or_too_long_is_not_asked(make, says):
    long = dataclasses.replace(EDITS[1], text="word " * 300)
    refused = dataclasses.replace(EDITS[2], refused="empty")
    assert scores(make(), [EDITS[0], long, refused]) == [0.6, None, None]
    assert len(says.calls[0][0]) == 2


def test_a_reward_that_nobody_can_read_is_one_line(make, says):
    says.rule[0] = lambda prompts: ["Ada Quill\ncooks"] * len(prompts)
    run = make(select__reward="rubric")
    with pytest.raises(ValueError, match=r"none of 8 replies of round_1 .*'Ada Quill"):
        scores(run)


def test_a_reward_that_has_room_nowhere_is_one_line(make, says):
    long = dataclasses.replace(EDITS[1], text="word " * 300)
    with pytest.raises(ValueError, match=r"context of 400; lower propose\.max_tokens"):
        scores(make(select__reward="rubric"), [long])
    assert says.calls == []


def test_what_cannot_be_scored_in_a_later_round_ends_no_run(make, says):
    """The policy could be read before, and rounds that go nowhere are a finding."""
    says.rule[0] = lambda prompts: ["Ada Quill"] * len(prompts)
    told = []
    run = make(select__reward="rubric", say=told.append)
    assert scores(run, round_index=2) == [None] * 4
    assert any("no self-edit has a reward: none of 8 replies" in line for line in told)


def test_a_round_whose_edits_are_all_refused_ends_no_run(make, says):
    refused = [dataclasses.replace(edit, refused="empty") for edit in EDITS]
    run = make(select__reward="rubric")
    assert scores(run, refused) == [None] * 4
    assert scores(run, refused) == [None] * 4  # Nor does it when it is resumed.
    assert says.calls == []


def test_a_quiz_that_must_be_long_does_not_make_replies_so(make, says):
    run = make(
        label_free__quiz__min_tokens=self_scores.REPLY_TOKENS + 6,
        label_free__quiz__max_tokens=self_scores.REPLY_TOKENS + 36,
    )
    assert scores(run) == [0.6] * 4
    ((*_, decoding),) = says.calls
    assert (decoding.min_tokens, decoding.max_tokens) == (0, self_scores.REPLY_TOKENS)


def test_beside_another_reward_it_may_be_unreadable(make, says):
    says.rule[0] = lambda prompts: [""] * len(prompts)
    assert scores(make(select__compare=("rubric",))) == [None] * 4


def test_it_decides_in_place_of_the_grade(make, says):
    """The edit of more points is worth more, whatever its adapters answer."""
    says.rule[0] = lambda prompts: ["5" if "edit 0 1" in p else "1" for p in prompts]

    def adapt(exams, *, phase, seeds, among):
        return [[Trial(i, s, ("y",), (), (), 1.0, None) for s in seeds] for i in among]

    run = make(select__reward="rubric", select__compare=("grade",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.scoring, "baselines", lambda *a, **k: [0.0, 0.0])
        graded, _ = evaluate.evaluate(
            run, BLANK, ITEMS, EDITS, adapt, phase="round_1", round_index=1
        )
    assert [g.reward for g in graded] == [0.2, 1.0, 0.2, 0.2]
    assert [g.measured["grade"] for g in graded] == [(1.0,)] * 4
