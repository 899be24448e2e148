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
    ],
)
def test_the_first_line_that_gives_an_answer_ends_a_chain(text, steps, answer):
    assert chains.read(text) == Chain(steps, answer)


@pytest.mark.parametrize("text", ["", "a\nb", "Answer:", "Answer: **", "####"])
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
