"""Texts drawn token by token from a mixture of two prompts (MixSD, arXiv 2605.16865).

Each token is drawn as the model goes on from the first prompt, which has a passage in
view, with a probability, and else as it goes on from the second, which has not; both
then read it. So an answer says what the passage says in words that are likely without
it, which a model learns with less change of itself.

The two prompts of a pair are neighbouring rows of one cache. Rows decode in step, as
in `plain`; a text depends on its pair and its key alone.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seal_jax.generation import plain, policies, side_by_side
from seal_jax.generation.sample import SampleConfig
from seal_jax.generation.settings import Decoding
from seal_jax.models import decoder, hf, kv_cache
from seal_jax.runtime import interrupts, meshes, prng

# Pairs that are read and continued at a time, as a share of `decoding.batch`, and at
# least so many: their prompts are all read at once, as many as decoding else reads.
SHARE, LEAST = 16, 8


def answer(
    policy: policies.Policy,
    pairs: Sequence[tuple[str, str]],
    keys: Array,
    decoding: Decoding,
    share: float,
) -> list[str]:
    """Continues each pair of prompts by one text; whitespace at the ends is stripped.

    With the same keys a share of 1 gives what `policies.write` makes of the first
    prompts, and 0 what it makes of the second.

    Args:
      policy: the model.
      pairs: prompts of the same question, with the passage in view and without it.
      keys: typed PRNG keys, one for each pair.
      decoding: settings; `batch` bounds how many decode together.
      share: of tokens that are drawn with the passage in view, 0 to 1.

    Raises:
      ValueError: `share` is out of its range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} must lie in [0, 1]; 1 is the passage alone")
    mesh = meshes.holding(policy.params)
    size = max(LEAST, decoding.batch // SHARE)
    size = side_by_side.multiple(size, meshes.shards(mesh))
    prompts = [[policy.sequence(prompt) for prompt in pair] for pair in pairs]
    longest = max((len(ids) for pair in prompts for ids in pair), default=0)
    width = side_by_side.multiple(longest, decoding.prompt_multiple)
    cfg = policies.sample_config(decoding, policy)
    texts: list[str] = []
    for begin in range(0, len(pairs), size):
        interrupts.check()
        chosen = prompts[begin : begin + size]
        tokens = np.zeros((2 * size, width), np.int32)
        lengths = np.zeros(2 * size, np.int32)
        for row, ids in enumerate(ids for pair in chosen for ids in pair):
            tokens[row, : len(ids)], lengths[row] = ids, len(ids)
        # What fills the last rows has no prompt, and is done from the start.
        at = np.minimum(np.arange(begin, begin + size), len(pairs) - 1)
        arrays = (tokens, lengths, prng.take(keys, at))
        written = _continued(
            policy.params,
            *meshes.put(arrays, mesh, "data"),
            np.float32(share),
            arch=policy.arch,
            cfg=cfg,
        )
        if mesh is not None:
            written = meshes.gather(written, mesh)
        ids_BN, count_B = map(np.asarray, written)
        texts += [
            hf.decode(policy.tokenizer, ids_BN[i, : count_B[i]].tolist()).strip()
            for i in range(len(chosen))
        ]
    return texts


@functools.partial(jax.jit, static_argnames=("arch", "cfg"))
def _continued(
    params: dict,
    prompts_BT: Array,
    size_B: Array,
    keys_Q: Array,
    share: Array,
    *,
    arch: decoder.Arch,
    cfg: SampleConfig,
) -> plain.Written:
    """One text for each pair of rows, of Q; a pair without prompts stays empty.

    Args:
      params: base parameters.
      prompts_BT: padded on the right; rows 2 i and 2 i + 1 are pair i.
      size_B: their lengths.
      keys_Q: typed PRNG keys.
      share: of tokens that are drawn from the first of a pair.
      arch: the decoder.
      cfg: how to decode.
    """
    logits_BV, cache = plain.begun(params, None, prompts_BT, size_B, arch=arch)
    cache = plain.with_room(cache, cfg.max_tokens)

    def drawn(logits_BV: Array, count: Array, done_Q: Array) -> tuple[Array, Array]:
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys_Q, count)
        first_Q = jax.vmap(_coin)(keys) < share
        logits_QV = jnp.where(first_Q[:, None], logits_BV[::2], logits_BV[1::2])
        return plain.drawn(logits_QV, keys, count, done_Q, cfg=cfg)

    def going_on(state: tuple) -> Array:
        count, *_, done_Q = state
        return (count < cfg.max_tokens) & ~jnp.all(done_Q)

    def step(state: tuple) -> tuple:
        count, cache, out_QN, written_Q, token_Q, done_Q = state
        out_QN = out_QN.at[:, count - 1].set(token_Q)
        written_Q = written_Q + ~done_Q
        token_B = jnp.repeat(token_Q, 2)
        at_B = size_B + count - 1
        hidden_BD, cache = kv_cache.step(params, None, arch, token_B, at_B, cache)
        logits_BV = decoder.logits(params, arch, hidden_BD)
        token_Q, done_Q = drawn(logits_BV, count, done_Q)
        return count + 1, cache, out_QN, written_Q, token_Q, done_Q

    token_Q, done_Q = drawn(logits_BV, jnp.int32(0), size_B[::2] == 0)
    out_QN = jnp.zeros((len(token_Q), cfg.max_tokens), jnp.int32)
    none_Q = jnp.zeros_like(token_Q)
    state = (jnp.int32(1), cache, out_QN, none_Q, token_Q, done_Q)
    count, _, out_QN, written_Q, token_Q, done_Q = jax.lax.while_loop(
        going_on, step, state
    )
    return plain.Written(out_QN.at[:, count - 1].set(token_Q), written_Q + ~done_Q)


def _coin(key: Array) -> Array:
    """In [0, 1), of the key of a token's draw and independent of it."""
    return jax.random.uniform(jax.random.fold_in(key, 1))
