"""Questions from files of rows, in GSM8K's form or with the answer alone."""

import json

import pytest
import tiny_model

from seal_jax.runtime import config_rules
from seal_jax.tasks import questions
from seal_jax.tasks.chains import Question
from seal_jax.tasks.questions import QuestionsConfig

GSM8K = [
    {
        "question": f"Anna has {n} pens and buys 2. How many are there?",
        "answer": f"She has {n} + 2 = <<{n}+2={n + 2}>>{n + 2} pens.\n#### {n + 2}",
    }
    for n in range(1, 7)
]


def config(**changes) -> QuestionsConfig:
    values = tiny_model.load_config("lmsi").task.to_dict() | changes
    return config_rules.build(QuestionsConfig, values)


@pytest.fixture
def gsm8k(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in GSM8K))
    return str(path)


def test_worked_answers_end_in_the_one_that_counts(gsm8k):
    found = questions.load(config(train=gsm8k), questions.TRAIN, count=6)
    said = {q.question: q.answer for q in found}
    assert said == {row["question"]: str(n) for n, row in enumerate(GSM8K, start=3)}
    assert [q.question for q in found] != [row["question"] for row in GSM8K]


def test_a_question_without_an_answer_has_none(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"q": "One?"}, {"q": "Two?"}, {"q": "One?"}]))
    task = config(train=str(path), question="q", answer="")
    found = questions.load(task, questions.TRAIN, count=2)
    assert {q.question for q in found} == {"One?", "Two?"}
    assert all(q.answer is None for q in found)


def test_an_answer_may_stand_alone_or_be_a_number(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"question": "One?", "answer": 1}]))
    task = config(train=str(path))
    assert questions.load(task, questions.TRAIN, count=1) == [Question("One?", "1")]


def test_truths_are_yes_and_no_and_no_questions(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"question": "One?", "answer": False}]))
    task = config(train=str(path))
    assert questions.load(task, questions.TRAIN, count=1) == [Question("One?", "no")]
    path.write_text(json.dumps([{"question": True, "answer": "1"}]))
    with pytest.raises(ValueError, match="question=True must be a text or a number"):
        questions.load(task, questions.TRAIN, count=1)


def test_examples_are_of_the_file_or_our_own(gsm8k):
    (own,) = questions.exemplars(config(), 1)
    assert own == questions.ARITHMETIC[0]
    first, second = questions.exemplars(config(examples=gsm8k), 2)
    assert first.question == GSM8K[0]["question"] and first.answer == "3"
    assert first.steps == "She has 1 + 2 = <<1+2=3>>3 pens." and second.answer == "4"
    assert questions.exemplars(config(), 0) == []


@pytest.mark.parametrize(
    "changes, count, said",
    [
        ({"question": "quest"}, 1, "no column 'quest' (task.question); did you mean"),
        ({"answer": "gold"}, 1, "no column 'gold' (task.answer)"),
        ({}, 7, "task.train_start=0 + 7 questions must be at most the 6 different"),
        ({"train": ""}, 1, "task.train='' must name the questions of that side; give"),
        ({"train": "none.jsonl"}, 1, "data='none.jsonl': no such file"),
    ],
)
def test_what_cannot_be_asked_is_one_line(gsm8k, changes, count, said):
    task = config(**({"train": gsm8k} | changes))
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        questions.load(task, questions.TRAIN, count=count)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row, said",
    [
        ({"question": " "}, "row 0: 'question' must hold a question; fill it in"),
        ({"question": ["a"]}, "row 0: question=['a'] must be a text or a number"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path, row, said):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"answer": "1"} | row]))
    with pytest.raises(ValueError) as caught:
        questions.load(config(train=str(path)), questions.TRAIN, count=1)
    assert said in str(caught.value)


def test_examples_must_be_worked_and_enough(tmp_path, gsm8k):
    with pytest.raises(
        ValueError, match=r"chains.shots=5 must be at most the 4 of seal"
    ):
        questions.exemplars(config(), 5)
    with pytest.raises(
        ValueError, match=r"chains.shots=7 must be at most the 6 of task"
    ):
        questions.exemplars(config(examples=gsm8k), 7)
    path = tmp_path / "bare.json"
    path.write_text(json.dumps([{"question": "One?", "answer": "1"}]))
    with pytest.raises(ValueError, match="must be steps and a last line"):
        questions.exemplars(config(examples=str(path)), 1)


def test_examples_are_no_name_of_the_hub():
    with pytest.raises(FileNotFoundError, match="of the hub no examples are taken"):
        questions.exemplars(config(examples="openai/gsm8k"), 1)


def test_a_generated_world_reads_no_files():
    with pytest.raises(ValueError, match=r"task.train=.x. is not read by task.name="):
        config(name="hops", train="x")
    with pytest.raises(ValueError, match="must be at most the 192 of a group"):
        questions.load(config(name="hops"), questions.TRAIN, count=193)
    with pytest.raises(ValueError, match="name the column"):
        config(question="")
