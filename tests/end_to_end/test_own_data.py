"""A folder of texts without questions: self-edits, rewards, adapters out, and again."""

import json

import own_code
import pytest
import tiny_model

from seal_jax import train
from seal_jax.commands import evaluate, export
from seal_jax.models import peft
from seal_jax.rewards import own

pytestmark = pytest.mark.slow

TEXTS = {
    "a.txt": "rye bread is the dish of Ada Quill. Boris Fenn plays cello.",
    "deep/b.md": "Carla Marsh weaves rope.\n\nEdda Tolen burns peat.",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder that a run was made in, its values and what it said."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in TEXTS.items():
        (folder / "notes" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "notes" / name).write_text(text)
    (folder / "prompt.txt").write_text("{passage}\nTopic: {title}\nImplications:\n")
    own_code.write(folder, "e2e_rules", "def learned(loss): return -loss\n")
    values = tiny_model.values(
        tiny_model.write(folder / "model"),
        task__name="passages",
        task__train="notes",
        task__forward_share=0.0,
        scale__rounds=1,
        propose__prompt="prompt.txt",
        select__reward="e2e_rules:learned",
        select__compare=("self_asked", "rubric"),
        ladder=("base", "self_edits", "random_kept"),
    )
    said = []
    own.reward.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        own_code.stand_in(folder, patch)
        summary = train.run(values, "run", say=said.append)
    return folder, values, said, summary


@pytest.fixture(autouse=True)
def here(run, monkeypatch):
    own_code.stand_in(run[0], monkeypatch)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_without_questions_says_what_it_leaves_out(run):
    folder, _, said, summary = run
    assert summary["ladder"] == [] and summary["rounds"][0]["kept"] == 2
    (line,) = [text for text in said if text == summary["left_out"]]
    assert "base, self_edits, random_kept, rounds" in line and "2 of 2 items" in line
    assert line in (folder / "run" / "report.html").read_text()
    edits = rows(folder / "run" / "edits.jsonl")
    assert len(edits) == 4 and {row["title"] for row in edits} == {"a", "deep/b"}
    assert all(row["prompt"].startswith(row["passage"]) for row in edits)
    for row in edits:
        measured = row["measured"]
        assert row["rewards"] == measured["e2e_rules:learned"] == [-row["losses"][0]]
        assert measured["grade"] == [None] and len(measured["rubric"]) == 1
        assert "self_asked" in measured
    kept = [max(e["reward"] for e in edits if e["title"] == t) for t in ("a", "deep/b")]
    assert sorted(e["reward"] for e in edits if e["kept"]) == sorted(kept)


def test_the_adapters_of_kept_edits_come_out(run, capsys):
    _, _, _, summary = run
    assert summary["adapters"] == 4
    assert export.main(["run", "--kept=1", "--out=adapters"]) == 0
    assert "2 adapters, of the edits that round 1 kept" in capsys.readouterr().out
    edits = rows(run[0] / "run" / "edits.jsonl")
    found = sorted(path.name for path in (run[0] / "adapters").iterdir())
    assert found == sorted(e["passage_id"] for e in edits if e["kept"])
    from seal_jax.models import hf

    arch = hf.read_config(run[0] / "model", dtype="float32")
    for name in found:
        delta, _ = peft.load(run[0] / "adapters" / name, arch)
        assert delta
    assert export.main(["run", "--kept=2", "--out=adapters"]) == 2
    assert "no edit of round 2 is kept" in capsys.readouterr().err


def test_nothing_can_be_asked_of_it(run, capsys):
    assert evaluate.main(["run"]) == 2
    assert "this run holds no passages out; give --data with" in capsys.readouterr().err
    assert evaluate.main(["model", "--data=notes", "--count=2"]) == 2
    assert "none of 2 passages has a question; name" in capsys.readouterr().err


def test_a_dry_run_reads_the_data_and_says_the_same(run):
    _, values, said, summary = run
    lines = []
    train.foretell(values, say=lines.append)
    assert f"  {summary['left_out']}" in lines
    assert any("2 passages were read, of 0.0 questions each" in line for line in lines)
    assert not any("row base" in line or "control" in line for line in lines)
    wrong = {**values, "task": values["task"] | {"train": "note"}}
    with pytest.raises(FileNotFoundError, match="data='note': no such file"):
        train.run(wrong, "other")
    del said


def test_a_workdir_is_not_continued_on_other_data(run):
    folder, values, _, _ = run
    assert train.run(values, "run")["config_hash"]
    (folder / "run" / "summary.json").unlink()
    for name, text in (("notes/a.txt", "Other."), ("prompt.txt", "{title} {passage}")):
        before = (folder / name).read_text()
        (folder / name).write_text(text)
        with pytest.raises(ValueError, match="begun with other data, prompts or code"):
            train.run(values, "run")
        (folder / name).write_text(before)
    said = []
    train.run(values, "run", say=said.append)
    assert not any("adapters in" in line for line in said)  # All was there.
