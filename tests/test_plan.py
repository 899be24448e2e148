"""The planner against brute force: who trains what, when, and in which arrays."""

import dataclasses
import subprocess
import sys
from collections import defaultdict

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from seal_jax import plan

EOS = 9999
MASKED = plan.LossConfig("masked", 64, 0)
LOSSES = (
    MASKED,
    plan.LossConfig("reference", 24, -1),
    plan.LossConfig("reference", 24, 3),
    plan.LossConfig("reference", 24, 0),
)


def config(loss=MASKED, **changes):
    base = {"epochs": 3, "length_classes": (4, 9, 24), "step_tokens": 48}
    return plan.PlanConfig(loss=loss, **(base | changes))


def make_jobs(lengths, seed=0):
    """Jobs of which every line begins with a token of its own: its name."""
    return [
        plan.Job(
            tuple(
                (100 * (j + 1) + i, *range(1, length)) for i, length in enumerate(own)
            ),
            (seed, j, 7),
        )
        for j, own in enumerate(lengths)
    ]


@dataclasses.dataclass
class Trained:
    """What a plan did: per slot its line indices and rows in order, and the steps."""

    lines: dict[int, list[int]]
    rows: dict[int, list[dict]]
    steps: list[plan.Step]


def walk(jobs, cfg, *, slots):
    done = Trained(defaultdict(list), defaultdict(list), [])
    for step in plan.steps(jobs, cfg, slots=slots, eos=EOS):
        done.steps.append(step)
        for slot, *leaves in zip(step.slots, *step.rows.values(), strict=True):
            if slot < slots:
                row = dict(zip(step.rows, leaves, strict=True))
                done.lines[int(slot)].append(int(row["tokens"][0]) % 100)
                done.rows[int(slot)].append(row)
    return done


workloads = st.lists(
    st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=1, max_size=7
)


@hypothesis.settings(max_examples=80)
@hypothesis.given(
    lengths=workloads,
    loss=st.sampled_from(LOSSES),
    spare=st.integers(0, 3),
    step_tokens=st.sampled_from([1, 24, 48, 200]),
    epochs=st.integers(1, 4),
)
def test_every_job_trains_each_line_once_an_epoch(
    lengths, loss, spare, step_tokens, epochs
):
    jobs, slots = make_jobs(lengths), len(lengths) + spare
    cfg = config(loss, epochs=epochs, step_tokens=step_tokens)
    done = walk(jobs, cfg, slots=slots)
    for j, job in enumerate(jobs):
        count = len(job.lines)
        assert len(done.lines[j]) == epochs * count
        for start in range(0, epochs * count, count):
            epoch = done.lines[j][start : start + count]
            assert sorted(epoch) == list(range(count))
        # Whole lines, as they were given.
        for index, row in zip(done.lines[j], done.rows[j], strict=True):
            line = job.lines[index]
            assert row["tokens"][row["is_key"]].tolist() == list(line)
            assert row["is_key"][: len(line)].all()
    assert set(done.lines) == set(range(len(jobs)))


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    lengths=workloads,
    loss=st.sampled_from(LOSSES),
    step_tokens=st.sampled_from([1, 24, 48, 200]),
)
def test_steps_are_well_formed_and_greedy(lengths, loss, step_tokens):
    jobs, slots = make_jobs(lengths), len(lengths) + 1
    cfg = config(loss, step_tokens=step_tokens)
    order = walk(jobs, cfg, slots=slots).lines
    at = dict.fromkeys(range(len(jobs)), 0)

    def width_of(job: int) -> int:
        """The narrowest class of the job's next line, by looking at each."""
        length = len(jobs[job].lines[order[job][at[job]]])
        needed = length + loss.extra(length)
        return min(w for w in cfg.length_classes if needed <= w)

    for step in plan.steps(jobs, cfg, slots=slots, eos=EOS):
        width = step.rows["tokens"].shape[1]
        count = max(1, min(slots, step_tokens // width))
        assert {leaf.shape for leaf in step.rows.values()} == {(count, width)}
        assert step.slots.shape == (count,)
        real = [int(slot) for slot in step.slots if slot < slots]
        assert len(real) == len(set(real)) >= 1
        assert set(step.slots.tolist()) - set(real) <= {slots}
        waiting = {j: width_of(j) for j in at if at[j] < len(order[j])}
        assert {waiting[j] for j in real} == {width}
        # It takes as many as there is room for, those with the most steps left.
        same = [j for j in waiting if waiting[j] == width]
        assert len(real) == min(count, len(same))
        left = {j: len(order[j]) - at[j] for j in same}
        passed_over = [left[j] for j in same if j not in real]
        assert max(passed_over, default=0) <= min(left[j] for j in real)

        # No other class would have filled its rows better.
        def filled(w, waiting=waiting):
            room = max(1, min(slots, step_tokens // w))
            return min(1.0, sum(v == w for v in waiting.values()) / room)

        assert filled(width) == max(map(filled, cfg.length_classes))
        for j in real:
            at[j] += 1
    assert all(at[j] == len(order[j]) for j in at)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_job_trains_does_not_depend_on_scheduling(loss):
    lengths = [[3, 12, 8, 1], [20], [5, 5, 2], [9, 4, 17, 11, 6]]
    jobs = make_jobs(lengths)
    first = walk(jobs, config(loss), slots=4)
    for step_tokens, slots in [(1, 4), (24, 6), (1000, 9)]:
        other = walk(jobs, config(loss, step_tokens=step_tokens), slots=slots)
        assert other.lines == first.lines
        for j in range(len(jobs)):
            for a, b in zip(first.rows[j], other.rows[j], strict=True):
                for name, leaf in a.items():
                    np.testing.assert_array_equal(leaf, b[name])
    # Nor on its neighbours.
    alone = walk(jobs[3:], config(loss), slots=1)
    assert alone.lines[0] == first.lines[3]


def test_epochs_are_shuffled_anew_and_seeds_differ():
    line = ((1, 2),) * 12
    order = plan.orders(plan.Job(line, (0, 1)), 4)
    epochs = {tuple(order[i : i + 12]) for i in range(0, 48, 12)}
    assert len(epochs) == 4
    assert plan.orders(plan.Job(line, (0, 2)), 4) != order


def test_a_plan_is_the_same_in_another_process(child_env):
    jobs = make_jobs([[3, 12, 8, 1], [20], [5, 5, 2]])
    cfg = config(LOSSES[2])
    code = (
        "from seal_jax import plan\n"
        f"loss = plan.{cfg.loss!r}\n"
        "PlanConfig, LossConfig, Job = plan.PlanConfig, plan.LossConfig, plan.Job\n"
        f"jobs, cfg = {jobs!r}, {cfg!r}\n"
        f"for s in plan.steps(jobs, cfg, slots=4, eos={EOS}):\n"
        "    print(s.slots.tolist(), s.rows['positions'].tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=child_env
    )
    assert done.stderr == ""
    here = [
        f"{s.slots.tolist()} {s.rows['positions'].tolist()}"
        for s in plan.steps(jobs, cfg, slots=4, eos=EOS)
    ]
    assert done.stdout.splitlines() == here


# Rows

IDS = (11, 12, 13)


def make_row(loss, *, width=8, ids=IDS, seed=0):
    rng = np.random.default_rng(seed)
    return plan.make_row(ids, loss, width=width, eos=0, rng=rng)


def same(row, **expected):
    got = {name: leaf.tolist() for name, leaf in row.items()}
    expected["weights"] = np.float32(expected["weights"]).tolist()
    expected["is_key"] = [bool(k) for k in expected["is_key"]]
    assert got == expected


def test_a_masked_row():
    same(
        make_row(MASKED, width=5),
        tokens=[11, 12, 13, 0, 0],
        targets=[12, 13, 0, 0, 0],
        positions=[0, 1, 2, 0, 0],
        weights=[1 / 3, 1 / 3, 1 / 3, 0, 0],
        is_key=[1, 1, 1, 0, 0],
    )


def test_a_reference_row_with_all_its_pads():
    # 7 positions make 6 targets: two in the line, its end, and three pads.
    same(
        make_row(plan.LossConfig("reference", 7, -1)),
        tokens=[11, 12, 13, 0, 0, 0, 0, 0],
        targets=[12, 13, 0, 0, 0, 0, 0, 0],
        positions=[0, 1, 2, 3, 4, 5, 0, 0],
        weights=[1 / 7] * 6 + [0, 0],
        is_key=[1, 1, 1, 0, 0, 0, 0, 0],
    )


def test_a_reference_row_without_sampled_pads():
    row = make_row(plan.LossConfig("reference", 7, 0))
    assert row["weights"].tolist() == np.float32([1 / 7] * 3 + [0] * 5).tolist()


def test_sampled_pads_stand_for_strata_of_the_pads():
    # 13 targets: 3 of the line and 10 pads at 3..12, in strata 3-5, 6-8, 9-12.
    loss = plan.LossConfig("reference", 14, 3)
    seen = [set(), set(), set()]
    for seed in range(200):
        row = make_row(loss, width=7, seed=seed)
        for stratum, position in zip(seen, row["positions"][3:6], strict=True):
            stratum.add(int(position))
        weights = [1, 1, 1, 3, 3, 4, 0]
        expected = np.float32(weights) / np.float32(14)
        np.testing.assert_allclose(row["weights"], expected, rtol=1e-6)
        assert row["is_key"].tolist() == [True] * 3 + [False] * 4
    assert seen == [{3, 4, 5}, {6, 7, 8}, {9, 10, 11, 12}]


@hypothesis.given(
    length=st.integers(1, 40), pad_to=st.integers(2, 40), samples=st.integers(-1, 9)
)
def test_weights_count_every_position_but_the_last(length, pad_to, samples):
    loss = plan.LossConfig("reference", pad_to, samples)
    ids = tuple(range(1, min(length, pad_to) + 1))
    width = len(ids) + loss.extra(len(ids)) + 2
    row = make_row(loss, ids=ids, width=width)
    if samples:
        assert row["weights"].sum() == pytest.approx((pad_to - 1) / pad_to, rel=1e-5)
    # A pad queries from behind the line.
    pads = row["positions"][len(ids) : len(ids) + loss.extra(len(ids))]
    assert ((pads >= len(ids)) & (pads < pad_to - 1)).all()
    assert (np.diff(pads) > 0).all()


@pytest.mark.parametrize(
    ("loss", "tokens", "extra"),
    [
        (MASKED, 3, 0),
        (plan.LossConfig("reference", 7, -1), 3, 3),
        (plan.LossConfig("reference", 7, -1), 6, 0),
        (plan.LossConfig("reference", 7, -1), 7, 0),
        (plan.LossConfig("reference", 2048, 8), 100, 8),
        (plan.LossConfig("reference", 2048, 8), 2044, 3),
        (plan.LossConfig("reference", 2048, 0), 100, 0),
    ],
)
def test_pads_that_are_computed_beside_a_line(loss, tokens, extra):
    assert loss.extra(tokens) == extra


# Limits


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("widest", [4, 23, 24, 30])
def test_the_longest_line_is_the_longest_that_fits(loss, widest):
    cfg = config(loss, length_classes=(widest,))
    limit = widest if loss.mode == "masked" else min(widest, loss.pad_to)
    fitting = [n for n in range(1, limit + 1) if n + loss.extra(n) <= widest]
    if not fitting:
        with pytest.raises(ValueError, match=r"length_classes=\(4,\).*class of 24"):
            cfg.longest_line()
    else:
        assert cfg.longest_line() == fitting[-1]


def test_a_line_wider_than_every_class_is_refused():
    with pytest.raises(ValueError, match=r"25 positions.*length_classes.*at least 25"):
        list(plan.steps(make_jobs([[3], [25]]), config(), slots=2, eos=EOS))


def test_more_jobs_than_slots_are_refused():
    with pytest.raises(ValueError, match="3 jobs need as many slots, there are 2"):
        list(plan.steps(make_jobs([[3]] * 3), config(), slots=2, eos=EOS))


def test_no_jobs_make_no_steps():
    assert list(plan.steps([], config(), slots=2, eos=EOS)) == []
