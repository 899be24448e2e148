"""What benchmarks share, and the demo benchmark: arithmetic, clocks, results."""

import argparse
import ast
import importlib
import json
import subprocess
import sys
import time

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
def load(root):
    """Imports a file of benchmarks/, which find each other as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def common(load):
    return load("common")


@pytest.fixture(scope="module")
def demo(load):
    return load("demo")


# Shapes


# Sizes as the models' own pages state them: all parameters, without the embedding.
@pytest.mark.parametrize(
    "name, billions, without_embedding",
    [
        ("qwen2.5-0.5b", 0.49, 0.36),
        ("qwen2.5-1.5b", 1.54, 1.31),
        ("qwen2.5-7b", 7.61, 6.53),
    ],
)
def test_named_shapes_have_the_size_their_name_says(
    common, name, billions, without_embedding
):
    shape = common.SHAPES[name]
    embedding = shape.vocab * shape.width
    layers = shape.matmul_parameters() - embedding
    whole = layers + embedding * (1 if shape.tied else 2)
    # Norms and biases are left out: at most 0.2 % of these models.
    assert layers / 1e9 == pytest.approx(without_embedding, abs=0.01)
    assert whole / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.parametrize("name", ["tiny", "small", "qwen2.5-0.5b", "qwen2.5-7b"])
def test_a_shape_is_a_config_that_the_decoder_reads(common, name):
    from seal_jax.models import hf_config

    shape = common.SHAPES[name]
    arch = hf_config.parse(shape.config(), dtype="float32")
    for field in ("vocab", "width", "layers", "heads", "kv_heads", "head_dim", "ff"):
        assert getattr(arch, field) == getattr(shape, field)
    assert (arch.tied, arch.family) == (shape.tied, "qwen2")
    assert arch.linears() == shape.linears()


def test_adapter_sizes_and_operations_at_7b(common):
    shape = common.SHAPES["qwen2.5-7b"]
    both = ("q_proj", "v_proj")
    assert shape.lora_parameters(rank=32, targets=both) == 28 * 32 * (
        3584 + 3584 + 3584 + 512
    )
    everything = shape.lora_parameters(rank=32, targets=tuple(shape.linears()))
    assert round(everything / 1e6, 2) == 80.74
    flops = shape.training_flops(rank=32, targets=both)
    assert round(flops / 1e9, 2) == round(4 * 7.0703 + 6 * 0.01009, 2)


def test_a_shape_flag_changes_fields_of_a_named_shape(common):
    changed = common.shape("small,layers=2,tied=0,vocab=4096")
    assert (changed.layers, changed.tied, changed.vocab) == (2, False, 4096)
    assert changed.width == common.SHAPES["small"].width
    assert common.shape("tiny") == common.SHAPES["tiny"]


@pytest.mark.parametrize(
    "text, rule",
    [
        ("huge", "'huge' must be one of tiny, small"),
        ("", "'' must be one of tiny"),
        ("small,depth=2", "'depth=2' must be FIELD=NUMBER with one of vocab, width"),
        ("small,layers=0", "'layers=0' must be FIELD=NUMBER"),
        ("small,layers=two", "'layers=two' must be FIELD=NUMBER"),
        ("small,layers", "'layers' must be FIELD=NUMBER"),
    ],
)
def test_a_bad_shape_flag_is_refused_in_one_line(common, text, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        common.shape(text)
    assert "\n" not in str(caught.value)


# Timing and results


def test_rates_are_counts_over_the_median_repeat(common):
    timed = common.rates([4.0, 1.0, 2.0], adapters=8, tokens=100, steps=None)
    assert timed == {
        "seconds": 2.0,
        "seconds_by_repeat": [4.0, 1.0, 2.0],
        "adapters_per_s": 4.0,
        "tokens_per_s": 50.0,
        "steps_per_s": None,
    }


@pytest.mark.parametrize("seconds", [[], [1.0, 0.0]])
def test_rates_without_time_are_refused(common, seconds):
    with pytest.raises(ValueError, match="must be one or more, all positive"):
        common.rates(seconds, adapters=1)


def test_every_repeat_is_timed_by_itself(common):
    waits = iter([0.05, 0.0, 0.1])
    seconds = common.time_repeats(lambda: time.sleep(next(waits)), repeats=3)
    assert len(seconds) == 3
    assert seconds[0] >= 0.05 and seconds[2] >= 0.1
    assert seconds[1] < seconds[0]


@pytest.mark.parametrize(
    "platform, kind, name",
    [
        ("cpu", "cpu", "cpu-2"),
        ("gpu", "NVIDIA H200", "nvidia-h200"),
        ("gpu", "NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm4-80gb"),
        ("tpu", "TPU v5 lite", "tpu-v5-lite"),
    ],
)
def test_device_names_serve_as_folders(common, platform, kind, name):
    assert common.device_name(platform, kind, cores=2) == name


def test_slugs_serve_as_file_names(common):
    assert common.slug("peft-qwen2.5-7B,tied=0/x") == "peft-qwen2.5-7b-tied-0-x"


def test_commands_are_given_from_the_root(common, monkeypatch, tmp_path):
    script = str(common.ROOT / "benchmarks" / "demo.py")
    monkeypatch.setattr(sys, "argv", [script, "--out", "a b"])
    assert common.command() == "python benchmarks/demo.py --out 'a b'"
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "own.py")])
    assert common.command() == f"python {tmp_path}/own.py"


def test_results_go_where_out_says(common, monkeypatch, tmp_path):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    parser = argparse.ArgumentParser()
    common.add_out(parser)
    result = {"device": "cpu-9", "b": 1.5, "a": None}
    own = tmp_path / "new" / "own.json"
    for flags, path in (
        ([], None),
        (["--out"], tmp_path / "results" / "cpu-9" / "thing.json"),
        ([f"--out={own}"], own),
    ):
        out = parser.parse_args(flags).out
        assert common.write(result, out, name="thing") == path
        assert path is None or json.loads(path.read_text()) == result
    assert own.read_text().startswith('{\n  "a": null,')
    assert common.line(result) == '{"device": "cpu-9", "b": 1.5, "a": null}'


def test_numbers_that_are_not_finite_are_no_result(common, tmp_path):
    broken = {"device": "cpu-9", "a": float("nan")}
    with pytest.raises(ValueError, match="not JSON compliant"):
        common.line(broken)
    with pytest.raises(ValueError, match="not JSON compliant"):
        common.write(broken, str(tmp_path / "new" / "x.json"), name="x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["common", "workload", "peft_loop", "peft_baseline"])
def test_what_the_baseline_needs_is_python_3_11_without_jax(root, name):
    source = (root / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 11))
    code = f"import sys, {name}; print(sorted({{'jax', 'torch'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root / "benchmarks",
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


# The demo


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


def test_a_process_is_timed_and_weighed(demo, root, child_env):
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
        env=child_env,
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
    demo, common, monkeypatch, tmp_path, capsys
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
    assert set(result["versions"]) == {"python", *common.JAX_PACKAGES}
    assert {"command", "commit", "date", "peak_memory_bytes"} <= set(result)


def test_out_without_a_file_goes_to_the_results_of_the_device(
    demo, common, monkeypatch, tmp_path, capsys
):
    fake_run(demo, monkeypatch)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "jax_device", lambda: "cpu-9")
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
