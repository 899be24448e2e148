"""Prompts of a call, and which adapters they go under, checked and laid out."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from seal_jax.api import sizes
from seal_jax.api.adapters import Adapters
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.runtime import meshes
from seal_jax.runtime.config_rules import shown


class Asked:
    """Prompts, or pairs, as lists, one for each adapter."""

    def __init__(
        self,
        policy: policies.Policy,
        mesh: Mesh | None,
        items: Sequence,
        adapters: Adapters | None,
    ):
        if isinstance(items, str | bytes) or not isinstance(items, Sequence):
            raise ValueError(
                f"prompts={shown(items)} must be a list; put it into one: [prompt]"
            )
        self._policy, self._mesh, self._adapters = policy, mesh, adapters
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
        policy, longest = self._policy, 1
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
        policy = self._policy
        return sizes.decoding(
            policy.arch,
            self._mesh,
            requests=self.count,
            most_of_one=max(map(len, self.groups)),
            positions=positions,
            adapter_bytes=one,
        )

    def parts(self, most: int) -> Iterator[tuple[slice, lora.Tree | None]]:
        """Which lists, with the adapters of these on the device, `most` at a time."""
        if self._adapters is None:
            yield slice(0, 1), None
            return
        whole = len(self._adapters)
        # All stacks are of one size, which repeats over calls: a size is a program.
        size = min(most, sizes.rounded(whole))
        for begin in range(0, whole, size):
            here = slice(begin, min(begin + size, whole))
            yield here, _placed(self._adapters.tree, here, size, self._mesh)

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
