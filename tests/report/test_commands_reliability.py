"""Reading rewards from both kinds of runs; the tables of the command."""

import json

import pytest

from seal_jax.report.commands import reliability

RANKING = "knowledge-incorporation/results/query_server/train/rank_iter0.json"


def ranking(*passages):
    """A result file's value; passages[p][e][seed] lists verdicts."""
    return {
        "articles": [
            {
                "completions": [
                    {
                        "questions": [
                            {"rep": rep, "adapter_correct": right}
                            for rep, verdicts in enumerate(edit)
                            for right in verdicts
                        ]
                    }
                    for edit in passage
                ]
            }
            for passage in passages
        ]
    }


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def row(passage, rewards, *, scores=None, number=1, key="passage_id"):
    scores = [[r] for r in rewards] if scores is None else scores
    answers = [[{"score": s} for s in own] for own in scores]
    return {key: passage, "rewards": rewards, "round": number, "answers": answers}


def workdir(tmp_path, *rows):
    text = "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "edits.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def test_ranking_results_give_the_share_right_at_each_seed(tmp_path):
    value = ranking([[[True, False], [True, True]], [[False], [True]]])
    (got,) = reliability.read(write(tmp_path / "run.json", value))
    assert got.name == "run"
    assert got.rewards == [[[0.5, 1.0], [0.0, 1.0]]] == got.judge


def test_workdirs_give_each_round(tmp_path):
    rows = [
        row("a", [0.5, None]),
        row("b", [1.0, 1.0]),
        row("a", [0.0, 0.25]),
        row("a", [0.1, 0.2], number=2),
    ]
    first, second = reliability.read(workdir(tmp_path, *rows))
    assert first.name == f"{tmp_path.name} round 1"
    assert first.rewards == [[[0.5, None], [0.0, 0.25]], [[1.0, 1.0]]] == first.judge
    assert second.rewards == [[[0.1, 0.2]]]


def test_tasks_may_be_passages_and_answers_may_be_absent(tmp_path):
    bare = {"task_id": "t", "rewards": [0.0, 1.0], "round": 1, "answers": [["?"], []]}
    (got,) = reliability.read(workdir(tmp_path, bare))
    assert got.rewards == [[[0.0, 1.0]]] == got.judge


def test_a_dense_reward_is_graded_by_right_answers(tmp_path):
    rows = [
        row("a", [-0.5, -1e6], scores=[[1.0, 0.0, None], []]),
        row("a", [-0.7, -0.6], scores=[[None], [1.0]]),
    ]
    dense, right = reliability.read(workdir(tmp_path, *rows))
    assert dense.rewards == [[[-0.5, None], [-0.7, -0.6]]]  # failed: not a value
    assert dense.judge == right.rewards == [[[0.5, 0.0], [None, 1.0]]]
    assert right.name == f"{dense.name}, right answers"


def test_other_rewards_are_read_where_every_seed_has_them(tmp_path):
    more = {"grade": [1.0, 0.0], "log_likelihood": [-1.0, -1e6], "rubric": [0.4]}
    same = {"grade": [0.5, 0.5], "log_likelihood": [-2.0, -3.0], "rubric": [0.6]}
    rows = [
        row("a", [1.0, 0.0]) | {"measured": more},
        row("a", [0.5, 0.5]) | {"measured": same},
    ]
    grade, dense = reliability.read(workdir(tmp_path, *rows))
    assert grade.rewards == grade.judge == dense.judge == [[[1.0, 0.0], [0.5, 0.5]]]
    assert dense.name == f"{grade.name}, log_likelihood"
    assert dense.rewards == [[[-1.0, None], [-2.0, -3.0]]]


def test_of_a_race_only_the_seeds_of_all_count(tmp_path):
    rows = [
        row("a", [1.0, 0.5, 0.0]) | {"out": False},
        row("a", [0.5]) | {"out": True},
        row("a", []) | {"out": True},  # refused: it did not run
        row("b", [0.0, 0.5, 1.0]) | {"out": False},
        row("b", [0.25, 0.5], number=2) | {"out": False},
    ]
    first, second = reliability.read(workdir(tmp_path, *rows))
    assert first.rewards == first.judge == [[[1.0], [0.5], []], [[0.0]]]
    assert second.rewards == [[[0.25, 0.5]]]
    assert (first.raced, second.raced) == (1, None)


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


def test_refuses_draws_and_missing_files(tmp_path, capsys):
    assert reliability.main([str(tmp_path), "--draws", "0"]) == 2
    assert "--draws 0: must be at least 1" in capsys.readouterr().err
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
