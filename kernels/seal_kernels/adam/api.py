"""The door to Adam's step for many stacked adapters, of which some take one.

Beside the project's letters: R and X, the axes of one adapter's matrix.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seal_kernels.platforms import expects

IMPLEMENTATIONS = ("auto", "reference", "triton")


class Moved(NamedTuple):
    """`weight` and Adam's moments, `[S, R, X]` in float32; and what multiplies.

    `applied` is the weight times a factor, in the dtype that products are in.
    """

    weight: Array
    mu: Array
    nu: Array
    applied: Array


class Step(NamedTuple):
    """Of each adapter, `[S]`.

    `takes`, bool: whether it takes a step. `shrink`, float32: what its gradient is
    multiplied by, NaN included. `rate`: its learning rate. `steps`, int32: how many it
    took before; if none, its moments are taken for zero, whatever they are.
    """

    takes: Array
    shrink: Array
    rate: Array
    steps: Array


class Rule(NamedTuple):
    """Adam's constants (Kingma and Ba 2014, algorithm 1), and `applied`'s factor."""

    b1: float
    b2: float
    eps: float
    factor: float


def step(
    old: Moved, slope: Array, by: Step, rule: Rule, *, implementation: str = "auto"
) -> Moved:
    """One step of those adapters that take one; the others are as they were.

    Args:
      old: what there is.
      slope: the gradients, `[S, R, X]`, any float dtype.
      by: of each adapter.
      rule: the constants.
      implementation: one of `IMPLEMENTATIONS`. `auto` is `triton` on CUDA where it
        runs: it reads and writes, in place, nothing of an adapter that takes no step.

    Raises:
      ValueError: no such name, or shapes that do not fit.
      NotImplementedError: `triton` does not run here.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"adam.step: implementation={implementation!r} must be one of "
            f"{', '.join(IMPLEMENTATIONS)}"
        )
    shapes = {z.shape for z in (*old, slope)}
    if len(shapes) > 1 or any(z.shape != slope.shape[:1] for z in by):
        raise ValueError(
            f"adam.step: weights, moments and gradient {sorted(shapes)} must have one "
            f"shape, [S, R, X], and numbers of each adapter {[z.shape for z in by]} [S]"
        )
    kinds = [z.dtype for z in (*old[:3], by.takes, by.steps)]
    if kinds != [jnp.float32] * 3 + [bool, jnp.int32]:
        raise ValueError(
            "adam.step: weights, moments, takes and steps are "
            f"{', '.join(kind.name for kind in kinds)} and must be float32, float32, "
            "float32, bool and int32; cast them"
        )
    plain = functools.partial(reference, old, slope, by, rule)
    fused = functools.partial(_fused, old, slope, by, rule)
    if implementation == "triton":
        return fused()
    if implementation == "reference" or not expects("cuda"):
        return plain()

    def kernel() -> Moved:
        try:
            return fused()
        except NotImplementedError:
            return plain()

    return lax.platform_dependent(cuda=kernel, default=plain)


def reference(old: Moved, slope: Array, by: Step, rule: Rule) -> Moved:
    """The definition, in plain jnp."""
    numbers = (z[:, None, None] for z in _numbers(by, rule))
    takes, begun, shrink, rate, first, second = numbers
    g = slope.astype(jnp.float32) * shrink
    mu = rule.b1 * jnp.where(begun, old.mu, 0) + (1 - rule.b1) * g
    nu = rule.b2 * jnp.where(begun, old.nu, 0) + (1 - rule.b2) * g * g
    weight = old.weight - rate * (mu / first) / (jnp.sqrt(nu / second) + rule.eps)
    new = Moved(weight, mu, nu, (weight * rule.factor).astype(old.applied.dtype))
    return jax.tree.map(lambda new, old: jnp.where(takes, new, old), new, old)


def _fused(old: Moved, slope: Array, by: Step, rule: Rule) -> Moved:
    # Imported where it is asked for: Pallas takes a while, and most runs need none.
    from seal_kernels.adam import triton_gpu

    return Moved(*triton_gpu.step(old, slope, _numbers(by, rule), rule))


def _numbers(by: Step, rule: Rule) -> tuple[Array, ...]:
    """Takes, begun, shrink and rate, and what the moments are divided by."""
    count = (by.steps + 1).astype(jnp.float32)
    first, second = (1 - jnp.float32(b) ** count for b in (rule.b1, rule.b2))
    return by.takes, by.steps > 0, by.shrink, by.rate, first, second
