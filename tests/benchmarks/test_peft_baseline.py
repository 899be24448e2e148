"""The PyTorch baseline: its arithmetic, and a real run where there is a torch."""

import importlib
import json
import math
import os
import subprocess
import sys

import pytest

JOBS = [[3, 5], [4]]


@pytest.fixture(scope="module")
def baseline(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("peft_baseline")


@pytest.fixture(scope="module")
def torch_python():
    """An interpreter with torch, transformers and peft; skips without one."""
    python = os.environ.get("SEAL_TORCH_PYTHON")
    if not python:
        pytest.skip(
            "SEAL_TORCH_PYTHON is not set; set it to a Python interpreter that has "
            "torch, transformers and peft"
        )
    return python


# Arithmetic


def test_counts_of_both_modes(baseline):
    unpadded = baseline.peft_loop.Settings(epochs=10)
    assert baseline.count(JOBS, unpadded) == {
        "steps": 30,
        "tokens": 120,
        "positions": 150,
    }
    padded = baseline.peft_loop.Settings(mode="padded", pad_to=64, epochs=10)
    assert baseline.count(JOBS, padded) == {
        "steps": 30,
        "tokens": 120,
        "positions": 30 * 64,
    }
    cut = baseline.peft_loop.Settings(mode="padded", pad_to=4, epochs=10)
    assert baseline.count(JOBS, cut)["tokens"] == 10 * (3 + 4 + 4)


def test_rates_on_made_up_timings(baseline):
    settings = baseline.peft_loop.Settings(epochs=10)
    result = baseline.aggregate([2.0, 8.0, 4.0], JOBS, settings)
    assert result == {
        "adapters": 2,
        "steps": 30,
        "tokens": 120,
        "positions": 150,
        "seconds": 4.0,
        "seconds_by_repeat": [2.0, 8.0, 4.0],
        "adapters_per_s": 0.5,
        "steps_per_s": 7.5,
        "tokens_per_s": 30.0,
        "token_efficiency": 0.8,
    }


@pytest.mark.parametrize("limit, steps, whole", [(5, 10, False), (20, 30, True)])
def test_no_rate_of_adapters_that_were_cut_short(baseline, limit, steps, whole):
    settings = baseline.peft_loop.Settings(epochs=10, max_steps=limit)
    result = baseline.aggregate([2.0], JOBS, settings)
    assert result["steps"] == steps
    assert result["steps_per_s"] == steps / 2
    assert result["adapters_per_s"] == (1.0 if whole else None)
    assert ("cut short" in baseline.summary(named(result))) is not whole


def named(measured):
    return {"shape": "tiny", "mode": "padded", "device": "cpu-2", **measured}


def test_the_settings_are_the_references_unless_flags_say_otherwise(baseline):
    assert baseline.settings_of(baseline.parse_args([])) == baseline.peft_loop.Settings(
        mode="unpadded",
        epochs=10,
        rank=32,
        alpha=64.0,
        targets=("q_proj", "v_proj"),
        learning_rate=1e-3,
        clip=1.0,
        pad_to=2048,
        max_steps=None,
    )
    flags = ["--mode=padded", "--targets=o_proj", "--max-steps=3", "--rank=4"]
    assert baseline.settings_of(
        baseline.parse_args(flags)
    ) == baseline.peft_loop.Settings(
        mode="padded", targets=("o_proj",), max_steps=3, rank=4
    )


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--adapters=0", "--adapters=0 must be at least 1"),
        ("--max-steps=0", "--max-steps=0 must be at least 1"),
        ("--repeats=0", "--repeats=0 must be at least 1"),
        ("--targets=q_proj,lm_head", "--targets=q_proj,lm_head must be of q_proj"),
        ("--shape=huge", "'huge' must be one of tiny"),
        ("--adapters=251", "adapters=251 must lie in 1..250"),
        ("--scale=0", "--scale=0.0 must be at least 1e-12"),
    ],
)
def test_bad_flags_are_one_line(baseline, flag, message, capsys):
    assert baseline.main([flag]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_an_interpreter_without_torch_is_named(baseline, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert baseline.main(["--shape=tiny", "--adapters=1"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {sys.executable} must have torch, transformers")
    assert err.count("\n") == 1


# With torch


@pytest.mark.parametrize("mode", ["unpadded", "padded"])
def test_a_real_run(baseline, torch_python, root, tmp_path, mode):
    out = tmp_path / "result.json"
    command = [torch_python, str(root / "benchmarks" / "peft_baseline.py")]
    command += [f"--mode={mode}", "--shape=tiny", "--rank=4", "--alpha=8"]
    command += ["--adapters=2", "--epochs=1", "--repeats=2", "--scale=0.2"]
    command += ["--pad-to=96", "--device=cpu", "--json-only", f"--out={out}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert json.loads(out.read_text()) == result
    jobs = baseline.workload.load().jobs(1, scale=0.2)
    jobs = [jobs[i] for i in baseline.workload.spread(jobs, 2)]
    assert result["steps"] == sum(map(len, jobs))
    assert result["tokens"] == sum(map(sum, jobs))
    assert result["adapters_per_s"] == 2 / result["seconds"]
    assert result["tokens_per_s"] == result["tokens"] / result["seconds"]
    assert len(result["seconds_by_repeat"]) == 2
    assert result["device"].startswith("cpu-")
    assert set(result["versions"]) == {"python", "torch", "transformers", "peft"}
    # q: 32 -> 32, v: 32 -> 16, two layers.
    assert result["trainable_parameters"] == 2 * 4 * (32 + 32 + 32 + 16)
    assert result["command"].startswith("python benchmarks/peft_baseline.py --mode")
    assert {"commit", "date", "benchmark", "model", "threads"} <= set(result)
    if mode == "unpadded":
        # Random weights know nothing: all of the vocabulary is as likely.
        assert result["loss_first_step"] == pytest.approx(math.log(64), rel=0.05)
