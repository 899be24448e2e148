"""The gate on curves whose threshold is known, and on any curve at all."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.continual import controls

LEAST, STEPS = 0.1, 5


def walk(budget, curve, *, least=LEAST, steps=STEPS):
    """Asks `curve` until the gate is done: (committed scale, scales tried)."""
    history = []
    while True:
        verdict = controls.gate(budget, history, least=least, steps=steps)
        if verdict.done:
            return verdict.scale, [scale for scale, _ in history]
        history.append((verdict.scale, curve(verdict.scale)))
        assert len(history) <= 2 + steps


@pytest.mark.parametrize(
    "budget, curve, scale, tried",
    [
        (0.07, lambda a: 0.0, 1.0, 1),
        (0.07, lambda a: -0.5, 1.0, 1),
        (0.07, lambda a: 0.07 * a, 1.0, 1),  # the budget itself is within it
        (0.07, lambda a: 0.5, 0.0, 2),
        (0.0, lambda a: a, 0.0, 2),
        (0.07, lambda a: None, 0.0, 2),
        (0.1, lambda a: a, 0.1, 2 + STEPS),
    ],
    ids=["nothing", "gain", "just", "all", "none allowed", "unknown", "only least"],
)
def test_verdicts(budget, curve, scale, tried):
    got, scales = walk(budget, curve)
    assert got == scale and len(scales) == tried
    assert scales[0] == 1.0 and scales[1:2] in ([], [LEAST])


def test_the_scales_it_tries_are_halvings():
    _, tried = walk(0.5, lambda a: a, least=0.2, steps=3)
    assert tried == pytest.approx([1.0, 0.2, 0.6, 0.4, 0.5])


@given(
    budget=st.floats(0.0, 1.0),
    power=st.floats(0.2, 5.0),
    height=st.floats(0.01, 2.0),
    steps=st.integers(0, 8),
)
def test_it_finds_the_threshold_of_a_growing_curve(budget, power, height, steps):
    def curve(scale):
        return height * scale**power

    got, _ = walk(budget, curve, steps=steps)
    threshold = min(1.0, (budget / height) ** (1 / power))
    if curve(LEAST) > budget:
        assert got == 0.0
    else:
        assert curve(got) <= budget
        assert threshold - got <= (1 - LEAST) / 2**steps + 1e-9


curves = st.lists(st.floats(-1.0, 1.0), min_size=11, max_size=11)


@given(rises=curves, budgets=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_larger_budget_never_commits_less(rises, budgets):
    grown = list(itertools.accumulate(map(abs, rises)))
    low, high = sorted(budgets)

    def curve(scale):
        return grown[math.floor(10 * scale)]

    assert walk(low, curve)[0] <= walk(high, curve)[0]


@given(values=curves, budget=st.floats(0, 1))
def test_whatever_the_curve_nothing_over_budget_is_committed(values, budget):
    def curve(scale):
        return values[math.floor(10 * scale)]

    got, tried = walk(budget, curve)
    assert got == 0.0 or (got in tried and curve(got) <= budget)


def test_with_nothing_between_least_and_one_it_only_accepts_or_rejects():
    assert walk(0.5, lambda a: a, least=1.0) == (0.0, [1.0])
    assert walk(1.0, lambda a: a, least=1.0) == (1.0, [1.0])
