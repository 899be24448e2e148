"""The tables of the command, and what it refuses."""

import pytest
from reward_runs import ranking, row, workdir, write

from seal_jax.report.commands import reliability

RANKING = "knowledge-incorporation/results/query_server/train/rank_iter0.json"


def test_a_race_of_one_seed_for_all_is_said(tmp_path, capsys):
    rows = [
        row("a", [1.0, 0.5]) | {"out": False},
        row("a", [0.5]) | {"out": True},
    ]
    assert reliability.main([str(workdir(tmp_path, *rows))]) == 2
    said = capsys.readouterr().err
    assert "round 1 (a race: only seed 1): 1 passages, 2 edits, 2 trainings" in said
    assert said.endswith("; of a race only the seeds count that all edits had\n")


@pytest.mark.parametrize(
    "value, message",
    [
        ({"ladder": []}, "must be a workdir or a SEAL ranking result"),
        ({"articles": [{}]}, "an article lacks what a SEAL result has"),
        (ranking([[]]), "an edit lists no answers"),
        (ranking([[[True], [False]]]), "run: 1 passages, 1 edits, 2 trainings: needs"),
        ({"articles": []}, "run: 0 passages"),
    ],
)
def test_refuses_in_one_line(value, message, tmp_path, capsys):
    path = write(tmp_path / "run.json", value)
    assert reliability.main([str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and message in err


@pytest.mark.parametrize(
    "rows, message",
    [
        ((), "no edits.jsonl with edits"),
        ((row("a", [1.0]), row("a", [0.5])), "needs an edit with two seeds"),
        (({"passage_id": "a"},), "lacks its passage_id or rewards"),
    ],
)
def test_refuses_workdirs_in_one_line(rows, message, tmp_path, capsys):
    assert reliability.main([str(workdir(tmp_path, *rows))]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err


def test_refuses_missing_files(tmp_path, capsys):
    assert reliability.main([str(tmp_path / "gone.json")]) == 2
    assert (
        "gone.json: no such file or directory; give a workdir or"
        in capsys.readouterr().err
    )


def test_prints_a_workdir(tmp_path, capsys):
    dense = [[-0.9, -0.8, -0.7], [-0.2, -0.1, -0.3]]
    scores = [[[0.0], [0.0], [1.0]], [[1.0], [1.0], [0.0]]]
    rows = [
        row(p, own, scores=s)
        for p in ("a", "b")
        for own, s in zip(dense, scores, strict=True)
    ]
    assert reliability.main([str(workdir(tmp_path, *rows)), "--draws", "5"]) == 0
    out = capsys.readouterr().out
    first, second = out.split("round 1, right answers: ")
    assert "held out: chosen by these rewards, graded by right answers" in first
    assert "of 2 edits" in first and "of 8 edits" in first
    assert "held out: chosen" not in second
    # The dense reward always takes the second edit, right 2 of 3 times, not 1 of 3.
    line = next(x for x in first.splitlines() if x.startswith("1  "))
    held = float(line.split()[-2])
    assert held == pytest.approx((2 / 3 - 1 / 3) / 2, abs=0.05)


def test_no_worth_is_said_and_prints_dashes(tmp_path, capsys):
    value = ranking(*[[[[True], [False]], [[False], [True]]]] * 3)
    path = write(tmp_path / "run.json", value)
    assert reliability.main([str(path), "--draws", "5"]) == 0
    out = capsys.readouterr().out
    assert "the variance of the edits was estimated below 0: taken as 0" in out


def test_the_released_ranking(seal_data, capsys):
    assert reliability.main([str(seal_data / RANKING), "--draws", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "rank_iter0: 50 passages, 250 edits, 750 trainings, mean reward 0.4018"
    )
    assert "edits 0.0057, seeds 0.0367; of means over 3 seeds 0.0179" in lines[1]
    assert next(x for x in lines if x.startswith("3  ")).split()[1] == "0.32"
    assert next(x for x in lines if x.startswith("12  ")).split()[1] == "0.65"
