"""The inner loop as it runs: hundreds of adapters, packed into steps over one base.

The host plans which lines train when (`plan`); the device runs whole blocks of the plan
in one loop, with no word to the host between steps. A step takes the adapters whose
lines are in it out of their slots, runs all their tokens through the shared base at
once, and updates each with its own gradient. On CUDA adapters stay in their slots, and
are read and updated there (`PlanConfig.by_slot`). Tests hold every adapter
to its solo run by `inner.adapt`.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from seal_jax.models import (
    cross_entropy,
    decoder,
    float8_base,
    key_ranges,
    lora,
    placement,
)
from seal_jax.runtime import ahead, interrupts, meshes, prng
from seal_jax.training import (
    inner,
    plan,
    plan_arrays,
    plan_shards,
    teacher,
    updates,
    waves,
)
from seal_jax.training.inner import EngineConfig, Slot
from seal_jax.training.plan_arrays import Extras
from seal_jax.training.settings import PlanConfig


class FinishedPool(NamedTuple):
    """Finished adapters, a row each: stacked, scale folded in, in the base's dtype.

    `loss_A` is its steps' mean cross-entropy, with what is learned from teachers;
    `finite_A` whether all stayed finite. `slots`, if `cfg.resumes`, are what training
    goes on from; a row of no step, as long as its adapter has not finished, is none.
    """

    adapters: lora.Tree
    loss_A: Array
    finite_A: Array
    slots: Slot | None = None


# What `run_block` takes after the base, over the axis `data` of a mesh.
SHARDED = (PartitionSpec("data"),) * 4
# And the extras of its steps, the stacks that its adapters train on, on each whole, and
# what their teachers predict.
_EXTENDED = PartitionSpec("data"), PartitionSpec(), PartitionSpec("data")
_NONE = Extras()


class State(NamedTuple):
    """What training holds on the device: `slots`, and the pool of `results`.

    `applied` are the slots' adapters as the model multiplies with them (`_applied`),
    where each has its own place (`PlanConfig.by_slot`): written as adapters are
    updated, so that no step makes copies of them.
    """

    slots: Slot
    results: FinishedPool
    applied: lora.Tree | None = None


# How a GPU's program is compiled, whatever XLA_FLAGS say. cuBLASLt adds a product to
# what is there; XLA's own matmuls leave the sum of base and low-rank product to another
# pass over results as wide as the feed-forward. And products with one input stay apart:
# joined, their adapters are copied side by side in every step.
GPU_OPTIONS: dict[str, bool | int] = {
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_dot_merger_threshold_mb": 0,
}


def init_state(arch: decoder.Arch, cfg: EngineConfig, *, shards: int = 1) -> State:
    """Empty slots and an empty pool, those of all shards side by side."""

    def zeros(count: int, dtype: str) -> lora.Tree:
        return lora.empty(
            arch, targets=cfg.targets, rank=cfg.rank, adapters=count, dtype=dtype
        )

    def slots(count: int) -> Slot:
        moments = [zeros(count, "float32") for _ in range(2)]
        adam = optax.ScaleByAdamState(jnp.zeros(count, jnp.int32), *moments)
        return Slot(zeros(count, "float32"), adam, jnp.zeros(count))

    pool = cfg.pool * shards
    results = FinishedPool(
        zeros(pool, arch.dtype),
        jnp.zeros(pool),
        jnp.zeros(pool, bool),
        slots(pool) if cfg.resumes else None,
    )
    count = cfg.plan.slots * shards
    applied = zeros(count, arch.dtype) if cfg.plan.by_slot else None
    return State(slots(count), results, applied)


def loss(
    scaled: lora.Tree,
    params: dict,
    step: plan_arrays.Steps,
    arch: decoder.Arch,
    cfg: EngineConfig,
    extras: Extras = _NONE,
    frozen: lora.Tree | None = None,
    bank_UD: Array | None = None,
) -> tuple[Array, Array]:
    """The sum of what the adapters minimise; the loss of each place, `[K]`.

    That is its cross-entropy, and its divergence from the teachers that it has.

    No adapter occurs in another's loss, so the sum's gradient holds each one's own: in
    parts, where it has places in several chunks. `scaled` are the adapters of the
    places, as the model applies them (`lora.scaled`).
    """

    def rows(leaf_M: Any) -> Array:
        return leaf_M.reshape(-1, cfg.plan.row_tokens)

    sound_K = None
    if frozen is not None:
        frozen = lora.select(frozen, extras.frozen)
    else:
        sound_K = inner.is_sound(scaled)
    delta = inner.on_top(scaled, cfg, frozen)
    delta = lora.assign(delta, step.tiles, chunks=cfg.plan.chunks, sound_S=sound_K)
    ranges = key_ranges.of_lines(rows(step.segments), rows(step.is_key))

    def hidden(delta: lora.Tree | None) -> Array:
        hidden_BTD, _ = decoder.hidden(
            params, delta, arch, rows(step.tokens), rows(step.positions), ranges
        )
        return hidden_BTD.reshape(-1, arch.width)

    hidden_MD, head_DV = hidden(delta), decoder.head(params, arch)
    needed_M = step.weights != 0
    ce_M = cross_entropy.cross_entropy(hidden_MD, head_DV, step.targets, needed_M)
    owner_M = jnp.repeat(step.tiles, cfg.plan.tile, total_repeat_length=len(ce_M))
    loss_M = ce_M * step.weights
    if bank_UD is not None:
        # A row of the bank for each position, the zero row for most.
        teacher_MD = jnp.take(bank_UD, extras.teacher, axis=0, mode="clip")
        apart_M = cross_entropy.divergence(
            *(hidden_MD, teacher_MD, head_DV, extras.distill != 0),
            kind=cfg.teach,
            beta=cfg.beta,
        )
        loss_M += apart_M * extras.distill
    loss_K = _sums(loss_M, owner_M, cfg.plan.places)
    whole = loss_K.sum()
    if cfg.divergence:
        base_MD = jax.lax.stop_gradient(hidden(None))
        kl_M = cross_entropy.divergence(hidden_MD, base_MD, head_DV)
        whole += jnp.sum(kl_M * extras.anchors)
    if cfg.orthogonal and frozen is not None:
        whole += cfg.orthogonal * inner.overlap(frozen, _once(scaled, extras))
    return whole, loss_K


def _once(adapters: lora.Tree, extras: Extras) -> lora.Tree:
    """The adapters of all places, zeros where an adapter's place is not its first."""
    if extras.folds is None:
        return adapters

    def once(leaf_K: Array) -> Array:
        first_K = jnp.ones(len(leaf_K), bool)
        first_K = first_K.at[extras.folds[:, 1]].set(False, mode="drop")
        return jnp.where(first_K[:, None, None], leaf_K, 0)

    return jax.tree.map(once, adapters)


def _sums(values_M: Array, owner_M: Array, count: int) -> Array:
    """The sum of each owner's values, `[K]`; what belongs to none is left out.

    One after the other on a CPU, so that no sum depends on where its values lie. A
    GPU's scatter would add them as they come: there the order is that of all positions.
    """

    def scattered(values_M: Array, owner_M: Array) -> Array:
        return jax.ops.segment_sum(values_M, owner_M, count + 1)[:-1]

    def masked(values_M: Array, owner_M: Array) -> Array:
        own_KM = jnp.arange(count)[:, None] == owner_M[None, :]
        return jnp.where(own_KM, values_M[None, :], 0).sum(1)

    return jax.lax.platform_dependent(values_M, owner_M, cpu=scattered, default=masked)


def step_all(
    params: dict,
    state: State,
    keys_A: Array,
    step: plan_arrays.Steps,
    arch: decoder.Arch,
    cfg: EngineConfig,
    extras: Extras = _NONE,
    frozen: lora.Tree | None = None,
    bank_UD: Array | None = None,
) -> State:
    """One global step: new adapters enter, the active ones train, finished ones leave.

    Tokens and gradients are those of the active adapters; the optimizer updates slots
    in place, and leaves those that wait as they are.
    """
    slots, results, applied = state

    def enter(
        i: Array, held: tuple[Slot, lora.Tree | None]
    ) -> tuple[Slot, lora.Tree | None]:
        slots, applied = held
        slot, job = step.starts[i]
        fresh = lora.init(keys_A[job], arch, targets=cfg.targets, rank=cfg.rank)
        begin = inner.init_slot(fresh)
        if results.slots is not None:
            begin = _gone_on(results.slots, job, begin)
        if applied is None:
            return updates.put(slots, begin, slot), None
        applied = updates.put(applied, _applied(begin.adapter, arch, cfg), slot)
        if results.slots is not None:
            return updates.put(slots, begin, slot), applied
        # Its moments are taken for zero until it has taken a step (`adam_op.Step`).
        bare = updates.put(_with(slots, None, None), _with(begin, None, None), slot)
        return _with(bare, slots.adam.mu, slots.adam.nu), applied

    slots, applied = jax.lax.fori_loop(0, step.start_count, enter, (slots, applied))
    active = applied
    if active is None:
        active = _applied(updates.rows_at(slots.adapter, step.slots), arch, cfg)
    gradient = jax.value_and_grad(loss, has_aux=True)
    (_, loss_K), grads = gradient(
        active, params, step, arch, cfg, extras, frozen, bank_UD
    )
    if extras.folds is not None:
        step, grads, loss_K = updates.folded(step, grads, loss_K, extras)
    # The chain rule through the scale, which the optimizer's passes do by the way.
    # Before the fold all gradients would be read and written once more for it.
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), grads)
    wide = lora.scaled(wide, cfg.alpha / cfg.rank)
    if applied is None:
        few = cfg.plan.chunks == 1 and 8 * cfg.plan.places <= cfg.plan.slots
        update = updates.updated_few if few else updates.updated
        slots = update(slots, step, wide, loss_K)
    else:
        slots, applied = updates.updated_by_slot(
            *(slots, applied, step, grads, loss_K, cfg), norms_of=wide
        )

    def leave(i: Array, results: FinishedPool) -> FinishedPool:
        slot, job = step.ends[i]
        adapter = lora.select(slots.adapter, slot)
        # As one row: a check of each leaf is a program's part of its own to compile.
        row = [leaf.reshape(-1) for leaf in jax.tree.leaves(adapter)]
        finite = jnp.all(jnp.isfinite(jnp.concatenate(row)))
        finite &= jnp.isfinite(slots.loss_sum[slot])
        mean = slots.loss_sum[slot] / jnp.asarray(slots.adam.count)[slot]
        kept = None if results.slots is None else updates.one(slots, slot)
        scaled = lora.scaled(adapter, cfg.alpha / cfg.rank)
        one = FinishedPool(scaled, mean, finite, kept)
        return updates.put(results, one, job)

    results = jax.lax.fori_loop(0, step.end_count, leave, results)
    return State(slots, results, applied)


def _applied(adapters: lora.Tree, arch: decoder.Arch, cfg: EngineConfig) -> lora.Tree:
    """Adapters scaled and in the base's dtype, and so are their gradients.

    That is half as much to move, and what autocast does.
    """
    return lora.cast(lora.scaled(adapters, cfg.alpha / cfg.rank), arch)


def _with(slots: Slot, mu: Any, nu: Any) -> Slot:
    """Slots with other moments."""
    return slots._replace(adam=slots.adam._replace(mu=mu, nu=nu))


def _gone_on(saved: Slot, job: Array, fresh: Slot) -> Slot:
    """A job's saved slot, if that has taken a step; else a fresh one."""
    kept = updates.one(saved, job)
    begun = jnp.asarray(kept.adam.count) > 0
    return jax.tree.map(functools.partial(jnp.where, begun), kept, fresh)


def run_block(
    params: dict,
    state: State,
    keys_A: Array,
    steps: plan_arrays.Steps,
    counts: Array,
    extras: Extras = _NONE,
    frozen: lora.Tree | None = None,
    bank_UD: Array | None = None,
    *,
    arch: decoder.Arch,
    cfg: EngineConfig,
) -> State:
    """The first `counts[0]` of `steps`, in one loop on the device.

    Args:
      params: frozen base parameters.
      state: slots and results, from `init_state` or an earlier block.
      keys_A: typed PRNG keys that draw the fresh adapters, one per row of the pool.
      steps: a block of `plan_arrays.blocks`.
      counts: how many of them to run, int32 `[1]`.
      extras, frozen: of the block, and the stacks beneath, if `cfg` has any.
      bank_UD: what the teachers predict (`teacher`), if `cfg.teach`.
      arch: the decoder.
      cfg: hyper-parameters.
    """

    params = float8_base.turned(params)

    def body(i: Array, state: State) -> State:
        step, more = jax.tree.map(lambda leaf: leaf[i], (steps, extras))
        return step_all(params, state, keys_A, step, arch, cfg, more, frozen, bank_UD)

    return jax.lax.fori_loop(0, counts[0], body, state)


@functools.cache
def program(
    arch: decoder.Arch, cfg: EngineConfig, mesh: Mesh | None
) -> jax.stages.Compiled:
    """`run_block`, compiled, its state donated: the one program of the inner loop.

    Every block of every round runs it; `capacity` reads its memory before it runs. On a
    mesh every shard of the axis `data` has slots, a pool and a plan of its own and runs
    as many steps as that has; nothing crosses between shards.
    """
    run = functools.partial(run_block, arch=arch, cfg=cfg)
    if mesh is None:
        jitted = jax.jit(run, donate_argnums=1)
        return compiled(jitted.lower(*arguments(arch, cfg)), None)
    # The axis `model` stays the compiler's: it cuts the base's matmuls as the weights
    # are cut.
    shard = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(PartitionSpec(), *SHARDED, *_extended(cfg)),
        out_specs=SHARDED[0],
        axis_names={"data"},
        check_vma=False,
    )
    out = meshes.named(mesh, SHARDED[0])
    jitted = jax.jit(shard, donate_argnums=1, out_shardings=out)
    return compiled(jitted.lower(*arguments(arch, cfg, mesh)), mesh)


def programs(
    arch: decoder.Arch, cfg: EngineConfig, mesh: Mesh | None
) -> dict[int, Callable[[], jax.stages.Compiled]]:
    """What compiles `program`, by the positions of a step: of `cfg`, and of short ones.

    That of short ones is compiled when there is a block of them.
    """
    made = {cfg.plan.step_tokens: functools.partial(program, arch, cfg, mesh)}
    if (sizes := _short(cfg, mesh)) is not None:
        short = replace(cfg, plan=sizes)
        made[sizes.step_tokens] = functools.partial(program, arch, short, mesh)
    return made


def _short(cfg: EngineConfig, mesh: Mesh | None) -> PlanConfig | None:
    """Sizes of short steps, on a CPU alone.

    An accelerator's program takes minutes to compile, and shards come to such steps at
    different times.
    """
    on_cpu = mesh is None and jax.default_backend() == "cpu"
    return cfg.short if on_cpu else None


def compiled(lowered: jax.stages.Lowered, mesh: Mesh | None) -> jax.stages.Compiled:
    """A program of packed steps, for the mesh's devices or the default one."""
    platform = mesh.devices.flat[0].platform if mesh else jax.default_backend()
    return lowered.compile(GPU_OPTIONS if platform == "gpu" else None)


def _extended(cfg: EngineConfig) -> tuple[PartitionSpec, ...]:
    """Of what a program takes besides, if it takes anything."""
    return _EXTENDED[: (2 + bool(cfg.teach)) if cfg.extended else 0]


def arguments(arch: decoder.Arch, cfg: EngineConfig, mesh: Mesh | None = None) -> tuple:
    """What `program` takes: shapes, dtypes and, on a mesh, shardings."""
    shards = meshes.shards(mesh)

    def like() -> tuple:
        key = jax.random.key(0)
        state = init_state(arch, cfg, shards=shards)
        return (
            float8_base.running(decoder.init_params(key, arch)),
            state,
            jax.random.split(key, cfg.pool * shards),
        )

    count = plan_arrays.BLOCK * shards
    steps = plan_arrays.empty_steps(cfg.plan, eos=0, count=count)
    counts = np.zeros(shards, np.int32)
    args = *jax.eval_shape(like), *jax.eval_shape(lambda: (steps, counts))
    specs = SHARDED
    if cfg.extended:
        extras = _empty_extras(cfg, count)
        args += jax.eval_shape(lambda: (extras, inner.empty_frozen(arch, cfg)))
        if cfg.teach:
            args += (jax.eval_shape(lambda: teacher.empty(arch, cfg, shards=shards)),)
        specs += _extended(cfg)
    if mesh is None:
        return args
    cut = float8_base.running(placement.param_shardings(arch, mesh))
    shardings = (cut, *meshes.named(mesh, specs))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        args,
        jax.tree.broadcast(shardings, args),
    )


def _empty_extras(cfg: EngineConfig, count: int) -> Extras:
    return plan_arrays.empty_extras(
        cfg.plan,
        anchored=cfg.divergence,
        frozen=cfg.frozen_rank > 0,
        taught=bool(cfg.teach),
        count=count,
    )


class TrainedAdapters(NamedTuple):
    """What `train` returns; job a is row a of the results.

    `tokens` are the positions that carried loss, and those of their lines before them;
    `computed_tokens` all positions of the `steps` global steps; `adapter_steps` the
    optimizer steps of all adapters. `teacher_tokens` are the positions that were read
    for the bank. `slots`, if `cfg.resumes`, are what `train` goes on from; on a mesh
    they lie on its shards.
    """

    adapters: lora.Tree
    loss_A: np.ndarray
    finite_A: np.ndarray
    tokens: int
    computed_tokens: int
    steps: int
    adapter_steps: int
    teacher_tokens: int = 0
    slots: Slot | None = None


def train(
    params: dict,
    jobs: Sequence[plan.Job],
    keys_A: Array,
    *,
    arch: decoder.Arch,
    cfg: EngineConfig,
    eos: int,
    mesh: Mesh | None = None,
    frozen: lora.Tree | None = None,
    frozen_of: Sequence[int] | None = None,
    teacher_on_frozen: bool = False,
    start: Slot | None = None,
    consume: bool = False,
) -> TrainedAdapters:
    """Trains many adapters, packed.

    Args:
      params: frozen base parameters; on a mesh, placed as
        `placement.param_shardings`.
      jobs: one per adapter, at most `cfg.pool`, times the shards of the mesh.
      keys_A: typed PRNG keys, one per job, that draw the fresh adapters.
      arch: the decoder.
      cfg: hyper-parameters.
      eos: end-of-text id.
      mesh: devices to share the work, or None for the one that holds `params`.
      frozen: if `cfg` has them, the stacks that adapters train on: `cfg.frozen_rows` of
        `cfg.frozen_rank` ranks, `[P, Rf, .]`, in the base's dtype, scale folded in.
        They are applied, not trained, and no part of the results.
      frozen_of: each job's row of `frozen`.
      teacher_on_frozen: whether teachers are the base with the job's row of `frozen`,
        the model as it was before this edit; else they are the base alone.
      start: the slots that an earlier `train` returned, row a of job a, to go on from;
        None: fresh adapters. What of a job's schedule is trained says its `span`.
      consume: whether `start` is not needed any more; its memory is then used again.

    Raises:
      ValueError: too many jobs, a `frozen` or `start` that `cfg` does not describe,
        more teacher targets than the bank holds, or see `plan_arrays.blocks`.
    """
    rows = [] if frozen_of is None else list(map(int, frozen_of))
    inner.check_frozen(frozen, rows, len(jobs), arch, cfg)
    waves.check(start, jobs, arch, cfg)
    shards = meshes.shards(mesh)
    if len(jobs) > cfg.pool * shards:
        raise ValueError(
            f"{len(jobs)} jobs must fit inner.pool={cfg.pool} on each of {shards} "
            "devices; train them in several calls"
        )
    shares = plan.share(jobs, shards, most=cfg.pool)
    # Row of the pools that lie side by side -> job; an idle row draws like job 0.
    job_of_row = [j for share in shares for j in (share + [0] * cfg.pool)[: cfg.pool]]
    # As long as the pools, so that one program gathers whatever number of jobs.
    row_of_job = np.zeros(cfg.pool * shards, np.int32)
    for shard, share in enumerate(shares):
        row_of_job[share] = shard * cfg.pool + np.arange(len(share))
    keys_A = meshes.put(prng.take(keys_A, job_of_row), mesh, "data")
    if mesh is not None:
        frozen = jax.device_put(frozen, meshes.replicated(mesh))
    params = float8_base.running(params)
    more, shelved, read = (), None, 0
    if cfg.teach:
        of = rows if teacher_on_frozen and rows else None
        shelves, shelved = teacher.shared(jobs, shares, cfg, frozen_of=of)
        bank, read = teacher.fill(
            *(params, shelves),
            arch=arch,
            cfg=cfg,
            eos=eos,
            mesh=mesh,
            frozen=None if of is None else frozen,
        )
        more = (bank,)
    laid = plan_shards.blocks(
        *(jobs, shares, cfg),
        eos=eos,
        mesh=mesh,
        frozen_of=rows,
        shelved=shelved,
        short=_short(cfg, mesh),
    )
    runs = programs(arch, cfg, mesh)
    if start is None:
        state = _empty_state(arch, cfg, mesh)
    else:
        saved = waves.of_rows(start, job_of_row, mesh, consume=consume)
        state = _empty_state(arch, replace(cfg, resumes=False), mesh)
        state = state._replace(results=state.results._replace(slots=saved))
    more = (frozen, *more) if cfg.extended else ()
    totals = plan_shards.Totals(mesh)
    # The next block is laid while the device runs this one.
    for blocks in ahead.ahead(laid):
        interrupts.check()
        steps, counts, extras = plan_shards.put(blocks, mesh)
        extra = (extras, *more) if cfg.extended else ()
        (step_tokens,) = {block.step_tokens for block in blocks.values()}
        run = runs[step_tokens]()
        state = run(params, state, keys_A, steps, counts, *extra)
        totals.add(blocks)
    tokens, updates, count, computed = totals.of_all()
    results, saved = state.results._replace(slots=None), state.results.slots
    if mesh is not None:
        saved = waves.of_jobs(saved, row_of_job, mesh)
        results = meshes.gather(results, mesh)
        results = results._replace(adapters=_rows(results.adapters, row_of_job))
    order = row_of_job[: len(jobs)]
    loss_A, finite_A = (np.asarray(x)[order] for x in results[1:3])
    return TrainedAdapters(
        results.adapters,
        loss_A,
        finite_A,
        tokens,
        computed,
        count,
        updates,
        read,
        saved,
    )


_rows = jax.jit(lora.select)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _empty_state(arch: decoder.Arch, cfg: EngineConfig, mesh: Mesh | None) -> State:
    if mesh is None:
        return init_state(arch, cfg)
    state = init_state(arch, cfg, shards=meshes.shards(mesh))
    placed = jax.tree.broadcast(meshes.named(mesh, SHARDED[0]), state)
    return jax.tree.map(jax.lax.with_sharding_constraint, state, placed)
