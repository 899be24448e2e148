"""Which of many self-edits are trained at all: settings and the choice; no jax.

Writing is cheap beside training. With `select.prefilter` more edits are written than
are trained: those that look best without training go on, and some at random beside
them, so that what the filter cannot see is still tried (the dreams of "Language Models
Need Sleep", arXiv 2606.03979). How they look is measured in `dreams`.
"""

import dataclasses
import math
from collections.abc import Sequence

from seal_jax.rewards import names as reward_names
from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import shown

RANDOM = "random"
FILTERS = (*reward_names.GRADIENTS, RANDOM)
_FORM = '("gradient", written, kept, random)'


@dataclasses.dataclass(frozen=True)
class Sieve:
    """Of `written` edits of an item the best `kept` by `by` and `random` others go on.

    "random" tells no edit from another: all that go on are drawn.
    """

    by: str
    written: int
    kept: int
    random: int

    @property
    def trained(self) -> int:
        """Edits of an item that go on, at most."""
        return self.kept + self.random


def parse(value: Sequence[str | int]) -> Sieve | None:
    """What a config writes as `_FORM`; None for ().

    Raises:
      ValueError: another form, a filter that there is not, or numbers that leave
        nothing to train or nothing to leave out.
    """
    if not value:
        return None
    by, *counts = value
    if len(counts) != 3 or any(type(n) is not int or n < 0 for n in counts):
        raise ValueError(
            f"select.prefilter={shown(tuple(value))} must be () or {_FORM}, three "
            'whole numbers; give ("gradient", 15, 3, 2) or the like'
        )
    config_rules.one_of("select.prefilter's filter", by, FILTERS)  # pyright: ignore[reportArgumentType]
    found = Sieve(str(by), *map(int, counts))
    if not 1 <= found.trained <= found.written:
        raise ValueError(
            f"select.prefilter={shown(tuple(value))} trains kept + random = "
            f"{found.trained} of {found.written} written edits: at least 1, and no "
            "more than are written; change one of them"
        )
    return found


def going_on(
    rule: Sieve,
    scores: Sequence[float | None],
    drawn: Sequence[tuple[int, ...]],
    valid: Sequence[bool],
) -> list[int]:
    """Indices of the edits of one item that are trained, in their order.

    Args:
      rule: how they are chosen.
      scores: of all that were written; None, not known, counts as least.
      drawn: each one's own random numbers, by which the random ones are picked.
      valid: which can be trained at all; the others are passed over.
    """
    left = [e for e, ok in enumerate(valid) if ok]
    kept: list[int] = []
    if rule.by != RANDOM:
        # Of equal ones the first; what is not known is not kept before it is drawn.
        known = [e for e in left if scores[e] is not None]
        kept = sorted(known, key=lambda e: -_value(scores[e]))[: rule.kept]
    others = sorted((e for e in left if e not in kept), key=lambda e: drawn[e])
    return sorted([*kept, *others[: rule.trained - len(kept)]])


def _value(score: float | None) -> float:
    return -math.inf if score is None else score
