"""Attention over key ranges in XLA's own operations: the path that works everywhere.

Short rows have all their scores at once. Long rows go block by block of queries, each
past the blocks of keys that one of them may see, with the softmax's largest score and
denominator carried along (Milakov and Gimelshein 2018; Dao et al. 2022): there is never
more than a block of scores, and keys that no query of a block sees cost nothing. In
packed rows that is most of them.

What a query does not see has a weight and a gradient of exactly zero, not of zero times
something: whatever became of another line, nothing of it gets in.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class Sizes(NamedTuple):
    """Rows of up to `direct` positions have all scores at once; others go by blocks."""

    direct: int
    block: int


# Measured on two cores by benchmarks/attention.py. Elsewhere nothing was measured: a
# step of the loop should be large against the time it takes to start a kernel.
ON_CPU = Sizes(direct=128, block=64)
ELSEWHERE = Sizes(direct=256, block=256)


def forward(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    first_BT: Array,
    end_BT: Array,
    sizes: Sizes = ELSEWHERE,
) -> tuple[Array, Array]:
    """Arguments and results as of `reference.forward`."""
    if q_BTNH.shape[1] <= sizes.direct:
        return _direct_forward(q_BTNH, k_BTKH, v_BTKH, first_BT, end_BT)
    return _blocked_forward(q_BTNH, k_BTKH, v_BTKH, first_BT, end_BT, sizes.block)


def backward(
    dy_BTNH: Array,
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    y_BTNH: Array,
    lse_BNT: Array,
    first_BT: Array,
    end_BT: Array,
    sizes: Sizes = ELSEWHERE,
) -> tuple[Array, Array, Array]:
    """Arguments and results as of `reference.backward`."""
    operands = dy_BTNH, q_BTNH, k_BTKH, v_BTKH, y_BTNH, lse_BNT, first_BT, end_BT
    if q_BTNH.shape[1] <= sizes.direct:
        return _direct_backward(*operands)
    return _blocked_backward(*operands, sizes.block)


def decode(
    q_BNH: Array,
    k_BKSH: Array,
    v_BKSH: Array,
    length_B: Array,
    sizes: Sizes = ELSEWHERE,
) -> Array:
    """Arguments and results as of `reference.decode`."""
    b, slots = len(q_BNH), k_BKSH.shape[2]
    q = q_BNH.reshape(b, k_BKSH.shape[1], -1, q_BNH.shape[2])
    first_B1, end_B1 = jnp.zeros((b, 1), jnp.int32), length_B[:, None]
    block = slots if slots <= sizes.direct else sizes.block

    def keys(j, carry):
        # The last block begins where it still ends with the cache; of what it has in
        # common with the one before, nothing counts twice.
        at = jnp.minimum(j * block, slots - block)
        k_j, v_j = (
            lax.dynamic_slice_in_dim(x, at, block, axis=2) for x in (k_BKSH, v_BKSH)
        )
        new = jnp.full_like(first_B1, j * block)
        return _step(carry, q, k_j, v_j, new, end_B1, at)

    carry = _nothing(q)
    if block == slots:
        carry = _step(carry, q, k_BKSH, v_BKSH, first_B1, end_B1, 0)
    else:
        count = (jnp.minimum(jnp.max(length_B), slots) + block - 1) // block
        carry = lax.fori_loop(0, count, keys, carry)
    return _finished(carry, q_BNH[:, None])[0][:, 0]


# Inside, rows are [B, K, n * T, H], `rows` for short: the n query heads that share keys
# lie one after the other, so that a product is one matmul for each row and key head.


def _direct_forward(q_BTNH, k_BTKH, v_BTKH, first_BT, end_BT) -> tuple[Array, Array]:
    heads = k_BTKH.shape[2]
    q, k, v = (_rows(x, heads) for x in (q_BTNH, k_BTKH, v_BTKH))
    return _finished(_step(_nothing(q), q, k, v, first_BT, end_BT, 0), q_BTNH)


def _direct_backward(
    dy_BTNH, q_BTNH, k_BTKH, v_BTKH, y_BTNH, lse_BNT, first_BT, end_BT
) -> tuple[Array, Array, Array]:
    heads = k_BTKH.shape[2]
    dy, q, k, v = (_rows(x, heads) for x in (dy_BTNH, q_BTNH, k_BTKH, v_BTKH))
    delta = _delta(dy_BTNH, y_BTNH, heads)
    lse = lse_BNT.reshape(delta.shape)
    parts = _gradients(dy, q, k, v, lse, delta, first_BT, end_BT, 0)
    pairs = zip(parts, (q_BTNH, k_BTKH, v_BTKH), strict=True)
    dq, dk, dv = (_positions(d, x.shape).astype(x.dtype) for d, x in pairs)
    return dq, dk, dv


def _blocked_forward(
    q_BTNH, k_BTKH, v_BTKH, first_BT, end_BT, block: int
) -> tuple[Array, Array]:
    heads, t = k_BTKH.shape[2], q_BTNH.shape[1]
    k, v = (_rows(_padded(x, block), heads) for x in (k_BTKH, v_BTKH))

    def queries(of_block):
        q_BTNH, first_BT, end_BT = of_block
        q = _rows(q_BTNH, heads)

        def keys(j, carry):
            k_j, v_j = _cut(k, j, block), _cut(v, j, block)
            return _step(carry, q, k_j, v_j, first_BT, end_BT, j * block)

        span = _span(first_BT, end_BT, block)
        return _finished(lax.fori_loop(*span, keys, _nothing(q)), q_BTNH)

    blocks = tuple(_blocks(x, block) for x in (q_BTNH, first_BT, end_BT))
    y_Q, lse_Q = lax.map(queries, blocks)
    return _unblocked(y_Q, 1)[:, :t], _unblocked(lse_Q, 2)[:, :, :t]


def _blocked_backward(
    dy_BTNH, q_BTNH, k_BTKH, v_BTKH, y_BTNH, lse_BNT, first_BT, end_BT, block: int
) -> tuple[Array, Array, Array]:
    heads, t = k_BTKH.shape[2], q_BTNH.shape[1]
    k, v = (_rows(_padded(x, block), heads) for x in (k_BTKH, v_BTKH))

    def queries(sums, of_block):
        dy_BTNH, q_BTNH, y_BTNH, lse_BTN1, first_BT, end_BT = of_block
        dy, q = _rows(dy_BTNH, heads), _rows(q_BTNH, heads)
        delta = _delta(dy_BTNH, y_BTNH, heads)
        lse = _rows(lse_BTN1, heads)[..., 0]

        def keys(j, carry):
            dq, dk, dv = carry
            k_j, v_j = _cut(k, j, block), _cut(v, j, block)
            of_block = lse, delta, first_BT, end_BT, j * block
            dq_j, dk_j, dv_j = _gradients(dy, q, k_j, v_j, *of_block)
            return dq + dq_j, _add(dk, dk_j, j), _add(dv, dv_j, j)

        carry = jnp.zeros(q.shape, _wide(q.dtype)), *sums
        span = _span(first_BT, end_BT, block)
        dq, *sums = lax.fori_loop(*span, keys, carry)
        return tuple(sums), _positions(dq, q_BTNH.shape).astype(q.dtype)

    lse_BTN1 = jnp.moveaxis(lse_BNT, 1, 2)[..., None]
    of_queries = dy_BTNH, q_BTNH, y_BTNH, lse_BTN1, first_BT, end_BT
    blocks = tuple(_blocks(x, block) for x in of_queries)
    # One block of queries after the other adds to the sums: their order is fixed.
    sums = jnp.zeros(k.shape, _wide(k.dtype)), jnp.zeros(v.shape, _wide(v.dtype))
    (dk, dv), dq_Q = lax.scan(queries, sums, blocks)
    shape = _padded(k_BTKH, block).shape
    dk, dv = (_positions(d, shape)[:, :t].astype(k_BTKH.dtype) for d in (dk, dv))
    return _unblocked(dq_Q, 1)[:, :t], dk, dv


# Of all queries and keys, or of a block of each


def _scores(q, k, first_BT, end_BT, first_key) -> tuple[Array, Array]:
    """Scaled scores, wide, and which of them count; the keys begin at `first_key`."""
    s = _product("xqh,xsh->xqs", q, k, _wide(q.dtype)) / math.sqrt(q.shape[-1])
    b, t = first_BT.shape
    at_11S = (first_key + jnp.arange(k.shape[2]))[None, None, :]
    seen_BTS = (at_11S >= first_BT[:, :, None]) & (at_11S < end_BT[:, :, None])
    shape = b, k.shape[1], q.shape[2] // t, t, k.shape[2]
    return s, jnp.broadcast_to(seen_BTS[:, None, None], shape).reshape(s.shape)


def _nothing(q: Array) -> tuple[Array, Array, Array]:
    """What `_step` begins with."""
    top = jnp.full(q.shape[:-1], -jnp.inf, _wide(q.dtype))
    return top, jnp.zeros_like(top), jnp.zeros(q.shape, top.dtype)


def _step(carry, q, k, v, first_BT, end_BT, first_key) -> tuple[Array, Array, Array]:
    """The greatest score and the sums of weights and of weighted values, with these."""
    top, total, y = carry
    s, seen = _scores(q, k, first_BT, end_BT, first_key)
    new_top = jnp.maximum(top, jnp.max(s, axis=-1, where=seen, initial=-jnp.inf))
    # Where nothing was seen yet, there is no greatest score.
    base = jnp.where(new_top == -jnp.inf, 0, new_top)
    p, keep = jnp.where(seen, jnp.exp(s - base[..., None]), 0), jnp.exp(top - base)
    y = y * keep[..., None] + _product("xqs,xsh->xqh", p, v, s.dtype)
    return new_top, total * keep + p.sum(-1), y


def _finished(carry, q_BTNH) -> tuple[Array, Array]:
    """The results of `forward`, of all that `_step` summed."""
    top, total, y = carry
    some = total > 0
    total = jnp.where(some, total, 1)
    lse = jnp.where(some, top + jnp.log(total), 0)
    b, t, n, _ = q_BTNH.shape
    y_BTNH = _positions(y / total[..., None], q_BTNH.shape).astype(q_BTNH.dtype)
    return y_BTNH, lse.reshape(b, n, t)


def _gradients(
    dy, q, k, v, lse, delta, first_BT, end_BT, first_key
) -> tuple[Array, Array, Array]:
    """What these queries and keys give `dq`, `dk` and `dv`, wide."""
    s, seen = _scores(q, k, first_BT, end_BT, first_key)
    p = jnp.where(seen, jnp.exp(s - lse[..., None]), 0)
    dp = _product("xqh,xsh->xqs", dy, v, s.dtype)
    ds = p * (dp - delta[..., None]) / math.sqrt(q.shape[-1])
    return (
        _product("xqs,xsh->xqh", ds, k, s.dtype),
        _product("xqs,xqh->xsh", ds, q, s.dtype),
        _product("xqs,xqh->xsh", p, dy, s.dtype),
    )


def _delta(dy_BTNH: Array, y_BTNH: Array, heads: int) -> Array:
    """The mean that the softmax takes off its gradient, `sum(p dp)`: that is `dy y`."""
    wide = _wide(y_BTNH.dtype)
    delta_BTN = jnp.sum(dy_BTNH.astype(wide) * y_BTNH.astype(wide), axis=-1)
    return _rows(delta_BTN[..., None], heads)[..., 0]


def _product(form: str, a: Array, b: Array, dtype: jnp.dtype) -> Array:
    """A matmul for each row and key head, its operands in the dtype of the model."""
    form = form.replace("x", "BK")
    return jnp.einsum(form, a.astype(b.dtype), b, preferred_element_type=dtype)


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _span(first_BT: Array, end_BT: Array, block: int) -> tuple[Array, Array]:
    """The blocks of keys, from the first that a query sees part of to the last."""
    some_BT = end_BT > first_BT
    low = jnp.min(first_BT, where=some_BT, initial=2**30)
    high = jnp.max(end_BT, where=some_BT, initial=0)
    return low // block, (high + block - 1) // block


# Layouts


def _rows(x_BTNH: Array, heads: int) -> Array:
    """`[B, T, K * n, H]` to `[B, K, n * T, H]`."""
    b, t, n, h = x_BTNH.shape
    x = x_BTNH.reshape(b, t, heads, n // heads, h).transpose(0, 2, 3, 1, 4)
    return x.reshape(b, heads, n // heads * t, h)


def _positions(x: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_rows`, to an array `[B, T, K * n, H]` of that shape."""
    b, t, n, h = shape
    heads = x.shape[1]
    x = x.reshape(b, heads, n // heads, t, h).transpose(0, 3, 1, 2, 4)
    return x.reshape(shape)


def _padded(x_BT: Array, block: int) -> Array:
    """With positions added up to whole blocks; their ranges are empty."""
    room = -x_BT.shape[1] % block
    return jnp.pad(x_BT, ((0, 0), (0, room), *((0, 0),) * (x_BT.ndim - 2)))


def _blocks(x_BT: Array, block: int) -> Array:
    """`[B, T, ...]` to `[T / block, B, block, ...]`."""
    x_BT = _padded(x_BT, block)
    b, t, *rest = x_BT.shape
    return jnp.moveaxis(x_BT.reshape(b, t // block, block, *rest), 1, 0)


def _unblocked(x_Q: Array, axis: int) -> Array:
    """The inverse of `_blocks`, of blocks whose positions are at `axis`."""
    x = jnp.moveaxis(x_Q, 0, axis)
    shape = x.shape
    return x.reshape(*shape[:axis], -1, *shape[axis + 2 :])


def _cut(x_BKSH: Array, j: Array, block: int) -> Array:
    return lax.dynamic_slice_in_dim(x_BKSH, j * block, block, axis=2)


def _add(sum_BKSH: Array, part: Array, j: Array) -> Array:
    block = part.shape[2]
    new = _cut(sum_BKSH, j, block) + part
    return lax.dynamic_update_slice_in_dim(sum_BKSH, new, j * block, axis=2)
