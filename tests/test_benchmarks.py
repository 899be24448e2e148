"""The demo benchmark: its arithmetic on a made-up run, its clock on real processes."""

import importlib.util
import json
import subprocess
import sys

import pytest

SUMMARY = {
    "ladder": [{"name": "base", "mean": 0.1, "se": 0.02, "n": 4, "empty_rate": 0.0}],
    "adapters": 60,
    "tokens": 3000,
    "seconds": {
        "ladder/base/base": 1.0,
        "ladder/base/grade": 0.25,
        "ladder/self_edits/propose": 2.0,
        "ladder/self_edits/adapt": 6.0,
        "round_1/propose": 3.0,
        "round_1/adapt": 9.0,
        "round_1/base": 0.5,
        "round_1/base/grade": 0.25,
        "round_1/grade": 0.5,
        "control/round_2/propose": 1.0,
        "policy/imitate/1": 4.0,
        "random_kept/imitate/1": 4.5,
    },
}
SERIES = {
    "adapt/adapters_per_s": [(1, 2.0), (2, 8.0), (3, 7.0)],
    "adapt/tokens_per_s": [(1, 100.0), (2, 500.0)],
}
TOTAL = sum(SUMMARY["seconds"].values())


@pytest.fixture(scope="module")
def demo(root):
    spec = importlib.util.spec_from_file_location(
        "demo_benchmark", root / "benchmarks" / "demo.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "phase, stage",
    [
        ("round_2/propose", "propose"),
        ("control/round_2/propose", "propose"),
        ("ladder/oracle/adapt", "adapt"),
        ("ladder/base/base", "answer"),
        ("ladder/base/grade", "grade"),
        ("round_1/base", "answer"),
        ("round_1/base/grade", "grade"),
        ("random_kept/imitate/2", "imitate"),
        ("policy/saved/1", "other"),
        ("adaptive/thing", "other"),
    ],
)
def test_stage_of_a_phase(demo, phase, stage):
    assert demo.stage(phase) == stage


def test_stages_add_up_to_the_wall_clock(demo):
    stages = demo.by_stage(SUMMARY["seconds"], wall=TOTAL + 7.0)
    assert stages == {
        "propose": 6.0,
        "adapt": 15.0,
        "answer": 1.5,
        "grade": 1.0,
        "imitate": 8.5,
        "other": 7.0,
    }


def test_nothing_is_left_where_phases_took_longer_than_the_wall(demo):
    assert demo.by_stage({"round_1/adapt": 2.0}, wall=1.0)["other"] == 0.0


def test_rates_are_over_the_adapt_stage_and_medians_over_chunks(demo):
    result = demo.aggregate(SUMMARY, SERIES, wall=TOTAL, peak_bytes=1 << 30)
    assert result["adapters_per_s"] == 4.0
    assert result["tokens_per_s"] == 200.0
    assert result["adapters_per_s_median"] == 7.0
    assert result["tokens_per_s_median"] == 300.0
    assert result["token_efficiency_median"] is None
    assert result["peak_memory_bytes"] == 1 << 30
    assert sum(result["seconds_by_phase"].values()) == result["seconds"] == TOTAL


@pytest.mark.parametrize("key", ["seconds", "adapters", "tokens"])
def test_a_summary_without_the_figures_is_refused(demo, key):
    broken = {k: v for k, v in SUMMARY.items() if k != key}
    with pytest.raises(ValueError, match=f"{key}=None must not be empty"):
        demo.aggregate(broken, SERIES, wall=1.0, peak_bytes=1)


def test_the_table_names_every_stage_and_both_rates(demo):
    text = demo.table(demo.aggregate(SUMMARY, SERIES, wall=80.0, peak_bytes=3 << 20))
    assert [line.split()[0] for line in text.splitlines()[2:9]] == [
        *demo.STAGES,
        "other",
        "all",
    ]
    assert "adapt       15.0   18.8 %" in text
    assert "adapters/s: 4.0 over the adapt stage, 7.0 in a median chunk" in text
    assert "tokens/s: 200.0 over the adapt stage, 300.0 in a median chunk" in text
    assert text.endswith("peak memory: 3 MiB resident")


@pytest.mark.parametrize(
    "platform, kind, name",
    [
        ("cpu", "cpu", "cpu-2"),
        ("gpu", "NVIDIA H200", "nvidia-h200"),
        ("gpu", "NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm4-80gb"),
        ("tpu", "TPU v5 lite", "tpu-v5-lite"),
    ],
)
def test_device_names_serve_as_folders(demo, platform, kind, name):
    assert demo.device_name(platform, kind, cores=2) == name


def test_a_process_is_timed_and_weighed(demo, root):
    held = 256 << 20
    code = f"import time; b = bytearray({held}); b[::4096] = b'x' * len(b[::4096]); "
    wall, peak = demo.measure([sys.executable, "-c", code + "time.sleep(0.3)"])
    assert wall >= 0.3
    assert peak >= held
    # Of the process itself: a later, small one is not charged with the first's. Asked
    # of a small process, because a child is charged with its parent at the fork.
    ask = (
        "import sys, demo\n"
        "def peak(code): return demo.measure([sys.executable, '-c', code])[1]\n"
        f"peak({code!r}); print(peak('pass'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=root / "benchmarks",
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < held


def test_a_failing_process_is_an_error(demo):
    with pytest.raises(ValueError, match="exit status 3 must be 0"):
        demo.measure([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_used_workdir_is_refused(demo, tmp_path, capsys):
    (tmp_path / "summary.json").write_text("{}")
    assert demo.main([f"--workdir={tmp_path}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "must be new or empty" in err
    assert err.count("\n") == 1


def fake_run(demo, monkeypatch):
    """Puts a finished run where the benchmark would train one."""

    def measure(command, *, env):
        (workdir,) = [a.split("=", 1)[1] for a in command if a.startswith("--workdir=")]
        path = demo.Path(workdir)
        path.mkdir()
        (path / "summary.json").write_text(json.dumps(SUMMARY))
        rows = [
            {"step": step, "time": 0.0, name: value}
            for name, points in SERIES.items()
            for step, value in points
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (path / "metrics.jsonl").write_text(text)
        return TOTAL + 1.0, 5 << 20

    monkeypatch.setattr(demo, "measure", measure)


def test_the_last_line_is_the_result_and_out_holds_the_same(
    demo, monkeypatch, tmp_path, capsys
):
    fake_run(demo, monkeypatch)
    out = tmp_path / "new" / "demo.json"
    assert demo.main([f"--out={out}"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads(out.read_text()) == result
    assert result["benchmark"] == "demo"
    assert result["config"] == "configs/tiny.py"
    assert result["adapters_per_s"] == 4.0
    assert result["seconds_by_phase"]["other"] == 1.0
    assert result["device"].startswith("cpu-")
    assert set(result["versions"]) == {"python", *demo.PACKAGES}
    assert {"command", "commit", "date", "peak_memory_bytes"} <= set(result)


def test_out_without_a_file_goes_to_the_results_of_the_device(
    demo, monkeypatch, tmp_path, capsys
):
    fake_run(demo, monkeypatch)
    monkeypatch.setattr(demo, "RESULTS", tmp_path)
    monkeypatch.setattr(demo, "device", lambda: "cpu-9")
    assert demo.main(["--out"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((tmp_path / "cpu-9" / "demo.json").read_text()) == result


@pytest.mark.slow
def test_a_real_run_from_the_command_line(root, child_env, tmp_path):
    out = tmp_path / "demo.json"
    done = subprocess.run(
        [
            sys.executable,
            "benchmarks/demo.py",
            "--config=configs/tiny.py:debug",
            f"--out={out}",
        ],
        cwd=root,
        env=child_env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(out.read_text()) == result
    assert result["adapters"] > 0
    assert result["seconds_by_phase"]["adapt"] > 0
    assert sum(result["seconds_by_phase"].values()) == pytest.approx(result["seconds"])
    assert result["peak_memory_bytes"] > 100 << 20
