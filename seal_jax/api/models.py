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
from seal_jax.api.asked import Asked
from seal_jax.api.settings import (
    AUTO,
    LoadSettings,
    WriteOptions,
    WriteSettings,
    build,
)
from seal_jax.generation import policies
from seal_jax.generation.settings import NONE, ModelSource
from seal_jax.runtime import backend, meshes, prng, progress
from seal_jax.runtime.config_rules import shown


def load(
    path: str | Path,
    *,
    dtype: str = AUTO,
    chat: str = NONE,
    data: int = 0,
    model: int = 1,
) -> "Model":
    """A model from a Hugging Face directory, a hub name, or "embedded:tiny".

    Compiled programs are kept under ~/.cache/seal_jax unless jax is told where.

    Args:
      path: Qwen2, Qwen2.5, Qwen3 or Llama 3, with its tokenizer.
      dtype: "float32" or "bfloat16"; "auto" is float32 on a CPU, else bfloat16.
      chat: "auto" ends texts where a turn of the tokenizer's chat ends, and lets
        `evaluate` ask in turns, as `model.chat` of a config; "none" does neither.
      data: devices that share adapters and prompts; 0: all that there are.
      model: devices that share one set of weights, where one does not hold it.

    Raises:
      ValueError, OSError: it cannot be read, in one line.
    """
    if not isinstance(path, str | Path):
        raise ValueError(
            f"load.path={shown(path)} must be a path or a name; give a model directory"
            ', a hub name, or "embedded:tiny"'
        )
    build(
        LoadSettings,
        "load",
        {"dtype": dtype, "chat": chat, "data": data, "model": model},
    )
    if dtype == AUTO:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    source = ModelSource(str(path), False, dtype, AUTO, AUTO, chat=chat)
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
        asked = self._asked(prompts, adapters, pairs=False)
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

    @overload
    def log_likelihood(
        self,
        pairs: Sequence[tuple[str, str]],
        adapters: Adapters | Adapter | None = None,
    ) -> list[float]: ...

    @overload
    def log_likelihood(
        self,
        pairs: Sequence[list[tuple[str, str]]],
        adapters: Adapters | Adapter | None = None,
    ) -> list[list[float]]: ...

    def log_likelihood(
        self,
        pairs: Sequence[tuple[str, str]] | Sequence[list[tuple[str, str]]],
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
        asked = self._asked(pairs, adapters, pairs=True)
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

    def _asked(
        self, items: Sequence, adapters: Adapters | Adapter | None, *, pairs: bool
    ) -> Asked:
        if isinstance(adapters, Adapter):
            adapters = one_of(adapters)
        if adapters is not None and not isinstance(adapters, Adapters):
            raise ValueError(
                f"adapters={shown(adapters)} must be those of train_adapters, "
                "load_peft or stack, or None; stack a list of them"
            )
        if adapters is not None:
            self.base.check(adapters.base, "adapters")
        return Asked(self.policy, self.mesh, items, adapters, pairs=pairs)

    def merge(self, adapter: Adapter | Adapters) -> "Model":
        """The model with one adapter added into its weights; this one stays.

        Raises:
          ValueError: more than one adapter, or one of another model.
        """
        if not isinstance(adapter, Adapter | Adapters):
            raise ValueError(
                f"merge={shown(adapter)} must be an adapter; give one, as adapters[0]"
            )
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
        self.policy.save(path)
        return Path(path)


def check_model(call: str, model: object) -> None:
    """Refuses what `load` did not give; `call` is the function that was given it.

    Raises:
      ValueError: see above.
    """
    if not isinstance(model, Model):
        raise ValueError(
            f"{call}.model={shown(model)} must be what seal_jax.load gave; give "
            "seal_jax.load(PATH)"
        )


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
