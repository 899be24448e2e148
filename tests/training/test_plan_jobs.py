"""One adapter's training as data: the order of its lines, its rates, its targets."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import optax
import pytest

from seal_jax.training import plan
from seal_jax.training.settings import LossConfig

EOS = 9999
MASKED = LossConfig("masked", 64, 0)
WHOLE, SAMPLED, UNSAMPLED = (LossConfig("reference", 24, n) for n in (-1, 3, 0))
PADDED, PADDED_SAMPLED, PADDED_UNSAMPLED = (
    LossConfig("padded", 2, n) for n in (-1, 3, 0)
)
LOSSES = (
    *(MASKED, WHOLE, SAMPLED, UNSAMPLED),
    *(PADDED, PADDED_SAMPLED, PADDED_UNSAMPLED),
)


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
    assert job(batch=5, given=(2,) * 12, warmup=3, schedule="cosine").order() == order


@hypothesis.given(
    count=st.integers(1, 9), batch=st.integers(1, 11), epochs=st.integers(1, 4)
)
def test_a_step_takes_the_next_lines_of_its_epoch(count, batch, epochs):
    own = job(((1, 2),) * count, batch=batch, epochs=epochs)
    steps = own.batches()
    assert len(steps) == own.total == epochs * math.ceil(count / batch)
    assert [i for step in steps for i in step] == own.order()
    for start in range(0, own.total, own.total // epochs):
        epoch = steps[start : start + own.total // epochs]
        assert sorted(i for step in epoch for i in step) == list(range(count))
        # Only its last step may be short.
        assert {len(step) for step in epoch[:-1]} <= {batch}
        assert 1 <= len(epoch[-1]) <= batch


def test_the_learning_rate_falls_linearly_to_zero():
    rates = job(((1,), (2,)), epochs=2, learning_rate=8e-3).rates()
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, [8e-3, 6e-3, 4e-3, 2e-3], rtol=1e-6)
    rates = job(((1,),) * 67, epochs=10, learning_rate=1e-3).rates()
    assert rates[0] == np.float32(1e-3)
    np.testing.assert_allclose(np.diff(rates), -1e-3 / 670, rtol=1e-3)
    np.testing.assert_allclose(rates[-1], 1e-3 / 670, rtol=1e-3)


def hugging_face(schedule: str, step: int, warmup: int, total: int) -> float:
    """The factor of `get_{linear,cosine}_schedule_with_warmup`, as documented."""
    if step < warmup:
        return step / warmup
    done = (step - warmup) / (total - warmup)
    return 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 3, 11, 47, 48, 60])
def test_the_learning_rate_warms_up_and_decays(schedule, warmup):
    own = job(batch=1, learning_rate=2e-4, warmup=warmup, schedule=schedule)
    rates = own.rates()
    assert (len(rates), rates.dtype) == (48, np.float32)
    expected = [2e-4 * hugging_face(schedule, s, warmup, 48) for s in range(48)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=0)
    assert rates[0] == (0 if warmup else np.float32(2e-4))
    if warmup >= 48:
        return
    if schedule == "cosine":
        theirs = optax.warmup_cosine_decay_schedule(0.0, 2e-4, warmup, 48)
    else:
        theirs = optax.join_schedules(
            [
                optax.linear_schedule(0.0, 2e-4, warmup),
                optax.linear_schedule(2e-4, 0.0, 48 - warmup),
            ],
            [warmup],
        )
    theirs = [float(theirs(s)) for s in range(48)]
    np.testing.assert_allclose(rates, theirs, rtol=1e-5, atol=1e-11)


# What `get_{linear,cosine}_schedule_with_warmup(optimizer, 3, 10)` of transformers 5.23
# set `optimizer.param_groups[0]["lr"]` to, before each of 10 steps at a rate of 1.
TRANSFORMERS = {
    "linear": [
        *(0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 0.8571428571428571),
        *(0.7142857142857143, 0.5714285714285714, 0.42857142857142855),
        *(0.2857142857142857, 0.14285714285714285),
    ],
    "cosine": [
        *(0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 0.9504844339512095),
        *(0.8117449009293668, 0.6112604669781572, 0.38873953302184283),
        *(0.18825509907063326, 0.04951556604879048),
    ],
}


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_learning_rates_are_those_of_transformers(schedule):
    own = job(
        ((1,),) * 9, epochs=2, batch=2, warmup=3, learning_rate=1.0, schedule=schedule
    )
    np.testing.assert_allclose(own.rates(), TRANSFORMERS[schedule], rtol=1e-6)


def test_the_rates_follow_the_steps_and_not_the_lines():
    # 5 lines make 3 steps of two.
    rates = job(((1,),) * 5, epochs=2, batch=2, learning_rate=6.0).rates()
    np.testing.assert_allclose(rates, [6, 5, 4, 3, 2, 1], rtol=1e-6)


def test_steps_and_positions():
    three = ((1,) * 3, (1,) * 22, (1,) * 24)
    assert job(three).total == 12
    assert job(three, epochs=1).total == 3
    assert job(three).positions() == [3, 22, 24]
    assert job(three, loss=WHOLE).positions() == [23, 23, 24]
    assert job(three, loss=SAMPLED).positions() == [6, 23, 24]
    assert job(three, loss=UNSAMPLED).positions() == [3, 22, 24]
    assert job(three, loss=PADDED).positions() == [24, 24, 24]
    assert job(three, loss=PADDED_SAMPLED).positions() == [6, 24, 24]
    assert job(three, loss=PADDED_UNSAMPLED).positions() == [3, 22, 24]


def test_targets():
    three, given = ((1,) * 3, (1,) * 22, (1,) * 24), (3, 1, 20)
    assert job(three).targets() == [3, 22, 24]
    assert job(three, given=given).targets() == [1, 22, 5]
    for loss in (PADDED, PADDED_SAMPLED, PADDED_UNSAMPLED):
        # Rows of 25 tokens, whose first nothing predicts.
        assert job(three, loss=loss).targets() == [24, 24, 24]
        assert job(three, loss=loss, given=given).targets() == [22, 24, 5]
    assert job(three, loss=SAMPLED).targets() == [23, 23, 23]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lines": ()}, "0 lines and 4 epochs"),
        ({"epochs": 0}, "12 lines and 0 epochs"),
        ({"lines": ((1,), ())}, "line 1 has 0 tokens.*at least 1"),
        ({"lines": ((1,) * 25,), "loss": WHOLE}, "line 0 has 25 tokens.*pad_to=24"),
        ({"batch": 0}, "batch=0 lines a step must be at least 1"),
        ({"warmup": -1}, "warmup=-1 steps must be at least 0"),
        ({"schedule": "step"}, "schedule='step' must be 'linear' or 'cosine'"),
        ({"given": (1, 1)}, "given has 2 numbers, there are 12 training lines"),
        ({"given": (1,) * 11 + (0,)}, r"given=0 of training line 11 .* 1\.\.2"),
        ({"given": (3,) + (1,) * 11}, r"given=3 of training line 0 .* 1\.\.2"),
        ({"batch": 2, "loss": WHOLE}, "mode='reference' trains one line a step"),
        ({"given": (2,) * 12, "loss": WHOLE}, "mode='reference' trains one line"),
    ],
)
def test_a_job_that_cannot_be_trained_is_refused(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        job(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("loss", "tokens", "extra"),
    [
        (MASKED, 3, 0),
        (LossConfig("reference", 7, -1), 3, 3),
        (LossConfig("reference", 7, -1), 6, 0),
        (LossConfig("reference", 7, -1), 7, 0),
        (LossConfig("reference", 2048, 8), 100, 8),
        (LossConfig("reference", 2048, 8), 2044, 3),
        (LossConfig("reference", 2048, 0), 100, 0),
        (PADDED, 3, 0),
        (PADDED_SAMPLED, 3, 0),
    ],
)
def test_pads_that_are_computed_beside_a_line(loss, tokens, extra):
    assert loss.extra(tokens) == extra


def test_pads_that_are_computed_beside_a_line_shorter_than_the_longest():
    assert [PADDED.extra(n, 9) for n in (1, 5, 8, 9)] == [8, 4, 1, 0]
    assert [PADDED_SAMPLED.extra(n, 9) for n in (1, 5, 8, 9)] == [3, 3, 1, 0]
    assert [PADDED_UNSAMPLED.extra(n, 9) for n in (1, 5, 8, 9)] == [0] * 4
    # No other mode looks at it.
    assert (MASKED.extra(3, 9), WHOLE.extra(3, 9), SAMPLED.extra(3, 9)) == (0, 20, 3)


# Losses


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("width", [1, 3, 4, 22, 23, 24, 30])
def test_the_longest_line_is_the_longest_that_fits(loss, width):
    limit = min(width, loss.pad_to) if loss.mode == "reference" else width
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
        ("all", 64, 0, r"mode='all' must be one of"),
        ("masked", 1, 0, r"inner\.loss\.pad_to=1 must be at least 2"),
        ("reference", 0, 0, r"inner\.loss\.pad_to=0 must be at least 2"),
        ("reference", 64, -2, r"inner\.loss\.pad_samples=-2 must be at least -1"),
    ],
)
def test_losses_that_mean_nothing_are_refused(mode, pad_to, samples, message):
    with pytest.raises(ValueError, match=message) as refused:
        LossConfig(mode, pad_to, samples)
    assert "\n" not in str(refused.value)
