"""What keeps a model from forgetting, as functions of texts and scores.

replay      earlier training lines that a new job learns again
penalty     what an edit is worth when what it makes the model forget is counted
keep        which of the kept adapters a question is for

The gated commit is `gate`; the divergence from the base and the orthogonal penalty are
terms of the inner loss (`packed`).
"""

import math
import re
from collections.abc import Sequence

import numpy as np


def replayed(lines: Sequence[str], count: int, seed: tuple[int, ...]) -> list[str]:
    """Up to `count` of the earlier `lines`, drawn without replacement.

    In their own order; the same for the same `seed` (numbers of at least 0).
    """
    rng = np.random.default_rng(seed)
    picks: list[int] = rng.permutation(len(lines))[:count].tolist()
    return [lines[i] for i in sorted(picks)]


def forgetting(
    before: Sequence[float | None], after: Sequence[float | None]
) -> float | None:
    """Mean loss of score on the same questions, -1..1; 0 where there are none.

    Questions that were not scored on both sides are left out; None: that were all.

    Raises:
      ValueError: lengths differ.
    """
    if len(before) != len(after):
        raise ValueError(
            f"{len(before)} scores before and {len(after)} after: must be of the same "
            "questions"
        )
    if not before:
        return 0.0
    losses = [
        b - a
        for b, a in zip(before, after, strict=True)
        if b is not None and a is not None
    ]
    return sum(losses) / len(losses) if losses else None


def reward(acquired: float | None, lost: float | None, weight: float) -> float | None:
    """`acquired - weight * max(0, lost)` (SCoL, arXiv 2605.07076); None: not known.

    Args:
      acquired: accuracy on the questions of the edit's own passage.
      lost: `forgetting` of the earlier passages' questions; not read for weight 0.
      weight: of what is lost; 0 counts the acquisition alone.
    """
    if acquired is None or not weight:
        return acquired
    return None if lost is None else acquired - weight * max(0.0, lost)


def best(rewards: Sequence[float | None]) -> int:
    """The first of the highest rewards; one that is not known is below all others."""
    known = [-math.inf if r is None else r for r in rewards]
    return known.index(max(known))


# Kept adapters

_WORD = re.compile(r"\w+")


def words(text: str) -> frozenset[str]:
    """The words of a text, in lower case."""
    return frozenset(_WORD.findall(text.lower()))


def route(
    question: frozenset[str], learned: Sequence[frozenset[str]], *, floor: float
) -> int | None:
    """The adapter whose training lines share most of a question's words, or None.

    Each word weighs log((n + 1) / (k + 0.5)) where k of n adapters learned it: one that
    all of them know tells little. One that none knows speaks against all of them, as
    much as one that a single adapter knows speaks for it. This needs no labels of
    tasks, no model and no embedding, and costs nothing beside an answer.

    Args:
      question: `words` of it and its title.
      learned: `words` of each adapter's training lines.
      floor: the least share of the question's weight; below it the question is for the
        base (None). Of equal shares the later adapter has it: what was said last.
    """
    if not question or not learned:
        return None
    known = {word: sum(word in own for own in learned) for word in question}
    weight = {
        word: math.log((len(learned) + 1) / (max(k, 1) + 0.5))
        for word, k in known.items()
    }
    # In one order, or the last bit of a sum would depend on that of a set.
    ordered = sorted(question)
    total = math.fsum(weight[word] for word in ordered)
    shares = [
        math.fsum(weight[word] for word in ordered if word in own) / total
        for own in learned
    ]
    most = max(shares)
    if most < floor or most == 0.0:
        return None
    return len(shares) - 1 - shares[::-1].index(most)
