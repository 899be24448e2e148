"""Comparison of answers by words, by table."""

import pytest

from seal_jax.tasks import wordwise


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
    assert wordwise.normalize(text) == want


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
    assert wordwise.recall(answer, gold) == pytest.approx(recall)
    assert wordwise.exact(answer, gold) is exact
    assert wordwise.f1(answer, gold) == pytest.approx(f1)
