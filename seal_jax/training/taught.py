"""What a line learns from a teacher: whose text, and which of its targets. No jax.

A line is a prompt and a tail. Its teacher reads another prompt, one with more in view,
and the same tail; the line learns the teacher's distribution over the vocabulary, in
place of the tail's next token. Which of the teacher's positions predicts a target is
found from the tail's beginning on both sides, never from the lengths of the prompts.
"""

import dataclasses
from collections.abc import Sequence

from seal_jax.training.settings import REFERENCE


@dataclasses.dataclass(frozen=True)
class Taught:
    """The teacher of one line.

    `ids`: the teacher's whole sequence, its prompt and the line's tail, without
    end-of-text. `given`: tokens of its prompt. Of the line's targets, counted from the
    tail's first token on, the first `skip` are none at all, those from there to `count`
    are learned from the teacher, and those from `count` on, if any, as without one.
    Where `count` is the tail's length and one, the last is end-of-text.
    """

    ids: tuple[int, ...]
    given: int
    count: int
    skip: int = 0

    @property
    def targets(self) -> int:
        """Targets that the teacher predicts."""
        return self.count - self.skip

    @property
    def positions(self) -> range:
        """The teacher's own positions that predict them."""
        return range(self.given - 1 + self.skip, self.given - 1 + self.count)


def check(
    taught: Sequence[Taught | None],
    lines: Sequence[tuple[int, ...]],
    given: Sequence[int],
    targets: Sequence[int],
    mode: str,
) -> None:
    """Refuses teachers that their lines cannot learn from.

    Args:
      taught: one for each line, or none at all.
      lines: token ids.
      given: leading tokens of each line that are no targets.
      targets: how many targets each line has.
      mode: of `settings.LossConfig`.

    Raises:
      ValueError: in one line, what is wrong with which.
    """
    if not taught:
        return
    if len(taught) != len(lines):
        raise ValueError(
            f"taught has {len(taught)} entries, there are {len(lines)} training lines; "
            "give one for each, None where there is no teacher, or none at all"
        )
    if mode == REFERENCE and any(taught):
        raise ValueError(
            f"inner.loss.mode={REFERENCE!r} has targets that no teacher predicts; use "
            "inner.loss.mode='masked' with taught lines"
        )
    for i, (one, ids, own) in enumerate(zip(taught, lines, given, strict=True)):
        if one is None:
            continue
        if not 1 <= one.given <= len(one.ids):
            raise ValueError(
                f"the teacher of training line {i} has given={one.given}, which must "
                f"lie in 1..{len(one.ids)}, the number of its tokens"
            )
        if tuple(one.ids[one.given :]) != tuple(ids[own:]):
            raise ValueError(
                f"the tails of training line {i} and of its teacher differ: the "
                f"{len(ids) - own} tokens behind given={own} and the "
                f"{len(one.ids) - one.given} behind the teacher's given={one.given} "
                "must be the same; encode prompt and tail apart, and cut both alike"
            )
        most = min(targets[i], len(ids) - own + 1)
        if not 0 <= one.skip < one.count <= most:
            raise ValueError(
                f"the teacher of training line {i} has skip={one.skip}, count="
                f"{one.count}; they must be 0 <= skip < count <= {most}, the line's "
                "targets"
            )
