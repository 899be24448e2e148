"""The demo over seeds: its steps, their intervals, and what it reads."""

import importlib
import json
import math

import pytest
from scipy import stats as scipy_stats


@pytest.fixture(scope="module")
def bench(root):
    """benchmarks/seeds.py, which finds its neighbours as it does when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("seeds")


def summary(bench, lead):
    paired = [
        {"a": a, "b": b, "diff": lead + i / 10, "se": 0.05, "z": (lead + i / 10) / 0.05}
        for i, (a, b) in enumerate(bench.STEPS)
    ]
    ladder = [{"name": "base", "mean": 0.1}, {"name": "round_2", "mean": 0.1 + lead}]
    return {"paired": paired, "ladder": ladder}


def test_a_step_has_its_sign_whichever_row_comes_first(bench):
    line = {"a": "x", "b": "y", "diff": 0.25, "se": 0.1, "z": 2.5}
    assert bench.step({"paired": [line]}, "x", "y")["diff"] == 0.25
    turned = bench.step({"paired": [line]}, "y", "x")
    assert turned == {"diff": -0.25, "se": 0.1, "z": -2.5}
    with pytest.raises(ValueError, match="no difference of x and z"):
        bench.step({"paired": [line]}, "x", "z")


def test_the_interval_is_students(bench):
    diffs = [0.1, 0.3, 0.2, -0.1]
    found = bench.over_seeds([{"diff": d, "se": 0.1, "z": d / 0.1} for d in diffs])
    low, high = scipy_stats.t.interval(0.95, 3, loc=0.125, scale=scipy_stats.sem(diffs))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert (found["above_0"], found["telling"]) == (3, 2)
    assert math.isclose(found["least_z"], -1.0)
    with pytest.raises(ValueError, match="1 seeds have no interval"):
        bench.over_seeds([{"diff": 0.1, "se": 0.1, "z": 1.0}])


def test_finished_runs_are_read_and_the_tables_show_every_seed(
    bench, tmp_path, capsys, monkeypatch
):
    asked = []

    class Read:
        def __init__(self, values, workdir):
            asked.append((values["seed"], workdir.name))
            self.summary = summary(bench, values["seed"] / 100)

    monkeypatch.setattr(bench.eight_rounds, "run", Read)
    command = ["--seeds", "5", "7", "5", "--workdir", str(tmp_path)]
    assert bench.main(command) == 0
    assert asked == [(5, "seed5"), (7, "seed7")]
    *shown, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert list(result["runs"]) == ["5", "7"]
    assert result["runs"]["7"]["means"]["round_2"] == pytest.approx(0.17)
    first = result["steps"]["passage_only - base"]
    assert first["mean"] == pytest.approx(0.06) and first["above_0"] == 2
    assert any("round_2 - random_kept" in line and "2 of 2" in line for line in shown)


def test_one_seed_is_refused_in_one_line(bench, tmp_path, capsys, monkeypatch):
    class Read:
        def __init__(self, values, workdir):
            self.summary = summary(bench, 0.1)

    monkeypatch.setattr(bench.eight_rounds, "run", Read)
    assert bench.main(["--seeds", "5", "--workdir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: 1 seeds have no interval; give at least 2\n"
    )
