"""The rows of a step: tokens, targets, weights and pads, laid by hand beside."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from test_plan_jobs import EOS, MASKED, PADDED, SAMPLED, job

from seal_jax.training import plan_arrays
from seal_jax.training.settings import LossConfig

IDS = (11, 12, 13)


def make_row(loss, *, width=8, ids=IDS, seed=0, given=()):
    """The row of a line that is its step's and its job's only one."""
    own = job((ids,), loss=loss, given=given, epochs=1, seed=(seed,))
    ((row,),) = plan_arrays.rows(own, eos=0, multiple=width)
    return row


def same_row(row, **expected):
    got = {name: leaf.tolist() for name, leaf in row.items()}
    expected["weights"] = np.float32(expected["weights"]).tolist()
    expected["is_key"] = [bool(k) for k in expected["is_key"]]
    assert got == expected


def test_a_masked_row():
    same_row(
        make_row(MASKED, width=5),
        tokens=[11, 12, 13, 0, 0],
        targets=[12, 13, 0, 0, 0],
        positions=[0, 1, 2, 0, 0],
        weights=[1 / 3, 1 / 3, 1 / 3, 0, 0],
        is_key=[1, 1, 1, 0, 0],
    )


def test_a_masked_row_of_which_two_tokens_are_given():
    same_row(
        make_row(MASKED, width=5, given=(2,)),
        tokens=[11, 12, 13, 0, 0],
        targets=[12, 13, 0, 0, 0],
        positions=[0, 1, 2, 0, 0],
        weights=[0, 1 / 2, 1 / 2, 0, 0],
        is_key=[1, 1, 1, 0, 0],
    )


@pytest.mark.parametrize(
    ("loss", "weight"), [(MASKED, 1 / 2), (SAMPLED, 1 / 24), (PADDED, 1 / 2)]
)
def test_nothing_follows_a_line_that_is_cut(loss, weight):
    """As the reference truncates: no end-of-text and no pads, whatever the mode."""
    own = job((IDS,), loss=loss, cut=(0,), epochs=1)
    ((row,),) = plan_arrays.rows(own, eos=0, multiple=5)
    same_row(
        row,
        tokens=[11, 12, 13, 0, 0],
        targets=[12, 13, 0, 0, 0],
        positions=[0, 1, 2, 0, 0],
        weights=[weight, weight, 0, 0, 0],
        is_key=[1, 1, 1, 0, 0],
    )
    assert (own.positions(), own.targets()) == ([3], [2])


@hypothesis.given(
    lengths=st.lists(st.integers(2, 9), min_size=1, max_size=5),
    batch=st.integers(1, 4),
    cut=st.sets(st.integers(0, 4)),
)
def test_the_lines_beside_a_cut_one_keep_their_end(lengths, batch, cut):
    cut = tuple(i for i in sorted(cut) if i < len(lengths))
    lines = tuple(tuple(range(1, n + 1)) for n in lengths)
    own = job(lines, batch=batch, loss=MASKED, cut=cut, epochs=1)
    for step, rows in zip(
        own.batches(), plan_arrays.rows(own, eos=0, multiple=3), strict=True
    ):
        ends = [int(row["targets"][row["weights"] > 0][-1]) for row in rows]
        assert ends == [lengths[i] if i in cut else 0 for i in step]
        assert sum(row["weights"].sum() for row in rows) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("cut", [(1,), (-1,), (3,)])
def test_a_cut_line_has_a_target(cut):
    with pytest.raises(ValueError, match="must be places of the 2 training lines with"):
        job(((1, 2), (3,)), cut=cut)


def test_a_padded_step():
    # Rows of 5 tokens: 11 12 | 0 0 0 with one given, 21 22 23 24 | 0 with three.
    own = job(
        ((11, 12), (21, 22, 23, 24)), loss=PADDED, batch=2, given=(1, 3), epochs=1
    )
    (step,) = plan_arrays.rows(own, eos=0, multiple=2)
    short, long = step if own.order() == [0, 1] else step[::-1]
    same_row(
        short,
        tokens=[11, 12, 0, 0],
        targets=[12, 0, 0, 0],
        positions=[0, 1, 2, 3],
        weights=[1 / 6] * 4,
        is_key=[1, 1, 0, 0],
    )
    same_row(
        long,
        tokens=[21, 22, 23, 24],
        targets=[22, 23, 24, 0],
        positions=[0, 1, 2, 3],
        weights=[0, 0, 1 / 6, 1 / 6],
        is_key=[1] * 4,
    )


@hypothesis.given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    batch=st.integers(1, 4),
    mode=st.sampled_from(["masked", "padded"]),
    data=st.data(),
)
def test_the_targets_of_a_step_are_those_of_rows_padded_by_hand(
    lengths, batch, mode, data
):
    lines = tuple(
        tuple(range(20 * i + 1, 20 * i + n + 1)) for i, n in enumerate(lengths)
    )
    given = tuple(data.draw(st.integers(1, n)) for n in lengths)
    loss = LossConfig(mode, 2, -1)
    own = job(lines, batch=batch, given=given, loss=loss, epochs=1)
    for step, rows in zip(
        own.batches(), plan_arrays.rows(own, eos=0, multiple=3), strict=True
    ):
        seen = sorted(
            (line, int(at), int(target), float(weight))
            for line, row in zip(step, rows, strict=True)
            for at, target, weight in zip(
                row["positions"], row["targets"], row["weights"], strict=True
            )
            if weight
        )
        by_hand = []
        for line in step:
            ends = 1 if mode == "masked" else max(lengths) + 1 - lengths[line]
            row = [*lines[line], *[0] * ends]
            by_hand += [(line, t - 1, row[t]) for t in range(given[line], len(row))]
        mean = float(np.float32(1 / len(by_hand)))
        assert seen == sorted((*target, mean) for target in by_hand)


@hypothesis.given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    batch=st.integers(1, 4),
    samples=st.integers(-1, 9),
)
def test_the_weights_of_a_padded_step_are_a_mean(lengths, batch, samples):
    lines, loss = (
        tuple((1,) * n for n in lengths),
        LossConfig("padded", 2, samples),
    )
    own = job(lines, batch=batch, loss=loss, epochs=1)
    for step, rows in zip(
        own.batches(), plan_arrays.rows(own, eos=0, multiple=1), strict=True
    ):
        assert [len(row["tokens"]) for row in rows] == [
            own.positions()[i] for i in step
        ]
        total = sum(row["weights"].sum() for row in rows)
        if samples:
            assert total == pytest.approx(1, rel=1e-5)
        else:
            kept = sum(lengths[i] for i in step) / (max(lengths) * len(step))
            assert total == pytest.approx(kept, rel=1e-5)


def test_a_line_keeps_its_tokens_but_not_its_weights():
    """Rows are laid once; what a step's mean divides by is its batch's."""
    own = job(((1,) * 2, (2,) * 4, (3,) * 6), batch=2, epochs=20)
    seen = set()
    for step, rows in zip(
        own.batches(), plan_arrays.rows(own, eos=0, multiple=2), strict=True
    ):
        count = sum(len(own.lines[i]) for i in step)
        for i, row in zip(step, rows, strict=True):
            n = len(own.lines[i])
            assert row["tokens"][:n].tolist() == list(own.lines[i])
            np.testing.assert_array_equal(row["weights"][:n], np.float32(1 / count))
            seen.add((i, count))
    assert len(seen) > 6


def test_a_reference_row_with_all_its_pads():
    # 7 positions make 6 targets: two in the line, its end, and three pads.
    same_row(
        make_row(LossConfig("reference", 7, -1)),
        tokens=[11, 12, 13, 0, 0, 0, 0, 0],
        targets=[12, 13, 0, 0, 0, 0, 0, 0],
        positions=[0, 1, 2, 3, 4, 5, 0, 0],
        weights=[1 / 7] * 6 + [0, 0],
        is_key=[1, 1, 1, 0, 0, 0, 0, 0],
    )


def test_a_reference_row_without_sampled_pads():
    row = make_row(LossConfig("reference", 7, 0))
    assert row["weights"].tolist() == np.float32([1 / 7] * 3 + [0] * 5).tolist()


def test_a_line_that_fills_the_reference_row_has_no_target_at_its_end():
    row = make_row(LossConfig("reference", 3, -1), width=4)
    assert row["weights"].tolist() == np.float32([1 / 3, 1 / 3, 0, 0]).tolist()


def test_sampled_pads_stand_for_strata_of_the_pads():
    # 13 targets: 3 of the line and 10 pads at 3..12, in strata 3-5, 6-8, 9-12.
    loss = LossConfig("reference", 14, 3)
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
    loss = LossConfig("reference", pad_to, samples)
    ids = tuple(range(1, min(length, pad_to) + 1))
    width = len(ids) + loss.extra(len(ids)) + 2
    row = make_row(loss, ids=ids, width=width)
    if samples:
        assert row["weights"].sum() == pytest.approx((pad_to - 1) / pad_to, rel=1e-5)
    # A pad queries from behind the line.
    pads = row["positions"][len(ids) : len(ids) + loss.extra(len(ids))]
    assert ((pads >= len(ids)) & (pads < pad_to - 1)).all()
    assert (np.diff(pads) > 0).all()


def test_pads_are_drawn_anew_at_every_step_and_by_seed():
    def pads(seed):
        own = job(((1, 2, 3),), epochs=12, loss=SAMPLED, seed=seed)
        return [
            tuple(row["positions"][3:6].tolist())
            for (row,) in plan_arrays.rows(own, eos=EOS, multiple=4)
        ]

    first = pads((0, 1))
    assert len(first) == 12
    assert len(set(first)) > 6
    assert pads((0, 1)) == first
    assert pads((0, 2)) != first
