"""Many adapters that march in step, and imitation, inside the round's program.

`adapt` is `jax.vmap` of `inner.adapt`, a chunk of adapters at a time. Those with most
steps share the first chunk, so that few wait for a longer one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seal_jax.models import decoder, key_ranges, lora
from seal_jax.rounds.token_steps import Lines, Text
from seal_jax.training import imitate as imitation
from seal_jax.training import inner
from seal_jax.training.settings import ImitateConfig


class Jobs(NamedTuple):
    """Adapters to train, leaves `[A, ...]`: keys, lines, and `draws.orders` of each.

    One of no lines takes no step.
    """

    key: Array
    lines: Lines
    orders: Array


class Adapted(NamedTuple):
    """Trained adapters, leaves `[A, ...]`: as applied, scale folded in.

    `loss`: mean of their steps'. `failed`: not finite. `lines`: how many each had.
    """

    deltas: lora.Tree
    loss: Array
    failed: Array
    lines: Array


def in_chunks(
    fn: Callable[[Any], Any], tree: Any, size: int, mesh: Mesh | None = None
) -> Any:
    """`jax.vmap(fn)` of a tree's leaves `[A, ...]`, at most `size` at a time.

    A mesh shares the chunks over `data`.
    """
    count = len(jax.tree.leaves(tree)[0])
    chunks = -(-count // size)
    size = -(-count // chunks)
    # What fills the last chunk up repeats its last element.
    place = jnp.minimum(jnp.arange(chunks * size), count - 1)

    def cut(leaf: Array) -> Array:
        return leaf[place].reshape(chunks, size, *leaf.shape[1:])

    def chunk(tree: Any) -> Any:
        if mesh is not None:
            rows = NamedSharding(mesh, PartitionSpec("data"))
            tree = jax.lax.with_sharding_constraint(tree, rows)
        return jax.vmap(fn)(tree)

    out = jax.lax.map(chunk, jax.tree.map(cut, tree))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], out)


def line_rows(lines: Lines, *, eos: int) -> dict[str, Array]:
    """Lines as `inner.adapt` reads them, `[L, T]`: `plan_arrays.make_row`, masked."""
    width = lines.ids_LT.shape[1]
    size_L1 = jnp.minimum(lines.size_L, width)[:, None]
    # A line that is cut has no end-of-text: its last token predicts nothing.
    targets_L1 = size_L1 - (lines.size_L > width)[:, None]
    at_1T = jnp.arange(width)[None]
    inside_LT = at_1T < size_L1
    tokens_LT = jnp.where(inside_LT, lines.ids_LT, eos)
    following_LT = jnp.pad(tokens_LT[:, 1:], ((0, 0), (0, 1)), constant_values=eos)
    weight_L1 = jnp.float32(1) / jnp.maximum(targets_L1, 1).astype(jnp.float32)
    return {
        "tokens": tokens_LT,
        "targets": following_LT,
        "positions": jnp.where(inside_LT, at_1T, 0),
        "weights": jnp.where(at_1T < targets_L1, weight_L1, 0.0),
        "is_key": inside_LT,
    }


def adapt(
    params: dict,
    jobs: Jobs,
    rates: Array,
    *,
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
    clip: float,
    eos: int,
    chunk: int,
    mesh: Mesh | None = None,
) -> Adapted:
    """Trains all adapters; `rates` are `draws.rates`, by the number of lines."""
    steps, most = rates.shape[1], rates.shape[0]

    def one(job: Jobs) -> Adapted:
        count = job.lines.number
        row = jnp.maximum(count - 1, 0)
        order = job.orders[row].astype(jnp.int32)
        rows = line_rows(job.lines, eos=eos)
        total = count * (steps // most)
        slot = inner.adapt(
            params,
            lora.init(job.key, arch, targets=cfg.targets, rank=cfg.rank),
            jax.tree.map(lambda leaf: leaf[order][:, None], rows),
            rates[row],
            jnp.float32(clip),
            total,
            arch,
            cfg,
        )
        finite = jnp.isfinite(slot.loss_sum)
        for leaf in jax.tree.leaves(slot.adapter):
            finite &= jnp.isfinite(leaf).all()
        loss = slot.loss_sum / jnp.maximum(total, 1)
        return Adapted(inner.applied(slot.adapter, cfg), loss, ~finite, count)

    # Longest first, and back.
    order_A = jnp.argsort(-jobs.lines.number, stable=True)
    sorted_jobs = jax.tree.map(lambda x: x[order_A], jobs)
    done = in_chunks(one, sorted_jobs, chunk, mesh)
    back_A = jnp.argsort(order_A)
    return jax.tree.map(lambda x: x[back_A], done)


def imitation_rows(prompts: Text, texts: Text, *, eos: int) -> dict[str, Array]:
    """A row for each prompt and its completion, `[K, T]`; see `sft_rows.lay`."""
    width = prompts.ids_N.shape[1] + texts.ids_N.shape[1]

    def row(prompt: Text, text: Text) -> dict[str, Array]:
        at_T = jnp.arange(width + 1)
        first, end = prompt.size, prompt.size + text.size
        of_prompt_T = prompt.ids_N[jnp.minimum(at_T, prompt.ids_N.size - 1)]
        of_text_T = text.ids_N[jnp.clip(at_T - first, 0, text.ids_N.size - 1)]
        ids_T = jnp.where(at_T < first, of_prompt_T, of_text_T)
        ids_T = jnp.where(at_T < end, ids_T, eos)
        at_T = at_T[:-1]
        inside_T = at_T < end
        return {
            "tokens": ids_T[:-1],
            "targets": ids_T[1:],
            "positions": jnp.where(inside_T, at_T, 0),
            "segments": jnp.where(inside_T, 0, -1),
            "weights": (inside_T & (at_T >= first - 1)).astype(jnp.float32),
        }

    return jax.vmap(row)(prompts, texts)


def nats(
    params: dict, row: dict[str, Array], own_T: Array, *, arch: decoder.Arch
) -> Array:
    """-log p of the targets of a row of `imitation_rows` that `own_T` marks, `[]`."""
    ranges = key_ranges.causal(row["segments"][None] >= 0)
    states, _ = decoder.hidden(
        params, None, arch, row["tokens"][None], row["positions"][None], ranges
    )
    log_p_TV = jax.nn.log_softmax(decoder.logits(params, arch, states[0]))
    told_T = log_p_TV[jnp.arange(len(own_T)), row["targets"]]
    return -jnp.sum(jnp.where(own_T, told_T, 0.0))


def imitate(
    params: dict,
    rows: dict[str, Array],
    batches: Array,
    key: Array,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
) -> tuple[lora.Tree, Array]:
    """`imitate.train` on rows `[K, T]`; the delta as applied, and losses `[steps]`.

    Args:
      params: the policy's parameters.
      rows: of the kept edits, the first of them those that count.
      batches: int32 `[steps, batch]`, of `draws.batches`.
      key: typed PRNG key of the adapter's init.
      arch: the decoder.
      cfg: hyper-parameters.
    """
    total = jnp.sum(batches[:, 0] >= 0)
    each = 1.0 / jnp.maximum(total, 1).astype(jnp.float32)

    def step(i: Array, carry: tuple) -> tuple:
        state, losses = carry
        taken = batches[i]
        micro = jax.tree.map(lambda leaf: leaf[taken], rows)
        there = (taken >= 0)[:, None]
        micro["weights"] = jnp.where(there, micro["weights"], 0.0)
        micro["segments"] = jnp.where(there, micro["segments"], -1)
        batch = jax.tree.map(lambda leaf: leaf[None], micro)
        state, loss = imitation.train_step(
            params, state, batch, jnp.int32(1), each, arch=arch, cfg=cfg
        )
        return state, losses.at[i].set(loss)

    state = imitation.begin(key, arch=arch, cfg=cfg)
    losses = jnp.full(len(batches), jnp.nan)
    (delta, _), losses = jax.lax.fori_loop(0, total, step, (state, losses))
    return lora.scaled(delta, cfg.lora.alpha / cfg.lora.rank), losses
