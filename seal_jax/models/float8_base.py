"""A base whose linears are in eight bits, beside the weights that they came from.

    layers_0.q_proj = {"kernel": [D, F], "float8": [F, D], "float8_scale": [F], ...}

Every program that runs the frozen base reads the eight bits if they are there, and the
`kernel` not at all: that is what a delta is merged into, in the model's own dtype, and
what is saved (`master`). Rounded anew from it after each merge, a base is never further
from its weights than one rounding. Embedding, head, norms and biases stay as they are.

Where nothing is merged, `running` leaves the kernels out.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from seal_kernels import float8

# Of `Arch.base_dtype`.
SAME, FLOAT8 = "same", "float8"

KERNEL, EIGHT, SCALE, TURNED = "kernel", "float8", "float8_scale", "float8_turned"


def rounded(kernel_DF: Array) -> dict[str, Array]:
    """The leaves that stand for a kernel."""
    w = float8.weights(kernel_DF)
    return {EIGHT: w.w_FD, SCALE: w.scale_F}


def added(params: dict) -> dict:
    """Parameters with the eight bits of every linear beside its kernel."""
    return _per_linear(params, lambda leaves: {**leaves, **rounded(leaves[KERNEL])})


def with_kernel(leaves: dict[str, Array], kernel_DF: Array) -> dict[str, Array]:
    """A linear's leaves with another kernel, and its eight bits if there are any."""
    if EIGHT not in leaves:
        return {**leaves, KERNEL: kernel_DF}
    # What is rounded is what is kept, not a second computation of it.
    kernel_DF = jax.lax.optimization_barrier(kernel_DF)
    return {**leaves, KERNEL: kernel_DF, **rounded(kernel_DF)}


def running(params: dict) -> dict:
    """What the frozen model reads: without the kernels that eight bits stand for."""
    return _per_linear(params, lambda leaves: _without(leaves, KERNEL))


def master(params: dict) -> dict:
    """The model's own weights alone, as without eight bits."""
    return _per_linear(params, lambda leaves: _without(leaves, EIGHT, SCALE))


def turned(params: dict) -> dict:
    """With the transposed copy of each linear's eight bits, for slopes.

    Made before a loop, it is made once; within, in every step.
    """
    return _per_linear(params, lambda x: {**x, TURNED: x[EIGHT].T} if EIGHT in x else x)


def weights(leaf: Callable[[str], Any]) -> float8.Weights | None:
    """A linear's weight in eight bits, or None; `leaf` gives one by name, or None."""
    w_FD = leaf(EIGHT)
    return None if w_FD is None else float8.Weights(w_FD, leaf(SCALE), leaf(TURNED))


def _without(leaves: dict, *names: str) -> dict:
    if EIGHT not in leaves:
        return leaves
    return {name: leaf for name, leaf in leaves.items() if name not in names}


def _per_linear(params: dict, change: Callable[[dict], dict]) -> dict:
    """`change` made to the leaves of each linear; works on shapes and shardings too."""

    def changed(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        if KERNEL in tree or EIGHT in tree:
            return change(tree)
        return {name: changed(x) for name, x in tree.items()}

    return changed(params)
