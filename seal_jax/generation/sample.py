"""Decoding on the device: prompts are read, take rows of a cache, and are continued.

    rows = empty_rows(adapters, key, ...)
    prompts = prefill(params, adapters, slots_G, tokens_GQT, length_GQ, arch=arch)
    rows = admit(rows, prompts, adapters, ..., keys_WQ, arch=arch, cfg=cfg)
    rows, steps = decode(params, rows, until, limit, arch=arch, cfg=cfg)

Rows come in pages, G of Q rows each; a page runs under one adapter of a stack, or under
none. Which page takes which prompts, and when, is the host's business (`generate`). A
row's tokens depend on its prompt, its key and its adapter alone.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from seal_jax.models import decoder, key_ranges, kv_cache, lora
from seal_jax.runtime import meshes


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """How to decode.

    `temperature = 0` is greedy. `top_p = 1` and `top_k = 0` do not restrict.
    `min_tokens` tokens are produced before a stop token may be (1 forbids empty texts).
    """

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_tokens: int
    stop_ids: tuple[int, ...]

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
    `top_p` (nucleus sampling, Holtzman et al. 2020); the most likely one always stays,
    and so do all that are as likely as the last one.
    """
    if cfg.temperature == 0:
        return jnp.argmax(logits_V).astype(jnp.int32)
    logits_V = logits_V / cfg.temperature
    if cfg.top_k:
        kth = jax.lax.top_k(logits_V, min(cfg.top_k, logits_V.size))[0][-1]
        logits_V = jnp.where(logits_V < kth, -jnp.inf, logits_V)
    if cfg.top_p < 1:
        return _draw_nucleus(logits_V, key, cfg.top_p)
    return jax.random.categorical(key, logits_V).astype(jnp.int32)


def _draw_nucleus(logits_V: Array, key: Array, top_p: float) -> Array:
    """What `random.categorical` draws of the logits in the nucleus, without a sort.

    That draw is the largest of logit and noise among them. The largest of all is it
    too, if it lies in the nucleus: if what is likelier than it makes less than `top_p`.
    Otherwise neither it nor anything less likely does, and the next one is sought among
    the rest. At 0.95 one row in twenty needs a second look, of these one in twenty a
    third.
    """
    noisy_V = logits_V + jax.random.gumbel(key, logits_V.shape, logits_V.dtype)
    probs_V = jax.nn.softmax(logits_V)

    def look(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, below, _ = state
        token = jnp.argmax(jnp.where(logits_V > below, noisy_V, -jnp.inf))
        logit = logits_V[token]
        likelier = jnp.sum(jnp.where(logits_V > logit, probs_V, 0.0))
        # Not `likelier < top_p`: with NaN among the logits that would never be.
        return token.astype(jnp.int32), logit, likelier >= top_p

    start = jnp.int32(0), jnp.array(-jnp.inf, logits_V.dtype), jnp.array(True)
    return jax.lax.while_loop(lambda state: state[2], look, start)[0]


class Prompts(NamedTuple):
    """Pages of prompts that were read: what it takes to continue them, and again."""

    cache: kv_cache.Cache  # of G * Q rows and T slots
    logits_GQV: Array  # of the first token to come
    length_GQ: Array


class Rows(NamedTuple):
    """Pages of rows that decode together, and what these have written so far.

    The pages' adapters are kept with them: picked from the stack once, and not in every
    step. A row that is absent is done from the start.
    """

    cache: kv_cache.Cache  # of G * Q rows and S slots, filled up to `length_GQ`
    delta: lora.Tree | None  # of [G, R, D] and [G, R, F]
    keys_GQ: Array
    token_GQ: Array  # what is read next, into slot `length_GQ`
    length_GQ: Array
    count_GQ: Array
    done_GQ: Array
    limit_GQ: Array  # a row of so many tokens ends, as if it drew a stop token
    out_GQN: Array  # `count_GQ` tokens in each row


@functools.partial(jax.jit, static_argnames="arch")
def prefill(
    params: dict,
    adapters: lora.Tree | None,
    slots_G: Array,
    tokens_GQT: Array,
    length_GQ: Array,
    *,
    arch: decoder.Arch,
) -> Prompts:
    """Reads pages of prompts.

    Args:
      params: base parameters.
      adapters: stacked on A with their scale folded in, or None for the base alone.
      slots_G: each page's adapter; outside the stack it is none.
      tokens_GQT: prompts, padded on the right.
      length_GQ: their lengths; 0 marks a row to skip.
      arch: the decoder.
    """
    delta = None if adapters is None else lora.assign(adapters, slots_G)
    g, q, t = tokens_GQT.shape
    hidden_BD, cache = kv_cache.read(
        params, delta, arch, tokens_GQT.reshape(-1, t), length_GQ.ravel()
    )
    hidden_GQD = hidden_BD.reshape(g, q, -1)
    return Prompts(cache, decoder.logits(params, arch, hidden_GQD), length_GQ)


def _new_rows(
    cache: kv_cache.Cache,
    delta: lora.Tree | None,
    keys_GQ: Array,
    length_GQ: Array,
    limit_GQ: Array | None,
    cfg: SampleConfig,
) -> Rows:
    shape = length_GQ.shape
    if limit_GQ is None:
        limit_GQ = jnp.full(shape, cfg.max_tokens, jnp.int32)
    return Rows(
        cache=cache,
        delta=delta,
        keys_GQ=keys_GQ,
        token_GQ=jnp.zeros(shape, jnp.int32),
        length_GQ=length_GQ,
        count_GQ=jnp.zeros(shape, jnp.int32),
        done_GQ=length_GQ == 0,
        limit_GQ=limit_GQ,
        out_GQN=jnp.zeros((*shape, cfg.max_tokens), jnp.int32),
    )


def pick(adapters: lora.Tree | None, slots_G: Array, dtype: str) -> lora.Tree | None:
    """The pages' own adapters; zeros for a slot outside the stack."""
    if adapters is None:
        return None
    count = len(jax.tree.leaves(adapters)[0])
    past_end_G = jnp.where(slots_G < 0, count, slots_G)  # -1 would be the last one

    def pick(leaf: Array) -> Array:
        picked = leaf.at[past_end_G].get(mode="fill", fill_value=0)
        return picked.astype(dtype)

    return jax.tree.map(pick, adapters)


@functools.partial(
    jax.jit, static_argnames=("arch", "cfg", "pages", "per_page", "slots", "mesh")
)
def empty_rows(
    adapters: lora.Tree | None,
    key: Array,
    *,
    arch: decoder.Arch,
    cfg: SampleConfig,
    pages: int,
    per_page: int,
    slots: int,
    mesh: Mesh | None = None,
) -> Rows:
    """Pages of absent rows, with `slots` positions each in the cache.

    `adapters` are of the stack's structure; `key` of the keys' kind. On a mesh the
    pages are shared among its devices, and stay so.
    """
    rows = _new_rows(
        kv_cache.init(arch, rows=pages * per_page, slots=slots),
        pick(adapters, jnp.full(pages, -1), arch.dtype),
        jnp.broadcast_to(key, (pages, per_page)),
        jnp.zeros((pages, per_page), jnp.int32),
        None,
        cfg,
    )
    return meshes.split_rows(rows, mesh)


def _draw_next(rows: Rows, logits_GQV: Array, cfg: SampleConfig) -> Rows:
    """Draws the next token of every row that is not done."""
    stop_ids = jnp.array(cfg.stop_ids, jnp.int32)
    if cfg.min_tokens and cfg.stop_ids:
        banned_GQV = logits_GQV.at[..., stop_ids].set(-jnp.inf)
        early_GQ = rows.count_GQ < cfg.min_tokens
        logits_GQV = jnp.where(early_GQ[..., None], banned_GQV, logits_GQV)

    def draw_row(logits_V: Array, key: Array, count: Array) -> Array:
        return draw(logits_V, jax.random.fold_in(key, count), cfg)

    token_GQ = jax.vmap(jax.vmap(draw_row))(logits_GQV, rows.keys_GQ, rows.count_GQ)
    ends_GQ = jnp.isin(token_GQ, stop_ids) | (rows.count_GQ >= rows.limit_GQ)
    goes_on_GQ = ~rows.done_GQ & ~ends_GQ
    at_N = jnp.arange(cfg.max_tokens)[None, None, :]
    here_GQN = (at_N == rows.count_GQ[..., None]) & goes_on_GQ[..., None]
    count_GQ = rows.count_GQ + goes_on_GQ
    return rows._replace(
        token_GQ=token_GQ,
        count_GQ=count_GQ,
        done_GQ=~goes_on_GQ | (count_GQ == cfg.max_tokens),
        out_GQN=jnp.where(here_GQN, token_GQ[..., None], rows.out_GQN),
    )


@functools.partial(jax.jit, static_argnames=("arch", "cfg"), donate_argnames="rows")
def admit(
    rows: Rows,
    prompts: Prompts,
    adapters: lora.Tree | None,
    sources_W: Array,
    places_W: Array,
    slots_W: Array,
    keys_WQ: Array,
    limits_WQ: Array | None = None,
    *,
    arch: decoder.Arch,
    cfg: SampleConfig,
) -> Rows:
    """Puts W pages of prompts among the rows, and draws their first tokens.

    Args:
      rows: where they go; donated.
      prompts: from `prefill`.
      adapters: the stack that the prompts were read under, or None.
      sources_W: which of the prompts' pages; one may be continued several times.
      places_W: which pages they become, all different; none if past the last.
      slots_W: their adapters.
      keys_WQ: a typed PRNG key for every row.
      limits_WQ: after how many tokens each row ends, if `cfg` does not end it before.
      arch: the decoder.
      cfg: how to decode.
    """
    at_Q = jnp.arange(keys_WQ.shape[1])
    from_B = (sources_W[:, None] * len(at_Q) + at_Q[None, :]).ravel()
    to_B = (places_W[:, None] * len(at_Q) + at_Q[None, :]).ravel()
    slots = rows.cache[0]["k"].shape[2]

    def whole(leaf: Array) -> Array:
        # To the row's end: what the row before it left there may not be finite, and a
        # weight of zero would not keep that out.
        room = slots - leaf.shape[2]
        return jnp.pad(leaf[from_B], ((0, 0), (0, 0), (0, room), (0, 0)))

    def put(at: Array) -> Callable[[Array, Array], Array]:
        return lambda old, new: old.at[at].set(new, mode="drop")

    new = _new_rows(
        jax.tree.map(whole, prompts.cache),
        pick(adapters, slots_W, arch.dtype),
        keys_WQ,
        prompts.length_GQ[sources_W],
        limits_WQ,
        cfg,
    )
    new = _draw_next(new, prompts.logits_GQV[sources_W], cfg)
    cache = jax.tree.map(put(to_B), rows.cache, new.cache)
    rest = [x._replace(cache=()) for x in (rows, new)]
    return jax.tree.map(put(places_W), *rest)._replace(cache=cache)


@functools.partial(jax.jit, static_argnames=("arch", "cfg"), donate_argnames="rows")
def decode(
    params: dict,
    rows: Rows,
    until: Array,
    limit: Array,
    *,
    arch: decoder.Arch,
    cfg: SampleConfig,
) -> tuple[Rows, Array]:
    """Continues all rows until `until` pages are finished, or for `limit` steps.

    Args:
      params: base parameters.
      rows: what to continue; donated.
      until, limit: int32 scalars; pages of absent rows count as finished.
      arch: the decoder.
      cfg: how to decode.

    Returns:
      The rows, and the number of steps that were taken.
    """

    def step(carry: tuple[Rows, Array]) -> tuple[Rows, Array]:
        rows, steps = carry
        token_B, length_B = rows.token_GQ.ravel(), rows.length_GQ.ravel()
        hidden_BD, cache = kv_cache.step(
            params, rows.delta, arch, token_B, length_B, rows.cache
        )
        length_GQ = rows.length_GQ + ~rows.done_GQ
        rows = rows._replace(cache=cache, length_GQ=length_GQ)
        hidden_GQD = hidden_BD.reshape(*length_GQ.shape, -1)
        return _draw_next(
            rows, decoder.logits(params, arch, hidden_GQD), cfg
        ), steps + 1

    def wanted(carry: tuple[Rows, Array]) -> Array:
        rows, steps = carry
        return (rows.done_GQ.all(1).sum() < until) & (steps < limit)

    return jax.lax.while_loop(wanted, step, (rows, jnp.int32(0)))


@functools.partial(jax.jit, static_argnames="arch")
def log_likelihood(
    params: dict,
    adapters: lora.Tree | None,
    slots_G: Array,
    tokens_GQT: Array,
    scored_GQT: Array,
    length_GQ: Array,
    *,
    arch: decoder.Arch,
) -> Array:
    """Sum of log-probabilities of the marked tokens given all before them, `[G, Q]`.

    Args:
      params, adapters, slots_G: as of `prefill`.
      tokens_GQT: prompt and continuation, padded on the right.
      scored_GQT: bool, which tokens to sum over (never the first of a row).
      length_GQ: row lengths.
      arch: the decoder.
    """
    g, q, t = tokens_GQT.shape
    is_key_BT = jnp.arange(t)[None, :] < length_GQ.reshape(-1, 1)
    hidden_BTD, _ = decoder.hidden(
        params,
        None if adapters is None else lora.assign(adapters, slots_G),
        arch,
        tokens_GQT.reshape(-1, t),
        jnp.broadcast_to(jnp.arange(t), is_key_BT.shape),
        key_ranges.causal(is_key_BT),
    )

    def score(page: tuple[Array, Array, Array]) -> Array:
        hidden_QTD, tokens_QT, scored_QT = page
        logits_QTV = decoder.logits(params, arch, hidden_QTD[:, :-1])
        ce_QT = optax.softmax_cross_entropy_with_integer_labels(
            logits_QTV, tokens_QT[:, 1:]
        )
        return -jnp.sum(jnp.where(scored_QT[:, 1:], ce_QT, 0.0), axis=-1)

    # One page at a time: the logits of all would not fit beside a large vocabulary.
    hidden_GQTD = hidden_BTD.reshape(g, q, t, -1)
    return jax.lax.map(score, (hidden_GQTD, tokens_GQT, scored_GQT))
