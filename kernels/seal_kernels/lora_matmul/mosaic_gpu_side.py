"""The Hopper kernel of the rank-R side work: one pass over rows z of many adapters for

    p = z stack^T     u (z = x, stack = a) and v (z = dy, stack = b)
    sums = s^T z      by adapter: db (s = u, z = dy) and da (s = v, z = x)

or for both, which is v and db from one reading of dy.

A thread block takes one adapter and `width` columns, and reads that adapter's tiles
from wherever they are, 64 rows at a time. So the sums are in float32 registers until
all tiles of the adapter are in, and written once: no partial sums, no atomics, and the
tiles of an adapter need not be neighbours. p is a sum over columns, of which a block
has only some: its parts are added up by XLA, an R-th of the size of z or less.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from seal_kernels.lora_matmul.mosaic_gpu_core import tiled

# Rows that are multiplied at once: what wgmma takes on its M side.
GROUP = 64

# Columns of the sums that are written at once.
STORE = 64

# Copies of a group that are under way at once.
STEPS = 2


def side(
    z_MC: Array,
    slots_G: Array,
    *,
    slots: int,
    stack_SRC: Array | None = None,
    s_MR: Array | None = None,
    interpret: Any = None,
) -> tuple[Array | None, Array | None]:
    """One pass over the rows of z.

    Args:
      z_MC: rows, `M / G` to a tile; a tile is a multiple of 8 rows, C of 64.
      slots_G: the slot of each tile; S for none.
      slots: the number of adapters S.
      stack_SRC: if given, p is wanted. In the dtype of z, R is 16, 32 or 64.
      s_MR: if given, the sums are wanted. In the dtype of z.
      interpret: `plgpu.InterpretGPUParams` to run on the CPU.

    Returns:
      `p_MR` in the dtype of z, zero for rows without adapter; `sums_SRC` in float32,
      zero for adapters without rows; None for what is not wanted.
    """
    rows, columns = z_MC.shape
    tile = rows // len(slots_G)
    piece = next(n for n in (64, 32, 16, 8) if tile % n == 0)
    slots_P = jnp.repeat(slots_G, tile // piece)
    order_P = jnp.argsort(slots_P, stable=True).astype(jnp.int32)
    bounds_S = jnp.searchsorted(slots_P[order_P], jnp.arange(slots + 1))

    wants_p, wants_sums = stack_SRC is not None, s_MR is not None
    rank = stack_SRC.shape[1] if wants_p else s_MR.shape[1]
    width = next(n for n in (256, 128, 64) if columns % n == 0)
    splits = columns // width

    def shared(*shape: int, minor: int, dtype: Any = z_MC.dtype) -> Any:
        return plgpu.SMEM(shape, dtype, transforms=tiled(minor, dtype))

    copies = GROUP // piece * (1 + wants_sums)
    scratch = {
        "z_smem": shared(STEPS, GROUP, width, minor=rank),
        "full": plgpu.Barrier(num_arrivals=copies, num_barriers=STEPS),
    }
    gmem, outs = {"z": z_MC}, {}
    if wants_p:
        gmem["stack"] = stack_SRC
        outs["p"] = jax.ShapeDtypeStruct((splits, rows, rank), jnp.float32)
        scratch["stack_smem"] = shared(rank, width, minor=rank)
        scratch["stack_full"] = plgpu.Barrier()
        scratch["p_smem"] = shared(GROUP, rank, minor=rank, dtype=jnp.float32)
    if wants_sums:
        gmem["s"] = s_MR
        outs["sums"] = jax.ShapeDtypeStruct((slots, rank, columns), jnp.float32)
        scratch["s_smem"] = shared(STEPS, GROUP, rank, minor=rank)
        store = (2, rank, STORE)
        scratch["sums_smem"] = shared(*store, minor=STORE, dtype=jnp.float32)

    def body(order_ref: Any, bounds_ref: Any, *refs: Any, **scratch: Any) -> None:
        named = dict(zip([*gmem, *outs], refs, strict=True))
        _kernel(order_ref, bounds_ref, piece, named, **scratch)

    kernel = plgpu.kernel(
        body,
        out_type=list(outs.values()),
        grid=(splits, slots),
        grid_names=("split", "slot"),
        kernel_name="lora_matmul_side",
        scratch_types=scratch,
        interpret=interpret,
    )
    results = kernel(order_P, bounds_S.astype(jnp.int32), *gmem.values())
    results = dict(zip(outs, results, strict=True))
    if not wants_p:
        return None, results["sums"]
    # Nothing was written for rows without adapter.
    valid_M = jnp.repeat(slots_G < slots, tile)
    p_MR = jnp.where(valid_M[:, None], results["p"].sum(0), 0)
    return p_MR.astype(z_MC.dtype), results.get("sums")


def _kernel(
    order_ref: Any,
    bounds_ref: Any,
    piece: int,
    gmem: dict[str, Any],
    *,
    z_smem: Any,
    full: Any,
    stack_smem: Any = None,
    stack_full: Any = None,
    p_smem: Any = None,
    s_smem: Any = None,
    sums_smem: Any = None,
) -> None:
    width = z_smem.shape[2]
    split, slot = lax.axis_index("split"), lax.axis_index("slot")
    columns = pl.ds(split * width, width)
    begin, end = bounds_ref[slot], bounds_ref[slot + 1]
    pieces = GROUP // piece
    groups = lax.div(end - begin + pieces - 1, pieces)

    def places(group):
        """Where each piece of a group is: its rows in z, and in the group."""
        for q in range(pieces):
            at = begin + group * pieces + q
            row = order_ref[lax.min(at, order_ref.shape[0] - 1)] * piece
            # Past the last row, copies read zeros and write nothing.
            row = lax.select(at < end, row, gmem["z"].shape[0])
            yield pl.ds(row, piece), pl.ds(q * piece, piece)

    def fetch(group):
        at = lax.rem(group, STEPS)
        for rows, here in places(group):
            z_part = gmem["z"].at[rows, columns]
            plgpu.copy_gmem_to_smem(z_part, z_smem.at[at, here], full.at[at])
            if sums_smem is not None:
                s_part = gmem["s"].at[rows]
                plgpu.copy_gmem_to_smem(s_part, s_smem.at[at, here], full.at[at])

    def write_p(group, at):
        def product(acc):
            plgpu.wgmma(acc, z_smem.at[at], stack_smem.transpose((1, 0)))
            return acc[...]

        p_GR = pl.run_scoped(product, plgpu.ACC(p_smem.shape, jnp.float32))
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        p_smem[...] = p_GR
        plgpu.commit_smem()
        for rows, here in places(group):
            plgpu.copy_smem_to_gmem(p_smem.at[here], gmem["p"].at[split, rows])

    def all_groups(sums_acc):
        @pl.loop(0, groups)
        def _(group):
            at = lax.rem(group, STEPS)
            plgpu.barrier_wait(full.at[at])
            if sums_smem is not None:
                z = z_smem.at[at].transpose((1, 0))
                plgpu.wgmma(sums_acc, z, s_smem.at[at])
            if stack_smem is not None:
                write_p(group, at)
            plgpu.wgmma_wait(0)
            pl.when(group + STEPS < groups)(lambda: fetch(group + STEPS))

        return None if sums_acc is None else sums_acc[...]

    if stack_smem is not None:

        @pl.when(groups > 0)
        def _():
            stack = gmem["stack"].at[slot, :, columns]
            plgpu.copy_gmem_to_smem(stack, stack_smem, stack_full)

    pl.loop(0, lax.min(groups, STEPS))(fetch)
    if stack_smem is not None:
        pl.when(groups > 0)(lambda: plgpu.barrier_wait(stack_full))

    if sums_smem is None:
        all_groups(None)
    else:
        accumulator = plgpu.ACC((width, sums_smem.shape[1]), jnp.float32)
        sums_CR = pl.run_scoped(all_groups, accumulator)
        sums_CR = plgpu.layout_cast(sums_CR, plgpu.Layout.WGMMA_TRANSPOSED)
        for part in range(width // STORE):
            out = sums_smem.at[part % 2]
            plgpu.wait_smem_to_gmem(1, wait_read_only=True)
            out.transpose((1, 0))[...] = sums_CR[part * STORE : (part + 1) * STORE]
            plgpu.commit_smem()
            store = pl.ds(split * width + part * STORE, STORE)
            plgpu.copy_smem_to_gmem(out, gmem["sums"].at[slot, :, store])
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
