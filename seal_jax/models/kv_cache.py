"""The decoder with its keys and values kept: prompts are read, then single tokens.

A cache is a tuple with each layer's `{"k", "v"}` in its place, `[B, K, S, H]`. Slot and
position are the same number in every row, however long its prompt.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from seal_jax.models import decoder, key_ranges, lora

type Cache = tuple[dict[str, Array], ...]


def init(cfg: decoder.Arch, *, rows: int, slots: int) -> Cache:
    """An empty cache."""
    shape = (rows, cfg.kv_heads, slots, cfg.head_dim)
    return tuple(
        {name: jnp.zeros(shape, jnp.dtype(cfg.dtype)) for name in ("k", "v")}
        for _ in range(cfg.layers)
    )


def read(
    params: dict,
    delta: lora.Tree | None,
    cfg: decoder.Arch,
    tokens_PT: Array,
    start_PT: Array,
) -> tuple[Array, Cache]:
    """Reads prompts that lie side by side: hidden states `[P, T, D]`, and their cache.

    Args:
      params, delta, cfg: as of `decoder.hidden`.
      tokens_PT: rows of prompts.
      start_PT: where in its row a token's prompt begins; -1 where there is none.
    """
    at_1T = jnp.arange(tokens_PT.shape[1], dtype=jnp.int32)[None, :]
    is_token_PT = start_PT >= 0
    read: Any = decoder.hidden(
        params,
        delta,
        cfg,
        tokens_PT,
        jnp.where(is_token_PT, at_1T - start_PT, 0),
        key_ranges.KeyRanges(start_PT, jnp.where(is_token_PT, at_1T + 1, start_PT)),
        (),
    )
    return read


def step(
    params: dict,
    delta: lora.Tree | None,
    cfg: decoder.Arch,
    token_B: Array,
    length_B: Array,
    cache: Cache,
) -> tuple[Array, Cache]:
    """One more token in every row: its hidden state `[B, D]`, and the cache with it.

    Args:
      params: base parameters.
      delta: None, or adapters as of `decoder.hidden`, such as `lora.shared`.
      cfg: the decoder.
      token_B: the tokens.
      length_B: the slots they go to; they attend to these and all before.
      cache: what lies before. It is updated in place if the caller donated it.
    """
    x_B1D, rope = decoder.embedded(params, cfg, token_B[:, None], length_B[:, None])
    new_cache = []
    for i, name in enumerate(map(decoder.layer_name, range(cfg.layers))):
        own = None if delta is None else delta[name]
        x_B1D, kv = decoder.layer(
            params[name], own, x_B1D, rope, None, cache[i], length_B, cfg=cfg
        )
        new_cache.append(kv)
    return decoder.normed(params, cfg, x_B1D[:, 0]), tuple(new_cache)
