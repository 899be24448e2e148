"""The planner against brute force: who trains when and where."""

import collections
import dataclasses
import functools
import json

import hypothesis
import hypothesis.strategies as st
import pytest

from seal_jax import plan


@dataclasses.dataclass
class Walk:
    """The schedule's rules, followed step by step beside it."""

    needs: list[list[int]]
    cfg: plan.PlanConfig

    def __post_init__(self):
        self.at = [0] * len(self.needs)
        self.waiting = sorted(
            range(len(self.needs)), key=lambda j: (-len(self.needs[j]), j)
        )
        self.inside: set[int] = set()
        self.spans: dict[int, list[int]] = {}  # job: slot, first step, last step
        self.steps = 0

    def left(self, job: int) -> int:
        return len(self.needs[job]) - self.at[job]

    def follow(self, placed: list[plan.Placement]) -> None:
        # Whoever waited longest takes a free slot before the step.
        while self.waiting and len(self.inside) < self.cfg.slots:
            self.inside.add(self.waiting.pop(0))
        jobs = [place.job for place in placed]
        assert len(set(jobs)) == len(jobs) <= self.cfg.active
        assert set(jobs) <= self.inside
        by_left = sorted(self.inside, key=lambda j: (-self.left(j), j))
        assert jobs == [j for j in by_left if j in jobs]
        self.check_room(placed, by_left)
        for place in placed:
            job, slot = place.job, place.slot
            assert place.index == self.at[job]
            assert 0 <= slot < self.cfg.slots
            span = self.spans.setdefault(job, [slot, self.steps, self.steps])
            assert span[0] == slot
            span[2] = self.steps
            self.at[job] += 1
            if not self.left(job):
                self.inside.remove(job)
        self.steps += 1

    def check_room(self, placed: list[plan.Placement], by_left: list[int]) -> None:
        """Nobody lies on another, nobody who fitted was passed over."""
        per_row = self.cfg.row_tokens // self.cfg.tile
        count = self.cfg.step_tokens // self.cfg.row_tokens
        taken: list[set[int]] = [set() for _ in range(count)]
        places = {place.job: place for place in placed}
        for job in by_left:
            need = self.needs[job][self.at[job]]
            fitting = [r for r in range(count) if len(taken[r]) + need <= per_row]
            if job not in places:
                assert not fitting or len(places) == self.cfg.active
                continue
            row, first = divmod(places[job].tile, per_row)
            assert row in fitting
            assert len(taken[row]) == max(len(taken[r]) for r in fitting)
            tiles = set(range(first, first + need))
            assert max(tiles) < per_row and not tiles & taken[row]
            taken[row] |= tiles

    def check_end(self) -> None:
        assert not self.waiting and not self.inside
        assert self.at == [len(own) for own in self.needs]
        by_slot = collections.defaultdict(list)
        for slot, first, last in self.spans.values():
            by_slot[slot].append((first, last))
        for spans in by_slot.values():
            ordered = sorted(spans)
            ends = [last for _, last in ordered]
            begins = [first for first, _ in ordered]
            assert all(a < b for a, b in zip(ends, begins[1:], strict=False))


def walk(needs, cfg) -> list[list[plan.Placement]]:
    """The schedule of `needs`, every step of it checked."""
    steps, beside = list(plan.schedule(needs, cfg)), Walk(needs, cfg)
    for placed in steps:
        assert placed
        beside.follow(placed)
    beside.check_end()
    return steps


def tiny(**changes) -> plan.PlanConfig:
    """Tiles of one position, so that sizes are in tiles."""
    base = {"tile": 1, "row_tokens": 6, "step_tokens": 12, "slots": 3, "active": 3}
    return plan.PlanConfig(**(base | changes))


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    needs=st.lists(
        st.lists(st.integers(1, 6), min_size=1, max_size=9), min_size=1, max_size=9
    ),
    rows=st.integers(1, 4),
    slots=st.integers(1, 10),
    active=st.integers(1, 10),
)
def test_a_schedule_keeps_its_rules(needs, rows, slots, active):
    steps = walk(needs, tiny(step_tokens=6 * rows, slots=slots, active=active))
    # No job takes two steps at once, and every step takes at least one.
    assert max(map(len, needs)) <= len(steps) <= sum(map(len, needs))


def test_one_adapter_at_a_time_takes_a_step_each():
    steps = walk([[1, 2], [3, 4, 5], [6]], tiny(slots=1, active=1))
    order = [(p.job, p.index) for placed in steps for p in placed]
    assert order == [(1, 0), (1, 1), (1, 2), (0, 0), (0, 1), (2, 0)]


# Steps of one tile each, for which the room of `tiny` never runs out.
LADDER = [[1], [1] * 4, [1], [1] * 2]


def test_a_finished_slot_is_reused_at_the_next_step():
    jobs = [[(p.job, p.slot) for p in s] for s in walk(LADDER, tiny(slots=2))]
    assert jobs == [
        [(1, 0), (3, 1)],
        [(1, 0), (3, 1)],
        [(1, 0), (0, 1)],
        [(1, 0), (2, 1)],
    ]


def test_the_longest_go_first_and_ties_to_the_earlier():
    steps = walk([[6], [6, 6], [6], [6, 6, 6]], tiny(slots=4, active=4))
    assert [[p.job for p in placed] for placed in steps] == [
        [3, 1],
        [3, 0],
        [1, 2],
        [3],
    ]


def test_a_line_takes_the_fullest_row_that_holds_it():
    needs = [[2] * 4, [5] * 3, [1] * 2, [4]]
    (first, *_) = walk(needs, tiny(slots=4, active=4))
    assert [(p.job, p.tile) for p in first] == [(0, 0), (1, 6), (2, 11), (3, 2)]


def test_a_line_that_does_not_fit_lets_shorter_ones_pass():
    (first, *_) = walk([[4] * 4, [4] * 3, [3] * 2, [2]], tiny(slots=4, active=4))
    assert [p.job for p in first] == [0, 1, 3]


def test_at_most_active_adapters_step_at_once():
    steps = walk(LADDER, tiny(slots=4, active=2))
    assert [len(placed) for placed in steps] == [2, 2, 2, 2]


def test_nothing_to_train_makes_no_step():
    assert list(plan.schedule([], tiny())) == []


# Sizes


SIZES = plan.PlanConfig(tile=4, row_tokens=24, step_tokens=48, slots=3, active=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({name: bad}, rf"inner\.{name}={bad} must be positive")
            for name in ("tile", "row_tokens", "step_tokens", "slots", "active")
            for bad in (0, -4)
        ),
        ({"row_tokens": 26}, r"row_tokens=26 .*multiple of inner\.tile=4; use 28"),
        ({"tile": 5}, r"inner\.row_tokens=24 .*multiple of inner\.tile=5; use 25"),
        (
            {"step_tokens": 50},
            r"step_tokens=50 .*multiple of inner\.row_tokens=24; use 72",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        dataclasses.replace(SIZES, **changes)
    assert "\n" not in str(refused.value)


@hypothesis.given(positions=st.integers(0, 60), tile=st.sampled_from([1, 4, 8, 24]))
def test_tiles_are_the_fewest_that_hold_a_line(positions, tile):
    cfg = dataclasses.replace(SIZES, tile=tile)
    fewest = next(n for n in range(61) if n * tile >= positions)
    assert cfg.tiles(positions) == fewest


# The published workload


@pytest.fixture(scope="module")
def published(root) -> list[list[int]]:
    """Lengths of the lines of the 750 adapters of SEAL's round 0."""
    file = json.loads((root / "benchmarks" / "workload.json").read_text("utf-8"))
    edits = [edit for article in file["articles"] for edit in article["edits"]]
    return [edit["lines"] for edit in edits for _ in range(3)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("tile", "slots", "active", "least"), [(16, 64, 48, 0.86), (8, 64, 64, 0.92)]
)
def test_the_published_workload_fills_its_steps(
    published, tile, slots, active, least, seed
):
    cfg = plan.PlanConfig(tile, 512, 2048, slots, active)
    loss = plan.LossConfig("masked", 2048, 0)
    ids = functools.cache(lambda n: (1,) * n)
    jobs = [
        plan.Job(tuple(map(ids, own)), (seed, j), 10, 1e-3, 1.0, loss)
        for j, own in enumerate(published)
    ]
    steps = lines = tokens = 0
    for block in plan.blocks(jobs, cfg, eos=0):
        steps, lines = steps + block.count, lines + block.lines
        tokens += block.tokens
    assert (len(jobs), lines) == (750, 65_490)
    assert tokens == 10 * sum(map(sum, published))
    assert tokens / (steps * cfg.step_tokens) >= least


# Several devices


@hypothesis.given(
    lines=st.lists(st.integers(1, 6), min_size=1, max_size=20),
    shards=st.integers(1, 5),
    spare=st.integers(0, 3),
)
def test_jobs_are_shared_among_devices_in_balance(lines, shards, spare):
    jobs = [
        plan.Job(((1,) * 5,) * n, (j,), 2, 1e-3, 1.0, plan.LossConfig("masked", 64, 0))
        for j, n in enumerate(lines)
    ]
    most = -(-len(jobs) // shards) + spare
    shares = plan.share(jobs, shards, most=most)
    assert sorted(j for own in shares for j in own) == list(range(len(jobs)))
    assert len(shares) == shards
    assert max(map(len, shares)) <= most
    if spare == 3 and len(jobs) <= shards:
        assert max(map(len, shares)) == 1
    # Largest first to the least loaded: no two devices differ by more than one job,
    # unless one of them is full.
    load = [sum(lines[j] for j in own) for own in shares]
    busiest, idlest = load.index(max(load)), load.index(min(load))
    if len(shares[idlest]) < most:
        assert load[busiest] - load[idlest] <= max(lines)
