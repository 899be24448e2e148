"""From a task to training examples: leave some out, augment, recolour, reorder, cap.

The test is never read. Each demonstration in turn becomes the query of an example whose
context is the others (leave-one-out), or the others but one more (leave-two-out). The
order of everything before a shuffle is that of construction, and every random stream
starts at a fixed seed, so that a dataset depends on the task, the switches and the
configuration alone, in every process.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

from numpy.random import RandomState

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound, Tokens
from seal_jax.tasks.arc import augment as arc_augment
from seal_jax.tasks.arc.puzzles import MOST_SIDE, Grid, Pair, Task

# The seed of every stream here, as in the reference.
_SEED = 0


class Example(NamedTuple):
    """Demonstrations, and a further pair whose output is asked for."""

    context: tuple[Pair, ...]
    query: Pair


class Switches(NamedTuple):
    """Which families of augmenters are on; datasets are shared under this key."""

    basic: bool
    size: bool
    chain: bool
    repeat: bool


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """How a task becomes examples.

    Attributes:
      leave: how many demonstrations an example lacks in its context, the query among
        them; each level in turn (the reference: 1, 2).
      most: examples kept of one dataset (250).
      max_side: no example has a longer side of a grid than this (30).
      permute: recoloured and reordered copies of each example (1).
      max_tokens: every example is shorter than this, as `length` counts (8192).
    """

    leave: tuple[Annotated[int, Bound(1, 30)], ...]
    most: Annotated[int, Bound(1, 100_000)]
    max_side: Annotated[int, Bound(1, MOST_SIDE)]
    permute: Annotated[int, Bound(0, 100)]
    max_tokens: Tokens

    def __post_init__(self):
        config_rules.check(self)
        levels = tuple(self.leave)
        if not levels or len(set(levels)) != len(levels):
            raise ValueError(
                f"leave={config_rules.shown(levels)} must be one or more different "
                "numbers; use (1, 2)"
            )


def augmenters(switches: Switches) -> tuple[str, ...]:
    """Names of the augmenters that are switched on, in the table's order."""
    return tuple(
        name
        for family, mesh in zip(Switches._fields, switches, strict=True)
        if mesh
        for name in arc_augment.FAMILIES[family]
    )


def dataset(
    task: Task,
    switches: Switches,
    cfg: DataConfig,
    *,
    length: Callable[[Example], int],
) -> tuple[Example, ...]:
    """The examples that one adapter of `task` is trained on.

    They are those of `pool` if there are at most `cfg.most`, else a random choice of so
    many in random order, always the same.

    Args:
      length: tokens of an example as it is trained on. Only compared with
        `cfg.max_tokens`, and called for each example of the pool (1,728 of a task of
        six demonstrations), so that a cheap upper bound may stand in where it is lower.
    """
    examples = pool(task, switches, cfg, length=length)
    if len(examples) <= cfg.most:
        return examples
    chosen = RandomState(_SEED).permutation(len(examples))[: cfg.most]
    return tuple(examples[i] for i in chosen)


def pool(
    task: Task,
    switches: Switches,
    cfg: DataConfig,
    *,
    length: Callable[[Example], int],
) -> tuple[Example, ...]:
    """All examples of a dataset, before the cap; see `dataset`."""
    names = augmenters(switches)
    versions = _versions(task.train, names, cfg.max_side)
    keys = []
    for level in cfg.leave:
        rng = RandomState(_SEED)
        plain = dict.fromkeys(_augmented(versions, len(task.train), level))
        copies = [
            _permuted(example, rng, recolor=bool(names))
            for _ in range(cfg.permute)
            for example in plain
        ]
        keys += dict.fromkeys([*plain, *copies])
    unpacked: dict[_Packed, Pair] = {}
    examples = (_unpack(example, unpacked) for example in keys)
    return tuple(e for e in examples if length(e) < cfg.max_tokens)


# A pair as (width of input, cells, width of output, cells): bytes are quick to rename,
# to compare and to hash, of which there is much to do.
type _Packed = tuple[int, bytes, int, bytes]
# The context's pairs, and the query as the last.
type _Key = tuple[_Packed, ...]


def _versions(
    pairs: tuple[Pair, ...], names: tuple[str, ...], max_side: int
) -> list[list[_Packed | None]]:
    """Each pair as it is and by each augmenter; None where it is too large."""
    versions = []
    for name in (None, *names):
        row: list[_Packed | None] = []
        for pair in pairs:
            arrays = [arc_augment.as_array(grid) for grid in pair]
            if name is not None:
                # All pairs see the same stream, which goes on from input to output.
                rng = RandomState(_SEED)
                augment = arc_augment.AUGMENTERS[name]
                arrays = [augment(array, rng) for array in arrays]
            fits = all(max(array.shape) <= max_side for array in arrays)
            a, b = arrays
            packed = (a.shape[1], a.tobytes(), b.shape[1], b.tobytes())
            row.append(packed if fits else None)
        versions.append(row)
    return versions


def _augmented(
    versions: list[list[_Packed | None]], count: int, level: int
) -> Iterator[_Key]:
    """Examples that leave `level` of `count` pairs out, plain ones first."""
    for row in versions:
        for query in range(count):
            others = [i for i in range(count) if i != query]
            for dropped in itertools.combinations(others, level - 1):
                kept = [i for i in others if i not in dropped]
                example = tuple(row[i] for i in (*kept, query))
                if None not in example:
                    yield example  # pyright: ignore[reportReturnType]


def _permuted(example: _Key, rng: RandomState, *, recolor: bool) -> _Key:
    if recolor:
        used = {color for pair in example for color in pair[1] + pair[3]}
        colors = arc_augment.color_map(used, rng)
        example = tuple(
            (
                a,
                arc_augment.recolor(input_cells, colors),
                b,
                arc_augment.recolor(output_cells, colors),
            )
            for a, input_cells, b, output_cells in example
        )
    *context, query = example
    return (*(context[i] for i in arc_augment.order(len(context), rng)), query)


def _unpack(example: _Key, unpacked: dict[_Packed, Pair]) -> Example:
    for packed in example:
        if packed not in unpacked:
            a, cells, b, other = packed
            unpacked[packed] = Pair(_rows(cells, a), _rows(other, b))
    *context, query = (unpacked[packed] for packed in example)
    return Example(tuple(context), query)


def _rows(cells: bytes, width: int) -> Grid:
    return tuple(tuple(cells[i : i + width]) for i in range(0, len(cells), width))
