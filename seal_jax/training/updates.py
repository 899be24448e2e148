"""How the slots of a step are updated, wherever their gradients lie.

`folded` brings the gradients of an adapter's places together. Then one of three: by
passing over all slots (`updated`), by taking out the few that step (`updated_few`), or
in place by a kernel (`updated_by_slot`). All three take the step of `inner.update`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from seal_jax.models import lora
from seal_jax.training import inner, plan_arrays
from seal_jax.training.inner import EngineConfig, Slot
from seal_jax.training.plan_arrays import Extras
from seal_kernels.adam import api as adam_op


def one[T](many: T, at: Array) -> T:
    """One of stacked trees."""
    return jax.tree.map(lambda leaf: leaf[at], many)


def rows_at[T](many: T, at: Array) -> T:
    """Rows of stacked trees; the last row for an index past it."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, at, axis=0, mode="clip"), many)


@jax.named_scope("fold")
def folded(
    step: plan_arrays.Steps, grads: lora.Tree, loss_K: Array, extras: Extras
) -> tuple[plan_arrays.Steps, lora.Tree, Array]:
    """All of a slot's gradient and loss at the first of its places, alone.

    Few slots have several, and those are added one after the other.
    """

    def fold(i: Array, sums: tuple[lora.Tree, Array]) -> tuple[lora.Tree, Array]:
        first, other = extras.folds[i]

        def add(leaf_K: Array) -> Array:
            # By slices: as a scatter of floats it would need an order.
            at = functools.partial(jax.lax.dynamic_index_in_dim, leaf_K)
            one, more = (at(i, keepdims=False) for i in (first, other))
            both = one.astype(jnp.float32) + more.astype(jnp.float32)
            both = both.astype(leaf_K.dtype)
            return jax.lax.dynamic_update_index_in_dim(leaf_K, both, first, 0)

        return jax.tree.map(add, sums)

    grads, loss_K = jax.lax.fori_loop(0, extras.fold_count, fold, (grads, loss_K))
    none = jnp.iinfo(jnp.int32).max
    alone_K = step.slots.at[extras.folds[:, 1]].set(none, mode="drop")
    return step._replace(slots=alone_K), grads, loss_K


def updated(
    slots: Slot, step: plan_arrays.Steps, grads: lora.Tree, loss_K: Array
) -> Slot:
    """All slots after the active ones' step.

    Every slot is read and written where it lies. To take out the active ones, update
    them and put them back moves each of their numbers three times as often, which is
    more than the waiting slots cost as long as they are not twice as many.
    """
    count = len(loss_K)
    # Where in the step a slot's gradient is; the fillers' places are past the slots.
    none_S = jnp.full(slots.loss_sum.shape, count, jnp.int32)
    place_S = none_S.at[step.slots].set(
        jnp.arange(count, dtype=jnp.int32), mode="drop", unique_indices=True
    )
    clipped = jax.vmap(inner.clipped)(grads, step.clips)
    own = rows_at((clipped, loss_K, step.rates), place_S)
    return jax.vmap(inner.moved)(slots, *own, place_S < count)


def updated_few(
    slots: Slot, step: plan_arrays.Steps, grads: lora.Tree, loss_K: Array
) -> Slot:
    """As `updated`, where few slots have a place: the others are not passed over.

    It is `updated` on the rows of those few, so that an update is the same arithmetic.
    """
    places = jnp.arange(len(loss_K), dtype=step.slots.dtype)
    active = step.slots < len(slots.loss_sum)
    own = step._replace(slots=jnp.where(active, places, len(loss_K) + places))
    moved = updated(rows_at(slots, step.slots), own, grads, loss_K)

    def back(k: Array, slots: Slot) -> Slot:
        return put(slots, one(moved, k), step.slots[k])

    # The first places are those in use.
    return jax.lax.fori_loop(0, active.sum(), back, slots)


def updated_by_slot(
    slots: Slot,
    applied: lora.Tree,
    step: plan_arrays.Steps,
    grads: lora.Tree,
    loss_S: Array,
    cfg: EngineConfig,
    *,
    norms_of: lora.Tree,
) -> tuple[Slot, lora.Tree]:
    """As `updated`, by a kernel that touches nothing of a slot that waits.

    `grads` are those of `applied`, and `norms_of` those of the adapters.
    """
    takes_S, adam = step.slots < cfg.plan.slots, slots.adam
    shrink_S = jax.vmap(inner.shrink)(norms_of, step.clips)
    by = adam_op.Step(takes_S, shrink_S, step.rates, jnp.asarray(adam.count))
    ones = jax.tree.map(lambda _: 1.0, grads)
    factors = lora.scaled(ones, cfg.alpha / cfg.rank)

    def moved(
        weight: Array, mu: Array, nu: Array, applied: Array, slope: Array, factor: float
    ) -> adam_op.Moved:
        rule = adam_op.Rule(inner.B1, inner.B2, inner.EPS, factor)
        own = by._replace(shrink=factor * by.shrink)
        return adam_op.step(adam_op.Moved(weight, mu, nu, applied), slope, own, rule)

    trees = slots.adapter, adam.mu, adam.nu, applied, grads, factors
    made = jax.tree.map(moved, *trees)
    adapter, mu, nu, applied = jax.tree.transpose(
        jax.tree.structure(grads),
        jax.tree.structure(adam_op.Moved(*[loss_S] * 4)),
        made,
    )
    count = jnp.where(takes_S, by.steps + 1, by.steps)
    loss_sum = jnp.where(takes_S, slots.loss_sum + loss_S, slots.loss_sum)
    adam = optax.ScaleByAdamState(count, mu, nu)
    return Slot(adapter, adam, loss_sum), applied


def put(many: Any, new: Any, at: Array) -> Any:
    """Writes one into stacked trees.

    As slices, which is less to compile, in every leaf, than a scatter of one row.
    """

    def into(old: Array, new: Array) -> Array:
        new = new.astype(old.dtype)
        return jax.lax.dynamic_update_index_in_dim(old, new, at, 0)

    return jax.tree.map(into, many, new)
