"""The low-rank matmul as two Pallas kernels for TPU v5e and newer.

`_core` is `y = x w + u b` and, with the weight transposed, `dx = dy w^T + v a`: one
float32 accumulator takes the low-rank term of every tile first and the base product
then, so neither term alone is ever in HBM. `_side` reads rows z once for their product
with the adapters (`u = x a^T`), for the adapters' gradients (`da = v^T x`), or for both
(`v = dy b^T` and `db = u^T dy`, one pass over dy).

A block of rows holds tiles of many adapters, so that a block of `w` is used by all of
them. How a tile finds its adapter: the slots are prefetched to scalar memory, and a
column block of *all* adapters, `[S, R, columns]`, is in VMEM; a tile indexes it by its
slot. The columns are the outer axis of the grid, so the stack is read from HBM exactly
once, whatever the order of the tiles, by the ordinary block pipeline. Copying only the
slots of a block would read less where few of many slots are in use, but an adapter
again for every block of rows, and by hand-written copies and semaphores. The gradients
are summed the same way: `[S, R, columns]` in float32 stays in VMEM while all rows pass,
and tile after tile is added to its slot; no partial sums reach HBM. The price: slots
are limited by VMEM (to some 600 of rank 32 in the backward pass).

Stacks are `[R, columns]` per adapter: with R last, 32 would be padded to 128 lanes.
Every tile is a product of its own, never a masked part of a larger one: a NaN in one
adapter stays there.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from seal_kernels.lora_matmul import mosaic_tpu_blocks as blocks

# So many rows' tiles are worked on in one step of a kernel's loop over tiles.
UNROLL_ROWS = 128


def forward(
    x_MD: Array,
    w_DF: Array,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    *,
    interpret: Any = False,
) -> tuple[Array, Array]:
    """`y = x w + (x a^T) b`, every tile of rows with the adapter of its slot.

    Arguments and results as in `reference.forward`; a product of float32 operands is
    of full float32 precision.

    Args:
      interpret: run on the CPU: True, or `pltpu.InterpretParams`.

    Raises:
      NotImplementedError: a shape or dtype that these kernels do not take.
    """
    piece, slots_G = _pieces(x_MD, w_DF, a_SRD, b_SRF, slots_G)
    run = {"piece": piece, "interpret": interpret}
    (u_MR,) = _side(slots_G, x_MD, a_SRD.shape, stack_SRC=a_SRD, **run)
    y_MF = _core(slots_G, x_MD, w_DF, u_MR, b_SRF, transposed=False, **run)
    return y_MF, u_MR


def backward(
    dy_MF: Array,
    x_MD: Array,
    u_MR: Array,
    w_DF: Array,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    *,
    interpret: Any = False,
) -> tuple[Array, Array, Array]:
    """The gradients of `forward` by x, a and b, as in `reference.backward`."""
    piece, slots_G = _pieces(x_MD, w_DF, a_SRD, b_SRF, slots_G)
    run = {"piece": piece, "interpret": interpret}
    v_MR, db_SRF = _side(slots_G, dy_MF, b_SRF.shape, stack_SRC=b_SRF, s_MR=u_MR, **run)
    dx_MD = _core(slots_G, dy_MF, w_DF, v_MR, a_SRD, transposed=True, **run)
    (da_SRD,) = _side(slots_G, x_MD, a_SRD.shape, s_MR=v_MR, **run)
    return dx_MD, da_SRD, db_SRF


def _pieces(
    x_MD: Array, w_DF: Array, a_SRD: Array, b_SRF: Array, slots_G: Array | np.ndarray
) -> tuple[int, Array]:
    """Rows of a piece of a tile, and the slot of each piece, -1 for none.

    Raises:
      NotImplementedError: a shape or dtype that these kernels do not take.
    """
    dtypes = (jnp.bfloat16, jnp.float32)
    for name, array in {"x": x_MD, "w": w_DF, "a": a_SRD, "b": b_SRF}.items():
        if array.dtype not in dtypes:
            raise NotImplementedError(
                f"{name} is {array.dtype}, not bfloat16 or float32"
            )
    slots, rank, width = a_SRD.shape
    features = b_SRF.shape[2]
    if width % blocks.LANES or features % blocks.LANES:
        raise NotImplementedError(
            f"D={width} and F={features} must be multiples of {blocks.LANES} lanes"
        )
    if rank % 8:
        raise NotImplementedError(f"R={rank} must be a multiple of 8 sublanes")
    tile = len(x_MD) // len(slots_G)
    # One register holds 8 rows of 32 bits, or 16 of 16 bits.
    least = 32 // x_MD.dtype.itemsize
    if tile % least or not tile:
        raise NotImplementedError(
            f"a tile of {tile} rows must be a multiple of {least} for {x_MD.dtype}"
        )
    piece = blocks.piece(tile, least)
    valid_G = (slots_G >= 0) & (slots_G < slots)
    slots_G = jnp.where(valid_G, jnp.asarray(slots_G, jnp.int32), -1)
    return piece, jnp.repeat(slots_G, tile // piece)


def _core(
    slots_G: Array,
    x_MK: Array,
    w: Array,
    u_MR: Array,
    b_SRN: Array,
    *,
    transposed: bool,
    piece: int,
    interpret: Any,
) -> Array:
    """`x w + u b` of each piece with its slot's b; `w` is [N, K] if `transposed`."""
    rows, depth = x_MK.shape
    slots, rank, columns = b_SRN.shape
    m, n, k = blocks.of_core(
        rows,
        columns,
        depth,
        piece=piece,
        itemsize=x_MK.dtype.itemsize,
        adapters=(slots, rank, b_SRN.dtype.itemsize),
    )
    grid = (columns // n, pl.cdiv(rows, m), depth // k)
    w_block = (n, k) if transposed else (k, n)
    w_index = (lambda j, i, l, _: (j, l)) if transposed else (lambda j, i, l, _: (l, j))
    return pl.pallas_call(
        functools.partial(_core_kernel, piece=piece, transposed=transposed),
        out_shape=jax.ShapeDtypeStruct((rows, columns), x_MK.dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=grid,
            in_specs=[
                pl.BlockSpec((m, k), lambda j, i, l, _: (i, l)),
                pl.BlockSpec(w_block, w_index),
                pl.BlockSpec((m, rank), lambda j, i, l, _: (i, 0)),
                pl.BlockSpec((slots, rank, n), lambda j, i, l, _: (0, 0, j)),
            ],
            out_specs=pl.BlockSpec((m, n), lambda j, i, l, _: (i, j)),
            scratch_shapes=[pltpu.VMEM((m, n), jnp.float32)],
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=blocks.VMEM_LIMIT,
        ),
        interpret=interpret,
        name="lora_matmul_core",
    )(_padded(slots_G, grid[1] * m // piece), x_MK, w, u_MR, b_SRN)


def _core_kernel(
    slots_ref, x_ref, w_ref, u_ref, b_ref, y_ref, sum_ref, *, piece, transposed
):
    tiles = x_ref.shape[0] // piece
    first = pl.program_id(1) * tiles
    step, steps = pl.program_id(2), pl.num_programs(2)

    def low_rank(g):
        slot, rows = slots_ref[first + g], _rows(g, piece)
        b_RN = b_ref[jnp.maximum(slot, 0)].astype(u_ref.dtype)
        low_TN = _dot(u_ref[rows, :], b_RN, 1, 0)
        sum_ref[rows, :] = jnp.where(slot >= 0, low_TN, 0.0)

    @pl.when(step == 0)
    def _():
        _for_each(tiles, piece, low_rank)

    # A product is unrolled: a loop over rows keeps the program small.
    chunk = blocks.chunk(tiles, piece)

    def base(i, _):
        rows = _rows(i, chunk)
        sum_ref[rows, :] += _dot(x_ref[rows, :], w_ref[...], 1, int(transposed))

    lax.fori_loop(0, tiles // (chunk // piece), base, None)

    @pl.when(step == steps - 1)
    def _():
        y_ref[...] = sum_ref[...].astype(y_ref.dtype)


def _side(
    slots_G: Array,
    z_MC: Array,
    shape: tuple[int, ...],
    *,
    stack_SRC: Array | None = None,
    s_MR: Array | None = None,
    piece: int,
    interpret: Any,
) -> list[Array]:
    """One pass over the rows of z: `p = z stack^T`, and the sums `s^T z` by slot.

    Args:
      slots_G: the slot of each piece, -1 for none.
      z_MC: the rows.
      shape: `(S, R, C)`, of the stack and of the sums.
      stack_SRC: if given, p is wanted.
      s_MR: if given, the sums are wanted.

    Returns:
      What is wanted of `p_MR`, in the dtype of z and zero without adapter, and of the
      sums `[S, R, C]` in float32.
    """
    wants_p, wants_sums = stack_SRC is not None, s_MR is not None
    rows, columns = z_MC.shape
    slots, rank, _ = shape
    m, c = blocks.of_side(
        rows,
        columns,
        piece=piece,
        itemsize=z_MC.dtype.itemsize,
        adapters=(slots, rank, 0 if stack_SRC is None else stack_SRC.dtype.itemsize),
        sums=wants_sums,
    )
    grid = (columns // c, pl.cdiv(rows, m))
    stack = pl.BlockSpec((slots, rank, c), lambda j, i, _: (0, 0, j))
    s = pl.BlockSpec((m, rank), lambda j, i, _: (i, 0))
    # The sum over columns is one block, in VMEM from the first step to the last.
    all_rows = (grid[1] * m, rank)
    p = pl.BlockSpec(all_rows, lambda j, i, _: (0, 0))
    p_shape = jax.ShapeDtypeStruct(all_rows, jnp.float32)
    sums_shape = jax.ShapeDtypeStruct(shape, jnp.float32)
    p_MR, sums_SRC = pl.pallas_call(
        functools.partial(_side_kernel, piece=piece),
        out_shape=(p_shape if wants_p else None, sums_shape if wants_sums else None),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=grid,
            in_specs=[
                pl.BlockSpec((m, c), lambda j, i, _: (i, j)),
                s if wants_sums else None,
                stack if wants_p else None,
            ],
            out_specs=(p if wants_p else None, stack if wants_sums else None),
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary" if wants_p else "parallel", "arbitrary"),
            vmem_limit_bytes=blocks.VMEM_LIMIT,
        ),
        interpret=interpret,
        name="lora_matmul_side",
    )(_padded(slots_G, grid[1] * m // piece), z_MC, s_MR, stack_SRC)
    wanted = [p_MR[:rows].astype(z_MC.dtype)] if wants_p else []
    return [*wanted, sums_SRC] if wants_sums else wanted


def _side_kernel(slots_ref, z_ref, s_ref, stack_ref, p_ref, sums_ref, *, piece):
    column, row = pl.program_id(0), pl.program_id(1)
    tiles = z_ref.shape[0] // piece

    if p_ref is not None:

        @pl.when((column == 0) & (row == 0))
        def _():
            p_ref[...] = jnp.zeros_like(p_ref)

    if sums_ref is not None:

        @pl.when(row == 0)
        def _():
            sums_ref[...] = jnp.zeros_like(sums_ref)

    def side(g):
        at = row * tiles + g
        slot, rows = slots_ref[at], _rows(g, piece)
        valid, slot = slot >= 0, jnp.maximum(slot, 0)
        z_TC = z_ref[rows, :]
        if p_ref is not None:
            p_TR = _dot(z_TC, stack_ref[slot].astype(z_TC.dtype), 1, 1)
            p_ref[_rows(at, piece), :] += jnp.where(valid, p_TR, 0.0)
        if sums_ref is not None:
            sum_RC = _dot(s_ref[rows, :], z_TC, 0, 0)
            sums_ref[slot] += jnp.where(valid, sum_RC, 0.0)

    _for_each(tiles, piece, side)


def _for_each(tiles: int, piece: int, body: Callable[[Any], None]) -> None:
    """`body(g)` for the tiles of a block, several in a row for one step of the loop.

    A matmul's result comes long after its operands went in. Bodies in a row, without
    a branch, let the next tiles' operands go in meanwhile.
    """
    group = math.gcd(tiles, max(1, UNROLL_ROWS // piece))

    def step(i, _):
        for g in range(group):
            body(i * group + g)

    lax.fori_loop(0, tiles // group, step, None)


def _rows(g: Any, piece: int) -> Any:
    return pl.ds(pl.multiple_of(g * piece, piece), piece)


def _dot(one: Array, other: Array, axis: int, other_axis: int) -> Array:
    """The product over one axis of each, in float32."""
    exact = one.dtype == jnp.float32
    return lax.dot_general(
        one,
        other,
        (((axis,), (other_axis,)), ((), ())),
        precision=lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )


def _padded(slots_G: Array, pieces: int) -> Array:
    """Pieces past the last row, in the last block, have no adapter."""
    return jnp.pad(slots_G, (0, pieces - len(slots_G)), constant_values=-1)
