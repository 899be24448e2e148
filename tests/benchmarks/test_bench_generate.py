"""The decoding benchmark: what it counts, and a run of it."""

import importlib
import json

import command_ends
import jax
import numpy as np
import pytest

from seal_jax.models import decoder, hf_config, kv_cache

FLAGS = ["--shape=tiny", "--rows=6", "--per-page=2", "--prompt=5", "--tokens=4"]


@pytest.fixture(scope="module")
def bench(root):
    """benchmarks/generate.py, imported beside the files it shares."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("generate")


def arch_of(bench, name="tiny", dtype="bfloat16"):
    return hf_config.parse(bench.common.SHAPES[name].config(), dtype=dtype)


def nbytes(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("adapters", [0, 1, 2, 64])
def test_the_bytes_of_a_step_are_those_of_the_arrays(bench, adapters):
    arch = arch_of(bench)
    work = bench.Work(rows=6, per_page=2, prompt=5, tokens=4, rank=3)
    read = bench.step_bytes(arch, work, adapters)
    params = jax.eval_shape(lambda: decoder.init_params(jax.random.key(0), arch))
    layers = [params[f"layers_{i}"] for i in range(arch.layers)]
    matrices = [x for x in jax.tree.leaves(layers) if x.ndim == 2]
    assert read["weights"] == nbytes([*matrices, params["embed"]])  # the head is tied
    of_length = [
        nbytes(jax.eval_shape(lambda n=n: kv_cache.init(arch, rows=6, slots=n)))
        for n in (5, 6, 7, 8)
    ]
    assert read["cache"] == np.mean(of_length)
    # Q and V of two layers; three pages, so at most three adapters at a time.
    one = 2 * 2 * 3 * ((32 + 32) + (32 + 16))
    assert read["adapters"] == one * min(adapters, 3)


def test_the_copy_rate_counts_reading_and_writing(bench, monkeypatch):
    monkeypatch.setattr(bench.common, "time_repeats", lambda run, repeats: [4.0, 2.0])
    assert bench.copy_rate(1024, repeats=2) == 2 * 1024 / 2.0


def test_pages_take_the_adapters_in_turn(bench):
    arch = arch_of(bench, dtype="float32")
    work = bench.Work(rows=6, per_page=2, prompt=5, tokens=4, rank=3)
    rows = bench.begin(arch, bench.settings(work), work, 2)
    a_GRD = rows.delta["layers_0"]["q_proj"]["a"]
    assert a_GRD.shape == (3, 3, 32)
    np.testing.assert_array_equal(a_GRD[0], a_GRD[2])
    assert np.abs(a_GRD[0] - a_GRD[1]).max() > 0


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--rows=7"], "--rows=7 must be a multiple of --per-page=2"),
        (["--tokens=0"], "--tokens=0 must be at least 1"),
        (["--adapters", "-1"], "--adapters=-1 must be at least 0"),
        (["--shape=huge"], "'huge' must be one of"),
        (["--rank=99"], "lora.rank=99 must lie in 1..16"),
    ],
)
def test_bad_flags_are_one_line(bench, flags, message, capsys):
    assert command_ends.status(bench.main, [*FLAGS, *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_the_last_line_is_the_result(bench, tmp_path, capsys):
    out = tmp_path / "generate.json"
    flags = ["--adapters", "0", "2", "--rank=2", "--repeats=2", "--copy-mib=1"]
    assert bench.main([*FLAGS, *flags, f"--out={out}"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads(out.read_text()) == result
    assert [one["adapters"] for one in result["cases"]] == [0, 2]
    for one in result["cases"]:
        assert one["tokens_per_s"] == pytest.approx(6 * 4 / one["seconds"])
        assert one["share_of_bound"] == pytest.approx(
            one["tokens_per_s"] / one["bound_tokens_per_s"]
        )
        assert one["bound_tokens_per_s"] == pytest.approx(
            6 * result["copy_bytes_per_s"] / sum(one["bytes_per_step"].values())
        )
        assert len(one["seconds_by_repeat"]) == 2
    assert (result["rows"], result["tokens"], result["rank"]) == (6, 4, 2)
    assert {"command", "commit", "date", "device", "versions"} <= set(result)
