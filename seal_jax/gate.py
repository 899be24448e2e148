"""The gated commit: how much of an adapter is added, by what it makes a model forget.

After an edit the earlier questions are asked again. Where more of them are lost than
the budget allows, the adapter is added at a smaller scale, found by bisection, or not
at all (STABLE, arXiv 2510.16089). The scale multiplies B alone, so that the change of
the weights shrinks with it; the code of that paper scales A too, and so by its square.

    verdict = decide(budget, [], least=0.1, steps=5)
    while not verdict.done:
        history.append((verdict.scale, forgetting at verdict.scale))
        verdict = decide(budget, history, least=0.1, steps=5)
"""

from collections.abc import Sequence
from typing import NamedTuple


class Verdict(NamedTuple):
    """The next scale to try, or, if `done`, the one to commit (0.0: reject)."""

    scale: float
    done: bool


def decide(
    budget: float,
    history: Sequence[tuple[float, float | None]],
    *,
    least: float,
    steps: int,
) -> Verdict:
    """What to do after the scales that were tried.

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
        return Verdict(1.0, done=False)
    if low == 1.0 or least == 1.0:
        return Verdict(low, done=True)
    if len(history) == 1:
        return Verdict(least, done=False)
    if low == 0.0 or len(history) == 2 + steps:
        return Verdict(low, done=True)
    return Verdict((low + high) / 2, done=False)
