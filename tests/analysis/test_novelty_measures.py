"""Novelty of hand-counted texts, and against brute force."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.analysis import ngrams, novelty_measures

# Trigrams of PASSAGE: abc bcd cde.
PASSAGE = "A b, c. D e!"


def approx(want):
    return pytest.approx(want, rel=1e-12, abs=0)


# passage, completion, novel3, cov3
SHARES = {
    "copied": (PASSAGE, "a B c\nd e", 0.0, 1.0),
    "all new": (PASSAGE, "x y z", 1.0, 0.0),
    # abc, bcx: one of two is new, one of three is copied.
    "half": (PASSAGE, "a b c x", 1 / 2, 1 / 3),
    # xya, yab, abc, bcx, cxy, xya, yab, abc: five different ones, abc copied.
    "repeats count once": (PASSAGE, "x y a b c x y a b c", 4 / 5, 1 / 3),
    "empty": (PASSAGE, "", None, 0.0),
    "two words": (PASSAGE, "a b", None, 0.0),
    "short passage": ("a b", "a b c", 1.0, None),
    "nothing": ("", "", None, None),
    "other script": ("東 京 都 Ä", "東 京 都 ä", 0.0, 1.0),
}


@pytest.mark.parametrize("case", SHARES)
def test_shares(case):
    passage, completion, novel, copied = SHARES[case]
    assert ngrams.novel_share(passage, completion) == novel
    assert novelty_measures.copy_share(passage, completion) == copied


JACCARDS = {
    "none": ([], None),
    "one": (["a b c"], None),
    "repeated": (["a b c d", "A, b c d."], 1.0),
    "nothing shared": (["a b c", "x y z"], 0.0),
    # abc bcd and bcd cde share one of three.
    "one of three": (["a b c d", "b c d e"], 1 / 3),
    # The pairs: 1, 1/3, 1/3.
    "mean over pairs": (["a b c d", "a b c d", "b c d e"], 5 / 9),
    "empty ones are left out": (["a b c d", "", "a b", "b c d e"], 1 / 3),
    "one beside an empty one": (["a b c", ""], None),
    "all empty": (["", ""], None),
}


@pytest.mark.parametrize("case", JACCARDS)
def test_jaccard(case):
    completions, want = JACCARDS[case]
    assert novelty_measures.jaccard(completions) == (
        want if want is None else approx(want)
    )


OVERLAPS = {
    "the same": (["a b c"], ["a b c"], 1.0),
    # 1 and 1/3 with the first, 1/3 and 1 with the second.
    "all pairs": (["a b c d", "b c d e"], ["a b c d", "b c d e"], 2 / 3),
    "sizes differ": (["a b c d"], ["b c d e", "x y z"], 1 / 6),
    "empty ones are left out": (["a b c d", ""], ["", "b c d e"], 1 / 3),
    "a blank side": (["a b c"], [""], None),
    "no side": ([], ["a b c"], None),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_overlap(case):
    later, earlier, want = OVERLAPS[case]
    assert novelty_measures.overlap(later, earlier) == want
    assert novelty_measures.overlap(earlier, later) == want


DISTINCT = {
    "none": ([], 2, None),
    "too short": (["a", "", "b"], 2, None),
    "all different": (["a b c"], 2, 1.0),
    # ab bc ab bc
    "repeated": (["a b c", "a b c"], 2, 1 / 2),
    # ab, cd: bc would only be there across the border.
    "no gram across texts": (["a b", "c d"], 2, 1.0),
    "pooled, not averaged": (["a a a a", "a b"], 2, 2 / 4),
    "single words": (["a b", "a c"], 1, 3 / 4),
}


@pytest.mark.parametrize("case", DISTINCT)
def test_distinct(case):
    completions, n, want = DISTINCT[case]
    assert novelty_measures.distinct(completions, n) == want


def test_zlib_ratio():
    def of(data):
        return len(data) / len(zlib.compress(data, 9))

    assert novelty_measures.zlib_ratio([]) is None
    assert novelty_measures.zlib_ratio(["", " \n"]) is None
    assert novelty_measures.zlib_ratio([" ab\n", "cd"]) == of(b"ab cd")
    assert novelty_measures.zlib_ratio(["é東"]) == of(b"\xc3\xa9\xe6\x9d\xb1")  # bytes
    text = "the quick brown fox jumps over the lazy dog"
    once, often = (novelty_measures.zlib_ratio([text] * k) for k in (1, 9))
    assert once is not None and often is not None and often > 4 * once


def test_measure_puts_means_over_completions_beside_what_all_share():
    got = novelty_measures.measure(PASSAGE, ["a b c x", "x y z", "a b"])
    assert list(got) == list(novelty_measures.MEASURES)
    del got["zlib"]
    assert got == approx(
        {
            "words": 3.0,
            "novel3": 3 / 4,  # of 1/2 and 1; the short one has none
            "cov3": 1 / 9,
            "jaccard3": 0.0,
            "distinct2": 5 / 6,  # ab bc cx xy yz ab
        }
    )
    assert novelty_measures.measure(PASSAGE, [""]) == {
        **dict.fromkeys(novelty_measures.MEASURES, None),
        "words": 0.0,
        "cov3": 0.0,
    }
    assert set(novelty_measures.measure(PASSAGE, []).values()) == {None}


texts = st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join)


@given(texts, st.lists(texts, max_size=4))
def test_against_brute_force(passage, completions):
    def runs(text, n):
        own = text.split()
        return [tuple(own[i : i + n]) for i in range(len(own) - n + 1)]

    def mean(values):
        return approx(sum(values) / len(values)) if values else None

    sets = [{*runs(c, 3)} for c in completions]
    source = {*runs(passage, 3)}
    long = [s for s in sets if s]
    pairs = [(a, b) for i, a in enumerate(long) for b in long[:i]]
    bigrams = [g for c in completions for g in runs(c, 2)]
    got = novelty_measures.measure(passage, completions)
    assert got["novel3"] == mean(
        [sum(g not in source for g in s) / len(s) for s in long]
    )
    copied = [sum(g in s for g in source) / len(source) for s in sets if source]
    assert got["cov3"] == mean(copied)
    assert got["jaccard3"] == mean(
        [sum(g in b for g in a) / len({*a, *b}) for a, b in pairs]
    )
    assert got["distinct2"] == mean(
        [bigrams.index(g) == i for i, g in enumerate(bigrams)]
    )
    # Over k completions of k: the k identical pairs, and every other pair twice.
    k, within = len(long), novelty_measures.jaccard(completions) or 0.0
    if k:
        want = (k + k * (k - 1) * within) / k**2
        assert novelty_measures.overlap(completions, completions) == approx(want)


DIVERSITIES = {
    "nothing": ([], (None, None, None, None)),
    "blank": ([[""], [" "]], (None, None, None, None)),
    # Space does not make a text another one; abc three times.
    "collapsed": ([["a b c", "a  b c"], ["a b c"]], (0.75, 1 / 3, 1.0, 1.0)),
    # abc bcd, bcd cde | xyz: four of five; the two edits share one of three.
    "of two passages": ([["a b c d", "b c d e"], ["x y z"]], (1, 4 / 5, 1 / 3, 0.0)),
    # Of the pairs between, abc with abc is alike and abc with xyz not.
    "half alike": ([["a b c"], ["a b c", "x y z"]], (1, 2 / 3, 0.0, 0.5)),
    # A passage counts once, however many edits it has; blank ones count nowhere.
    "over passages": ([["a b c"] * 4, ["d", "e"], [""]], (0.625, 1 / 4, 1.0, None)),
}


@pytest.mark.parametrize("case", DIVERSITIES)
def test_diversity(case):
    by_passage, want = DIVERSITIES[case]
    assert novelty_measures.diversity(by_passage) == dict(
        zip(
            ("distinct_edits", "distinct3", "overlap_within", "overlap_between"),
            (None if w is None else approx(w) for w in want),
            strict=True,
        )
    )


def test_many_passages_are_held_against_some_each():
    """All alike but one, which is in few of the pairs; and it takes no square."""
    texts = [["a b c"]] * 1999 + [["x y z"]]
    found = novelty_measures.diversity(texts)["overlap_between"]
    assert found == approx(1 - 2 / 2000)
