"""Which keys each query of a row sees: one range of positions, `first..end - 1`.

The token at t of a line that begins at s sees its line up to itself, `[s, t + 1)`. A
sampled pad (`plan_arrays.make_row`) behind a line of n tokens sees all of them, and no
pad: `[s, s + n)`. A position of no line sees nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class KeyRanges(NamedTuple):
    """What `seal_kernels.attention` takes, int32; `end <= first` is nothing."""

    first_BT: Array
    end_BT: Array


def causal(is_key_BT: Array) -> KeyRanges:
    """Of rows with one line each: its keys come first, what follows sees all of them.

    Args:
      is_key_BT: bool, the keys; none comes after a position that is not.
    """
    return of_lines(jnp.zeros(is_key_BT.shape, jnp.int32), is_key_BT)


def of_lines(segments_BT: Array, is_key_BT: Array) -> KeyRanges:
    """Of rows that lines share.

    Args:
      segments_BT: which line a position belongs to; lines are contiguous.
      is_key_BT: bool, the keys; those of a line are its first positions.
    """
    t = segments_BT.shape[1]
    at_BT = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32)[None], segments_BT.shape)
    begins_BT = jnp.diff(segments_BT, axis=1, prepend=segments_BT[:, :1] - 1) != 0
    first_BT = jax.lax.cummax(jnp.where(begins_BT, at_BT, 0), axis=1)
    # The keys up to and with each position, less those before its line.
    keys_BT = jnp.cumsum(is_key_BT, axis=1, dtype=jnp.int32)
    before_BT = jax.lax.cummax(
        jnp.where(begins_BT, keys_BT - is_key_BT.astype(jnp.int32), 0), axis=1
    )
    return KeyRanges(first_BT, first_BT + keys_BT - before_BT)
