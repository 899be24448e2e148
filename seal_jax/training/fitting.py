"""Where in a step's rows the lines of one adapter go. Host only.

Rows are filled from their beginning, so what is left of one is a number.
"""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass
class Chunks:
    """How many adapters each chunk of a global step has, at most `most`.

    A chunk has so many `tiles`, a part or a multiple of a row's. So past the end of a
    full chunk, in the same row, lies one that nobody has lines in.
    """

    tiles: int
    most: int
    adapters: list[int]

    def room(self, row: int, left: int, per_row: int, own: set[int]) -> int:
        """Of the tiles left in a row, those from the first chunk with a place left.

        `own` are the chunks in which the adapter that asks has one.
        """
        chunk, inside = divmod((row + 1) * per_row - left, self.tiles)
        if left and chunk not in own and self.adapters[chunk] == self.most:
            left -= self.tiles - inside
        return left

    def of(self, first: int, tiles: int) -> range:
        """The chunks in which a line lies."""
        return range(first // self.tiles, (first + tiles - 1) // self.tiles + 1)


def fit(
    need: Sequence[int],
    room: list[int],
    per_row: int,
    chunks: Chunks | None = None,
) -> tuple[int, ...] | None:
    """The first tile of each of a step's lines, or None if they do not all fit.

    The widest first, each in the fullest row that still takes it. For up to three lines
    that finds a place wherever there is one.

    Args:
      need: tiles of each line.
      room: tiles left in each row; those that are taken here leave it.
      per_row: tiles of a row.
      chunks: of the step, or None where any adapter may lie anywhere; this one is
        counted in those in which its lines lie. A line begins past a full chunk.
    """
    if max(need) > max(room):
        return None
    left, first, own = room.copy(), [0] * len(need), set[int]()
    for line in sorted(range(len(need)), key=lambda line: -need[line]):
        usable = left
        if chunks is not None:
            usable = [chunks.room(row, n, per_row, own) for row, n in enumerate(left)]
        fitting = [row for row, tiles in enumerate(usable) if tiles >= need[line]]
        if not fitting:
            return None
        row = min(fitting, key=usable.__getitem__)
        first[line] = row * per_row + per_row - usable[row]
        left[row] = usable[row] - need[line]
        if chunks is not None:
            own.update(chunks.of(first[line], need[line]))
    room[:] = left
    for chunk in own:
        assert chunks is not None
        chunks.adapters[chunk] += 1
    return tuple(first)
