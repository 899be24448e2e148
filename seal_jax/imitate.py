"""Supervised fine-tuning of the policy on the kept edits: SEAL's M-step.

A LoRA on every linear layer, trained on completions only, to be merged afterwards.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from seal_jax import lora, model
from seal_jax.training_settings import COSINE, LINEAR, ImitateConfig

SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    LINEAR: lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    COSINE: optax.cosine_decay_schedule,
}


def make_rows(
    examples: Sequence[tuple[Sequence[int], Sequence[int]]], *, width: int, eos: int
) -> dict[str, np.ndarray]:
    """Arrays `[B, T]` for (prompt, completion) pairs; end-of-text is a target too."""
    shape = (len(examples), width)
    rows = {
        "tokens": np.full(shape, eos, np.int32),
        "targets": np.full(shape, eos, np.int32),
        "weights": np.zeros(shape, np.float32),
    }
    for i, (prompt, completion) in enumerate(examples):
        ids = [*prompt, *completion]
        rows["tokens"][i, : len(ids)] = ids
        rows["targets"][i, : len(ids) - 1] = ids[1:]
        rows["weights"][i, len(prompt) - 1 : len(ids)] = 1.0
    return rows


def sum_loss(
    params: dict, delta: lora.Tree, rows: dict, arch: model.ModelConfig
) -> Array:
    """Weighted sum of cross-entropies over the rows, float32 `[]`."""
    b, t = rows["tokens"].shape
    positions = jnp.broadcast_to(jnp.arange(t), (b, t))
    mask = model.causal_mask(jnp.ones((b, t), bool))
    hidden, _ = model.hidden(params, delta, arch, rows["tokens"], positions, mask)
    logits = model.logits(params, arch, hidden)
    ce = optax.softmax_cross_entropy_with_integer_labels(logits, rows["targets"])
    return jnp.sum(ce * rows["weights"])


def _optimizer(cfg: ImitateConfig, steps: int) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(cfg.clip),
        optax.adamw(
            SCHEDULES[cfg.schedule](cfg.learning_rate, steps), weight_decay=0.0
        ),
    )


@functools.partial(
    jax.jit, static_argnames=("arch", "cfg", "steps"), donate_argnames="state"
)
def train_step(params, state, rows, *, arch: model.ModelConfig, cfg, steps: int):
    """One optimizer step over a batch given as micro-batches `[micro, B, T]`.

    The loss is the mean over the batch's completion tokens, whatever the micro-batches.
    """
    delta, opt_state = state
    total = jnp.sum(rows["weights"])

    def accumulate(carry, micro):
        def loss_fn(delta):
            scaled = lora.scaled(delta, cfg.lora.alpha / cfg.lora.rank)
            return sum_loss(params, scaled, micro, arch) / total

        loss, grads = jax.value_and_grad(loss_fn)(delta)
        return jax.tree.map(jnp.add, carry, (loss, grads)), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, delta))
    (loss, grads), _ = jax.lax.scan(accumulate, zero, rows)
    updates, opt_state = _optimizer(cfg, steps).update(grads, opt_state, delta)
    return (optax.apply_updates(delta, updates), opt_state), loss


def train(
    params: dict,
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    key: Array,
    *,
    arch: model.ModelConfig,
    cfg: ImitateConfig,
    eos: int,
) -> tuple[lora.Tree, list[float]]:
    """Trains a fresh adapter on (prompt, completion) pairs of token ids.

    Args:
      params: the policy's parameters, frozen.
      examples: the kept edits; batches are drawn anew each epoch.
      key: typed PRNG key of the adapter's init and of the shuffles.
      arch: the decoder.
      cfg: hyper-parameters.
      eos: end-of-text id, appended to every completion.

    Returns:
      The adapter with its scale folded in, ready for `lora.merge`, and the loss of
      every step (mean over completion tokens).

    Raises:
      ValueError: no examples.
    """
    if not examples:
        raise ValueError(
            "no edit was kept: nothing to imitate; lower select.threshold, or use "
            "'none'"
        )
    longest = max(len(p) + len(c) for p, c in examples)
    width = -(-longest // cfg.length_multiple) * cfg.length_multiple
    per_epoch = -(-len(examples) // cfg.batch)
    steps = per_epoch * cfg.epochs
    rng = np.random.default_rng(jax.random.key_data(key).tolist())
    delta = lora.init(key, arch, targets=cfg.lora.targets, rank=cfg.lora.rank)
    state = (delta, _optimizer(cfg, steps).init(delta))
    losses = []
    for _ in range(cfg.epochs):
        order = rng.permutation(len(examples))
        for start in range(0, len(examples), cfg.batch):
            chosen = [examples[i] for i in order[start : start + cfg.batch]]
            rows = _micro_batches(make_rows(chosen, width=width, eos=eos), cfg)
            state, loss = train_step(
                params, state, rows, arch=arch, cfg=cfg, steps=steps
            )
            losses.append(loss)
    return lora.scaled(state[0], cfg.lora.alpha / cfg.lora.rank), [
        float(x) for x in losses
    ]


def _micro_batches(rows: dict, cfg: ImitateConfig) -> dict:
    """`[B, T]` to `[batch / micro, micro, T]`; a short last batch gets empty rows."""

    def split(leaf: np.ndarray) -> np.ndarray:
        filled = np.zeros((cfg.batch, leaf.shape[1]), leaf.dtype)
        filled[: len(leaf)] = leaf
        return filled.reshape(-1, cfg.micro_batch, leaf.shape[1])

    return {name: split(leaf) for name, leaf in rows.items()}
