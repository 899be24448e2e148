"""The inner loop: training one adapter on one self-edit, and many at once.

`adapt` is the definition: one adapter, one line per optimizer step, in the plainest
JAX. It knows of no other adapter, and `jax.vmap(adapt)` trains many. `train` is what
runs: the same `train_step`, vmapped over the adapters that `plan.steps` advances
together. Tests hold the two to each other.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from seal_jax import lora, model, plan


@dataclasses.dataclass(frozen=True)
class InnerConfig:
    """Hyper-parameters of the inner loop (SEAL, section 3.2; its TTT server)."""

    targets: tuple[str, ...]
    rank: int
    alpha: float
    learning_rate: float
    clip: float
    plan: plan.PlanConfig
    slots: int


class Slot(NamedTuple):
    """Training state of one adapter; many are stacked on a leading axis."""

    adapter: lora.Tree
    adam: optax.ScaleByAdamState
    total: Array  # steps this adapter will take, int32 []
    loss_sum: Array  # sum of its step losses so far, float32 []


# torch.optim.AdamW's and the Hugging Face Trainer's defaults, weight decay 0.
ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


def init_slot(adapter: lora.Tree, total: Array) -> Slot:
    """A slot about to take its first of `total` steps."""
    adam = cast(optax.ScaleByAdamState, ADAM.init(adapter))
    return Slot(adapter, adam, jnp.asarray(total), jnp.zeros(()))


def line_loss(
    params: dict, delta: lora.Tree, row: dict, arch: model.ModelConfig
) -> Array:
    """Weighted sum of cross-entropies over one training line, float32 `[]`.

    Args:
      params: frozen base parameters.
      delta: the adapter as applied (scale folded in).
      row: arrays `[T]` as `plan.make_row` lays them; the weights hold the loss mode.
      arch: the decoder.
    """
    row = jax.tree.map(lambda leaf: leaf[None], row)
    # Queries that are not keys (sampled pads) come after the line: causality by index
    # and by position agree.
    mask_BTS = model.causal_mask(row["is_key"])
    hidden_BTD, _ = model.hidden(
        params, delta, arch, row["tokens"], row["positions"], mask_BTS
    )
    logits_BTV = model.logits(params, arch, hidden_BTD)
    ce_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, row["targets"])
    return jnp.sum(ce_BT * row["weights"])


def train_step(
    params: dict, slot: Slot, row: dict, arch: model.ModelConfig, cfg: InnerConfig
) -> Slot:
    """One AdamW step of one adapter on one line.

    The learning rate falls linearly to zero over the adapter's own number of steps; the
    gradient is clipped by its own global norm.
    """

    def loss_fn(adapter: lora.Tree) -> Array:
        return line_loss(params, lora.scaled(adapter, cfg.alpha / cfg.rank), row, arch)

    loss, grads = jax.value_and_grad(loss_fn)(slot.adapter)
    # torch.nn.utils.clip_grad_norm_'s rule, with its 1e-6.
    shrink = jnp.minimum(1.0, cfg.clip / (optax.tree.norm(grads) + 1e-6))
    grads = jax.tree.map(lambda g: g * shrink, grads)
    rate = cfg.learning_rate * (1.0 - slot.adam.count / slot.total)
    updates, adam = ADAM.update(grads, slot.adam)
    adapter = jax.tree.map(lambda p, u: p - rate * u, slot.adapter, updates)
    adam = cast(optax.ScaleByAdamState, adam)
    return Slot(adapter, adam, slot.total, slot.loss_sum + loss)


def adapt(
    params: dict,
    adapter: lora.Tree,
    rows: dict,
    total: Array,
    arch: model.ModelConfig,
    cfg: InnerConfig,
) -> Slot:
    """Trains one adapter: the definition of the inner loop.

    Args:
      params: frozen base parameters.
      adapter: fresh adapter (`lora.init`).
      rows: arrays `[steps, T]`, the lines in training order. Steps beyond `total` are
        padding, so that adapters of different length can be vmapped.
      total: number of steps, int32 `[]`.
      arch: the decoder.
      cfg: hyper-parameters.
    """

    def body(slot: Slot, step_row: tuple) -> tuple[Slot, None]:
        index, row = step_row
        trained = train_step(params, slot, row, arch, cfg)
        keep = index < total
        return jax.tree.map(lambda n, o: jnp.where(keep, n, o), trained, slot), None

    steps = jnp.arange(rows["tokens"].shape[0])
    slot, _ = jax.lax.scan(body, init_slot(adapter, total), (steps, rows))
    return slot


@functools.partial(jax.jit, static_argnames=("arch", "cfg"), donate_argnames="slots")
def advance(
    params: dict,
    slots: Slot,
    index_A: Array,
    rows: dict,
    arch: model.ModelConfig,
    cfg: InnerConfig,
) -> Slot:
    """One global step: the slots named by `index_A` each train their row.

    Only those slots are read and written. An index past the last slot is a filler.
    """
    picked = jax.tree.map(lambda s: s.at[index_A].get(mode="clip"), slots)
    trained = jax.vmap(train_step, in_axes=(None, 0, 0, None, None))(
        params, picked, rows, arch, cfg
    )
    return jax.tree.map(lambda s, t: s.at[index_A].set(t, mode="drop"), slots, trained)


@functools.partial(jax.jit, static_argnames=("arch", "cfg"))
def init_slots(
    keys_A: Array, totals_A: Array, arch: model.ModelConfig, cfg: InnerConfig
) -> Slot:
    """Fresh slots, one per key."""

    def one(key: Array, total: Array) -> Slot:
        fresh = lora.init(key, arch, targets=cfg.targets, rank=cfg.rank)
        return init_slot(fresh, total)

    return jax.vmap(one)(keys_A, totals_A)


class Trained(NamedTuple):
    """What `train` returns; the leading axis A has one entry per slot.

    `adapters` have alpha / R folded in. `loss_A` is the mean step loss. `finite_A` says
    whether an adapter's weights and losses all stayed finite.
    """

    adapters: lora.Tree
    loss_A: np.ndarray
    finite_A: np.ndarray
    tokens: int
    computed_tokens: int


@functools.partial(jax.jit, static_argnames="cfg", donate_argnames="slots")
def _finish(slots: Slot, cfg: InnerConfig) -> tuple[lora.Tree, Array, Array]:
    finite_A = jnp.isfinite(slots.loss_sum)
    for leaf in jax.tree.leaves(slots.adapter):
        finite_A &= jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
    loss_A = slots.loss_sum / jnp.maximum(slots.total, 1)
    return lora.scaled(slots.adapter, cfg.alpha / cfg.rank), loss_A, finite_A


def train(
    params: dict,
    jobs: Sequence[plan.Job],
    keys_A: Array,
    *,
    arch: model.ModelConfig,
    cfg: InnerConfig,
    eos: int,
) -> Trained:
    """Trains up to `cfg.slots` adapters together.

    Args:
      params: frozen base parameters.
      jobs: one per adapter, at most `cfg.slots`.
      keys_A: typed PRNG keys, one per job, that draw the fresh adapters.
      arch: the decoder.
      cfg: hyper-parameters.
      eos: end-of-text id.

    Raises:
      ValueError: see `plan.steps`.
    """
    missing = cfg.slots - len(jobs)
    # A short last chunk runs through the same compiled program, with idle slots.
    keys_A = jnp.concatenate([keys_A, jnp.broadcast_to(keys_A[:1], (missing,))])
    totals_A = [len(job.lines) * cfg.plan.epochs for job in jobs] + [1] * missing
    slots = init_slots(keys_A, jnp.array(totals_A), arch, cfg)
    tokens = computed = 0
    for step in plan.steps(jobs, cfg.plan, slots=cfg.slots, eos=eos):
        used = step.slots < cfg.slots
        tokens += int((step.rows["weights"][used] > 0).sum())
        computed += step.rows["tokens"].size
        slots = advance(params, slots, step.slots, step.rows, arch, cfg)
    adapters, loss_A, finite_A = _finish(slots, cfg)
    return Trained(adapters, np.asarray(loss_A), np.asarray(finite_A), tokens, computed)
