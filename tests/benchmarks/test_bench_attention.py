"""The benchmark of attention: its cases, its forms, and what it writes."""

import importlib
import json

import numpy as np
import pytest


@pytest.fixture
def bench(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("attention")


def test_all_forms_are_one_attention(bench):
    case = bench.Case(2, 40, 16, 4, 2, 8)
    given = bench.operands(case, "float32")
    q, k, v, first, end, _ = given
    # Lines of 16, 16 and 8, each position with those of its line up to itself.
    assert first[0, [0, 15, 16, 39]].tolist() == [0, 0, 16, 32]
    assert end[1].tolist() == list(range(1, 41))
    y = bench.whole(q, k, v, first, end)
    want = bench.api.attention(q, k, v, first, end)
    np.testing.assert_allclose(y, want, atol=1e-5)


def test_a_result_has_every_case_and_implementation(bench, tmp_path, capsys):
    out = tmp_path / "attention.json"
    flags = ["--cases", "tiny", "--implementations", "xla", "--repeats", "1"]
    assert bench.main([*flags, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    (case,) = result["cases"].values()
    assert set(case["milliseconds"]) == {"scores", "xla"}
    assert case["scores_used"] == pytest.approx(3 * (20 * 21 / 2) / 64**2)
    assert "tiny: all scores" in capsys.readouterr().out
