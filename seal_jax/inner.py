"""The inner loop's definition: training one adapter on one self-edit.

`adapt` is one adapter, a batch of lines per optimizer step, in the plainest JAX. It
knows of no other adapter, and `jax.vmap(adapt)` trains many. `packed` is what runs, and
must equal it; both end in the same `update`.
"""

import dataclasses
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array

from seal_jax import lora, model, plan


@dataclasses.dataclass(frozen=True)
class InnerConfig:
    """What a compiled inner loop is made for (SEAL, section 3.2; its TTT server).

    `pool`: finished adapters held on the device, and so the most that `train` takes.
    """

    targets: tuple[str, ...]
    rank: int
    alpha: float
    plan: plan.PlanConfig
    pool: int


class Slot(NamedTuple):
    """Training state of one adapter, or of many, stacked as `lora.stack` does."""

    adapter: lora.Tree
    adam: optax.ScaleByAdamState
    loss_sum: Array  # of its step losses so far, float32


# torch.optim.AdamW's and the Hugging Face Trainer's defaults, weight decay 0.
ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


def init_slot(adapter: lora.Tree) -> Slot:
    """A slot about to take its first step."""
    adam = cast(optax.ScaleByAdamState, ADAM.init(adapter))
    return Slot(adapter, adam, jnp.zeros(()))


def update(slot: Slot, grads: lora.Tree, loss: Array, rate: Array, clip: Array) -> Slot:
    """One AdamW step of one adapter, its gradient clipped by its own global norm."""
    # torch.nn.utils.clip_grad_norm_'s rule, with its 1e-6.
    shrink = jnp.minimum(1.0, clip / (optax.tree.norm(grads) + 1e-6))
    grads = jax.tree.map(lambda g: g * shrink, grads)
    updates, adam = ADAM.update(grads, slot.adam)
    adapter = jax.tree.map(lambda p, u: p - rate * u, slot.adapter, updates)
    return Slot(adapter, cast(optax.ScaleByAdamState, adam), slot.loss_sum + loss)


# The definition: one adapter


def batch_loss(
    params: dict, delta: lora.Tree, rows: dict, arch: model.ModelConfig
) -> Array:
    """Weighted sum of cross-entropies over the lines of one step, float32 `[]`.

    Args:
      params: frozen base parameters.
      delta: the adapter as applied (scale folded in).
      rows: arrays `[B, T]`, a line each as `plan_blocks.rows` lays them; the weights
        hold the loss mode and the mean. A line of no weight is absent.
      arch: the decoder.
    """
    # Queries that are not keys (sampled pads) come after the line: causality by index
    # and by position agree.
    mask_BTS = model.causal_mask(rows["is_key"])
    hidden_BTD, _ = model.hidden(
        params, delta, arch, rows["tokens"], rows["positions"], mask_BTS
    )
    logits_BTV = model.logits(params, arch, hidden_BTD)
    ce_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, rows["targets"])
    return jnp.sum(ce_BT * rows["weights"])


def train_step(
    params: dict,
    slot: Slot,
    rows: dict,
    rate: Array,
    clip: Array,
    arch: model.ModelConfig,
    cfg: InnerConfig,
) -> Slot:
    """One step of one adapter on one batch of lines, arrays `[B, T]`."""

    def loss_fn(adapter: lora.Tree) -> Array:
        delta = lora.scaled(adapter, cfg.alpha / cfg.rank)
        return batch_loss(params, delta, rows, arch)

    loss, grads = jax.value_and_grad(loss_fn)(slot.adapter)
    return update(slot, grads, loss, rate, clip)


def adapt(
    params: dict,
    adapter: lora.Tree,
    rows: dict,
    rates: Array,
    clip: Array,
    total: Array,
    arch: model.ModelConfig,
    cfg: InnerConfig,
) -> Slot:
    """Trains one adapter: the definition of the inner loop.

    Args:
      params: frozen base parameters.
      adapter: fresh adapter (`lora.init`).
      rows: arrays `[steps, B, T]`, the lines of each step. Steps beyond `total` are
        padding, so that adapters of different length can be vmapped.
      rates: learning rate of each step, float32 `[steps]`.
      clip: bound on the gradient's global norm.
      total: number of steps, int32 `[]`.
      arch: the decoder.
      cfg: rank, scale and targets.
    """

    def body(slot: Slot, at: tuple) -> tuple[Slot, None]:
        index, batch, rate = at
        trained = train_step(params, slot, batch, rate, clip, arch, cfg)
        keep = index < total
        return jax.tree.map(lambda n, o: jnp.where(keep, n, o), trained, slot), None

    steps = jnp.arange(rows["tokens"].shape[0])
    slot, _ = jax.lax.scan(body, init_slot(adapter), (steps, rows, rates))
    return slot
