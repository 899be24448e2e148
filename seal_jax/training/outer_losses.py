"""Losses of outer rules, as weights of each token's cross-entropy.

With lp the log-likelihood of an edit y, its tokens' log-probabilities summed (or their
mean), and ref the reference's:

    dpo    -log sigmoid(beta d),   d = lp - ref of the winner, less that of the loser
    ipo    (d - 1 / (2 beta))^2
    grpo   mean_t -min(r_t A, clip(r_t) A) + kl k3_t,      r_t = exp(lp_t - ref_t)
    rloo   -min(r A, clip(r) A) + kl mean_t k3_t,          r = exp(lp - ref)

A is the advantage, clip holds r within 1 +- `clip`, and k3 = exp(ref - lp) - (ref - lp)
- 1 estimates KL(policy || reference) without bias on the policy's own tokens (Schulman
2020). A batch's loss is the mean over its pairs, or edits.

The reference is the policy that wrote the edits where a rule has groups, so on the
first step every r is 1 and the gradient is that of REINFORCE with a baseline. Edits of
earlier rounds (`imitate.data = "accumulate"`) were written by earlier policies, which
no ratio makes up for.

Sums over a line's tokens are masked ones, in a fixed order: no scatter.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from seal_jax.training.outer_rules import DPO, GRPO, RULES, PreferConfig
from seal_jax.training.settings import ImitateConfig

# What each step says of itself, float32 `[]` each.
type Figures = dict[str, Array]

# A ratio beyond exp(this) tells no more, and would overflow.
_FAR = 20.0


class Sides(NamedTuple):
    """Of a batch's lines, float32 `[I]`: 0 tokens where there is none.

    A pair's lines are neighbours, the winner first. `tokens` are those that count, with
    end-of-text.
    """

    advantage: Any
    tokens: Any


def weigh(
    log_p_NBT: Array,
    reference_NBT: Array,
    rows: dict[str, Array],
    sides: Sides,
    cfg: ImitateConfig,
) -> tuple[Array, Figures]:
    """What each token's cross-entropy counts for in `cfg.rule`, and the loss.

    Args:
      log_p_NBT: of each target, by the policy that is tuned.
      reference_NBT: by the reference.
      rows: `segments` are lines of the batch, `weights` more than 0 where a target
        counts; both `[N, B, T]`.
      sides: of the lines.
      cfg: rule and options.

    Returns:
      weights `[N, B, T]`: the gradient of the loss is that of the sum of weighted
      cross-entropies. Figures: `loss` and others, see `_pairs` and `_groups`.
    """
    assert cfg.prefer is not None  # The config is refused without it.
    made = _pairs if RULES[cfg.rule].pairs else _groups
    return made(_Batch(log_p_NBT, reference_NBT, rows, sides), cfg.rule, cfg.prefer)


class _Batch(NamedTuple):
    """Tokens `[N, B, T]` and lines `[I]`, and how to come from one to the other."""

    log_p_NBT: Array
    reference_NBT: Array
    rows: dict[str, Array]
    sides: Sides

    @property
    def counts_NBT(self) -> Array:
        return self.rows["weights"] > 0

    @property
    def there_I(self) -> Array:
        return self.sides.tokens > 0

    @property
    def tokens_I(self) -> Array:
        """1 where there is no line."""
        return jnp.maximum(self.sides.tokens, 1.0)

    def of_lines(self, value_NBT: Array) -> Array:
        """Sums over each line's tokens, `[I]`."""
        line_I111 = jnp.arange(len(self.sides.tokens))[:, None, None, None]
        segments_1NBT = jnp.where(self.counts_NBT, self.rows["segments"], -1)[None]
        own_INBT = segments_1NBT == line_I111
        return jnp.sum(jnp.where(own_INBT, value_NBT[None], 0.0), axis=(1, 2, 3))

    def to_tokens(self, value_I: Array) -> Array:
        """A value of each line at all of its tokens, 0 elsewhere."""
        value_NBT = value_I[jnp.maximum(self.rows["segments"], 0)]
        return jnp.where(self.counts_NBT, value_NBT, 0.0)


def _pairs(batch: _Batch, rule: str, cfg: PreferConfig) -> tuple[Array, Figures]:
    """Of winners and losers.

    Figures: `loss` is without the winners' cross-entropy, `nll`, mean per token.
    `right` is the share of pairs with a lead, `lead` its mean, `winner` and `loser` by
    how much their log-likelihoods changed.
    """
    changed_I = batch.of_lines(batch.log_p_NBT - batch.reference_NBT)
    scale_I = 1 / batch.tokens_I if cfg.per_token else jnp.ones_like(batch.tokens_I)
    side_P2 = (changed_I * scale_I).reshape(-1, 2)
    lead_P = side_P2[:, 0] - side_P2[:, 1]
    there_P = batch.there_I.reshape(-1, 2)[:, 0]
    mean = lambda value_P: _mean(value_P, there_P)
    if rule == DPO:
        loss_P = -jax.nn.log_sigmoid(cfg.beta * lead_P)
        slope_P = -cfg.beta * jax.nn.sigmoid(-cfg.beta * lead_P)
    else:
        loss_P = (lead_P - 0.5 / cfg.beta) ** 2
        slope_P = 2 * (lead_P - 0.5 / cfg.beta)
    # Cross-entropy falls where log-likelihood rises.
    own_I = jnp.stack([-slope_P, slope_P], axis=1).ravel() * scale_I
    ce_I = -batch.of_lines(batch.log_p_NBT) / batch.tokens_I
    nll_I = jnp.where(jnp.arange(len(own_I)) % 2 == 0, cfg.nll, 0.0) / batch.tokens_I
    weight_I = jnp.where(batch.there_I, own_I + nll_I, 0.0) / _count(there_P)
    figures = {
        "loss": mean(loss_P),
        "nll": mean(ce_I.reshape(-1, 2)[:, 0]),
        "right": mean(lead_P > 0),
        "lead": mean(lead_P),
        "winner": mean(changed_I.reshape(-1, 2)[:, 0]),
        "loser": mean(changed_I.reshape(-1, 2)[:, 1]),
    }
    return batch.to_tokens(weight_I), figures


def _groups(batch: _Batch, rule: str, cfg: PreferConfig) -> tuple[Array, Figures]:
    """Of edits with advantages.

    Figures: `clipped` is the share of tokens whose edit moves no further, `kl` the
    estimate of KL(policy || reference) per token, `good` and `bad` by how much the
    log-likelihoods of edits above and below their group changed.
    """
    moved_NBT = batch.log_p_NBT - batch.reference_NBT
    changed_I = batch.of_lines(moved_NBT)
    # By how much one token's log-probability changes what the ratio is of.
    scale_I = 1 / batch.tokens_I
    if rule == GRPO:
        ratio_NBT = jnp.exp(jnp.clip(moved_NBT, -_FAR, _FAR))
    else:
        scale_I = scale_I if cfg.per_token else jnp.ones_like(scale_I)
        ratio_I = jnp.exp(jnp.clip(changed_I * scale_I, -_FAR, _FAR))
        ratio_NBT = batch.to_tokens(ratio_I)
    lead_NBT = batch.to_tokens(jnp.asarray(batch.sides.advantage))
    gain_NBT, held_NBT = ratio_NBT * lead_NBT, jnp.zeros_like(lead_NBT, bool)
    if cfg.clip:
        low, high = max(0.0, 1 - cfg.clip), 1 + cfg.clip
        most_NBT = jnp.clip(ratio_NBT, low, high) * lead_NBT
        held_NBT = most_NBT < gain_NBT
        gain_NBT = jnp.minimum(gain_NBT, most_NBT)
    slope_NBT = jnp.where(held_NBT, 0.0, ratio_NBT * lead_NBT)
    back_NBT = jnp.clip(-moved_NBT, -_FAR, _FAR)
    k3_NBT = jnp.expm1(back_NBT) - back_NBT
    # The slope of k3 by the log-probability is 1 - exp(ref - lp).
    per_I = jnp.where(batch.there_I, 1 / batch.tokens_I, 0.0) / _count(batch.there_I)
    own_I = jnp.where(batch.there_I, scale_I, 0.0) / _count(batch.there_I)
    weights_NBT = batch.to_tokens(own_I) * slope_NBT
    weights_NBT += cfg.kl * batch.to_tokens(per_I) * jnp.expm1(back_NBT)
    mean = lambda value_NBT: jnp.sum(batch.to_tokens(per_I) * value_NBT)
    good_I, bad_I = batch.sides.advantage > 0, batch.sides.advantage < 0
    figures = {
        "loss": mean(cfg.kl * k3_NBT - gain_NBT),
        "clipped": mean(held_NBT),
        "kl": mean(k3_NBT),
        "good": _mean(changed_I, good_I),
        "bad": _mean(changed_I, bad_I),
    }
    return weights_NBT, figures


def _count(there: Array) -> Array:
    return jnp.maximum(jnp.sum(there), 1).astype(jnp.float32)


def _mean(value: Array, there: Array) -> Array:
    """Of those that are there; 0 where none is."""
    return jnp.sum(jnp.where(there, value, 0.0)) / _count(there)
