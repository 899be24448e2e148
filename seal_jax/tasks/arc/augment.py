"""What can be done to a grid: augmenters in a table, colours and orders beside it.

All are pure functions of a grid (uint8, rows by columns) and a random state, which only
`translate` reads. Their names, order and families are those of the SEAL reference's
few-shot half (arXiv 2506.10943, section 4.1), which took them from the test-time
training of Akyürek et al. (arXiv 2411.07279).
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.random import RandomState

from seal_jax.tasks.arc.puzzles import Grid

type Augmenter = Callable[[np.ndarray, RandomState], np.ndarray]

COLORS = 10
# `translate` moves by less than this along each axis.
_SHIFTS = 4


def _rotate(degrees: int) -> Augmenter:
    """Counter-clockwise."""
    return lambda grid, rng: np.rot90(grid, degrees // 90)


def _flip(axis: int) -> Augmenter:
    return lambda grid, rng: np.flip(grid, axis)


def _reflect(axis: int, *, before: bool) -> Augmenter:
    def reflect(grid, rng):
        mirrored = np.flip(grid, axis)
        parts = (mirrored, grid) if before else (grid, mirrored)
        return np.concatenate(parts, axis)

    return reflect


def _translate(grid: np.ndarray, rng: RandomState) -> np.ndarray:
    down, right = (rng.randint(0, min(_SHIFTS, side)) for side in grid.shape)
    return np.roll(grid, (down, right), (0, 1))


def _transpose(grid: np.ndarray, rng: RandomState) -> np.ndarray:
    return grid.T


def _enlarge(rows: int, columns: int) -> Augmenter:
    return lambda grid, rng: grid.repeat(rows, 0).repeat(columns, 1)


def _tile(rows: int, columns: int) -> Augmenter:
    return lambda grid, rng: np.tile(grid, (rows, columns))


def _chain(*steps: Augmenter) -> Augmenter:
    def chain(grid, rng):
        for step in steps:
            grid = step(grid, rng)
        return grid

    return chain


def _join(axis: int) -> Augmenter:
    return lambda grid, rng: np.concatenate((grid, np.rot90(grid, 2)), axis)


_TURNS: dict[str, Augmenter] = {
    "rotate90": _rotate(90),
    "rotate270": _rotate(270),
    "rotate180": _rotate(180),
    "flip0": _flip(0),
    "flip1": _flip(1),
}

_BASIC: dict[str, Augmenter] = {
    **_TURNS,
    "reflect0_before": _reflect(0, before=True),
    "reflect1_before": _reflect(1, before=True),
    "reflect0_after": _reflect(0, before=False),
    "reflect1_after": _reflect(1, before=False),
    "translate": _translate,
    "transpose": _transpose,
}

_SIZE: dict[str, Augmenter] = {
    "double": _enlarge(2, 2),
    "double_height": _enlarge(2, 1),
    "double_width": _enlarge(1, 2),
}

_CHAIN: dict[str, Augmenter] = {
    f"{name}_double": _chain(_BASIC[name], _SIZE["double"])
    for name in (*_TURNS, "transpose")
}

_REPEAT: dict[str, Augmenter] = {
    "repeat0": _tile(2, 1),
    "repeat1": _tile(1, 2),
    "repeat_both": _tile(2, 2),
}

# The grid and its half turn: in the reference's table, and in none of its switches.
_CONCAT: dict[str, Augmenter] = {"concat0": _join(0), "concat1": _join(1)}

AUGMENTERS: dict[str, Augmenter] = {
    **_BASIC,
    **_SIZE,
    **_CHAIN,
    **_REPEAT,
    **_CONCAT,
}

# Axis 0 runs over rows: flip0 turns a grid upside down, repeat0 stacks it.
FAMILIES: dict[str, tuple[str, ...]] = {
    "basic": tuple(_BASIC),
    "size": tuple(_SIZE),
    "chain": tuple(_CHAIN),
    "repeat": tuple(_REPEAT),
    "concat": tuple(_CONCAT),
}

# The augmenters that another one undoes.
INVERSE: dict[str, str] = {
    "rotate90": "rotate270",
    "rotate270": "rotate90",
    "rotate180": "rotate180",
    "flip0": "flip0",
    "flip1": "flip1",
    "transpose": "transpose",
}


def as_array(grid: Grid) -> np.ndarray:
    """A grid as the augmenters take it (uint8, rows by columns)."""
    return np.array(grid, np.uint8)


def as_grid(array: np.ndarray) -> Grid:
    """The hashable form of an augmenter's result."""
    return tuple(map(tuple, array.tolist()))


# Colours and order


def color_map(used: Iterable[int], rng: RandomState) -> tuple[int, ...]:
    """A random renaming of the ten colours that moves those of a task about.

    0, the background, stays. Each further colour in use becomes one that is not in use,
    while there are any; those left over swap names in pairs, and one may stay as it is.

    Returns:
      new colour of each of 0..9, a permutation: what is not in use takes the names that
      became free.
    """
    moving = sorted(set(used) - {0})
    free = [color for color in range(1, COLORS) if color not in moving]
    renamed = {0: 0}
    while moving and free:
        renamed[moving.pop(0)] = free.pop(rng.randint(len(free)))
    while moving:
        first = moving[0]
        second = moving[rng.randint(len(moving))]
        renamed |= {first: second, second: first}
        moving = [color for color in moving if color not in (first, second)]
    rest = [color for color in range(COLORS) if color not in renamed]
    names = [color for color in range(COLORS) if color not in renamed.values()]
    renamed |= dict(zip(rest, names, strict=True))
    return tuple(renamed[color] for color in range(COLORS))


def recolor(cells: bytes, colors: tuple[int, ...]) -> bytes:
    """Cells, one byte each, renamed by `colors` (of `color_map`)."""
    return cells.translate(bytes(colors) + bytes(256 - COLORS))


def order(count: int, rng: RandomState) -> list[int]:
    """`count` positions in random order."""
    return rng.permutation(count).tolist()
