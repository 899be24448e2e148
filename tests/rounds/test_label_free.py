"""What the policy asks itself, and how a rubric's gaps are treated."""

import dataclasses

import make_run as run_maker
import pytest

from seal_jax.generation import policies
from seal_jax.rounds import label_free, scoring
from seal_jax.rounds.graded import Exam, Trial
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question

ITEMS = [
    Passage("p0", "Karsk", "rye bread is the dish of Ada.", (Question("x?", "y"),)),
    Passage("p1", "Marl", "Bo plays cello.", (Question("x?", "y"),)),
]


@pytest.fixture
def run(tmp_path):
    with run_maker.opened(tmp_path) as make:
        yield make(select__compare=("self_asked", "rubric"))


@pytest.fixture
def written(monkeypatch):
    """Texts that the policy writes, call by call; returns them and the calls."""
    texts, calls = [], []

    def write(writer, prompts, keys, decoding, **_):
        calls.append((list(prompts), decoding))
        return texts.pop(0)

    monkeypatch.setattr(policies, "write", write)
    return texts, calls


def quizzes(run):
    return label_free.quizzes(
        run, run_maker.BLANK, ITEMS, phase="round_1", round_index=1
    )


def test_a_quiz_keeps_what_comes_out_twice(run, written):
    texts, calls = written
    texts += [
        [
            "What does Ada cook?\nAnswer:\nrye bread\nQuestion: Who?\nAnswer:\nBo",
            "no question here",
        ],
        ["Rye bread", "Ada"],
    ]
    first, second = quizzes(run)
    assert first == dataclasses.replace(
        ITEMS[0], questions=(Question("What does Ada cook?", "rye bread"),)
    )
    assert second == dataclasses.replace(ITEMS[1], questions=())
    (prompts, sampled), (again, greedy) = calls
    # The passage is in view both times; the second answer is the likeliest.
    assert all(item.text in p for item, p in zip(ITEMS, prompts, strict=True))
    assert all(ITEMS[0].text in p for p in again) and len(again) == 2
    assert sampled == run.exp.label_free.quiz and greedy.temperature == 0
    # Finished work: no text is left to be written, and none is asked for.
    assert quizzes(run) == [first, second]


def test_an_answer_may_be_shorter_than_a_quiz(tmp_path, written):
    texts, calls = written
    texts += [["What?\nAnswer:\nbread", "no question"], ["bread"]]
    with run_maker.opened(tmp_path) as make:
        least = make().exp.answer.max_tokens + 1
        asking = make(
            select__compare=("self_asked",), label_free__quiz__min_tokens=least
        )
        quizzes(asking)
    assert calls[0][1].min_tokens == least
    assert calls[1][1].min_tokens == asking.exp.answer.min_tokens


def test_without_a_question_nothing_is_asked_again(run, written):
    texts, calls = written
    texts += [["", ""]]
    assert [quiz.questions for quiz in quizzes(run)] == [(), ()]
    assert len(calls) == 1


def test_adapters_are_rewarded_for_the_answers_of_the_quiz(run):
    quiz = dataclasses.replace(
        ITEMS[0], questions=(Question("a?", "A"), Question("b?", "B"))
    )
    edits = [Edit(0, e, "", "") for e in range(2)]
    edits.append(Edit(1, 0, "", ""))

    def trial(e, quiz_answers, failed=None):
        return Trial(e, 0, ("y",), quiz_answers, (), 1.0, failed)

    outcomes = [
        [trial(0, ("A", "no")), trial(0, (), failed="broke")],
        [trial(1, ("A", "B"))],
        [trial(2, ()), trial(2, (), failed="broke")],
    ]
    blank = dataclasses.replace(ITEMS[1], questions=())
    exams = list(map(Exam, ITEMS, (quiz, blank)))
    graded = scoring.reward(run, exams, edits, outcomes, phase="r", final=True)
    measured = [g.measured["self_asked"] for g in graded]
    assert measured == [(0.5, 0.0), (1.0,), (None, None)]
    assert [g.reward for g in graded] == [0.5, 1.0, 0.5]  # the grade decides


def test_rubrics_that_could_not_be_had_stop_the_run(run):
    edits = [Edit(p, 0, "", "text") for p in (0, 1)]
    object.__setattr__(run.task, "judged", lambda pairs: [0.5, None])
    with pytest.raises(scoring.MissingJudgementsError, match="1 of 2 rubrics"):
        label_free.rubric(run, ITEMS, edits, phase="round_1")
    object.__setattr__(run.task, "judged", lambda pairs: [0.5, 0.25])
    assert label_free.rubric(run, ITEMS, edits, phase="round_1") == [0.5, 0.25]


def test_a_rubric_sees_lines_without_their_title(run):
    seen = []
    object.__setattr__(run.task, "judged", lambda pairs: seen.extend(pairs) or [0.0])
    edit = Edit(0, 0, "", "Ada cooks rye bread.\n\nIt is good.")
    label_free.rubric(run, ITEMS, [edit], phase="round_1")
    assert seen == [(ITEMS[0].text, ["Ada cooks rye bread.", "It is good."])]
