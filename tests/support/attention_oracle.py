"""Attention over key ranges by its formula, and rows such as the engine packs them."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def ranges(rows, width):
    """`first, end`, `[B, T]`, of rows of lines.

    Each row is a list of `(tokens, pads)`: a token sees its line up to itself, a pad
    behind the tokens all of them. What is left of a row sees nothing.
    """
    first, end = np.zeros((2, len(rows), width), np.int32)
    for b, lines in enumerate(rows):
        at = 0
        for tokens, pads in lines:
            stop = at + tokens
            first[b, at : stop + pads] = at
            end[b, at:stop] = np.arange(at, stop) + 1
            end[b, stop : stop + pads] = stop
            at = stop + pads
        first[b, at:] = end[b, at:] = 0
    return first, end


def line_of(rows, width):
    """Which line of its row a position belongs to, `[B, T]`; -1: none."""
    lines = np.full((len(rows), width), -1)
    for b, of_row in enumerate(rows):
        sizes = [tokens + pads for tokens, pads in of_row]
        lines[b, : sum(sizes)] = np.repeat(np.arange(len(sizes)), sizes)
    return lines


def drawn(seed, shape, heads, kv_heads, head_dim, dtype=jnp.float32):
    """q, k, v and weights for the result."""
    rng = np.random.default_rng(seed)
    sizes = heads, kv_heads, kv_heads, heads
    return [jnp.asarray(rng.normal(size=(*shape, n, head_dim)), dtype) for n in sizes]


def plain(q, k, v, first, end):
    """Row by row and head by head; nothing where nothing is seen."""

    def head(q_TH, k_SH, v_SH, seen_TS):
        s_TS = q_TH @ k_SH.T / math.sqrt(q_TH.shape[-1])
        # A query of nothing sees all here, and the result is thrown away.
        some_T = seen_TS.any(1)[:, None]
        p_TS = jax.nn.softmax(jnp.where(seen_TS | ~some_T, s_TS, -jnp.inf), axis=-1)
        return jnp.where(some_T, p_TS @ v_SH, 0)

    share = q.shape[2] // k.shape[2]
    at_S = jnp.arange(k.shape[1])[None, None, :]
    seen_BTS = (at_S >= first[:, :, None]) & (at_S < end[:, :, None])
    k, v = (jnp.repeat(x, share, axis=2) for x in (k, v))
    heads = jax.vmap(head, in_axes=(1, 1, 1, None), out_axes=1)
    return jax.vmap(heads)(q, k, v, seen_BTS)


def value_and_grads(op):
    """`f(q, k, v, first, end, weights)`: the value, and gradients of a weighted sum."""

    def run(q, k, v, first, end, weights):
        y, back = jax.vjp(lambda *qkv: op(*qkv, first, end), q, k, v)
        return y, *back(weights)

    return run


def in_float64(function, *args):
    with jax.enable_x64(True):
        wide = [np.asarray(z) for z in args]
        wide = [z.astype(np.float64) if z.dtype != np.int32 else z for z in wide]
        return jax.tree.map(np.asarray, jax.jit(function)(*map(jnp.asarray, wide)))


def assert_near(got, want, rtol=3e-6):
    """Within `rtol` of the largest entry, for each array."""
    for one, other in zip(got, want, strict=True):
        one = np.asarray(one).astype(np.float64)
        largest = np.abs(other).max(initial=0)
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * largest)
