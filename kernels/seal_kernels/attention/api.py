"""The door to attention: what rows of lines take, and whatever runs behind it.

    y = attention(q, k, v, first, end)      rows of whole lines; see `ranges`
    y = decode(q, k, v, length)             one query a row against a cache

Each query names the keys that it sees as one range of its row, `[first, end)`. No
implementation but the reference holds the scores of a long row. Reverse mode only,
through a derivative by hand.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from seal_kernels.attention import dispatch, guard

IMPLEMENTATIONS = dispatch.IMPLEMENTATIONS


def attention(
    q: Array,
    k: Array,
    v: Array,
    first: Array,
    end: Array,
    implementation: str = "auto",
    causal: bool = False,
) -> Array:
    """Attention over rows that several lines share (Vaswani et al. 2017, eq. 1).

    One line that is not finite must not spoil the others of its row, and a weight of
    zero does not keep NaN out. So what is not finite, or too large for a product of two
    to be (`guard.LARGEST`), is taken as zero, forwards and backwards, and marked where
    it occurred: a position whose own query, key or value it is comes out as NaN.

    Args:
      q: queries, `[B, T, N, H]`, any float dtype.
      k, v: keys and values of the same positions, `[B, T, K, H]`, in the dtype of `q`;
        K divides N, and query head i reads key/value head `i // (N / K)`.
      first, end: int32 `[B, T]`: the query at t sees the keys `first[t]..end[t] - 1` of
        its row. An empty range is one of nothing.
      implementation: one of `IMPLEMENTATIONS`. `auto` takes the kernel made for the
        platform, if it is installed and does this shape, else `xla`.
      causal: no query sees a key after itself, whatever its range says. Where all
        ranges end there anyway, it spares a kernel half of a row.

    Returns:
      `[B, T, N, H]` in the dtype of `q`; zero, without gradient, where a range is
      empty. Scores are scaled by `1 / sqrt(H)`; softmax and sums are in float32, or in
      float64 if that is the dtype of `q`.

    Raises:
      ValueError: the call is wrong: shapes, dtypes or the name do not fit.
      NotImplementedError: the named implementation does not do this shape, or not on
        the platform that the program is compiled for (raised when it is compiled).
    """
    _check(q, k, v, first, end, implementation)
    ranges = guard.ranges(first, end, causal=causal)
    return _attention(implementation, causal, q, k, v, *ranges)


def decode(
    q: Array, k: Array, v: Array, length: Array, implementation: str = "auto"
) -> Array:
    """One query a row attends to the filled slots of its cache, and reads no others.

    Args:
      q: queries, `[B, N, H]`, any float dtype.
      k, v: caches, `[B, K, S, H]`, in the dtype of `q`; K divides N. Slots that are not
        filled hold anything finite.
      length: int32 `[B]`: row b's first `length[b]` slots are filled. What is read of
        the caches is set by the greatest of them. A row of none gives zero.
      implementation: one of `IMPLEMENTATIONS`; `splash` and `triton` leave this to
        XLA.

    Returns:
      `[B, N, H]` in the dtype of `q`. No derivative is defined.

    Raises:
      ValueError, NotImplementedError: as in `attention`.
    """
    _check_decode(q, k, v, length, implementation)
    run = functools.partial(dispatch.decode, implementation)
    with jax.named_scope("attention"):
        return _on_rows(run)(q, k, v, length.astype(jnp.int32))


def _check(
    q: Array, k: Array, v: Array, first: Array, end: Array, implementation: str
) -> None:
    _check_name("attention", implementation)
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise ValueError(
            f"attention: q {q.shape}, k {k.shape} and v {v.shape} must be [B, T, N, H] "
            "and twice [B, T, K, H]; transpose or reshape them"
        )
    b, t, n, h = q.shape
    if (b, t, h) != (k.shape[0], k.shape[1], k.shape[3]) or n % k.shape[2]:
        raise ValueError(
            f"attention: q {q.shape} and k {k.shape} must have one B, T and H, and the "
            f"{n} heads of q be a multiple of the {k.shape[2]} of k; repeat or pad one"
        )
    _check_dtypes("attention", q, k, v)
    for name, bound in {"first": first, "end": end}.items():
        if bound.shape != (b, t) or not jnp.issubdtype(bound.dtype, jnp.integer):
            raise ValueError(
                f"attention: {name} {bound.dtype}{list(bound.shape)} must be integers "
                f"[B, T] = {[b, t]}, one range of keys for each query"
            )


def _check_decode(
    q: Array, k: Array, v: Array, length: Array, implementation: str
) -> None:
    _check_name("attention.decode", implementation)
    if q.ndim != 3 or k.ndim != 4 or k.shape != v.shape:
        raise ValueError(
            f"attention.decode: q {q.shape}, k {k.shape} and v {v.shape} must be "
            "[B, N, H] and twice [B, K, S, H]; transpose or reshape them"
        )
    if (q.shape[0], q.shape[2]) != (k.shape[0], k.shape[3]) or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"attention.decode: q {q.shape} and k {k.shape} must have one B and H, and "
            f"the {q.shape[1]} heads of q be a multiple of the {k.shape[1]} of k"
        )
    _check_dtypes("attention.decode", q, k, v)
    if length.shape != q.shape[:1] or not jnp.issubdtype(length.dtype, jnp.integer):
        raise ValueError(
            f"attention.decode: length {length.dtype}{list(length.shape)} must be "
            f"integers [B] = [{q.shape[0]}], the filled slots of each row"
        )


def _check_name(op: str, implementation: str) -> None:
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"{op}: implementation={implementation!r} must be one of "
            f"{', '.join(IMPLEMENTATIONS)}"
        )


def _check_dtypes(op: str, q: Array, k: Array, v: Array) -> None:
    if not jnp.issubdtype(q.dtype, jnp.floating) or not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            f"{op}: q, k and v are {q.dtype}, {k.dtype} and {v.dtype} and must be of "
            "one float dtype; cast them"
        )


# As in `lora_matmul`: the batching rule is inside the derivative's two halves, so that
# vmap meets each of them as one operation on more rows.


@jax.named_scope("attention")
def _only(implementation: str, causal: bool, q, k, v, first_BT, end_BT) -> Array:
    return _forward(implementation, causal, q, k, v, first_BT, end_BT)[0]


@jax.named_scope("attention")
def _forward(implementation: str, causal: bool, q, k, v, first_BT, end_BT):
    sound = map(guard.sound, (q, k, v))
    run = functools.partial(dispatch.forward, implementation, causal=causal)
    y_BTNH, lse_BNT = _on_rows(run)(*sound, first_BT, end_BT)
    marked_BTNH = guard.marked(y_BTNH, q, k, v)
    return marked_BTNH, (q, k, v, y_BTNH, lse_BNT, first_BT, end_BT)


@jax.named_scope("attention")
def _backward(implementation: str, causal: bool, kept, dy_BTNH):
    q, k, v, y_BTNH, lse_BNT, first_BT, end_BT = kept
    # What comes back to a position that is marked is of no use to anyone.
    dy_BTNH = guard.sound(guard.marked(dy_BTNH, q, k, v))
    run = functools.partial(dispatch.backward, implementation, causal=causal)
    sound = map(guard.sound, (q, k, v))
    grads = _on_rows(run)(dy_BTNH, *sound, y_BTNH, lse_BNT, first_BT, end_BT)
    # What was taken as zero does not move the result.
    pairs = zip((q, k, v), grads, strict=True)
    dq, dk, dv = (jnp.where(guard.is_sound(x), dx, 0) for x, dx in pairs)
    return dq, dk, dv, None, None


_attention = jax.custom_vjp(_only, nondiff_argnums=(0, 1))
_attention.defvjp(_forward, _backward)


def _on_rows(run: Any) -> Any:
    """`run`, under vmap on the rows of all elements of the batch at once."""
    op = custom_vmap(run)

    @op.def_vmap
    def _(size: int, batched: Any, *args: Array):
        def merge(x: Array, has_axis: bool) -> Array:
            x = x if has_axis else jnp.broadcast_to(x[None], (size, *x.shape))
            return x.reshape(size * x.shape[1], *x.shape[2:])

        outs = op(*map(merge, args, batched))
        split = lambda out: out.reshape(size, -1, *out.shape[1:])
        return jax.tree.map(split, outs), jax.tree.map(lambda _: True, outs)

    return op
