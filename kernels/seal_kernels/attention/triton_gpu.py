"""Attention over key ranges in Pallas, compiled by Triton: for GPUs from Ampere on.

Both passes look at no block that nobody sees (Dao et al. 2022 and 2023, whose blocks
and whose recomputed weights these are): a block of queries goes through the blocks of
keys from its first range's begin to its last one's end, and a block of keys through the
queries that see something of it. In packed rows of short lines that is a small part of
a row. Sums go in one order, so a program gives the same bits again.

It needs jax alone. tokamax's forward kernel is made for Hopper and skips as well, so
there `auto` takes that one; its backward kernels do not, and `auto` takes this one.

jax has declared its Triton backend deprecated and means to drop it. Without it these
kernels are refused, and `auto` is what else there is.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from seal_kernels import triton
from seal_kernels.attention import xla

# Queries or keys of a block.
BLOCK = 64
# Below every score of what `guard` lets through, and finite: the difference of two is
# no NaN.
_LOWEST = -1e37
# Bytes of a head that a kernel's blocks have room for: on GPUs with 160 KB of shared
# memory and more, and on the others, with 100 KB (compiled for both).
_ROOMY, _WIDEST, _WIDEST_ELSEWHERE = (80, 90, 100, 103), 512, 256
# Beside the project's letters: Q queries of a block, S keys of one.


def forward(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    first_BT: Array,
    end_BT: Array,
    interpret: bool = False,
) -> tuple[Array, Array]:
    """Arguments and results as of `reference.forward`.

    Raises:
      NotImplementedError: it does not do this dtype, size of head or device, or this
        jax has no Triton.
    """
    _check(q_BTNH, interpret)
    b, t, n, h = q_BTNH.shape
    q, k, v = map(_whole, (q_BTNH, k_BTKH, v_BTKH))
    first, end = _whole_ranges(first_BT, end_BT)
    rows = q.shape[1]
    queries, keys, bounds, numbers = _by_queries(q, k)
    y, lse = _call(
        functools.partial(_forward_block, 1 / math.sqrt(h)),
        (b, n, rows // BLOCK),
        [queries, keys, keys, bounds, bounds],
        [queries, numbers],
        [
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((b, n, rows), jnp.float32),
        ],
        "range_attention_forward",
        interpret,
    )(q, k, v, first, end)
    return y[:, :t, :, :h], lse[:, :, :t]


def backward(
    dy_BTNH: Array,
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    y_BTNH: Array,
    lse_BNT: Array,
    first_BT: Array,
    end_BT: Array,
    interpret: bool = False,
) -> tuple[Array, Array, Array]:
    """Arguments and results as of `reference.backward`; raises as `forward` does."""
    _check(q_BTNH, interpret)
    b, t, n, h = q_BTNH.shape
    heads = k_BTKH.shape[2]
    # What a query's slopes have in common: sum(p dp) of its keys.
    common_BTN = jnp.sum(dy_BTNH.astype(jnp.float32) * y_BTNH, axis=-1)
    lse, common = (_long(z, 2) for z in (lse_BNT, common_BTN.swapaxes(1, 2)))
    dy, q, k, v = map(_whole, (dy_BTNH, q_BTNH, k_BTKH, v_BTKH))
    first, end = _whole_ranges(first_BT, end_BT)
    rows, wide = q.shape[1], q.shape[3]
    groups, blocks = n // heads, rows // BLOCK
    scale = 1 / math.sqrt(h)

    queries, keys, bounds, numbers = _by_queries(q, k)
    (dq,) = _call(
        functools.partial(_slope_of_queries, scale),
        (b, n, blocks),
        [queries, queries, keys, keys, numbers, numbers, bounds, bounds],
        [queries],
        [jax.ShapeDtypeStruct(q.shape, q.dtype)],
        "range_attention_queries",
        interpret,
    )(dy, q, k, v, lse, common, first, end)

    lows, highs = _seen_by(first, end)
    # The query heads of a key head side by side.
    dy, q = (z.reshape(b, rows, heads, groups, wide) for z in (dy, q))
    lse, common = (z.reshape(b, heads, groups, rows) for z in (lse, common))
    queries = pl.BlockSpec(
        (None, rows, None, groups, wide), lambda b, n, j: (b, 0, n, 0, 0)
    )
    keys = pl.BlockSpec((None, BLOCK, None, wide), lambda b, n, j: (b, j, n, 0))
    bounds = pl.BlockSpec((None, rows), lambda b, n, j: (b, 0))
    numbers = pl.BlockSpec((None, None, groups, rows), lambda b, n, j: (b, n, 0, 0))
    one = pl.BlockSpec((None, 1), lambda b, n, j: (b, j))
    dk, dv = _call(
        functools.partial(_slopes_of_keys, scale),
        (b, heads, blocks),
        [queries, queries, keys, keys, numbers, numbers, bounds, bounds, one, one],
        [keys, keys],
        [jax.ShapeDtypeStruct(k.shape, k.dtype)] * 2,
        "range_attention_keys",
        interpret,
    )(dy, q, k, v, lse, common, first, end, lows, highs)
    return dq[:, :t, :, :h], dk[:, :t, :, :h], dv[:, :t, :, :h]


def decode(q_BNH: Array, k_BKSH: Array, v_BKSH: Array, length_B: Array) -> Array:
    """By XLA: a block of queries would hold a single one."""
    return xla.decode(q_BNH, k_BKSH, v_BKSH, length_B)


# Kernels, each on one block


def _forward_block(scale, q_ref, k_ref, v_ref, first_ref, end_ref, y_ref, lse_ref):
    q_QH, first_Q, end_Q = q_ref[...], first_ref[...], end_ref[...]

    def body(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        top_Q, total_Q, sum_QH = carry
        at = pl.ds(j * BLOCK, BLOCK)
        s_QS = scale * triton.dot(q_QH, k_ref[at, :].T)
        seen_QS = _seen(first_Q, end_Q, j)
        higher_Q = jnp.maximum(top_Q, jnp.where(seen_QS, s_QS, _LOWEST).max(1))
        p_QS = jnp.where(seen_QS, jnp.exp(s_QS - higher_Q[:, None]), 0)
        fade_Q = jnp.exp(top_Q - higher_Q)
        new_QH = triton.dot(p_QS.astype(q_QH.dtype), v_ref[at, :])
        total_Q = fade_Q * total_Q + p_QS.sum(1)
        return higher_Q, total_Q, fade_Q[:, None] * sum_QH + new_QH

    begin = (
        jnp.full(BLOCK, _LOWEST, jnp.float32),
        jnp.zeros(BLOCK, jnp.float32),
        jnp.zeros(q_QH.shape, jnp.float32),
    )
    top_Q, total_Q, sum_QH = _through_keys(first_Q, end_Q, body, begin)
    some_Q = total_Q > 0
    total_Q = jnp.where(some_Q, total_Q, 1)
    y_ref[...] = (sum_QH / total_Q[:, None]).astype(y_ref.dtype)
    lse_ref[...] = jnp.where(some_Q, top_Q + jnp.log(total_Q), 0)


def _slope_of_queries(
    scale, dy_ref, q_ref, k_ref, v_ref, lse_ref, common_ref, first_ref, end_ref, dq_ref
):
    dy_QH, q_QH, first_Q, end_Q = dy_ref[...], q_ref[...], first_ref[...], end_ref[...]
    lse_Q, common_Q = lse_ref[...], common_ref[...]

    def body(j: Array, dq_QH: Array) -> Array:
        at = pl.ds(j * BLOCK, BLOCK)
        k_SH, v_SH = k_ref[at, :], v_ref[at, :]
        s_QS = scale * triton.dot(q_QH, k_SH.T)
        p_QS = jnp.where(_seen(first_Q, end_Q, j), jnp.exp(s_QS - lse_Q[:, None]), 0)
        ds_QS = p_QS * (triton.dot(dy_QH, v_SH.T) - common_Q[:, None])
        return dq_QH + triton.dot(ds_QS.astype(k_SH.dtype), k_SH)

    dq_QH = _through_keys(first_Q, end_Q, body, jnp.zeros(q_QH.shape, jnp.float32))
    dq_ref[...] = (scale * dq_QH).astype(dq_ref.dtype)


def _slopes_of_keys(
    scale,
    dy_ref,
    q_ref,
    k_ref,
    v_ref,
    lse_ref,
    common_ref,
    first_ref,
    end_ref,
    low_ref,
    high_ref,
    dk_ref,
    dv_ref,
):
    j = pl.program_id(2)
    k_SH, v_SH = k_ref[...], v_ref[...]

    def body(head: Any, i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        dk_SH, dv_SH = carry
        at = pl.ds(i * BLOCK, BLOCK)
        dy_QH, q_QH = dy_ref[at, head, :], q_ref[at, head, :]
        seen_SQ = _seen(first_ref[at], end_ref[at], j).T
        s_SQ = scale * triton.dot(k_SH, q_QH.T)
        p_SQ = jnp.where(seen_SQ, jnp.exp(s_SQ - lse_ref[head, at][None, :]), 0)
        dv_SH += triton.dot(p_SQ.astype(dy_QH.dtype), dy_QH)
        ds_SQ = p_SQ * (triton.dot(v_SH, dy_QH.T) - common_ref[head, at][None, :])
        return dk_SH + triton.dot(ds_SQ.astype(q_QH.dtype), q_QH), dv_SH

    def of_head(head: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        step = functools.partial(body, head)
        return lax.fori_loop(low_ref[0], high_ref[0], step, carry)

    zeros = jnp.zeros(k_SH.shape, jnp.float32)
    dk_SH, dv_SH = lax.fori_loop(0, q_ref.shape[1], of_head, (zeros, zeros))
    dk_ref[...] = (scale * dk_SH).astype(dk_ref.dtype)
    dv_ref[...] = dv_SH.astype(dv_ref.dtype)


def _through_keys(first_Q: Array, end_Q: Array, body: Any, begin: Any) -> Any:
    """`body` on the blocks of keys that a query of the block may see."""
    low = jnp.min(first_Q) // BLOCK
    high = (jnp.max(end_Q) + BLOCK - 1) // BLOCK
    return lax.fori_loop(low, high, body, begin)


def _seen(first_Q: Array, end_Q: Array, j: Array) -> Array:
    """Which keys of block j each query sees."""
    at_1S = (j * BLOCK + jnp.arange(BLOCK))[None, :]
    return (at_1S >= first_Q[:, None]) & (at_1S < end_Q[:, None])


# Around them


def _seen_by(first_BT: Array, end_BT: Array) -> tuple[Array, Array]:
    """Of each block of keys, the blocks of queries that may see it, `[B, blocks]`.

    From the first to the last of them; those between are looked at as well.
    """
    b, rows = first_BT.shape
    low_BQ1 = first_BT.reshape(b, -1, BLOCK).min(2)[:, :, None]
    high_BQ1 = end_BT.reshape(b, -1, BLOCK).max(2)[:, :, None]
    start_11S = jnp.arange(0, rows, BLOCK, dtype=jnp.int32)[None, None, :]
    sees_BQS = (low_BQ1 < start_11S + BLOCK) & (high_BQ1 > start_11S)
    blocks = rows // BLOCK
    first_BS = jnp.argmax(sees_BQS, axis=1)
    end_BS = blocks - jnp.argmax(sees_BQS[:, ::-1], axis=1)
    end_BS = jnp.where(sees_BQS.any(1), end_BS, first_BS)
    return first_BS.astype(jnp.int32), end_BS.astype(jnp.int32)


def _by_queries(q: Array, k: Array) -> tuple[pl.BlockSpec, ...]:
    """Of one head's block of queries: these, all keys, ranges, a number for each."""
    _, rows, heads, wide = q.shape
    groups = heads // k.shape[2]
    return (
        pl.BlockSpec((None, BLOCK, None, wide), lambda b, n, i: (b, i, n, 0)),
        pl.BlockSpec((None, rows, None, wide), lambda b, n, i: (b, 0, n // groups, 0)),
        pl.BlockSpec((None, BLOCK), lambda b, n, i: (b, i)),
        pl.BlockSpec((None, None, BLOCK), lambda b, n, i: (b, n, i)),
    )


def _call(
    kernel: Any,
    grid: tuple[int, ...],
    takes: list[pl.BlockSpec],
    gives: list[pl.BlockSpec],
    shapes: list[jax.ShapeDtypeStruct],
    name: str,
    interpret: bool,
) -> Any:
    # Twice the threads where a block of sums would not fit their registers.
    settings = {"num_warps": 8 if shapes[0].shape[-1] > 64 else 4, "num_stages": 2}
    params = None if interpret else triton.params(**settings)
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=takes,
        out_specs=gives,
        out_shape=shapes,
        name=name,
        interpret=interpret,
        compiler_params=params,
    )


def _check(q_BTNH: Array, interpret: bool) -> None:
    triton.check_dtype(q_BTNH.dtype)
    if interpret:
        return
    capability = triton.capability()
    size = _padded_head(q_BTNH.shape[3]) * q_BTNH.dtype.itemsize
    widest = _WIDEST if capability in _ROOMY else _WIDEST_ELSEWHERE
    if size > widest:
        raise NotImplementedError(
            f"heads of {size} bytes are wider than the {widest} that fit its memory"
        )


def _whole(x_BTNH: Array) -> Array:
    """In whole blocks, and heads of a size that Triton takes; zeros beyond."""
    x_BTNH = _long(x_BTNH, 1)
    h = x_BTNH.shape[3]
    room = _padded_head(h) - h
    return jnp.pad(x_BTNH, [(0, 0)] * 3 + [(0, room)]) if room else x_BTNH


def _padded_head(size: int) -> int:
    return max(triton.LEAST, 2 ** math.ceil(math.log2(size)))


def _long(x: Array, axis: int) -> Array:
    room = -x.shape[axis] % BLOCK
    if not room:
        return x
    return jnp.pad(x, [(0, room if a == axis else 0) for a in range(x.ndim)])


def _whole_ranges(first_BT: Array, end_BT: Array) -> tuple[Array, Array]:
    """Positions beyond see nothing, where they are."""
    t = first_BT.shape[1]
    beyond = jnp.arange(t, t + -t % BLOCK, dtype=jnp.int32)[None]
    beyond = jnp.broadcast_to(beyond, (first_BT.shape[0], beyond.shape[1]))
    first, end = (jnp.concatenate([z, beyond], axis=1) for z in (first_BT, end_BT))
    return first, end
