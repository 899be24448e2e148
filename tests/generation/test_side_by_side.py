"""Which prompts are read, and where they lie."""

import numpy as np
import pytest

from seal_jax.generation import side_by_side
from seal_jax.generation.side_by_side import NO_ADAPTER, Prompt, Request, Span

# Prompts


def test_a_prompt_is_read_once_for_all_that_continue_it_under_an_adapter():
    requests = [
        Request((1, 2), 0),
        Request((3,), 0),
        Request(()),
        Request((1, 2), 0),
        Request((1, 2), 1),
        Request((1, 2), 5),  # outside a stack of two, as is the next
        Request((1, 2)),
    ]
    found = side_by_side.distinct(requests, 2)
    assert found == [
        Prompt((1, 2), NO_ADAPTER, (5, 6)),
        Prompt((1, 2), 0, (0, 3)),
        Prompt((3,), 0, (1,)),
        Prompt((1, 2), 1, (4,)),
    ]


def test_the_longest_prompts_come_first_and_an_adapters_stay_together():
    rng = np.random.default_rng(0)
    requests = [
        Request((i,) * int(rng.integers(1, 30)), int(rng.integers(-1, 5)))
        for i in range(60)
    ]
    for adapters in (0, 5):
        found = side_by_side.distinct(requests, adapters)
        assert sorted(i for p in found for i in p.requests) == list(range(60))
        alone = [len(p.ids) for p in found if p.adapter == NO_ADAPTER]
        assert alone == sorted(alone, reverse=True)
        order = [p.adapter for p in found if p.adapter != NO_ADAPTER]
        longest = {a: max(len(p.ids) for p in found if p.adapter == a) for a in order}
        runs = [a for i, a in enumerate(order) if i == 0 or order[i - 1] != a]
        # Prompts without adapters may lie between, but no adapter comes twice.
        assert len(runs) == len(set(runs)) == (adapters and 5)
        assert [longest[a] for a in runs] == sorted(longest.values(), reverse=True)


# Reading


@pytest.mark.parametrize("tile", [1, 4])
def test_prompts_lie_side_by_side_and_never_on_each_other(tile):
    rng = np.random.default_rng(1)
    left = rng.integers(1, 25, 70).tolist()
    total, readings, taken = sum(left), 0, np.zeros((3, 48), int)
    while left:
        spans = side_by_side.pack(left, rows=3, width=48, tile=tile, most=16)
        assert 0 in spans and max(spans) < 16
        taken[:] = 0
        for index, (row, first, length) in spans.items():
            assert length == left[index] and first % tile == 0
            assert first + length <= 48
            taken[row, first : first + length] += 1
        assert taken.max() == 1
        left = [n for i, n in enumerate(left) if i not in spans]
        readings += 1
    assert readings <= total / (3 * 48 * 0.75)


def test_a_tile_is_a_small_part_of_the_longest_prompt():
    longest = [1, 8, 256, 511, 512, 1024, 2048, 4096, 9999]
    tiles = [side_by_side.tile_of(n) for n in longest]
    assert tiles == [8, 8, 16, 16, 32, 64, 128, 128, 128]


def test_a_prompt_that_finds_no_room_lets_shorter_ones_pass():
    spans = side_by_side.pack([8, 6, 2, 3], rows=1, width=10, tile=1, most=9)
    assert spans == {0: Span(0, 0, 8), 2: Span(0, 8, 2)}
    spans = side_by_side.pack([8, 6, 2, 3], rows=1, width=10, tile=4, most=9)
    assert spans == {0: Span(0, 0, 8)}


def test_a_reading_says_where_each_token_begins_and_whose_it_is():
    made = side_by_side.lay_out(
        [((5, 6, 7), 1), ((8, 9), 0), ((3,) * 5, NO_ADAPTER)],
        [Span(0, 0, 3), Span(0, 4, 2), Span(1, 0, 5)],
        rows=3,
        width=8,
        tile=2,
    )
    np.testing.assert_array_equal(
        made.tokens_PT,
        [[5, 6, 7, 0, 8, 9, 0, 0], [3, 3, 3, 3, 3, 0, 0, 0], [0] * 8],
    )
    np.testing.assert_array_equal(
        made.start_PT,
        [[0, 0, 0, -1, 4, 4, -1, -1], [0, 0, 0, 0, 0, -1, -1, -1], [-1] * 8],
    )
    np.testing.assert_array_equal(made.slots_G, [1, 1, 0, -1] + [-1] * 8)
