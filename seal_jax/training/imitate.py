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

from seal_jax.models import decoder, float8_base, lora
from seal_jax.runtime import compiling, interrupts, meshes, prng
from seal_jax.training import sft_loss, sft_rows
from seal_jax.training.settings import COSINE, LINEAR, ImitateConfig

# What is left of the learning rate after `done` of the steps, `each` being one over
# their number: optax's linear and cosine decay to 0. Their own take the number of steps
# for a constant, so that every number would be a program of its own.
SCHEDULES: dict[str, Callable[[Array, Array], Array]] = {
    LINEAR: lambda done, each: 1.0 - done * each,
    COSINE: lambda done, each: 0.5 * (1.0 + jnp.cos(jnp.pi * done * each)),
}

type State = tuple[lora.Tree, tuple[optax.OptState, ...]]


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


def _optimizer(cfg: ImitateConfig) -> optax.GradientTransformation:
    """AdamW without weight decay, but for the rate."""
    return optax.chain(optax.clip_by_global_norm(cfg.clip), optax.scale_by_adam())


@functools.partial(jax.jit, static_argnames=("arch", "cfg"))
def begin(key: Array, *, arch: decoder.Arch, cfg: ImitateConfig) -> State:
    """A fresh adapter, and the optimizer before its first step."""
    delta = lora.init(key, arch, targets=cfg.lora.targets, rank=cfg.lora.rank)
    return delta, cast(tuple, _optimizer(cfg).init(delta))


@functools.partial(
    jax.jit, static_argnames=("arch", "cfg", "mesh"), donate_argnames="state"
)
def train_step(
    params: dict,
    state: State,
    rows: dict,
    count: Array | np.int32,
    each: Array | np.float32,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    mesh: Mesh | None = None,
) -> tuple[State, Array]:
    """One optimizer step on the mean over the completion tokens of `rows`; see `step`.

    The mean is over the batch, whatever the micro-batches.
    """
    total = jnp.sum(rows["weights"])
    return step(params, state, rows, count, each, total, arch=arch, cfg=cfg, mesh=mesh)


def step(
    params: dict,
    state: State,
    rows: dict,
    count: Array | np.int32,
    each: Array | np.float32,
    total: Array,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    mesh: Mesh | None,
) -> tuple[State, Array]:
    """One optimizer step over the first `count` micro-batches of `[N, micro, T]`.

    The loss is the weighted sum of cross-entropies over `total`. Neither the count nor
    the number of steps, of which `each` is one over it, is a shape or a constant, so
    that one program does for every step of every round.
    """
    delta, opt_state = state
    params = float8_base.turned(params)

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
    done = jnp.asarray(cast(optax.ScaleByAdamState, opt_state[1]).count)
    rate = -cfg.learning_rate * SCHEDULES[cfg.schedule](done, jnp.asarray(each))
    updates, opt_state = _optimizer(cfg).update(grads, opt_state)
    tuned = jax.tree.map(lambda p, u: p + rate * u, delta, updates)
    return (tuned, cast(tuple, opt_state)), loss


def train(
    params: dict,
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    key: Array,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    eos: int,
    mesh: Mesh | None = None,
    tick: Callable[[int], None] = lambda count: None,
) -> TunedAdapter:
    """Trains a fresh adapter on (prompt, completion) pairs of token ids.

    A step's pairs are packed into rows (see `width`).

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
      tick: is told of each step when the one before it is through.

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
    wide = width([line.positions for line in lines], cfg.length_multiple)
    taken = batches(len(lines), cfg, key)
    each = meshes.put(np.float32(1) / np.float32(len(taken)), mesh)
    state = meshes.put(begin(key, arch=arch, cfg=cfg), mesh)
    losses, tokens, computed = [], 0, 0
    for places in taken:
        interrupts.check()
        chosen = [lines[i] for i in places]
        rows, count = micro_batches(
            chosen, cfg, width=wide, shards=meshes.shards(mesh), eos=eos
        )
        tokens += sum(line.positions for line in chosen)
        computed += int(count) * rows["tokens"][0].size
        rows, count = meshes.put((rows, count), mesh)
        state, loss = train_step(
            params, state, rows, count, each, arch=arch, cfg=cfg, mesh=mesh
        )
        losses.append(loss)
        # One step stays queued, so that the device never waits for this.
        jax.block_until_ready(losses[-2:][0])
        tick(1)
    delta = applied(state[0], cfg)
    return TunedAdapter(delta, [float(x) for x in losses], tokens, computed)


def batches(count: int, cfg: ImitateConfig, key: Array) -> list[list[int]]:
    """Which of `count` examples each step takes; drawn anew in each epoch."""
    rng = np.random.default_rng(jax.random.key_data(key).tolist())
    return [
        order[start : start + cfg.batch]
        for order in (rng.permutation(count).tolist() for _ in range(cfg.epochs))
        for start in range(0, count, cfg.batch)
    ]


def applied(delta: lora.Tree, cfg: ImitateConfig) -> lora.Tree:
    """A trained adapter on the host, its scale folded in."""
    # On the host, where it goes next anyway: no program for each of its shapes.
    delta = jax.tree.map(np.asarray, delta)
    return lora.scaled(delta, cfg.lora.alpha / cfg.lora.rank)


def expect(
    params: dict,
    positions: int,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    eos: int,
    call: compiling.Call,
) -> None:
    """Calls the programs of `train`, on one device, by `call`.

    Args:
      params: their shapes are enough.
      positions: of the longest line.
      arch, cfg, eos: as of `train`.
      call: what compiles them.
    """
    state = call(begin, prng.root(0), arch=arch, cfg=cfg)
    line = sft_rows.line([eos], first_target=0, eos=eos)
    wide = width([positions], cfg.length_multiple)
    rows, count = micro_batches([line], cfg, width=wide, shards=1, eos=eos)
    each = np.float32(1)
    call(train_step, params, state, rows, count, each, arch=arch, cfg=cfg, mesh=None)


def width(positions: Sequence[int], multiple: int) -> int:
    """Of the rows: the first of `multiple`, twice, four times ... that takes all lines.

    Rounds whose longest lines differ mostly run one program so, and lines side by side
    fill what a longer row has to spare.
    """
    return multiple << max(0, (-(-max(positions) // multiple) - 1).bit_length())


def micro_batches(
    lines: Sequence[sft_rows.Line],
    cfg: ImitateConfig,
    *,
    width: int,
    shards: int,
    eos: int,
    each: int = 1,
) -> tuple[dict[str, np.ndarray], np.int32]:
    """A step's rows as micro-batches `[N, micro, T]`, and how many are not empty.

    N is the same for every step: `cfg.batch` examples of `each` lines take at most as
    many rows.
    """
    micro = -(-cfg.micro_batch // shards) * shards
    most = -(-cfg.batch * each // micro)
    rows = sft_rows.pack(lines, width=width, multiple=micro, eos=eos)
    count = len(rows["tokens"]) // micro
    empty = sft_rows.lay([], [], shape=((most - count) * micro, width), eos=eos)

    def split(name: str) -> np.ndarray:
        return np.concatenate([rows[name], empty[name]]).reshape(most, micro, width)

    return {name: split(name) for name in rows}, np.int32(count)
