"""Generated grid tasks, for a model too small for ARC: which colour becomes which?

A rule is a map of colours; cells stay where they are. The embedded model was pretrained
to copy grids, of several shapes, and has never been taught a colour change: what a task
asks for has to be learned from its demonstrations. Each task has a map of its own.
Tasks look like ARC's, for example (one pair, "3 becomes 7, 5 becomes 1")

    [[0 3 5]      [[0 7 1]
     [3 3 0]  ->   [7 7 0]
     [5 0 5]]      [1 0 1]]
"""

import random
from collections.abc import Mapping, Sequence

from seal_jax.tasks.arc.puzzles import Grid, Pair, Task

SIDE = 3
COLOURS = range(1, 10)  # 0, black, is never changed.
SPLITS = ("train", "heldout")

# What each colour becomes; one that is not named stays.
type Rule = Mapping[int, int]


def apply(rule: Rule, grid: Grid) -> Grid:
    """The grid, recoloured."""
    return tuple(tuple(rule.get(cell, cell) for cell in row) for row in grid)


def random_rule(rng: random.Random) -> dict[int, int]:
    """One or two colours that become others, and one or two that stay."""
    changed, stay = rng.randint(1, 2), rng.randint(1, 2)
    old = rng.sample(COLOURS, changed + stay)
    while True:
        new = rng.sample(COLOURS, changed)
        if all(a != b for a, b in zip(old, new, strict=False)):
            return dict(zip(old, [*new, *old[changed:]], strict=True))


def random_grid(rng: random.Random, colours: Sequence[int], *, black: float) -> Grid:
    """A 3x3 grid of these colours; a share `black` of the cells is 0."""
    return tuple(
        tuple(0 if rng.random() < black else rng.choice(colours) for _ in range(SIDE))
        for _ in range(SIDE)
    )


def random_pairs(rng: random.Random, rule: Rule, count: int) -> list[Pair]:
    """Grids and what the rule makes of them.

    They have the rule's colours, or some of all if it names none.
    """
    colours = list(rule) or rng.sample(COLOURS, rng.randint(3, 8))
    black = rng.choice((0.0, 0.1, 0.3))
    inputs = [random_grid(rng, colours, black=black) for _ in range(count)]
    return [Pair(grid, apply(rule, grid)) for grid in inputs]


def tasks(split: str, *, seed: int, start: int, count: int) -> list[Task]:
    """Tasks `start` to `start + count` of a split: three or four demonstrations each.

    Every colour of the rule is in a demonstration, and every pair changes some. One
    task in five has two test inputs.

    Raises:
      ValueError: no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {SPLITS}")
    return [_task(f"{split}-{seed}-{place}") for place in range(start, start + count)]


def _task(name: str) -> Task:
    """The task of this id, which says all about it."""
    rng = random.Random(f"task {name}")
    rule = random_rule(rng)
    shown, asked = rng.choice((3, 4)), rng.choice((1, 1, 1, 1, 2))
    while True:
        pairs = random_pairs(rng, rule, shown + asked)
        seen = {cell for pair in pairs[:shown] for row in pair.input for cell in row}
        if seen >= set(rule) and all(pair.input != pair.output for pair in pairs):
            return Task(name, tuple(pairs[:shown]), tuple(pairs[shown:]))
