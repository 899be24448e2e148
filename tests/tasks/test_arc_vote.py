"""Views of a test, answers read back, and the vote: by hand and against the rules."""

import collections
import dataclasses
import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from seal_jax.tasks.arc import augment as arc_augment
from seal_jax.tasks.arc import puzzles as arc
from seal_jax.tasks.arc import text as arc_text
from seal_jax.tasks.arc import vote as arc_vote
from seal_jax.tasks.arc.examples import Example
from seal_jax.tasks.arc.puzzles import Pair, Task
from seal_jax.tasks.arc.vote import View, ViewsConfig

REFERENCE = ViewsConfig(
    reorders=2,
    geometric=arc_vote.GEOMETRIC,
    contexts="leave_one_out",
    max_tokens=8192,
)


def cfg(**changes):
    return dataclasses.replace(REFERENCE, **changes)


def no_length(example):
    return 0


def views(task, cfg=REFERENCE, *, test=0, seed=0, length=no_length):
    return arc_vote.views(task, test, cfg, seed=seed, length=length)


def random_task(demos, tests=1, seed=0):
    rng = np.random.RandomState(seed)

    def grid(shape):
        return tuple(map(tuple, rng.randint(0, 10, shape).tolist()))

    pairs = [Pair(grid((3, 4)), grid((2, 5))) for _ in range(demos + tests)]
    return Task("made-up", tuple(pairs[:demos]), tuple(pairs[demos:]))


# Views


def test_unturned_views_by_hand():
    task = random_task(3, tests=2)
    a, b, c = task.train
    for test, query in enumerate(task.tests):
        found = views(task, cfg(reorders=0, geometric=()), test=test)
        contexts = [(b, c), (a, c), (a, b)]
        assert sorted(view.example.context for view in found) == sorted(contexts)
        assert {view.example.query for view in found} == {query}
        assert {view.inverse for view in found} == {None}


def test_reorders_permute_each_context():
    task = random_task(5)
    found = views(task, cfg(reorders=40, geometric=()))
    contexts = collections.Counter(frozenset(view.example.context) for view in found)
    # All 24 orders of nearly every context; each is there once.
    assert len(contexts) == 5 and set(map(len, contexts)) == {4}
    assert len(set(found)) == len(found) > 5 * 15
    assert max(contexts.values()) <= 24
    own = views(task, cfg(reorders=0, geometric=()))
    assert set(own) < set(found)


@pytest.mark.parametrize("geometric", [arc_vote.GEOMETRIC, ("rotate270", "flip1")])
def test_turned_views_are_turned_back(geometric):
    task = random_task(4)
    found = views(task, cfg(geometric=geometric))
    plain = [view for view in found if view.inverse is None]
    turned = found[len(plain) :]
    inverses = [arc_augment.INVERSE[name] for name in geometric]
    assert [view.inverse for view in turned] == inverses
    for view in turned:
        pairs = (*view.example.context, view.example.query)
        back = [Pair(*(arc_vote.undo(view, grid) for grid in one)) for one in pairs]
        original = Example(tuple(back[:-1]), back[-1])
        assert View(original, None) in plain
        assert arc_vote.undo(view, view.example.query.output) == task.tests[0].output
        assert view.example != original


def test_undo_by_hand():
    view = View(Example((), Pair(((0,),), ((0,),))), None)
    grid = ((1, 2, 3), (4, 5, 6))
    for inverse, want in (
        (None, grid),
        ("transpose", ((1, 4), (2, 5), (3, 6))),
        ("flip0", ((4, 5, 6), (1, 2, 3))),
        ("flip1", ((3, 2, 1), (6, 5, 4))),
        ("rotate180", ((6, 5, 4), (3, 2, 1))),
        ("rotate270", ((4, 1), (5, 2), (6, 3))),
        ("rotate90", ((3, 6), (2, 5), (1, 4))),
    ):
        assert arc_vote.undo(view._replace(inverse=inverse), grid) == want


# The counts of the reference, by demonstrations.
COUNTS = {2: 7, 3: 10, 4: 16, 5: 20, 6: 23}


@pytest.mark.parametrize("demos", COUNTS)
def test_number_of_views(demos):
    found = views(random_task(demos, tests=2), test=1)
    assert len(found) == len(set(found)) == COUNTS[demos]


def test_counts_of_the_reference_on_its_tasks(seal_data):
    folder = seal_data / "few-shot/data"
    for name in (
        "arc-agi_training_challenges_filtered_1B_training_set.json",
        "arc-agi_evaluation_challenges_filtered_1B_eval_set.json",
    ):
        for task in arc.load(folder / name, split="").values():
            for test in range(len(task.tests)):
                found = views(task, test=test)
                assert len(found) == COUNTS[len(task.train)], task.id


def test_a_turned_view_that_is_there_already_is_left_out():
    """Grids that look the same upside down."""
    pairs = tuple(Pair(((i, 1), (i, 1)), ((i,),)) for i in range(3))
    task = Task("striped", pairs[:2], pairs[2:])
    assert [view.inverse for view in views(task, cfg(geometric=("flip0",)))] == [
        None
    ] * 2
    found = views(task, cfg(geometric=("flip0", "flip1", "rotate180")))
    # A half turn is now a mirror image: the same view, if of the same context.
    assert [view.inverse for view in found][:3] == [None, None, "flip1"]
    assert len({view.example for view in found}) == len(found)


def test_views_repeat_with_their_seed():
    task = random_task(5)
    assert views(task, seed=3) == views(task, seed=3)
    assert views(task, seed=3) != views(task, seed=4)


def test_all_demonstrations_are_an_option():
    task = random_task(4)
    without, found = views(task), views(task, cfg(contexts="both"))
    assert found[: len(without)] == without
    further = found[len(without) :]
    assert further[0] == View(Example(task.train, task.tests[0]), None)
    assert len(further) == 3 and {view.inverse for view in further} == {None}
    for view in further:
        assert sorted(view.example.context) == sorted(task.train)
    assert not any(len(view.example.context) == 4 for view in without)


def test_all_demonstrations_can_be_the_only_context():
    found = views(random_task(3), cfg(contexts="all"))
    assert all(len(view.example.context) == 3 for view in found)
    assert {view.inverse for view in found} > {None}
    with pytest.raises(ValueError, match="contexts='some' must be one of"):
        cfg(contexts="some")


def test_one_demonstration():
    found = views(random_task(1), cfg(geometric=()))
    assert [view.example.context for view in found] == [()]


def test_long_views_are_left_out():
    task = random_task(3)
    first = task.train[0]

    def length(example):
        return 10 if first in example.context else 5

    every = views(task, cfg(geometric=()), length=length)
    short = views(task, cfg(geometric=(), max_tokens=10), length=length)
    assert short == [view for view in every if first not in view.example.context]
    assert 0 < len(short) < len(every)


def test_two_are_left_out_only_where_nothing_else_fits():
    task = random_task(4)

    def length(example):
        return len(example.context)

    for max_tokens, sizes in ((4, {3}), (3, {2}), (2, set())):
        found = views(task, cfg(max_tokens=max_tokens), length=length)
        assert {len(view.example.context) for view in found} == sizes
    found = views(task, cfg(max_tokens=3, reorders=0, geometric=()), length=length)
    assert len(found) == 6


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reorders": -1}, "reorders=-1 must be at least 0"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"geometric": ("double",)}, "geometric='double' must be one of rotate90"),
        ({"geometric": ("flip",)}, "geometric='flip' must be one of"),
    ],
)
def test_refused_configurations(change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        cfg(**change)
    assert "\n" not in str(caught.value)


# Answers

GRID = ((0, 3), (7, 6))
GOOD = {
    "[[0 3]\n [7 6]]#": GRID,
    "[[0 3]\n [7 6]]": GRID,
    "[[ 0 3 ]\n [ 7 6 ]] #": GRID,
    "0 3\n7 6": GRID,
    "  [[0  3]\r\n\n\t[7 6]]##\n\n": GRID,
    "[[0 3] \n [7 6]\n]": GRID,
    "[[0 3]\n [7 6]": GRID,
    "#[[4]]#": ((4,),),
    "[[1 2 3]]": ((1, 2, 3),),
    "[[1]\n [2]]#": ((1,), (2,)),
    # A row is a line, whatever the brackets say.
    "[[0 3] [7 6]]": ((0, 3, 7, 6),),
}
BAD = [
    "",
    "#",
    "[[]]#",
    "[[],[]]",
    "[[0 3]\n [7]]#",
    "[[0, 3]\n [7, 6]]",
    "[[03]\n [76]]",
    "[[0 10]]",
    "[[-1]]",
    "[[1.0]]",
    "[[a]]",
    "[[²]]",
    "[[٣]]",
    "The answer is [[4]]#",
    "[[4]]#\nDone",
    "\n".join(["1"] * 31),
    " ".join(["1"] * 31),
]


@pytest.mark.parametrize("text", GOOD)
def test_answers_that_parse(text):
    assert arc_vote.parse(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_answers_that_do_not(text):
    assert arc_vote.parse(text) is None


few = hypothesis.settings(max_examples=200)


@few
@hypothesis.given(
    strategies.one_of(
        strategies.text(max_size=80),
        strategies.text("[]# \n\r\t0123456789,-²", max_size=60),
    )
)
def test_any_text_is_a_grid_or_none(text):
    grid = arc_vote.parse(text)
    if grid is not None:
        assert 1 <= len(grid) <= 30 and 1 <= len(grid[0]) <= 30
        assert {len(row) for row in grid} == {len(grid[0])}
        assert {type(cell) for row in grid for cell in row} == {int}
        assert all(0 <= cell <= 9 for row in grid for cell in row)
        # Read again from what it is written as.
        assert arc_vote.parse(arc_text.answer_text(grid)) == grid


grids = strategies.tuples(
    strategies.integers(1, 4), strategies.integers(1, 4), strategies.integers(0, 99)
).map(
    lambda made: tuple(
        map(
            tuple,
            np.random.RandomState(made[2]).randint(0, 2, made[:2]).tolist(),
        )
    )
)


@few
@hypothesis.given(grids)
def test_what_is_written_is_read(grid):
    text = arc_text.answer_text(grid)
    assert arc_vote.parse(text) == grid
    assert arc_vote.parse(text.replace("[", "[ ").replace("]", " ]")) == grid


# Votes

EXAMPLE = Example((), Pair(((0,),), ((0,),)))


def answer(group, grid):
    """An answer that its view turns back into `grid`; "I" is the unturned group."""
    inverse = None if group == "I" else group
    if inverse is None or grid is None:
        return View(EXAMPLE, inverse), grid
    seen = arc_vote.undo(View(EXAMPLE, arc_augment.INVERSE[inverse]), grid)
    return View(EXAMPLE, inverse), seen


def one(color):
    return ((color,),)


# Answers as groups with colours of single cells ("." is none), then the two guesses.
# Where a group names fewer than three grids its first counts again.
VOTES = {
    "nothing": ("", "00"),
    "nothing parsed": ("I:... flip0:.", "00"),
    "one": ("I:4", "44"),
    "all agree": ("I:44 flip0:4", "44"),
    "majority": ("I:12112", "12"),
    "more in all, fewer unturned": ("I:112 transpose:2 flip0:2 flip1:2", "21"),
    # 3: all once, transpose and flip0 three times. 1: all once, unturned twice.
    "a turned group each": ("I:12 transpose:3 flip0:3", "31"),
    # All and the unturned name 1, 2, 3: a tie that is not broken goes to the third.
    "tie of second and third": ("I:1123", "13"),
    "tie, second more unturned": ("I:11223", "12"),
    "tie, third more unturned": ("transpose:12 I:13", "13"),
    "tie, third not unturned": ("I:13 transpose:12", "13"),
    "tie without unturned": ("transpose:123", "12"),
    "the first seen wins": ("I:21", "21"),
    "groups have an order": ("I:111222333 flip0:5 transpose:4", "45"),
    "rotations are last": ("I:111222333 rotate270:5 rotate180:4", "45"),
    "flips in order": ("I:111222333 rotate180:6 flip1:5 flip0:4", "46"),
    "a fourth is not named": ("I:1112223334", "13"),
}


@pytest.mark.parametrize("case", VOTES)
def test_votes(case):
    said, (first, second) = VOTES[case]
    answers = []
    for part in said.split():
        group, colors = part.split(":")
        grids = (None if color == "." else one(int(color)) for color in colors)
        answers += [answer(group, grid) for grid in grids]
    assert arc_vote.vote(answers) == (one(int(first)), one(int(second)))


def test_answers_are_turned_back_before_the_vote():
    grid, other = ((1, 2, 3), (4, 5, 6)), ((9, 9),)
    groups = ("I", *arc_augment.INVERSE)
    answers = [answer("I", other), *(answer(group, grid) for group in groups)]
    assert arc_vote.vote(answers) == (grid, other)


def by_the_rules(answers):
    """The vote as the reference's rules put it, majorities by row and column included.

    Ties: the one seen first.
    """

    def majority(grids):
        shapes = collections.Counter((len(g), len(g[0])) for g in grids)
        (height, width), _ = shapes.most_common(1)[0]
        rows = []
        for i in range(height):
            there = [g[i] for g in grids if len(g) > i and len(g[0]) == width]
            rows.append(collections.Counter(there).most_common(1)[0][0])
        return tuple(rows)

    def transposed(grid):
        return tuple(zip(*grid, strict=True))

    def three(grids):
        ranked = [grid for grid, _ in collections.Counter(grids).most_common()]
        by_row = majority(grids)
        by_column = transposed(majority([transposed(grid) for grid in grids]))
        if len(ranked) == 1:
            ranked.append(by_column if by_row == ranked[0] else by_row)
        if len(ranked) == 2:
            ranked.append(by_column if by_row in ranked else by_row)
        return ranked[:3]

    grids = [(v.inverse, arc_vote.undo(v, g)) for v, g in answers if g is not None]
    if not grids:
        return one(0), one(0)
    order = ["transpose", "flip0", "flip1", "rotate180", "rotate270", "rotate90"]
    groups = [[g for _, g in grids]]
    for name in (None, *order):
        groups.append([g for inverse, g in grids if inverse == name])
    named = [grid for group in groups if group for grid in three(group)]
    first, second, third = three(named)
    unturned = groups[1]
    tie = named.count(second) == named.count(third)
    keep = unturned.count(second) > unturned.count(third)
    return first, third if unturned and tie and not keep else second


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.sampled_from(["I", "I", *arc_augment.INVERSE]),
            strategies.one_of(strategies.none(), grids),
        ),
        max_size=14,
    )
)
def test_votes_by_the_rules(said):
    answers = [answer(group, grid) for group, grid in said]
    assert arc_vote.vote(answers) == by_the_rules(answers)


# Reward


def test_solved_needs_every_test():
    task = Task("two", (), tuple(Pair(one(0), one(i)) for i in (1, 2)))
    right, wrong = (one(9), one(1)), (one(9), one(8))
    assert arc_vote.solved(task, [right, (one(2), one(9))])
    assert arc_vote.solved(task, [(one(1), one(1)), (one(2), one(2))])
    assert not arc_vote.solved(task, [right, wrong])
    assert not arc_vote.solved(task, [wrong, (one(2), one(2))])
    # The other test's output does not count, nor does a larger grid.
    assert not arc_vote.solved(task, [right, right])
    assert not arc_vote.solved(task, [right, (((2,), (2,)), ((2, 2),))])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_guesses_for_every_test(count):
    task = Task("two", (), tuple(Pair(one(0), one(i)) for i in (1, 2)))
    with pytest.raises(ValueError, match=f"{count} guesses must be as many as the 2"):
        arc_vote.solved(task, [(one(1), one(2))] * count)
