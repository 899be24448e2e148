"""Graders by table, and against counts done another way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.rewards import graders


@pytest.mark.parametrize(
    "text, want",
    [
        ("The Denver Broncos.", "denver broncos"),
        ("  an  A-B\tthe\n c ", "ab c"),
        ("Theatre and ant", "theatre and ant"),
        ("24–10", "24–10"),
        ("Levi's", "levis"),
        ("the", ""),
        ("?!", ""),
        ("Émile ÉCOLE", "émile école"),
    ],
)
def test_normalize(text, want):
    assert graders.normalize(text) == want


# (gold, answer): recall, exact, f1
SCORES = {
    ("Denver Broncos", "The Denver Broncos won."): (1, False, 4 / 5),
    ("Denver Broncos", "denver broncos"): (1, True, 1),
    ("Denver Broncos", "Broncos Denver"): (1, False, 1),
    ("Denver Broncos", "Denver"): (1 / 2, False, 2 / 3),
    ("Denver Broncos", "Carolina Panthers"): (0, False, 0),
    ("a b c d e", "c b e"): (3 / 4, False, 6 / 7),  # "a" is an article
    ("b b", "b"): (1 / 2, False, 2 / 3),
    ("b", "b b b"): (1, False, 1 / 2),
    ("rye bread", "rye"): (1 / 2, False, 2 / 3),
    ("rye bread", ""): (0, False, 0),
    ("rye bread", " \n"): (0, False, 0),
    ("rye bread", "the ."): (0, False, 0),
    ("The", "the"): (1, True, 1),
    ("The", "theirs"): (0, False, 0),
    ("The", ""): (0, False, 0),
    ("+", "the + sign"): (1, False, 1 / 2),
    ("+", "-"): (0, False, 0),
    ("+", " "): (0, False, 0),
}


@pytest.mark.parametrize("gold, answer", SCORES)
def test_scores(gold, answer):
    recall, exact, f1 = SCORES[gold, answer]
    assert graders.recall(answer, gold) == pytest.approx(recall)
    assert graders.exact(answer, gold) is exact
    assert graders.f1(answer, gold) == pytest.approx(f1)


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
