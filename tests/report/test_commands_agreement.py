"""The table of the command, and what it refuses."""

import pytest
from reward_runs import graded_row, workdir

from seal_jax.report.commands import agreement


def test_one_edit_for_each_passage_is_no_choice(tmp_path, capsys):
    assert (
        agreement.main(
            [str(workdir(tmp_path, graded_row("a", [0.5]), graded_row("b", [1])))]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert out == (
        f"{tmp_path.name} round 1: one edit for each passage: nothing to choose from\n"
    )


def test_the_command_prints_a_row_for_each_reward(tmp_path, capsys):
    rows = [
        graded_row(p, [0.1 * e], text="ha " * e + p, quiz=None)
        for p in "ab"
        for e in (2, 5)
    ]
    assert agreement.main([str(workdir(tmp_path, *rows))]) == 0
    head, *lines = capsys.readouterr().out.rstrip().splitlines()
    assert head.startswith(f"{tmp_path.name} round 1")
    cells = {line.split("  ")[0]: line.split() for line in lines}
    assert list(cells) == ["quiz", "rubric by rules", "words", "novel trigrams"]
    assert cells["quiz"] == ["quiz", "0", *["-"] * 11]
    assert cells["words"][1:3] == ["2", "+1.000"]
    assert "100 %" in next(line for line in lines if line.startswith("words"))


def test_the_last_table_is_by_round_over_the_runs(tmp_path, capsys):
    """A reward that is right in round 1 and wrong in round 2, in one run of the two."""
    paths = []
    for name, second in (("a", 0.0), ("b", 1.0)):
        (tmp_path / name / "run").mkdir(parents=True)
        rows = [
            graded_row("p", [grade], number=number, quiz=[quiz])
            for number, quizzes in ((1, (0.0, 1.0)), (2, (1.0 - second, second)))
            for grade, quiz in zip((0.25, 0.75), quizzes, strict=True)
        ]
        paths.append(str(workdir(tmp_path / name / "run", *rows)))
    assert agreement.main(paths) == 0
    *_, last = capsys.readouterr().out.rstrip().split("\n\n")
    head, *lines = last.splitlines()
    assert head.split() == "by round runs round 1 round 2".split()
    # Of the best edit's lead over the mean: all of it; then none of it, or less.
    spread = "0.00 (-12.71 to 12.71)"
    found = {line.split("  ")[0]: line.split("  ")[-1] for line in lines}
    assert found["quiz: captured"] == spread and found["quiz: correlation"] == spread
    assert "1.00 (1.00 to 1.00)" in next(line for line in lines if "quiz: c" in line)
    assert agreement.main(paths[:1]) == 0
    *_, last = capsys.readouterr().out.rstrip().split("\n\n")
    captured = next(x for x in last.splitlines() if x.startswith("quiz: captured"))
    assert captured.split() == ["quiz:", "captured", "1", "1.00", "-1.00"]


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "no edits.jsonl with edits"),
        ('{"passage_id": "a"}\n', "row 1 of edits.jsonl lacks"),
        ('{"answers": []}\n', "row 1 of edits.jsonl lacks"),
        ('{"passage_id": "a", "measured": 1}\n', "row 1 of edits.jsonl lacks"),
    ],
)
def test_workdirs_without_grades_are_refused(tmp_path, capsys, text, words):
    if text is not None:
        (tmp_path / "edits.jsonl").write_text(text, encoding="utf-8")
    assert agreement.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and words in said and said.count("\n") == 1


@pytest.mark.parametrize("text", ["[]", '{"articles": [{}]}', '{"articles": [1]}', "{"])
def test_files_that_are_no_ranking_results_are_refused(tmp_path, capsys, text):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    assert agreement.main([str(path)]) == 2
    assert agreement.main([str(tmp_path / "none.json")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "none.json: no such file or directory; give a workdir or" in said[1]
    assert len(said) == 2 and all(line.startswith("error: ") for line in said)
