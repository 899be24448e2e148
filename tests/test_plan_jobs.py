"""One adapter's training as data: the order of its lines, its rates, its rows."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from seal_jax import plan

EOS = 9999
MASKED = plan.LossConfig("masked", 64, 0)
WHOLE, SAMPLED, UNSAMPLED = (plan.LossConfig("reference", 24, n) for n in (-1, 3, 0))
LOSSES = (MASKED, WHOLE, SAMPLED, UNSAMPLED)


def job(lines=((1, 2),) * 12, **changes) -> plan.Job:
    base = {"epochs": 4, "learning_rate": 1e-3, "clip": 1.0, "loss": MASKED}
    return plan.Job(lines, **({"seed": (0, 1)} | base | changes))


def test_epochs_are_shuffled_anew_and_seeds_differ():
    order = job().order()
    epochs = [tuple(order[i : i + 12]) for i in range(0, 48, 12)]
    assert len(set(epochs)) == 4
    assert {tuple(sorted(epoch)) for epoch in epochs} == {tuple(range(12))}
    assert job().order() == order
    assert job(seed=(0, 2)).order() != order
    # What else there is to a job does not change its order.
    assert job(learning_rate=1.0, clip=2.0, loss=SAMPLED).order() == order


def test_the_learning_rate_falls_linearly_to_zero():
    rates = job(((1,), (2,)), epochs=2, learning_rate=8e-3).rates()
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, [8e-3, 6e-3, 4e-3, 2e-3], rtol=1e-6)
    rates = job(((1,),) * 67, epochs=10, learning_rate=1e-3).rates()
    assert rates[0] == np.float32(1e-3)
    np.testing.assert_allclose(np.diff(rates), -1e-3 / 670, rtol=1e-3)
    np.testing.assert_allclose(rates[-1], 1e-3 / 670, rtol=1e-3)


def test_steps_and_positions():
    three = ((1,) * 3, (1,) * 22, (1,) * 24)
    assert job(three).total == 12
    assert job(three, epochs=1).total == 3
    assert job(three).positions() == [3, 22, 24]
    assert job(three, loss=WHOLE).positions() == [23, 23, 24]
    assert job(three, loss=SAMPLED).positions() == [6, 23, 24]
    assert job(three, loss=UNSAMPLED).positions() == [3, 22, 24]


def test_pads_are_drawn_anew_at_every_step_and_by_seed():
    def pads(seed):
        own = job(((1, 2, 3),), epochs=12, loss=SAMPLED, seed=seed)
        return [
            tuple(row["positions"][3:6].tolist())
            for row in own.rows(eos=EOS, multiple=4)
        ]

    first = pads((0, 1))
    assert len(first) == 12
    assert len(set(first)) > 6
    assert pads((0, 1)) == first
    assert pads((0, 2)) != first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lines": ()}, "0 lines and 4 epochs"),
        ({"epochs": 0}, "12 lines and 0 epochs"),
        ({"lines": ((1,), ())}, "line 1 has 0 tokens.*at least 1"),
        ({"lines": ((1,) * 25,), "loss": WHOLE}, "line 0 has 25 tokens.*pad_to=24"),
    ],
)
def test_a_job_that_trains_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        job(**changes)


# Rows

IDS = (11, 12, 13)


def make_row(loss, *, width=8, ids=IDS, seed=0):
    rng = np.random.default_rng(seed)
    return plan.make_row(ids, loss, width=width, eos=0, rng=rng)


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


def test_a_reference_row_with_all_its_pads():
    # 7 positions make 6 targets: two in the line, its end, and three pads.
    same_row(
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


def test_a_line_that_fills_the_reference_row_has_no_target_at_its_end():
    row = make_row(plan.LossConfig("reference", 3, -1), width=4)
    assert row["weights"].tolist() == np.float32([1 / 3, 1 / 3, 0, 0]).tolist()


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


# Losses


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("width", [1, 3, 4, 22, 23, 24, 30])
def test_the_longest_line_is_the_longest_that_fits(loss, width):
    limit = width if loss.mode == "masked" else min(width, loss.pad_to)
    fitting = [n for n in range(1, limit + 1) if n + loss.extra(n) <= width]
    if not fitting:
        message = rf"inner\.row_tokens={width} .* {loss.extra(1)} pads; use 24"
        with pytest.raises(ValueError, match=message):
            loss.longest(width)
        assert loss.longest(24) == 24
    else:
        assert loss.longest(width) == max(fitting)


@pytest.mark.parametrize(
    ("mode", "pad_to", "samples", "message"),
    [
        ("padded", 64, 0, r"inner\.loss\.mode='padded' must be 'masked' or"),
        ("masked", 1, 0, r"inner\.loss\.pad_to=1 must be at least 2"),
        ("reference", 0, 0, r"inner\.loss\.pad_to=0 must be at least 2"),
        ("reference", 64, -2, r"inner\.loss\.pad_samples=-2 must be -1 \(all pads\)"),
    ],
)
def test_losses_that_mean_nothing_are_refused(mode, pad_to, samples, message):
    with pytest.raises(ValueError, match=message) as refused:
        plan.LossConfig(mode, pad_to, samples)
    assert "\n" not in str(refused.value)
