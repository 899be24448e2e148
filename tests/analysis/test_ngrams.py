"""Words and trigrams of texts counted by hand."""

import pytest

from seal_jax.analysis import ngrams


@pytest.mark.parametrize(
    "text, want",
    [
        ("", []),
        (" \n.,;-", []),
        ("Don't STOP_1-2", ["don", "t", "stop_1", "2"]),
        ("Élan über 東京 Ωμέγα", ["élan", "über", "東京", "ωμέγα"]),
    ],
)
def test_words(text, want):
    assert ngrams.words(text) == want


def test_grams_keep_order_and_repeats():
    assert ngrams.grams("a b a b", 2) == [("a", "b"), ("b", "a"), ("a", "b")]
    assert ngrams.grams("a b", 3) == []
    assert ngrams.grams("a b c", 3) == [("a", "b", "c")]


def test_trigrams_are_different_ones():
    assert ngrams.trigrams("A b a b a") == {("a", "b", "a"), ("b", "a", "b")}
    assert ngrams.trigrams("a b") == set()


def test_novel_share_and_index():
    # abc bcx: one of two is new.
    assert ngrams.novel_share("a b c d", "a b c x") == 1 / 2
    assert ngrams.novel_share("a b c d", "a b") is None
    # abc bcd and bcd cde share one of three.
    sets = ngrams.trigrams("a b c d"), ngrams.trigrams("b c d e")
    assert ngrams.index(*sets) == ngrams.index(*sets[::-1]) == 1 / 3
    assert ngrams.index(sets[0], set()) == 0.0
