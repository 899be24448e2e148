"""Comparing rewards of the same edits on two bases."""

import importlib
import math

import pytest


@pytest.fixture
def bench(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    # By another name than the module that it measures.
    return importlib.import_module("float8")


TRUE = [[[0.1, 0.9], [0.5, 0.5], [0.9, 0.1]], [[0.2, 0.2], [0.4, 0.1], [], [0.8, 0.3]]]


def test_the_same_rewards_agree_and_turned_ones_do_not(bench):
    same = bench.compare(TRUE, TRUE, (0, 0))
    assert same == pytest.approx((1.0, 1.0, 1.0, 1.0, 1 / 3))
    turned = [[[1 - v for v in edit] for edit in edits] for edits in TRUE]
    worst = bench.compare(TRUE, turned, (0, 0))
    assert worst[:3] == pytest.approx((-1.0, -1.0, 0.0))
    # Picks are 0.4 and 0.27 below the mean, the best ones 0.4 and 0.33 above it.
    assert worst.captured == pytest.approx(-(0.4 + 4 / 15) / (0.4 + 1 / 3))
    # Another seed: turned in the first passage, one pair of three in the second.
    noise = bench.compare(TRUE, TRUE, (0, 1))
    assert noise.kendall == pytest.approx((-1 + 1 / 3) / 2)


def test_what_cannot_be_ranked_is_left_out(bench):
    assert bench.kendall([1.0, None, 2.0], [1.0, 1.0, 2.0]) is None
    assert bench.kendall([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert bench.kendall([1.0, 2.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(
        2 / math.sqrt(2 * 3)
    )


def test_a_seed_and_the_interval_over_seeds(bench):
    rewards = {name: TRUE for name in bench.REWARDS}
    measured = {
        "rewards": dict.fromkeys(bench.ARMS, rewards),
        "losses": {"same": [1.0, 2.0], "float8": [1.5, 2.5], "e5m2": [0.0, 3.0]},
        "gradients": {"float8": 0.1, "e5m2": 0.2},
    }
    one = bench.of_seed(measured, 2)
    assert one["loss"] == {"same": 1.5, "float8 - same": 0.5, "e5m2 - same": 0.0}
    assert one["loss_off"] == {"float8": 0.5, "e5m2": 1.0, "noise": 1.0}
    assert one["agreement"]["grade | float8"]["found"] == 1.0
    assert one["agreement"]["grade | noise"]["found"] < 1.0
    both = bench.over_seeds([one, {**one, "gradient": {"float8": 0.3, "e5m2": 0.2}}])
    assert both["gradient"]["float8"]["mean"] == pytest.approx(0.2)
    # Student's t of two: 12.706 standard errors.
    assert both["gradient"]["float8"]["half"] == pytest.approx(12.706 * 0.1, rel=1e-3)
    assert both["gradient"]["e5m2"]["half"] == 0.0


def test_one_adapter_seed_has_no_noise(bench):
    args = bench.parse_args(["--workdir", "x", "--adapter-seeds", "1"])
    with pytest.raises(ValueError, match="--adapter-seeds=1 must be at least 2"):
        bench.benchmark(args)
