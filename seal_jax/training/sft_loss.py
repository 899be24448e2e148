"""The loss of supervised fine-tuning over packed rows (`sft_rows`)."""

import jax.numpy as jnp
from jax import Array

from seal_jax.models import cross_entropy, decoder, key_ranges, lora


def sum_loss(
    params: dict,
    delta: lora.Tree | None,
    rows: dict,
    arch: decoder.Arch,
    *,
    frozen_head: bool,
) -> Array:
    """Weighted sum of cross-entropies over packed rows, float32 `[]`; see `of_rows`."""
    ce_BT = of_rows(params, delta, rows, arch, frozen_head=frozen_head)
    return jnp.sum(ce_BT * rows["weights"])


def of_rows(
    params: dict,
    delta: lora.Tree | None,
    rows: dict,
    arch: decoder.Arch,
    *,
    frozen_head: bool,
) -> Array:
    """The cross-entropy of each target of packed rows, float32 `[B, T]`.

    Lines of a row do not see each other, and no more than a chunk of the vocabulary's
    logits is held at a time.

    Args:
      params: base parameters.
      delta: an adapter with its scale folded in, or None.
      rows: arrays `[B, T]` of `sft_rows.pack`.
      arch: the decoder.
      frozen_head: whether the output head takes no gradient, which saves a pass.
    """
    ranges = key_ranges.of_lines(rows["segments"], rows["segments"] >= 0)
    hidden_BTD, _ = decoder.hidden(
        params, delta, arch, rows["tokens"], rows["positions"], ranges
    )
    of_head = cross_entropy.frozen_rows if frozen_head else cross_entropy.trained_rows
    return of_head(hidden_BTD, decoder.head(params, arch), rows["targets"])
