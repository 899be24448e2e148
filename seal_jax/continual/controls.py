"""What keeps a model from forgetting, as functions of texts and scores.

replay      earlier training lines that a new job learns again
penalty     what an edit is worth when what it makes the model forget is counted
keep        which of the kept adapters a question is for
gate        how much of an adapter is added, by what it makes the model forget

The divergence from the base and the orthogonal penalty are terms of the inner loss
(`packed`).
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seal_jax.rounds import select


def replayed[T](lines: Sequence[T], count: int, seed: tuple[int, ...]) -> list[T]:
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


def penalized(
    acquired: float | None, lost: float | None, weight: float
) -> float | None:
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
    """The first of the highest rewards; None, not known, is below all others.

    Equal shares may differ in the last bit (`select.SHARE_DIGITS`).
    """
    values = [
        -math.inf if r is None else round(r, select.SHARE_DIGITS) for r in rewards
    ]
    return values.index(max(values))


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
    counts = {
        word: sum(word in vocabulary for vocabulary in learned) for word in question
    }
    weight = {
        word: math.log((len(learned) + 1) / (max(k, 1) + 0.5))
        for word, k in counts.items()
    }
    # In one order, or the last bit of a sum would depend on that of a set.
    ordered = sorted(question)
    total = math.fsum(weight[word] for word in ordered)
    shares = [
        math.fsum(weight[word] for word in ordered if word in vocabulary) / total
        for vocabulary in learned
    ]
    most = max(shares)
    if most < floor or most == 0.0:
        return None
    return len(shares) - 1 - shares[::-1].index(most)


# The gate


class GateStep(NamedTuple):
    """The next scale to try, or, if `done`, the one to commit (0.0: reject)."""

    scale: float
    done: bool


def gate(
    budget: float,
    history: Sequence[tuple[float, float | None]],
    *,
    least: float,
    steps: int,
) -> GateStep:
    """The gated commit: what to do after the scales that were tried.

    After an edit the earlier questions are asked again. Where more of them are lost
    than the budget allows, the adapter is added at a smaller scale, found by bisection,
    or not at all (STABLE, arXiv 2510.16089). The scale multiplies B alone, so that the
    change of the weights shrinks with it; the code of that paper scales A too, and so
    by its square.

        step = gate(budget, [], least=0.1, steps=5)
        while not step.done:
            history.append((step.scale, forgetting at step.scale))
            step = gate(budget, history, least=0.1, steps=5)

    1 is tried first and committed if it is within the budget, then `least`, which is
    rejected if it is not. Between the two, `steps` halvings; the largest scale that was
    within the budget is committed. Forgetting that grows with the scale crosses the
    budget at most (1 - least) / 2**steps above it.

    Args:
      budget: the most forgetting that is accepted.
      history: (scale, forgetting) of all earlier verdicts, in order. None: it could not
        be measured, and is not within any budget.
      least: the smallest scale that is worth committing, above 0 and at most 1.
      steps: halvings, 0 or more.
    """
    low, high = 0.0, 1.0
    for scale, forgetting in history:
        if forgetting is not None and forgetting <= budget:
            low = max(low, scale)
        else:
            high = min(high, scale)
    if not history:
        return GateStep(1.0, done=False)
    if low == 1.0 or least == 1.0:
        return GateStep(low, done=True)
    if len(history) == 1:
        return GateStep(least, done=False)
    if low == 0.0 or len(history) == 2 + steps:
        return GateStep(low, done=True)
    return GateStep((low + high) / 2, done=False)
