"""Datasets of tasks: what is in them, what is not, how many, always the same."""

import dataclasses
import itertools
import pathlib
import re
import statistics
import subprocess
import sys

import numpy as np
import pytest
from numpy.random import RandomState

from seal_jax.tasks.arc import augment as arc_augment
from seal_jax.tasks.arc import examples as arc_data
from seal_jax.tasks.arc import puzzles as arc
from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.tasks.arc.examples import DataConfig, Example, Switches
from seal_jax.tasks.arc.puzzles import Pair, Task

REFERENCE = DataConfig(leave=(1, 2), most=250, max_side=30, permute=1, max_tokens=8192)
OFF = Switches(False, False, False, False)
ON = Switches(True, True, True, True)
EVERY = [Switches(*mesh) for mesh in itertools.product((False, True), repeat=4)]


def cfg(**changes):
    return dataclasses.replace(REFERENCE, **changes)


def no_length(example):
    return 0


def random_grid(rng, height, width, colors=10):
    return tuple(map(tuple, rng.randint(0, colors, (height, width)).tolist()))


def random_task(demos, *, height=3, width=4, colors=10, seed=0):
    rng = np.random.RandomState(seed)
    pairs = [
        Pair(
            random_grid(rng, height, width, colors),
            random_grid(rng, height - 1, width + 1, colors),
        )
        for _ in range(demos + 1)
    ]
    return Task("made-up", tuple(pairs[:-1]), (pairs[-1],))


def pool(task, switches=ON, cfg=REFERENCE):
    return arc_data.pool(task, switches, cfg, length=no_length)


def dataset(task, switches=ON, cfg=REFERENCE):
    return arc_data.dataset(task, switches, cfg, length=no_length)


# What is left out


def test_leave_one_and_two_out_by_hand():
    task = random_task(3)
    a, b, c = task.train
    plain = cfg(permute=0)
    one = [Example((b, c), a), Example((a, c), b), Example((a, b), c)]
    two = [
        Example((p,), q) for q, p in ((a, c), (a, b), (b, c), (b, a), (c, b), (c, a))
    ]
    assert list(pool(task, OFF, cfg(permute=0, leave=(1,)))) == one
    assert sorted(pool(task, OFF, cfg(permute=0, leave=(2,)))) == sorted(two)
    assert list(pool(task, OFF, plain))[:3] == one
    assert sorted(pool(task, OFF, plain)) == sorted(one + two)


@pytest.mark.parametrize(
    "demos, leave, sizes",
    [
        (1, (1, 2), [0]),
        (2, (1, 2), [0, 0, 1, 1]),
        (2, (2,), [0, 0]),
        (2, (3,), []),
        (4, (3,), [1] * 12),
        (5, (2, 1), [3] * 20 + [4] * 5),
    ],
)
def test_sizes_of_contexts(demos, leave, sizes):
    found = pool(random_task(demos), OFF, cfg(permute=0, leave=leave))
    assert sorted(len(example.context) for example in found) == sorted(sizes)
    # In the order of `leave`.
    assert not found or len(found[0].context) == demos - leave[0]


def test_the_test_is_never_read():
    task = random_task(3)
    other = dataclasses.replace(task, tests=(Pair(((1,),), ((2,),)),))
    assert pool(task) == pool(other)


# Augmenters


def test_switches_name_families():
    mesh = {
        "basic": arc_augment.FAMILIES["basic"],
        "size": arc_augment.FAMILIES["size"],
        "chain": arc_augment.FAMILIES["chain"],
        "repeat": arc_augment.FAMILIES["repeat"],
    }
    for field, names in mesh.items():
        assert arc_data.augmenters(OFF._replace(**{field: True})) == names
    assert arc_data.augmenters(OFF) == ()
    assert arc_data.augmenters(ON) == tuple(itertools.chain(*mesh.values()))
    assert len(arc_data.augmenters(ON)) == 23


def by_brute_force(task, switches, leave, most_side):
    """Leave-out examples and their augmented versions, as a set."""

    def change(name, pair):
        rng = RandomState(0)
        augmenter = arc_augment.AUGMENTERS[name]
        return Pair(
            *(arc_augment.as_grid(augmenter(np.array(g, np.uint8), rng)) for g in pair)
        )

    found = set()
    for kept in itertools.permutations(task.train, len(task.train) - leave + 1):
        *context, query = kept
        if context == sorted(context, key=task.train.index):
            found.add(Example(tuple(context), query))
    for example in list(found):
        for name in arc_data.augmenters(switches):
            context = tuple(change(name, pair) for pair in example.context)
            found.add(Example(context, change(name, example.query)))
    return {e for e in found if longest_side(e) <= most_side}


def longest_side(example):
    grids = [grid for pair in (*example.context, example.query) for grid in pair]
    return max(max(len(grid), len(grid[0])) for grid in grids)


@pytest.mark.parametrize("leave", [1, 2])
@pytest.mark.parametrize("switches", [OFF, ON, Switches(True, False, False, True)])
@pytest.mark.parametrize("max_side", [30, 6, 5, 4])
def test_augmented_examples_by_brute_force(switches, leave, max_side):
    task = random_task(3, colors=2)
    found = pool(task, switches, cfg(permute=0, leave=(leave,), max_side=max_side))
    assert len(set(found)) == len(found)
    assert set(found) == by_brute_force(task, switches, leave, max_side)


def test_equal_examples_are_there_once():
    """A grid of one colour looks the same turned, and is the same recoloured."""
    pair = Pair(((0, 0), (0, 0)), ((0,),))
    task = Task("blank", (pair, pair), (pair,))
    basic = Switches(True, False, False, False)
    turns = {(2, 2, 1, 1), (4, 2, 2, 1), (2, 4, 1, 2)}
    found = pool(task, basic, cfg(leave=(1,)))
    shapes = [
        (len(q.input), len(q.input[0]), len(q.output), len(q.output[0]))
        for q in (example.query for example in found)
    ]
    assert sorted(shapes) == sorted(turns)


# Colours and orders


def is_recolored(one, other):
    """Whether the grids of two pairs differ by a renaming of colours that fixes 0."""
    cells = [
        pair
        for a, b in zip(one, other, strict=True)
        for left, right in zip(a, b, strict=True)
        for pair in zip(itertools.chain(*left), itertools.chain(*right), strict=True)
    ]
    there, back = dict(cells), {right: left for left, right in cells}
    return (
        all(there[left] == right and back[right] == left for left, right in cells)
        and there.get(0, 0) == 0
    )


def test_copies_are_recolored_and_reordered():
    task = random_task(4, colors=5)
    found = pool(task, ON, cfg(leave=(1,)))
    half = len(found) // 2
    assert len(found) == 2 * 24 * 4
    orders = set()
    for plain, copy in zip(found[:half], found[half:], strict=True):
        fits = [
            order
            for order in itertools.permutations(range(3))
            if is_recolored(
                [*(plain.context[i] for i in order), plain.query],
                [*copy.context, copy.query],
            )
        ]
        assert len(fits) == 1 and copy != plain
        orders |= set(fits)
        # Four colours of nine in use: each moves to one of the others.
        grids = [grid for pair in (*plain.context, plain.query) for grid in pair]
        used = {color for grid in grids for row in grid for color in row} - {0}
        new = [grid for pair in (*copy.context, copy.query) for grid in pair]
        assert not used & {color for grid in new for row in grid for color in row}
    assert len(orders) == 6


def test_without_augmenters_colors_stay():
    found = pool(random_task(4), OFF, cfg(leave=(1,)))
    plain, copies = found[:4], found[4:]
    # A random order may be the one that is there already.
    assert 0 < len(copies) <= 4
    contexts = {example.query: sorted(example.context) for example in plain}
    for copy in copies:
        assert sorted(copy.context) == contexts[copy.query] and copy not in plain


@pytest.mark.parametrize("permute, count", [(0, 48), (1, 96), (3, 192)])
def test_number_of_copies(permute, count):
    # Four colours have so many renamings that none comes twice.
    task = random_task(2, height=5, width=5, colors=5)
    assert len(pool(task, ON, cfg(leave=(1,), permute=permute))) == count


@pytest.mark.parametrize("demos", [2, 3, 4, 5])
@pytest.mark.parametrize("switches", [ON, Switches(False, True, False, True)])
def test_size_of_the_pool(demos, switches):
    task = random_task(demos, height=4, width=4)
    augmenters = len(arc_data.augmenters(switches))
    assert len(pool(task, switches)) == 2 * (augmenters + 1) * demos**2


# Limits


def test_the_cap_is_a_choice_from_the_pool():
    task = random_task(4)
    everything = pool(task)
    found = dataset(task)
    assert len(everything) == 768 and len(found) == 250
    assert len(set(found)) == 250 and set(found) < set(everything)
    assert found == dataset(task)
    # In random order and from everywhere.
    places = [everything.index(example) for example in found]
    assert places != sorted(places) and min(places) < 20 and max(places) > 748
    assert dataset(task, cfg=cfg(most=3)) == found[:3]
    assert dataset(task, cfg=cfg(most=768)) == everything


def test_long_examples_are_left_out():
    task = random_task(3)

    def length(example):
        return 10 * (len(example.context) + 1)

    for max_tokens, sizes in ((31, {1, 2}), (30, {1}), (21, {1}), (20, set())):
        found = arc_data.pool(task, ON, cfg(max_tokens=max_tokens), length=length)
        assert {len(example.context) for example in found} == sizes
        kept = arc_data.dataset(
            task, ON, cfg(max_tokens=max_tokens, most=10_000), length=length
        )
        assert kept == found


@pytest.mark.parametrize(
    "change, message",
    [
        ({"leave": ()}, "leave=() must be one or more different numbers"),
        ({"leave": (0,)}, "leave[0]=0 must be"),
        ({"leave": (1, 1)}, "leave=(1, 1) must be"),
        ({"most": 0}, "most=0 must be at least 1"),
        ({"permute": -1}, "permute=-1 must be at least 0"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"max_side": 0}, "max_side=0 must be at least 1"),
        ({"max_side": 31}, "max_side=31 must be at least 1 and at most 30"),
    ],
)
def test_refused_configurations(change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        cfg(**change)
    assert "\n" not in str(caught.value)


def test_every_process_makes_the_same(child_env):
    here = str(pathlib.Path(__file__).parent)
    code = (
        f"import sys; sys.path.append({here!r});"
        "import hashlib, test_arc_examples as made;"
        "found = made.dataset(made.random_task(4));"
        "print(hashlib.sha256(repr(found).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=child_env | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1 and len(digests.pop()) == 65


# The reference's own counts, measured on its released files

# Sequences before the cap with all switches on, and with all off.
COUNTS = {
    "44f52bb0": (1728, 69),
    "4be741c5": (264, 10),
    "5582e5ca": (432, 10),
    "5614dbcf": (192, 4),
    "5bd6f4ac": (768, 23),
    "6150a2bd": (192, 4),
    "67e8384a": (768, 23),
    "6d0aefbc": (768, 23),
    "6e02f1e3": (1200, 47),
    "8be77c9e": (428, 10),
    "8d5021e8": (400, 10),
    "8e1813be": (264, 10),
    "358ba94e": (256, 23),
    "59341089": (768, 23),
    "66e6c45b": (192, 4),
    "68b67ca3": (432, 10),
    "903d1b4a": (256, 23),
    "af24b4cc": (432, 10),
    "b1fc8b8e": (1200, 47),
    "bc4146bd": (384, 23),
    "c7d4e6ad": (192, 4),
    "ce8d95cc": (768, 23),
}
# Recolouring is random: two copies may coincide under one stream and not another.
CHANCE = 1

# By switches: sequences kept (least, median, most), then the most epochs within 375
# steps (least, most), over the training and over the evaluation tasks.
KEPT = """
FFFF  4  10  69  10 187   4  23  47  15 187
FFFT  32  72 250  3  23  32  68 200   3  23
FFTF  42 126 250  3  17  32  91 250   3  23
FFTT  68 180 250  3  11  32 130 250   3  23
FTFF  32  72 250  3  23  32  68 200   3  23
FTFT  56 126 250  3  13  32 111 250   3  23
FTTF  68 180 250  3  11  32 130 250   3  23
FTTT  94 234 250  3   7  32 169 250   3  23
TFFF  96 214 250  3   7  96 250 250   3   7
TFFT 120 250 250  3   6 120 250 250   3   6
TFTF 144 250 250  3   5 143 250 250   3   5
TFTT 168 250 250  3   4 167 250 250   3   4
TTFF 120 250 250  3   6 119 250 250   3   6
TTFT 144 250 250  3   5 143 250 250   3   5
TTTF 167 250 250  3   4 168 250 250   3   4
TTTT 192 250 250  3   3 192 250 250   3   3
"""


@pytest.fixture(scope="module")
def real(seal_data):
    """Training and evaluation tasks of the reference's experiment."""
    folder = seal_data / "few-shot/data"
    return [
        arc.load(folder / f"arc-agi_{name}.json", split="")
        for name in (
            "training_challenges_filtered_1B_training_set",
            "evaluation_challenges_filtered_1B_eval_set",
        )
    ]


@pytest.fixture(scope="module")
def sizes(real):
    """Size of the pool by switches and task."""
    tasks = real[0] | real[1]
    return {
        switches: {name: len(pool(one, switches)) for name, one in tasks.items()}
        for switches in EVERY
    }


def test_counts_of_the_reference_per_task(sizes):
    assert sizes[OFF] == {name: least for name, (_, least) in COUNTS.items()}
    apart = {name: sizes[ON][name] - most for name, (most, _) in COUNTS.items()}
    others = [by for by in apart.values() if by]
    assert len(others) <= 1 and all(abs(by) <= CHANCE for by in others)


def test_counts_of_the_reference_per_switch(real, sizes):
    limits = arc_edit.EditLimits(1e-6, 1.0, 1000, max_steps=375, batch=2)
    rows = [line.split() for line in KEPT.split("\n") if line]
    by_name = {"".join("FT"[mesh] for mesh in switches): switches for switches in EVERY}
    assert [name for name, *_ in rows] == list(by_name)
    for name, *numbers in rows:
        for tasks, want in zip(real, (numbers[:5], numbers[5:]), strict=True):
            least, median, most, *epochs = map(int, want)
            kept = [min(250, sizes[by_name[name]][task_id]) for task_id in tasks]
            assert abs(min(kept) - least) <= CHANCE, name
            assert (statistics.median(kept), max(kept)) == (median, most), name
            found = [arc_edit.most_epochs(size, limits) for size in kept]
            assert [min(found), max(found)] == epochs, name


def test_any_training_task_is_augmented(seal_data):
    path = seal_data / "few-shot/data/arc-agi_training_challenges.json"
    tasks = list(arc.load(path, split="").values())
    for one in tasks[::25]:
        found = pool(one)
        assert 0 < len(found) <= 2 * 24 * len(one.train) ** 2
        assert len(set(found)) == len(found)
        assert max(map(longest_side, found)) <= 30
