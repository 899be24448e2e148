"""A language model that reads and writes text: weights, tokenizer, batched decoding.

Strings go in and come out; `generate` queues their tokens, and `sample` does the work
on arrays.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding

from seal_jax.generation import generate, sample, side_by_side
from seal_jax.generation.settings import AUTO, Decoding, ModelSource
from seal_jax.models import chat, decoder, float8_base, hf, lora, placement
from seal_jax.runtime import compiling, config_rules, distributed, prng
from seal_kernels.attention import api as attention_op
from seal_kernels.lora_matmul import api as lora_op


@dataclasses.dataclass(frozen=True)
class Policy:
    """The model that writes self-edits and learns from them.

    `eos` is the end-of-text id that training appends; `stop_ids` all ids that end a
    generation. `source` is the directory its tokenizer came from. `begin` are the ids
    that its tokenizer begins every text with, if any. `chats`: whether it is asked, and
    trained, through its tokenizer's chat template.
    """

    arch: decoder.Arch
    params: dict
    tokenizer: Any
    stop_ids: tuple[int, ...]
    source: Path
    begin: tuple[int, ...] = ()
    chats: bool = False

    @property
    def eos(self) -> int:
        return self.stop_ids[0]

    def encode(self, text: str) -> list[int]:
        """Token ids, nothing added: of what goes on in a sequence."""
        return hf.encode(self.tokenizer, text)

    def sequence(self, text: str) -> list[int]:
        """Token ids of a whole sequence, begun once as the model's tokenizer does."""
        ids = self.encode(text)
        # A chat's own beginning is in its text.
        begun = tuple(ids[: len(self.begin)]) == self.begin
        return ids if begun else [*self.begin, *ids]

    def turn(self, text: str) -> str:
        """A prompt as this model is asked it: as it is, or as a turn of its chat."""
        return chat.turn(self.tokenizer, text) if self.chats else text

    def line(self, text: str) -> list[int]:
        """Token ids of a training line, a title and what is told under it.

        In a chat the title, its first line, is what the user says, and the rest the
        answer.
        """
        title, _, told = text.partition("\n")
        return self.sequence(self.turn(title) + told if self.chats else text)

    @property
    def context(self) -> int:
        """Tokens that the model can take."""
        return self.arch.max_position

    def merged(self, delta: lora.Tree, *, consume: bool = False) -> "Policy":
        """The policy with a delta added into its weights.

        `consume`: the old weights' memory becomes the new ones'. This policy, and any
        other that shares its weights, must not be used again: jax refuses its arrays
        as deleted.
        """
        # From the host: on a mesh the delta's device is only one of the params'.
        delta = jax.tree.map(np.asarray, delta)
        # Nothing is shared afterwards: either policy may be `freed`.
        params = self.params if consume else jax.tree.map(_copied, self.params)
        params = lora.merge(params, delta, consume=True)
        if consume:
            own = set(map(id, jax.tree.leaves(self.params)))
            params = jax.tree.map(lambda x: _moved(x) if id(x) in own else x, params)
        return dataclasses.replace(self, params=params)

    def save(self, path: str | Path) -> None:
        """Writes it in Hugging Face format, with its tokenizer; see `hf.save`.

        Several processes call it alike, and the first one writes.

        Raises:
          ValueError: `path` holds something else.
          OSError: it cannot be written.
        """
        # A base in eight bits is not what is saved: its own weights are.
        params = distributed.readable(float8_base.master(self.params))
        if distributed.leads():
            hf.save(path, self.arch.plain(), params, source=self.source)

    def freed(self) -> "Policy":
        """The policy without its weights, whose memory is given back at once.

        As with `merged(consume=True)`, what shares them must not be used again.
        """
        for leaf in jax.tree.leaves(self.params):
            leaf.delete()
        return dataclasses.replace(self, params={})


def describe(source: ModelSource, *, turn_end: str = "") -> Policy:
    """The policy without its weights (`params` is empty): quick to open, to check with.

    `turn_end`: a token that ends what the policy writes, before the model's own ones.

    Raises:
      ValueError: the model has no such token, a chat template that cannot be used, or
        see `hf`.
    """
    path = hf.resolve(source.path)
    config_rules.one_of("model.kernel", source.kernel, lora_op.IMPLEMENTATIONS)
    config_rules.one_of(
        "model.attention", source.attention, attention_op.IMPLEMENTATIONS
    )
    arch = hf.read_config(path, dtype=source.dtype)
    arch = dataclasses.replace(
        arch,
        kernel=source.kernel,
        attention=source.attention,
        base_dtype=source.base_dtype,
    )
    tokenizer = hf.load_tokenizer(path)
    stop_ids = hf.eos_id(tokenizer, path)
    if turn_end:
        first = hf.encode(tokenizer, turn_end)
        if len(first) != 1:
            raise ValueError(
                f"model.path={source.path!r} has no token {turn_end!r}, which ends a "
                "turn of task.chat; give the chat that the model was trained with"
            )
        stop_ids = (*first, *(i for i in stop_ids if i != first[0]))
    chats = source.chat == AUTO and chat.has_template(tokenizer)
    if chats and (end := chat.end_id(tokenizer)) is not None:
        stop_ids = (end, *(i for i in stop_ids if i != end))
    hf.check_ids(path, tokenizer, arch, stop_ids)
    begin = hf.begin_ids(tokenizer)
    return Policy(arch, {}, tokenizer, stop_ids, path, begin, chats)


def on_mesh(source: ModelSource, blank: Policy) -> Policy:
    """The policy, with what a compiler can share among devices.

    Raises:
      ValueError: the config names a kernel, which it cannot.
    """
    chosen = {}
    for name, asked, plain in (
        ("kernel", source.kernel, "plain"),
        ("attention", source.attention, "xla"),
    ):
        if asked not in ("auto", plain, "xla", "reference"):
            raise ValueError(
                f"model.{name}={asked!r} runs on one device; use 'auto' or 'xla' on a "
                "mesh, or mesh.data=1 and mesh.model=1"
            )
        chosen[name] = plain if asked == "auto" else asked
    return dataclasses.replace(blank, arch=dataclasses.replace(blank.arch, **chosen))


def load(
    source: ModelSource,
    blank: Policy,
    *,
    seed: int,
    mesh: Mesh | None = None,
    merges: bool = True,
) -> Policy:
    """The weights of a described policy.

    With `random_weights` they are drawn from `seed`. On a mesh they lie as
    `placement.param_shardings` says. Where nothing is to be merged into them, nor
    saved (`merges`), a base in float8 is held without the weights it came from.
    """
    arch = blank.arch.plain()
    sharding = None if mesh is None else placement.param_shardings(arch, mesh)
    if source.random_weights:
        draw = jax.jit(decoder.init_params, static_argnums=1, out_shardings=sharding)
        params = draw(prng.root(seed), arch)
    else:
        params = hf.load_params(blank.source, arch, sharding=sharding)
    if blank.arch.base_dtype == float8_base.FLOAT8:
        out = None if mesh is None else placement.param_shardings(blank.arch, mesh)
        params = jax.jit(float8_base.added, out_shardings=out, donate_argnums=0)(params)
        params = params if merges else float8_base.running(params)
    return dataclasses.replace(blank, params=params)


def shapes(blank: Policy) -> Policy:
    """A described policy with its weights' shapes, as `load` gives those on a device.

    That is, if they may be merged into.
    """
    like = jax.eval_shape(lambda: decoder.init_params(prng.root(0), blank.arch))
    return dataclasses.replace(blank, params=like)


def _copied(weight: Array) -> Array:
    if isinstance(weight.sharding, NamedSharding):
        return weight.copy()
    # Not `copy`, which is a program for every shape.
    return jax.device_put(weight, may_alias=False)


def _moved(weight: Array) -> Array:
    moved = _copied(weight)
    weight.delete()
    return moved


# Questions that share a copy of their adapter: SQuAD has five to a passage on average.
PER_PAGE = 6


def _continue(
    policy: Policy,
    adapters: lora.Tree | None,
    prompts: Sequence[Sequence[str]],
    keys: Array,
    decoding: Decoding,
    tick: Callable[[int], None],
    per_page: int = PER_PAGE,
    room: int = 0,
) -> list[str]:
    """Continues `prompts[a][q]` under adapter a; one key for each, one flat list."""
    generated = generate.run(
        policy.params,
        adapters,
        _requests(policy, prompts),
        keys,
        arch=policy.arch,
        cfg=sample_config(decoding, policy),
        batch=decoding.batch,
        per_page=per_page,
        prompt_multiple=decoding.prompt_multiple,
        room=room,
        tick=tick,
    )
    return [hf.decode(policy.tokenizer, ids).strip() for ids in generated.tokens]


def _requests(
    policy: Policy, prompts: Sequence[Sequence[str]]
) -> list[generate.Request]:
    # Many texts may be drawn of one prompt.
    sequence = functools.cache(lambda prompt: tuple(policy.sequence(prompt)))
    return [
        generate.Request(sequence(prompt), adapter)
        for adapter, group in enumerate(prompts)
        for prompt in group
    ]


def expect(
    policy: Policy,
    adapters: lora.Tree | None,
    prompts: Sequence[Sequence[str]],
    decoding: Decoding,
    *,
    room: int = 0,
    call: compiling.Call,
) -> None:
    """Calls the programs that `answer` and `write` begin with; see `generate.expect`.

    Args:
      policy: of `shapes`.
      adapters: shapes, or None.
      prompts, decoding, room: as of `answer`.
      call: what compiles them.
    """
    generate.expect(
        policy.params,
        adapters,
        _requests(policy, prompts),
        arch=policy.arch,
        cfg=sample_config(decoding, policy),
        batch=decoding.batch,
        per_page=PER_PAGE,
        prompt_multiple=decoding.prompt_multiple,
        room=room,
        call=call,
    )


def sample_config(decoding: Decoding, policy: Policy) -> sample.SampleConfig:
    """The decoding settings with this policy's stop tokens."""
    return sample.SampleConfig(
        max_tokens=decoding.max_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        min_tokens=decoding.min_tokens,
        stop_ids=policy.stop_ids,
    )


def write(
    policy: Policy,
    prompts: Sequence[str],
    keys: Array,
    decoding: Decoding,
    *,
    tick: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Continues each prompt, without adapters; whitespace at the ends is stripped.

    About `decoding.batch` rows decode together; `tick` is told how many are done
    whenever some are.
    """
    return _continue(policy, None, [prompts], keys, decoding, tick)


def answer(
    policy: Policy,
    adapters: lora.Tree | None,
    prompts: Sequence[Sequence[str]],
    keys_A: Array,
    decoding: Decoding,
    *,
    per_page: int = PER_PAGE,
    room: int = 0,
    tick: Callable[[int], None] = lambda count: None,
) -> list[list[str]]:
    """Continues `prompts[a][q]` under adapter a, or all of them under the base.

    Args:
      policy: the model.
      adapters: stacked on A with their scale folded in (more than there are prompt
        lists is fine), or None.
      prompts: one list per adapter.
      keys_A: typed PRNG keys, one per prompt list (for temperatures above 0).
      decoding: settings; about `batch` rows decode together.
      per_page: rows under one adapter that share a copy of it, at most; more than an
        adapter has prompts leave rows empty.
      room: as of `generate.run`.
      tick: as of `write`.
    """
    places = [(a, q) for a, group in enumerate(prompts) for q in range(len(group))]
    index = np.array(places, int).reshape(-1, 2)
    keys = prng.fold(prng.take(keys_A, index[:, 0]), index[:, 1])
    texts = _continue(policy, adapters, prompts, keys, decoding, tick, per_page, room)
    flat = iter(texts)
    return [[next(flat) for _ in group] for group in prompts]


def log_likelihood(
    policy: Policy,
    adapters: lora.Tree | None,
    requests: Sequence[Sequence[tuple[str, str]]],
    decoding: Decoding,
) -> list[list[float]]:
    """Mean log-probability per token (nats) of `(prompt, continuation)` pairs.

    The end-of-text token after the continuation counts as one of its tokens.
    """
    pairs = [
        (a, policy.sequence(prompt), [*policy.encode(tail), policy.eos])
        for a, group in enumerate(requests)
        for prompt, tail in group
    ]
    totals = generate.log_likelihoods(
        policy.params,
        adapters,
        [generate.Request((*prompt, *tail), a) for a, prompt, tail in pairs],
        [len(prompt) for _, prompt, _ in pairs],
        arch=policy.arch,
        batch=decoding.batch,
        prompt_multiple=decoding.prompt_multiple,
    )
    means = iter(t / len(tail) for t, (*_, tail) in zip(totals, pairs, strict=True))
    return [[next(means) for _ in group] for group in requests]


def was_cut(ids: Sequence[int], decoding: Decoding) -> bool:
    """Whether the settings ended a written text, and not the policy."""
    return len(ids) >= decoding.max_tokens


def drawn(policy: Policy, texts: Sequence[str], decoding: Decoding) -> int:
    """Tokens that were drawn for these texts, as far as they tell.

    A text counts as it is read again, without the whitespace at its ends, and the
    end-of-text token behind it where it was not the settings that ended it.
    """
    sizes = (len(policy.encode(text)) for text in texts)
    return sum(min(size + 1, decoding.max_tokens) for size in sizes)


class Surprise(NamedTuple):
    """How unlikely a policy finds a text: -log p of its `tokens` in all, nats."""

    nats: float
    tokens: int


def surprise(
    policy: Policy, written: Sequence[tuple[str, str]], decoding: Decoding
) -> list[Surprise]:
    """Of each `(prompt, text)`, the text's -log p after its prompt, at temperature 1.

    The end-of-text token counts as one of a text's tokens, but not where the settings
    ended it, at `decoding.max_tokens`: the policy never drew one there. A text is taken
    as the policy would learn it, without the whitespace at its ends.

    Args:
      policy: the model, asked without adapters.
      written: prompts with what they were continued by.
      decoding: how they were continued.
    """
    requests, given, tokens = [], [], []
    for prompt, text in written:
        head, tail = policy.sequence(prompt), policy.encode(text)
        tail = tail if was_cut(tail, decoding) else [*tail, policy.eos]
        requests.append(generate.Request((*head, *tail)))
        given.append(len(head))
        tokens.append(len(tail))
    prompts = max(given, default=0)
    totals = generate.log_likelihoods(
        policy.params,
        None,
        requests,
        given,
        arch=policy.arch,
        prompt_multiple=decoding.prompt_multiple,
        **_whole(prompts, decoding),
    )
    return [Surprise(-nats, n) for nats, n in zip(totals, tokens, strict=True)]


def expect_surprise(
    policy: Policy, prompts: Sequence[str], decoding: Decoding, *, call: compiling.Call
) -> None:
    """Calls the program of `surprise`, for what continues these prompts.

    `policy` is of `shapes`; `call` is what compiles.
    """
    longest = max((len(policy.sequence(prompt)) for prompt in prompts), default=0)
    generate.expect_log_likelihoods(
        policy.params,
        arch=policy.arch,
        prompt_multiple=decoding.prompt_multiple,
        call=call,
        **_whole(longest, decoding),
    )


def _whole(longest: int, decoding: Decoding) -> dict[str, int]:
    """Rows with room for prompts and all that may continue them.

    They are set by the prompts alone, so that rounds share a program, and hold about as
    many tokens as the prompts' own rows do when these are read.
    """
    width = side_by_side.multiple(longest, decoding.prompt_multiple)
    room = width + decoding.max_tokens + 1
    return {"batch": max(1, decoding.batch * width // room), "room": room}
