"""How many adapters fit: sizes of the inner loop from the compiled program's memory.

Nothing is tried out on the device. The packed loop is compiled for its shapes alone,
XLA says what it will use, and what was left open in the config (0) is the largest that
stays within the device.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from seal_jax.models import decoder, float8_base, placement
from seal_jax.runtime import formatting, meshes
from seal_jax.training import inner, packed
from seal_jax.training.settings import PLAIN, EngineOptions, InnerSizes, PlanConfig
from seal_kernels.lora_matmul import api as lora_op

# Global steps of two thousand tokens run a 7B model's matmuls near their peak; of twice
# as many, a token's share of starting the kernels is half, and more only cost memory.
# A line takes some 60 positions. On the published edits 40 slots fill steps of 2048 as
# well as more do (1,950 steps of the round; 36 slots need 2,006, 44 need 1,933, and a
# tenth more of the optimizer's time). Where slots that wait cost the optimizer nothing
# (`by_slot`) 40 need 1,943, 42 1,930 and 44 1,926.
STEP_TOKENS = 4096
POSITIONS_PER_SLOT, POSITIONS_BY_SLOT = 51, 48


class Memory(NamedTuple):
    """Bytes on one device of the inner loop's program, by what holds them."""

    base: int
    slots: int
    pool: int
    other: int  # temporaries and the plan's arrays
    frozen: int = 0  # the stacks that adapters train on
    bank: int = 0  # what teachers predict
    saved: int = 0  # finished adapters' slots, for the next wave

    @property
    def total(self) -> int:
        return sum(self)

    def line(self) -> str:
        """For people."""
        parts = {
            "base": self.base,
            "slots": self.slots,
            "finished adapters": self.pool,
            "temporaries": self.other,
        }
        also = {
            "frozen stacks": self.frozen,
            "teachers' bank": self.bank,
            "saved slots": self.saved,
        }
        parts |= {name: size for name, size in also.items() if size}
        listed = ", ".join(f"{name} {formatting.size(n)}" for name, n in parts.items())
        return f"{formatting.size(self.total)} ({listed})"


def measure(
    arch: decoder.Arch, cfg: inner.EngineConfig, mesh: Mesh | None = None
) -> Memory:
    """What training with `cfg` takes on a device, read off the compiled program."""
    used = packed.program(arch, cfg, mesh).memory_analysis()
    assert used is not None  # Every backend of jax's own has it.
    whole = (
        used.argument_size_in_bytes
        + used.output_size_in_bytes
        - used.alias_size_in_bytes
        + used.temp_size_in_bytes
        + used.generated_code_size_in_bytes
    )
    parts = counted(arch, cfg, mesh)
    return parts._replace(other=whole - parts.total)


def counted(
    arch: decoder.Arch, cfg: inner.EngineConfig, mesh: Mesh | None = None
) -> Memory:
    """The parts that shapes alone tell, nothing compiled: without temporaries."""
    params, state, _, _, _, *more = packed.arguments(arch, cfg, mesh)
    slots, results, applied = state
    finished = results._replace(slots=None)
    trees = params, (slots, applied), finished, more[1:2], more[2:], results.slots
    base, own, pool, frozen, bank, saved = map(_bytes, trees)
    return Memory(base, own, pool, 0, frozen, bank, saved)


def _bytes(tree: object) -> int:
    """On one device."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape, cut = leaf.shape, leaf.sharding
        total += math.prod(cut.shard_shape(shape) if cut else shape) * (
            leaf.dtype.itemsize
        )
    return total


def choose(
    arch: decoder.Arch,
    wanted: InnerSizes,
    *,
    limit: int,
    adapters: int,
    lines: int = 1,
    mesh: Mesh | None = None,
    options: EngineOptions = PLAIN,
    step_tokens: int = STEP_TOKENS,
    positions: int | None = None,
) -> tuple[inner.EngineConfig, Memory]:
    """The inner loop with every size decided.

    Args:
      arch: the decoder.
      wanted: the config; `step_tokens`, `slots`, `active` and `pool` may be 0.
      limit: bytes the program may use (`backend.memory_limit`).
      adapters: the most that are trained at a time; a pool need not be larger.
      lines: how many one optimizer step trains; a global step has as many rows.
      mesh: the mesh, or None for one device.
      options: what else the program is made for.
      step_tokens: of a global step where `wanted` leaves it open, if they fit.
      positions: for each slot, where their number is open; None: as the published
        edits want it, whose lines take some 60.

    Raises:
      ValueError: what is fixed does not fit; says what would.
    """
    by_slot = reads_in_place(arch, wanted, mesh, options)
    wanted = _unchunked(wanted) if by_slot else wanted
    row, shards = wanted.row_tokens, meshes.shards(mesh)
    base = base_bytes(arch, mesh) - master_bytes(arch, mesh)
    if base > limit:
        # Known before a program is compiled, which takes minutes where a base is large.
        raise ValueError(
            f"the base takes {formatting.size(base)} in {arch.dtype}, "
            f"{formatting.size(limit)} can be used; use a smaller model, or spread the "
            "base over devices with mesh.model"
        )
    adapters = -(-adapters // shards)
    # With divergence a step has a text beside its lines.
    least = row * (lines + options.divergence)
    chunk = wanted.chunk_tokens
    least = _whole(least, row, chunk)
    first = wanted.step_tokens or max(_whole(step_tokens, row, chunk), least)
    while True:
        cfg = dataclasses.replace(
            build(
                wanted,
                step_tokens=first,
                adapters=adapters,
                positions=positions,
                by_slot=by_slot,
            ),
            **dataclasses.asdict(options),
        )
        memory = measure(arch, cfg, mesh)
        if max(memory.total, answering(memory, shards)) <= limit:
            return cfg, memory
        costs = _costs(arch, cfg, wanted, memory, mesh)
        smaller = _shrunk(cfg, wanted, memory, costs, limit, shards)
        if smaller is not None:
            memory = measure(arch, smaller, mesh)
            if max(memory.total, answering(memory, shards)) <= limit:
                return smaller, memory
        if wanted.step_tokens or first == least:
            if memory.total <= limit:
                raise ValueError(
                    "generation after training needs "
                    f"{formatting.size(answering(memory, shards))} (the base"
                    f"{', the frozen stacks twice' if memory.frozen else ''} and the "
                    "finished adapters), "
                    f"{formatting.size(limit)} can be used; lower inner.pool, or "
                    "spread the base over devices with mesh.model"
                )
            raise ValueError(_advice(cfg, wanted, memory, costs, limit, least))
        unit = _unit(first // 2, row, chunk)
        first = max(least, first // 2 // unit * unit)


def _unit(tokens: int, row: int, chunk: int) -> int:
    """What a step of about so many tokens is a multiple of."""
    return chunk if tokens > chunk > row else row


def _whole(tokens: int, row: int, chunk: int) -> int:
    """The shortest step of at least so many tokens."""
    unit = _unit(tokens, row, chunk)
    return -(-tokens // unit) * unit


def answering(memory: Memory, shards: int) -> int:
    """The least that generation takes afterwards, bytes on one device.

    The base; the frozen stacks, and those once more with adapters on them; and the
    finished adapters of all shards, for a moment twice; and slots that are saved. Its
    cache is not in it: that is for `batch`.
    """
    finished = memory.pool * (1 if shards == 1 else 2 * shards)
    return memory.base + 2 * memory.frozen + finished + memory.saved


def base_bytes(arch: decoder.Arch, mesh: Mesh | None = None) -> int:
    """One set of weights on one device, with those that eight bits came from."""
    return _bytes(_weights(arch, mesh))


def master_bytes(arch: decoder.Arch, mesh: Mesh | None = None) -> int:
    """Of those, what no program reads that trains or writes (`float8_base`)."""
    like = _weights(arch, mesh)
    return _bytes(like) - _bytes(float8_base.running(like))


@functools.cache
def _weights(arch: decoder.Arch, mesh: Mesh | None) -> dict:
    like = jax.eval_shape(lambda: decoder.init_params(jax.random.key(0), arch))
    if mesh is not None:
        like = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            like,
            placement.param_shardings(arch, mesh),
        )
    return like


def build(
    wanted: InnerSizes,
    *,
    step_tokens: int,
    adapters: int,
    positions: int | None = None,
    by_slot: bool = False,
) -> inner.EngineConfig:
    """The config's inner loop, its open sizes as for a device with memory enough.

    With `by_slot` (`PlanConfig`) its steps do not come in chunks, whatever `wanted`
    says.
    """
    wanted = _unchunked(wanted) if by_slot else wanted
    positions = positions or (POSITIONS_BY_SLOT if by_slot else POSITIONS_PER_SLOT)
    slots = wanted.slots or max(1, step_tokens // positions)
    active = wanted.active or _active(slots, step_tokens, wanted.chunk_tokens)
    return inner.EngineConfig(
        targets=wanted.lora.targets,
        rank=wanted.lora.rank,
        alpha=wanted.lora.alpha,
        plan=PlanConfig(
            tile=wanted.tile,
            row_tokens=wanted.row_tokens,
            step_tokens=step_tokens,
            slots=slots,
            active=min(active, slots),
            chunk_tokens=wanted.chunk_tokens,
            by_slot=by_slot,
        ),
        pool=wanted.pool or max(adapters, 1),
    )


def reads_in_place(
    arch: decoder.Arch,
    wanted: InnerSizes,
    mesh: Mesh | None,
    options: EngineOptions = PLAIN,
) -> bool:
    """Whether every slot has the place of its number (`PlanConfig.by_slot`) here."""
    widths = {n for name in wanted.lora.targets for n in arch.linears()[name]}
    sizes = {wanted.lora.rank + options.frozen_rank, *widths}
    return mesh is None and lora_op.reads_in_place(arch.kernel, *sorted(sizes))


def _unchunked(wanted: InnerSizes) -> InnerSizes:
    """Without chunks, and so without a number of places in each."""
    if not wanted.chunk_tokens:
        return wanted
    return dataclasses.replace(wanted, chunk_tokens=0, active=0)


def _active(slots: int, step_tokens: int, chunk_tokens: int) -> int:
    """Places of a chunk: its share of the slots and a fifth more; all, without chunks.

    Lines of a chunk are shorter than all lines here, and longer there.
    """
    if not chunk_tokens or chunk_tokens >= step_tokens:
        return slots
    return -(-slots * chunk_tokens * 6 // (step_tokens * 5))


class _Costs(NamedTuple):
    """Bytes that do not depend on slots and results, and those of one of each."""

    fixed: float
    slot: float
    result: float


def _costs(
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
    wanted: InnerSizes,
    memory: Memory,
    mesh: Mesh | None,
) -> _Costs:
    """What the program costs by its sizes, from it and one of about half its slots.

    Temporaries grow with the slots too: the optimizer passes over all of them.
    """
    sizes, slots = cfg.plan, max(1, cfg.plan.slots // 2)
    if wanted.active:
        slots = max(slots, sizes.active)
    growth = 0.0
    if slots < sizes.slots:
        half = dataclasses.replace(sizes, slots=slots, active=min(sizes.active, slots))
        other = measure(arch, dataclasses.replace(cfg, plan=half), mesh).other
        growth = max(0.0, (memory.other - other) / (sizes.slots - slots))
    return _Costs(
        fixed=memory.base + memory.frozen + memory.other - growth * sizes.slots,
        slot=memory.slots / sizes.slots + growth,
        result=(memory.pool + memory.bank + memory.saved) / cfg.pool,
    )


def _shrunk(
    cfg: inner.EngineConfig,
    wanted: InnerSizes,
    memory: Memory,
    costs: _Costs,
    limit: int,
    shards: int,
) -> inner.EngineConfig | None:
    """`cfg` with a smaller pool, then fewer slots, as far as the config leaves open."""
    fixed, per_slot, per_result = costs
    room = limit - fixed
    sizes = cfg.plan
    slots, pool = sizes.slots, cfg.pool
    pool_most = pool
    if not wanted.pool:
        pool = min(pool, int((room - slots * per_slot) // per_result))
        without = memory._replace(pool=0, saved=0)
        held = answering(memory, shards) - answering(without, shards)
        held /= cfg.pool
        pool = min(pool, int((limit - memory.base - 2 * memory.frozen) // held))
    if pool < slots and not wanted.pool and not wanted.slots:
        slots = pool = min(pool_most, int(room // (per_slot + per_result)))
    elif not wanted.slots:
        slots = min(slots, int((room - pool * per_result) // per_slot))
    active = sizes.active if wanted.active else min(sizes.active, slots)
    if pool < 1 or slots < max(active, 1):
        return None
    fewer = dataclasses.replace(sizes, slots=slots, active=active)
    return dataclasses.replace(cfg, plan=fewer, pool=pool)


def _advice(
    cfg: inner.EngineConfig,
    wanted: InnerSizes,
    memory: Memory,
    costs: _Costs,
    limit: int,
    least: int,
) -> str:
    fixed, per_slot, per_result = costs
    room = limit - fixed
    fits = int((room - cfg.pool * per_result) // per_slot)
    together = int(room // (per_slot + per_result))
    have = (
        f"the inner loop with inner.step_tokens={cfg.plan.step_tokens}, inner.slots="
        f"{cfg.plan.slots}, inner.pool={cfg.pool} needs {memory.line()}, "
        f"{formatting.size(limit)} can be used"
    )
    if fits >= 1:
        return f"{have}; inner.slots={fits} fits"
    if together >= 1:
        return f"{have}; inner.slots={together} with inner.pool={together} fits"
    if wanted.step_tokens > least:
        return f"{have}; lower inner.step_tokens, or leave it at 0"
    return (
        f"{have}; lower inner.lora.rank or inner.row_tokens, name fewer "
        "inner.lora.targets, or spread the base over devices with mesh.model"
    )
