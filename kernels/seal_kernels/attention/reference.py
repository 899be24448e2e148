"""Attention over key ranges in plain jnp, all scores at once: what every other path is
tested on, and nothing else. Read this first; it is slow on purpose.
"""

import math

import jax.numpy as jnp
from jax import Array


def forward(
    q_BTNH: Array, k_BTKH: Array, v_BTKH: Array, first_BT: Array, end_BT: Array
) -> tuple[Array, Array]:
    """Every query's mean over the values of its range, weighted by softmax.

    Query head `i` reads key/value head `i // (N / K)`.

    Args:
      q_BTNH: queries.
      k_BTKH: keys, of as many positions.
      v_BTKH: values.
      first_BT, end_BT: the query at t sees the keys `first..end - 1` of its row.

    Returns:
      `y_BTNH` in the dtype of `q`, zero where a range is empty; and the logarithm of
      each softmax's denominator, `[B, N, T]`, zero there.
    """
    p_BNTS, lse_BNT, (_, _, v_BSNH) = _softmax(q_BTNH, k_BTKH, v_BTKH, first_BT, end_BT)
    y_BTNH = jnp.einsum("BNTS,BSNH->BTNH", p_BNTS, v_BSNH)
    return y_BTNH.astype(q_BTNH.dtype), lse_BNT


def backward(
    dy_BTNH: Array,
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    y_BTNH: Array,
    lse_BNT: Array,
    first_BT: Array,
    end_BT: Array,
) -> tuple[Array, Array, Array]:
    """The gradients of `forward`'s first result by q, k and v, in their dtypes.

    With weights `p` and `dp = dy v^T`: `dv = p^T dy`, `ds = p (dp - sum(p dp))`,
    `dq = ds k` and `dk = ds^T q`, these two times the scale of the scores.
    """
    del y_BTNH, lse_BNT  # Others spare themselves work with them.
    p_BNTS, _, (q, k, v) = _softmax(q_BTNH, k_BTKH, v_BTKH, first_BT, end_BT)
    dy = _wide(dy_BTNH)
    dp_BNTS = jnp.einsum("BTNH,BSNH->BNTS", dy, v)
    mean_BNT1 = jnp.sum(p_BNTS * dp_BNTS, axis=-1, keepdims=True)
    ds_BNTS = p_BNTS * (dp_BNTS - mean_BNT1) / math.sqrt(q.shape[-1])
    dq = jnp.einsum("BNTS,BSNH->BTNH", ds_BNTS, k)
    dk = jnp.einsum("BNTS,BTNH->BSNH", ds_BNTS, q)
    dv = jnp.einsum("BNTS,BTNH->BSNH", p_BNTS, dy)
    dk, dv = (_summed(d, k_BTKH) for d in (dk, dv))
    return dq.astype(q_BTNH.dtype), dk.astype(k_BTKH.dtype), dv.astype(v_BTKH.dtype)


def decode(q_BNH: Array, k_BKSH: Array, v_BKSH: Array, length_B: Array) -> Array:
    """`forward`, of one query a row to the first `length` slots of its cache."""
    groups = q_BNH.shape[1] // k_BKSH.shape[1]
    q = _wide(q_BNH)
    k, v = (jnp.repeat(_wide(x), groups, axis=1) for x in (k_BKSH, v_BKSH))
    s_BNS = jnp.einsum("BNH,BNSH->BNS", q, k) / math.sqrt(q.shape[-1])
    seen_B1S = (jnp.arange(k.shape[2])[None] < length_B[:, None])[:, None]
    top_BN1 = jnp.max(s_BNS, axis=-1, keepdims=True, where=seen_B1S, initial=-1e30)
    p_BNS = jnp.where(seen_B1S, jnp.exp(s_BNS - top_BN1), 0)
    total_BN1 = jnp.where(length_B[:, None, None] > 0, p_BNS.sum(-1, keepdims=True), 1)
    return jnp.einsum("BNS,BNSH->BNH", p_BNS / total_BN1, v).astype(q_BNH.dtype)


def _softmax(
    q_BTNH: Array, k_BTKH: Array, v_BTKH: Array, first_BT: Array, end_BT: Array
) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """Weights, logarithms of their denominators, and wide q, k, v with N heads each."""
    groups = q_BTNH.shape[2] // k_BTKH.shape[2]
    q = _wide(q_BTNH)
    k, v = (jnp.repeat(_wide(x), groups, axis=2) for x in (k_BTKH, v_BTKH))
    s_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q, k) / math.sqrt(q.shape[-1])
    at_S = jnp.arange(k.shape[1])[None, None, :]
    seen_BTS = (at_S >= first_BT[:, :, None]) & (at_S < end_BT[:, :, None])
    seen_B1TS, any_B1T = seen_BTS[:, None], seen_BTS.any(-1)[:, None]
    top_BNT = jnp.max(s_BNTS, axis=-1, where=seen_B1TS, initial=-jnp.inf)
    top_BNT = jnp.where(any_B1T, top_BNT, 0)
    p_BNTS = jnp.where(seen_B1TS, jnp.exp(s_BNTS - top_BNT[..., None]), 0)
    total_BNT = jnp.where(any_B1T, p_BNTS.sum(-1), 1)
    return p_BNTS / total_BNT[..., None], top_BNT + jnp.log(total_BNT), (q, k, v)


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _summed(d_BSNH: Array, like_BSKH: Array) -> Array:
    """The sum over the query heads that share a key/value head."""
    b, s, heads, h = like_BSKH.shape
    return d_BSNH.reshape(b, s, heads, -1, h).sum(3)
