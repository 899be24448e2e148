"""The bank: what teachers predict, as hidden states that stay on the device.

A teacher is the frozen base, or the model as it was before this edit, with more in view
than the line it teaches; it has no adapter, so it can be read once, before training.
What it predicts is kept as its hidden state after the final norm, a row of the bank for
each target: with the shared head that is its distribution over the whole vocabulary.
Seeds, epochs and jobs with the same teacher share rows.
"""

import functools
import heapq
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from seal_jax.models import decoder, float8_base, key_ranges, lora, placement
from seal_jax.runtime import interrupts, meshes
from seal_jax.training import inner, plan
from seal_jax.training.inner import EngineConfig


class Reading(NamedTuple):
    """A text that a teacher reads: token ids, and which positions go into the bank.

    `row` is the first of those in the bank; `frozen` that of the stacks it is read on,
    or None for the base alone.
    """

    ids: tuple[int, ...]
    positions: range
    row: int
    frozen: int | None


class Shelves(NamedTuple):
    """What is where in the bank of one shard.

    `of_jobs`: for each job, the first row of each of its lines' teachers.
    """

    readings: list[Reading]
    of_jobs: list[list[int]]


def rows(cfg: EngineConfig) -> int:
    """Rows of the bank on each shard: a zero row, that of no teacher, and the rest."""
    return 1 + cfg.bank * cfg.pool


def shelve(
    jobs: Sequence[plan.Job], cfg: EngineConfig, frozen_of: Sequence[int] | None = None
) -> Shelves:
    """Gives every distinct teacher of a shard's jobs its rows.

    Args:
      jobs: the shard's.
      cfg: sizes.
      frozen_of: the row of the frozen stacks that each job's teachers are read on; None
        for the base alone.

    Raises:
      ValueError: more teacher targets than the bank has rows.
    """
    shelved: dict[tuple, int] = {}
    readings, of_jobs, row = [], [], 1
    for j, job in enumerate(jobs):
        own = []
        frozen = None if frozen_of is None else frozen_of[j]
        for one in job.taught:
            key = (one, frozen)
            if one is not None and key not in shelved:
                shelved[key] = row
                ids = tuple(one.ids[: one.positions.stop])
                readings.append(Reading(ids, one.positions, row, frozen))
                row += one.targets
            own.append(0 if one is None else shelved[key])
        of_jobs.append(own)
    if row > rows(cfg):
        raise ValueError(
            f"the teachers of {len(jobs)} jobs predict {row - 1} distinct targets, "
            f"bank={cfg.bank} for each of inner.pool={cfg.pool} adapters holds "
            f"{rows(cfg) - 1}; use inner.teach.tokens (bank)="
            f"{-(-(row - 1) // cfg.pool)}, or a smaller pool"
        )
    return Shelves(readings, of_jobs)


def shared(
    jobs: Sequence[plan.Job],
    shares: Sequence[Sequence[int]],
    cfg: EngineConfig,
    *,
    frozen_of: Sequence[int] | None = None,
) -> tuple[list[Shelves], list[list[int]]]:
    """The shelves of each shard, whose jobs are `shares`; and `of_jobs` of all jobs.

    Raises:
      ValueError: see `shelve`.
    """
    shelves, of_jobs = [], [[] for _ in jobs]
    for share in shares:
        of = None if frozen_of is None else [frozen_of[j] for j in share]
        made = shelve([jobs[j] for j in share], cfg, of)
        shelves.append(made)
        for j, own in zip(share, made.of_jobs, strict=True):
            of_jobs[j] = own
    return shelves, of_jobs


class Calls(NamedTuple):
    """Arrays of one call of `program`, numpy.

    Rows `[B, T]`: `tokens`, `positions`, `segments` (-1: none); `[B]`: `stacks`, the
    frozen stack (beyond the last: none). Rows of the bank `[U]`: `source`, the position
    of the call, counted through its rows, or -1 where the bank's row stays.
    """

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    stacks: np.ndarray
    source: np.ndarray


def width(reading: Reading, cfg: EngineConfig) -> int:
    """Positions of the rows it is read in: those of a training row, doubled as needed.

    So few widths serve all lengths, each with a program of its own.
    """
    doublings = math.log2(max(1, len(reading.ids) / cfg.plan.row_tokens))
    return cfg.plan.row_tokens * 2 ** math.ceil(doublings)


def height(width: int, cfg: EngineConfig) -> int:
    """Rows of a call: as many positions as a global step has, but at least a row."""
    return max(1, cfg.plan.step_tokens // width)


def packed_rows(
    readings: Sequence[Reading], cfg: EngineConfig
) -> dict[int, list[list[tuple[int, Reading]]]]:
    """Readings side by side in rows, by width; each with its first position there.

    The longest first, each into the emptiest row. A row is read on one frozen stack, so
    that a copy of it serves the whole row.
    """
    alike: dict[tuple[int, int | None], list[Reading]] = {}
    for reading in sorted(readings, key=lambda r: -len(r.ids)):
        alike.setdefault((width(reading, cfg), reading.frozen), []).append(reading)
    laid: dict[int, list[list[tuple[int, Reading]]]] = {}
    for (wide, _), own in alike.items():
        made = laid.setdefault(wide, [])
        taken: list[tuple[int, int]] = []  # positions taken, and of which row
        for reading in own:
            # From tile to tile, as lines lie in training: a CPU's sums over a text are
            # then the same, and a line that is its own teacher learns nothing.
            length = cfg.plan.tiles(len(reading.ids)) * cfg.plan.tile
            if not taken or taken[0][0] + length > wide:
                heapq.heappush(taken, (0, len(made)))
                made.append([])
            begin, row = heapq.heappop(taken)
            made[row].append((begin, reading))
            heapq.heappush(taken, (begin + length, row))
    return laid


def lay(
    made: Sequence[Sequence[tuple[int, Reading]]],
    wide: int,
    cfg: EngineConfig,
    *,
    eos: int,
) -> Calls:
    """Arrays of a call with these rows, at most `height` of them; maybe none."""
    shape = height(wide, cfg), wide
    tokens = np.full(shape, eos, np.int32)
    positions, segments = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    stacks = np.full(shape[0], cfg.frozen_rows, np.int32)
    source = np.full(rows(cfg), -1, np.int32)
    for b, row in enumerate(made):
        for i, (begin, reading) in enumerate(row):
            n = len(reading.ids)
            span = slice(begin, begin + n)
            tokens[b, span] = reading.ids
            positions[b, span], segments[b, span] = np.arange(n), i
            if reading.frozen is not None:
                stacks[b] = reading.frozen
            kept = slice(reading.row, reading.row + len(reading.positions))
            source[kept] = b * wide + begin + np.array(reading.positions)
    return Calls(tokens, positions, segments, stacks, source)


def read(
    params: dict,
    bank_UD: Array,
    calls: Calls,
    frozen: lora.Tree | None = None,
    *,
    arch: decoder.Arch,
) -> Array:
    """The bank with the rows that one call fills.

    Args:
      params: frozen base parameters.
      bank_UD: hidden states after the final norm, in the base's dtype.
      calls: what is read.
      frozen: the stacks that the teachers are read on, or None for the base alone.
      arch: the decoder.
    """
    delta = None if frozen is None else lora.assign(frozen, jnp.asarray(calls.stacks))
    segments = jnp.asarray(calls.segments)
    ranges = key_ranges.of_lines(segments, segments >= 0)
    hidden_BTD, _ = decoder.hidden(
        *(params, delta, arch),
        *(jnp.asarray(calls.tokens), jnp.asarray(calls.positions), ranges),
    )
    source_U = jnp.asarray(calls.source)
    made_UD = jnp.take(
        hidden_BTD.reshape(-1, arch.width), source_U, axis=0, mode="clip"
    )
    # Picked, not scattered: no row's value depends on an order.
    return jnp.where(source_U[:, None] >= 0, made_UD.astype(bank_UD.dtype), bank_UD)


@functools.cache
def program(
    arch: decoder.Arch,
    cfg: EngineConfig,
    mesh: Mesh | None,
    wide: int,
    *,
    on_frozen: bool = False,
) -> jax.stages.Compiled:
    """`read` for rows of one width, compiled, the bank donated.

    On a mesh each shard fills a bank of its own; nothing crosses between shards.
    """
    run = functools.partial(read, arch=arch)
    args, shards = (
        arguments(arch, cfg, mesh, wide, on_frozen=on_frozen),
        PartitionSpec("data"),
    )
    if mesh is None:
        return jax.jit(run, donate_argnums=1).lower(*args).compile()
    shards = PartitionSpec("data")
    shard = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(PartitionSpec(), shards, shards, PartitionSpec())[: len(args)],
        out_specs=shards,
        axis_names={"data"},
        check_vma=False,
    )
    out = meshes.named(mesh, shards)
    return jax.jit(shard, donate_argnums=1, out_shardings=out).lower(*args).compile()


def arguments(
    arch: decoder.Arch,
    cfg: EngineConfig,
    mesh: Mesh | None,
    wide: int,
    *,
    on_frozen: bool = False,
) -> tuple:
    """What `program` takes: shapes, dtypes and, on a mesh, shardings."""
    shards = meshes.shards(mesh)
    idle = lay((), wide, cfg, eos=0)

    def like() -> tuple:
        params = decoder.init_params(jax.random.key(0), arch)
        calls = jax.tree.map(lambda x: jnp.concatenate([x] * shards), idle)
        return float8_base.running(params), empty(arch, cfg, shards=shards), calls

    args = jax.eval_shape(like)
    if on_frozen:
        args += (jax.eval_shape(lambda: inner.empty_frozen(arch, cfg)),)
    if mesh is None:
        return args
    cut = float8_base.running(placement.param_shardings(arch, mesh))
    shard, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    shardings = (cut, shard, shard, whole)[: len(args)]
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        args,
        jax.tree.broadcast(shardings, args),
    )


def empty(arch: decoder.Arch, cfg: EngineConfig, *, shards: int = 1) -> Array:
    """Banks of zeros, those of all shards one behind the other."""
    return jnp.zeros((rows(cfg) * shards, arch.width), arch.dtype)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _empty(arch: decoder.Arch, cfg: EngineConfig, mesh: Mesh | None) -> Array:
    bank = empty(arch, cfg, shards=meshes.shards(mesh))
    if mesh is None:
        return bank
    return jax.lax.with_sharding_constraint(bank, meshes.batch_sharding(mesh))


def fill(
    params: dict,
    shelves: Sequence[Shelves],
    *,
    arch: decoder.Arch,
    cfg: EngineConfig,
    eos: int,
    mesh: Mesh | None = None,
    frozen: lora.Tree | None = None,
) -> tuple[Array, int]:
    """Reads all teachers; returns the bank, and how many positions were read for it.

    Args:
      params: frozen base parameters, as `float8_base.running`.
      shelves: of each shard, of whatever process.
      arch: the decoder.
      cfg: sizes.
      eos: end-of-text id, which fills rows up.
      mesh: the mesh, or None for one device.
      frozen: the stacks beneath, if the readings are on some; on a mesh, whole on each
        device.
    """
    bank = _empty(arch, cfg, mesh)
    laid = [packed_rows(each.readings, cfg) for each in shelves]
    here, stacks = meshes.own_shards(mesh), () if frozen is None else (frozen,)
    for wide in sorted(set().union(*laid)):
        run = program(arch, cfg, mesh, wide, on_frozen=frozen is not None)
        size = height(wide, cfg)
        # All shards take part in every call: one that is done reads nothing.
        most = max(len(each.get(wide, ())) for each in laid)
        for begin in range(0, most, size):
            interrupts.check()
            parts: Mapping[int, Calls] = {
                shard: lay(
                    laid[shard].get(wide, ())[begin : begin + size], wide, cfg, eos=eos
                )
                for shard in here
            }
            bank = run(params, bank, meshes.put_shards(parts, mesh), *stacks)
    return bank, sum(len(one.ids) for each in shelves for one in each.readings)
