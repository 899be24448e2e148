"""Supervised fine-tuning of the policy on the kept edits: SEAL's M-step.

A LoRA on every linear layer, trained on completions only, to be merged afterwards.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from seal_jax.models import decoder, lora
from seal_jax.runtime import interrupts, meshes
from seal_jax.training import sft_loss, sft_rows
from seal_jax.training.settings import COSINE, LINEAR, ImitateConfig

SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    LINEAR: lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    COSINE: optax.cosine_decay_schedule,
}


class TunedAdapter(NamedTuple):
    """What `train` returns.

    `delta` has its scale folded in, ready for `lora.merge`. `losses` are those of the
    steps, means over their completion tokens. `tokens` are the positions of prompts and
    completions, over all epochs; `computed_tokens` all positions of the rows.
    """

    delta: lora.Tree
    losses: list[float]
    tokens: int
    computed_tokens: int


def _optimizer(cfg: ImitateConfig, steps: int) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(cfg.clip),
        optax.adamw(
            SCHEDULES[cfg.schedule](cfg.learning_rate, steps), weight_decay=0.0
        ),
    )


@functools.partial(
    jax.jit, static_argnames=("arch", "cfg", "steps", "mesh"), donate_argnames="state"
)
def train_step(
    params: dict,
    state: tuple[lora.Tree, optax.OptState],
    rows: dict,
    count: Array | np.int32,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    steps: int,
    mesh: Mesh | None = None,
) -> tuple[tuple[lora.Tree, optax.OptState], Array]:
    """One optimizer step over the first `count` micro-batches of `[N, micro, T]`.

    The loss is the mean over the batch's completion tokens, whatever the micro-batches.
    The count is no shape, so that one program does for every step.
    """
    delta, opt_state = state
    total = jnp.sum(rows["weights"])

    def accumulate(i: Array, carry: tuple[Array, lora.Tree]):
        micro = meshes.split_rows(jax.tree.map(lambda leaf: leaf[i], rows), mesh)

        def loss_fn(delta: lora.Tree) -> Array:
            scaled = lora.scaled(delta, cfg.lora.alpha / cfg.lora.rank)
            summed = sft_loss.sum_loss(params, scaled, micro, arch, frozen_head=True)
            return summed / total

        return jax.tree.map(jnp.add, carry, jax.value_and_grad(loss_fn)(delta))

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, delta))
    loss, grads = jax.lax.fori_loop(0, count, accumulate, zero)
    if mesh is not None:  # Each device has the sum, and takes the same step.
        grads = jax.lax.with_sharding_constraint(grads, meshes.replicated(mesh))
    updates, opt_state = _optimizer(cfg, steps).update(grads, opt_state, delta)
    tuned = cast(lora.Tree, optax.apply_updates(delta, updates))
    return (tuned, opt_state), loss


def train(
    params: dict,
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    key: Array,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    eos: int,
    mesh: Mesh | None = None,
) -> TunedAdapter:
    """Trains a fresh adapter on (prompt, completion) pairs of token ids.

    A step's pairs are packed into rows as wide as the longest of all, rounded up to
    `cfg.length_multiple`.

    Args:
      params: the policy's parameters, frozen; on a mesh, placed as
        `placement.param_shardings`.
      examples: the kept edits; batches are drawn anew each epoch.
      key: typed PRNG key of the adapter's init and of the shuffles.
      arch: the decoder.
      cfg: hyper-parameters. `micro_batch` counts packed rows; on a mesh it is rounded
        up to a multiple of the axis `data`.
      eos: end-of-text id, appended to every completion.
      mesh: devices that share a micro-batch's rows, or None for one.

    Raises:
      ValueError: no examples.
    """
    if not examples:
        raise ValueError(
            "no edit was kept: nothing to imitate; lower select.threshold, or use "
            "'none'"
        )
    lines = [
        sft_rows.line([*prompt, *completion], first_target=len(prompt), eos=eos)
        for prompt, completion in examples
    ]
    width = sft_rows.width([line.positions for line in lines], cfg.length_multiple)
    per_epoch = -(-len(examples) // cfg.batch)
    steps = per_epoch * cfg.epochs
    rng = np.random.default_rng(jax.random.key_data(key).tolist())
    delta = lora.init(key, arch, targets=cfg.lora.targets, rank=cfg.lora.rank)
    state = meshes.put((delta, _optimizer(cfg, steps).init(delta)), mesh)
    losses, tokens, computed = [], 0, 0
    for _ in range(cfg.epochs):
        order = rng.permutation(len(lines))
        for start in range(0, len(lines), cfg.batch):
            interrupts.check()
            chosen = [lines[i] for i in order[start : start + cfg.batch]]
            rows, count = micro_batches(
                chosen, cfg, width=width, shards=meshes.shards(mesh), eos=eos
            )
            tokens += sum(line.positions for line in chosen)
            computed += int(count) * rows["tokens"][0].size
            rows, count = meshes.put((rows, count), mesh)
            state, loss = train_step(
                params, state, rows, count, arch=arch, cfg=cfg, steps=steps, mesh=mesh
            )
            losses.append(loss)
    delta = lora.scaled(state[0], cfg.lora.alpha / cfg.lora.rank)
    return TunedAdapter(delta, [float(x) for x in losses], tokens, computed)


def micro_batches(
    lines: Sequence[sft_rows.Line],
    cfg: ImitateConfig,
    *,
    width: int,
    shards: int,
    eos: int,
) -> tuple[dict[str, np.ndarray], np.int32]:
    """A step's rows as micro-batches `[N, micro, T]`, and how many are not empty.

    N is the same for every step: `cfg.batch` lines take at most as many rows.
    """
    micro = -(-cfg.micro_batch // shards) * shards
    most = -(-cfg.batch // micro)
    rows = sft_rows.pack(lines, width=width, multiple=micro, eos=eos)
    count = len(rows["tokens"]) // micro
    empty = sft_rows.lay([], [], shape=((most - count) * micro, width), eos=eos)

    def split(name: str) -> np.ndarray:
        return np.concatenate([rows[name], empty[name]]).reshape(most, micro, width)

    return {name: split(name) for name in rows}, np.int32(count)
