"""The low-rank matmul's rule under `vmap`: adapters are batched, the base never is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap


def with_rule(
    run: Callable[..., Any],
    *,
    rows_alone: bool,
    many_bases: Callable[..., Any] | None,
) -> Callable[..., Any]:
    """`run(w, rows, adapters)` that keeps `w` unbatched under vmap, nested or not.

    Args:
      run: takes `w_DF` (an array or `float8.Weights`), a tuple of `[A, T, ...]` and
        a tuple of `[A, R, ...]`.
      rows_alone: whether every result is per row, so that a batch of rows for the same
        adapters is just more rows. Else results are per adapter, one for each element
        of the batch.
      many_bases: `run` in operations that jax can batch, for a batch in which `w`
        differs as well: many models, each with adapters of its own. None: one model
        after the other.
    """
    op = custom_vmap(run)

    @op.def_vmap
    def _(size: int, batched: Any, *args: Any):
        w_batched, rows_batched, adapters_batched = batched
        w_batched = any(jax.tree.leaves(w_batched))
        if w_batched and many_bases is not None:
            axes = jax.tree.map(lambda has: 0 if has else None, batched)
            outs = jax.vmap(many_bases, tuple(axes))(*args)
        elif w_batched:
            outs = _one_by_one(op, batched, args)
        elif rows_alone and not any(adapters_batched):
            w_DF, rows, adapters = args
            rows = [_axis_to_rows(rows_EAT) for rows_EAT in rows]
            outs = op(w_DF, tuple(rows), adapters)
            outs = jax.tree.map(lambda out: _axis_from_rows(out, size), outs)
        else:
            w_DF, rows, adapters = args
            rows = _axis_to_adapters(size, rows, rows_batched)
            adapters = _axis_to_adapters(size, adapters, adapters_batched)
            outs = op(w_DF, rows, adapters)
            outs = jax.tree.map(lambda out: _split(out, 0, size), outs)
        return outs, jax.tree.map(lambda _: True, outs)

    return op


def _one_by_one(op: Callable[..., Any], batched: Any, args: Any) -> Any:
    """`op` for each element of the batch in turn."""
    flat, tree = jax.tree.flatten(args)
    has_axis = jax.tree.leaves(batched)

    def one(elements: list[Array]) -> Any:
        element = iter(elements)
        mixed = [
            next(element) if has else leaf
            for has, leaf in zip(has_axis, flat, strict=True)
        ]
        return op(*tree.unflatten(mixed))

    return jax.lax.map(
        one, [leaf for has, leaf in zip(has_axis, flat, strict=True) if has]
    )


def _axis_to_rows(rows_EAT: Array) -> Array:
    """`[E, A, T, ...]` to `[A, E * T, ...]`."""
    rows_AET = jnp.moveaxis(rows_EAT, 0, 1)
    return _merged(rows_AET, 1)


def _axis_from_rows(rows_AET: Array, size: int) -> Array:
    """`[A, E * T, ...]` to `[E, A, T, ...]`."""
    return jnp.moveaxis(_split(rows_AET, 1, size), 1, 0)


def _axis_to_adapters(size: int, arrays: Any, batched: Any) -> Any:
    """`[E, A, ...]`, or `[A, ...]` repeated E times, to `[E * A, ...]`."""

    def merge(z: Array, has_axis: bool) -> Array:
        z_EA = z if has_axis else jnp.broadcast_to(z[None], (size, *z.shape))
        return _merged(z_EA, 0)

    return tuple(map(merge, arrays, batched))


def _merged(array: Array, axis: int) -> Array:
    """`array` with `axis` and the one after it as one."""
    shape = array.shape
    size = shape[axis] * shape[axis + 1]
    return array.reshape(*shape[:axis], size, *shape[axis + 2 :])


def _split(array: Array, axis: int, size: int) -> Array:
    """`array` with `axis` as two, the first of them of `size`."""
    shape = array.shape
    pair = (size, shape[axis] // size)
    return array.reshape(*shape[:axis], *pair, *shape[axis + 1 :])
