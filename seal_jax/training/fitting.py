"""Who has lines in a step, and where in its rows they go. Host only.

Rows are filled from their beginning, so what is left of one is a number.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seal_jax.training.settings import PlanConfig

# Orders of slots that are tried for a step, and how far a slot may come before one that
# has more steps left, as a share of the most that any has. On the published edits 8
# orders save three steps in a thousand over 4, and none a hundredth less than 4 do.
ORDERS, NEAR = 4, 0.05
# A step with so much of its tiles taken is full: no other is tried.
FULL = 0.995


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


class Filled(NamedTuple):
    """A step: the first tiles of each slot with lines in it, and all tiles taken.

    Slots are in the order in which they placed their lines.
    """

    first: dict[int, tuple[int, ...]]
    tiles: int


def fill(
    order: Iterable[int], need: Mapping[int, tuple[int, ...]], cfg: PlanConfig
) -> Filled:
    """A step into which slots place their lines in that order, until nothing fits.

    Args:
      order: the slots.
      need: of each slot, the tiles of its next step's lines.
      cfg: sizes.
    """
    per_row = cfg.row_tokens // cfg.tile
    room = [per_row] * (cfg.step_tokens // cfg.row_tokens)
    chunks = None
    if cfg.chunks > 1:
        chunks = Chunks(cfg.chunk_tokens // cfg.tile, cfg.active, [0] * cfg.chunks)
    placed: dict[int, tuple[int, ...]] = {}
    for slot in order:
        first = fit(need[slot], room, per_row, chunks)
        if first is None:
            continue
        placed[slot] = first
        if chunks is None and len(placed) == cfg.active:
            break
    return Filled(placed, sum(sum(need[slot]) for slot in placed))


def fullest(
    need: Mapping[int, tuple[int, ...]],
    left: Sequence[int],
    cfg: PlanConfig,
    rng: np.random.Generator,
) -> Filled:
    """The fullest of some steps: one in the order given, others in orders near it.

    By how full a step is alone, narrow lines would be left for later, or wide ones,
    until nothing is left to go between them. So an order is drawn in which a slot comes
    before another only if it has nearly as many steps left (`NEAR`).

    Args:
      need: of each slot, the tiles of its next step's lines; those with the most steps
        left first.
      left: the steps of each, falling.
      cfg: sizes.
      rng: draws the orders.
    """
    slots, steps = list(need), np.array(left)
    tiles = cfg.step_tokens // cfg.tile
    best = fill(slots, need, cfg)
    for _ in range(ORDERS - 1):
        if len(best.first) == len(slots) or best.tiles >= FULL * tiles:
            break
        key = rng.random(len(slots)) * (NEAR * left[0]) - steps
        order = np.argsort(key, kind="stable").tolist()
        one = fill([slots[i] for i in order], need, cfg)
        if one.tiles > best.tiles:
            best = one
    return best
