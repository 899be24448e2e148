"""Prompts before they are read: which there are, and where each lies in which row.

Prompts of different lengths lie side by side in rows of tokens, each at a multiple of a
tile, which has one adapter. Host only.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

NO_ADAPTER = -1

# Tokens of a tile while prompts are read, at least and at most. In between, the longest
# prompt has at least so many tiles.
TILE, WIDEST_TILE, TILES = 8, 128, 16

# Short prompts lie side by side in rows of about so many tokens.
WIDTH = 256


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to continue, under the adapter of that number in the stack."""

    prompt: tuple[int, ...]
    adapter: int = NO_ADAPTER


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt that is read once, and the requests that continue it."""

    ids: tuple[int, ...]
    adapter: int
    requests: tuple[int, ...]


def distinct(requests: Sequence[Request], adapters: int) -> list[Prompt]:
    """The prompts of requests that have one, each adapter's together, longest first.

    An adapter outside a stack of so many is none.
    """
    asked: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for i, request in enumerate(requests):
        if request.prompt:
            known = 0 <= request.adapter < adapters
            adapter = request.adapter if known else NO_ADAPTER
            asked.setdefault((adapter, request.prompt), []).append(i)
    longest: dict[int, int] = {}
    for adapter, ids in asked:
        longest[adapter] = max(len(ids), longest.get(adapter, 0))

    def place(prompt: Prompt) -> tuple[int, ...]:
        if prompt.adapter == NO_ADAPTER:
            return -len(prompt.ids), 0, 0
        return -longest[prompt.adapter], 1, prompt.adapter, -len(prompt.ids)

    made = [Prompt(ids, a, tuple(which)) for (a, ids), which in asked.items()]
    return sorted(made, key=place)


class Span(NamedTuple):
    """Where a prompt lies: `length` tokens of a row from `first` on."""

    row: int
    first: int
    length: int


def pack(
    lengths: Iterable[int], *, rows: int, width: int, tile: int, most: int
) -> dict[int, Span]:
    """Room for those of the first `most` that find some, each in the first such row.

    None is longer than a row is wide, so the first one is always among them; each
    begins at a multiple of `tile`.
    """
    used, spans = [0] * rows, {}
    for index, length in enumerate(itertools.islice(lengths, most)):
        room = multiple(length, tile)
        row = next((r for r, u in enumerate(used) if u + room <= width), None)
        if row is not None:
            spans[index] = Span(row, used[row], length)
            used[row] += room
    return spans


class Reading(NamedTuple):
    """Prompts side by side, as the device reads them.

    Attributes:
      tokens_PT: int32; zeros where there is no prompt.
      start_PT: where in its row a token's prompt begins; -1 where there is none.
      slots_G: the adapter of each tile of tokens, row by row.
    """

    tokens_PT: np.ndarray
    start_PT: np.ndarray
    slots_G: np.ndarray


def lay_out(
    prompts: Sequence[tuple[Sequence[int], int]],
    spans: Sequence[Span],
    *,
    rows: int,
    width: int,
    tile: int,
) -> Reading:
    """Prompts and their adapters, laid out as `pack` says."""
    tokens = np.zeros((rows, width), np.int32)
    start = np.full((rows, width), -1, np.int32)
    slots = np.full((rows, width // tile), NO_ADAPTER, np.int32)
    for (ids, adapter), (row, first, length) in zip(prompts, spans, strict=True):
        tokens[row, first : first + length] = ids
        start[row, first : first + length] = first
        slots[row, first // tile : -(-(first + length) // tile)] = adapter
    return Reading(tokens, start, slots.ravel())


def sheet(rows: int, width: int, shards: int) -> tuple[int, int]:
    """About as many tokens as `rows` of `width`, in fewer and wider rows if narrow."""
    side_by_side = max(1, min(WIDTH // width, rows // shards))
    return multiple(rows // side_by_side, shards), width * side_by_side


def tile_of(longest: int) -> int:
    """Tokens of a tile, where the longest prompt under an adapter has so many.

    A power of two. Wide tiles leave places empty, as prompts begin at multiples of
    them; narrow ones copy their adapters more often.
    """
    part = max(1, longest // TILES)
    return min(max(TILE, 1 << part.bit_length() - 1), WIDEST_TILE)


def multiple(count: int, unit: int) -> int:
    """`count`, rounded up to a positive multiple."""
    return max(1, -(-count // unit)) * unit
