"""The queue of decoding, on a device that only keeps account."""

import numpy as np
import pytest

from seal_jax.generation import schedule
from seal_jax.generation.schedule import NO_ADAPTER, Prompt, Request, Span

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
    found = schedule.distinct(requests, 2)
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
        found = schedule.distinct(requests, adapters)
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
        spans = schedule.pack(left, rows=3, width=48, tile=tile, most=16)
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


def test_a_prompt_that_finds_no_room_lets_shorter_ones_pass():
    spans = schedule.pack([8, 6, 2, 3], rows=1, width=10, tile=1, most=9)
    assert spans == {0: Span(0, 0, 8), 2: Span(0, 8, 2)}
    spans = schedule.pack([8, 6, 2, 3], rows=1, width=10, tile=4, most=9)
    assert spans == {0: Span(0, 0, 8)}


def test_a_reading_says_where_each_token_begins_and_whose_it_is():
    made = schedule.reading(
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


# Sizes


def sizes(prompts, **changes):
    given = {"batch": 32, "per_tile": 4, "prompt_multiple": 8} | changes
    return schedule.sizes(prompts, **given)


def test_sizes_follow_the_batch_and_the_longest_prompt_alone():
    few = [Prompt((1,) * 9, NO_ADAPTER, (0,))]
    many = [Prompt((i,) * 15, NO_ADAPTER, tuple(range(50))) for i in range(70)]
    assert sizes(few) == sizes(many)
    made = sizes(few)
    assert (made.rows, made.entering, made.tiles, made.tile) == (32, 2, 0, 1)
    # Four rows of 16 tokens, side by side.
    assert (made.reading, made.width, made.prompts) == (1, 64, 16)
    long = sizes([Prompt((1,) * 200, NO_ADAPTER, (0,))])
    assert (long.reading, long.width) == (4, 200)


def test_tiles_are_spared_only_where_rows_are_refilled():
    def under(adapters, each):
        return [Prompt((1,), a, tuple(range(each))) for a in range(adapters)]

    assert sizes(under(8, 4)).tiles == 8  # all at once
    assert sizes(under(3, 2)).tiles == 8
    assert sizes(under(9, 4)).tiles == sizes(under(99, 1)).tiles == 20
    assert sizes(under(9, 4)).tile == schedule.TILE


def test_every_shard_has_as_much_as_the_others():
    prompts = [Prompt((1,) * 7, a, (a,)) for a in range(90)]
    made = sizes(prompts, batch=31, shards=3)
    for count in (made.rows, made.tiles, made.reading):
        assert count % 3 == 0
    assert made.rows == 33


# Places


class Account:
    """A device that keeps account of what is where, and refuses what cannot be."""

    def __init__(self, lengths, prompts, sizes):
        self.lengths, self.sizes = lengths, sizes
        self.adapter_of = {r: p.adapter for p in prompts for r in p.requests}
        self.row: dict[int, int] = {}  # row to request
        self.left = [0] * sizes.rows
        self.tile = [NO_ADAPTER] * sizes.tiles  # adapters that were copied
        self.read_last: list[Prompt] = []
        self.done, self.asked, self.shapes = [], [], [sizes.rows]

    def read(self, prompts, spans):
        assert 0 < len(prompts) == len(spans) <= self.sizes.prompts
        assert [len(p.ids) for p in prompts] == [s.length for s in spans]
        self.read_last = list(prompts)

    def admit(self, entries, members):
        assert 0 < len(entries) <= self.sizes.entering
        for request, source, adapter, (row, tile, fresh) in entries:
            assert request in self.read_last[source].requests
            assert adapter == self.read_last[source].adapter
            assert row not in self.row
            self.row[row], self.left[row] = request, self.lengths[request]
            if fresh:
                self.tile[tile] = adapter
        self.check(members)

    def check(self, members):
        """Each row is in one tile, with its adapter and of its shard, or in none."""
        shards, _, _ = members.shape
        own, tiles = len(self.left) // shards, len(self.tile) // shards
        found = {}
        for shard, t, place in np.argwhere(members < own):
            row = shard * own + members[shard, t, place]
            assert row not in found
            found[row] = self.tile[shard * tiles + t]
        for row, request in self.row.items():
            assert found.pop(row, NO_ADAPTER) == self.adapter_of[request]
        assert not found

    def decode(self, until, most):
        assert 0 < until <= len(self.left)
        steps = 0
        while sum(n <= 0 for n in self.left) < until and steps < most:
            self.left = [n - 1 for n in self.left]
            steps += 1
        self.asked.append(steps)
        return steps, np.array(self.left) <= 0

    def collect(self, ended):
        for row, request in ended.items():
            assert self.row.pop(row) == request and self.left[row] <= 0
            self.done.append(request)

    def move(self, from_row, from_tile, members):
        assert len(set(from_row)) == len(from_row) < len(self.left)
        assert len(set(from_tile)) == len(from_tile) <= len(self.tile)
        self.row = {
            at: self.row[old] for at, old in enumerate(from_row) if old in self.row
        }
        self.left = [self.left[old] for old in from_row]
        self.tile = [self.tile[old] for old in from_tile]
        self.shapes.append(len(from_row))
        self.check(members)


def simulate(requests, lengths, adapters, *, most=10**6, tick=None, **changes):
    prompts = schedule.distinct(requests, adapters)
    made = sizes(prompts, **changes)
    device = Account(lengths, prompts, made)
    told = []
    steps = schedule.run(prompts, device, made, most=most, tick=told.append)
    assert sorted(device.done) == [i for i, r in enumerate(requests) if r.prompt]
    assert sum(told) == len(device.done) and 0 not in told
    return steps, device


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("adapters", [0, 1, 7, 40])
def test_every_request_has_a_row_of_its_own_until_it_ends(adapters, shards):
    rng = np.random.default_rng(adapters)
    requests = [
        Request((int(n),) * int(n), int(rng.integers(-1, adapters + 1)))
        for n in rng.integers(0, 9, 150)
    ]
    lengths = rng.integers(0, 200, 150)
    steps, device = simulate(requests, lengths, adapters, shards=shards, batch=30)
    assert sum(device.asked) == steps
    # Long texts move together when the queue is empty.
    assert len(device.shapes) > 1
    assert device.shapes == sorted(device.shapes, reverse=True)


def test_a_row_is_refilled_though_its_neighbours_go_on():
    lengths = [1000] + [10] * 60
    requests = [Request((1,))] * 61
    steps, _ = simulate(requests, lengths, 0, batch=4)
    # Three rows take twenty short texts each, whatever the fourth does.
    assert steps == 1000


def test_a_row_is_refilled_under_another_adapter_at_once():
    # Two tiles; the first row of each text of adapter 0 goes on.
    requests = [Request((1,), a) for a in range(40)]
    lengths = [300] + [10] * 39
    steps, device = simulate(requests, lengths, 40, batch=4, per_tile=2)
    assert device.sizes.tiles == 5 and steps == 300


def test_too_few_tiles_only_make_it_wait():
    # As many rows as tiles have room for, each under an adapter of its own.
    requests = [Request((1,), a) for a in range(30)]
    steps, device = simulate(requests, [10] * 30, 30, batch=20, per_tile=10)
    assert device.sizes.tiles == 5 and steps == 10 * 30 / 5


def test_short_texts_do_not_move():
    requests, lengths = [Request((1,))] * 40, [40] * 39 + [60]
    assert len(simulate(requests, lengths, 0, most=64)[1].shapes) == 1
    assert len(simulate(requests, lengths, 0, most=500)[1].shapes) > 1


def test_texts_that_end_at_once_take_no_steps():
    requests = [Request((1, 2), a % 3) for a in range(50)]
    assert simulate(requests, [0] * 50, 3)[0] == 0
