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
    """How far apart the two lie, as a share of how far the second one lies from 0.

    Raises:
      ValueError: the second one is all zeros.
    """
    size = np.linalg.norm(_flat(other))
    if not size:
        raise ValueError("compared with zeros")
    return float(np.linalg.norm(_flat(one) - _flat(other)) / size)


def assert_alike(one, other, atol: float = 1e-4) -> None:
    """All but strays within `atol`, and strays no further than one part in 200 of all.

    For one adapter each: in a stack, one of its adapters could be the strays.
    """
    assert gap(one, other) < atol
    assert apart(one, other) < 5e-3


def assert_stacks_alike(ones, others, atol: float = 1e-4) -> None:
    """Adapter by adapter, of stacked trees."""
    for one, other in _pairs(ones, others):
        assert_alike(one, other, atol)


def assert_slopes_alike(slot, alone) -> None:
    """Of one adapter's slots: Adam's moments, which show a slope's size.

    The adapters do not: Adam's step is the same for a slope ten times as steep.
    """
    for ours, theirs in zip(slot.adam[1:], alone.adam[1:], strict=True):
        for one, other in zip(leaves(ours), leaves(theirs), strict=True):
            assert apart(one, other) < 1e-3


def stack_gap(ones, others) -> float:
    """The largest `gap` of adapters in the same place of two stacks."""
    return max(gap(one, other) for one, other in _pairs(ones, others))


def _pairs(ones, others):
    """The adapters in the same place of two stacks."""
    for i in range(len(leaves(others)[0])):
        yield tuple(jax.tree.map(lambda x, i=i: x[i], tree) for tree in (ones, others))
