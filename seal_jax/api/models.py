"""A model as a caller holds it: it writes, scores texts, and takes adapters."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from seal_jax.api import sizes
from seal_jax.api.adapters import Adapter, Adapters, Base, one_of
from seal_jax.api.settings import WriteOptions, WriteSettings, build
from seal_jax.generation import policies
from seal_jax.generation.settings import ModelSource
from seal_jax.models import hf, lora
from seal_jax.runtime import backend, meshes, prng, progress
from seal_jax.runtime.config_rules import shown

AUTO = "auto"


def load(
    path: str | Path, *, dtype: str = AUTO, data: int = 0, model: int = 1
) -> "Model":
    """A model from a Hugging Face directory, a hub name, or "embedded:tiny".

    Compiled programs are kept under ~/.cache/seal_jax unless jax is told where.

    Args:
      path: Qwen2, Qwen2.5, Qwen3 or Llama 3, with its tokenizer.
      dtype: "float32" or "bfloat16"; "auto" is float32 on a CPU, else bfloat16.
      data: devices that share adapters and prompts; 0: all that there are.
      model: devices that share one set of weights, where one does not hold it.

    Raises:
      ValueError, OSError: it cannot be read, in one line.
    """
    if dtype == AUTO:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    source = ModelSource(str(path), False, dtype, AUTO, AUTO)
    backend.cache_programs()
    blank = policies.describe(source)
    mesh = meshes.of_devices(data=data, model=model)
    if mesh is not None:
        blank = policies.on_mesh(source, blank)
    return Model(policies.load(source, blank, seed=0, mesh=mesh), str(path))


@dataclasses.dataclass(frozen=True)
class Model:
    """A model with its tokenizer.

    Attributes:
      policy: the engine's own form of it.
      name: where it came from; written into the files of its adapters.
    """

    policy: policies.Policy
    name: str

    def __repr__(self) -> str:
        arch = self.policy.arch
        return (
            f"<{self.name}: {arch.family} of {arch.layers} layers, width {arch.width}, "
            f"{arch.dtype}>"
        )

    @property
    def mesh(self) -> Mesh | None:
        """The devices that it lies on, if there are several."""
        return meshes.holding(self.policy.params)

    @functools.cached_property
    def base(self) -> Base:
        """By which adapters know their model."""
        return Base(self.policy.arch, self.name, _mark(self.policy.params))

    @overload
    def generate(
        self,
        prompts: Sequence[str],
        adapters: Adapters | Adapter | None = None,
        **options: Unpack[WriteOptions],
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        prompts: Sequence[list[str]],
        adapters: Adapters | Adapter | None = None,
        **options: Unpack[WriteOptions],
    ) -> list[list[str]]: ...

    def generate(
        self,
        prompts: Sequence[str] | Sequence[list[str]],
        adapters: Adapters | Adapter | None = None,
        **options: Unpack[WriteOptions],
    ) -> list[str] | list[list[str]]:
        """What the model writes after each prompt, whitespace at the ends stripped.

        A text ends with the model's end token, or after `max_tokens`.

        Args:
          prompts: N texts; or, with A adapters, A lists of texts.
          adapters: None for the model as it is; one adapter for all prompts; N, one for
            each prompt; or A, one for each list of prompts.
          max_tokens: of each continuation, at most; 64.
          temperature: 0, which takes the likeliest token each time.
          top_p, top_k: draw only among the likeliest; 1.0 and 0, which leave all.
          seed: of draws; 0.
          progress: whether to show a progress bar, on standard error; False.

        Returns:
          N texts, or A lists of them.

        Raises:
          ValueError: numbers of prompts and adapters that do not go together, adapters
            of another model, a prompt that is empty or too long, a setting out of its
            bounds, or an unknown one.
        """
        chosen = build(WriteSettings, "generate", options)
        asked = _Asked(self, prompts, adapters)
        longest = asked.longest(room=chosen.max_tokens)
        decode = asked.sizes(longest + chosen.max_tokens)
        decoding = sizes.decode_settings(chosen, decode.rows, longest)
        keys_A = prng.fold(prng.root(chosen.seed), range(len(asked.groups)))
        texts: list[list[str]] = []
        with progress.progress(
            asked.count, "generate", "prompts", visible=chosen.progress
        ) as tick:
            for here, stack in asked.parts(decode.stack):
                texts += policies.answer(
                    self.policy,
                    stack,
                    asked.groups[here],
                    prng.take(keys_A, here),
                    decoding,
                    per_page=decode.per_page,
                    tick=tick,
                )
        return asked.like_prompts(texts)

    def log_likelihood(
        self,
        pairs: Sequence[tuple[str, str]] | Sequence[Sequence[tuple[str, str]]],
        adapters: Adapters | Adapter | None = None,
    ) -> list[float] | list[list[float]]:
        """Mean log-probability per token, nats, of each completion after its prompt.

        The end-of-text token after a completion counts as one of its tokens.

        Args:
          pairs: N (prompt, completion) pairs; or, with A adapters, A lists of them.
          adapters: as in `generate`.

        Returns:
          N numbers, or A lists of them.

        Raises:
          ValueError: as in `generate`.
        """
        asked = _Asked(self, pairs, adapters)
        longest = asked.longest(room=1)
        decode = asked.sizes(longest)
        one = WriteSettings(max_tokens=1)
        decoding = sizes.decode_settings(one, decode.rows, longest)
        means: list[list[float]] = []
        for here, stack in asked.parts(decode.stack):
            means += policies.log_likelihood(
                self.policy, stack, asked.groups[here], decoding
            )
        return asked.like_prompts(means)

    def merge(self, adapter: Adapter | Adapters) -> "Model":
        """The model with one adapter added into its weights; this one stays.

        Raises:
          ValueError: more than one adapter, or one of another model.
        """
        if isinstance(adapter, Adapters):
            if len(adapter) != 1:
                raise ValueError(
                    f"merge takes one adapter and was given {len(adapter)}; choose one:"
                    " adapters[0]"
                )
            adapter = adapter[0]
        self.base.check(adapter.base, "merge")
        return Model(self.policy.merged(adapter.tree), self.name)

    def save(self, path: str | Path) -> Path:
        """Writes it as a Hugging Face directory, for transformers, vLLM and `load`.

        Raises:
          ValueError: `path` holds something else.
          OSError: it cannot be written.
        """
        policy = self.policy
        hf.save(path, policy.arch, policy.params, source=policy.source)
        return Path(path)


class _Asked[Item: (str, tuple[str, str])]:
    """Prompts, or pairs, as lists, one for each adapter."""

    def __init__(self, model: Model, items: Sequence, adapters: object):
        name = "adapters"
        if isinstance(adapters, Adapter):
            adapters = one_of(adapters)
        if adapters is not None and not isinstance(adapters, Adapters):
            raise ValueError(
                f"{name}={shown(adapters)} must be adapters of train_adapters, "
                "load_peft or stack, or None; stack a list of them"
            )
        if isinstance(items, str | bytes) or not isinstance(items, Sequence):
            raise ValueError(
                f"prompts={shown(items)} must be a list; put it into one: [prompt]"
            )
        if adapters is not None:
            model.base.check(adapters.base, name)
        self._model, self._adapters = model, adapters
        self._nested = bool(items) and all(isinstance(item, list) for item in items)
        self.groups = self._grouped(items)
        self.count = sum(map(len, self.groups))

    def _grouped(self, items: Sequence) -> list[list]:
        many = None if self._adapters is None else len(self._adapters)
        if many is None or many == 1:
            # All together: under the one adapter, or under none.
            flat = [i for item in items for i in (item if self._nested else [item])]
            self._lengths = list(map(len, items)) if self._nested else None
            return [flat]
        self._lengths = None
        if many != len(items):
            what = "lists of prompts" if self._nested else "prompts"
            raise ValueError(
                f"prompts has {len(items)} {what} and adapters {many}; give one "
                "adapter for each, or one adapter for all prompts"
            )
        return [item if self._nested else [item] for item in items]

    def longest(self, room: int) -> int:
        """Tokens of the longest item; each is checked to fit with `room` more.

        Raises:
          ValueError: one that does not fit, is empty, or is no text (no pair).
        """
        policy, longest = self._model.policy, 1
        for number, item in enumerate(i for group in self.groups for i in group):
            name = f"prompts[{number}]"
            match item:
                case str(prompt):
                    ids, tail = policy.sequence(prompt), []
                case (str(prompt), str(text)):
                    ids, tail = policy.sequence(prompt), policy.encode(text)
                case _:
                    raise ValueError(
                        f"{name}={shown(item)} must be a text, or for log_likelihood a "
                        "pair of texts; correct it"
                    )
            if not ids:
                raise ValueError(f"{name}={shown(prompt)} is empty; give a prompt")
            length = len(ids) + len(tail)
            if length + room > policy.context:
                raise ValueError(
                    f"{name} has {length} tokens and leaves no room for {room} more, "
                    f"the model takes {policy.context}; shorten it or lower max_tokens"
                )
            longest = max(longest, length)
        return longest

    def sizes(self, positions: int) -> sizes.Decode:
        one = 0
        if self._adapters is not None:
            leaves = jax.tree.leaves(self._adapters.tree)
            one = sum(leaf.nbytes for leaf in leaves) // len(self._adapters)
        policy = self._model.policy
        return sizes.decoding(
            policy.arch,
            self._model.mesh,
            requests=self.count,
            most_of_one=max(map(len, self.groups)),
            positions=positions,
            adapter_bytes=one,
        )

    def parts(self, most: int):
        """Which lists, with the adapters of these on the device, `most` at a time."""
        if self._adapters is None:
            yield slice(0, 1), None
            return
        whole = len(self._adapters)
        # All stacks are of one size, which repeats over calls: a size is a program.
        size = min(most, sizes.rounded(whole))
        for begin in range(0, whole, size):
            here = slice(begin, min(begin + size, whole))
            yield here, _placed(self._adapters.tree, here, size, self._model.mesh)

    def like_prompts(self, found: list[list]) -> list:
        """What was found for each item, in lists if the items were."""
        if self._lengths is None:
            return found if self._nested else [x for group in found for x in group]
        flat = iter(found[0])
        return [[next(flat) for _ in range(n)] for n in self._lengths]


def _placed(tree: lora.Tree, here: slice, size: int, mesh: Mesh | None) -> lora.Tree:
    """These adapters and zeros up to `size`, on the device or on each of the mesh."""

    def filled(leaf: np.ndarray) -> np.ndarray:
        out = np.zeros((size, *leaf.shape[1:]), leaf.dtype)
        out[: here.stop - here.start] = leaf[here]
        return out

    return meshes.put(jax.tree.map(filled, tree), mesh)


def _mark(params: dict) -> str:
    """A few numbers of every weight, as one word; the same in float32 and bfloat16."""
    digest = hashlib.sha256()
    for leaf in jax.device_get(_samples(params)):
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:16]


@jax.jit
def _samples(params: dict) -> list[Array]:
    return [
        leaf[(0,) * (leaf.ndim - 1)][:8].astype(jnp.bfloat16)
        for leaf in jax.tree.leaves(params)
    ]
