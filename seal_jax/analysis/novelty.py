"""Novelty of sets of self-edits, over passages and beside each other.

`novelty_measures` has what is measured of the edits of one passage.
"""

import dataclasses
import functools
from collections.abc import Sequence

from seal_jax.analysis import ngrams, novelty_measures, stats

type Passage = tuple[str, str]  # (title, text)


@dataclasses.dataclass(frozen=True)
class Edits:
    """The self-edits of one file, round or arm."""

    name: str
    by_passage: dict[Passage, tuple[str, ...]]
    prompt: str | None = None  # only where one file or round holds several prompts

    # Computed once, since comparing many files in pairs asks for them again and again.
    @functools.cached_property
    def measured(self) -> dict[Passage, dict[str, float | None]]:
        """`novelty_measures.measure` of each passage."""
        return {
            p: novelty_measures.measure(p[1], texts)
            for p, texts in self.by_passage.items()
        }

    @functools.cached_property
    def trigrams(self) -> dict[Passage, list[set[ngrams.Gram]]]:
        """Of each completion of each passage that has three words."""
        return {
            p: novelty_measures.trigram_sets(texts)
            for p, texts in self.by_passage.items()
        }


def summarize(edits: Edits) -> dict[str, tuple[float | None, float | None]]:
    """{measure: (mean, standard error) over passages}; None where not measured."""
    rows = edits.measured.values()
    return {
        name: stats.mean_se_of_any([row[name] for row in rows])
        for name in novelty_measures.MEASURES
    }


@dataclasses.dataclass(frozen=True)
class Change:
    """Two sets of edits over the passages they share."""

    passages: int
    overlap: tuple[float | None, float | None]  # mean, standard error
    # {measure: (later - earlier, standard error, z)} over the same passages
    diffs: dict[str, tuple[float | None, float | None, float | None]]


def compare(later: Edits, earlier: Edits) -> Change:
    """Overlap of the texts, and paired differences later - earlier.

    Raises:
      ValueError: they share no passage.
    """
    shared = [p for p in later.by_passage if p in earlier.by_passage]
    if not shared:
        names = f"{later.name} and {earlier.name}"
        raise ValueError(f"{names} share no passage; compare edits of the same ones")
    common = [
        novelty_measures.overlap_of_sets(later.trigrams[p], earlier.trigrams[p])
        for p in shared
    ]
    a, b = ([side.measured[p] for p in shared] for side in (later, earlier))
    diffs = {
        name: _paired([row[name] for row in a], [row[name] for row in b])
        for name in novelty_measures.MEASURES
    }
    return Change(len(shared), stats.mean_se_of_any(common), diffs)


def first(edits: Edits, count: int) -> Edits:
    """The first `count` edits of each passage; one that has fewer is left out.

    Raises:
      ValueError: `count` is not positive, or no passage has as many.
    """
    if count < 1:
        raise ValueError(f"first={count} must be at least 1")
    by_passage = {
        passage: texts[:count]
        for passage, texts in edits.by_passage.items()
        if len(texts) >= count
    }
    most = max(map(len, edits.by_passage.values()))
    if not by_passage:
        raise ValueError(f"{edits.name}: first={count} must be at most {most} edits")
    return dataclasses.replace(edits, by_passage=by_passage)


def _paired(
    a: Sequence[float | None], b: Sequence[float | None]
) -> tuple[float | None, float | None, float | None]:
    if any(x is not None and y is not None for x, y in zip(a, b, strict=True)):
        return stats.paired(a, b)
    return None, None, None
