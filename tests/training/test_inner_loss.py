"""The loss of one optimizer step against rows that are padded and labelled by hand."""

import jax
import numpy as np
import pytest
from test_inner import ARCH, EOS, LOSS, MASKED, PADDED, WIDTH, first_step

from seal_jax.models import decoder, key_ranges, lora
from seal_jax.training import inner
from seal_jax.training.settings import LossConfig


def a_delta() -> lora.Tree:
    delta = lora.init(jax.random.key(1), ARCH, targets=("q_proj",), rank=2)
    return jax.tree.map(lambda x: x + 0.3, delta)


def loss_by_hand(params, delta, lines, given, *, pads_are_targets: bool) -> float:
    """Mean over a batch's targets, of rows that are padded and labelled literally."""
    length = max(map(len, lines)) + 1
    tokens_BT = np.array([[*ids, *[EOS] * (length - len(ids))] for ids in lines])
    key_BT = np.array([[t < len(ids) for t in range(length)] for ids in lines])
    # Each sees the tokens before it and itself; what follows a line sees the line.
    end_BT = np.minimum(np.arange(length) + 1, key_BT.sum(1, keepdims=True))
    ranges = key_ranges.KeyRanges(np.zeros_like(end_BT), end_BT)
    positions_BT = np.tile(np.arange(length), (len(lines), 1))

    @jax.jit
    def log_p(*args):
        hidden_BTD, _ = decoder.hidden(params, delta, ARCH, *args)
        return jax.nn.log_softmax(decoder.logits(params, ARCH, hidden_BTD))

    log_p_BTV = log_p(tokens_BT, positions_BT, ranges)
    terms = [
        -float(log_p_BTV[b, t - 1, tokens_BT[b, t]])
        for b, ids in enumerate(lines)
        for t in range(given[b], length if pads_are_targets else len(ids) + 1)
    ]
    return sum(terms) / len(terms)


BATCHES = [
    ([(5, 6, 7)], (1,)),
    ([(5, 6, 7)], (3,)),
    ([(5, 6, 7), tuple(range(10, 29))], (1, 1)),
    ([(5, 6, 7), tuple(range(10, 29))], (2, 17)),
    ([tuple(range(31)), (1,), (9, 9, 9, 2, 4, 4)], (30, 1, 5)),
]


@pytest.mark.parametrize(("lines", "given"), BATCHES)
@pytest.mark.parametrize("loss", [MASKED, PADDED])
def test_the_loss_of_a_step_is_the_mean_over_the_batchs_targets(lines, given, loss):
    params, delta = decoder.init_params(jax.random.key(0), ARCH), a_delta()
    rows = first_step(lines, loss, width=WIDTH, given=given)
    expected = loss_by_hand(
        params, delta, lines, given, pads_are_targets=loss == PADDED
    )
    np.testing.assert_allclose(LOSS(params, delta, rows, ARCH), expected, rtol=1e-5)


def test_a_line_of_no_weight_is_absent():
    params, delta = decoder.init_params(jax.random.key(0), ARCH), a_delta()
    gradient = jax.jit(
        jax.value_and_grad(inner.batch_loss, argnums=1), static_argnums=3
    )
    rows = first_step([(5, 6, 7), (8, 9)], MASKED, width=WIDTH)
    filled = jax.tree.map(lambda leaf: np.pad(leaf, ((0, 2), (0, 0))), rows)
    ours, theirs = (
        gradient(params, delta, filled, ARCH),
        gradient(params, delta, rows, ARCH),
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)
    # And if all are, nothing is trained.
    nothing = jax.tree.map(np.zeros_like, rows)
    for leaf in jax.tree.leaves(gradient(params, delta, nothing, ARCH)):
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


@pytest.mark.parametrize(
    ("mode", "lines"),
    [
        ("reference", [(5, 6, 7, 8, 9)]),
        ("padded", [(5, 6, 7, 8, 9), tuple(range(1, 51)), (3, 2, 1)]),
    ],
)
def test_sampled_pads_estimate_the_exact_loss_without_bias(mode, lines):
    params, delta = decoder.init_params(jax.random.key(0), ARCH), a_delta()

    def loss(samples: int, seed: int = 0) -> float:
        chosen = LossConfig(mode, 64, samples)
        rows = first_step(lines, chosen, width=64, seed=seed)
        return float(LOSS(params, delta, rows, ARCH))

    exact = loss(-1)
    draws = np.array([loss(4, seed) for seed in range(200)])
    standard_error = draws.std() / np.sqrt(len(draws))
    assert standard_error > 0
    assert abs(draws.mean() - exact) < 4 * standard_error
    assert loss(0) < exact
