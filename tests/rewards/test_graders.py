"""Graders by table, and what holds of all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.rewards import graders


@pytest.mark.parametrize(
    "gold, answer, right",
    [
        ("v w x y z", "x y z", 1.0),  # 3 of 5: on the threshold
        ("v w x y z", "y z", 0.0),
        ("x y", "x", 0.0),
        ("x", "it is x", 1.0),
        ("x", "", 0.0),
    ],
)
def test_by_recall_is_right_from_its_threshold_on(gold, answer, right):
    assert graders.by_recall("q", gold, answer) == right


def test_the_threshold_of_by_recall():
    assert graders.by_recall("q", "x y", "x", threshold=0.5) == 1.0
    assert graders.by_recall("q", "x y", "x", threshold=0.51) == 0.0
    assert graders.by_recall("q", "x y", " ", threshold=0.0) == 0.0


@pytest.mark.parametrize("name", graders.LOCAL)
@given(gold=st.text().filter(str.strip), answer=st.text())
def test_every_grader_scores_from_0_to_1(name, gold, answer):
    score = graders.LOCAL[name]("q", gold, answer)
    assert isinstance(score, float) and 0 <= score <= 1
    assert graders.LOCAL[name]("another question", gold, answer) == score
    assert graders.LOCAL[name]("q", gold, gold) == 1.0
    assert (
        graders.LOCAL[name]("q", gold, "") == graders.LOCAL[name]("q", gold, "\n ") == 0
    )


@pytest.mark.parametrize("name", graders.LOCAL)
@pytest.mark.parametrize("gold", ["", " \n"])
def test_a_blank_gold_answer_is_refused(name, gold):
    with pytest.raises(ValueError, match=r"gold=.*must have text; remove the question"):
        graders.LOCAL[name]("q", gold, "answer")
