"""The benchmark of races over edits: how it grades a choice, and that it runs."""

import importlib
import json
import math
from typing import Any

import command_ends
import pytest
import tiny_model

from seal_jax.experiment import kinds
from seal_jax.rounds import grading
from seal_jax.runtime import files

GRADE, DENSE = "grade", "log_likelihood"


@pytest.fixture(scope="module")
def bench(root):
    """benchmarks/racing.py, which finds its neighbours as it does when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("racing")


# Accuracies and log-likelihoods at 4 seeds of 3 edits of 2 passages; two of them judge.
ACCURACY = [
    [[0.5, 0.4, 0.2, 0.4], [0.5, 0.9, 0.8, 1.0], [0.6, 0.0, 0.3, 0.3]],
    [[0.1, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0], [0.2, 0.2, 0.7, 0.9]],
]
LIKELIHOOD = [
    [[-1.0, -1.0, -9.0, -9.0], [-2.0, -2.0, 0.0, 0.0], [-3.0, -3.0, 0.0, 0.0]],
    [[-2.0, -2.0, 0.0, 0.0], [-1.0, -1.0, 0.0, 0.0], [-3.0, -3.0, 0.0, 0.0]],
]


def ways(bench):
    return (
        bench.Way("uniform_2", GRADE, ((2, 1),)),
        bench.Way("uniform_1", GRADE, ((1, 1),)),
        bench.Way("race", GRADE, ((1, 2), (2, 1))),
        bench.Way("uniform_2", DENSE, ((2, 1),)),
        bench.Way("race", DENSE, ((1, 2), (2, 1))),
    )


def run(bench, seeds, kept, *, name="run"):
    """A finished run whose edits had so many seeds, by passage and edit."""
    edits = [
        {
            "passage_id": f"p{p}",
            "edit": e,
            "text": f"edit {e} of {p}",
            "kept": kept[p] == e,
            "losses": [2.0] * seeds[p][e],
            "measured": {
                GRADE: ACCURACY[p][e][: seeds[p][e]],
                DENSE: LIKELIHOOD[p][e][: seeds[p][e]],
            },
        }
        for p in (0, 1)
        for e in (0, 1, 2)
    ]
    seconds = {"round_1/adapt": 2.0, "round_1/rung_1/adapt": 1.0, "round_1/grade": 9.0}
    summary = {"seconds": seconds | {"ladder/round_1/adapt": 5.0, "round_1/base": 7.0}}
    return bench.run_view.Workdir(name, summary, edits=edits)


@pytest.fixture
def runs(bench):
    """Runs as the ways would have gone, by hand."""
    return {
        "uniform_2": run(bench, [[2] * 3] * 2, [1, 2]),
        "uniform_1": run(bench, [[1] * 3] * 2, [2, 2]),
        # Of p0 edit 2 leads, then edit 0, the first of equals; edit 1 goes.
        "race": run(bench, [[2, 1, 2], [2, 1, 2]], [0, 2]),
        "race_dense": run(bench, [[2, 2, 1], [2, 2, 1]], [0, 1]),
    }


@pytest.fixture
def truth(bench):
    return bench.passages(run(bench, [[4] * 3] * 2, [1, 2]).edits)


# Grading


def test_each_choice_is_graded_by_seeds_that_no_run_has_used(bench, truth, runs):
    # Means of the last two seeds.
    values = [[0.3, 0.9, 0.3], [0.1, 0.0, 0.8]]
    got = bench.true_values(truth, used=2)
    assert [v for p in got for v in p] == pytest.approx([v for p in values for v in p])
    made = bench.graded(truth, runs, ways(bench))
    chosen = [(1, 2), (2, 2), (0, 2), (0, 1), (0, 1)]
    for row, (a, b) in zip(made, chosen, strict=True):
        own = values[0][a], values[1][b]
        assert row["true_reward"] == pytest.approx(sum(own) / 2)
        assert row["gain"]["diff"] == pytest.approx(sum(own) / 2 - (0.5 + 0.3) / 2)
    assert [row["trainings"] for row in made] == [12, 6, 10, 12, 10]
    assert {row["adapt_seconds"] for row in made} == {3.0}
    assert made[0]["over_first"] is None
    assert made[2]["over_first"]["diff"] == pytest.approx((0.3 - 0.9) / 2)
    assert made[2]["over_first"]["se"] == pytest.approx(0.3)


def test_what_is_expected_is_graded_by_accuracy_whatever_decides(bench, truth, runs):
    made = bench.graded(truth, runs, ways(bench))
    # Every split of the seeds, by hand for one seed: the pick's other three seeds.
    gains = []
    for passage in ACCURACY:
        own = []
        for s in range(4):
            rest = [(sum(e) - e[s]) / 3 for e in passage]
            most = max(e[s] for e in passage)
            tied = [r for e, r in zip(passage, rest, strict=True) if e[s] == most]
            own.append(sum(tied) / len(tied) - sum(rest) / 3)
        gains.append(sum(own) / 4)
    # 400 draws of 4 seeds.
    assert made[1]["expected"] == pytest.approx(sum(gains) / 2, abs=0.03)
    diff = made[1]["expected"] - made[0]["expected"]
    assert made[1]["expected_over_first"]["diff"] == pytest.approx(diff)
    assert made[3]["expected"] < made[0]["expected"]


def test_a_passage_whose_edits_were_all_refused_counts_nowhere(bench, runs):
    truth = bench.passages(run(bench, [[4] * 3, [0] * 3], [1, None]).edits)
    few = {
        name: run(bench, [seeds, [0] * 3], [kept, None])
        for name, seeds, kept in (
            ("uniform_2", [2] * 3, 1),
            ("uniform_1", [1] * 3, 2),
            ("race", [2, 1, 2], 0),
            ("race_dense", [2, 2, 1], 0),
        )
    }
    made = bench.graded(truth, few, ways(bench))
    assert made[0]["true_reward"] == pytest.approx(0.9)
    assert (made[0]["gain"]["se"], made[0]["trainings"]) == (None, 6)
    assert bench.picks(ways(bench)[0], bench.passages(few["uniform_2"].edits)) == [
        1,
        None,
    ]


def change(workdir, passage, edit, **fields):
    (row,) = (
        r
        for r in workdir.edits
        if (r["passage_id"], r["edit"]) == (f"p{passage}", edit)
    )
    row.update(fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"measured": {GRADE: [0.6, 0.1], DENSE: [-3.0, -3.0]}},
            r"race: p0, edit 2: grade \[0.6, 0.1\] must be the first of \[0.6, 0",
        ),
        (
            {"measured": {GRADE: [0.6, 0.0], DENSE: [-3.0, -3.001]}},
            "race: p0, edit 2: log_likelihood .* gave another adapter",
        ),
        # The last bit counts.
        ({"losses": [math.nextafter(2.0, 3.0)] * 2}, "race: p0, edit 2: losses"),
        ({"losses": [2.0] * 5}, "race: p0, edit 2: losses"),
        ({"text": "other"}, "race: its edits must be those of truth"),
        ({"kept": True}, r"race: passage 0 kept \[0, 2\] and its rewards say 0"),
    ],
)
def test_a_run_that_is_not_a_part_of_truth_is_refused(
    bench, truth, runs, fields, message
):
    change(runs["race"], 0, 2, **fields)
    with pytest.raises(ValueError, match=message) as caught:
        bench.graded(truth, runs, ways(bench))
    assert "\n" not in str(caught.value)


def test_log_likelihoods_are_the_same_up_to_rounding(bench, truth, runs):
    near = {GRADE: [0.6, 0.0], DENSE: [-3.0, math.nextafter(-3.0, 0.0)]}
    change(runs["race"], 0, 2, measured=near)
    assert len(bench.graded(truth, runs, ways(bench))) == 5


def test_the_table(bench, truth, runs):
    result = {
        "choices": bench.graded(truth, runs, ways(bench)),
        "spread": {"edits": 0.25, "seeds": 0.125},
    }
    lines = bench.table(result).splitlines()
    assert lines[2].split()[:5] == ["uniform_2", GRADE, "12", "3", "0.850"]
    assert lines[2].split()[-1] == "-"
    assert "-0.300 ± 0.300" in lines[4]
    assert "by 0.250 between the edits" in lines[-1]


# The runs


def test_every_run_is_a_legal_config(bench):
    needed = bench.needed(bench.WAYS, judge_seeds=8)
    assert set(needed) == {bench.TRUTH, *(way.run for way in bench.WAYS)}
    for changes in needed.values():
        values = bench.eight_rounds.settings("", changes, seed=0)
        exp: Any = kinds.read(values)
        assert set(exp.select.measured) == {GRADE, DENSE}
        assert (exp.scale.rounds, exp.scale.passages, exp.ladder) == (1, 48, ())
    assert needed[bench.TRUTH]["scale.seeds"] == 12
    assert needed["race_1_2_4"]["select.halving"] == ((1, 3), (2, 2), (4, 1))
    assert needed["race_1_2_4_dense"]["select.reward"] == DENSE
    assert len(needed) == 7


@pytest.mark.parametrize("flag", ["--passages=1", "--judge-seeds=0"])
def test_flags_that_leave_nothing_to_compare_are_refused(bench, tmp_path, flag, capsys):
    argv = [f"--workdir={tmp_path}", flag]
    assert command_ends.status(bench.main, argv) == 2
    assert f"{flag} must be at least" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_real_runs_end_to_end(bench, monkeypatch, tmp_path, capsys):
    """Live races on a tiny model: their rewards are the first ones of `truth`."""
    model = tiny_model.write(tmp_path / "model")

    def settings(arg, changes, *, seed):
        dotted = {key.replace(".", "__"): value for key, value in changes.items()}
        return tiny_model.values(model, seed=seed, **{"scale__edits": 3} | dotted)

    def scorer(cfg, workdir):
        return tiny_model.toss

    monkeypatch.setattr(grading, "scorer", scorer)
    monkeypatch.setattr(bench.eight_rounds, "settings", settings)
    uniform, _, race, *_ = ways(bench)
    monkeypatch.setattr(bench, "WAYS", (uniform, race))
    monkeypatch.setattr(bench.common, "jax_device", lambda: "cpu-9")
    workdir = tmp_path / "runs"
    flags = [f"--workdir={workdir}", "--passages=2", "--judge-seeds=1"]
    assert bench.main(flags) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["truth_trainings"] == 2 * 3 * 3
    assert [row["trainings"] for row in result["choices"]] == [12, 10]
    assert {"command", "commit", "date", "device", "versions"} <= set(result)
    # Again: read, not run.
    times = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    assert bench.main(flags) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["choices"] == result["choices"]
    assert {p: p.stat().st_mtime_ns for p in times} == times
    # A training that is not that of truth is noticed.
    rows = files.read_jsonl(workdir / "race" / "edits.jsonl")
    rows[0]["losses"][0] += 1e-7
    files.write_jsonl(workdir / "race" / "edits.jsonl", rows)
    assert bench.main(flags) == 2
    assert "race: train-0-0, edit 0: losses" in capsys.readouterr().err
