"""The arrays of a plan: read back as a device reads them, and against the schedule."""

import collections
import dataclasses
import hashlib
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from seal_jax.training import plan, plan_arrays
from seal_jax.training.settings import LossConfig, PlanConfig

EOS = 9999
MASKED = LossConfig("masked", 64, 0)
WHOLE, SAMPLED, UNSAMPLED = (LossConfig("reference", 24, n) for n in (-1, 3, 0))
PADDED, PADDED_SAMPLED = (LossConfig("padded", 2, n) for n in (-1, 2))
LOSSES = (MASKED, WHOLE, SAMPLED, UNSAMPLED, PADDED, PADDED_SAMPLED)
SMALL = PlanConfig(tile=4, row_tokens=24, step_tokens=48, slots=3, active=3)


def make_jobs(lengths, *, loss=MASKED, epochs=2, most=1) -> list[plan.Job]:
    """Jobs that differ in all they can; every line begins with a token of its own.

    Their steps take up to `most` lines, all of whose tokens carry loss if it is one.
    """
    jobs = [
        plan.Job(
            lines=tuple(
                (100 * (j + 1) + i, *range(1, length)) for i, length in enumerate(own)
            ),
            seed=(7, *own, j),
            epochs=epochs + j % 2,
            learning_rate=1e-3 * (j + 1),
            clip=1.0 + j,
            loss=loss if j % 3 else MASKED,
        )
        for j, own in enumerate(lengths)
    ]
    return [
        job
        if most == 1 or job.loss.mode == "reference"
        else dataclasses.replace(
            job,
            batch=1 + (j + 1) % most,
            given=tuple(1 + (i + j) % len(ids) for i, ids in enumerate(job.lines)),
            warmup=j % 3,
            schedule=("linear", "cosine")[j % 2],
        )
        for j, job in enumerate(jobs)
    ]


@dataclasses.dataclass
class Line:
    """A line as a device finds it in a step."""

    job: int
    step: int
    slot: int
    rate: float
    clip: float
    leaves: dict[str, np.ndarray]


CONTENT = ("tokens", "targets", "positions", "weights", "is_key")


def steps_of(jobs, cfg) -> list[plan_arrays.Steps]:
    """All steps that are run, one by one."""
    return [
        plan_arrays.Steps(*(leaf[i] for leaf in block.steps))
        for block in plan_arrays.blocks(jobs, cfg, eos=EOS)
        for i in range(block.length)
    ]


def read(jobs, cfg) -> list[Line]:
    """What trains, read from the arrays alone, as the device would."""
    lines, job_in = [], {}
    for i, step in enumerate(steps_of(jobs, cfg)):
        # A slot that is entered anew has been left before this step.
        for slot, job in step.starts[: step.start_count]:
            assert int(slot) not in job_in
            job_in[int(slot)] = int(job)
        owners = np.repeat(step.tiles, cfg.tile)
        assert ((owners == cfg.places) == (step.segments == -1)).all()
        for segment in range(step.segments.max() + 1):
            inside = step.segments == segment
            # A line lies in one piece and belongs to one adapter that steps.
            (where,), (k, *more) = np.nonzero(inside), sorted({*owners[inside]})
            assert where[-1] - where[0] == len(where) - 1
            # Its places are of the chunks that it is in.
            chunk = where // (cfg.step_tokens // cfg.chunks)
            assert (owners[inside] // cfg.active == chunk).all()
            slot = int(step.slots[k])
            assert {*step.slots[more]} <= {slot}
            assert len({*step.rates[[k, *more]]} | {*step.clips[[k, *more]]}) <= 2
            leaves = {name: getattr(step, name)[inside] for name in CONTENT}
            rate, clip = float(step.rates[k]), float(step.clips[k])
            lines.append(Line(job_in[slot], i, slot, rate, clip, leaves))
        for slot, job in step.ends[: step.end_count]:
            assert job_in.pop(int(slot)) == job
    assert not job_in
    return lines


def by_job(lines: list[Line]) -> dict[int, list[Line]]:
    grouped = collections.defaultdict(list)
    for line in lines:
        grouped[line.job].append(line)
    return grouped


def trained(line: Line) -> list[int]:
    return line.leaves["tokens"][line.leaves["is_key"]].tolist()


workloads = st.lists(
    st.lists(st.integers(1, 20), min_size=1, max_size=5), min_size=1, max_size=6
)
configs = st.builds(
    lambda tile, rows, slots, active: PlanConfig(tile, 24, 24 * rows, slots, active),
    tile=st.sampled_from([1, 4, 8, 24]),
    rows=st.integers(1, 3),
    slots=st.integers(1, 6),
    active=st.integers(1, 6),
)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    lengths=workloads,
    loss=st.sampled_from(LOSSES),
    cfg=configs,
    epochs=st.integers(1, 3),
)
def test_every_job_trains_each_line_once_an_epoch(lengths, loss, cfg, epochs):
    # A row for each line of a step: they always fit.
    rows = cfg.step_tokens // cfg.row_tokens
    jobs = make_jobs(lengths, loss=loss, epochs=epochs, most=rows)
    lines = by_job(read(jobs, cfg))
    assert set(lines) == set(range(len(jobs)))
    for j, job in enumerate(jobs):
        count, own = len(job.lines), lines[j]
        assert len(own) == job.epochs * count
        # Whole lines as they were given, all of them in every epoch.
        for start in range(0, len(own), count):
            epoch = [tuple(trained(line)) for line in own[start : start + count]]
            assert sorted(epoch) == sorted(job.lines)
        assert len({line.slot for line in own}) == 1
        # Those of an optimizer step together, and every step after the one before.
        sizes = collections.Counter(line.step for line in own)
        assert list(sizes.values()) == [len(batch) for batch in job.batches()]
        assert [line.step for line in own] == sorted(line.step for line in own)
        rates = {line.step: line.rate for line in own}
        assert [rates[step] for step in sizes] == job.rates().tolist()
        assert {line.clip for line in own} == {job.clip}


@hypothesis.settings(max_examples=60)
@hypothesis.given(lengths=workloads, loss=st.sampled_from(LOSSES), cfg=configs)
def test_arrays_hold_what_the_schedule_says(lengths, loss, cfg):
    jobs = make_jobs(lengths, loss=loss, most=cfg.step_tokens // cfg.row_tokens)
    needs = [
        [tuple(-(-job.positions()[i] // cfg.tile) for i in b) for b in job.batches()]
        for job in jobs
    ]
    assert needs == [plan.needs(job, cfg) for job in jobs]
    layout, steps = list(plan.schedule(needs, cfg)), steps_of(jobs, cfg)
    rows = [list(plan_arrays.rows(job, eos=EOS, multiple=cfg.tile)) for job in jobs]
    empty = plan_arrays.Steps(
        *(leaf[0] for leaf in plan_arrays.empty_steps(cfg, eos=EOS, count=1))
    )
    assert len(steps) == len(layout)
    for placed, step in zip(layout, steps, strict=True):
        want = plan_arrays.Steps(*map(np.copy, empty))
        starts, ends, segment = [], [], 0
        for k, (job, slot, index, tiles) in enumerate(placed):
            batch = zip(tiles, rows[job][index], needs[job][index], strict=True)
            for tile, row, need in batch:
                assert {len(leaf) for leaf in row.values()} == {need * cfg.tile}
                span = slice(tile * cfg.tile, (tile + need) * cfg.tile)
                for name in CONTENT:
                    getattr(want, name)[span] = row[name]
                want.segments[span], want.tiles[tile : tile + need] = segment, k
                segment += 1
            want.slots[k], want.clips[k] = slot, jobs[job].clip
            want.rates[k] = jobs[job].rates()[index]
            starts += [(slot, job)] * (index == 0)
            ends += [(slot, job)] * (index == jobs[job].total - 1)
        assert step.start_count == len(starts) and step.end_count == len(ends)
        assert list(map(tuple, step.starts[: len(starts)].tolist())) == starts
        assert list(map(tuple, step.ends[: len(ends)].tolist())) == ends
        for name in set(plan_arrays.Steps._fields) - {
            *("starts", "start_count", "ends", "end_count")
        }:
            np.testing.assert_array_equal(getattr(step, name), getattr(want, name))
        # No slot occurs twice, fillers included: the device writes them all at once.
        assert len(set(step.slots.tolist())) == cfg.active


def test_a_step_in_which_nobody_trains():
    cfg = PlanConfig(tile=4, row_tokens=8, step_tokens=16, slots=5, active=3)
    steps = plan_arrays.empty_steps(cfg, eos=EOS, count=2)
    want = {
        "tokens": np.full(16, EOS, np.int32),
        "targets": np.full(16, EOS, np.int32),
        "positions": np.zeros(16, np.int32),
        "weights": np.zeros(16, np.float32),
        "segments": np.full(16, -1, np.int32),
        "is_key": np.zeros(16, bool),
        "tiles": np.full(4, 3, np.int32),
        "slots": np.array([5, 6, 7], np.int32),
        "rates": np.zeros(3, np.float32),
        "clips": np.ones(3, np.float32),
        "starts": np.zeros((3, 2), np.int32),
        "start_count": np.zeros((), np.int32),
        "ends": np.zeros((3, 2), np.int32),
        "end_count": np.zeros((), np.int32),
    }
    assert set(want) == set(plan_arrays.Steps._fields)
    for name, leaf in want.items():
        got = getattr(steps, name)
        assert (got.shape, got.dtype) == ((2, *leaf.shape), leaf.dtype)
        for i in range(2):
            np.testing.assert_array_equal(got[i], leaf)
    assert len(plan_arrays.empty_steps(cfg, eos=EOS).tokens) == plan_arrays.BLOCK


def test_blocks_cut_the_steps_and_fill_the_last(monkeypatch):
    jobs = make_jobs([[3, 12, 8, 1], [20], [5, 5, 2], [9, 4]], loss=SAMPLED)
    (whole,) = plan_arrays.blocks(jobs, SMALL, eos=EOS)
    assert 7 < whole.length < plan_arrays.BLOCK and whole.length % 7
    monkeypatch.setattr(plan_arrays, "BLOCK", 7)
    cut = list(plan_arrays.blocks(jobs, SMALL, eos=EOS))
    assert [block.length for block in cut[:-1]] == [7] * (len(cut) - 1)
    assert sum(block.length for block in cut) == whole.length
    assert sum(block.updates for block in cut) == whole.updates
    assert sum(block.tokens for block in cut) == whole.tokens
    empty = plan_arrays.empty_steps(SMALL, eos=EOS, count=1)
    for n, leaf in enumerate(whole.steps):
        # All blocks have the same shapes, those of one compiled program.
        assert {block.steps[n].shape for block in cut} == {leaf.shape}
        joined = [block.steps[n][: block.length] for block in cut]
        np.testing.assert_array_equal(np.concatenate(joined), leaf[: whole.length])
        for block in (whole, *cut):
            for filler in block.steps[n][block.length :]:
                np.testing.assert_array_equal(filler, empty[n][0])
    # A plan that ends with a block has no empty one after it.
    monkeypatch.setattr(plan_arrays, "BLOCK", whole.length)
    assert [b.length for b in plan_arrays.blocks(jobs, SMALL, eos=EOS)] == [
        whole.length
    ]


@pytest.mark.parametrize("loss", LOSSES)
def test_blocks_count_updates_and_tokens(loss):
    lengths = [[3, 12, 8, 1], [20], [5, 24, 2], [9, 4]]
    jobs = make_jobs(lengths, loss=loss)
    (block,) = plan_arrays.blocks(jobs, SMALL, eos=EOS)
    assert block.updates == sum(len(job.lines) * job.epochs for job in jobs)

    def with_loss(job, n):
        # The line and its end; a line that fills pad_to has no position for the end.
        own = min(n, job.loss.pad_to - 1) if job.loss.mode == "reference" else n
        return own + job.loss.extra(n, max(map(len, job.lines)))

    assert block.tokens == sum(
        job.epochs * with_loss(job, n)
        for job, own in zip(jobs, lengths, strict=True)
        for n in own
    )
    weights = [step.weights for step in steps_of(jobs, SMALL)]
    assert block.tokens == np.count_nonzero(weights)


def test_given_tokens_count_as_trained_and_a_batch_as_one_update():
    jobs = make_jobs([[3, 12, 8, 1], [5, 20, 2], [9, 4]], most=3)
    assert [job.batch for job in jobs] == [2, 3, 1]
    (block,) = plan_arrays.blocks(
        jobs, dataclasses.replace(SMALL, step_tokens=72), eos=EOS
    )
    assert block.updates == 2 * 2 + 3 * 1 + 2 * 2
    assert block.tokens == 2 * 24 + 3 * 27 + 2 * 13
    assert np.count_nonzero(block.steps.weights) < block.tokens


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    lengths=workloads,
    chunk=st.sampled_from([4, 8, 24]),
    active=st.integers(1, 3),
    rows=st.integers(2, 3),
)
def test_an_adapter_has_a_place_in_each_chunk_of_its_lines(
    lengths, chunk, active, rows
):
    cfg = PlanConfig(4, 24, 24 * rows, 5, active, chunk)
    jobs = make_jobs(lengths, most=rows)
    lines = by_job(read(jobs, cfg))
    assert [len(lines[j]) for j in range(len(jobs))] == [
        job.epochs * len(job.lines) for job in jobs
    ]
    for block in plan_arrays.blocks(jobs, cfg, eos=EOS):
        for i in range(block.length):
            folds = block.extras.folds[i, : block.extras.fold_count[i]].tolist()
            assert (block.extras.folds[i, len(folds) :] == cfg.places).all()
            slots = block.steps.slots[i].tolist()
            by_slot = collections.defaultdict(list)
            for k, slot in enumerate(slots):
                by_slot[slot].append(k)
            used = {k for k in block.steps.tiles[i].tolist() if k < cfg.places}
            assert used == {k for k, slot in enumerate(slots) if slot < cfg.slots}
            # All places but one of a slot are added to that one; a filler has one.
            assert sorted(other for _, other in folds) == sorted(
                other for first, other in folds if slots[first] == slots[other]
            )
            first_of = {slots[first]: first for first, _ in folds}
            for slot, places in by_slot.items():
                others = [k for k in places if k != first_of.get(slot, places[0])]
                assert sorted(o for _, o in folds if slots[o] == slot) == others


def test_without_chunks_nothing_is_added():
    (block,) = plan_arrays.blocks(make_jobs([[3], [4]]), SMALL, eos=EOS)
    assert block.extras == plan_arrays.Extras()


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_job_trains_does_not_depend_on_scheduling(loss):
    lengths = [[3, 12, 8, 1], [20], [5, 5, 2], [9, 4, 7, 11, 6]]
    jobs = make_jobs(lengths, loss=loss, most=2)
    first = by_job(read(jobs, SMALL))

    def same(a: list[Line], b: list[Line]) -> None:
        for one, other in zip(a, b, strict=True):
            assert (one.rate, one.clip) == (other.rate, other.clip)
            real = one.leaves["weights"] != 0
            for name in CONTENT:
                there = other.leaves[name][other.leaves["weights"] != 0]
                np.testing.assert_array_equal(one.leaves[name][real], there)

    for changes in (
        {"slots": 1, "active": 1},
        {"slots": 9, "active": 2},
        {"step_tokens": 24},
        {"tile": 1, "row_tokens": 30, "step_tokens": 90, "slots": 4, "active": 4},
    ):
        other = by_job(read(jobs, dataclasses.replace(SMALL, **changes)))
        for j in range(len(jobs)):
            same(first[j], other[j])
    # Nor on the neighbours, nor on the place among them.
    other = by_job(read([jobs[3], jobs[1]], SMALL))
    same(first[3], other[0])
    same(first[1], other[1])


def test_no_jobs_make_no_blocks():
    assert list(plan_arrays.blocks([], SMALL, eos=EOS)) == []


def test_a_line_that_does_not_fit_a_row_is_refused():
    jobs = make_jobs([[3], [25]])
    with pytest.raises(ValueError, match=r"takes 25 .*row_tokens=24; use 28 or more"):
        list(plan_arrays.blocks(jobs, SMALL, eos=EOS))
    # Its pads count.
    loss = LossConfig("reference", 64, -1)
    with pytest.raises(ValueError, match="takes 63 positions"):
        list(plan_arrays.blocks(make_jobs([[3], [3]], loss=loss), SMALL, eos=EOS))


@pytest.mark.parametrize(
    ("lengths", "batch", "fits", "instead"),
    [
        # A row of 24 holds two lines of 12, in tiles of 4; the step has two rows.
        ((12, 12, 12, 12), 4, True, 0),
        ((12, 12, 12, 13), 4, False, 96),
        ((24, 24), 2, True, 0),
        ((24, 24, 1), 3, False, 72),
        ((23, 9, 9), 3, True, 0),
    ],
)
def test_lines_of_one_step_that_do_not_fit_together_are_refused(
    lengths, batch, fits, instead
):
    (job,) = make_jobs([lengths])
    job = dataclasses.replace(job, batch=batch)
    if fits:
        assert sum(block.length for block in plan_arrays.blocks([job], SMALL, eos=EOS))
        return
    message = rf"which one step trains, .*step_tokens=48 .*row_tokens=24; use {instead}"
    with pytest.raises(ValueError, match=message) as refused:
        list(plan_arrays.blocks([job], SMALL, eos=EOS))
    assert "\n" not in str(refused.value)
    larger = dataclasses.replace(SMALL, step_tokens=instead)
    assert list(plan_arrays.blocks([job], larger, eos=EOS))
    # One by one they do.
    alone = dataclasses.replace(job, batch=1)
    assert list(plan_arrays.blocks([alone], SMALL, eos=EOS))


def digest(jobs, cfg) -> str:
    """Of every array of a plan."""
    made = hashlib.sha256()
    for block in plan_arrays.blocks(jobs, cfg, eos=EOS):
        made.update(repr(block[1:]).encode())
        for leaf in block.steps:
            made.update(leaf.tobytes())
    return made.hexdigest()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_plan_is_the_same_in_another_process(child_env, hash_seed):
    lengths = [[3, 12, 8, 1], [20], [5, 5, 2], [4, 4, 4]]
    jobs = make_jobs(lengths, loss=PADDED_SAMPLED, most=2)
    code = (
        "import hashlib\n"
        "from seal_jax.training import plan_arrays\n"
        "from seal_jax.training.plan import Job, LossConfig, PlanConfig\n"
        "made = hashlib.sha256()\n"
        f"for block in plan_arrays.blocks({jobs!r}, {SMALL!r}, eos={EOS}):\n"
        "    made.update(repr(block[1:]).encode())\n"
        "    for leaf in block.steps:\n"
        "        made.update(leaf.tobytes())\n"
        "print(made.hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=child_env | {"PYTHONHASHSEED": hash_seed},
    )
    assert done.stderr == ""
    assert done.stdout.strip() == digest(jobs, SMALL)
