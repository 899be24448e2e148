"""Full fine-tuning: every weight learns, on lines packed into rows.

The rows of an optimizer step hold whole lines, several to a row where they fit, apart
by the attention mask. Padded, each line would take a row as wide as the longest: of
self-edits as documents, 175 tokens in the mean and some 2000 at most, that computes
twelve positions for one. Packed, a step of eight takes about one row, and one compiled
program does for all, since only the number of its calls varies.

Weights stay in the model's dtype, AdamW's moments and the gradient's sum are float32.
A rate of 7e-5 is about what bfloat16 can tell apart at a weight of 0.02, so its updates
are rounded at random, up or down with the chance that keeps the mean: rounded to the
nearest they would mostly be lost as the rate falls.
"""

import functools
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from seal_jax.models import decoder, placement
from seal_jax.models.parameters import leaf_shapes, nested
from seal_jax.runtime import interrupts, meshes
from seal_jax.training import inner, plan, sft_loss, sft_rows
from seal_jax.training.settings import MASKED


class TunedModel(NamedTuple):
    """What `train` returns.

    `losses` are those of the steps, means over their targets; `finite` says whether
    losses and weights stayed finite. `tokens` carried loss; `computed_tokens` are all
    positions of the rows.
    """

    params: dict
    losses: list[float]
    finite: bool
    tokens: int
    computed_tokens: int


# Memory


def state_bytes(arch: decoder.Arch, mesh: Mesh | None) -> int:
    """Bytes on one device of what training holds, from the parameters' shapes alone.

    Of each parameter its weight, a micro-batch's gradient, the float32 sum of those and
    two float32 moments: 16 bytes in bfloat16, so 122 GB for the 7.6e9 of Qwen2.5-7B,
    which is more than one 80 GB card; over `mesh.model=2` it is half of that on each.
    Activations and logits come on top.
    """
    leaves = jax.tree.leaves(nested(leaf_shapes(arch)))
    shapes = [leaf.shape for leaf in leaves]
    if mesh is not None:
        cuts = jax.tree.leaves(placement.param_shardings(arch, mesh))
        shapes = [c.shard_shape(s) for c, s in zip(cuts, shapes, strict=True)]
    each = 2 * jnp.dtype(arch.dtype).itemsize + 3 * 4
    return each * sum(map(math.prod, shapes))


def check(arch: decoder.Arch, mesh: Mesh | None, *, limit: int) -> None:
    """Refuses a model whose training does not fit a device, before it is loaded.

    Args:
      arch: the decoder.
      mesh: the mesh, or None for one device.
      limit: bytes a device has (`backend.memory_limit`).

    Raises:
      ValueError: see above.
    """
    needed = state_bytes(arch, mesh)
    if needed <= limit:
        return
    devices = (1 if mesh is None else mesh.shape["model"]) * -(-needed // limit)
    raise ValueError(
        f"full fine-tuning holds {needed / 1e9:.1f} GB on a device before any "
        f"activations (weights, gradients, AdamW's moments), {limit / 1e9:.1f} GB can "
        f"be used; spread it with mesh.model={devices} or more, or use pool.how='lora'"
    )


def check_rows(micro_batch: int, mesh: Mesh | None) -> None:
    """Refuses a micro-batch that the mesh cannot share out.

    Raises:
      ValueError: see above.
    """
    shards = meshes.shards(mesh)
    if micro_batch % shards:
        raise ValueError(
            f"full.micro_batch={micro_batch} rows must be a multiple of mesh.data="
            f"{shards}; use {shards}"
        )


# Steps


def _placed(tree: Any, arch: decoder.Arch, mesh: Mesh | None) -> Any:
    """Inside jit: a tree like the parameters, cut as they are."""
    if mesh is None:
        return tree
    shardings = placement.param_shardings(arch, mesh)
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings)


@functools.partial(jax.jit, static_argnames=("arch", "mesh"))
def _zeros(*, arch: decoder.Arch, mesh: Mesh | None) -> dict:
    shapes = nested({path: jnp.zeros(x.shape) for path, x in leaf_shapes(arch).items()})
    return _placed(shapes, arch, mesh)


@functools.partial(jax.jit, static_argnames=("arch", "mesh"), donate_argnames="total")
def _accumulate(
    params: dict,
    total: tuple[Array, dict],
    rows: dict,
    *,
    arch: decoder.Arch,
    mesh: Mesh | None,
) -> tuple[Array, dict]:
    """Adds a micro-batch's loss and gradient to the step's."""

    def loss_fn(params: dict) -> Array:
        return sft_loss.sum_loss(
            params, None, meshes.split_rows(rows, mesh), arch, frozen_head=False
        )

    loss, grads = jax.value_and_grad(loss_fn)(params)
    grads = jax.tree.map(lambda t, g: t + g.astype(jnp.float32), total[1], grads)
    return total[0] + loss, _placed(grads, arch, mesh)


@functools.partial(jax.jit, static_argnames=("arch", "mesh"), donate_argnames="slot")
def _update(
    slot: inner.Slot,
    total: tuple[Array, dict],
    rate: Array,
    clip: Array,
    key: Array,
    *,
    arch: decoder.Arch,
    mesh: Mesh | None,
) -> tuple[inner.Slot, Array]:
    """The step of `inner.update`, on all weights; also the step's loss."""
    loss, grads = total
    dtype = jnp.dtype(arch.dtype)
    new = inner.update(slot, grads, loss, rate, clip)
    leaves, tree = jax.tree.flatten(new.adapter)
    keys = jax.random.split(key, len(leaves))
    rounded = [round_at_random(x, dtype, k) for x, k in zip(leaves, keys, strict=True)]
    params = _placed(tree.unflatten(rounded), arch, mesh)
    moments = [_placed(x, arch, mesh) for x in (new.adam.mu, new.adam.nu)]
    adam = new.adam._replace(mu=moments[0], nu=moments[1])
    return inner.Slot(params, adam, new.loss_sum), loss


def round_at_random(x: Array, dtype: jnp.dtype, key: Array) -> Array:
    """Float32 as `dtype`; as bfloat16 one of its two neighbours, right in the mean."""
    if dtype != jnp.bfloat16:
        return x.astype(dtype)
    # A bfloat16 is the upper half of a float32: what the lower half carries over, with
    # noise added to it, is the chance to be rounded away from zero.
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    upper = (bits + noise) & jnp.uint32(0xFFFF0000)
    rounded = jax.lax.bitcast_convert_type(upper, jnp.float32)
    # Without this, infinities and nan could carry into one another.
    return jnp.where(jnp.isfinite(x), rounded, x).astype(dtype)


@jax.jit
def _all_finite(params: dict) -> Array:
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]))


def train(
    params: dict,
    job: plan.Job,
    key: Array,
    *,
    arch: decoder.Arch,
    micro_batch: int,
    length_multiple: int,
    eos: int,
    mesh: Mesh | None = None,
) -> TunedModel:
    """Trains all parameters on a job's lines, `job.batch` of them a step.

    Args:
      params: the parameters to begin with; their memory is used up.
      job: lines, rates, clip and shuffles; as an adapter's, in the loss mode `masked`.
      key: typed PRNG key of the rounding.
      arch: the decoder.
      micro_batch: rows whose gradient is taken at once; on a mesh a multiple of the
        axis `data`. It costs memory and changes no result but by rounding.
      length_multiple: rows are as wide as the longest line, rounded up to this.
      eos: end-of-text id.
      mesh: the mesh that `params` lie on as `placement.param_shardings`, or None.

    Raises:
      ValueError: another loss mode, given tokens, texts beside, or a micro-batch that
        the mesh does not divide.
    """
    if job.loss.mode != MASKED or job.given or job.beside:
        raise ValueError(
            f"inner.loss.mode={job.loss.mode!r} with given tokens or texts beside is "
            "for adapters; full fine-tuning takes whole lines and "
            f"{MASKED!r}"
        )
    check_rows(micro_batch, mesh)
    targets = job.targets()
    lines = [
        sft_rows.line(ids, first_target=1, eos=eos, cut=i in job.cut)
        for i, ids in enumerate(job.lines)
    ]
    width = sft_rows.width([line.positions for line in lines], length_multiple)
    adam = cast(optax.ScaleByAdamState, inner.ADAM.init(_zeros(arch=arch, mesh=mesh)))
    slot = inner.Slot(params, adam, jnp.zeros(()))
    losses, tokens, computed = [], 0, 0
    for i, (batch, rate) in enumerate(zip(job.batches(), job.rates(), strict=True)):
        interrupts.check()
        rows = sft_rows.pack(
            [lines[j] for j in batch], width=width, multiple=micro_batch, eos=eos
        )
        count = sum(targets[j] for j in batch)
        rows["weights"] /= np.float32(count)
        total = (jnp.zeros(()), _zeros(arch=arch, mesh=mesh))
        for at in range(0, len(rows["tokens"]), micro_batch):
            micro = {name: x[at : at + micro_batch] for name, x in rows.items()}
            micro = meshes.put(micro, mesh, "data")
            total = _accumulate(slot.adapter, total, micro, arch=arch, mesh=mesh)
        step_key, clip = jax.random.fold_in(key, i), np.float32(job.clip)
        slot, loss = _update(slot, total, rate, clip, step_key, arch=arch, mesh=mesh)
        del total  # Or it would be there beside the next step's.
        losses.append(loss)
        tokens += count
        computed += rows["tokens"].size
    finite = bool(_all_finite(slot.adapter)) and bool(np.isfinite(losses).all())
    return TunedModel(
        slot.adapter, [float(x) for x in losses], finite, tokens, computed
    )
