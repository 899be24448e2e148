"""Runs without labels over seeds: rows, differences, votes, and what is no such run."""

import importlib
import json

import pytest


@pytest.fixture(scope="module")
def bench(root):
    """benchmarks/lmsi_seeds.py, which finds its neighbours as it does when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("lmsi_seeds")


@pytest.fixture
def runs(bench, tmp_path):
    folders = []
    for seed, up in enumerate([0.1, 0.3, 0.2]):
        means = {"base": 0.5, "round_1": 0.5 + up, "random_chain_1": 0.5}
        sides = {
            side: [
                {"name": f"{stage} {way}", "mean": mean}
                for way in bench.WAYS
                for stage, mean in means.items()
            ]
            for side in ("train", "heldout")
        }
        bins = [{"low": 0.0, "high": 1.0, "n": 4, "accuracy": 0.5}]
        votes = [
            {"side": side, "name": stage, "share": 0.6, "sampled": 0.4, "bins": bins}
            for side in sides
            for stage in means
        ]
        growth = {"side": "train", "name": "round_1", "since": "base"}
        growth |= dict.fromkeys(bench.GROWTH, up)
        summary = {"kind": "lmsi", "sides": sides, "votes": votes, "growth": [growth]}
        summary |= {"learned": [], "seconds": {}, "config_hash": "x"}
        folder = tmp_path / f"lmsi-{seed}"
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps(summary))
        folders.append(str(folder))
    return folders


def test_rows_differences_growth_and_bins_are_over_seeds(bench, runs, capsys):
    found = bench.benchmark(bench.parse_args(runs))
    assert found["rows"]["heldout round_1"]["chain"]["mean"] == pytest.approx(0.7)
    assert found["rows"]["train base"]["sampled"]["mean"] == pytest.approx(0.4)
    apart = found["differences"]["heldout round_1 - random_chain_1"]["chain"]
    assert apart["values"] == pytest.approx([0.1, 0.3, 0.2])
    # t(0.975, 2) / sqrt(3) times the deviation of 0.1.
    assert apart["half"] == pytest.approx(0.2484, abs=1e-4)
    grown = found["growth"]["train round_1 since base"]["grown"]
    assert grown["mean"] == pytest.approx(0.2)
    assert found["bins"]["train 0.0 to 1.0"]["accuracy"]["mean"] == 0.5
    assert bench.main(runs) == 0
    assert "train round_1 - base" in capsys.readouterr().out


def test_runs_of_before_lack_some_of_growth(bench, runs, tmp_path):
    for folder in tmp_path.glob("lmsi-*"):
        summary = json.loads((folder / "summary.json").read_text())
        del summary["growth"][0]["turned_before"]
        (folder / "summary.json").write_text(json.dumps(summary))
    found = bench.benchmark(bench.parse_args(runs))
    grown = found["growth"]["train round_1 since base"]
    assert grown["grown"]["mean"] == pytest.approx(0.2)
    assert bench.main(runs) == 0


def test_growth_is_counted_from_what_was_said(bench, runs, tmp_path):
    """As runs are measured now, whatever their summary has."""
    said = {"base": ["w", "w", "w", "r"], "round_1": ["r", "r", "w", "w"]}
    rows = [
        {"side": "train", "arm": arm, "question": "?", "gold": "r", "answers": answers}
        for arm, answers in said.items()
    ]
    for folder in tmp_path.glob("lmsi-*"):
        (folder / "heldout.jsonl").write_text(
            "".join(json.dumps(r) + "\n" for r in rows)
        )
    found = bench.benchmark(bench.parse_args(runs))["growth"][
        "train round_1 since base"
    ]
    assert found["grown"]["mean"] == 1.0 and found["shrunk"]["mean"] == 0.0
    assert found["wrong_before"]["mean"] == 0.5
    assert found["wrong_after"]["mean"] == 1.0


def test_what_is_no_such_run_is_said_in_one_line(bench, runs, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "summary.json").write_text('{"kind": "deploy"}')
    assert bench.main([*runs, str(other)]) == 2
    error = capsys.readouterr().err
    assert "no finished run without labels" in error and error.count("\n") == 1
    summary = json.loads((tmp_path / "lmsi-0" / "summary.json").read_text())
    del summary["sides"]["heldout"]
    summary["votes"] = [v for v in summary["votes"] if v["side"] == "train"]
    (other / "summary.json").write_text(json.dumps(summary))
    assert bench.main([*runs, str(other)]) == 2
    assert "give runs of one config" in capsys.readouterr().err
