"""Rows of a table by index, with a gradient whose sums have a fixed order."""

import functools

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def lookup(table_VD: Array, ids_M: Array) -> Array:
    """`table[ids]`, `[M, D]`.

    The gradient adds the rows of one index up in float32, in the order they have. A
    scatter-add, which `jnp.take` has for a gradient, does so on a CPU alone: on a GPU
    its order is that of the atomics.

    Args:
      table_VD: the rows.
      ids_M: int32, each in 0..V-1.
    """
    return jnp.take(table_VD, ids_M, axis=0)


def _forward(table_VD: Array, ids_M: Array):
    return lookup(table_VD, ids_M), (table_VD, ids_M)


def _backward(kept: tuple[Array, Array], d_MD: Array):
    table_VD, ids_M = kept
    sums = [functools.partial(add, rows=len(table_VD)) for add in (_scattered, _sorted)]
    wide_MD = d_MD.astype(jnp.float32)
    d_VD = jax.lax.platform_dependent(wide_MD, ids_M, cpu=sums[0], default=sums[1])
    return d_VD.astype(table_VD.dtype), None


lookup.defvjp(_forward, _backward)


def _scattered(d_MD: Array, ids_M: Array, *, rows: int) -> Array:
    return jnp.zeros((rows, d_MD.shape[1]), d_MD.dtype).at[ids_M].add(d_MD)


def _sorted(d_MD: Array, ids_M: Array, *, rows: int) -> Array:
    """Runs of one index are summed by halves, and each run's sum is written once."""
    order_M = jnp.argsort(ids_M, stable=True)
    ids_M, d_MD = ids_M[order_M], d_MD[order_M]
    begins_M1 = jnp.diff(ids_M, prepend=-1)[:, None] != 0

    def joined(left: tuple[Array, Array], right: tuple[Array, Array]):
        began, total = right
        return left[0] | began, jnp.where(began, total, left[1] + total)

    _, total_MD = jax.lax.associative_scan(joined, (begins_M1, d_MD))
    ends_M = jnp.diff(ids_M, append=-1) != 0
    # No place occurs twice: what is no run's last row goes past the table.
    at_M = jnp.where(ends_M, ids_M, rows + jnp.arange(len(ids_M)))
    zeros_VD = jnp.zeros((rows, d_MD.shape[1]), d_MD.dtype)
    return zeros_VD.at[at_M].set(total_MD, mode="drop", unique_indices=True)
