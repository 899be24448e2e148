"""The low-rank products of packed rows in Pallas, compiled by Triton: for GPUs.

    u = x a^T      y = x w + u b      v = dy b^T      dx = dy w^T + v a
    da = v^T x     db = u^T dy

The base products are XLA's. Of the low-rank ones a block of rows goes through the
adapters that some row of it is under, and an adapter's gradient through the blocks from
its first row to its last. So adapters are read where they lie, whatever the tile; what
is computed for nothing are the other rows of a block; and as rows and adapters are
taken apart by `where`, nothing that is not finite reaches another adapter. Sums go in
one order, so a program gives the same bits again.

Rows of one adapter should lie side by side, as a plan lays a line. They need not.

jax has declared its Triton backend deprecated and means to drop it. Without it these
kernels are refused, and `auto` is what else there is.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl

from seal_kernels import float8, triton

# Beside the project's letters: B rows of a block, W columns of one, P ranks of one;
# I blocks of rows, J shares of a sum over columns.

# Rows of a block, the most columns of one, and the most bytes of ranks: with those, all
# fits the 100 KB of shared memory of smaller GPUs. Triton takes powers of two.
BLOCK, _COLUMNS, _RANK_BYTES = 64, 64, 256
# Rows that a gradient adds up at a time: a line begins and ends within such.
SUMMED = 32
# Programs of a launch that keep a GPU busy; a sum over columns is cut for that.
_PROGRAMS = 256


class Owners(NamedTuple):
    """Which adapter is each row's.

    Rows `[M]`: the adapter, -1 if none. Blocks of rows `[I]`: the number of adapters in
    one. Adapters `[S]`: `SUMMED` rows are a block here; the first block with a row
    under it, and the one past the last.
    """

    rows: Array
    counts: Array
    begins: Array
    ends: Array


def forward(
    x_MD: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    interpret: bool = False,
) -> tuple[Array, Array]:
    """`y = x w + (x a^T) b`; arguments and results as in `reference.forward`.

    Raises:
      NotImplementedError: it does not do this dtype, size or device, or this jax has
        no Triton.
    """
    _check(x_MD, a_SRD, b_SRF, interpret)
    owners = owners_of(slots_G, len(a_SRD), len(x_MD))
    u_MR = _down(x_MD, a_SRD, owners, "low_rank_u", interpret)
    low_MF = _up(u_MR, b_SRF, owners, "low_rank_y", interpret)
    return float8.forward(x_MD, w_DF) + low_MF, u_MR


def backward(
    dy_MF: Array,
    x_MD: Array,
    u_MR: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    interpret: bool = False,
) -> tuple[Array, Array, Array]:
    """The gradients of `forward` by x, a and b, as in `reference.backward`.

    Those of a and b are in their dtypes. Raises as `forward` does.
    """
    _check(x_MD, a_SRD, b_SRF, interpret)
    owners = owners_of(slots_G, len(a_SRD), len(x_MD))
    v_MR = _down(dy_MF, b_SRF, owners, "low_rank_v", interpret)
    low_MD = _up(v_MR, a_SRD, owners, "low_rank_x", interpret)
    da_SRD = _outer(v_MR, x_MD, a_SRD, owners, "low_rank_a", interpret)
    db_SRF = _outer(u_MR, dy_MF, b_SRF, owners, "low_rank_b", interpret)
    return float8.slope(dy_MF, w_DF) + low_MD, da_SRD, db_SRF


def owners_of(slots_G: Array | np.ndarray, slots: int, rows: int) -> Owners:
    """Whose each row is, the rows filled up to whole blocks with none's."""
    slots_G = jnp.asarray(slots_G, jnp.int32)
    slots_G = jnp.where((slots_G >= 0) & (slots_G < slots), slots_G, -1)
    tile = rows // len(slots_G)
    owner_M = jnp.repeat(slots_G, tile, total_repeat_length=rows)
    owner_M = jnp.pad(owner_M, (0, -rows % BLOCK), constant_values=-1)
    sorted_IB = jnp.sort(owner_M.reshape(-1, BLOCK), axis=1)
    before_IB = jnp.pad(sorted_IB[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    counts_I = jnp.sum(sorted_IB != before_IB, axis=1, dtype=jnp.int32)
    own_SM = owner_M[None, :] == jnp.arange(slots)[:, None]
    own_SI = own_SM.reshape(slots, -1, SUMMED).any(2)
    first_S = jnp.argmax(own_SI, axis=1)
    end_S = own_SI.shape[1] - jnp.argmax(own_SI[:, ::-1], axis=1)
    end_S = jnp.where(own_SI.any(1), end_S, first_S)
    return Owners(owner_M, counts_I, first_S.astype(jnp.int32), end_S.astype(jnp.int32))


# Products


def _down(
    rows_MX: Array, stack_SRX: Array, owners: Owners, name: str, interpret: bool
) -> Array:
    """Each row times its adapter, a sum over columns, `[M, R]`; zeros without one.

    Several programs share a sum, each with a part of the columns.
    """
    rows, (slots, ranks, width) = _tall(rows_MX), stack_SRX.shape
    columns = triton.power_of_two(width, _COLUMNS)
    block = _rank_block(ranks, rows.dtype, stack_SRX.dtype)
    blocks = len(rows) // BLOCK
    shares = _shares(width // columns, blocks * ranks // block)
    part = width // shares
    out_JMR = _call(
        functools.partial(_down_block, columns),
        (blocks, ranks // block, shares),
        [
            pl.BlockSpec((BLOCK, part), lambda i, r, j: (i, j)),
            pl.BlockSpec((slots, block, part), lambda i, r, j: (0, r, j)),
            pl.BlockSpec((BLOCK,), lambda i, r, j: (i,)),
            pl.BlockSpec((1,), lambda i, r, j: (i,)),
        ],
        pl.BlockSpec((None, BLOCK, block), lambda i, r, j: (j, i, r)),
        jax.ShapeDtypeStruct((shares, len(rows), ranks), jnp.float32),
        name,
        interpret,
    )(rows, stack_SRX, owners.rows, owners.counts)
    return out_JMR.sum(0).astype(rows_MX.dtype)[: len(rows_MX)]


def _down_block(columns, rows_ref, stack_ref, owner_ref, count_ref, out_ref):
    owner_B = owner_ref[...]

    def of_adapter(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        last, total_BP = carry
        adapter = _next(owner_B, last)

        def body(k: Array, sum_BP: Array) -> Array:
            at = pl.ds(k * columns, columns)
            rows_BW = rows_ref[:, at]
            part_PW = stack_ref[adapter, :, at].astype(rows_BW.dtype)
            return sum_BP + triton.dot(rows_BW, part_PW.T)

        zeros = jnp.zeros(out_ref.shape, jnp.float32)
        sum_BP = lax.fori_loop(0, rows_ref.shape[1] // columns, body, zeros)
        own_B1 = (owner_B == adapter)[:, None]
        return adapter, jnp.where(own_B1, sum_BP, total_BP)

    begin = jnp.int32(-1), jnp.zeros(out_ref.shape, jnp.float32)
    _, total_BP = lax.fori_loop(0, count_ref[0], of_adapter, begin)
    out_ref[...] = total_BP


def _up(
    small_MR: Array, stack_SRX: Array, owners: Owners, name: str, interpret: bool
) -> Array:
    """Each row's ranks times its adapter, `[M, X]`; zeros without one."""
    small, (slots, ranks, width) = _tall(small_MR), stack_SRX.shape
    columns = triton.power_of_two(width, 2 * _COLUMNS)
    block = _rank_block(ranks, small.dtype, stack_SRX.dtype)
    out_MX = _call(
        functools.partial(_up_block, block),
        (len(small) // BLOCK, width // columns),
        [
            pl.BlockSpec((BLOCK, ranks), lambda i, j: (i, 0)),
            pl.BlockSpec((slots, ranks, columns), lambda i, j: (0, 0, j)),
            pl.BlockSpec((BLOCK,), lambda i, j: (i,)),
            pl.BlockSpec((1,), lambda i, j: (i,)),
        ],
        pl.BlockSpec((BLOCK, columns), lambda i, j: (i, j)),
        jax.ShapeDtypeStruct((len(small), width), small_MR.dtype),
        name,
        interpret,
    )(small, stack_SRX, owners.rows, owners.counts)
    return out_MX[: len(small_MR)]


def _up_block(block, small_ref, stack_ref, owner_ref, count_ref, out_ref):
    owner_B = owner_ref[...]

    def of_adapter(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        last, total_BW = carry
        adapter = _next(owner_B, last)

        def body(r: Any, sum_BW: Array) -> Array:
            at = pl.ds(r * block, block)
            small_BP = small_ref[:, at]
            part_PW = stack_ref[adapter, at, :].astype(small_BP.dtype)
            return sum_BW + triton.dot(small_BP, part_PW)

        zeros = jnp.zeros(out_ref.shape, jnp.float32)
        sum_BW = lax.fori_loop(0, small_ref.shape[1] // block, body, zeros)
        own_B1 = (owner_B == adapter)[:, None]
        return adapter, jnp.where(own_B1, sum_BW, total_BW)

    begin = jnp.int32(-1), jnp.zeros(out_ref.shape, jnp.float32)
    _, total_BW = lax.fori_loop(0, count_ref[0], of_adapter, begin)
    out_ref[...] = total_BW.astype(out_ref.dtype)


def _outer(
    small_MR: Array,
    rows_MX: Array,
    like_SRX: Array,
    owners: Owners,
    name: str,
    interpret: bool,
) -> Array:
    """The sum over each adapter's rows of ranks times columns, as `like_SRX`."""
    slots, ranks, width = like_SRX.shape
    small, rows = _tall(small_MR), _tall(rows_MX)
    tall = len(rows)
    columns = triton.power_of_two(width, 2 * _COLUMNS)
    block = _rank_block(ranks, small.dtype)
    return _call(
        _outer_block,
        (slots, ranks // block, width // columns),
        [
            pl.BlockSpec((tall, block), lambda s, r, j: (0, r)),
            pl.BlockSpec((tall, columns), lambda s, r, j: (0, j)),
            pl.BlockSpec((tall,), lambda s, r, j: (0,)),
            pl.BlockSpec((1,), lambda s, r, j: (s,)),
            pl.BlockSpec((1,), lambda s, r, j: (s,)),
        ],
        pl.BlockSpec((None, block, columns), lambda s, r, j: (s, r, j)),
        jax.ShapeDtypeStruct(like_SRX.shape, like_SRX.dtype),
        name,
        interpret,
    )(small, rows, owners.rows, owners.begins, owners.ends)


def _outer_block(small_ref, rows_ref, owner_ref, begin_ref, end_ref, out_ref):
    adapter = pl.program_id(0)

    def body(i: Array, sum_PW: Array) -> Array:
        at = pl.ds(i * SUMMED, SUMMED)
        own_B1 = (owner_ref[at] == adapter)[:, None]
        # Zero times NaN is NaN: both sides are cut.
        small_BP = jnp.where(own_B1, small_ref[at, :], 0)
        rows_BW = jnp.where(own_B1, rows_ref[at, :], 0)
        return sum_PW + triton.dot(small_BP.T, rows_BW)

    zeros = jnp.zeros(out_ref.shape, jnp.float32)
    sum_PW = lax.fori_loop(begin_ref[0], end_ref[0], body, zeros)
    out_ref[...] = sum_PW.astype(out_ref.dtype)


def _next(owner_B: Array, last: Array) -> Array:
    """The next adapter of a block's rows, in order."""
    none = jnp.int32(2**31 - 1)
    return jnp.min(jnp.where(owner_B > last, owner_B, none))


# Around them


def _check(x_MD: Array, a_SRD: Array, b_SRF: Array, interpret: bool) -> None:
    triton.check_dtype(x_MD.dtype)
    # Padded, all adapters would be copied.
    sizes = *a_SRD.shape[1:], b_SRF.shape[2]
    if any(size % triton.LEAST for size in sizes):
        raise NotImplementedError(
            f"rank and widths {sizes} must be multiples of {triton.LEAST}"
        )
    if not all((*x_MD.shape, *a_SRD.shape, *b_SRF.shape)):
        raise NotImplementedError("there are no rows or no adapters")
    if not interpret:
        triton.capability()


def _call(
    kernel: Any,
    grid: tuple[int, ...],
    takes: list[pl.BlockSpec],
    gives: pl.BlockSpec,
    shape: jax.ShapeDtypeStruct,
    name: str,
    interpret: bool,
) -> Any:
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=takes,
        out_specs=gives,
        out_shape=shape,
        name=name,
        interpret=interpret,
        compiler_params=None if interpret else triton.params(num_warps=4, num_stages=3),
    )


def _shares(steps: int, programs: int) -> int:
    """In how many equal parts a sum of so many steps goes, to keep a GPU busy."""
    wanted = min(steps, -(-_PROGRAMS // programs))
    return next(n for n in range(wanted, steps + 1) if steps % n == 0)


def _rank_block(ranks: int, *dtypes: jnp.dtype) -> int:
    widest = max(dtype.itemsize for dtype in dtypes)
    return triton.power_of_two(ranks, _RANK_BYTES // widest)


def _tall(rows_MX: Array) -> Array:
    """In whole blocks of rows; zeros beyond."""
    room = -len(rows_MX) % BLOCK
    return jnp.pad(rows_MX, ((0, room), (0, 0))) if room else rows_MX
