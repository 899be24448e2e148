"""Which text decodes in which row, and when: decided on the host, without a device.

Prompts wait; a few at a time are read, packed side by side in rows of tokens. Every
request takes a row of the cache of its own, and leaves it when its text has ended: the
row is free at once, whatever its neighbours do. A few rows under one adapter, wherever
they are, share a copy of it: they are a page. When no prompt waits any more and most
rows are free, those that go on move together into fewer.

What runs on the device stands behind `Device`; a simulation takes its place where only
occupancy is asked for.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from seal_jax.generation import side_by_side
from seal_jax.generation.places import Place, Places
from seal_jax.generation.side_by_side import Prompt, Span
from seal_jax.runtime import interrupts

# An eighth of the rows as many rows of prompts are read at a time, up to four prompts
# in each: few enough to wait for and to hold beside the cache, enough to fill the
# matmuls. A sixteenth of the rows is refilled at a time.
READ_SHARE = 8
PROMPTS_PER_ROW = 4
ENTER_SHARE = 16

# Adapters' pages have so many times as many places as there are rows, where rows are
# refilled: those of a page end one after the other, and more than half of its places
# are empty on average.
SPARE = 2.5

# Steps on the device until the host looks again, if no prompt waits.
STEPS = 64

# The fewer rows that the last texts move to, as shares of all; a program for each. They
# are worth it only if a text may go on for a while.
SHRUNK = (2, 8, 32)
WORTH_STEPS = 64


class Sizes(NamedTuple):
    """What the device's programs are made for.

    `rows` decode together; up to `per_page` under one adapter share its copy, one of
    `pages`; `entering` are refilled at a time. `reading` rows of `width` tokens, cut
    into tiles of `tile`, take up to `prompts` prompts at a time, none longer than
    `longest`. Rows, pages and `reading` are multiples of `shards`, the devices that
    share the rows.
    """

    rows: int
    pages: int
    per_page: int
    entering: int
    reading: int
    width: int
    tile: int
    prompts: int
    longest: int
    shards: int


def sizes(
    prompts: Sequence[Prompt],
    *,
    adapters: int,
    batch: int,
    per_page: int,
    prompt_multiple: int,
    room: int = 0,
    shards: int = 1,
) -> Sizes:
    """The sizes for about `batch` rows, however many prompts there are.

    Args:
      prompts: what there is to read, at least one.
      adapters: in the stack.
      batch: rows that decode together, about.
      per_page: rows that share a copy of their adapter.
      prompt_multiple: rows of prompts are as wide as a multiple of it, which bounds the
        number of compiled shapes.
      room: tokens of a prompt there is room for at least, though none is as long.
      shards: devices that share the rows.
    """
    rows = side_by_side.multiple(batch, shards)
    at_once = side_by_side.multiple(rows // READ_SHARE, shards)
    longest = max(room, *(len(p.ids) for p in prompts))
    longest = side_by_side.multiple(longest, prompt_multiple)
    # Texts in view, which are long, are read without an adapter.
    under = [len(p.ids) for p in prompts if p.adapter != side_by_side.NO_ADAPTER]
    tile = 1
    if under:
        whole = side_by_side.multiple(max(under), prompt_multiple)
        tile = side_by_side.tile_of(whole)
    reading, width = side_by_side.sheet(
        at_once, side_by_side.multiple(longest, tile), shards
    )
    return Sizes(
        rows=rows,
        pages=_pages(adapters, rows, per_page, shards) if under else 0,
        per_page=per_page,
        entering=max(1, rows // ENTER_SHARE),
        reading=reading,
        width=width,
        tile=tile,
        prompts=PROMPTS_PER_ROW * at_once,
        longest=longest,
        shards=shards,
    )


def _pages(adapters: int, rows: int, per_page: int, shards: int) -> int:
    """As many as the rows fill; `SPARE` times that if not all adapters find theirs."""
    least = side_by_side.multiple(-(-rows // per_page), shards)
    most = side_by_side.multiple(math.ceil(SPARE * rows / per_page), shards)
    return least if adapters <= least else most


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
        self, from_row: Sequence[int], from_page: Sequence[int], members: np.ndarray
    ) -> None:
        """Goes on with these rows and pages alone."""


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
        spans = side_by_side.pack(
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
    places = Places(sizes.rows, sizes.pages, sizes.per_page, sizes.shards)
    busy, steps = dict[int, _Busy](), 0
    while queue or busy:
        interrupts.check()
        enough = places.free >= min(sizes.entering, len(queue))
        while enough and queue and places.free:
            entries = queue.enter(places)
            if not entries:
                break  # All pages hold other adapters.
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
    ladder = [
        side_by_side.multiple(sizes.rows // share, sizes.shards) for share in SHRUNK
    ]
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
    pages = min(places.pages, rows)
    new, from_row, from_page = places.moved(rows, pages)
    device.move(from_row, from_page, new.members())
    return new, {at: busy[old] for at, old in enumerate(from_row) if old in busy}
