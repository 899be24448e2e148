"""Runs of configs/arc.py from the first check to the last file, cut to the shortest."""

import json
import shutil

import pytest
import tiny_model

from seal_jax import train
from seal_jax.report import console
from seal_jax.tasks.arc import self_edit as arc_edit

ROWS = ["in_context", "random", "self_edits", "round_1", "constant", "oracle"]
SHORT = {
    "scale.tasks": 2,
    "scale.edits": 3,
    "scale.heldout_tasks": 2,
    "scale.heldout_edits": 2,
    "propose.batch": 6,
    "data.most": 6,
    "edit.max_steps": 9,
    # Fewer projections compile sooner, and one epoch is three steps.
    "inner.lora.targets": ("down_proj",),
    "imitate.lora.targets": ("v_proj",),
    "task.oracle": tiny_model.load_config("arc", "tiny").task.oracle.replace(
        '"num_train_epochs": 3', '"num_train_epochs": 1'
    ),
    "inner.step_tokens": 768,
    "inner.slots": 4,
    "inner.active": 4,
    "inner.pool": 4,
    "views.reorders": 0,
    "views.geometric": ("flip0",),
    "answer.batch": 12,
    "imitate.epochs": 1,
    # Nothing is solved in nine steps; the round has to go on all the same.
    "select.threshold": "none",
}


def short(arg: str = "tiny", **changes) -> dict:
    config = tiny_model.load_config("arc", arg)
    config.update_from_flattened_dict(SHORT | changes)
    return config.to_dict()


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir, said = tmp_path_factory.mktemp("arc") / "run", []
    summary = train.run(short(), workdir, say=said.append)
    return workdir, summary, said


def without_clock(summary: dict) -> dict:
    return {k: v for k, v in summary.items() if k not in ("seconds", "compile")}


def test_the_ladder_has_its_rows_and_every_edit_is_accounted_for(finished):
    workdir, summary, said = finished
    assert [row["name"] for row in summary["ladder"]] == ROWS
    rows = {row["name"]: row for row in summary["ladder"]}
    heldout = read(workdir / "heldout.jsonl")
    for name in ROWS[1:]:
        arm_rows = [row for row in heldout if row["arm"] == name]
        refused = sum(row["refused"] is not None for row in arm_rows)
        assert rows[name]["edits"] == len(arm_rows) == 4
        assert rows[name]["trained"] == 4 - refused
        assert rows[name]["drawn"] == 4 + sum(len(row["redrawn"]) for row in arm_rows)
        assert sum(rows[name]["refused"].values()) >= refused
        for row in arm_rows:
            assert (row["reward"] is None) == (row["refused"] is not None)
            assert len(row["answers"]) == (row["refused"] is None)
    for name in ("random", "constant", "oracle"):
        assert rows[name]["trained"] == 4
    assert {row["name"]: row["n"] for row in summary["ladder"]} == dict.fromkeys(
        ROWS, 2
    )
    assert [set(item) for item in summary["items"]] == [{"item", *ROWS}] * 2
    assert any("success" in line and "in budget" in line for line in said)


def test_the_files_tell_the_tasks_and_the_configurations(finished):
    workdir, summary, _ = finished
    items = read(workdir / "items.jsonl")
    assert len(items) == 4 and all(row["train"] and row["test"] for row in items)
    ids = {row["task_id"] for row in items}
    edits = read(workdir / "edits.jsonl")
    assert len(edits) == 6 and {row["task_id"] for row in edits} <= ids
    for row in edits:
        if row["refused"] is None:
            assert 1 <= row["steps"] <= 10 and row["sequences"] <= 6
        assert (row["refused"] in arc_edit.REASONS) == ("steps" not in row)
    assert console.summary_table(summary).count("heldout-0-") == 2
    assert "<svg" in (workdir / "report.html").read_text()


def test_a_run_that_was_stopped_ends_with_the_same_summary(finished, tmp_path):
    """Half of the journal is what a kill in the middle leaves."""
    workdir, summary, _ = finished
    again = tmp_path / "again"
    shutil.copytree(workdir, again)
    (again / "summary.json").unlink()
    shutil.rmtree(again / "checkpoints")
    lines = (again / "journal.jsonl").read_text().splitlines(keepends=True)
    (again / "journal.jsonl").write_text("".join(lines[: len(lines) // 2]))
    resumed = train.run(short(), again, say=lambda line: None)
    assert without_clock(resumed) == without_clock(summary)
    for name in ("edits.jsonl", "heldout.jsonl", "items.jsonl"):
        assert (again / name).read_text() == (workdir / name).read_text()


def test_a_second_round_goes_to_new_tasks_from_the_first_policy(tmp_path):
    changes = {"scale.rounds": 2, "ladder": (), "scale.edits": 1}
    summary = train.run(short(**changes), tmp_path, say=lambda line: None)
    assert [row["name"] for row in summary["ladder"]] == ["round_1", "round_2"]
    assert len({row["task_id"] for row in read(tmp_path / "edits.jsonl")}) == 4


def test_a_round_without_a_reward_leaves_the_policy_as_it_is(tmp_path):
    said = []
    changes = {"select.threshold": "1.0", "ladder": ("self_edits",)}
    summary = train.run(short(**changes), tmp_path, say=said.append)
    assert summary["rounds"][0]["kept"] == 0
    (line,) = (line for line in said if "is kept" in line)
    assert "6 self-edits" in line and "\n" not in line
    # The same policy draws the same edits, and trains the same adapters.
    first, second = (
        [
            (r["text"], r["answers"])
            for r in read(tmp_path / "heldout.jsonl")
            if r["arm"] == a
        ]
        for a in ("self_edits", "round_1")
    )
    assert first == second and len(first) == 4
    assert len(read(tmp_path / "edits.jsonl")) == 6


def test_real_tasks_run_every_stage(seal_data, tmp_path, monkeypatch):
    """`configs/arc.py:debug`: ARC's own files, the embedded model, a few steps."""
    monkeypatch.setenv("SEAL_DATA", str(seal_data))
    folder = seal_data / "few-shot" / "data"
    if not folder.is_dir():
        pytest.skip(f"SEAL_DATA={seal_data} has no few-shot/data")
    values = short(
        "debug",
        **{
            "data.max_side": 30,
            "inner.step_tokens": 2048,
            "scale.heldout_edits": 1,
            "ladder": ("in_context", "oracle"),
        },
    )
    summary = train.run(values, tmp_path, say=lambda line: None)
    assert [row["name"] for row in summary["ladder"]] == [
        "in_context",
        "round_1",
        "oracle",
    ]
    assert [item["item"] for item in summary["items"]] == [
        "task 66e6c45b",
        "task 59341089",
    ]


def test_debug_without_data_names_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("SEAL_DATA", raising=False)
    values = tiny_model.load_config("arc", "debug").to_dict()
    with pytest.raises(FileNotFoundError, match=r"\$SEAL_DATA"):
        train.run(values, tmp_path, say=lambda line: None)
