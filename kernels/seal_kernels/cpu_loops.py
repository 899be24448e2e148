"""Where a loop ends, for XLA on a CPU.

XLA:CPU fuses a cheap producer into every loop that reads it, and counts as cheap what
is not: the sum of a low-rank product, a rotary embedding or a sigmoid is then computed
again for each reader, in loops that LLVM no longer vectorises (docs/engine.md, "On a
CPU", has what it takes away).
"""

import jax
from jax import lax


def computed_once[T](made: T) -> T:
    """The same arrays, which a CPU computes once; other platforms are left alone."""
    leaves, tree = jax.tree.flatten(made)
    held = lax.platform_dependent(
        *leaves, cpu=lambda *x: lax.optimization_barrier(x), default=lambda *x: x
    )
    return jax.tree.unflatten(tree, held)
