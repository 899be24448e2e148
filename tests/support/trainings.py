"""Whether two programs trained the same adapters or weights.

Adam divides a gradient by its own size. An entry whose gradient is nothing but rounding
therefore moves as far as any other, and where depends on the order in which a program
adds. So a few entries of thousands may differ by as much as they moved, on one machine
and not on the next, though all else agrees to the last digits.
"""

import jax
import numpy as np

# One entry in so many may go astray.
STRAY = 100


def _flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float32).ravel() for x in leaves(tree)])


def leaves(tree) -> list:
    return jax.tree.leaves(tree)


def gap(one, other) -> float:
    """The largest difference but for the one entry in a hundred that differs most.

    Infinite where a value is not finite.

    Raises:
      ValueError: on trees of different shapes.
    """
    shapes = [[np.shape(x) for x in leaves(tree)] for tree in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"trees of different shapes: {shapes}")
    off = np.sort(np.abs(_flat(one) - _flat(other)))
    # NaN is sorted last.
    return float(off[-1 - len(off) // STRAY] if np.isfinite(off[-1]) else np.inf)


def apart(one, other) -> float:
    """How far apart the two lie, as a share of how far the second one lies from 0."""
    size = np.linalg.norm(_flat(other))
    return float(np.linalg.norm(_flat(one) - _flat(other)) / size)


def assert_alike(one, other, atol: float = 1e-4) -> None:
    """All but strays within `atol`, and all together within a thousandth."""
    assert gap(one, other) < atol
    assert apart(one, other) < 1e-3
