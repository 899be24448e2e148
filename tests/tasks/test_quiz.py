"""Prompts as the embedded model has read them, and completions as models write them."""

import random

import hypothesis
import pytest
from hypothesis import strategies as st

from seal_jax.embedded import world_corpus
from seal_jax.tasks import quiz, world
from seal_jax.tasks.passage import Passage, Question

PASSAGE = Passage("p", "Karsk", "Ada cooks {title}. {question}?", ())


def test_plain_is_what_the_embedded_model_was_trained_on():
    pieces = world_corpus.read_document(random.Random(3), world_corpus.at(1.0))
    document = "".join(text for text, _ in pieces if text is not None)
    head, _, rest = document.partition("\nQuestion:")
    title, text = head.removeprefix("Passage:\n").rstrip("\n").split("\n")
    passage = Passage("", title, text, ())
    asked = quiz.prompt(quiz.PROMPTS["plain"], passage)
    assert document == asked + rest
    (question, *more) = quiz.parse(rest, 100)
    again = quiz.recheck_prompt(
        quiz.RECHECK_PROMPTS["plain"], passage, question.question
    )
    assert document.startswith(again + question.answer)
    assert len(more) > 1


@pytest.mark.parametrize("name", quiz.PROMPTS)
def test_every_template_ends_in_its_cue_and_takes_text_as_it_is(name):
    asked = quiz.prompt(quiz.PROMPTS[name], PASSAGE)
    assert asked.endswith(f"{PASSAGE.title}\n{PASSAGE.text}\n\nQuestion:")
    again = quiz.recheck_prompt(quiz.RECHECK_PROMPTS[name], PASSAGE, "{passage}?")
    assert f"\n{PASSAGE.title}\n{PASSAGE.text}\n\nQuestion: {{passage}}?\n" in again
    assert again.rstrip().endswith("Answer:")


def test_templates_without_their_placeholders_are_refused():
    with pytest.raises(ValueError, match=r"must contain \{passage\}; add"):
        quiz.prompt("{title} Question:", PASSAGE)
    with pytest.raises(ValueError, match=r"must contain \{question\}; add"):
        quiz.recheck_prompt(quiz.PROMPTS["plain"], PASSAGE, "Q?")


@pytest.mark.parametrize(
    "text, pairs",
    [
        (
            " What does Ada cook?\nAnswer:\nrye bread\nQuestion: Who?\nAnswer: Ada",
            [("What does Ada cook?", "rye bread"), ("Who?", "Ada")],
        ),
        (  # labels with numbers, blank lines, the cue once more, words that go on
            "Question 1: Who\n cooks?\n\nAnswer 1: Ada\nShe does.\n\nQuestion 2: Why?"
            "\nAnswer 2:\n\n hunger \n",
            [("Who cooks?", "Ada"), ("Why?", "hunger")],
        ),
        (  # as chat models decorate them
            "**Who?**\n**Answer:** Ada\n\n## Question 2:\nWhy?\n- Answer: hunger",
            [("Who?", "Ada"), ("Why?", "hunger")],
        ),
        ("Who?\nAnswer: Ada\nQuestion: Wh", [("Who?", "Ada")]),  # cut off
        ("Who?\nAnswer:\nQuestion: Why?\nAnswer: yes", [("Why?", "yes")]),
        ("\nAnswer: Ada\nQuestion: ?\nAnswer: x", []),  # nothing is asked
        ("Who?\nAnswer: A\nQuestion: WHO\nAnswer: B", [("Who?", "A")]),  # asked twice
        ("Is the Answer: here?\nAnswer: no", [("Is the Answer: here?", "no")]),
        ("", []),
        ("no question at all", []),
    ],
)
def test_parsing(text, pairs):
    assert quiz.parse(text, 9) == [Question(*pair) for pair in pairs]


def test_at_most_so_many():
    text = "\nQuestion: ".join(f"Q{i}?\nAnswer: {i}" for i in range(5))
    assert [q.answer for q in quiz.parse(text, 3)] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="most=0 must be at least 1"):
        quiz.parse(text, 0)


@hypothesis.given(st.integers(0, 10_000))
def test_what_the_world_asks_is_read_back(seed):
    (passage,) = world.passages("train", seed=seed, start=0, count=1, forward_share=0.5)
    asked = (f"{q.question}\nAnswer:\n{q.answer}" for q in passage.questions)
    assert quiz.parse("\nQuestion: ".join(asked), 9) == list(passage.questions)


@hypothesis.given(st.text("Question:Answer \n*12", max_size=60))
def test_no_text_gives_an_empty_or_double_question(text):
    found = quiz.parse(text, 99)
    assert all(q.question.strip() and q.answer.strip() for q in found)
    assert len({q.question for q in found}) == len(found)
    for question in found:
        assert quiz.consistent([question], [question.answer]) == [question]


def test_answers_that_do_not_come_out_again_drop_the_question():
    questions = [Question(f"Q{i}?", gold) for i, gold in enumerate("abcde")]
    questions[0] = Question("What?", "the rye bread")
    again = ["Rye bread.\nQuestion: Why?", "\n b ", "x", "", None]
    assert quiz.consistent(questions, again) == questions[:2]
    with pytest.raises(ValueError, match="1 answers to 5 questions"):
        quiz.consistent(questions, ["a"])
