"""What keeps one line's NaN out of the others, in one place for all implementations.

They are given numbers that are finite and stay so: no query, key, value or gradient is
larger than `LARGEST`, and then no product of two is too large for float32 (nor the sum
of a head's products). What a query does not see then has a weight of exactly zero, and
zero times whatever it is multiplied with is zero.
"""

import jax.numpy as jnp
from jax import Array

# Of a magnitude that no sound network comes near; squared and summed over a head it is
# far from float32's 3.4e38.
LARGEST = 1e15


def is_sound(x: Array) -> Array:
    """Where `x` is finite and not too large, bool; false for NaN."""
    return jnp.abs(x) <= jnp.asarray(
        min(LARGEST, float(jnp.finfo(x.dtype).max)), x.dtype
    )


def sound(x: Array) -> Array:
    """`x`, or zero where it is not sound."""
    return jnp.where(is_sound(x), x, jnp.zeros((), x.dtype))


def marked(y_BTNH: Array, *rows_BTKH: Array) -> Array:
    """`y`, or NaN at the positions of which a query, key or value is not sound."""
    sound_BT = jnp.ones(y_BTNH.shape[:2], bool)
    for x in rows_BTKH:
        sound_BT &= is_sound(x).all((-2, -1))
    nan = jnp.full((), jnp.nan, y_BTNH.dtype)
    return jnp.where(sound_BT[:, :, None, None], y_BTNH, nan)


def ranges(
    first_BT: Array, end_BT: Array, *, causal: bool = False
) -> tuple[Array, Array]:
    """The same ranges within `0..T`; an empty one is where its query is.

    There it widens no block's range of keys. With `causal` none goes past its query.
    """
    t = first_BT.shape[1]
    first_BT = jnp.clip(first_BT.astype(jnp.int32), 0, t)
    end_BT = jnp.clip(end_BT.astype(jnp.int32), 0, t)
    own_BT = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32)[None], first_BT.shape)
    if causal:
        end_BT = jnp.minimum(end_BT, own_BT + 1)
    empty_BT = end_BT <= first_BT
    return jnp.where(empty_BT, own_BT, first_BT), jnp.where(empty_BT, own_BT, end_BT)
