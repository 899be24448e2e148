"""One test seen in several ways, and one vote over what was answered.

A view shows the test after some of the demonstrations, in some order, as it is or
turned; an answer to it is turned back. The vote is in two stages, as in the SEAL
reference (arXiv 2506.10943) after Akyürek et al. (arXiv 2411.07279, section 4): each
group of views names three grids, then the named grids are voted on.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, NamedTuple

from numpy.random import RandomState

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound, Tokens, shown
from seal_jax.tasks.arc import augment as arc_augment
from seal_jax.tasks.arc.examples import Example
from seal_jax.tasks.arc.puzzles import MOST_SIDE, Grid, Pair, Task

# The reference's turned views, in its order.
GEOMETRIC = ("transpose", "flip0", "flip1", "rotate90", "rotate180")

# The order in which groups name their candidates: by what turns an answer back.
_GROUPS = (None, "transpose", "flip0", "flip1", "rotate180", "rotate270", "rotate90")

_NOTHING: Grid = ((0,),)

CONTEXTS = ("leave_one_out", "all", "both")


class View(NamedTuple):
    """A query for one test.

    `example.query.output` is the true answer in this view: it is what a length is
    counted by and never shown. `inverse` names the augmenter that turns an answer back;
    None: there is nothing to turn.
    """

    example: Example
    inverse: str | None


@dataclasses.dataclass(frozen=True)
class ViewsConfig:
    """Which views a test is given.

    Attributes:
      reorders: random orders of each context, besides its own (the reference: 2).
      geometric: augmenters with an inverse, each of which turns one view (`GEOMETRIC`).
      contexts: "leave_one_out" is the reference: each context lacks a demonstration.
        "all": the context is every demonstration, which the reference never shows.
        "both": as the first, and then unturned views of the second.
      max_tokens: view and true answer together are shorter than this (8192).
    """

    reorders: Annotated[int, Bound(0, 1000)]
    geometric: tuple[str, ...]
    contexts: str
    max_tokens: Tokens

    def __post_init__(self):
        config_rules.check(self)
        config_rules.one_of("contexts", self.contexts, CONTEXTS)
        for name in self.geometric:
            if name not in arc_augment.INVERSE:
                raise ValueError(
                    f"geometric={shown(name)} must be one of "
                    f"{', '.join(arc_augment.INVERSE)}: those that can be undone"
                )


def views(
    task: Task,
    test: int,
    cfg: ViewsConfig,
    *,
    seed: int,
    length: Callable[[Example], int],
) -> list[View]:
    """The queries for test number `test` of `task`, all different.

    First each context that lacks one demonstration, in its own order and reordered;
    then the turned views, each of a random one of these. If all are too long, contexts
    that lack two are tried. Empty if those are too long too.

    Args:
      length: tokens of view and true answer.
    """
    for level in (1, 2):
        candidates = _views(task, test, cfg, RandomState(seed), level)
        short = [view for view in candidates if length(view.example) < cfg.max_tokens]
        if short:
            return short
    return []


def _views(
    task: Task, test: int, cfg: ViewsConfig, rng: RandomState, level: int
) -> list[View]:
    query, count = task.tests[test], len(task.train)
    contexts = [task.train]
    if cfg.contexts != "all":
        contexts = [
            tuple(pair for i, pair in enumerate(task.train) if i not in dropped)
            for dropped in itertools.combinations(range(count), min(level, count))
        ]
    views = dict.fromkeys(_orders(contexts, query, cfg.reorders, rng))
    plain = list(views)
    for name in cfg.geometric:
        example = plain[rng.randint(len(plain))].example
        view = View(_turned(example, name), arc_augment.INVERSE[name])
        if view.example not in {view.example for view in views}:
            views[view] = None
    if cfg.contexts == "both":
        # Last, so that the option changes no other view.
        views |= dict.fromkeys(_orders([task.train], query, cfg.reorders, rng))
    return list(views)


def _orders(
    contexts: Iterable[tuple[Pair, ...]], query: Pair, reorders: int, rng: RandomState
) -> list[View]:
    versions = []
    for context in contexts:
        orders = [arc_augment.order(len(context), rng) for _ in range(reorders)]
        versions += [context, *(tuple(context[i] for i in order) for order in orders)]
    return [View(Example(context, query), None) for context in versions]


def _turned(example: Example, name: str) -> Example:
    context = tuple(
        Pair(*(_augment(grid, name) for grid in pair)) for pair in example.context
    )
    return Example(context, Pair(*(_augment(grid, name) for grid in example.query)))


def _augment(grid: Grid, name: str) -> Grid:
    # None of those with an inverse is random.
    array = arc_augment.as_array(grid)
    return arc_augment.as_grid(arc_augment.AUGMENTERS[name](array, RandomState(0)))


# Answers


def parse(text: str) -> Grid | None:
    """The grid in an answer, or None if there is none.

    Brackets and # are deleted; every line that is left with anything is a row of
    digits between white space. Rows are of one length, sides at most 30.
    """
    lines = re.sub(r"[\[\]#]", "", text).split("\n")
    rows = [row for row in map(str.split, lines) if row]
    if not rows or max(len(rows), len(rows[0])) > MOST_SIDE:
        return None
    if any(len(row) != len(rows[0]) for row in rows):
        return None
    if not all(re.fullmatch("[0-9]", cell) for row in rows for cell in row):
        return None
    return tuple(tuple(map(int, row)) for row in rows)


def undo(view: View, grid: Grid) -> Grid:
    """An answer to `view` as an answer to the test itself."""
    return grid if view.inverse is None else _augment(grid, view.inverse)


def vote(answers: Sequence[tuple[View, Grid | None]]) -> tuple[Grid, Grid]:
    """Two guesses from the answers to all views of one test.

    Each group of views names its three candidates: all views, the unturned ones, then
    those of each inverse. The candidates are voted on in the same way; the guesses are
    the first two. Where the second has as many votes as the third, it stays only if
    more of the unturned views answered it. Further ties go to the grid that was seen
    first, in the order of groups and, within a group, of `answers`.

    Args:
      answers: what `parse` made of each view's answer, not yet turned back.

    Returns:
      two grids, which may be equal; a single cell of 0 where no answer is a grid.
    """
    grids = [
        (view.inverse, undo(view, grid)) for view, grid in answers if grid is not None
    ]
    if not grids:
        return _NOTHING, _NOTHING
    groups = [[grid for _, grid in grids]]
    groups += [[grid for name, grid in grids if name == group] for group in _GROUPS]
    candidates = [grid for group in groups if group for grid in _top_three(group)]
    first, second, third = _top_three(candidates)
    named = collections.Counter(candidates)
    unturned = collections.Counter(groups[1])
    if (
        unturned
        and named[second] == named[third]
        and unturned[second] <= unturned[third]
    ):
        second = third
    return first, second


def _top_three(grids: Sequence[Grid]) -> tuple[Grid, Grid, Grid]:
    """The three most frequent, ties to the one seen first; the first again if fewer."""
    # Where there are fewer the reference takes majorities by row, then by column. Of
    # one grid or two, and with ties to the one seen first, each of them is the first.
    frequent = [grid for grid, _ in collections.Counter(grids).most_common(3)]
    first, second, third = (*frequent, frequent[0], frequent[0])[:3]
    return first, second, third


def solved(task: Task, guesses: Sequence[tuple[Grid, Grid]]) -> bool:
    """Whether every test of `task` is answered exactly by one of its two guesses.

    Args:
      guesses: of `vote`, for each test in order.

    Raises:
      ValueError: not as many as tests.
    """
    if len(guesses) != len(task.tests):
        raise ValueError(
            f"{len(guesses)} guesses must be as many as the {len(task.tests)} tests of "
            f"task {task.id!r}; give two grids for each"
        )
    return all(
        test.output in guess for test, guess in zip(task.tests, guesses, strict=True)
    )
