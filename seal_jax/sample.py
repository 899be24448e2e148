"""Generation and log-likelihoods with a KV cache, under many adapters or none.

Rows come in groups, `[A, Q]`: group a runs under adapter a, and without adapters all
groups run the base. The base's weights are read once for all groups.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from seal_jax import lora, model


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """How to decode.

    `temperature = 0` is greedy. `top_p = 1` and `top_k = 0` do not restrict.
    `min_tokens` tokens are produced before a stop token may be (1 forbids empty texts).
    `prompt_multiple`: prompts are padded to a multiple of it, which bounds the number
    of compiled shapes.
    """

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_tokens: int
    stop_ids: tuple[int, ...]
    prompt_multiple: int

    def __post_init__(self):
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in (0, 1]; 1 is no limit")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} must be 0 (no limit) or more")


def draw(logits_V: Array, key: Array, cfg: SampleConfig) -> Array:
    """One token from one row of logits, int32 `[]`.

    Top-k first, then the smallest set of most likely tokens whose probability reaches
    `top_p` (nucleus sampling, Holtzman et al. 2020); the most likely one always stays.
    """
    if cfg.temperature == 0:
        return jnp.argmax(logits_V).astype(jnp.int32)
    logits_V = logits_V / cfg.temperature
    if cfg.top_k:
        kth = jax.lax.top_k(logits_V, min(cfg.top_k, logits_V.size))[0][-1]
        logits_V = jnp.where(logits_V < kth, -jnp.inf, logits_V)
    if cfg.top_p < 1:
        sorted_V = jnp.sort(logits_V, descending=True)
        probs_V = jax.nn.softmax(sorted_V)
        before_V = jnp.cumsum(probs_V) - probs_V
        last = jnp.sum(before_V < cfg.top_p) - 1
        logits_V = jnp.where(logits_V < sorted_V[last], -jnp.inf, logits_V)
    return jax.random.categorical(key, logits_V).astype(jnp.int32)


def _forward(params, delta, tokens, positions, mask, cache, index, *, arch):
    """The decoder over `[A, Q, T]` rows; `delta` and `cache` carry A or are None."""

    def one(delta, tokens, positions, mask, cache):
        return model.hidden(params, delta, arch, tokens, positions, mask, cache, index)

    return jax.vmap(one)(delta, tokens, positions, mask, cache)


@functools.partial(jax.jit, static_argnames=("arch", "cfg"))
def generate(
    params: dict,
    delta: lora.Tree | None,
    tokens_AQT: Array,
    lengths_AQ: Array,
    keys_AQ: Array,
    *,
    arch: model.ModelConfig,
    cfg: SampleConfig,
) -> tuple[Array, Array]:
    """Prefills the prompts, then decodes until every row has stopped.

    A row's tokens depend on its prompt, its key and its adapter, not on its neighbours.

    Args:
      params: base parameters.
      delta: adapters stacked on A with their scale folded in, or None for the base.
      tokens_AQT: prompts, padded on the right.
      lengths_AQ: prompt lengths; 0 marks a row to skip.
      keys_AQ: one typed PRNG key per row.
      arch: the decoder.
      cfg: how to decode.

    Returns:
      `(out_AQN, count_AQ)`: generated tokens, N = `cfg.max_tokens`, and how many of
      them precede the stop token (which is not counted).
    """
    a, q, t = tokens_AQT.shape
    n = cfg.max_tokens
    stop_ids = jnp.array(cfg.stop_ids, jnp.int32)

    def next_token(hidden_AQD, step):
        logits_AQV = model.logits(params, arch, hidden_AQD)
        if cfg.min_tokens:
            banned_AQV = logits_AQV.at[..., stop_ids].set(-jnp.inf)
            logits_AQV = jnp.where(step < cfg.min_tokens, banned_AQV, logits_AQV)
        keys = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (0, None))(
            keys_AQ, step
        )
        return jax.vmap(jax.vmap(lambda l, k: draw(l, k, cfg)))(logits_AQV, keys)

    # Prompts are padded on the right; generated tokens follow in slots T, T + 1, ... of
    # the cache for all rows alike, at rotary positions that continue each prompt.
    slots = jnp.arange(t + n)
    valid_AQT = jnp.arange(t)[None, None, :] < lengths_AQ[:, :, None]
    causal_TT = jnp.tril(jnp.ones((t, t), bool))
    mask = causal_TT[None, None] & valid_AQT[:, :, None, :]
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, n)))
    positions = jnp.broadcast_to(jnp.arange(t), (a, q, t))
    empty = model.init_cache(arch, q, t + n)
    cache = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (a, *leaf.shape)), empty)
    hidden_AQTD, cache = _forward(
        params, delta, tokens_AQT, positions, mask, cache, 0, arch=arch
    )
    last_AQ = jnp.maximum(lengths_AQ - 1, 0)
    hidden_AQD = jnp.take_along_axis(hidden_AQTD, last_AQ[:, :, None, None], axis=2)
    token_AQ = next_token(hidden_AQD[:, :, 0], 0)

    def body(carry):
        step, token_AQ, done_AQ, out_AQN, count_AQ, cache = carry
        done_AQ = done_AQ | jnp.isin(token_AQ, stop_ids)
        out_AQN = out_AQN.at[:, :, step].set(jnp.where(done_AQ, 0, token_AQ))
        count_AQ = count_AQ + ~done_AQ
        own = (slots >= t) & (slots <= t + step)
        seen = jnp.pad(valid_AQT, ((0, 0), (0, 0), (0, n))) | own[None, None, :]
        hidden_AQ1D, cache = _forward(
            params,
            delta,
            token_AQ[:, :, None],
            (lengths_AQ + step)[:, :, None],
            seen[:, :, None, :],
            cache,
            t + step,
            arch=arch,
        )
        token_AQ = next_token(hidden_AQ1D[:, :, 0], step + 1)
        return step + 1, token_AQ, done_AQ, out_AQN, count_AQ, cache

    def cond(carry):
        step, token_AQ, done_AQ, *_ = carry
        return (step < n) & ~jnp.all(done_AQ | jnp.isin(token_AQ, stop_ids))

    start = (
        jnp.int32(0),
        token_AQ,
        lengths_AQ == 0,
        jnp.zeros((a, q, n), jnp.int32),
        jnp.zeros((a, q), jnp.int32),
        cache,
    )
    _, _, _, out_AQN, count_AQ, _ = jax.lax.while_loop(cond, body, start)
    return out_AQN, count_AQ


@functools.partial(jax.jit, static_argnames="arch")
def log_likelihood(
    params: dict,
    delta: lora.Tree | None,
    tokens_AQT: Array,
    scored_AQT: Array,
    lengths_AQ: Array,
    *,
    arch: model.ModelConfig,
) -> Array:
    """Sum of log-probabilities of the marked tokens given all before them, `[A, Q]`.

    Args:
      params: base parameters.
      delta: as in `generate`.
      tokens_AQT: prompt and continuation, padded on the right.
      scored_AQT: bool, which tokens to sum over (never the first of a row).
      lengths_AQ: row lengths.
      arch: the decoder.
    """
    a, q, t = tokens_AQT.shape
    valid_AQT = jnp.arange(t)[None, None, :] < lengths_AQ[:, :, None]
    mask = jnp.tril(jnp.ones((t, t), bool))[None, None] & valid_AQT[:, :, None, :]
    # A padding row sees itself, so that its softmax is over something.
    mask = mask | jnp.eye(t, dtype=bool)[None, None]
    positions = jnp.broadcast_to(jnp.arange(t), (a, q, t))
    hidden, _ = _forward(params, delta, tokens_AQT, positions, mask, None, 0, arch=arch)

    def score(group: tuple[Array, Array, Array]) -> Array:
        hidden_QTD, tokens_QT, scored_QT = group
        logits_QTV = model.logits(params, arch, hidden_QTD[:, :-1])
        ce_QT = optax.softmax_cross_entropy_with_integer_labels(
            logits_QTV, tokens_QT[:, 1:]
        )
        return -jnp.sum(jnp.where(scored_QT[:, 1:], ce_QT, 0.0), axis=-1)

    # One group at a time: the logits of all would not fit beside a large vocabulary.
    return jax.lax.map(score, (hidden, tokens_AQT, scored_AQT))


def pad(
    rows: Sequence[Sequence[Sequence[int]]], *, groups: int, per_group: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Token lists `[A][Q]` as one `[groups, per_group, width]`, and their lengths."""
    tokens = np.zeros((groups, per_group, width), np.int32)
    lengths = np.zeros((groups, per_group), np.int32)
    for a, group in enumerate(rows):
        for q, ids in enumerate(group):
            tokens[a, q, : len(ids)] = ids
            lengths[a, q] = len(ids)
    return tokens, lengths


def padded_width(rows: Sequence[Sequence[Sequence[int]]], multiple: int) -> int:
    """The longest row's length, rounded up to a multiple."""
    longest = max(len(ids) for group in rows for ids in group)
    return -(-longest // multiple) * multiple


def texts(out_AQN: Array, count_AQ: Array) -> list[list[list[int]]]:
    """Generated tokens as ragged lists `[A][Q]`, stop tokens removed."""
    out, count = np.asarray(out_AQN), np.asarray(count_AQ)
    return [
        [out[a, q, : count[a, q]].tolist() for q in range(out.shape[1])]
        for a in range(out.shape[0])
    ]
