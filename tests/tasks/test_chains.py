"""Prompts in four formats, and answers as they are read and counted."""

import pytest

from seal_jax.tasks import chains
from seal_jax.tasks.chains import Chain, Exemplar

SHOWN = (Exemplar("Two and two?", "Two is 2.\n2 + 2 = 4.", "4"),)


@pytest.mark.parametrize(
    "text, steps, answer",
    [
        ("a\nb\nAnswer: rye bread", "a\nb", "rye bread"),
        ("a\n\n**Answer:** 1,234.", "a", "1,234"),
        ("So the answer is $18.", "", "$18"),
        ("The final answer is: 7", "", "7"),
        ("48/2 = <<48/2=24>>24\n#### 42", "48/2 = <<48/2=24>>24", "42"),
        ("She answers: yes.\nAnswer: no", "She answers: yes.", "no"),
        # What a model goes on with is not its answer.
        ("a\nAnswer: 1\n\nQuestion: b\nb\nAnswer: 2", "a", "1"),
        # Headings and sentences about the answer give none.
        ("#### Step 1\n2+2=4\nAnswer: 4", "#### Step 1\n2+2=4", "4"),
        ("#### 1. Add\n2+2=4\n#### 4", "#### 1. Add\n2+2=4", "4"),
        (
            "The answer is found by adding.\n3+4=7\nAnswer: 7",
            "The answer is found by adding.\n3+4=7",
            "7",
        ),
        ("The answer is simple.\nAnswer: 7", "The answer is simple.", "7"),
        ("She has 3+4=7. The answer is 7.", "She has 3+4=7.", "7"),
        ("She has 7, so the answer is 7 apples.\nWell.", "She has 7", "7 apples"),
        ("a\nThe answer is rye bread.\n", "a", "rye bread"),
        ("a\nAnswer:\n7", "a", "7"),
        ("a\n**Answer:**\n\nrye bread\nb", "a", "rye bread"),
        (r"Answer: \boxed{7}", "", "7"),
        (r"Answer: $\boxed{\text{rye}}$.", "", "rye"),
        (r"The answer is \(7\).", "", "7"),
    ],
)
def test_the_first_line_that_gives_an_answer_ends_a_chain(text, steps, answer):
    assert chains.read(text) == Chain(steps, answer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\nb",
        "Answer:",
        "Answer: **",
        "####",
        "#### Step 1",
        "The answer is found by adding.\n3+4=7",
        # The model's own next question is another one.
        "There are 5.\n\nQuestion: What is 4+5?\n4+5=9.\nAnswer: 9",
        "Answer:\n\n**Question:** b\nAnswer: 2",
    ],
)
def test_what_gives_no_answer_is_no_chain(text):
    assert chains.read(text) is None


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("1,234", "1234.0", True),
        ("$18", "18", True),
        ("3.5", "35", False),
        ("-5", "5", False),
        ("The Rye Bread", "rye bread.", True),
        ("rye", "rye bread", False),
        ("+", "-", False),
        ("1/2", "12", False),
        ("-3/4", "34", False),
        ("9:40", "940", False),
        ("10^2", "102", False),
        ("2-3", "23", False),
        ("3.5 hours", "35 hours", False),
        ("1.2 million", "12 million", False),
        ("1.2 million", "1,200,000", True),
        ("-5 degrees", "5 degrees", False),
        ("minus 5 degrees", "-5", True),
        ("\N{MINUS SIGN}5", "-5", True),
        ("$-5", "5", False),
        ("$-5", "-$5", True),
        ("1000000000001", "1000000000002", False),
        ("100", "1e2", False),
        ("1" * 40, "1" * 39 + "2", False),
        ("(A)", "A", True),
        ("(A)", "(B)", False),
        ("a", "the", False),
        ("7 apples", "7", True),
        ("$18.00", "18 dollars", True),
        ("7 apples and 2 pears", "7", False),
        (r"\boxed{7}", "7.0", True),
        ("9:40  PM", "9:40 pm", True),
    ],
)
def test_numbers_count_by_value_and_words_without_case(one, other, same):
    assert (chains.ballot(one) == chains.ballot(other)) is same
    assert chains.right(one, other) is same and not chains.right(None, other)


def test_the_four_formats():
    plain = chains.TEMPLATES["plain"]
    asked = {
        form: chains.prompt(plain, SHOWN, "Q {x}?", form) for form in chains.FORMATS
    }
    head = "Question: Two and two?\n"
    assert asked == {
        "few_chain": head + "Two is 2.\n2 + 2 = 4.\nAnswer: 4\n\nQuestion: Q {x}?\n",
        "few_direct": head + "Answer: 4\n\nQuestion: Q {x}?\n",
        "zero_chain": "Question: Q {x}?\nThink step by step.\n",
        "zero_direct": "Question: Q {x}?\nAnswer at once.\n",
    }
    for form in chains.FORMATS:
        said = chains.completion("a\nb", "c", form)
        steps = "a\nb" if form in chains.CHAINED else ""
        assert chains.read(said) == Chain(steps, "c")


def test_every_template_puts_a_question_as_reading_knows_it():
    assert all(t.question.startswith(chains.HEAD) for t in chains.TEMPLATES.values())
