"""The queue of decoding, on a device that only keeps account."""

import numpy as np
import pytest

from seal_jax.generation import schedule, side_by_side
from seal_jax.generation.side_by_side import NO_ADAPTER, Prompt, Request

# Sizes


def sizes(prompts, **changes):
    given = {"adapters": 0, "batch": 32, "per_page": 4, "prompt_multiple": 8} | changes
    return schedule.sizes(prompts, **given)


def test_sizes_follow_the_batch_and_the_longest_prompt_alone():
    few = [Prompt((1,) * 9, NO_ADAPTER, (0,))]
    many = [Prompt((i,) * 15, NO_ADAPTER, tuple(range(50))) for i in range(70)]
    assert sizes(few) == sizes(many)
    made = sizes(few)
    assert (made.rows, made.entering, made.pages, made.tile) == (32, 2, 0, 1)
    # Four rows of 16 tokens, side by side.
    assert (made.reading, made.width, made.prompts) == (1, 64, 16)
    long = sizes([Prompt((1,) * 200, NO_ADAPTER, (0,))])
    assert (long.reading, long.width) == (4, 200)


def test_pages_are_spared_only_for_more_adapters_than_fill_the_rows():
    def under(adapters):
        return sizes([Prompt((1,), 0, (0,))], adapters=adapters)

    assert under(3).pages == under(8).pages == 8
    assert under(9).pages == under(99).pages == 20
    assert under(9).tile == side_by_side.TILE


def test_every_shard_has_as_much_as_the_others():
    prompts = [Prompt((1,) * 7, a, (a,)) for a in range(90)]
    made = sizes(prompts, adapters=90, batch=31, shards=3)
    for count in (made.rows, made.pages, made.reading):
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
        self.page = [NO_ADAPTER] * sizes.pages  # adapters that were copied
        self.read_last: list[Prompt] = []
        self.done, self.asked, self.shapes = [], [], [sizes.rows]

    def read(self, prompts, spans):
        assert 0 < len(prompts) == len(spans) <= self.sizes.prompts
        assert [len(p.ids) for p in prompts] == [s.length for s in spans]
        self.read_last = list(prompts)

    def admit(self, entries, members):
        assert 0 < len(entries) <= self.sizes.entering
        for request, source, adapter, (row, page, fresh) in entries:
            assert request in self.read_last[source].requests
            assert adapter == self.read_last[source].adapter
            assert row not in self.row
            self.row[row], self.left[row] = request, self.lengths[request]
            if fresh:
                self.page[page] = adapter
        self.check(members)

    def check(self, members):
        """Each row is in one page, with its adapter and of its shard, or in none."""
        shards, _, _ = members.shape
        own, pages = len(self.left) // shards, len(self.page) // shards
        found = {}
        for shard, p, place in np.argwhere(members < own):
            row = shard * own + members[shard, p, place]
            assert row not in found
            found[row] = self.page[shard * pages + p]
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

    def move(self, from_row, from_page, members):
        assert len(set(from_row)) == len(from_row) < len(self.left)
        assert len(set(from_page)) == len(from_page) <= len(self.page)
        self.row = {
            at: self.row[old] for at, old in enumerate(from_row) if old in self.row
        }
        self.left = [self.left[old] for old in from_row]
        self.page = [self.page[old] for old in from_page]
        self.shapes.append(len(from_row))
        self.check(members)


def simulate(requests, lengths, adapters, *, most=10**6, tick=None, **changes):
    prompts = side_by_side.distinct(requests, adapters)
    made = sizes(prompts, adapters=adapters, **changes)
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
    # Two pages; the first row of each text of adapter 0 goes on.
    requests = [Request((1,), a) for a in range(40)]
    lengths = [300] + [10] * 39
    steps, device = simulate(requests, lengths, 40, batch=4, per_page=2)
    assert device.sizes.pages == 5 and steps == 300


def test_too_few_pages_only_make_it_wait():
    # As many rows as pages have room for, each under an adapter of its own.
    requests = [Request((1,), a) for a in range(30)]
    steps, device = simulate(requests, [10] * 30, 30, batch=20, per_page=10)
    assert device.sizes.pages == 5 and steps == 10 * 30 / 5


def test_short_texts_do_not_move():
    requests, lengths = [Request((1,))] * 40, [40] * 39 + [60]
    assert len(simulate(requests, lengths, 0, most=64)[1].shapes) == 1
    assert len(simulate(requests, lengths, 0, most=500)[1].shapes) > 1


def test_texts_that_end_at_once_take_no_steps():
    requests = [Request((1, 2), a % 3) for a in range(50)]
    assert simulate(requests, [0] * 50, 3)[0] == 0
