"""The first quarter of an hour on a GPU, dry: bounds, failures, and all its steps."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import time

import pytest


@pytest.fixture(scope="module")
def load(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def bench(load):
    return load("quarter_hour")


@pytest.fixture
def step(bench):
    return lambda name, seconds=10.0, **changes: bench.Step(
        name, seconds, **{"file": f"{name}.py", "flags": "", "small": "", **changes}
    )


def test_no_command_takes_more_than_its_budget(bench):
    assert bench.BUDGET == 540
    for steps in (bench.FIRST, bench.REST):
        assert sum(one.seconds for one in steps) <= bench.BUDGET
        assert len({one.name for one in steps}) == len(steps)


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("part", ["FIRST", "REST"])
def test_every_step_has_flags_that_its_benchmark_takes(
    bench, load, tmp_path, part, small
):
    for one in getattr(bench, part):
        script, *flags = one.argv(tmp_path, small=small)
        assert one.name in one.result(tmp_path)
        parsed = load(script.split("/")[-1].removesuffix(".py")).parse_args(flags)
        assert parsed.out == str(tmp_path / f"{one.name}.json")


def test_a_result_is_written_after_each_step(bench, step, tmp_path, capsys):
    seen = []

    def start(one, argv, seconds):
        file = tmp_path / "quarter_hour.json"
        seen.append(sorted(json.loads(file.read_text())) if file.is_file() else [])
        return {
            "good": (0, 'a table\n{"value": 3}\n'),
            "bad": (2, "error: no such device\n"),
            "long": (None, "half way\n"),
            "odd": (0, "no result"),
        }[one.name]

    steps = [step(name) for name in ("good", "bad", "long", "odd")]
    made = bench.run_steps(steps, tmp_path, start, small=True)
    assert seen == [[], ["good"], ["bad", "good"], ["bad", "good", "long"]]
    assert json.loads((tmp_path / "quarter_hour.json").read_text()) == made
    assert made["good"]["value"] == 3
    assert made["bad"]["failed"] == "exit status 2: error: no such device"
    assert made["long"]["failed"] == "not done in 10 s: half way"
    assert made["odd"]["failed"] == "its last line is no JSON: no result"
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert bench.report(made, tmp_path) == 1
    assert bench.report({"good": made["good"]}, tmp_path) == 0


def test_a_step_gets_what_is_left_and_none_begins_too_late(bench, step, tmp_path):
    now, bounds = [0.0], {}

    def start(one, argv, seconds):
        bounds[one.name] = seconds
        now[0] += seconds
        return None, ""

    steps = [step("one", 30.0), step("two", 30.0), step("three", 30.0)]
    made = bench.run_steps(
        steps, tmp_path, start, small=True, budget=50.0, clock=lambda: now[0]
    )
    assert bounds == {"one": 30.0, "two": 20.0}
    assert made["three"]["failed"] == "0 s were left"


def test_a_step_that_hangs_is_ended_with_what_it_started(bench, step, tmp_path):
    script, pid = tmp_path / "hang.py", tmp_path / "pid"
    script.write_text(
        "import subprocess, sys, pathlib, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; "
        "time.sleep(600)'])\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(child.pid))\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)\n"
    )
    status, printed = bench.process(tmp_path)(step("hang"), [str(script)], 3.0)
    assert (status, printed) == (None, "begun\n")
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # Until whoever inherits the child has waited for it.
            os.kill(int(pid.read_text()), 0)
            time.sleep(0.1)


def test_only_peft_runs_under_the_interpreter_with_torch(
    bench, step, tmp_path, monkeypatch
):
    script = tmp_path / "own.py"
    script.write_text("print('here')")
    monkeypatch.setenv("SEAL_TORCH_PYTHON", "/bin/echo")
    start = bench.process(tmp_path)
    assert start(step("own"), [str(script)], 20.0) == (0, "here\n")
    assert start(step("peft", torch=True), [str(script)], 20.0)[1] == f"{script}\n"


# Truth and model


def ceilings(**changes):
    return {
        "device": "nvidia-h200",
        "flops_per_s": 700e12,
        "bytes_per_s": 4e12,
        "launch_seconds": 1e-6,
        "attained_flops": 0.7,
        "attained_bytes": 0.85,
    } | changes


def packed(**changes):
    return {
        "step_seconds": 0.2,
        "modelled": {"seconds": 0.1},
        "same_bits": True,
        "turnover": 0.25,
    } | changes


def test_measured_constants_stand_beside_those_assumed(bench, tmp_path):
    said = bench.compared({"ceilings": ceilings(), "packed_step": packed()}, tmp_path)
    assert said == [
        "floor.ATTAINED_FLOPS: 0.8 is assumed, 0.7 was measured",
        "floor.ATTAINED_BYTES: 0.9 is assumed, 0.85 was measured",
        "roofline.LAUNCH: 2e-06 is assumed, 1e-06 was measured",
        "packed step as modelled: 200.000 ms measured, 100.000 ms modelled, ratio "
        "2.000",
    ]
    differing = bench.compared({"packed_step": packed(same_bits=False)}, tmp_path)
    assert differing[-1] == "packed step: two runs DIFFER in their bits"
    assert bench.compared({"ceilings": {"failed": "no device"}}, tmp_path) == []


def test_the_step_is_modelled_again_with_what_was_measured(bench, tmp_path):
    # A product of 7e12 operations, once; one of 1.4e13 in a loop that a quarter of the
    # steps enter.
    dot = (
        "%d{0} = f32[1000000,{1}]{{1,0}} dot(%x, %w{0}), lhs_contracting_dims={{1}}, "
        "rhs_contracting_dims={{0}}"
    )
    arrays = "%x = bf16[1000000,7000]{1,0} parameter(0)"
    text = (
        "%body (t: f32[]) -> f32[] {\n"
        f"  {arrays}\n  %w2 = bf16[7000,1000]{{1,0}} parameter(1)\n"
        f"  ROOT {dot.format(2, 1000)}\n}}\n\n"
        "ENTRY %main (t: f32[]) -> f32[] {\n"
        f"  {arrays}\n  %w1 = bf16[7000,500]{{1,0}} parameter(1)\n"
        f"  %l = f32[] while(%x), body=%body, "
        'metadata={op_name="jit(run_block)/while/body/while"}\n'
        f"  ROOT {dot.format(1, 500)}\n}}\n"
    )
    (tmp_path / "packed_step.txt").write_text(text)
    made = {"ceilings": ceilings(launch_seconds=0.0), "packed_step": packed()}
    # At 700 TFLOP/s: 10 ms, and a quarter of 20.
    assert bench.compared(made, tmp_path)[-1] == (
        "... with what was measured: 200.000 ms measured, 15.000 ms modelled, ratio "
        "13.333"
    )


# All of it


def in_process(load):
    """Runs a step here, so that jax is imported once."""

    def start(step, argv, seconds):
        script, *flags = argv
        module = load(script.split("/")[-1].removesuffix(".py"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = module.main(flags)
        return status, printed.getvalue()

    return start


def test_all_steps_run_dry(bench, load, tmp_path):
    steps = (*bench.FIRST, *bench.REST)
    made = bench.run_steps(steps, tmp_path, in_process(load), small=True)
    for one in steps:
        failed = made[one.name].get("failed")
        if one.torch and failed:
            assert "must have torch, transformers, peft" in failed
            continue
        assert failed is None, (one.name, failed)
        kept = json.loads((tmp_path / f"{one.name}.json").read_text())
        assert kept == {k: v for k, v in made[one.name].items() if k != "wall_seconds"}
    said = bench.compared(made, tmp_path)
    assert made["packed_step"]["same_bits"] is True
    assert [line.split(":")[0] for line in said] == [
        "floor.ATTAINED_FLOPS",
        "floor.ATTAINED_BYTES",
        "roofline.LAUNCH",
        "packed step as modelled",
        "... with what was measured",
    ]


@pytest.mark.slow
def test_the_script_runs_dry(root, child_env, tmp_path):
    for flags in ([], ["--rest"]):
        done = subprocess.run(
            [
                root / "benchmarks" / "quarter_hour.sh",
                "--small",
                f"--out={tmp_path}",
                *flags,
            ],
            env=child_env,
            capture_output=True,
            text=True,
        )
        folder = tmp_path / "rest" if flags else tmp_path
        made = json.loads((folder / "quarter_hour.json").read_text())
        failed = {k for k, v in made.items() if k != "compared" and "failed" in v}
        assert failed <= {"peft", "peft_padded"}, done.stdout
        assert done.returncode == int(bool(failed)), done.stderr
        assert "written: " in done.stdout
