"""Continuous decoding: prompts wait for rows that decode together.

A row whose text has ended is refilled at once, so that a long text does not hold up the
short ones beside it. A prompt that is continued several times is read once, and its
keys are copied to every row that samples from it. Token ids in, token ids out. What
goes where, and when, is decided by `schedule`; here it is done.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from seal_jax.generation import sample, schedule, side_by_side
from seal_jax.generation.side_by_side import NO_ADAPTER, Request
from seal_jax.models import decoder, lora
from seal_jax.runtime import compiling, interrupts, meshes, prng


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


class Device:
    """The device's programs, with all that stays the same while requests pass."""

    def __init__(
        self,
        params: dict,
        adapters: lora.Tree | None,
        keys: Array,
        limits: Sequence[int],
        out: list[list[int]],
        *,
        arch: decoder.Arch,
        cfg: sample.SampleConfig,
        sizes: schedule.Sizes,
        mesh: Mesh | None,
        call: compiling.Call = compiling.run,
    ):
        self._call = call
        self._params, self._adapters, self._keys = params, adapters, keys
        self._limits, self._out = np.array(limits, np.int32), out
        self._written: list[np.ndarray] = []
        self._arch, self._cfg, self._sizes, self._mesh = arch, cfg, sizes, mesh
        self._prompts: sample.Prompts | None = None
        self._own_pages = sizes.pages // sizes.shards
        self._rows: sample.Rows = call(
            sample.empty_rows,
            adapters,
            arch=arch,
            cfg=cfg,
            rows=sizes.rows,
            slots=sizes.longest + cfg.max_tokens,
            pages=(sizes.shards, self._own_pages, sizes.per_page),
            mesh=mesh,
        )

    def read(
        self, prompts: Sequence[side_by_side.Prompt], spans: Sequence[side_by_side.Span]
    ) -> None:
        sizes = self._sizes
        read = side_by_side.lay_out(
            [(prompt.ids, prompt.adapter) for prompt in prompts],
            spans,
            rows=sizes.reading,
            width=sizes.width,
            tile=sizes.tile,
        )
        arrays = (read.slots_G, read.tokens_PT, read.start_PT)
        columns = zip(*spans, strict=True)
        where = tuple(_column(column, sizes.prompts, 0) for column in columns)
        self._prompts = self._call(
            sample.prefill,
            self._params,
            self._adapters,
            *meshes.put(arrays, self._mesh, "data"),
            meshes.put(where, self._mesh),
            arch=self._arch,
        )

    def admit(self, entries: Sequence[schedule.Entry], members: np.ndarray) -> None:
        assert self._prompts is not None  # Prompts are read before they are continued.
        size = self._sizes.entering
        fresh = [entry for entry in entries if entry.place.fresh]
        # A page that is not new is none of theirs; past the last, it is left alone.
        requests = _column([e.request for e in entries], size, 0)
        entering = sample.Entering(
            source_E=_column([e.source for e in entries], size, 0),
            row_E=_column([e.place.row for e in entries], size, self._sizes.rows),
            page_E=_column(
                [e.place.page for e in fresh if e.place.page is not None],
                size,
                self._sizes.pages,
            ),
            slot_E=_column([e.adapter for e in fresh], size, NO_ADAPTER),
            keys_E=meshes.put(prng.take(self._keys, requests), self._mesh),
            limit_E=self._limits[requests],
            members_CGQ=members,
        )
        self._rows = self._call(
            sample.admit,
            self._rows,
            self._prompts,
            self._adapters,
            entering,
            arch=self._arch,
            cfg=self._cfg,
            mesh=self._mesh,
        )

    def decode(self, until: int, most: int) -> tuple[int, np.ndarray]:
        steps = self._go_on(until, most)
        wanted = (self._rows.done_B, self._rows.count_B, self._rows.out_BN)
        if self._mesh is not None:
            wanted = meshes.gather(wanted, self._mesh)
        done_B, *self._written = jax.device_get(wanted)
        return int(steps), done_B

    def _go_on(self, until: int, most: int) -> Array:
        self._rows, steps = self._call(
            sample.decode,
            self._params,
            self._rows,
            until,
            most,
            arch=self._arch,
            cfg=self._cfg,
        )
        return steps

    def collect(self, ended: Mapping[int, int]) -> None:
        count_B, out_BN = self._written
        for row, request in ended.items():
            self._out[request] = out_BN[row, : count_B[row]].tolist()

    def move(
        self, from_row: Sequence[int], from_page: Sequence[int], members: np.ndarray
    ) -> None:
        shards, rows = self._sizes.shards, len(self._rows.done_B)
        own_rows = np.array(from_row, np.int32).reshape(shards, -1) % (rows // shards)
        own_pages = np.array(from_page, np.int32).reshape(shards, -1)
        own_pages %= max(1, self._own_pages)
        self._own_pages = own_pages.shape[1]
        self._rows = self._call(
            sample.move, self._rows, own_rows, own_pages, members, mesh=self._mesh
        )


class _Expected(Device):
    """The programs up to the first that decodes: what texts are like shows after it."""

    class ReachedError(Exception):
        """That one is there."""

    def decode(self, until: int, most: int) -> tuple[int, np.ndarray]:
        self._go_on(until, most)
        raise self.ReachedError


def _column(values: Sequence[int], size: int, blank: int) -> np.ndarray:
    """So many values, int32 `[size]`, blanks at the end."""
    return np.array([*values, *[blank] * (size - len(values))], np.int32)


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
    room: int = 0,
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
      per_page: rows under one adapter that share a copy of it.
      prompt_multiple: prompts are padded to a multiple of it, which bounds the number
        of compiled shapes.
      room: tokens of a prompt there is room for at least: calls that say the same
        share programs, though the longest prompt of one is shorter.
      limits: after how many tokens each request ends, as if it drew a stop token then,
        for those that `cfg` does not end before.
      tick: told how many requests have finished, whenever some have.
    """
    stacked = 0 if adapters is None else len(jax.tree.leaves(adapters)[0])
    prompts = side_by_side.distinct(requests, stacked)
    out: list[list[int]] = [[] for _ in requests]
    tick(sum(not request.prompt for request in requests))
    if not prompts:
        return Generated(out, steps=0, prompt_tokens=0)
    # On a mesh every device has as many rows as the others.
    mesh = meshes.holding(params)
    sizes = schedule.sizes(
        prompts,
        adapters=stacked,
        batch=batch,
        per_page=per_page,
        prompt_multiple=prompt_multiple,
        room=room,
        shards=meshes.shards(mesh),
    )
    device = Device(
        params,
        adapters if sizes.pages else None,
        keys,
        [cfg.max_tokens] * len(requests) if limits is None else limits,
        out,
        arch=arch,
        cfg=cfg,
        sizes=sizes,
        mesh=mesh,
    )
    steps = schedule.run(prompts, device, sizes, most=cfg.max_tokens, tick=tick)
    return Generated(out, steps, sum(len(prompt.ids) for prompt in prompts))


def expect(
    params: dict,
    adapters: lora.Tree | None,
    requests: Sequence[Request],
    *,
    arch: decoder.Arch,
    cfg: sample.SampleConfig,
    batch: int,
    per_page: int,
    prompt_multiple: int,
    room: int = 0,
    call: compiling.Call,
) -> None:
    """Calls the programs that `run` begins with, on one device, by `call`.

    Args:
      params, adapters: their shapes are enough.
      requests, arch, cfg, batch, per_page, prompt_multiple, room: as of `run`.
      call: what compiles them.
    """
    stacked = 0 if adapters is None else len(jax.tree.leaves(adapters)[0])
    prompts = side_by_side.distinct(requests, stacked)
    if not prompts:
        return
    sizes = schedule.sizes(
        prompts,
        adapters=stacked,
        batch=batch,
        per_page=per_page,
        prompt_multiple=prompt_multiple,
        room=room,
    )
    device = _Expected(
        params,
        adapters if sizes.pages else None,
        prng.many(len(requests)),
        [cfg.max_tokens] * len(requests),
        [],
        arch=arch,
        cfg=cfg,
        sizes=sizes,
        mesh=None,
        call=call,
    )
    with contextlib.suppress(_Expected.ReachedError):
        schedule.run(prompts, device, sizes, most=cfg.max_tokens)


def log_likelihoods(
    params: dict,
    adapters: lora.Tree | None,
    requests: Sequence[Request],
    given: Sequence[int],
    *,
    arch: decoder.Arch,
    batch: int,
    prompt_multiple: int,
    room: int = 0,
) -> list[float]:
    """Each prompt's log-probability (nats), its first `given` tokens being given.

    Args:
      params, adapters, arch, batch, prompt_multiple: as in `run`.
      requests: prompts with what continues them.
      given: one per request, at least 1.
      room: tokens of a row at least, so that calls share a program.
    """
    out = [0.0] * len(requests)
    # Longest first: short ones fill what those leave of their rows.
    left = [i for i, request in enumerate(requests) if request.prompt]
    left.sort(key=lambda i: -len(requests[i].prompt))
    longest = max((len(requests[i].prompt) for i in left), default=0)
    mesh = meshes.holding(params)
    shards, longest = meshes.shards(mesh), max(longest, room)
    whole = side_by_side.multiple(longest, prompt_multiple)
    tile = 1 if adapters is None else side_by_side.tile_of(whole)
    rows, width = _sheet(longest, batch, prompt_multiple, tile, shards)
    while left:
        interrupts.check()
        lengths = [len(requests[i].prompt) for i in left]
        spans = side_by_side.pack(
            lengths, rows=rows, width=width, tile=tile, most=len(left)
        )
        chosen = [left[at] for at in spans]
        read = side_by_side.lay_out(
            [(requests[i].prompt, requests[i].adapter) for i in chosen],
            [*spans.values()],
            rows=rows,
            width=width,
            tile=tile,
        )
        arrays = (read.slots_G, read.tokens_PT, read.start_PT)
        arrays = meshes.put(arrays, mesh, "data")
        given_before_PT = sample.log_likelihood(params, adapters, *arrays, arch=arch)
        if mesh is not None:
            given_before_PT = meshes.gather(given_before_PT, mesh)
        table = np.asarray(given_before_PT, np.float64)
        for i, (row, first, length) in zip(chosen, spans.values(), strict=True):
            out[i] = float(table[row, first + given[i] : first + length].sum())
        left = [i for at, i in enumerate(left) if at not in spans]
    return out


def expect_log_likelihoods(
    params: dict,
    *,
    arch: decoder.Arch,
    batch: int,
    prompt_multiple: int,
    room: int,
    call: compiling.Call,
) -> None:
    """Calls the program of `log_likelihoods` without adapters, on one device.

    Args:
      params: their shapes are enough.
      arch, batch, prompt_multiple, room: as of `log_likelihoods`.
      call: what compiles it.
    """
    rows, width = _sheet(room, batch, prompt_multiple, 1, 1)
    read = side_by_side.lay_out([], [], rows=rows, width=width, tile=1)
    arrays = (read.slots_G, read.tokens_PT, read.start_PT)
    call(sample.log_likelihood, params, None, *arrays, arch=arch)


def _sheet(
    longest: int, batch: int, prompt_multiple: int, tile: int, shards: int
) -> tuple[int, int]:
    """Rows and their width, of lines that are read whole."""
    return side_by_side.sheet(
        side_by_side.multiple(batch, shards),
        side_by_side.multiple(side_by_side.multiple(longest, prompt_multiple), tile),
        shards,
    )
