"""Novelty over passages, and of sets of self-edits beside each other."""

import pytest

from seal_jax.analysis import novelty


def approx(want):
    return pytest.approx(want, rel=1e-12, abs=0)


def edits(name, **texts):
    return novelty.Edits(name, {("t", p): tuple(own) for p, own in texts.items()})


def test_summary_has_standard_errors_over_passages():
    got = novelty.summarize(edits("x", a=["a b c", "a b c"], b=["a b c", "x y z"]))
    assert got["words"] == (3.0, 0.0)
    assert got["jaccard3"] == approx((0.5, 0.5))  # 1 and 0
    assert got["distinct2"] == approx((0.75, 0.25))
    assert got["cov3"] == (None, None)  # the passages have one word each
    one = novelty.summarize(edits("x", a=["a b c", "a b c"]))
    assert one["jaccard3"] == (1.0, None)


def test_compare_pairs_the_shared_passages_only():
    old = edits("old", a=["a b c d", "a b c d"], b=["x y z"], c=["a b c"])
    new = edits("new", d=["m n o"], b=["x y z"], a=["a b c d", "b c d e"])
    got = novelty.compare(new, old)
    assert got.passages == 2
    # a: the two pairs of each give 1 and 1/3; b: 1.
    assert got.overlap == approx(((2 / 3 + 1) / 2, 1 / 6))
    # b has one completion, so a is the only pair.
    assert got.diffs["jaccard3"] == (approx(-2 / 3), None, None)
    # a: ab bc cd bc cd de has 4 of 6, before 3 of 6; b is the same.
    assert got.diffs["distinct2"] == approx((1 / 12, 1 / 12, 1.0))
    assert got.diffs["cov3"] == (None, None, None)
    with pytest.raises(ValueError, match=r"^x and old share no passage; compare"):
        novelty.compare(edits("x", e=["a"]), old)


def test_first_keeps_so_many_where_there_are_as_many():
    own = edits("x", a=["1", "2", "3"], b=["1"])
    assert novelty.first(own, 2) == edits("x", a=["1", "2"])
    assert novelty.first(own, 1) == edits("x", a=["1"], b=["1"])
    with pytest.raises(ValueError, match="first=0 must be at least 1"):
        novelty.first(own, 0)
    with pytest.raises(ValueError, match="x: first=4 must be at most 3 edits"):
        novelty.first(own, 4)
