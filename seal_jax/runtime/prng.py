"""Random keys, folded and picked without a compiled program for each number of them.

Eager jax compiles `keys[index]` and a fold anew for every length, and a run has dozens
of lengths. Here one program folds `ROWS` keys with up to `COLUMNS` numbers at a time,
and picking is numpy's: what is in a key is two words.
"""

from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np
from jax import Array

ROWS, COLUMNS = 1024, 8

_IMPL = "threefry2x32"  # jax's default


def root(seed: int) -> Array:
    """`jax.random.key(seed)`, of which no program is compiled.

    Its words are 0 and the seed's low 32 bits (a test holds this to jax's).
    """
    return _typed(np.array([0, seed & 0xFFFFFFFF], np.uint32))


def many(count: int) -> Array:
    """So many typed keys, all alike: to stand for others of their shape."""
    return _typed(np.zeros((count, 2), np.uint32))


def fold(key: Array, *columns: Sequence[int] | np.ndarray) -> Array:
    """One key per row of the columns: `key` folded with each column in turn.

    Args:
      key: typed, one for all rows or one for each.
      columns: whole numbers, up to `COLUMNS` columns of equal length.

    Raises:
      ValueError: no column or too many, or columns of other lengths.
    """
    table = [np.asarray(column, np.uint32) for column in columns]
    if not 1 <= len(table) <= COLUMNS or len({len(c) for c in table}) != 1:
        raise ValueError(
            f"columns of lengths {list(map(len, table))} must be 1 to {COLUMNS} of "
            "equal length; fold twice for more"
        )
    count = len(table[0])
    words = np.broadcast_to(_words(key), (count, 2))
    folded = np.empty((count, 2), np.uint32)
    for begin in range(0, count, ROWS):
        rows = slice(begin, min(begin + ROWS, count))
        here = np.zeros((ROWS, 2), np.uint32)
        here[: rows.stop - begin] = words[rows]
        numbers = np.zeros((COLUMNS, ROWS), np.uint32)
        for filled, column in zip(numbers, table, strict=False):
            filled[: rows.stop - begin] = column[rows]
        got = _fold(here, numbers, np.int32(len(table)))
        folded[rows] = np.asarray(got)[: rows.stop - begin]
    return _typed(folded)


def take(keys: Array, index: Any) -> Array:
    """`keys[index]`, any index that numpy takes for the keys' own axes."""
    return _typed(_words(keys)[index])


def _words(keys: Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(keys))


def _typed(words: np.ndarray | Array) -> Array:
    # No `jnp.asarray`, which is a program for each shape.
    return jax.random.wrap_key_data(cast(Array, words), impl=_IMPL)


@jax.jit
def _fold(words: Array, numbers: Array, count: Array) -> Array:
    def one(i: Array, words: Array) -> Array:
        keys = jax.vmap(jax.random.fold_in)(_typed(words), numbers[i])
        return jax.random.key_data(keys)

    return jax.lax.fori_loop(0, count, one, words)
