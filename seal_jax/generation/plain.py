"""Decoding inside another program: every row from its prompt to its end, in step.

`generate` refills rows that have ended, which takes a host. Here a row that has ended
waits for the others; what each writes is the same.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from seal_jax.generation.sample import SampleConfig, draw
from seal_jax.models import decoder, kv_cache, lora


class Written(NamedTuple):
    """Token ids `[B, N]`, of which the first `count_B` were written."""

    ids_BN: Array
    count_B: Array


def continued(
    params: dict,
    delta: lora.Tree | None,
    prompts_BT: Array,
    size_B: Array,
    keys_BE: Array,
    *,
    arch: decoder.Arch,
    cfg: SampleConfig,
) -> Written:
    """Continues each prompt once for each of its keys; `[B * E, N]`, E by E.

    Args:
      params: base parameters.
      delta: one adapter with its scale folded in, or None.
      prompts_BT: padded on the right; each is read once.
      size_B: their lengths; one of 0 stays empty.
      keys_BE: typed PRNG keys.
      arch: the decoder.
      cfg: how to decode.
    """
    each = keys_BE.shape[1]
    logits_BV, cache = begun(params, delta, prompts_BT, size_B, arch=arch)
    cache = with_room(cache, cfg.max_tokens)
    keys_B, size_B = keys_BE.reshape(-1), jnp.repeat(size_B, each)

    def next_token(
        logits_BV: Array, count: Array, done_B: Array
    ) -> tuple[Array, Array]:
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys_B, count)
        return drawn(logits_BV, keys, count, done_B, cfg=cfg)

    def step(carry: tuple, count: Array) -> tuple[tuple, tuple[Array, Array]]:
        cache, token_B, done_B = carry
        at_B = size_B + count - 1
        hidden_BD, cache = kv_cache.step(params, delta, arch, token_B, at_B, cache)
        logits_BV = decoder.logits(params, arch, hidden_BD)
        token_B, done_B = next_token(logits_BV, count, done_B)
        return (cache, token_B, done_B), (token_B, done_B)

    first = next_token(jnp.repeat(logits_BV, each, axis=0), jnp.int32(0), size_B == 0)
    carry = (jax.tree.map(lambda leaf: jnp.repeat(leaf, each, axis=0), cache), *first)
    _, rest = jax.lax.scan(step, carry, jnp.arange(1, cfg.max_tokens))
    ids_NB, done_NB = (
        jnp.concatenate([x[None], more]) for x, more in zip(first, rest, strict=True)
    )
    count_B = jnp.sum(~done_NB, axis=0, dtype=jnp.int32)
    return Written(ids_NB.T, count_B)


def begun(
    params: dict,
    delta: lora.Tree | None,
    prompts_BT: Array,
    size_B: Array,
    *,
    arch: decoder.Arch,
) -> tuple[Array, kv_cache.Cache]:
    """Reads one prompt to a row: logits `[B, V]` of the next token, and the cache."""
    # Behind its prompt there is none.
    is_token_BT = jnp.arange(prompts_BT.shape[1])[None, :] < size_B[:, None]
    start_BT = jnp.where(is_token_BT, 0, -1)
    hidden_BTD, cache = kv_cache.read(params, delta, arch, prompts_BT, start_BT)
    last_B = jnp.maximum(size_B - 1, 0)
    hidden_BD = hidden_BTD[jnp.arange(len(last_B)), last_B]
    return decoder.logits(params, arch, hidden_BD), cache


def with_room(cache: kv_cache.Cache, tokens: int) -> kv_cache.Cache:
    """The cache with so many empty slots more in each row."""
    pads = ((0, 0), (0, 0), (0, tokens), (0, 0))
    return jax.tree.map(lambda leaf: jnp.pad(leaf, pads), cache)


def drawn(
    logits_BV: Array,
    keys_B: Array,
    count: Array,
    done_B: Array,
    *,
    cfg: SampleConfig,
) -> tuple[Array, Array]:
    """Each row's token number `count`, and whether the row has ended by then.

    `keys_B`: typed PRNG keys of this token.
    """
    stop_ids = jnp.array(cfg.stop_ids, jnp.int32)
    if cfg.min_tokens and cfg.stop_ids:
        banned_BV = logits_BV.at[:, stop_ids].set(-jnp.inf)
        logits_BV = jnp.where(count < cfg.min_tokens, banned_BV, logits_BV)
    token_B = jax.vmap(lambda row, key: draw(row, key, cfg))(logits_BV, keys_B)
    return token_B, done_B | jnp.isin(token_B, stop_ids)
