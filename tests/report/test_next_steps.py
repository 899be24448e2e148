"""What a run ends with."""

import json
import shlex

import pytest

from seal_jax.report import next_steps


def row(round_, item, edit, reward, **changes):
    return {
        "round": round_,
        "passage_id": f"p{item}",
        "edit": edit,
        "prompt": f"Passage:\n{item}'s\n",
        "reward": reward,
        "refused": None,
        **changes,
    }


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"seed": 3}))
    return folder


def commands(lines):
    return [shlex.split(x) for x in lines if x.startswith("  ") and "  # " not in x]


def write(workdir, rows):
    text = "".join(json.dumps(x) + "\n" for x in rows)
    (workdir / "edits.jsonl").write_text(text)


def test_rounds_end_with_the_best_edit_the_policy_and_one_more_round(workdir):
    write(
        workdir,
        [
            row(1, 0, 0, 0.5),
            row(1, 1, 0, None),
            row(1, 1, 1, 0.9),
            row(2, 4, 0, 0.2),
            row(2, 5, 0, 0.9),
            row(2, 5, 1, 1.0, refused="empty"),
        ],
    )
    argv = ["--config=configs/tiny.py", "--workdir", str(workdir), "--more_rounds=1"]
    lines = next_steps.lines(argv, workdir, rising=True, more=1)
    assert str(workdir / "report.html") in lines[0]
    export, generate, more = commands(lines)
    assert export[2:4] == ["seal_jax", "export"]
    # Of equals that of the newest policy; items count in their round.
    assert export[4:] == [str(workdir), "--edit=2/1/0", f"--out={workdir}-adapter"]
    assert generate[4:] == [f"--model={workdir}", "Passage:\\n5's\\n"]
    assert more[3:] == [
        "--config=configs/tiny.py",
        f"--workdir={workdir}",
        "--more_rounds=2",
    ]


@pytest.mark.parametrize("prompt", ["x" * 301, "a \\n that was typed", ""])
def test_prompts_that_a_command_line_cannot_hold_are_asked_for(workdir, prompt):
    write(workdir, [row(1, 0, 0, 0.5, prompt=prompt)])
    lines = next_steps.lines(["--config=c.py"], workdir, rising=True, more=0)
    assert commands(lines)[1][4:] == [f"--model={workdir}"]


def test_a_run_without_edits_has_none_to_export(workdir):
    lines = next_steps.lines(["--config=c.py"], workdir, rising=True, more=0)
    assert [x[3] for x in commands(lines)] == ["generate", "--config=c.py"]


@pytest.mark.parametrize(
    ("values", "seed"), [({}, 4), ({"over_seeds": {"count": 16}}, 19)]
)
def test_other_kinds_end_with_another_seed_beside_this_one(workdir, values, seed):
    (workdir / "config.json").write_text(json.dumps({"seed": 3, **values}))
    argv = ["--config=c.py:tiny", "--config.seed=3", f"--workdir={workdir}"]
    again, report = commands(next_steps.lines(argv, workdir, rising=False, more=0))
    other = f"{workdir}-2"
    assert again[3:] == [
        "--config=c.py:tiny",
        f"--config.seed={seed}",
        f"--workdir={other}",
    ]
    assert report[3:] == ["report", str(workdir), other]
