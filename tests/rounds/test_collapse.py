"""Training on one's own output, where it can be solved: linear regression.

Each generation fits least squares to labels that the last one's fit gave, with noise of
its own. If its data replace those before, the test error grows by the same amount with
every generation; if they are added to them, it stays below pi^2/6 times the first
(Gerstgrasser et al. 2024, arXiv 2404.01413, section 3).

With standard normal inputs a fit from T rows in d dimensions has the squared error
sigma^2 d / (T - d - 1) in the mean. Replaced data add that in each generation. With
accumulated data the i-th fit is the one before plus its own rows' noise, seen through
all i T rows: by symmetry it adds 1/i of what they all would, sigma^2 d / (iT - d - 1).
"""

import math

import numpy as np

from seal_jax.rounds import select

D, ROWS, SIGMA, GENERATIONS, REPETITIONS = 4, 30, 0.7, 8, 4000


def simulate(policy: str, *, seed: int) -> np.ndarray:
    """Squared errors `[repetition, generation]` of fits that learn from fits."""
    rng = np.random.default_rng(seed)
    errors = np.zeros((REPETITIONS, GENERATIONS))
    for r in range(REPETITIONS):
        truth = teacher = rng.normal(size=D)
        past: list[list[tuple[np.ndarray, np.ndarray]]] = []
        for g in range(GENERATIONS):
            x = rng.normal(size=(ROWS, D))
            y = x @ teacher + SIGMA * rng.normal(size=ROWS)
            new = [(x, y)]
            blocks = select.training_set(past, new, policy)
            past.append(new)
            xs = np.concatenate([block[0] for block in blocks])
            ys = np.concatenate([block[1] for block in blocks])
            teacher = np.linalg.lstsq(xs, ys, rcond=None)[0]
            errors[r, g] = np.sum((teacher - truth) ** 2)
    return errors


def fit_error(rows: int) -> float:
    """The closed form of a fit's error, if its labels come from the truth."""
    return SIGMA**2 * D / (rows - D - 1)


def assert_means(errors: np.ndarray, expected: np.ndarray) -> None:
    """Within three standard errors of the simulation, and those are small."""
    mean = errors.mean(0)
    se = errors.std(0, ddof=1) / math.sqrt(len(errors))
    assert (se < 0.02 * expected).all()
    assert (np.abs(mean - expected) < 3 * se).all(), (mean, expected, se)


def test_replaced_data_let_the_error_grow_linearly():
    errors = simulate("replace", seed=0)
    assert_means(errors, fit_error(ROWS) * np.arange(1, GENERATIONS + 1))


def test_accumulated_data_bound_the_error():
    errors = simulate("accumulate", seed=1)
    i = range(1, GENERATIONS + 1)
    added = np.array([fit_error(n * ROWS) / n for n in i])
    assert_means(errors, np.cumsum(added))
    bound = fit_error(ROWS) * math.pi**2 / 6
    assert (errors.mean(0) < bound).all()
    assert (added <= fit_error(ROWS) / np.array(i) ** 2).all()  # so it holds for ever
