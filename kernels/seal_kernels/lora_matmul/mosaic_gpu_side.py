"""The Hopper kernel of the rank-R side work: one pass over rows z of many adapters.

    products   p = z stack^T    u (z = x, stack = a) and v (z = dy, stack = b)
    sums       s^T z by slot    db (s = u, z = dy) and da (s = v, z = x)
    both                        v and db from one reading of dy

A thread block takes one adapter and some columns, and reads that adapter's tiles from
wherever they are, 64 rows at a time. So the sums stay in float32 registers until all
tiles of the adapter are in, and are written once: no partial sums, no atomics, and the
tiles of an adapter need not be neighbours. A product is a sum over columns, of which a
thread block has only some: XLA adds up its parts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from seal_kernels.lora_matmul.mosaic_gpu_config import shared

# Rows that are multiplied at once: what wgmma takes on its M side.
GROUP = 64

# Columns of the sums that are written at once.
STORE = 64

# Groups of which copies are under way or waiting.
STEPS = 2


def products(
    z_MC: Array, slots_G: Array, stack_SRC: Array, *, interpret: Any = None
) -> Array:
    """`z stack^T` in the dtype of z, every tile of rows with its slot's matrix.

    Args:
      z_MC: rows, `M / G` to a tile; a tile is a multiple of 8 rows, C of 64.
      slots_G: the slot of each tile; S for none, of which the product is zero.
      stack_SRC: the matrix of each slot, in the dtype of z; R is 16, 32 or 64.
      interpret: `plgpu.InterpretGPUParams` to run on the CPU.
    """
    slots, rank, _ = stack_SRC.shape
    return _side(z_MC, slots_G, slots, rank, interpret, stack=stack_SRC)["p"]


def sums(
    z_MC: Array, slots_G: Array, s_MR: Array, *, slots: int, interpret: Any = None
) -> Array:
    """`s^T z` over the rows of each slot, `[S, R, C]` in float32; zero without rows.

    Arguments as in `products`; `s_MR` in the dtype of z.
    """
    return _side(z_MC, slots_G, slots, s_MR.shape[1], interpret, s=s_MR)["sums"]


def products_and_sums(
    z_MC: Array, slots_G: Array, stack_SRC: Array, s_MR: Array, *, interpret: Any = None
) -> tuple[Array, Array]:
    """`products` and `sums` from one reading of z."""
    slots, rank, _ = stack_SRC.shape
    outs = _side(z_MC, slots_G, slots, rank, interpret, stack=stack_SRC, s=s_MR)
    return outs["p"], outs["sums"]


def _side(
    z_MC: Array,
    slots_G: Array,
    slots: int,
    rank: int,
    interpret: Any,
    **factors: Array,
) -> dict[str, Array]:
    """The results for the factors that are given: p of `stack`, sums of `s`."""
    rows, columns = z_MC.shape
    tile = rows // len(slots_G)
    piece = next(n for n in (64, 32, 16, 8) if tile % n == 0)
    width = next(n for n in (256, 128, 64) if columns % n == 0)
    splits = columns // width
    order_P, bounds_S = _order(jnp.repeat(slots_G, tile // piece), slots)

    outs = {}
    scratch = {
        "z_smem": shared(STEPS, GROUP, width, minor=rank),
        "full": plgpu.Barrier(
            num_arrivals=GROUP // piece * (2 if "s" in factors else 1),
            num_barriers=STEPS,
        ),
    }
    if "stack" in factors:
        outs["p"] = jax.ShapeDtypeStruct((splits, rows, rank), jnp.float32)
        scratch["stack_smem"] = shared(rank, width, minor=rank)
        scratch["stack_full"] = plgpu.Barrier()
        scratch["p_smem"] = shared(GROUP, rank, minor=rank, dtype=jnp.float32)
    if "s" in factors:
        outs["sums"] = jax.ShapeDtypeStruct((slots, rank, columns), jnp.float32)
        scratch["s_smem"] = shared(STEPS, GROUP, rank, minor=rank)
        store = (2, rank, STORE)
        scratch["sums_smem"] = shared(*store, minor=STORE, dtype=jnp.float32)

    names = ["order", "bounds", "z", *factors, *outs]

    def body(*gmem: Any, **scratch: Any) -> None:
        _kernel(_Refs(piece, **dict(zip(names, gmem, strict=True)), **scratch))

    kernel = plgpu.kernel(
        body,
        out_type=list(outs.values()),
        grid=(splits, slots),
        grid_names=("split", "slot"),
        kernel_name="lora_matmul_side",
        scratch_types=scratch,
        interpret=interpret,
    )
    results = kernel(order_P, bounds_S, z_MC, *factors.values())
    results = dict(zip(outs, results, strict=True))
    if "p" in results:
        # Nothing was written for rows without adapter.
        valid_M = jnp.repeat(slots_G < slots, tile)
        p_MR = jnp.where(valid_M[:, None], results["p"].sum(0), 0)
        results["p"] = p_MR.astype(z_MC.dtype)
    return results


def _order(slots_P: Array, slots: int) -> tuple[Array, Array]:
    """Pieces in the order of their slots; slot k has those from `bounds[k]` on."""
    order_P = jnp.argsort(slots_P, stable=True).astype(jnp.int32)
    # Counted, since XLA makes a loop of a search.
    before_PS = slots_P[:, None] < jnp.arange(slots + 1)[None]
    return order_P, before_PS.sum(0, dtype=jnp.int32)


class _Refs(NamedTuple):
    """What the kernel works on: in global memory, then in shared memory."""

    piece: int
    order: Any
    bounds: Any
    z: Any
    z_smem: Any
    full: Any
    stack: Any = None
    s: Any = None
    p: Any = None
    sums: Any = None
    stack_smem: Any = None
    stack_full: Any = None
    p_smem: Any = None
    s_smem: Any = None
    sums_smem: Any = None

    def columns(self) -> Any:
        """Of this thread block."""
        width = self.z_smem.shape[2]
        return pl.ds(lax.axis_index("split") * width, width)

    def places(self, group: Any) -> list[tuple[Any, Any]]:
        """Where each piece of a group is: its rows in z, and in the group."""
        slot = lax.axis_index("slot")
        begin, end = self.bounds[slot], self.bounds[slot + 1]
        copies = []
        for q in range(GROUP // self.piece):
            at = begin + group * (GROUP // self.piece) + q
            row = self.order[lax.min(at, self.order.shape[0] - 1)] * self.piece
            # Past the last row, copies read zeros and write nothing.
            row = lax.select(at < end, row, self.z.shape[0])
            copies.append((pl.ds(row, self.piece), pl.ds(q * self.piece, self.piece)))
        return copies


def _kernel(refs: _Refs) -> None:
    slot = lax.axis_index("slot")
    pieces = refs.bounds[slot + 1] - refs.bounds[slot]
    groups = pl.cdiv(pieces, GROUP // refs.piece)

    @pl.when(groups > 0)
    def _():
        if refs.stack is not None:
            stack = refs.stack.at[slot, :, refs.columns()]
            plgpu.copy_gmem_to_smem(stack, refs.stack_smem, refs.stack_full)
        pl.loop(0, lax.min(groups, STEPS))(lambda group: _fetch(refs, group))
        if refs.stack is not None:
            plgpu.barrier_wait(refs.stack_full)

    def all_groups(acc: Any = None) -> Array | None:
        @pl.loop(0, groups)
        def _(group):
            at = lax.rem(group, STEPS)
            plgpu.barrier_wait(refs.full.at[at])
            if refs.s is not None:
                z = refs.z_smem.at[at].transpose((1, 0))
                plgpu.wgmma(acc, z, refs.s_smem.at[at])
            if refs.stack is not None:
                _write_p(refs, group)
            plgpu.wgmma_wait(0)
            pl.when(group + STEPS < groups)(lambda: _fetch(refs, group + STEPS))

        return None if acc is None else acc[...]

    if refs.s is None:
        all_groups()
    else:
        shape = refs.z_smem.shape[2], refs.s_smem.shape[2]
        accumulator = plgpu.WGMMAAccumulatorRef(shape, jnp.float32)
        _write_sums(refs, pl.run_scoped(all_groups, accumulator))
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)


def _fetch(refs: _Refs, group: Any) -> None:
    at = lax.rem(group, STEPS)
    for rows, here in refs.places(group):
        z = refs.z.at[rows, refs.columns()]
        plgpu.copy_gmem_to_smem(z, refs.z_smem.at[at, here], refs.full.at[at])
        if refs.s is not None:
            s_here = refs.s_smem.at[at, here]
            plgpu.copy_gmem_to_smem(refs.s.at[rows], s_here, refs.full.at[at])


def _write_p(refs: _Refs, group: Any) -> None:
    def product(acc: Any) -> Array:
        z = refs.z_smem.at[lax.rem(group, STEPS)]
        plgpu.wgmma(acc, z, refs.stack_smem.transpose((1, 0)))
        return acc[...]

    accumulator = plgpu.WGMMAAccumulatorRef(refs.p_smem.shape, jnp.float32)
    p_GR = pl.run_scoped(product, accumulator)
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
    refs.p_smem[...] = p_GR
    plgpu.commit_smem()
    for rows, here in refs.places(group):
        p = refs.p.at[lax.axis_index("split"), rows]
        plgpu.copy_smem_to_gmem(refs.p_smem.at[here], p)


def _write_sums(refs: _Refs, sums_CR: Array) -> None:
    sums_CR = plgpu.layout_cast(sums_CR, plgpu.Layout.WGMMA_TRANSPOSED)
    width = sums_CR.shape[0]
    for part in range(width // STORE):
        out = refs.sums_smem.at[part % 2]
        plgpu.wait_smem_to_gmem(1, wait_read_only=True)
        out.transpose((1, 0))[...] = sums_CR[part * STORE : (part + 1) * STORE]
        plgpu.commit_smem()
        columns = pl.ds(lax.axis_index("split") * width + part * STORE, STORE)
        sums = refs.sums.at[lax.axis_index("slot"), :, columns]
        plgpu.copy_smem_to_gmem(out, sums)
