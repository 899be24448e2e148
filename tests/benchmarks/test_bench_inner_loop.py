"""The inner loop's benchmarks: engines that agree, arithmetic, small real runs."""

import importlib
import json
import os
import subprocess
import sys

import command_ends
import jax
import numpy as np
import pytest

from seal_jax.models import decoder, lora
from seal_jax.training import inner, packed, plan
from seal_jax.training.settings import LossConfig, PlanConfig

ARCH = decoder.Arch("qwen2", 64, 32, 2, 4, 2, 8, 48, 128, qkv_bias=True, tied=True)
EOS = 63
MASKED = LossConfig("masked", 64, 0)
SAMPLED = LossConfig("reference", 64, 3)
TINY = "--shape=tiny --rank=4 --epochs=1 --row-tokens=32 --repeats=2"


@pytest.fixture(scope="module")
def load(root):
    """Imports a file of benchmarks/, which find each other as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def engines(load):
    return load("engines")


@pytest.fixture(scope="module")
def training(load):
    return load("training")


@pytest.fixture(scope="module")
def inner_loop(load):
    return load("inner_loop")


@pytest.fixture(scope="module")
def scaling(load):
    return load("scaling")


def config(**changes) -> inner.EngineConfig:
    sizes = {"tile": 4, "row_tokens": 32, "step_tokens": 64, "slots": 2, "active": 2}
    layout = PlanConfig(**(sizes | changes))
    return inner.EngineConfig(("q_proj", "v_proj"), 4, 8.0, layout, pool=5)


def workload(*losses: LossConfig) -> list[plan.Job]:
    """Five jobs that differ in lines, lengths, epochs, learning rate and clip."""
    rng = np.random.default_rng(3)
    lengths = [(3, 14, 7), (9,), (2, 2, 2, 17), (12, 5), (6, 21, 8)]
    return [
        plan.Job(
            tuple(tuple(int(t) for t in rng.integers(0, 60, n)) for n in job),
            (0, j),
            epochs=1 + j % 2,
            learning_rate=(3e-3, 1e-2)[j % 2],
            clip=(1.0, 0.05)[j % 2],
            loss=losses[j % len(losses)],
        )
        for j, job in enumerate(lengths)
    ]


# Engines


@pytest.fixture(scope="module")
def together():
    """What the packed engine makes of the five jobs."""
    params = decoder.init_params(jax.random.key(0), ARCH)
    keys = jax.random.split(jax.random.key(1), 5)
    args = {"arch": ARCH, "cfg": config(), "eos": EOS}
    return packed.train(params, workload(MASKED, SAMPLED), keys, **args)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("length_classes", {"classes": (12, 24)}),
        ("rectangular", {"wave": 2}),
        ("one_by_one", {"classes": (12, 24)}),
    ],
)
def test_every_engine_trains_what_the_packed_one_does(
    engines, together, name, arguments
):
    params = decoder.init_params(jax.random.key(0), ARCH)
    keys = jax.random.split(jax.random.key(1), 5)
    args = {"arch": ARCH, "cfg": config(), "eos": EOS, **arguments}
    jobs = workload(MASKED, SAMPLED)
    ours, theirs = getattr(engines, name)(params, jobs, keys, **args), together
    assert ours.finite_A.tolist() == [True] * 5
    assert (ours.tokens, ours.adapter_steps) == (theirs.tokens, theirs.adapter_steps)
    assert ours.computed_tokens >= ours.tokens
    np.testing.assert_allclose(ours.loss_A, theirs.loss_A, rtol=1e-4)
    adapters = lora.select(theirs.adapters, np.arange(5))
    for a, b in zip(
        jax.tree.leaves(ours.adapters), jax.tree.leaves(adapters), strict=True
    ):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_positions_of_waves_are_what_rectangles_compute(engines):
    params = decoder.init_params(jax.random.key(0), ARCH)
    jobs, keys = workload(MASKED), jax.random.split(jax.random.key(1), 5)
    cut = engines.waves(jobs, config().plan, wave=2)
    # Widest line in whole tiles of 4, times the most steps, times 2 rows.
    assert cut == [([0, 1], 2 * 16 * 3), ([2, 3], 2 * 20 * 4), ([4], 2 * 24 * 3)]
    args = {"arch": ARCH, "cfg": config(), "eos": EOS}
    trained = engines.rectangular(params, jobs, keys, wave=2, **args)
    assert trained.computed_tokens == sum(cost for _, cost in cut)
    assert trained.steps == 3 + 4 + 3


def test_widths(engines):
    assert [engines.width_of(n, (8, 16)) for n in (1, 8, 9, 16)] == [8, 8, 16, 16]
    with pytest.raises(ValueError, match=r"takes 17 positions, .* add one of 17 or"):
        engines.width_of(17, (8, 16))
    assert engines.classes_to(100) == (16, 32, 64, 100)
    assert engines.classes_to(64) == (16, 32, 64)


def test_a_warm_up_has_one_line_of_each_class(engines):
    job = workload(MASKED)[2]
    small = engines.one_per_class(job, (2, 8, 24))
    assert (small.lines, small.epochs) == ((job.lines[2], job.lines[3]), 1)


# inner_loop.py


def trained(*, tokens: int, computed: int, finite=(True,)) -> packed.TrainedAdapters:
    losses = np.ones(len(finite))
    return packed.TrainedAdapters({}, losses, np.array(finite), tokens, computed, 3, 6)


def test_rates_of_an_engine_that_trained_everything(inner_loop):
    task = inner_loop.Task(packed.train, workload(SAMPLED)[:2])
    made = inner_loop.figures(
        [2.0, 8.0, 4.0],
        trained(tokens=66, computed=132),
        task,
        flops_per_token=10,
        peak=330.0,
    )
    # One epoch of 3 + 14 + 7 tokens, two of 9.
    assert (made["adapters"], made["tokens"], made["steps"]) == (2, 42, 5)
    assert made["seconds"] == 4.0
    assert (made["tokens_per_s"], made["steps_per_s"]) == (10.5, 1.25)
    assert made["token_efficiency"] == 0.5
    # Sampled pads are work too: 66 tokens and not 42.
    assert made["flops_per_s"] == 66 * 10 / 4
    assert made["mfu"] == pytest.approx(0.5)
    assert "measured_seconds" not in made


def test_rates_of_an_engine_that_trained_a_part_are_of_the_whole(inner_loop):
    jobs = workload(MASKED)
    task = inner_loop.Task(packed.train, jobs[:2], jobs, positions=400)
    done = trained(tokens=42, computed=100)
    made = inner_loop.figures([3.0], done, task, flops_per_token=1, peak=None)
    assert made["measured_seconds"] == [3.0]
    assert made["measured_adapters"] == 2
    assert made["seconds"] == 12.0
    whole = sum(job.epochs * sum(map(len, job.lines)) for job in jobs)
    assert (made["adapters"], made["tokens"]) == (5, whole)
    assert made["tokens_per_s"] == whole / 12
    assert made["token_efficiency"] == whole / 400
    assert made["mfu"] is None


def test_an_adapter_that_diverges_is_no_measurement(inner_loop):
    task = inner_loop.Task(packed.train, workload(MASKED)[:2])
    done = trained(tokens=1, computed=1, finite=(True, False))
    with pytest.raises(ValueError, match=r"adapters \[1\] must stay finite"):
        inner_loop.figures([1.0], done, task, flops_per_token=1, peak=None)


def test_padded_steps_are_compared_as_steps_and_all_else_as_tokens(inner_loop):
    measured = {
        "packed": {"tokens_per_s": 100.0, "steps_per_s": 8.0},
        "rectangular": {"tokens_per_s": 20.0, "steps_per_s": 1.0},
        "peft_padded": {"tokens_per_s": 50.0, "steps_per_s": 0.5},
    }
    assert inner_loop.ratios(measured) == {
        "ratio_vs_rectangular": 5.0,
        "ratio_vs_peft_padded": 16.0,
    }


def test_rectangles_are_measured_on_whole_waves(inner_loop, training):
    sizes = training.Sizes(
        1, MASKED, ("q_proj",), 2, tile=4, row_tokens=32, step_tokens=32, slots=2,
        active=1,
    )  # fmt: skip
    lengths = [[5] * n for n in (1, 9, 2, 8, 3, 7, 4)]
    names = ("packed", "rectangular", "rectangular_sorted", "one_by_one")
    made = inner_loop.tasks(
        ARCH, sizes, names, adapters=lengths, solo=lengths[:2], wave=2, count=2
    )
    steps = {name: [job.total for job in task.jobs] for name, task in made.items()}
    assert steps["packed"] == [1, 9, 2, 8, 3, 7, 4]
    assert steps["one_by_one"] == [1, 9]
    # Of four waves the second and the fourth by cost, as they come.
    assert steps["rectangular"] == [1, 9, 3, 7]
    assert steps["rectangular_sorted"] == [3, 4, 9]
    width = 8
    assert made["rectangular"].positions == 2 * width * (9 + 8 + 7 + 4)
    assert made["rectangular_sorted"].positions == 2 * width * (2 + 4 + 8 + 9)


def test_a_real_run(inner_loop, capsys, tmp_path):
    out = tmp_path / "inner.json"
    flags = [*TINY.split(), "--adapters=5", "--solo-adapters=2", "--wave=2"]
    flags += ["--longest=16", f"--out={out}", "--peft="]
    assert inner_loop.main(flags) == 0
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert result == json.loads(out.read_text())
    assert result["benchmark"] == "inner_loop"
    names = {"packed", *inner_loop.BASELINES}
    assert set(result["engines"]) == names
    for name in names - {"packed"}:
        rates = [result["engines"][n]["tokens_per_s"] for n in ("packed", name)]
        assert result[f"ratio_vs_{name}"] == pytest.approx(rates[0] / rates[1])
        assert 0 < result["engines"][name]["token_efficiency"] <= 1
    ours = result["engines"]["packed"]
    assert {name: result[name] for name in ours} == ours
    assert ours["tokens_per_s"] == ours["tokens"] / ours["seconds"]
    assert ours["compile_seconds"] > 0
    assert (ours["adapters"], result["engines"]["one_by_one"]["adapters"]) == (5, 2)
    assert result["device"].startswith("cpu-")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--adapters=0", "--adapters=0 must be at least 1"),
        ("--adapters=751", "adapters=751 must lie in 1..750"),
        ("--engines=vmap", "--engines=vmap must be of length_classes"),
        ("--targets=head", "--targets=head must be of q_proj"),
        ("--rank=0", "--rank=0 must be at least 1"),
        ("--row-tokens=50", "inner.row_tokens=50 must be a multiple"),
    ],
)
def test_flags_that_cannot_be_are_refused_in_one_line(
    inner_loop, capsys, flags, message
):
    argv = ["--shape=tiny", *flags.split()]
    assert command_ends.status(inner_loop.main, argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def peft_args(inner_loop, training, python: str, mode: str) -> tuple:
    flags = [*TINY.split(), "--solo-adapters=2", "--padded-steps=1", "--pad-to=48"]
    flags += ["--longest=32"]
    args = inner_loop.parse_args(flags)
    return python, mode, training.sizes_of(args), args


def test_a_baseline_that_fails_says_so(inner_loop, training):
    # The tests' own environment has no PEFT.
    args = peft_args(inner_loop, training, sys.executable, "unpadded")
    with pytest.raises(ValueError, match=r"exit status 2 must be 0: error: .* missing"):
        inner_loop.peft(*args)


@pytest.mark.parametrize("mode", ["unpadded", "padded"])
def test_the_baseline_trains_the_same_lines(inner_loop, training, mode):
    python = os.environ.get("SEAL_TORCH_PYTHON")
    if not python:
        pytest.skip("SEAL_TORCH_PYTHON is not set; set it to a Python with PEFT")
    result = inner_loop.peft(*peft_args(inner_loop, training, python, mode))
    lengths = training.lengths(2, longest=32)
    if mode == "unpadded":
        assert result["tokens"] == sum(map(sum, lengths))
        assert result["steps"] == sum(map(len, lengths))
    else:
        assert result["steps"] == 2
        assert result["adapters_per_s"] is None
    assert result["tokens_per_s"] > 0
    assert result["epochs"] == 1


# scaling.py


def test_powers(scaling):
    assert scaling.powers(1) == [1]
    assert scaling.powers(8) == [1, 2, 4, 8]
    assert scaling.powers(12) == [1, 2, 4, 8, 12]
    assert scaling.powers(40, first=16) == [16, 32, 40]
    assert scaling.powers(64, factor=4) == [1, 4, 16, 64]


def test_an_axis_changes_one_thing(scaling, monkeypatch):
    base = scaling.Point(adapters=3, lines=2, length=5, rank=4, devices=1, pool=3)
    monkeypatch.setattr(jax, "devices", lambda: [None, None])
    limits = {"most_adapters": 4, "longest": 32, "most_rank": 8}
    along = {axis: scaling.points(base, axis, **limits) for axis in scaling.AXES}
    assert [value for value, _ in along["adapters"]] == [1, 2, 4]
    assert {point.pool for _, point in along["adapters"]} == {4}
    assert [point.length for _, point in along["length"]] == [16, 32]
    assert [point.rank for _, point in along["rank"]] == [1, 4, 8]
    two = [(point.adapters, point.devices) for _, point in along["devices"]]
    assert two == [(3, 1), (6, 2)]


def test_a_real_run_of_scaling(scaling, capsys):
    flags = [*TINY.split(), "--most-adapters=2"]
    flags += ["--base-adapters=2", "--lines=2", "--line-tokens=10", "--most-rank=4"]
    assert scaling.main(flags) == 0
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    seen = [(row["axis"], row["value"]) for row in result["rows"]]
    assert seen == [
        ("adapters", 1), ("adapters", 2), ("length", 16), ("length", 32),
        ("rank", 1), ("rank", 4),
    ]  # fmt: skip
    for row in result["rows"]:
        tokens = row["adapters"] * row["lines"] * row["length"]
        assert row["tokens_per_s"] == pytest.approx(tokens / row["seconds"])


@pytest.mark.slow
def test_scaling_over_two_devices(root, child_env):
    flags = [*TINY.split(), "--axes=devices", "--line-tokens=10"]
    command = [sys.executable, "benchmarks/scaling.py", *flags, "--base-adapters=2"]
    env = {**child_env, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, check=True
    )
    rows = json.loads(done.stdout.strip().splitlines()[-1])["rows"]
    assert [(row["devices"], row["adapters"]) for row in rows] == [(1, 2), (2, 4)]
    assert rows[0]["token_efficiency"] == rows[1]["token_efficiency"]


def test_bad_flags_of_scaling(scaling, capsys):
    assert scaling.main(["--shape=tiny", "--axes=width"]) == 2
    assert "--axes=width must be of adapters, length" in capsys.readouterr().err
    argv = ["--shape=tiny", "--lines=0"]
    assert command_ends.status(scaling.main, argv) == 2
    assert "--lines=0 must be at least 1" in capsys.readouterr().err


# Against another revision


@pytest.fixture(scope="module")
def against(load):
    return load("against")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("--shape tiny --against HEAD", "--shape tiny"),
        ("--against=HEAD --rank=4 --out", "--rank=4"),
        ("--out x.json --epochs 1 --repeats 2", "--epochs 1"),
        ("--engines= --peft= --torch-python p --tile 8", "--tile 8"),
    ],
)
def test_both_revisions_get_the_flags_of_the_work(against, given, kept):
    assert against.shared_flags(given.split()) == kept.split()


def test_a_revision_takes_turns_with_this_tree(against, monkeypatch):
    seen, rates = [], iter([9, 9, 30, 10, 20, 10, 40, 16])

    def once(tree, flags, cache):
        seen.append((tree, (tree / "benchmarks" / "inner_loop.py").is_file(), flags))
        return {"tokens_per_s": next(rates)}

    monkeypatch.setattr(against, "once", once)
    got = against.compare(["--rank=4", "--against", "HEAD"], "HEAD", repeats=3)
    assert (got["ours"], got["theirs"]) == ([30, 20, 40], [10, 10, 16])
    assert (got["ratio"], got["least"], got["most"]) == (2.5, 2.0, 3.0)
    assert len(got["revision"]) == 40
    trees = [tree for tree, _, _ in seen]
    assert trees[::2] == [against.common.ROOT] * 4 and len({*trees}) == 2
    assert all(found and flags == ["--rank=4"] for _, found, flags in seen)
    assert not trees[1].exists()


def test_a_revision_that_is_none_is_refused_in_one_line(inner_loop, capsys):
    flags = [*TINY.split(), "--adapters=1", "--engines=", "--against=no-such-revision"]
    assert command_ends.status(inner_loop.main, flags) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --against=no-such-revision must be a revision")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_this_tree_is_as_fast_as_itself(against):
    flags = [
        "--shape=tiny",
        "--rank=4",
        "--epochs=1",
        "--row-tokens=32",
        "--adapters=2",
    ]
    got = against.compare([*flags, "--longest=20"], "HEAD", repeats=1)
    assert got["ratio"] > 0 and min(got["ours"] + got["theirs"]) > 0
