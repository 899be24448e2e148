"""A language model that reads and writes text: weights, tokenizer, batched decoding.

Strings go in and come out; `sample` does the work on arrays. Requests of any number are
cut into batches of one shape, so that few programs are compiled.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seal_jax import config, hf, lora, model, sample


@dataclasses.dataclass(frozen=True)
class Policy:
    """The model that writes self-edits and learns from them.

    `eos` is the end-of-text id that training appends; `stop_ids` all ids that end a
    generation. `source` is the directory its tokenizer came from.
    """

    arch: model.ModelConfig
    params: dict
    tokenizer: Any
    stop_ids: tuple[int, ...]
    source: Path

    @property
    def eos(self) -> int:
        return self.stop_ids[0]

    def encode(self, text: str) -> list[int]:
        """Token ids, nothing added."""
        return hf.encode(self.tokenizer, text)

    def merged(self, delta: lora.Tree) -> "Policy":
        """The policy with a delta added into its weights."""
        return dataclasses.replace(self, params=_merge(self.params, delta))


@jax.jit
def _merge(params: dict, delta: lora.Tree) -> dict:
    return lora.merge(params, delta)


def describe(source: config.ModelSource) -> Policy:
    """The policy without its weights (`params` is empty): quick to open, to check with.

    See `hf` for what is refused.
    """
    path = hf.resolve(source.path)
    arch = hf.read_config(path, dtype=source.dtype)
    tokenizer = hf.load_tokenizer(path)
    return Policy(arch, {}, tokenizer, hf.eos_id(tokenizer, path), path)


def load(source: config.ModelSource, *, seed: int, sharding: Any = None) -> Policy:
    """Opens a model directory or hub name; see `hf` for what it refuses.

    With `random_weights` only the config and the tokenizer are read, and the weights
    are drawn from `seed`.
    """
    blank = describe(source)
    if source.random_weights:
        params = jax.jit(model.init_params, static_argnums=1)(
            jax.random.key(seed), blank.arch
        )
    else:
        params = hf.load_params(blank.source, blank.arch, sharding=sharding)
    return dataclasses.replace(blank, params=params)


def fold(key: Array, *columns: Sequence[int] | np.ndarray) -> Array:
    """One key per row of the columns: `key` folded with each column in turn."""
    arrays = [jnp.asarray(np.asarray(column, np.uint32)) for column in columns]
    return _fold(key, tuple(arrays))


@jax.jit
def _fold(key: Array, columns: tuple[Array, ...]) -> Array:
    keys = jnp.broadcast_to(key, columns[0].shape)  # one key for all, or one each
    for column in columns:
        keys = jax.vmap(jax.random.fold_in)(keys, column)
    return keys


def sample_config(decoding: config.Decoding, policy: Policy) -> sample.SampleConfig:
    """The decoding settings with this policy's stop tokens."""
    return sample.SampleConfig(
        max_tokens=decoding.max_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        min_tokens=decoding.min_tokens,
        stop_ids=policy.stop_ids,
        prompt_multiple=decoding.prompt_multiple,
    )


def write(
    policy: Policy,
    prompts: Sequence[str],
    keys: Array,
    decoding: config.Decoding,
    *,
    tick: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Continues each prompt, without adapters; whitespace at the ends is stripped.

    Prompts of similar length share a batch of `decoding.batch` rows; `tick` is told how
    many are done after each batch.
    """
    cfg = sample_config(decoding, policy)
    ids = [policy.encode(prompt) for prompt in prompts]
    by_length = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    out = [""] * len(ids)
    for start in range(0, len(ids), decoding.batch):
        chosen = by_length[start : start + decoding.batch]
        rows = [[ids[i] for i in chosen]]
        width = sample.padded_width(rows, cfg.prompt_multiple)
        tokens, lengths = sample.pad(
            rows, groups=1, per_group=decoding.batch, width=width
        )
        # Rows past the last prompt are skipped; their keys are anything.
        index = jnp.asarray(chosen + [0] * (decoding.batch - len(chosen)))
        result = sample.generate(
            policy.params,
            None,
            tokens,
            lengths,
            keys[index][None],
            arch=policy.arch,
            cfg=cfg,
        )
        for i, generated in zip(chosen, sample.texts(*result)[0], strict=False):
            out[i] = hf.decode(policy.tokenizer, generated).strip()
        tick(len(chosen))
    return out


@dataclasses.dataclass(frozen=True)
class Page:
    """Some of one adapter's requests: a group of rows that run under it."""

    adapter: int
    first: int
    count: int


def pages(counts: Sequence[int], per_page: int) -> list[Page]:
    """Cuts each adapter's requests into pages, so that few rows are empty."""
    return [
        Page(adapter, first, min(per_page, count - first))
        for adapter, count in enumerate(counts)
        for first in range(0, count, per_page)
    ]


def _batches(
    requests: Sequence[Sequence[Any]], *, groups: int, per_page: int
) -> Iterator[list[Page]]:
    every = pages([len(group) for group in requests], per_page)
    for start in range(0, len(every), groups):
        yield every[start : start + groups]


@jax.jit
def _gather(adapters: lora.Tree, index_A: Array) -> lora.Tree:
    return lora.select(adapters, index_A)


def _select(adapters: lora.Tree | None, batch: list[Page], groups: int):
    if adapters is None:
        return None
    index = [page.adapter for page in batch]
    return _gather(adapters, jnp.asarray(index + index[-1:] * (groups - len(index))))


# Questions that share a page of one adapter: SQuAD has five to a passage on average.
PER_PAGE = 6


def answer(
    policy: Policy,
    adapters: lora.Tree | None,
    prompts: Sequence[Sequence[str]],
    keys_A: Array,
    decoding: config.Decoding,
) -> list[list[str]]:
    """Continues `prompts[a][q]` under adapter a, or all of them under the base.

    Args:
      policy: the model.
      adapters: stacked on A with their scale folded in (more than there are prompt
        lists is fine), or None.
      prompts: one list per adapter.
      keys_A: typed PRNG keys, one per prompt list (for temperatures above 0).
      decoding: settings; about `batch` rows decode together, in pages of `PER_PAGE`.
    """
    cfg = sample_config(decoding, policy)
    groups = max(1, decoding.batch // PER_PAGE)
    ids = [[policy.encode(text) for text in group] for group in prompts]
    width = sample.padded_width(ids, cfg.prompt_multiple)
    out = [[""] * len(group) for group in prompts]
    for batch in _batches(ids, groups=groups, per_page=PER_PAGE):
        rows = [ids[p.adapter][p.first : p.first + p.count] for p in batch]
        tokens, lengths = sample.pad(
            rows, groups=groups, per_group=PER_PAGE, width=width
        )
        adapter = np.zeros((groups, PER_PAGE), int)
        question = np.zeros((groups, PER_PAGE), int)
        for g, page in enumerate(batch):
            adapter[g] = page.adapter
            question[g] = page.first + np.arange(PER_PAGE)
        keys = fold(keys_A[adapter.ravel()], question.ravel())
        result = sample.generate(
            policy.params,
            _select(adapters, batch, groups),
            tokens,
            lengths,
            keys.reshape(groups, PER_PAGE),
            arch=policy.arch,
            cfg=cfg,
        )
        for page, generated in zip(batch, sample.texts(*result), strict=False):
            for q in range(page.count):
                text = hf.decode(policy.tokenizer, generated[q]).strip()
                out[page.adapter][page.first + q] = text
    return out


def log_likelihood(
    policy: Policy,
    adapters: lora.Tree | None,
    requests: Sequence[Sequence[tuple[str, str]]],
    decoding: config.Decoding,
) -> list[list[float]]:
    """Mean log-probability per token (nats) of `(prompt, continuation)` pairs.

    The end-of-text token after the continuation counts as one of its tokens.
    """
    groups = max(1, decoding.batch // PER_PAGE)
    pairs = [
        [(policy.encode(p), [*policy.encode(c), policy.eos]) for p, c in group]
        for group in requests
    ]
    whole = [[prompt + tail for prompt, tail in group] for group in pairs]
    width = sample.padded_width(whole, decoding.prompt_multiple)
    out = [[0.0] * len(group) for group in requests]
    run = functools.partial(sample.log_likelihood, arch=policy.arch)
    for batch in _batches(whole, groups=groups, per_page=PER_PAGE):
        rows = [whole[p.adapter][p.first : p.first + p.count] for p in batch]
        tokens, lengths = sample.pad(
            rows, groups=groups, per_group=PER_PAGE, width=width
        )
        scored = np.zeros(tokens.shape, bool)
        for g, page in enumerate(batch):
            for q in range(page.count):
                prompt, tail = pairs[page.adapter][page.first + q]
                scored[g, q, len(prompt) : len(prompt) + len(tail)] = True
        delta = _select(adapters, batch, groups)
        total = np.asarray(run(policy.params, delta, tokens, scored, lengths))
        for g, page in enumerate(batch):
            for q in range(page.count):
                count = len(pairs[page.adapter][page.first + q][1])
                out[page.adapter][page.first + q] = float(total[g, q]) / count
    return out
