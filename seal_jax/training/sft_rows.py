"""The row layout of supervised fine-tuning: whole lines, several to a row. No jax.

Imitation, full fine-tuning and pretraining train on rows `[B, T]` in which lines lie
side by side, apart by `key_ranges.of_lines`. Padded, each would take a row as wide as
the longest.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seal_jax.training import fitting


class Line(NamedTuple):
    """Token ids and the loss weight of predicting each; the first is not predicted.

    A line of n + 1 ids takes n positions, each of which predicts the next id.
    """

    ids: Sequence[int]
    weights: Sequence[float]

    @property
    def positions(self) -> int:
        return len(self.ids) - 1


def line(ids: Sequence[int], *, first_target: int, eos: int, cut: bool = False) -> Line:
    """`ids` and an end-of-text, which count as targets from `first_target` on.

    If they are the beginning of a longer text, `cut`, there is no end-of-text.
    """
    ids = [*ids] if cut else [*ids, eos]
    return Line(ids, [float(i >= first_target) for i in range(len(ids))])


def lay(
    lines: Sequence[Line], first: Sequence[int], *, shape: tuple[int, int], eos: int
) -> dict[str, np.ndarray]:
    """Lines laid into rows at given places.

    Args:
      lines: what to lay; none reaches beyond its row.
      first: each line's first position, `row * T + column`.
      shape: `(B, T)`.
      eos: end-of-text id, which fills what stays empty.

    Returns:
      Arrays `[B, T]`: `tokens`, `targets`, `positions` (within the line), `segments`
      (index of the line, -1: none) as int32, and `weights` of the targets as float32.
    """
    rows = {
        "tokens": np.full(shape, eos, np.int32),
        "targets": np.full(shape, eos, np.int32),
        "positions": np.zeros(shape, np.int32),
        "segments": np.full(shape, -1, np.int32),
        "weights": np.zeros(shape, np.float32),
    }
    for i, (line, start) in enumerate(zip(lines, first, strict=True)):
        row, column = divmod(start, shape[1])
        span = slice(column, column + line.positions)
        rows["tokens"][row, span] = line.ids[:-1]
        rows["targets"][row, span] = line.ids[1:]
        rows["positions"][row, span] = range(line.positions)
        rows["segments"][row, span] = i
        rows["weights"][row, span] = line.weights[1:]
    return rows


def pack(
    lines: Sequence[Line], *, width: int, multiple: int, eos: int
) -> dict[str, np.ndarray]:
    """Lines laid by `lay` into as few rows as a best fit finds.

    The widest line goes first, each into the fullest row that takes it.

    Args:
      lines: of at most `width` positions each.
      width: T.
      multiple: B is a multiple of it; rows without a line fill it up.
      eos: end-of-text id.

    Raises:
      ValueError: a line is wider than a row.
    """
    sizes = [line.positions for line in lines]
    first = fitting.fit(sizes, [width] * len(lines), width)
    if first is None:  # A row each always does, if it is wide enough.
        raise ValueError(
            f"a line of {max(sizes)} positions does not fit a row of {width}; use "
            f"width={max(sizes)}"
        )
    used = max(first) // width + 1
    return lay(lines, first, shape=(-(-used // multiple) * multiple, width), eos=eos)


def width(positions: Sequence[int], multiple: int) -> int:
    """The row that takes the longest line, rounded up to `multiple`."""
    return -(-max(positions) // multiple) * multiple
