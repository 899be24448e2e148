"""The Hopper kernel of `y = x w + u b`, and of `dx = dy w^T + v a` by the same code.

A persistent grid, one block of threads for each multiprocessor. One warpgroup copies
(TMA), two multiply (wgmma) and share each tile of rows; a ring of `steps` stages in
shared memory is between them. After the last stage of `x` and `w` the same ring brings
`u` and the `b` of each adapter in the block of rows, so that the low-rank product is
added before the result leaves the registers, and y is written once.

Rows are on the N side of the multiplication (`y^T = w^T x^T`): there a tile of any
multiple of 8 rows can have an adapter of its own, where the M side knows only 64. Its
product has an accumulator of its own too, added to its columns of the large one: slices
of the large one as accumulators are possible in Pallas, but ptxas then serialises every
wgmma of the kernel and copies the accumulator around it.

Neighbouring tiles with one adapter are a run, and its `b` is copied once.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from seal_kernels.lora_matmul.mosaic_gpu_config import CONSUMERS, Config, shared

# Of each thread; the three warpgroups of 128 threads have 65,536 together.
COPY_REGISTERS = 40
MULTIPLY_REGISTERS = 232


def core(
    x_MK: Array,
    w: Array,
    u_MR: Array,
    b_SRN: Array,
    slots_G: Array,
    *,
    transposed: bool,
    config: Config,
    sms: int,
    interpret: Any = None,
) -> Array:
    """`x w + u b`, every tile of rows with the b of its slot; all in bfloat16.

    Args:
      x_MK: rows, `M / G` to a tile; a tile is a multiple of 8 rows.
      w: `[K, N]`, or `[N, K]` if `transposed`.
      u_MR: the rank-R factor of each row.
      b_SRN: the other factor of each slot; R is 16, 32 or 64.
      slots_G: the slot of each tile; S for none, whose `u` must be zero.
      transposed: whether `w` is.
      config: tile sizes; its blocks divide K and N.
      sms: thread blocks, at most; one runs on each multiprocessor.
      interpret: `plgpu.InterpretGPUParams` to run on the CPU.
    """
    rows, _ = x_MK.shape
    columns = b_SRN.shape[2]
    block_m, block_n = config.tile_m * config.cluster, config.block_n()
    clusters = pl.cdiv(rows, block_m), columns // block_n
    blocks = clusters[0] * config.cluster
    slots_BP, starts_B = _runs(rows, slots_G, len(b_SRN), blocks, config)
    empty = plgpu.Barrier
    if config.cluster > 1:
        empty = functools.partial(plgpu.ClusterBarrier, collective_axes=("cluster",))
    y_shape = (CONSUMERS, 2, config.store_m, config.tile_n)

    def body(*gmem: Any, **scratch: Any) -> None:
        _kernel(_Refs(config, transposed, clusters, *gmem, **scratch))

    kernel = plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((rows, columns), x_MK.dtype),
        grid=(min(sms // config.cluster, clusters[0] * clusters[1]),),
        grid_names=("sm",),
        cluster=(config.cluster,),
        cluster_names=("cluster",),
        num_threads=CONSUMERS + 1,
        thread_name="warpgroup",
        kernel_name="lora_matmul_core",
        scratch_types={
            "ring": _ring(u_MR.shape[1], transposed, config),
            "y_smem": shared(*y_shape, minor=config.tile_n),
            "full": plgpu.Barrier(num_arrivals=2, num_barriers=config.steps),
            "empty": empty(num_arrivals=CONSUMERS, num_barriers=config.steps),
        },
        interpret=interpret,
    )
    return kernel(x_MK, w, u_MR, b_SRN, slots_BP, starts_B)


def _ring(rank: int, transposed: bool, config: Config) -> plgpu.RefUnion:
    """Stages of x and w, or of u and b in the same places.

    The second kind has the sizes of the first and uses only what it needs of them.
    """
    steps, m, n, k = config.steps, config.tile_m, config.block_n(), config.tile_k
    w_shape = (n, k) if transposed else (k, n)
    x_and_w = [shared(steps, m, k, minor=k), shared(steps, *w_shape, minor=w_shape[1])]
    # Both are multiplied over R, which no part of their layout may exceed.
    u_and_b = [
        shared(steps, m * k // rank, rank, minor=rank),
        shared(steps, k, n, minor=rank),
    ]
    return plgpu.RefUnion(x_and_w, u_and_b)


def _runs(
    rows: int, slots_G: Array, none: int, blocks: int, config: Config
) -> tuple[Array, Array]:
    """The slot of each piece of each block of rows, and where a block's runs start: bit
    p is set if piece p, not the first, has another slot than the one before. A piece is
    what is multiplied by an adapter at once: a tile or a part of one.
    """
    tile = rows // len(slots_G)
    piece = next(n for n in (32, 16, 8) if not tile % n and not config.store_m % n)
    slots_P = jnp.repeat(slots_G, tile // piece)
    pieces = config.tile_m // piece
    missing = blocks * pieces - len(slots_P)
    slots_P = jnp.pad(slots_P, (0, missing), constant_values=none)
    slots_BP = slots_P.reshape(blocks, pieces)
    starts_BP = slots_BP[:, 1:] != slots_BP[:, :-1]
    # A cluster goes through its stages in step: where one of its blocks has fewer runs,
    # some are cut in two.
    count_CB = starts_BP.sum(1).reshape(-1, config.cluster)
    lacking_B = (count_CB.max(1, keepdims=True) - count_CB).reshape(-1)
    place_BP = jnp.cumsum(~starts_BP, axis=1)
    starts_BP |= ~starts_BP & (place_BP <= lacking_B[:, None])
    bits_BP = starts_BP.astype(jnp.int32) << jnp.arange(1, pieces)[None]
    return slots_BP, bits_BP.sum(1, dtype=jnp.int32)


class _Refs(NamedTuple):
    """What the kernel works on."""

    config: Config
    transposed: bool
    clusters: tuple[int, int]
    x: Any
    w: Any
    u: Any
    b: Any
    slots: Any
    starts: Any
    y: Any
    ring: Any
    y_smem: Any
    full: Any
    empty: Any

    def depth_steps(self) -> int:
        return self.x.shape[1] // self.config.tile_k

    def pieces(self) -> int:
        return self.slots.shape[1]

    def rank(self) -> int:
        return self.u.shape[1]


def _kernel(refs: _Refs) -> None:
    warpgroup = lax.axis_index("warpgroup")

    @pl.when(warpgroup == CONSUMERS)
    def _():
        plgpu.set_max_registers(COPY_REGISTERS, action="decrease")
        count = _each_block(refs, functools.partial(_copy_block, refs))

        # No barrier may be left with an arrival that nobody waited for.
        @pl.loop(lax.max(count - refs.config.steps, 0), count)
        def _(used):
            plgpu.barrier_wait(refs.empty.at[lax.rem(used, refs.config.steps)])

    @pl.when(warpgroup < CONSUMERS)
    def _():
        plgpu.set_max_registers(MULTIPLY_REGISTERS, action="increase")
        _each_block(refs, functools.partial(_multiply_block, refs, warpgroup))
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)


def _each_block(
    refs: _Refs, body: Callable[[Array, Array, Array, Array], Array]
) -> Array:
    """`body(i, j, starts, count)` for all rows i and columns j of this thread block.

    `count` is how many stages of the ring were used before, which `body` returns with
    its own added; `starts` are the bits of the block's runs.
    """
    config, (clusters_m, clusters_n) = refs.config, refs.clusters

    def cluster(info: plgpu.NDLoopInfo, carry: Array) -> Array:
        width = config.width // config.cluster
        i, j = plgpu.planar_snake(info.index[0], refs.clusters, 0, width)
        i = i * config.cluster + lax.axis_index("cluster")
        return body(i, j, refs.starts[i], carry)

    loop: Any = plgpu.nd_loop(
        (clusters_m * clusters_n,), collective_axes="sm", init_carry=jnp.int32(0)
    )
    return loop(cluster)


def _copy_block(refs: _Refs, i: Array, j: Array, starts: Array, count: Array) -> Array:
    """Fills the stages of one block, each as soon as both others are done with it."""
    config, block_n = refs.config, refs.config.block_n()
    (x_smem, w_smem), (u_smem, b_smem) = refs.ring
    m = pl.ds(i * config.tile_m, config.tile_m)
    n = pl.ds(j * block_n, block_n)
    everyone = "cluster" if config.cluster > 1 else None

    def stage(count):
        at = lax.rem(count, config.steps)

        @pl.when(count >= config.steps)
        def _():
            plgpu.barrier_wait(refs.empty.at[at])

        return at, refs.full.at[at]

    @pl.loop(0, refs.depth_steps())
    def _(step):
        at, full = stage(count + step)
        k = pl.ds(step * config.tile_k, config.tile_k)
        w = refs.w.at[n, k] if refs.transposed else refs.w.at[k, n]
        plgpu.copy_gmem_to_smem(refs.x.at[m, k], x_smem.at[at], full)
        plgpu.copy_gmem_to_smem(w, w_smem.at[at], full, collective_axes=everyone)

    def low_rank(p, count):
        starts_here = (p == 0) | ((starts >> p) & 1 == 1)

        @pl.when(starts_here)
        def _():
            at, full = stage(count)
            # Slot S, none, is outside of b: what is copied from there is zero.
            b = refs.b.at[refs.slots[i, p], :, n]
            u_here = u_smem.at[at, pl.ds(0, config.tile_m)]
            plgpu.copy_gmem_to_smem(refs.u.at[m], u_here, full)
            b_here = b_smem.at[at, pl.ds(0, refs.rank())]
            plgpu.copy_gmem_to_smem(b, b_here, full)

        return count + starts_here.astype(jnp.int32)

    return lax.fori_loop(0, refs.pieces(), low_rank, count + refs.depth_steps())


def _multiply_block(
    refs: _Refs, warpgroup: Array, i: Array, j: Array, starts: Array, count: Array
) -> Array:
    """One block of y, of which a warpgroup has half of the columns."""
    config, pieces = refs.config, refs.pieces()
    tile_n, piece = config.tile_n, config.tile_m // pieces
    half = pl.ds(warpgroup * tile_n, tile_n)
    base_NM = pl.run_scoped(
        functools.partial(_base, refs, half, count),
        plgpu.WGMMAAccumulatorRef((tile_n, config.tile_m), jnp.float32),
    )
    count += refs.depth_steps()
    for p in range(pieces):
        at = lax.rem(count, config.steps)
        last = p == pieces - 1
        begins = jnp.bool_(p == 0) | ((starts >> p) & 1 == 1)
        ends = jnp.bool_(last) | ((starts >> (p + 1)) & 1 == 1)
        rows = slice(p * piece, (p + 1) * piece)
        pl.when(begins)(functools.partial(plgpu.barrier_wait, refs.full.at[at]))
        low_NP = pl.run_scoped(
            functools.partial(_low_rank, refs, half, at, rows),
            plgpu.WGMMAAccumulatorRef((tile_n, piece), jnp.float32),
        )
        pl.when(ends)(functools.partial(plgpu.barrier_arrive, refs.empty.at[at]))
        count += ends.astype(jnp.int32)
        y_NP = (base_NM[:, rows] + low_NP).astype(refs.y.dtype)
        _store(refs, warpgroup, i, j, p * piece, y_NP)
    return count


def _base(refs: _Refs, half: Any, count: Array, acc: Any) -> Array:
    """`w^T x^T`, of this warpgroup's columns of w."""
    steps = refs.config.steps
    (x_smem, w_smem), _ = refs.ring

    @pl.loop(0, refs.depth_steps())
    def _(step):
        at = lax.rem(count + step, steps)
        plgpu.barrier_wait(refs.full.at[at])
        if refs.transposed:
            w = w_smem.at[at, half]
        else:
            w = w_smem.at[at, :, half].transpose((1, 0))
        plgpu.wgmma(acc, w, x_smem.at[at].transpose((1, 0)))
        # The multiplication of the step before is done, and its stage free.
        plgpu.wgmma_wait(1)

        @pl.when(step > 0)
        def _():
            plgpu.barrier_arrive(refs.empty.at[lax.rem(count + step - 1, steps)])

    plgpu.wgmma_wait(0)
    last = count + refs.depth_steps() - 1
    plgpu.barrier_arrive(refs.empty.at[lax.rem(last, steps)])
    return acc[...]


def _low_rank(refs: _Refs, half: Any, at: Array, rows: slice, acc: Any) -> Array:
    """`b^T u^T` of one piece, with the b and u of a stage."""
    _, (u_smem, b_smem) = refs.ring
    b = b_smem.at[at, pl.ds(0, refs.rank()), half].transpose((1, 0))
    plgpu.wgmma(acc, b, u_smem.at[at, rows].transpose((1, 0)))
    return acc[...]


def _store(
    refs: _Refs, warpgroup: Array, i: Array, j: Array, row: int, y_NP: Array
) -> None:
    """Writes the columns of a piece from `row` of the block on, as rows of y."""
    config, (columns, piece) = refs.config, y_NP.shape
    part, within = divmod(row, config.store_m)
    out = refs.y_smem.at[warpgroup, part % 2]
    if within == 0:
        # The write before may still read the other buffer; none reads this one.
        plgpu.wait_smem_to_gmem(1, wait_read_only=True)
    y_NP = plgpu.layout_cast(y_NP, plgpu.Layout.WGMMA_TRANSPOSED)
    out.at[pl.ds(within, piece)].transpose((1, 0))[...] = y_NP
    if within + piece == config.store_m:
        plgpu.commit_smem()
        m = pl.ds(i * config.tile_m + part * config.store_m, config.store_m)
        n = pl.ds(j * config.block_n() + warpgroup * columns, columns)
        plgpu.copy_smem_to_gmem(out, refs.y.at[m, n])
