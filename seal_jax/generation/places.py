"""Rows that decode, and the pages of those that share a copy of an adapter.

Host only.
"""

from typing import NamedTuple

import numpy as np

from seal_jax.generation.side_by_side import NO_ADAPTER


class Place(NamedTuple):
    """A row, the page that it is in (None: under no adapter), whether that is new."""

    row: int
    page: int | None
    fresh: bool


class Places:
    """Which rows are free, and which pages hold whose adapter.

    Rows and pages of one shard are neighbours; a row's page is of its own shard.
    """

    def __init__(self, rows: int, pages: int, per_page: int, shards: int = 1):
        self.rows, self.pages, self.shards = rows, pages, shards
        self._per_page = per_page
        self._free = [list(_shard(rows, shards, s))[::-1] for s in range(shards)]
        self._unused = [list(_shard(pages, shards, s))[::-1] for s in range(shards)]
        self._held: dict[int, list[int]] = {}  # rows of each page in use
        self._adapter: dict[int, int] = {}  # of each page in use
        self._open: dict[int, set[int]] = {}  # an adapter's pages with places left
        self._page: dict[int, int | None] = {}  # of each row in use

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
        if adapter == NO_ADAPTER or not self.pages:
            return self._take(shards[0], None, fresh=False)
        opened = sorted(self._open.get(adapter, ()))
        for page in opened:
            shard = self._shard_of(page)
            if shard in shards:
                return self._take(shard, page, fresh=False)
        for shard in shards:
            if self._unused[shard]:
                page = self._unused[shard].pop()
                self._held[page], self._adapter[page] = [], adapter
                self._open.setdefault(adapter, set()).add(page)
                return self._take(shard, page, fresh=True)
        return None

    def _shard_of(self, page: int) -> int:
        return page // (self.pages // self.shards)

    def _take(self, shard: int, page: int | None, *, fresh: bool) -> Place:
        row = self._free[shard].pop()
        self._page[row] = page
        if page is not None:
            self._held[page].append(row)
            if len(self._held[page]) == self._per_page:
                self._open[self._adapter[page]].discard(page)
        return Place(row, page, fresh)

    def leave(self, row: int) -> None:
        """The row is free again; so is its page, if no other is in it."""
        page = self._page.pop(row)
        self._free[row // (self.rows // self.shards)].append(row)
        if page is None:
            return
        self._held[page].remove(row)
        adapter = self._adapter[page]
        self._open[adapter].add(page)
        if not self._held[page]:
            self._open[adapter].discard(page)
            del self._held[page], self._adapter[page]
            self._unused[self._shard_of(page)].append(page)

    def members(self) -> np.ndarray:
        """Rows in each page, `[shards, pages of one, per_page]`, counted in the shard.

        Where there is none, one past the shard's last.
        """
        own = self.rows // self.shards
        found = np.full((self.pages, self._per_page), own, np.int32)
        for page, held in self._held.items():
            found[page, : len(held)] = [row % own for row in held]
        return found.reshape(self.shards, -1, self._per_page)

    def moved(self, rows: int, pages: int) -> tuple["Places", list[int], list[int]]:
        """All that goes on in fewer rows and pages, each shard's in its own.

        Returns:
          The new places; which old row each new one was, and which old page each new
          page. What is left free was some old one that does not go on.
        """
        new = Places(rows, pages, self._per_page, self.shards)
        from_row, from_page = [], []
        for shard in range(self.shards):
            own = _shard(self.rows, self.shards, shard)
            busy = [row for row in own if row in self._page]
            idle = [row for row in own if row not in self._page]
            from_row += (busy + idle)[: rows // self.shards]
            held = sorted(
                _shard(self.pages, self.shards, shard),
                key=lambda page: page not in self._held,
            )
            from_page += held[: pages // self.shards]
        to_page = {old: at for at, old in enumerate(from_page) if old in self._held}
        for old, at in to_page.items():
            new._unused[new._shard_of(at)].remove(at)
            new._held[at], new._adapter[at] = [], self._adapter[old]
            new._open.setdefault(self._adapter[old], set()).add(at)
        for at, old in enumerate(from_row):
            if old in self._page:
                page = self._page[old]
                shard = at // (rows // self.shards)
                new._free[shard].remove(at)
                new._free[shard].append(at)  # the next to be taken
                new._take(shard, None if page is None else to_page[page], fresh=False)
        return new, from_row, from_page


def _shard(count: int, shards: int, shard: int) -> range:
    own = count // shards
    return range(shard * own, (shard + 1) * own)
