"""The rows that the command prints, and what it refuses."""

import subprocess
import sys

import pytest
import text_runs
from text_runs import row

from seal_jax.analysis import novelty_measures
from seal_jax.report.commands import novelty
from seal_jax.runtime import files


@pytest.fixture
def workdir(tmp_path):
    return text_runs.write_run(tmp_path / "run")


def test_the_command_prints_rows_and_changes(workdir, capsys):
    assert novelty.main([str(workdir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["passages", "edits", "each", "words"]
    ratio = novelty_measures.zlib_ratio(["a b c", "x y z"])
    assert lines[1].split() == [
        *"run round 1 1 2 3 0.500 0.167 0.000 1.000".split(),
        f"{ratio:.2f}",
    ]
    ratio = novelty_measures.zlib_ratio(["x y z"])
    assert lines[2].split() == [
        *"run round 2 1 1 3 1.000 0.000 - 1.000".split(),
        f"{ratio:.2f}",
    ]
    assert lines[4].split()[:2] == ["diversity", "distinct_edits"]
    assert lines[5].split() == "run round 1 1.000 1.000 0.000 -".split()
    assert lines[6].split() == "run round 2 1.000 1.000 - -".split()
    assert lines[8].startswith("change")
    # abc and xyz with xyz: 0 and 1.
    assert lines[9].startswith("run round 2 - run round 1") and "0.500" in lines[9]
    assert len(lines) == 10


def test_the_commands_first_and_equal_names(workdir, tmp_path, capsys):
    other = tmp_path / "other" / "run"
    other.mkdir(parents=True)
    files.write_jsonl(other / "edits.jsonl", [row("", round=1)])
    assert novelty.main([str(workdir), str(other), "--first", "1"]) == 0
    out = capsys.readouterr().out
    assert f"{workdir} round 1" in out and f"{other} round 1" in out
    # Of the rounds only the two that have text are compared.
    changes = [line for line in out.splitlines() if " round 2 - " in line]
    assert len(out.splitlines()) == 2 * (4 + 1) + 1 + 1 and len(changes) == 1
    assert changes[0].startswith(f"{workdir} round 2 - {workdir} round 1")


BROKEN = {
    "missing": (None, [], "no such file or directory; give a workdir"),
    "not JSON": ("[", [], "must be one JSON value ("),
    "empty": ("[]", [], "must hold self-edits"),
    "summary": ('{"ladder": []}', [], "must hold self-edits"),
    "not records": ("[3]", [], "row 1 must have a passage and its self-edits ("),
    "no passage": (
        '[{"task_id": 1, "text": "x"}]',
        [],
        "lacks 'passage'; it has ['task_id', 't",
    ),
    "no edits": ('[{"context": "x"}]', [], "lacks 'text'; it has ['context']; give"),
    "null": ('[{"context": "x", "text": null}]', [], "None is not text"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_command_refuses_in_one_line(case, tmp_path, capsys):
    content, options, message = BROKEN[case]
    path = tmp_path / "f.json"
    if content:
        path.write_text(content)
    assert novelty.main([str(path), *options]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ")
    assert message in said.err and said.err.count("\n") == 1


def test_a_workdir_without_edits_is_refused(tmp_path, capsys):
    assert novelty.main([str(tmp_path)]) == 2
    assert "give a workdir with an edits.jsonl" in capsys.readouterr().err


def test_the_module_runs(workdir, child_env):
    command = [sys.executable, "-m", "seal_jax.report.commands.novelty", str(workdir)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_env)
    assert done.returncode == 0 and done.stderr == ""
    assert "run round 2 - run round 1" in done.stdout
