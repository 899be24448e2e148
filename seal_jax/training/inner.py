"""The inner loop's definition: training one adapter on one self-edit.

`adapt` is one adapter, a batch of lines per optimizer step, in the plainest JAX. It
knows of no other adapter, and `jax.vmap(adapt)` trains many. `packed` is what runs, and
must equal it; both end in the same `update`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array

from seal_jax.models import decoder, key_ranges, lora
from seal_jax.training.inner_rules import DIVERGENCES, FORWARD, REVERSE
from seal_jax.training.settings import PlanConfig
from seal_kernels.cpu_loops import computed_once


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """What a compiled inner loop is made for (SEAL, section 3.2; its TTT server).

    `pool`: finished adapters held on the device, and so the most that `train` takes.

    `frozen_rows` stacks of `frozen_rank` ranks may lie beneath: what was learnt before,
    of which each adapter trains on one. `orthogonal` weighs the overlap with it (see
    `overlap`). With `divergence` texts may lie beside the lines (`plan.Job`), on which
    the divergence from the base is trained down. That costs a forward pass of all
    tokens through the base, and the adapted model's logits once more.

    `teach` is the kind of divergence from teachers that lines may have (`plan.Job`), a
    name of `inner_rules.DIVERGENCES` or none, "", and `beta` the teacher's share in
    "jsd". What the teachers predict lies in a bank with `bank` rows for each adapter of
    the pool (`teacher`). With `resumes` the slots of finished adapters are kept, for
    training that goes on from them.
    """

    targets: tuple[str, ...]
    rank: int
    alpha: float
    plan: PlanConfig
    pool: int
    frozen_rank: int = 0
    frozen_rows: int = 0
    orthogonal: float = 0.0
    divergence: bool = False
    teach: str = ""
    beta: float = 0.5
    bank: int = 0
    resumes: bool = False

    def __post_init__(self):
        rank, rows = self.frozen_rank, self.frozen_rows
        if min(rank, rows) < 0 or bool(rank) != bool(rows):
            raise ValueError(
                f"inner.frozen_rank={rank} and inner.frozen_rows={rows} must both be "
                "positive, or both 0 for adapters on the base alone"
            )
        if not 0 <= self.orthogonal < float("inf"):
            raise ValueError(
                f"inner.orthogonal={self.orthogonal} must be at least 0 and finite"
            )
        if self.orthogonal and not rank:
            raise ValueError(
                f"inner.orthogonal={self.orthogonal} has nothing to be orthogonal to; "
                "set inner.frozen_rank and inner.frozen_rows, or use 0"
            )
        if self.teach and self.teach not in DIVERGENCES:
            raise ValueError(
                f"teach={self.teach!r} must be one of {list(DIVERGENCES)}, or '' for "
                "no teacher"
            )
        if self.bank < 0 or bool(self.bank) != bool(self.teach):
            raise ValueError(
                f"teach={self.teach!r} and bank={self.bank} must both be set, the rows "
                "positive, or neither"
            )
        if not 0 < self.beta < 1:
            raise ValueError(f"beta={self.beta} must lie between 0 and 1; use 0.5")

    @property
    def short(self) -> PlanConfig | None:
        """Sizes of steps in which few adapters are left (`plan.steps`), or None.

        Where every adapter of a pool has a slot of its own most steps may be such.
        """
        if self.plan.by_slot or self.plan.chunks > 1 or self.pool > self.plan.slots:
            return None
        short = self.plan.short()
        return short if short.step_tokens < self.plan.step_tokens else None

    @property
    def extended(self) -> bool:
        """Whether the packed program takes more than its steps (`plan_arrays`)."""
        asked = self.frozen_rank > 0 or self.divergence or self.plan.chunks > 1
        return asked or bool(self.teach)


class Slot(NamedTuple):
    """Training state of one adapter, or of many, stacked as `lora.stack` does."""

    adapter: lora.Tree
    adam: optax.ScaleByAdamState
    loss_sum: Array  # of its step losses so far, float32


# torch.optim.AdamW's and the Hugging Face Trainer's defaults, weight decay 0.
B1, B2, EPS = 0.9, 0.999, 1e-8
ADAM = optax.scale_by_adam(b1=B1, b2=B2, eps=EPS)


def init_slot(adapter: lora.Tree) -> Slot:
    """A slot about to take its first step."""
    adam = cast(optax.ScaleByAdamState, ADAM.init(adapter))
    return Slot(adapter, adam, jnp.zeros(()))


def update(slot: Slot, grads: lora.Tree, loss: Array, rate: Array, clip: Array) -> Slot:
    """One AdamW step of one adapter, its gradient clipped by its own global norm."""
    return moved(slot, clipped(grads, clip), loss, rate)


def clipped(grads: lora.Tree, clip: Array) -> lora.Tree:
    """A gradient whose global norm is at most `clip`."""
    factor = shrink(grads, clip)
    return jax.tree.map(lambda g: g * factor, grads)


def shrink(grads: lora.Tree, clip: Array) -> Array:
    """What a gradient is multiplied by so that its global norm is at most `clip`.

    torch.nn.utils.clip_grad_norm_'s rule, with its 1e-6. But where the norm is not
    finite, be it by overflow, it is NaN: the whole gradient becomes that, and then its
    adapter. `is_sound` relies on that.
    """
    norm = _norm(grads)
    factor = jnp.minimum(1.0, clip / (norm + 1e-6))
    return jnp.where(jnp.isfinite(norm), factor, jnp.nan)


def _norm(grads: lora.Tree) -> Array:
    """The global norm, leaves of one shape added up before they are reduced.

    A CPU adds whole leaves in vectors, and the numbers of one leaf one by one.
    """
    alike: dict[tuple[int, ...], Array] = {}
    for leaf in jax.tree.leaves(grads):
        alike[leaf.shape] = alike.get(leaf.shape, 0.0) + jnp.square(leaf)
    return jnp.sqrt(sum(jnp.sum(squares) for squares in alike.values()))


def is_sound(adapters: lora.Tree) -> Array:
    """Which of stacked adapters are finite, bool `[A]`, as one number of each says.

    One becomes NaN all at once (`clipped`), so that there is no need to read the rest.
    Numbers that a rate beyond all measure makes infinite one by one are not seen here:
    they count as zero in products, and the finished adapter is looked at whole.
    """
    some_ARX = jax.tree.leaves(adapters)[0]
    return jnp.isfinite(some_ARX[:, 0, 0])


def moved(
    slot: Slot, grads: lora.Tree, loss: Array, rate: Array, takes: Array | None = None
) -> Slot:
    """One AdamW step along a gradient as it is; none where `takes` is false."""

    def kept[T](new: T, old: T) -> T:
        if takes is None:
            return new
        where = functools.partial(jnp.where, takes)
        return jax.tree.map(where, new, old)

    updates, _ = ADAM.update(grads, slot.adam)
    adapter = jax.tree.map(lambda p, u: p - rate * u, slot.adapter, updates)
    # The adapter first, then the moments that it is moved by: these can then be
    # overwritten where they lie, where XLA:CPU would copy every slot's before.
    adapter = kept(adapter, slot.adapter)
    adapter, adam, grads = computed_once((adapter, slot.adam, grads))
    _, new = ADAM.update(grads, adam)
    adam = kept(cast(optax.ScaleByAdamState, new), adam)
    return Slot(adapter, adam, kept(slot.loss_sum + loss, slot.loss_sum))


def applied(
    adapter: lora.Tree, cfg: EngineConfig, frozen: lora.Tree | None = None
) -> lora.Tree:
    """An adapter, or a stack of them, as the model applies it: on top of its `frozen`.

    Joined in the dtype of `frozen`, the base's, in which the model multiplies anyway.

    Raises:
      ValueError: `frozen` is given or missing, against `cfg`.
    """
    return on_top(lora.scaled(adapter, cfg.alpha / cfg.rank), cfg, frozen)


def on_top(delta: lora.Tree, cfg: EngineConfig, frozen: lora.Tree | None) -> lora.Tree:
    """As `applied`, of adapters that are scaled already."""
    if (frozen is None) != (cfg.frozen_rank == 0):
        raise ValueError(
            f"inner.frozen_rank={cfg.frozen_rank} and {'no ' * (frozen is None)}frozen "
            "stack do not agree; give one if, and only if, there is a rank for it"
        )
    return delta if frozen is None else lora.join(frozen, delta)


def overlap(frozen: lora.Tree, adapter: lora.Tree) -> Array:
    """How far adapters leave the orthogonal complement of what is frozen, float32 `[]`.

    The sum over layers and targets of `||A_frozen A_adapter^T||_F^2`, squared as in the
    loss of O-LoRA (Wang et al. 2023, arXiv 2310.14152); scales do not enter.
    Stacks, `[K, R, D]`, give the sum of each with its own.
    """

    def squared(frozen_a: Array, a: Array) -> Array:
        inner_products = jnp.einsum(
            "...rd,...sd->...rs", frozen_a, a, preferred_element_type=jnp.float32
        )
        return jnp.sum(inner_products**2)

    return sum(
        (
            squared(frozen[layer][name]["a"], ab["a"])
            for layer, linears in adapter.items()
            for name, ab in linears.items()
        ),
        start=jnp.zeros(()),
    )


def empty_frozen(arch: decoder.Arch, cfg: EngineConfig) -> lora.Tree | None:
    """The stacks beneath the adapters, nothing learnt yet; None if there are none."""
    if not cfg.frozen_rank:
        return None
    return lora.empty(
        arch,
        targets=cfg.targets,
        rank=cfg.frozen_rank,
        adapters=cfg.frozen_rows,
        dtype=arch.dtype,
    )


def check_frozen(
    frozen: lora.Tree | None,
    rows: Sequence[int],
    jobs: int,
    arch: decoder.Arch,
    cfg: EngineConfig,
) -> None:
    """Refuses stacks that `cfg` does not describe, or rows that they do not have.

    Raises:
      ValueError: shapes, dtype or targets, the number of rows, or a row.
    """
    wanted = _shapes(jax.eval_shape(lambda: empty_frozen(arch, cfg)))
    if _shapes(frozen) != wanted:
        raise ValueError(
            f"frozen={_shapes(frozen)} must be {wanted}, as inner.frozen_rank="
            f"{cfg.frozen_rank} and inner.frozen_rows={cfg.frozen_rows} say; make it "
            "with inner.empty_frozen"
        )
    if len(rows) != (jobs if cfg.frozen_rank else 0):
        raise ValueError(
            f"frozen_of has {len(rows)} rows for {jobs} jobs and inner.frozen_rank="
            f"{cfg.frozen_rank}; give a row for each job if there is a rank, else none"
        )
    if rows and not 0 <= min(rows) <= max(rows) < cfg.frozen_rows:
        raise ValueError(
            f"frozen_of has rows {min(rows)}..{max(rows)}, they must lie in 0.."
            f"{cfg.frozen_rows - 1}; raise inner.frozen_rows={cfg.frozen_rows}"
        )


def _shapes(delta: lora.Tree | None) -> dict[str, str]:
    return {
        f"{layer}.{name}.{side}": f"{leaf.dtype}{list(leaf.shape)}"
        for layer, linears in sorted((delta or {}).items())
        for name, ab in sorted(linears.items())
        for side, leaf in sorted(ab.items())
    }


# The definition: one adapter


def batch_loss(params: dict, delta: lora.Tree, rows: dict, arch: decoder.Arch) -> Array:
    """Weighted sum of cross-entropies over the lines of one step, float32 `[]`.

    Args:
      params: frozen base parameters.
      delta: the adapter as applied (scale folded in).
      rows: arrays `[B, T]`, a line each as `plan_arrays.rows` lays them; the weights
        hold the loss mode and the mean. A line of no weight is absent.
      arch: the decoder.
    """
    logits_BTV = _logits(params, delta, rows, arch)
    ce_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, rows["targets"])
    return jnp.sum(ce_BT * rows["weights"])


def batch_divergence(
    params: dict, delta: lora.Tree, rows: dict, arch: decoder.Arch
) -> Array:
    """Sum of `KL(adapted || base)` over tokens, weighted by `anchors`, float32 `[]`.

    The base is `params` without any delta. Arguments as of `batch_loss`.
    """
    log_p_BTV = jax.nn.log_softmax(_logits(params, delta, rows, arch))
    base_BTV = jax.lax.stop_gradient(_logits(params, None, rows, arch))
    ratio_BTV = log_p_BTV - jax.nn.log_softmax(base_BTV)
    kl_BT = jnp.sum(jnp.exp(log_p_BTV) * ratio_BTV, axis=-1)
    return jnp.sum(kl_BT * rows["anchors"])


def batch_taught(
    params: dict, delta: lora.Tree, rows: dict, arch: decoder.Arch, cfg: EngineConfig
) -> Array:
    """Sum of divergences from the teacher, weighted by `distill`, float32 `[]`.

    `rows["teacher"]` are the teacher's hidden states `[B, T, D]`, where `distill` is
    not 0. Arguments as of `batch_loss`; `cfg.teach` and `cfg.beta` say which divergence
    (`cross_entropy.divergence` has the formulas).
    """
    log_p_BTV = jax.nn.log_softmax(_logits(params, delta, rows, arch))
    teacher_BTV = decoder.logits(params, arch, rows["teacher"])
    log_q_BTV = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_BTV))

    def kl(log_a_BTV: Array, log_b_BTV: Array) -> Array:
        return jnp.sum(jnp.exp(log_a_BTV) * (log_a_BTV - log_b_BTV), axis=-1)

    if cfg.teach == REVERSE:
        apart_BT = kl(log_p_BTV, log_q_BTV)
    elif cfg.teach == FORWARD:
        apart_BT = kl(log_q_BTV, log_p_BTV)
    else:
        beta = cfg.beta
        log_m_BTV = jnp.logaddexp(
            jnp.log(beta) + log_q_BTV, jnp.log1p(-beta) + log_p_BTV
        )
        of_q_BT, of_p_BT = kl(log_q_BTV, log_m_BTV), kl(log_p_BTV, log_m_BTV)
        apart_BT = beta * of_q_BT + (1 - beta) * of_p_BT
    return jnp.sum(apart_BT * rows["distill"])


def _logits(
    params: dict, delta: lora.Tree | None, rows: dict, arch: decoder.Arch
) -> Array:
    # Queries that are not keys (sampled pads) come after the line: causality by index
    # and by position agree.
    ranges = key_ranges.causal(rows["is_key"])
    hidden_BTD, _ = decoder.hidden(
        params, delta, arch, rows["tokens"], rows["positions"], ranges
    )
    return decoder.logits(params, arch, hidden_BTD)


def train_step(
    params: dict,
    slot: Slot,
    rows: dict,
    rate: Array,
    clip: Array,
    arch: decoder.Arch,
    cfg: EngineConfig,
    frozen: lora.Tree | None = None,
) -> Slot:
    """One step of one adapter on one batch of lines, arrays `[B, T]`.

    What it minimises has the divergence from the base and the overlap in it, if `cfg`
    has; the loss that it notes is the cross-entropy, and what is learned from teachers.
    """

    def objective(active: lora.Tree) -> tuple[Array, Array]:
        delta = on_top(active, cfg, frozen)
        loss = batch_loss(params, delta, rows, arch)
        if cfg.teach:
            loss += batch_taught(params, delta, rows, arch, cfg)
        whole = loss
        if cfg.divergence:
            whole += batch_divergence(params, delta, rows, arch)
        if cfg.orthogonal and frozen is not None:
            whole += cfg.orthogonal * overlap(frozen, active)
        return whole, loss

    # In the base's dtype, and so is the gradient: what autocast does.
    scale = cfg.alpha / cfg.rank
    active = lora.cast(lora.scaled(slot.adapter, scale), arch)
    (_, loss), grads = jax.value_and_grad(objective, has_aux=True)(active)
    grads = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), grads)
    return update(slot, lora.scaled(grads, scale), loss, rate, clip)


def adapt(
    params: dict,
    adapter: lora.Tree,
    rows: dict,
    rates: Array,
    clip: Array,
    total: Array,
    arch: decoder.Arch,
    cfg: EngineConfig,
    frozen: lora.Tree | None = None,
    start: Slot | None = None,
) -> Slot:
    """Trains one adapter: the definition of the inner loop.

    Args:
      params: frozen base parameters.
      adapter: fresh adapter (`lora.init`).
      rows: arrays `[steps, B, T]`, the lines of each step, with `anchors` if
        `cfg.divergence`, and with `teacher`, `[steps, B, T, D]`, and `distill` if
        `cfg.teach`. Steps beyond `total` are padding, and are not taken: adapters
        of different length can be vmapped, and the loop ends with the longest.
      rates: learning rate of each step, float32 `[steps]`.
      clip: bound on the gradient's global norm.
      total: number of steps, int32 `[]`.
      arch: the decoder.
      cfg: rank, scale and targets.
      frozen: deltas beneath the adapter, `[Rf, D]` and `[Rf, F]`, scale folded in, on
        the same targets: they are applied and not trained.
      start: where training goes on from, in place of `adapter` (`plan.Job.span`).
    """

    def body(index: Array, slot: Slot) -> Slot:
        batch, rate = jax.tree.map(lambda leaf: leaf[index], (rows, rates))
        return train_step(params, slot, batch, rate, clip, arch, cfg, frozen)

    begin = init_slot(adapter) if start is None else start
    return jax.lax.fori_loop(0, total, body, begin)
