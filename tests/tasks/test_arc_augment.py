"""Augmenters: by grids written by hand, by the laws they keep, and undone."""

import collections
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from numpy.random import RandomState

from seal_jax.tasks.arc import augment as arc_augment


def grid(text):
    """Rows between slashes: "12/30"."""
    return np.array([[int(cell) for cell in row] for row in text.split("/")], np.uint8)


def text(array):
    return "/".join("".join(map(str, row)) for row in array.tolist())


def augment(name, array, seed=0):
    return arc_augment.AUGMENTERS[name](array, RandomState(seed))


# What each makes of "123/456". The first stream of seed 0 shifts two rows by 0 and
# three columns by 1.
BY_HAND = {
    "rotate90": "36/25/14",
    "rotate270": "41/52/63",
    "rotate180": "654/321",
    "flip0": "456/123",
    "flip1": "321/654",
    "reflect0_before": "456/123/123/456",
    "reflect1_before": "321123/654456",
    "reflect0_after": "123/456/456/123",
    "reflect1_after": "123321/456654",
    "translate": "312/645",
    "transpose": "14/25/36",
    "double": "112233/112233/445566/445566",
    "double_height": "123/123/456/456",
    "double_width": "112233/445566",
    "rotate90_double": "3366/3366/2255/2255/1144/1144",
    "rotate270_double": "4411/4411/5522/5522/6633/6633",
    "rotate180_double": "665544/665544/332211/332211",
    "flip0_double": "445566/445566/112233/112233",
    "flip1_double": "332211/332211/665544/665544",
    "transpose_double": "1144/1144/2255/2255/3366/3366",
    "repeat0": "123/456/123/456",
    "repeat1": "123123/456456",
    "repeat_both": "123123/456456/123123/456456",
    "concat0": "123/456/654/321",
    "concat1": "123654/456321",
}


def test_every_augmenter_is_written_down_in_order():
    assert list(arc_augment.AUGMENTERS) == list(BY_HAND)


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    one = grid("123/456")
    # A stream whose first draws are 0 and 1, should the generator ever change.
    rng = RandomState(0)
    assert [rng.randint(0, 2), rng.randint(0, 3)] == [0, 1]
    assert text(augment(name, one)) == BY_HAND[name]
    assert text(one) == "123/456"


@pytest.mark.parametrize("name", BY_HAND)
def test_one_cell(name):
    """The smallest grid stays a grid of its one colour."""
    array = augment(name, grid("7"))
    assert array.ndim == 2 and set(array.ravel().tolist()) == {7}


def test_families():
    sizes = {name: len(members) for name, members in arc_augment.FAMILIES.items()}
    assert sizes == {"basic": 11, "size": 3, "chain": 6, "repeat": 3, "concat": 2}
    members = itertools.chain(*arc_augment.FAMILIES.values())
    assert list(members) == list(arc_augment.AUGMENTERS)


# Rows and columns of the result, and how often each cell is in it.
SAME = lambda h, w: (h, w)
TURNED = lambda h, w: (w, h)
TALL = lambda h, w: (2 * h, w)
WIDE = lambda h, w: (h, 2 * w)
BIG = lambda h, w: (2 * h, 2 * w)
BIG_TURNED = lambda h, w: (2 * w, 2 * h)
SHAPES = {
    SAME: "rotate180 flip0 flip1 translate",
    TURNED: "rotate90 rotate270 transpose",
    TALL: "reflect0_before reflect0_after double_height repeat0 concat0",
    WIDE: "reflect1_before reflect1_after double_width repeat1 concat1",
    BIG: "double rotate180_double flip0_double flip1_double repeat_both",
    BIG_TURNED: "rotate90_double rotate270_double transpose_double",
}
SHAPE = {name: shape for shape, names in SHAPES.items() for name in names.split()}

grids = strategies.integers(1, 7).flatmap(
    lambda width: strategies.lists(
        strategies.lists(strategies.integers(0, 9), min_size=width, max_size=width),
        min_size=1,
        max_size=7,
    ).map(lambda rows: np.array(rows, np.uint8))
)
few = hypothesis.settings(max_examples=25)


@few
@hypothesis.given(grids, strategies.integers(0, 99))
def test_shape_and_cells(one, seed):
    before = one.copy()
    assert SHAPE.keys() == arc_augment.AUGMENTERS.keys()
    for name, shape in SHAPE.items():
        array = augment(name, one, seed)
        assert array.shape == shape(*one.shape), name
        times = array.size // one.size
        cells = collections.Counter(one.ravel().tolist() * times)
        assert collections.Counter(array.ravel().tolist()) == cells, name
    assert np.array_equal(one, before)


@few
@hypothesis.given(grids)
def test_inverses_undo(one):
    for name, inverse in arc_augment.INVERSE.items():
        assert arc_augment.INVERSE[inverse] == name
        for there, back in ((name, inverse), (inverse, name)):
            assert np.array_equal(augment(back, augment(there, one)), one), name


def test_what_has_an_inverse():
    turns = {"rotate90", "rotate180", "rotate270", "flip0", "flip1", "transpose"}
    assert arc_augment.INVERSE.keys() == turns


@few
@hypothesis.given(grids)
def test_chains_are_their_parts(one):
    for name in arc_augment.FAMILIES["chain"]:
        first, then = name.split("_")
        parts = augment(then, augment(first, one))
        assert np.array_equal(augment(name, one), parts)


@few
@hypothesis.given(grids, strategies.integers(0, 9999))
def test_translation_rolls_by_at_most_three(one, seed):
    rolled = augment("translate", one, seed)
    height, width = (min(4, side) for side in one.shape)
    shifts = itertools.product(range(height), range(width))
    assert any(np.array_equal(np.roll(one, s, (0, 1)), rolled) for s in shifts)


def test_translation_moves_input_and_output_apart():
    """One stream for both: from 4x4 on, columns by 3 first, then rows by 1."""
    rng = RandomState(0)
    one, other = np.arange(16).reshape(4, 4), np.arange(40).reshape(5, 8)
    augmenter = arc_augment.AUGMENTERS["translate"]
    assert np.array_equal(augmenter(one, rng), np.roll(one, 3, 1))
    assert np.array_equal(augmenter(other, rng), np.roll(other, 1, 0))


def test_every_shift_occurs():
    one = np.arange(30).reshape(6, 5)
    found = {augment("translate", one, seed).tobytes() for seed in range(200)}
    assert len(found) == 16


def test_only_translation_draws():
    for name, augmenter in arc_augment.AUGMENTERS.items():
        rng = RandomState(3)
        augmenter(grid("123/456"), rng)
        assert (rng.randint(1 << 30) == RandomState(3).randint(1 << 30)) == (
            name != "translate"
        ), name


def test_arrays_and_grids():
    one = ((1, 2, 3), (4, 5, 6))
    array = arc_augment.as_array(one)
    assert (array.dtype, array.shape) == (np.uint8, (2, 3))
    assert arc_augment.as_grid(array) == one
    assert type(arc_augment.as_grid(array)[0][0]) is int


# Colours and order

used_colors = strategies.sets(strategies.integers(0, 9))


@hypothesis.settings(max_examples=300)
@hypothesis.given(used_colors, strategies.integers(0, 1 << 20))
def test_colors_are_renamed_one_to_one(used, seed):
    colors = arc_augment.color_map(used, RandomState(seed))
    assert sorted(colors) == list(range(10))
    assert colors[0] == 0
    moving = sorted(used - {0})
    free = set(range(1, 10)) - used
    # As many as there are free names move to one, lowest first.
    for color in moving[: len(free)]:
        assert colors[color] in free
    # The others swap among themselves.
    for color in moving[len(free) :]:
        assert colors[colors[color]] == color
    inverse = tuple(map(colors.index, range(10)))
    cells = bytes(sorted(used)) * 2
    renamed = arc_augment.recolor(cells, colors)
    assert len(set(renamed)) == len(used)
    assert arc_augment.recolor(renamed, inverse) == cells


def test_every_free_color_is_taken_at_times():
    found = {arc_augment.color_map({0, 5}, RandomState(i))[5] for i in range(200)}
    assert found == set(range(1, 10)) - {5}


def test_with_all_colors_in_use_they_swap():
    every = range(10)
    found = {arc_augment.color_map(every, RandomState(i)) for i in range(200)}
    assert len(found) > 150
    assert all(sorted(colors) == list(every) for colors in found)


def test_recolor_by_hand():
    colors = (0, 3, 2, 1, 4, 5, 6, 7, 9, 8)
    cells = bytes([0, 1, 2, 3, 8, 9, 1])
    assert list(arc_augment.recolor(cells, colors)) == [0, 3, 2, 1, 9, 8, 3]


@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_orders_are_permutations(count):
    found = {tuple(arc_augment.order(count, RandomState(i))) for i in range(50)}
    assert {tuple(sorted(one)) for one in found} == {tuple(range(count))}
    assert len(found) == {0: 1, 1: 1, 2: 2}.get(count, len(found)) and len(found) <= 720
    assert count < 6 or len(found) > 40
