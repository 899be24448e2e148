"""Continuous decoding: prompts queue for pages of rows that decode together.

A page that finishes leaves and is refilled at once, so that a long text does not hold
up the short ones beside it. A prompt that is continued several times is read once, and
its keys are copied to every row that samples from it. Token ids in, token ids out.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from seal_jax.generation import sample
from seal_jax.models import decoder, lora
from seal_jax.runtime import interrupts, meshes, prng

NO_ADAPTER = -1

# Prompts are read, and pages refilled, an eighth of the pages at a time: few enough to
# wait for and to hold beside the cache, enough to fill the matmuls.
READ_SHARE = 8

# Steps on the device until the host looks again, if no page waits.
STEPS = 64


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to continue, under the adapter of that number in the stack."""

    prompt: tuple[int, ...]
    adapter: int = NO_ADAPTER


@dataclasses.dataclass(frozen=True)
class Generated:
    """The requests' tokens, without stop tokens, and what they took.

    `steps` of the device's loop, each for all rows; `prompt_tokens` that were read,
    those of a shared prompt once.
    """

    tokens: list[list[int]]
    steps: int
    prompt_tokens: int

    @property
    def new_tokens(self) -> int:
        return sum(map(len, self.tokens))


@dataclasses.dataclass(frozen=True)
class Group:
    """Prompts that are read as one page, and the pages of requests they serve."""

    adapter: int
    prompts: tuple[tuple[int, ...], ...]
    pages: tuple[tuple[int, ...], ...]

    @property
    def width(self) -> int:
        return max(map(len, self.prompts))


def shared(requests: Sequence[Request]) -> list[Group]:
    """Pages of one row: a group for each distinct prompt, with all that continue it."""
    asked: dict[Request, list[tuple[int, ...]]] = {}
    for i, request in enumerate(requests):
        if request.prompt:
            asked.setdefault(request, []).append((i,))
    return [Group(r.adapter, (r.prompt,), tuple(p)) for r, p in asked.items()]


def paged(requests: Sequence[Request], per_page: int) -> list[Group]:
    """Each adapter's requests in pages of up to `per_page` rows."""
    of_adapter: dict[int, list[int]] = {}
    for i, request in enumerate(requests):
        if request.prompt:
            of_adapter.setdefault(request.adapter, []).append(i)
    pages = [
        (adapter, tuple(indices[first : first + per_page]))
        for adapter, indices in of_adapter.items()
        for first in range(0, len(indices), per_page)
    ]
    return [Group(a, tuple(requests[i].prompt for i in p), (p,)) for a, p in pages]


class Waiting(NamedTuple):
    """A page of requests whose prompts are page `source` of those read last."""

    source: int
    adapter: int
    requests: tuple[int, ...]


class Queue:
    """Pages that wait, longest prompt first; prompts are read when they are needed."""

    def __init__(
        self,
        groups: Sequence[Group],
        read: Callable[[Sequence[Group]], sample.Prompts],
        *,
        at_a_time: int,
    ):
        self._groups = deque(sorted(groups, key=lambda group: -group.width))
        self._read = read
        self._at_a_time = at_a_time
        self._prompts: sample.Prompts | None = None
        self._ready: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self._ready) + sum(len(group.pages) for group in self._groups)

    def take(self, most: int) -> tuple[sample.Prompts, list[Waiting]]:
        """Up to `most` pages; what is left over of a reading is kept for the next."""
        if not self._ready:
            count = min(self._at_a_time, len(self._groups))
            chosen = [self._groups.popleft() for _ in range(count)]
            self._prompts = self._read(chosen)
            self._ready.extend(
                Waiting(source, group.adapter, page)
                for source, group in enumerate(chosen)
                for page in group.pages
            )
        assert self._prompts is not None
        count = min(most, len(self._ready))
        return self._prompts, [self._ready.popleft() for _ in range(count)]


class Sizes(NamedTuple):
    """What the device's programs are compiled for: `some` of the pages at a time."""

    pages: int
    per_page: int
    some: int
    width: int

    def column(self, values: Sequence[int], blank: int) -> np.ndarray:
        """A value for each of `some` pages, int32 `[some]`."""
        return np.array([*values, *[blank] * (self.some - len(values))], np.int32)

    def table(self, pages: Iterable[Sequence[int]]) -> np.ndarray:
        """A value for each row of them, int32 `[some, per_page]`; zeros elsewhere."""
        filled = np.zeros((self.some, self.per_page), np.int32)
        for row, page in zip(filled, pages, strict=False):
            row[: len(page)] = page
        return filled

    def prompts(self, groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens `[some, per_page, width]`, zeros to the right, and their lengths."""
        tokens = np.zeros((self.some, self.per_page, self.width), np.int32)
        for page, group in zip(tokens, groups, strict=False):
            for row, prompt in zip(page, group.prompts, strict=False):
                row[: len(prompt)] = prompt
        return tokens, self.table([list(map(len, g.prompts)) for g in groups])


def padded_width(lengths: Iterable[int], multiple: int) -> int:
    """The longest length, rounded up to a multiple."""
    return -(-max(lengths) // multiple) * multiple


@dataclasses.dataclass(frozen=True)
class Device:
    """The device's programs, with all that stays the same while requests pass."""

    params: dict
    adapters: lora.Tree | None
    keys: Array
    limits: np.ndarray | None
    arch: decoder.Arch
    cfg: sample.SampleConfig
    sizes: Sizes
    mesh: Mesh | None

    def read(self, groups: Sequence[Group]) -> sample.Prompts:
        slots = self.sizes.column([group.adapter for group in groups], NO_ADAPTER)
        pages = meshes.put((slots, *self.sizes.prompts(groups)), self.mesh, "data")
        return sample.prefill(self.params, self.adapters, *pages, arch=self.arch)

    def empty_rows(self) -> sample.Rows:
        return sample.empty_rows(
            self.adapters,
            prng.take(self.keys, 0),
            arch=self.arch,
            cfg=self.cfg,
            pages=self.sizes.pages,
            per_page=self.sizes.per_page,
            slots=self.sizes.width + self.cfg.max_tokens,
            mesh=self.mesh,
        )

    def admit(
        self, rows: sample.Rows, prompts: sample.Prompts, new: Mapping[int, Waiting]
    ) -> sample.Rows:
        """`new` has the place that each page takes."""
        column, pages = self.sizes.column, new.values()
        index = self.sizes.table([page.requests for page in pages])
        return sample.admit(
            rows,
            prompts,
            self.adapters,
            column([page.source for page in pages], 0),
            column([*new], self.sizes.pages),
            column([page.adapter for page in pages], NO_ADAPTER),
            meshes.put(prng.take(self.keys, index), self.mesh),
            None if self.limits is None else self.limits[index],
            arch=self.arch,
            cfg=self.cfg,
        )

    def decode(self, rows: sample.Rows, until: int) -> tuple[sample.Rows, int]:
        rows, steps = sample.decode(
            self.params, rows, until, STEPS, arch=self.arch, cfg=self.cfg
        )
        return rows, int(steps)


def run(
    params: dict,
    adapters: lora.Tree | None,
    requests: Sequence[Request],
    keys: Array,
    *,
    arch: decoder.Arch,
    cfg: sample.SampleConfig,
    batch: int,
    per_page: int,
    prompt_multiple: int,
    limits: Sequence[int] | None = None,
    tick: Callable[[int], None] = lambda count: None,
) -> Generated:
    """Continues every request; one without a prompt stays empty.

    A request's tokens depend on its prompt, its key and its adapter alone.

    Args:
      params: base parameters.
      adapters: stacked on A with their scale folded in, or None for the base alone.
      requests: what to continue.
      keys: typed PRNG keys, one per request.
      arch: the decoder.
      cfg: how to decode.
      batch: rows that decode together, about.
      per_page: rows of a page, all under one adapter (1 without adapters).
      prompt_multiple: prompts are padded to a multiple of it, which bounds the number
        of compiled shapes.
      limits: after how many tokens each request ends, as if it drew a stop token then,
        for those that `cfg` does not end before.
      tick: told how many requests have finished, whenever some have.
    """
    if adapters is None:
        per_page, groups = 1, shared(requests)
    else:
        groups = paged(requests, per_page)
    out: list[list[int]] = [[] for _ in requests]
    tick(sum(not request.prompt for request in requests))
    if not groups:
        return Generated(out, steps=0, prompt_tokens=0)
    # On a mesh every device has as many pages as the others.
    mesh = meshes.holding(params)
    pages = _multiple(batch // per_page, meshes.shards(mesh))
    width = padded_width((group.width for group in groups), prompt_multiple)
    some = _multiple(pages // READ_SHARE, meshes.shards(mesh))
    sizes = Sizes(pages, per_page, some, width)

    most = None if limits is None else np.array(limits, np.int32)
    device = Device(params, adapters, keys, most, arch, cfg, sizes, mesh)
    queue = Queue(groups, device.read, at_a_time=sizes.some)
    rows, steps = device.empty_rows(), 0
    free, busy = list(range(pages)), dict[int, Waiting]()
    while queue or busy:
        interrupts.check()
        while queue and free:
            prompts, entering = queue.take(min(sizes.some, len(free)))
            new = {free.pop(): page for page in entering}
            rows = device.admit(rows, prompts, new)
            busy |= new
        until = min(sizes.some, len(queue)) if queue else pages
        rows, taken = device.decode(rows, until)
        steps += taken
        left = _leave(rows, busy, out, mesh)
        tick(sum(len(busy.pop(place).requests) for place in left))
        free += left
    return Generated(out, steps, sum(len(p) for g in groups for p in g.prompts))


def _multiple(count: int, unit: int) -> int:
    """`count`, rounded up to a positive multiple."""
    return max(1, -(-count // unit)) * unit


def _leave(
    rows: sample.Rows,
    busy: dict[int, Waiting],
    out: list[list[int]],
    mesh: Mesh | None,
) -> list[int]:
    """Copies the texts of finished pages to `out`; returns their places."""
    wanted = (rows.done_GQ, rows.count_GQ, rows.out_GQN)
    if mesh is not None:
        wanted = meshes.gather(wanted, mesh)
    done_GQ, count_GQ, out_GQN = jax.device_get(wanted)
    left = [place for place in busy if done_GQ[place].all()]
    for place in left:
        for q, request in enumerate(busy[place].requests):
            out[request] = out_GQN[place, q, : count_GQ[place, q]].tolist()
    return left


def log_likelihoods(
    params: dict,
    adapters: lora.Tree | None,
    requests: Sequence[Request],
    given: Sequence[int],
    *,
    arch: decoder.Arch,
    batch: int,
    per_page: int,
    prompt_multiple: int,
) -> list[float]:
    """Each prompt's log-probability (nats), its first `given` tokens being given.

    Args:
      params, adapters, arch, batch, per_page, prompt_multiple: as in `run`.
      requests: prompts with what continues them.
      given: one per request, at least 1.
    """
    groups = sorted(paged(requests, per_page), key=lambda group: -group.width)
    mesh = meshes.holding(params)
    some = _multiple(batch // per_page, meshes.shards(mesh))
    out = [0.0] * len(requests)
    for first in range(0, len(groups), some):
        interrupts.check()
        chosen = groups[first : first + some]
        width = padded_width((group.width for group in groups), prompt_multiple)
        sizes = Sizes(some, per_page, some, width)
        tokens, lengths = sizes.prompts(chosen)
        starts = sizes.table([[given[i] for i in group.pages[0]] for group in chosen])
        at = np.arange(width)
        scored = (at >= starts[..., None]) & (at < lengths[..., None])
        slots = sizes.column([group.adapter for group in chosen], NO_ADAPTER)
        pages = meshes.put((slots, tokens, scored, lengths), mesh, "data")
        total_GQ = sample.log_likelihood(params, adapters, *pages, arch=arch)
        if mesh is not None:
            total_GQ = meshes.gather(total_GQ, mesh)
        for group, sums in zip(chosen, np.asarray(total_GQ), strict=False):
            for request, value in zip(group.pages[0], sums, strict=False):
                out[request] = float(value)
    return out
