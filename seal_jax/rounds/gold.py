"""What of the rounds needs gold answers, for passages that have no questions.

Such passages are written about, trained on and judged by rewards without labels; rows
of the ladder, and rewards that are only compared, are left out, and said to be.
"""

import itertools
from collections.abc import Sequence

from seal_jax.rewards import own
from seal_jax.rounds.settings import PassageRounds
from seal_jax.tasks import knowledge_setup
from seal_jax.tasks.base import Questions
from seal_jax.tasks.passage import Passage


def load(exp: PassageRounds) -> tuple[list[list[Passage]], list[Passage]]:
    """`knowledge_setup.load` for rounds, whose passages may have no questions.

    Raises:
      ValueError: see there; or they lack questions that the choice of edits, or of when
        to stop, needs.
    """
    train, heldout = knowledge_setup.load(exp, asked=False)
    passages = list(itertools.chain(*train))
    bare = [p for p in passages if not p.questions]
    if bare and own.asks(exp.select.reward):
        raise ValueError(
            f"select.reward={exp.select.reward!r} needs questions with gold answers, "
            f"and {len(bare)} of {len(passages)} training passages have none, such as "
            f"{bare[0].text[:40]!r} of {bare[0].title!r}; use --config.select.reward="
            "self_asked, or name their columns in task.columns"
        )
    sieve = exp.select.sieve
    if bare and sieve is not None and own.asks(sieve.by):
        raise ValueError(
            f"select.prefilter's filter {sieve.by!r} needs questions with gold "
            f"answers, and {len(bare)} of {len(passages)} training passages have none; "
            "use 'gradient', which asks itself"
        )
    if exp.stop.rule != "none" and not any(p.questions for p in heldout):
        raise ValueError(
            f"stop.rule={exp.stop.rule!r} compares rows of the ladder, and no held-out "
            "passage has a question to measure them by; use 'none'"
        )
    return train, heldout


def measurable[Item](task: Questions[Item], items: Sequence[Item]) -> list[Item]:
    """The items that answers can be scored about."""
    return [item for item in items if task.scores_of(item)]


def left_out[Item](
    task: Questions[Item],
    train: Sequence[Item],
    heldout: Sequence[Item],
    ladder: Sequence[str],
    compared: Sequence[str],
) -> str:
    """What a run leaves out since there are no gold answers, in a line; "": nothing.

    Args:
      task: tells which items have some.
      train: the items to learn from.
      heldout: those that the ladder is measured on.
      ladder: its rows.
      compared: rewards that are measured beside the one that decides.
    """
    bare = len(train) - len(measurable(task, train))
    have = len(measurable(task, heldout))
    return said(bare, len(train), have, len(heldout), ladder, compared)


def said(
    bare: int,
    train: int,
    have: int,
    heldout: int,
    ladder: Sequence[str],
    compared: Sequence[str],
) -> str:
    """`left_out` by numbers: `bare` of the items lack answers, `have` held out do."""
    parts = []
    if not have:
        why = "has a question" if heldout else "is held out"
        parts.append(f"the ladder ({', '.join((*ladder, 'rounds'))}), as none {why}")
    elif have < heldout:
        parts.append(f"{heldout - have} of {heldout} items of the ladder")
    if bare:
        needy = ", ".join(["grade", *filter(own.asks, compared)])
        parts.append(f"of {bare} of {train} items to learn from: {needy}")
    return f"without gold answers, left out: {'; '.join(parts)}" if parts else ""
