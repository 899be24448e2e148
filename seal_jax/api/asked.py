"""Prompts of a call, and which adapters they go under, checked and laid out."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from seal_jax.api import sizes
from seal_jax.api.adapters import Adapters
from seal_jax.api.lines import check_list, named
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
        *,
        pairs: bool,
    ):
        self._pairs, self._name = pairs, "pairs" if pairs else "prompts"
        check_list(self._name, items, "pair" if pairs else "prompt")
        if adapters is not None and not len(adapters):
            raise ValueError("adapters holds none; give one or more, or None")
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
            what = f"lists of {self._name}" if self._nested else self._name
            raise ValueError(
                f"{self._name} has {len(items)} {what} and adapters {many}; give one "
                f"adapter for each, or one adapter for all {self._name}"
            )
        return [item if self._nested else [item] for item in items]

    def longest(self, room: int) -> int:
        """Tokens of the longest item; each is checked to fit with `room` more.

        Raises:
          ValueError: one that does not fit, is empty, or is no text (no pair).
        """
        policy, longest = self._policy, 1
        for number, item in enumerate(i for group in self.groups for i in group):
            name = f"{self._name}[{number}]"
            match item:
                case str(prompt) if not self._pairs:
                    head, tail = prompt, ""
                case (str(prompt), str(text)) if self._pairs:
                    head, tail = prompt, text
                case _:
                    kind = "a pair (prompt, completion)" if self._pairs else "a text"
                    raise ValueError(
                        f"{name}={shown(item)} must be {kind}, or all must be lists of "
                        "these, one for each adapter; correct it"
                    )
            with named(name):
                ids, tail_ids = policy.sequence(head), policy.encode(tail)
            if not ids:
                raise ValueError(f"{name}={shown(item)} is empty; give a prompt")
            length = len(ids) + len(tail_ids)
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
