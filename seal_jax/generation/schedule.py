"""Which text decodes in which row, and when: decided on the host, without a device.

Prompts wait; a few at a time are read, packed side by side in rows of tokens. Every
request takes a row of the cache of its own, and leaves it when its text has ended: the
row is free at once, whatever its neighbours do. Rows under one adapter share a copy of
it, in tiles of a few rows each. When no prompt waits any more and most rows are free,
those that go on move together into fewer.

What runs on the device stands behind `Device`; a simulation takes its place where only
occupancy is asked for.
"""

import dataclasses
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from seal_jax.runtime import interrupts

NO_ADAPTER = -1

# Tokens of a prompt's tile while it is read: prompts begin at multiples of it.
TILE = 8

# An eighth of the rows as many rows of prompts are read at a time, up to four prompts
# in each: few enough to wait for and to hold beside the cache, enough to fill the
# matmuls. A sixteenth of the rows is refilled at a time.
READ_SHARE = 8
PROMPTS_PER_ROW = 4
ENTER_SHARE = 16

# Short prompts lie side by side in rows of about so many tokens.
WIDTH = 256

# Adapters' tiles have so many times as many places as there are rows, where rows are
# refilled: those of a tile end one after the other, and more than half of its places
# are empty on average.
SPARE = 2.5

# Steps on the device until the host looks again, if no prompt waits.
STEPS = 64

# The fewer rows that the last texts move to, as shares of all; a program for each. They
# are worth it only if a text may go on for a while.
SHRUNK = (2, 8, 32)
WORTH_STEPS = 64


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


class Sizes(NamedTuple):
    """What the device's programs are made for.

    `rows` decode together, `per_tile` of them in each of `tiles` share an adapter;
    `entering` are refilled at a time. `reading` rows of `width` tokens, cut into tiles
    of `tile`, take up to `prompts` prompts at a time. All but the last three are
    multiples of `shards`, the devices that share the rows.
    """

    rows: int
    tiles: int
    per_tile: int
    entering: int
    reading: int
    width: int
    tile: int
    prompts: int
    shards: int


def sizes(
    prompts: Sequence[Prompt],
    *,
    batch: int,
    per_tile: int,
    prompt_multiple: int,
    shards: int = 1,
) -> Sizes:
    """The sizes for about `batch` rows, the same for nearly equal work.

    Args:
      prompts: what there is to read, at least one.
      batch: rows that decode together, about.
      per_tile: rows that share a copy of their adapter.
      prompt_multiple: rows of prompts are as wide as a multiple of it, which bounds the
        number of compiled shapes.
      shards: devices that share the rows.
    """
    rows = multiple(batch, shards)
    reading = multiple(rows // READ_SHARE, shards)
    adapted = any(prompt.adapter != NO_ADAPTER for prompt in prompts)
    tile = TILE if adapted else 1
    longest = multiple(max(len(p.ids) for p in prompts), prompt_multiple)
    width = multiple(longest, tile)
    side_by_side = max(1, min(WIDTH // width, reading // shards))
    return Sizes(
        rows=rows,
        tiles=_tiles(prompts, rows, per_tile, shards) if adapted else 0,
        per_tile=per_tile,
        entering=max(1, rows // ENTER_SHARE),
        reading=multiple(reading // side_by_side, shards),
        width=width * side_by_side,
        tile=tile,
        prompts=PROMPTS_PER_ROW * reading,
        shards=shards,
    )


def _tiles(prompts: Sequence[Prompt], rows: int, per_tile: int, shards: int) -> int:
    """As many as all requests need at once, within what rows need and `SPARE` of it."""
    asked = Counter[int]()
    for prompt in prompts:
        asked[prompt.adapter] += len(prompt.requests)
    asked.pop(NO_ADAPTER, None)
    needed = sum(-(-count // per_tile) for count in asked.values())
    least = multiple(-(-rows // per_tile), shards)
    most = multiple(math.ceil(SPARE * rows / per_tile), shards)
    return least if needed <= least else most


def multiple(count: int, unit: int) -> int:
    """`count`, rounded up to a positive multiple."""
    return max(1, -(-count // unit)) * unit


# Reading


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


def reading(
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


# Rows


class Place(NamedTuple):
    """A row, the tile that it is in (None: under no adapter), whether that is new."""

    row: int
    tile: int | None
    fresh: bool


class Places:
    """Which rows are free, and which tiles hold whose adapter.

    Rows and tiles of one shard are neighbours; a row's tile is of its own shard.
    """

    def __init__(self, rows: int, tiles: int, per_tile: int, shards: int = 1):
        self.rows, self.tiles, self.shards = rows, tiles, shards
        self._per_tile = per_tile
        self._free = [list(_shard(rows, shards, s))[::-1] for s in range(shards)]
        self._unused = [list(_shard(tiles, shards, s))[::-1] for s in range(shards)]
        self._held: dict[int, list[int]] = {}  # rows of each tile in use
        self._adapter: dict[int, int] = {}  # of each tile in use
        self._open: dict[int, set[int]] = {}  # an adapter's tiles with places left
        self._tile: dict[int, int | None] = {}  # of each row in use

    @property
    def free(self) -> int:
        """Rows that nothing is in."""
        return sum(map(len, self._free))

    def enter(self, adapter: int) -> Place | None:
        """A free row under the adapter, or None while there is none."""
        shards = [s for s in range(self.shards) if self._free[s]]
        shards.sort(key=lambda s: -len(self._free[s]))
        if not shards:
            return None
        if adapter == NO_ADAPTER or not self.tiles:
            return self._take(shards[0], None, fresh=False)
        opened = sorted(self._open.get(adapter, ()))
        for tile in opened:
            shard = self._shard_of(tile)
            if shard in shards:
                return self._take(shard, tile, fresh=False)
        for shard in shards:
            if self._unused[shard]:
                tile = self._unused[shard].pop()
                self._held[tile], self._adapter[tile] = [], adapter
                self._open.setdefault(adapter, set()).add(tile)
                return self._take(shard, tile, fresh=True)
        return None

    def _shard_of(self, tile: int) -> int:
        return tile // (self.tiles // self.shards)

    def _take(self, shard: int, tile: int | None, *, fresh: bool) -> Place:
        row = self._free[shard].pop()
        self._tile[row] = tile
        if tile is not None:
            self._held[tile].append(row)
            if len(self._held[tile]) == self._per_tile:
                self._open[self._adapter[tile]].discard(tile)
        return Place(row, tile, fresh)

    def leave(self, row: int) -> None:
        """The row is free again; so is its tile, if no other is in it."""
        tile = self._tile.pop(row)
        self._free[row // (self.rows // self.shards)].append(row)
        if tile is None:
            return
        self._held[tile].remove(row)
        adapter = self._adapter[tile]
        self._open[adapter].add(tile)
        if not self._held[tile]:
            self._open[adapter].discard(tile)
            del self._held[tile], self._adapter[tile]
            self._unused[self._shard_of(tile)].append(tile)

    def members(self) -> np.ndarray:
        """Rows in each tile, `[shards, tiles of one, per_tile]`, counted in the shard.

        Where there is none, one past the shard's last.
        """
        own = self.rows // self.shards
        found = np.full((self.tiles, self._per_tile), own, np.int32)
        for tile, held in self._held.items():
            found[tile, : len(held)] = [row % own for row in held]
        return found.reshape(self.shards, -1, self._per_tile)

    def moved(self, rows: int, tiles: int) -> tuple["Places", list[int], list[int]]:
        """All that goes on in fewer rows and tiles, each shard's in its own.

        Returns:
          The new places; which old row each new one was, and which old tile each new
          tile. What is left free was some old one that does not go on.
        """
        new = Places(rows, tiles, self._per_tile, self.shards)
        from_row, from_tile = [], []
        for shard in range(self.shards):
            own = _shard(self.rows, self.shards, shard)
            busy = [row for row in own if row in self._tile]
            idle = [row for row in own if row not in self._tile]
            from_row += (busy + idle)[: rows // self.shards]
            held = sorted(
                _shard(self.tiles, self.shards, shard),
                key=lambda tile: tile not in self._held,
            )
            from_tile += held[: tiles // self.shards]
        to_tile = {old: at for at, old in enumerate(from_tile) if old in self._held}
        for old, at in to_tile.items():
            new._unused[new._shard_of(at)].remove(at)
            new._held[at], new._adapter[at] = [], self._adapter[old]
            new._open.setdefault(self._adapter[old], set()).add(at)
        for at, old in enumerate(from_row):
            if old in self._tile:
                tile = self._tile[old]
                shard = at // (rows // self.shards)
                new._free[shard].remove(at)
                new._free[shard].append(at)  # the next to be taken
                new._take(shard, None if tile is None else to_tile[tile], fresh=False)
        return new, from_row, from_tile


def _shard(count: int, shards: int, shard: int) -> range:
    own = count // shards
    return range(shard * own, (shard + 1) * own)


# The loop


class Entry(NamedTuple):
    """A request that takes a row: it continues prompt `source` of those read last."""

    request: int
    source: int
    adapter: int
    place: Place


class Device(Protocol):
    """What reads and decodes. `members` are those of `Places`, as they are then."""

    def read(self, prompts: Sequence[Prompt], spans: Sequence[Span]) -> None:
        """Reads prompts, in the place of those before."""

    def admit(self, entries: Sequence[Entry], members: np.ndarray) -> None:
        """Puts requests into their rows, and draws their first tokens."""

    def decode(self, until: int, most: int) -> tuple[int, np.ndarray]:
        """Goes on until so many rows are done, or for so many steps.

        Rows that nothing is in are done. Returns the steps, and of each row whether it
        is done, bool `[rows]`.
        """
        ...

    def collect(self, ended: Mapping[int, int]) -> None:
        """Keeps the texts of rows, each a request's."""

    def move(
        self, from_row: Sequence[int], from_tile: Sequence[int], members: np.ndarray
    ) -> None:
        """Goes on with these rows and tiles alone."""


class _Busy(NamedTuple):
    request: int
    since: int  # steps taken before


class Queue:
    """Requests that wait, in the order of their prompts, which are read when needed."""

    def __init__(self, prompts: Iterable[Prompt], device: Device, sizes: Sizes):
        self._unread, self._device, self._sizes = list(prompts), device, sizes
        self._ready: deque[tuple[int, int, int]] = deque()
        self._count = sum(len(prompt.requests) for prompt in self._unread)

    def __len__(self) -> int:
        return self._count

    def enter(self, places: Places) -> list[Entry]:
        """Gives up to `entering` requests their rows; all of one reading."""
        if not self._ready:
            self._read()
        entries = list[Entry]()
        while self._ready and len(entries) < self._sizes.entering:
            source, request, adapter = self._ready[0]
            place = places.enter(adapter)
            if place is None:
                break
            self._ready.popleft()
            entries.append(Entry(request, source, adapter, place))
        self._count -= len(entries)
        return entries

    def _read(self) -> None:
        sizes = self._sizes
        spans = pack(
            (len(prompt.ids) for prompt in self._unread),
            rows=sizes.reading,
            width=sizes.width,
            tile=sizes.tile,
            most=sizes.prompts,
        )
        chosen = [self._unread[index] for index in spans]
        self._unread = [p for i, p in enumerate(self._unread) if i not in spans]
        self._device.read(chosen, [*spans.values()])
        self._ready.extend(
            (source, request, prompt.adapter)
            for source, prompt in enumerate(chosen)
            for request in prompt.requests
        )


def run(
    prompts: Sequence[Prompt],
    device: Device,
    sizes: Sizes,
    *,
    most: int,
    tick: Callable[[int], None] = lambda count: None,
) -> int:
    """Continues all requests of the prompts; returns the steps of decoding.

    Args:
      prompts: of `distinct`.
      device: what reads and decodes.
      sizes: what it is made for.
      most: tokens that a text can have.
      tick: told how many requests have finished, whenever some have.
    """
    queue = Queue(prompts, device, sizes)
    places = Places(sizes.rows, sizes.tiles, sizes.per_tile, sizes.shards)
    busy, steps = dict[int, _Busy](), 0
    while queue or busy:
        interrupts.check()
        enough = places.free >= min(sizes.entering, len(queue))
        while enough and queue and places.free:
            entries = queue.enter(places)
            if not entries:
                break  # All tiles hold other adapters.
            device.admit(entries, places.members())
            busy |= {e.place.row: _Busy(e.request, steps) for e in entries}
        wanted = min(sizes.entering, len(queue))
        if not queue:
            fewer = _fewer(sizes, places, busy, steps, most)
            if fewer is not None and _fits(places, busy, fewer):
                places, busy = _moved(places, busy, device, fewer)
                continue
            wanted = len(busy) - (0 if fewer is None else fewer)
        # One at least, so that it goes on where a shard has more rows than its share.
        until = places.rows - len(busy) + min(max(wanted, 1), len(busy))
        taken, done = device.decode(until, STEPS)
        steps += taken
        ended = {row: was.request for row, was in busy.items() if done[row]}
        if ended:
            device.collect(ended)
            for row in ended:
                places.leave(row)
                del busy[row]
            tick(len(ended))
    return steps


def _fewer(
    sizes: Sizes, places: Places, busy: Mapping[int, _Busy], steps: int, most: int
) -> int | None:
    """The least of `SHRUNK` rows that hold what goes on, else the next to wait for.

    None if there are no fewer, or no text can last long enough.
    """
    last = max((was.since for was in busy.values()), default=0)
    if most - 1 - (steps - last) < WORTH_STEPS:
        return None
    ladder = [multiple(sizes.rows // share, sizes.shards) for share in SHRUNK]
    ladder = [rows for rows in ladder if rows < places.rows]
    fitting = [rows for rows in ladder if _fits(places, busy, rows)]
    return min(fitting) if fitting else max(ladder, default=None)


def _fits(places: Places, busy: Iterable[int], rows: int) -> bool:
    """Whether each shard's part of so many rows holds all that go on in it."""
    in_shard = Counter(row // (places.rows // places.shards) for row in busy)
    return max(in_shard.values(), default=0) <= rows // places.shards


def _moved(
    places: Places, busy: Mapping[int, _Busy], device: Device, rows: int
) -> tuple[Places, dict[int, _Busy]]:
    tiles = min(places.tiles, rows)
    new, from_row, from_tile = places.moved(rows, tiles)
    device.move(from_row, from_tile, new.members())
    return new, {at: busy[old] for at, old in enumerate(from_row) if old in busy}
