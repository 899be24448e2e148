"""Decoding on the device: prompts are read, take rows of a cache, and are continued.

    rows = empty_rows(adapters, ...)
    prompts = prefill(params, adapters, slots_G, tokens_PT, start_PT, spans, arch=arch)
    rows = admit(rows, prompts, adapters, entering, arch=arch, cfg=cfg)
    rows, steps = decode(params, rows, until, limit, arch=arch, cfg=cfg)

Every row runs under an adapter of a stack, or under none. Which row takes which prompt,
and when, is the host's business (`schedule`). A row's tokens depend on its prompt, its
key and its adapter alone.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from seal_jax.models import decoder, kv_cache, lora, row_pages
from seal_jax.models.row_pages import Pages
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
    """Prompts that were read, side by side: what it takes to continue them, and again.

    N prompts, each `length_N` tokens of row `row_N` from `first_N` on.
    """

    cache: kv_cache.Cache  # of P rows and T slots
    logits_NV: Array  # of the first token to come
    row_N: Array
    first_N: Array
    length_N: Array


class Rows(NamedTuple):
    """Rows that decode together, and what these have written so far.

    Adapters are kept with them: picked from the stack once for the rows of a page, and
    not in every step. A row that is absent is done from the start.
    """

    cache: kv_cache.Cache  # of B rows and S slots, filled up to `length_B`
    delta: lora.Tree | None  # of [G, R, D] and [G, R, F], an adapter for each page
    pages: Pages | None
    keys_B: Array
    token_B: Array  # what is read next, into slot `length_B`
    length_B: Array
    count_B: Array
    done_B: Array
    limit_B: Array  # a row of so many tokens ends, as if it drew a stop token
    out_BN: Array  # `count_B` tokens in each row


class Entering(NamedTuple):
    """E requests that take rows; those that are none have a row past the last.

    Attributes:
      source_E: which of the prompts each continues; several may continue one.
      row_E: the rows that they take, all different.
      page_E: pages whose adapter is new, past the last where it is not.
      slot_E: those adapters in the stack.
      keys_E: a typed PRNG key for each request.
      limit_E: after how many tokens it ends, if the settings do not end it before.
      members_CGQ: of all pages, these rows among them (see `row_pages.Pages`).
    """

    source_E: Array | np.ndarray
    row_E: Array | np.ndarray
    page_E: Array | np.ndarray
    slot_E: Array | np.ndarray
    keys_E: Array
    limit_E: Array | np.ndarray
    members_CGQ: Array | np.ndarray


@functools.partial(jax.jit, static_argnames="arch")
def prefill(
    params: dict,
    adapters: lora.Tree | None,
    slots_G: Array,
    tokens_PT: Array,
    start_PT: Array,
    spans: tuple[Array, Array, Array],
    *,
    arch: decoder.Arch,
) -> Prompts:
    """Reads prompts that lie side by side.

    Args:
      params: base parameters.
      adapters: stacked on A with their scale folded in, or None for the base alone.
      slots_G: the adapter of each of G equal runs of tokens; outside the stack none.
      tokens_PT: rows of prompts.
      start_PT: where in its row a token's prompt begins; -1 where there is none.
      spans: row, first token and length of each prompt; of length 0 it is none.
      arch: the decoder.
    """
    delta = None if adapters is None else lora.assign(adapters, slots_G)
    hidden_PTD, cache = kv_cache.read(params, delta, arch, tokens_PT, start_PT)
    row_N, first_N, length_N = spans
    last_ND = hidden_PTD[row_N, first_N + jnp.maximum(length_N - 1, 0)]
    return Prompts(cache, decoder.logits(params, arch, last_ND), *spans)


def _new_rows(
    cache: kv_cache.Cache,
    keys_B: Array,
    length_B: Array,
    limit_B: Array,
    cfg: SampleConfig,
) -> Rows:
    rows = len(length_B)
    return Rows(
        cache=cache,
        delta=None,
        pages=None,
        keys_B=keys_B,
        token_B=jnp.zeros(rows, jnp.int32),
        length_B=length_B,
        count_B=jnp.zeros(rows, jnp.int32),
        done_B=length_B == 0,
        limit_B=limit_B,
        out_BN=jnp.zeros((rows, cfg.max_tokens), jnp.int32),
    )


def pick(adapters: lora.Tree, slots_G: Array, dtype: str) -> lora.Tree:
    """Adapters out of a stack; zeros for a slot outside it."""
    count = len(jax.tree.leaves(adapters)[0])
    past_end_G = jnp.where(slots_G < 0, count, slots_G)  # -1 would be the last one

    def pick(leaf: Array) -> Array:
        picked = leaf.at[past_end_G].get(mode="fill", fill_value=0)
        return picked.astype(dtype)

    return jax.tree.map(pick, adapters)


@functools.partial(
    jax.jit, static_argnames=("arch", "cfg", "rows", "slots", "pages", "mesh")
)
def empty_rows(
    adapters: lora.Tree | None,
    *,
    arch: decoder.Arch,
    cfg: SampleConfig,
    rows: int,
    slots: int,
    pages: tuple[int, int, int] = (1, 0, 1),
    mesh: Mesh | None = None,
) -> Rows:
    """Absent rows, with `slots` positions each in the cache, in no page.

    `adapters` are of the stack's structure; `pages` is the shape of their members. On a
    mesh the rows and the pages are shared among its devices, and stay so.
    """
    made = _new_rows(
        kv_cache.init(arch, rows=rows, slots=slots),
        jnp.broadcast_to(jax.random.key(0), (rows,)),
        jnp.zeros(rows, jnp.int32),
        jnp.full(rows, cfg.max_tokens, jnp.int32),
        cfg,
    )
    if adapters is not None:
        shards, own, _ = pages
        members_CGQ = jnp.full(pages, rows // shards, jnp.int32)
        made = made._replace(
            delta=pick(adapters, jnp.full(shards * own, -1), arch.dtype),
            pages=row_pages.pages(members_CGQ, rows),
        )
    return meshes.split_rows(made, mesh)


def _draw_next(rows: Rows, logits_BV: Array, cfg: SampleConfig) -> Rows:
    """Draws the next token of every row that is not done."""
    stop_ids = jnp.array(cfg.stop_ids, jnp.int32)
    if cfg.min_tokens and cfg.stop_ids:
        banned_BV = logits_BV.at[:, stop_ids].set(-jnp.inf)
        early_B = rows.count_B < cfg.min_tokens
        logits_BV = jnp.where(early_B[:, None], banned_BV, logits_BV)

    def draw_row(logits_V: Array, key: Array, count: Array) -> Array:
        return draw(logits_V, jax.random.fold_in(key, count), cfg)

    token_B = jax.vmap(draw_row)(logits_BV, rows.keys_B, rows.count_B)
    ends_B = jnp.isin(token_B, stop_ids) | (rows.count_B >= rows.limit_B)
    goes_on_B = ~rows.done_B & ~ends_B
    at_N = jnp.arange(cfg.max_tokens)[None, :]
    here_BN = (at_N == rows.count_B[:, None]) & goes_on_B[:, None]
    count_B = rows.count_B + goes_on_B
    return rows._replace(
        token_B=token_B,
        count_B=count_B,
        done_B=~goes_on_B | (count_B == cfg.max_tokens),
        out_BN=jnp.where(here_BN, token_B[:, None], rows.out_BN),
    )


@functools.partial(
    jax.jit, static_argnames=("arch", "cfg", "mesh"), donate_argnames="rows"
)
def admit(
    rows: Rows,
    prompts: Prompts,
    adapters: lora.Tree | None,
    entering: Entering,
    *,
    arch: decoder.Arch,
    cfg: SampleConfig,
    mesh: Mesh | None = None,
) -> Rows:
    """Puts requests among the rows, and draws their first tokens.

    Args:
      rows: where they go; donated.
      prompts: from `prefill`.
      adapters: the stack that the prompts were read under, or None.
      entering: which take which rows.
      arch: the decoder.
      cfg: how to decode.
      mesh: that the rows are cut over.
    """
    from_E, to_E, page_E, slot_E, keys_E, limit_E, _ = map(jnp.asarray, entering)
    row_E, first_E, length_E = (
        x_N[from_E] for x_N in (prompts.row_N, prompts.first_N, prompts.length_N)
    )
    slots = rows.cache[0]["k"].shape[2]
    longest = slots - cfg.max_tokens

    def whole(leaf: Array) -> Array:
        # To the row's end: what the row before it left there may not be finite, and a
        # weight of zero would not keep that out.
        at_S = jnp.arange(longest)[None, :]
        past_end = leaf.shape[2]
        from_ES = jnp.where(at_S < length_E[:, None], first_E[:, None] + at_S, past_end)
        new = leaf.at[row_E[:, None], :, from_ES].get(mode="fill", fill_value=0)
        room = ((0, 0), (0, slots - longest), (0, 0), (0, 0))
        return jnp.swapaxes(jnp.pad(new, room), 1, 2)

    def put(at: Array) -> Callable[[Array, Array], Array]:
        return lambda old, new: old.at[at].set(new, mode="drop")

    new = _new_rows(
        jax.tree.map(whole, prompts.cache),
        keys_E,
        length_E,
        limit_E,
        cfg,
    )
    new = _draw_next(new, prompts.logits_NV[from_E], cfg)
    made = jax.tree.map(put(to_E), rows._replace(delta=None, pages=None), new)
    if adapters is not None:
        fresh = pick(adapters, slot_E, arch.dtype)
        made = made._replace(
            delta=jax.tree.map(put(page_E), rows.delta, fresh),
            pages=row_pages.pages(entering.members_CGQ, len(rows.done_B)),
        )
    return meshes.split_rows(made, mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def move(
    rows: Rows,
    from_row_CB: Array,
    from_page_CG: Array,
    members_CGQ: Array,
    *,
    mesh: Mesh | None = None,
) -> Rows:
    """Some of the rows and pages alone, counted in their shards."""

    def of(at_C: Array) -> Callable[[Array], Array]:
        def pick(leaf: Array) -> Array:
            own = leaf.reshape(len(at_C), -1, *leaf.shape[1:])
            picked = jax.vmap(lambda x, at: x[at])(own, at_C)
            return picked.reshape(-1, *leaf.shape[1:])

        return pick

    made = jax.tree.map(of(from_row_CB), rows._replace(delta=None, pages=None))
    if rows.delta is not None:
        made = made._replace(
            delta=jax.tree.map(of(from_page_CG), rows.delta),
            pages=row_pages.pages(members_CGQ, from_row_CB.size),
        )
    return meshes.split_rows(made, mesh)


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
    """Continues all rows until `until` of them are done, or for `limit` steps.

    Args:
      params: base parameters.
      rows: what to continue; donated.
      until, limit: int32 scalars; absent rows count as done.
      arch: the decoder.
      cfg: how to decode.

    Returns:
      The rows, and the number of steps that were taken.
    """
    delta = None
    if rows.delta is not None and rows.pages is not None:
        delta = lora.shared(rows.delta, rows.pages)

    def step(carry: tuple[Rows, Array]) -> tuple[Rows, Array]:
        rows, steps = carry
        # One that is done is not read any more: what is read is set by the longest row.
        slot_B = jnp.where(rows.done_B, 0, rows.length_B)
        hidden_BD, cache = kv_cache.step(
            params, delta, arch, rows.token_B, slot_B, rows.cache
        )
        rows = rows._replace(cache=cache, length_B=rows.length_B + ~rows.done_B)
        logits_BV = decoder.logits(params, arch, hidden_BD)
        return _draw_next(rows, logits_BV, cfg), steps + 1

    def wanted(carry: tuple[Rows, Array]) -> Array:
        rows, steps = carry
        return (rows.done_B.sum() < until) & (steps < limit)

    # Adapters stay as they are: outside the loop, so that it does not carry them.
    carried = rows._replace(delta=None, pages=None)
    made, steps = jax.lax.while_loop(wanted, step, (carried, jnp.int32(0)))
    return made._replace(delta=rows.delta, pages=rows.pages), steps


@functools.partial(jax.jit, static_argnames="arch")
def log_likelihood(
    params: dict,
    adapters: lora.Tree | None,
    slots_G: Array,
    tokens_PT: Array,
    start_PT: Array,
    *,
    arch: decoder.Arch,
) -> Array:
    """Log-probability of every token given those before it in its line, `[P, T]`.

    That of a line's first token, and of what is no token, means nothing.

    Args:
      params, adapters, slots_G, tokens_PT, start_PT: as of `prefill`, of lines.
      arch: the decoder.
    """
    delta = None if adapters is None else lora.assign(adapters, slots_G)
    hidden_PTD, _ = kv_cache.read(params, delta, arch, tokens_PT, start_PT)

    def score(row: tuple[Array, Array]) -> Array:
        hidden_TD, tokens_T = row
        logits_TV = decoder.logits(params, arch, hidden_TD[:-1])
        ce_T = optax.softmax_cross_entropy_with_integer_labels(logits_TV, tokens_T[1:])
        return jnp.pad(-ce_T, (1, 0))

    # One row at a time: the logits of all would not fit beside a large vocabulary.
    return jax.lax.map(score, (hidden_PTD, tokens_PT))
