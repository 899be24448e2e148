"""Adam's step in Pallas, compiled by Triton: in place, and of those alone that take it.

XLA passes over all adapters, and reads and writes those that wait as well. Here a
program has a part of one adapter, and leaves it where it is if there is no step.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from seal_kernels import triton

# Numbers that a program moves, at most and at least.
_MOST, _FEWEST = 1024, 128


def step(
    old: tuple[Array, ...],
    slope: Array,
    numbers: tuple[Array, ...],
    rule: Any,
    interpret: bool = False,
) -> list[Array]:
    """Arguments and results as of `api.step`; `numbers` as of `api._numbers`.

    Raises:
      NotImplementedError: adapters of an odd size, not this device, or this jax has no
        Triton.
    """
    if not interpret:
        triton.capability()
    slots, size = slope.shape[0], slope[0].size
    block = triton.power_of_two(size, _MOST)
    if block < _FEWEST:
        raise NotImplementedError(
            f"adapters of {size} numbers are no multiple of {_FEWEST}"
        )
    part = pl.BlockSpec((None, block), lambda s, i: (s, i))
    one = pl.BlockSpec((1,), lambda s, i: (s,))
    flat = [z.reshape(slots, size) for z in (*old, slope)]
    takes, begun, *others = numbers
    made = pl.pallas_call(
        functools.partial(_block, rule),
        grid=(slots, size // block),
        in_specs=[part] * len(flat) + [one] * len(numbers),
        out_specs=[part] * len(old),
        out_shape=[jax.ShapeDtypeStruct(z.shape, z.dtype) for z in flat[:-1]],
        input_output_aliases={i: i for i in range(len(old))},
        name="adam_step",
        interpret=interpret,
        compiler_params=None if interpret else triton.params(num_warps=4, num_stages=1),
    )(*flat, takes.astype(jnp.int32), begun.astype(jnp.int32), *others)
    return [z.reshape(slope.shape) for z in made]


def _block(
    rule,
    weight_ref,
    mu_ref,
    nu_ref,
    applied_ref,
    slope_ref,
    takes_ref,
    begun_ref,
    shrink_ref,
    rate_ref,
    first_ref,
    second_ref,
    *out_refs,
):
    new_weight_ref, new_mu_ref, new_nu_ref, new_applied_ref = out_refs
    del applied_ref

    @pl.when(takes_ref[0] != 0)
    def _():
        g = slope_ref[...].astype(jnp.float32) * shrink_ref[0]
        begun = begun_ref[0] != 0
        mu = rule.b1 * jnp.where(begun, mu_ref[...], 0) + (1 - rule.b1) * g
        nu = rule.b2 * jnp.where(begun, nu_ref[...], 0) + (1 - rule.b2) * g * g
        up = (mu / first_ref[0]) / (jnp.sqrt(nu / second_ref[0]) + rule.eps)
        weight = weight_ref[...] - rate_ref[0] * up
        new_weight_ref[...] = weight
        new_mu_ref[...] = mu
        new_nu_ref[...] = nu
        new_applied_ref[...] = (weight * rule.factor).astype(new_applied_ref.dtype)
