"""The low-rank matmul by its formula, differentiated by JAX in float64."""

import jax
import jax.numpy as jnp
import numpy as np

# Input and output width, rank, and adapters of a stack.
D, F, R, S = 13, 17, 3, 5


def drawn(seed, *shapes, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def plain(x, w, a, b):
    return x @ w + (x @ a.T) @ b


def plain_packed(x, w, a, b, slots):
    """Row by row, each with its own adapter."""
    tile = x.shape[0] // len(slots)

    def row(x_D, slot):
        a_RD, b_RF = a[jnp.clip(slot, 0, len(a) - 1)], b[jnp.clip(slot, 0, len(a) - 1)]
        low_F = (x_D @ a_RD.T) @ b_RF
        return x_D @ w + jnp.where((slot >= 0) & (slot < len(a)), low_F, 0)

    return jax.vmap(row)(x, jnp.repeat(jnp.asarray(slots), tile))


def in_float64(function, *args):
    with jax.enable_x64(True):
        wide = [np.asarray(z) for z in args]
        wide = [z.astype(np.float64) if z.dtype != np.int32 else z for z in wide]
        return jax.tree.map(np.asarray, jax.jit(function)(*map(jnp.asarray, wide)))


def value_and_grads(op, weights):
    """The value of `op(x, w, a, b, ...)` and gradients by x, a, b of a weighted sum."""

    def loss(x, w, a, b, *more):
        y = op(x, w, a, b, *more)
        return jnp.sum(y.astype(weights.dtype) * weights), y

    def run(*args):
        grads, y = jax.grad(loss, (0, 2, 3), has_aux=True)(*args)
        return y, *grads

    return run


def assert_near(got, want, rtol=3e-6):
    """Within `rtol` of the largest entry, for each array."""
    for one, other in zip(got, want, strict=True):
        one = np.asarray(one, np.float64)
        largest = np.abs(other).max(initial=0)
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * largest)
