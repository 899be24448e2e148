"""Runs on the job over seeds: means, intervals, and what is no such run."""

import importlib
import json

import pytest
from scipy import stats as scipy_stats


@pytest.fixture(scope="module")
def bench(root):
    """benchmarks/job_seeds.py, which finds its neighbours as it does when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("job_seeds")


@pytest.fixture
def runs(bench, tmp_path):
    def arm(name, at):
        measures = {m: {"mean": at} for m in bench.MEASURES} | {"drift": at / 2}
        costs = {cost: [1, 2] for cost in bench.COSTS} | {"seconds": [at, 3 * at]}
        return {"name": name, **measures, "costs": costs}

    folders = []
    for seed, (edits, quiz) in enumerate([(0.1, 0.5), (0.3, 0.9), (0.2, 0.4)]):
        folder = tmp_path / f"job-{seed}"
        folder.mkdir()
        arms = [arm("edits", edits), arm("quiz", quiz)]
        summary = {"kind": "deploy", "arms": arms, "adapters": 1, "tokens": 2}
        summary |= {"seconds": {}, "config_hash": "x"}
        (folder / "summary.json").write_text(json.dumps(summary))
        folders.append(str(folder))
    return folders


def test_rows_and_differences_have_students_intervals(bench, runs, capsys):
    found = bench.benchmark(bench.parse_args(runs))
    quiz = found["rows"]["quiz"]["final"]
    low, high = scipy_stats.t.interval(
        0.95, 2, loc=0.6, scale=scipy_stats.sem([0.5, 0.9, 0.4])
    )
    assert quiz["mean"] == pytest.approx(0.6)
    assert (quiz["mean"] - quiz["half"], quiz["mean"] + quiz["half"]) == pytest.approx(
        (low, high)
    )
    assert found["rows"]["quiz"]["drift"]["mean"] == pytest.approx(0.3)
    # By run: 0.4, 0.6 and 0.2.
    apart = found["differences"]["quiz - edits"]["learned"]
    assert apart["values"] == pytest.approx([0.4, 0.6, 0.2])
    assert found["costs"]["quiz"]["seconds"] == pytest.approx(1.2)
    assert found["costs"]["quiz"]["tokens"] == 1.5
    assert bench.main(runs) == 0
    assert "quiz - edits" in capsys.readouterr().out
    alone = bench.benchmark(bench.parse_args(runs[:1]))["rows"]["quiz"]["final"]
    assert alone["half"] is None


def test_what_is_no_such_run_is_said_in_one_line(bench, runs, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "summary.json").write_text('{"kind": "continual"}')
    for folders, told in (
        ([*runs, str(other)], "no finished run on the job"),
        ([*runs, str(tmp_path / "none")], "none"),
    ):
        assert bench.main(folders) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and told in error
        assert error.count("\n") == 1
    summary = json.loads((tmp_path / "job-0" / "summary.json").read_text())
    summary["arms"] = summary["arms"][:1]
    (other / "summary.json").write_text(json.dumps(summary))
    assert bench.main([*runs, str(other)]) == 2
    assert "has rows ['edits'] and" in capsys.readouterr().err
