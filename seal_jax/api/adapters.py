"""Adapters as a caller holds them: in the host's memory, one or many.

A tree is what the model applies: scale folded in, in the base's dtype. So a stack may
hold adapters that were trained with other alphas, and files have alpha = rank.
"""

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, cast, overload

import jax
import numpy as np

from seal_jax.models import hf, lora, peft
from seal_jax.models.decoder import Arch
from seal_jax.runtime import files
from seal_jax.runtime.config_rules import shown

INDEX = "adapters.json"


@dataclasses.dataclass(frozen=True)
class Base:
    """The model that adapters belong to.

    `name`: its directory or hub name, for the files. `mark`: of some of its weights;
    None where only files of adapters were read.
    """

    arch: Arch
    name: str
    mark: str | None

    def check(self, other: "Base", what: str) -> None:
        """Refuses adapters of another model; `what` they are.

        Raises:
          ValueError: other shapes, or other weights.
        """
        one, two = self.arch, other.arch
        if (one.layers, one.linears()) != (two.layers, two.linears()):
            raise ValueError(
                f"{what}: of the model {other.name!r} of {two.layers} layers, width "
                f"{two.width}; this is {self.name!r} of {one.layers} layers, width "
                f"{one.width}; use the model that they were trained on"
            )
        if None not in (self.mark, other.mark) and self.mark != other.mark:
            raise ValueError(
                f"{what}: trained on {other.name!r}, whose weights are not those of "
                f"this model, {self.name!r}; use the model that they were trained on"
            )


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One adapter.

    Attributes:
      tree: `{"layers_0": {"q_proj": {"a": [R, D], "b": [R, F]}}}`, numpy, in the base's
        dtype, scale folded into `b`.
      base: the model that it belongs to.
      loss: mean cross-entropy of its training steps, nats; nan if it was read.
      finite: whether its weights and losses all stayed finite.
    """

    tree: lora.Tree
    base: Base
    loss: float
    finite: bool

    def __repr__(self) -> str:
        on = ", ".join(self.targets)
        return f"<an adapter of rank {self.rank} on {on}, loss {self.loss:.3g}>"

    @property
    def rank(self) -> int:
        """R."""
        return _rank(self.tree)

    @property
    def targets(self) -> tuple[str, ...]:
        """The linears that it is on, by name."""
        return _targets(self.tree)

    def save_peft(self, path: str | Path) -> Path:
        """Writes it as a PEFT directory, which PEFT and vLLM open; returns the path.

        An adapter that is there already is replaced, when the new one is whole.

        Raises:
          ValueError: it is not finite, or `path` holds something else.
          OSError: it cannot be written.
        """
        if not self.finite:
            raise ValueError(
                f"{path}: this adapter's training did not stay finite (loss "
                f"{self.loss}); train it with a lower learning_rate, or leave it out"
            )
        peft.save(
            path,
            self.tree,
            cfg=self.base.arch,
            alpha=self.rank,
            base_name=self.base.name,
        )
        return Path(path)


@dataclasses.dataclass(frozen=True)
class Adapters(Sequence[Adapter]):
    """Many adapters of one model, of one rank and on the same targets.

    Attributes:
      tree: as that of `Adapter`, with an axis A first: `[A, R, D]`, `[A, R, F]`.
      base: the model that they belong to.
      losses: float32 `[A]`; see `Adapter.loss`.
      finite: bool `[A]`; `adapters[adapters.finite]` are the sound ones.
    """

    tree: lora.Tree
    base: Base
    losses: np.ndarray
    finite: np.ndarray

    @property
    def rank(self) -> int:
        """R, the same for all."""
        return _rank(self.tree)

    @property
    def targets(self) -> tuple[str, ...]:
        """The linears that they are on, by name."""
        return _targets(self.tree)

    def __len__(self) -> int:
        return len(self.losses)

    def __repr__(self) -> str:
        on = ", ".join(self.targets)
        return f"<{len(self)} adapters of rank {self.rank} on {on}>"

    def __iter__(self) -> Iterator[Adapter]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Adapter: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> "Adapters": ...

    def __getitem__(self, index: Any) -> "Adapter | Adapters":
        """One adapter for a number; for a slice, numbers or a mask, those adapters.

        Raises:
          IndexError: a number that there is no adapter for.
          TypeError: none of these.
        """
        if isinstance(index, slice):
            return self._of(index)
        if isinstance(index, list | tuple | np.ndarray) and np.ndim(index) == 1:
            try:
                return self._of(np.asarray(index, None if len(index) else int))
            except IndexError as error:
                raise IndexError(f"adapters[...]: {error}; they are {self!r}") from None
        try:
            if isinstance(index, bool):  # True would be the second one.
                raise TypeError
            at = operator.index(cast(SupportsIndex, index))
        except TypeError:
            raise TypeError(
                f"adapters[{shown(index)}]: must be a number, a slice, a list of "
                "numbers or a mask"
            ) from None
        if not -len(self) <= at < len(self):
            raise IndexError(
                f"adapters[{at}]: there are {len(self)}; use 0 to {len(self) - 1}"
            )
        tree = lora.select(self.tree, at)
        return Adapter(tree, self.base, float(self.losses[at]), bool(self.finite[at]))

    def _of(self, index: slice | np.ndarray) -> "Adapters":
        tree = jax.tree.map(lambda leaf: leaf[index], self.tree)
        return Adapters(tree, self.base, self.losses[index], self.finite[index])

    def save_peft(self, path: str | Path) -> list[Path]:
        """Writes each as a PEFT directory: `path/000`, `path/001`, ...

        All at once: what `save_peft` wrote there before is replaced when the new ones
        are whole. Returns the directories, in order.

        Raises:
          ValueError: there is none, one is not finite, or `path` holds something else.
          OSError: they cannot be written.
        """
        if not len(self):
            raise ValueError(f"{path}: there are no adapters to write; give some")
        if not self.finite.all():
            at = int(np.argmin(self.finite))
            raise ValueError(
                f"{path}: the training of adapter {at} did not stay finite; save "
                "adapters[adapters.finite], or train with a lower learning_rate"
            )
        digits = max(3, len(str(len(self) - 1)))
        names = [f"{i:0{digits}}" for i in range(len(self))]
        with hf.replacing(path, marker=INDEX) as here:
            for name, adapter in zip(names, self, strict=True):
                adapter.save_peft(here / name)
            index = {"base": self.base.name, "adapters": names}
            files.write_json(here / INDEX, index)
        return [Path(path) / name for name in names]


def stack(parts: Sequence[Adapter | Adapters]) -> Adapters:
    """Adapters of one model as one stack, in order.

    Raises:
      ValueError: none at all; or of other models, ranks or targets.
    """
    if not isinstance(parts, list | tuple | Adapters) or not all(
        isinstance(part, Adapter | Adapters) for part in parts
    ):
        raise ValueError(
            f"stack={shown(parts)} must be a list of adapters; give stack([one, two])"
        )
    if not parts:
        raise ValueError("stack=[] must hold an adapter or more; give some")
    first = parts[0]
    for i, part in enumerate(parts):
        first.base.check(part.base, f"stack[{i}]")
        for name in ("rank", "targets"):
            one, two = getattr(first, name), getattr(part, name)
            if one != two:
                raise ValueError(
                    f"stack[{i}]: its {name} is {two}, and that of stack[0] {one}; all "
                    "of a stack must have the same: train them alike"
                )
    many = [part if isinstance(part, Adapters) else one_of(part) for part in parts]
    trees = [part.tree for part in many]
    marks = [part.base for part in many if part.base.mark is not None]
    return Adapters(
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees),
        marks[0] if marks else first.base,
        np.concatenate([part.losses for part in many]),
        np.concatenate([part.finite for part in many]),
    )


def one_of(adapter: Adapter) -> Adapters:
    """A stack of one."""
    return Adapters(
        jax.tree.map(lambda leaf: leaf[None], adapter.tree),
        adapter.base,
        np.array([adapter.loss], np.float32),
        np.array([adapter.finite]),
    )


def _rank(tree: lora.Tree) -> int:
    return jax.tree.leaves(tree)[0].shape[-2]


def _targets(tree: lora.Tree) -> tuple[str, ...]:
    return tuple(sorted(next(iter(tree.values()))))
