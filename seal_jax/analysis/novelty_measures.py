"""How new the self-edits of a passage are, and how alike: measures of texts.

Texts are compared as lower-cased runs of word characters (`\\w+`), and trigrams as sets
within one completion. The measures are the usual ones of text diversity: n-gram novelty
and coverage, the Jaccard index (Jaccard 1912), distinct-n (Li et al. 2016,
arXiv 1510.03055) and compressibility (Shaib et al. 2024, arXiv 2403.00553). A measure
that a text is too short for is None, never 0.

Distinct-2 falls and zlib rises with the words there are: compare sets of as many edits
per passage, and note their lengths.
"""

import itertools
import zlib
from collections.abc import Sequence

from seal_jax.analysis import ngrams, stats

# Name in results, and digits shown.
_SHARES = ("novel3", "cov3", "jaccard3", "distinct2")
_NEIGHBOURS = 24  # Passages that one is held against.
MEASURES = {"words": 0, **dict.fromkeys(_SHARES, 3), "zlib": 2}


def copy_share(passage: str, completion: str) -> float | None:
    """cov3: share of a passage's distinct trigrams that the completion has.

    0 for an empty completion; None for a passage of fewer than three words.
    """
    source = ngrams.trigrams(passage)
    return len(source & ngrams.trigrams(completion)) / len(source) if source else None


def jaccard(completions: Sequence[str]) -> float | None:
    """Mean over all pairs of completions of the Jaccard index of their trigrams.

    1 where all are the same. A completion of fewer than three words is left out, so
    that empty ones do not pass for diversity; None if fewer than two are left.
    """
    sets = trigram_sets(completions)
    return stats.mean(ngrams.index(a, b) for a, b in itertools.combinations(sets, 2))


def overlap(completions: Sequence[str], earlier: Sequence[str]) -> float | None:
    """Mean Jaccard index over all pairs of a completion and an earlier one.

    If nothing has changed between the two rounds, it is in expectation the `jaccard` of
    either; None where a side has no completion of three words or more.
    """
    return overlap_of_sets(trigram_sets(completions), trigram_sets(earlier))


def distinct(completions: Sequence[str], n: int = 2) -> float | None:
    """distinct-n: different n-grams over all n-grams, of all completions together.

    No n-gram spans two completions. None without any.
    """
    pooled = [gram for text in completions for gram in ngrams.grams(text, n)]
    return len(set(pooled)) / len(pooled) if pooled else None


def zlib_ratio(completions: Sequence[str]) -> float | None:
    """Bytes of the completions, joined by a space, over their bytes in zlib (level 9).

    The higher, the more they repeat. None where all are blank. Other builds of zlib may
    differ from the third digit on.
    """
    data = (
        " ".join(text.strip() for text in completions).strip().encode(errors="replace")
    )
    return len(data) / len(zlib.compress(data, 9)) if data else None


def measure(passage: str, completions: Sequence[str]) -> dict[str, float | None]:
    """All of MEASURES for the completions of one passage.

    `words`, `novel3` and `cov3` are means over the completions; the rest are of all
    completions together. What cannot be said is None.
    """
    return {
        "words": stats.mean(len(ngrams.words(text)) for text in completions),
        "novel3": stats.mean(ngrams.novel_share(passage, text) for text in completions),
        "cov3": stats.mean(copy_share(passage, text) for text in completions),
        "jaccard3": jaccard(completions),
        "distinct2": distinct(completions),
        "zlib": zlib_ratio(completions),
    }


def trigram_sets(completions: Sequence[str]) -> list[set[ngrams.Gram]]:
    """Trigrams of each completion that has three words."""
    return [grams for text in completions if (grams := ngrams.trigrams(text))]


def overlap_of_sets(
    a: list[set[ngrams.Gram]], b: list[set[ngrams.Gram]]
) -> float | None:
    """Mean Jaccard index over all pairs of a set of `a` and one of `b`."""
    return stats.mean(ngrams.index(x, y) for x, y in itertools.product(a, b))


def diversity(by_passage: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """How different the completions of all passages are, of each and of all together.

    distinct_edits: share of different texts among those of a passage, blank ones left
      out; the mean over passages.
    distinct3: different trigrams over all trigrams, of all completions together.
    overlap_within: Jaccard index of two completions of one passage; the mean over
      passages of `jaccard`.
    overlap_between: Jaccard index of two completions of two passages; the mean over
      all pairs of passages. It rises where a policy writes the same of everything.
    """
    texts = [[" ".join(t.split()) for t in group] for group in by_passage]
    written = [[text for text in group if text] for group in texts]
    sets = [trigram_sets(group) for group in written]
    return {
        "distinct_edits": stats.mean(len(set(g)) / len(g) for g in written if g),
        "distinct3": distinct([text for group in written for text in group], 3),
        "overlap_within": stats.mean(jaccard(group) for group in written),
        "overlap_between": _between(sets),
    }


def _between(sets: Sequence[list[set[ngrams.Gram]]]) -> float | None:
    """Mean over pairs of passages of `overlap_of_sets`.

    Each passage is held against the `_NEIGHBOURS` after it, the last ones against the
    first: of so many passages these are all pairs, of thousands enough.
    """
    count = len(sets)
    pairs = {
        tuple(sorted((p, (p + step) % count)))
        for p in range(count)
        for step in range(1, min(_NEIGHBOURS, count - 1) + 1)
    }
    return stats.mean(overlap_of_sets(sets[p], sets[q]) for p, q in sorted(pairs))
