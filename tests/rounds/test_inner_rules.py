"""Rounds and a ladder under every inner rule, with the embedded model."""

import dataclasses
import json
import shutil

import pytest
import tiny_model

from seal_jax import train
from seal_jax.runtime import files
from seal_jax.tasks import knowledge_setup
from seal_jax.training.inner_rules import RULES

OTHERS = tuple(rule for rule in RULES if rule != "on_policy")


def values(**changes):
    """On-policy rounds, and a row for every other rule: two passages each."""
    config = tiny_model.load_config("tiny", "debug")
    config.update_from_flattened_dict(
        {
            "scale.rounds": 1,
            "scale.passages": 2,
            "scale.edits": 1,
            "scale.heldout_passages": 2,
            "inner.rule": "on_policy",
            "inner.lora.targets": ("v_proj",),
            "imitate.lora.targets": ("v_proj",),
            "inner.epochs": 4,
            "inner.teach.waves": 2,
            "inner.teach.divergence": "jsd",
            "inner.slots": 2,
            "inner.active": 2,
            "inner.pool": 2,
            "inner.step_tokens": 128,
            "propose.batch": 2,
            "answer.batch": 12,
            "label_free.quiz.batch": 2,
            "ladder": ("base", "self_edits", "passage_only", *OTHERS),
        }
        | {key.replace("__", "."): value for key, value in changes.items()}
    )
    return config.to_dict()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("rules")
    train.run(values(), path)
    return path


def rows(path, name="heldout"):
    return list(files.read_jsonl(path / f"{name}.jsonl"))


def told(path):
    summary = json.loads((path / "summary.json").read_text())
    return {row["name"]: row for row in summary["ladder"]}


def by_arm(path, arm):
    return [row for row in rows(path) if row["arm"] == arm]


def test_every_rule_is_a_row(workdir):
    ladder = told(workdir)
    assert [*ladder] == ["base", "passage_only", "self_edits", *OTHERS, "round_1"]
    assert all(row["failed"] == 0 for row in ladder.values())
    # A row learns from what its rule writes.
    for rule in (*OTHERS, "self_edits"):
        asks = RULES["on_policy" if rule == "self_edits" else rule].asks
        for row in by_arm(workdir, rule):
            assert ("pairs" in row) == asks == ("Question: " in row["lines"][0])
    # Rules that read the same kind of edit read the same edits.
    for rule in ("distill", "mix", "self_edits"):
        quiz = [row["text"] for row in by_arm(workdir, "quiz")]
        assert [row["text"] for row in by_arm(workdir, rule)] == quiz
    losses = {rule: [r["losses"] for r in by_arm(workdir, rule)] for rule in OTHERS}
    assert len({json.dumps(loss) for loss in losses.values()}) == len(OTHERS)


def test_the_policy_is_rewarded_for_the_quiz_that_it_writes(workdir):
    edits = rows(workdir, "edits")
    assert all(row["prompt"].endswith("Question:") for row in edits)
    kept = [row for row in edits if row["kept"]]
    assert kept and all(row["pairs"] for row in kept)


def test_no_rule_reads_a_gold_answer(workdir, tmp_path, monkeypatch):
    """With others in their place, adapters are the same, and rewards are not."""
    load = knowledge_setup.load

    def other(passage):
        asked = (dataclasses.replace(q, answer="nothing") for q in passage.questions)
        return dataclasses.replace(passage, questions=tuple(asked), oracle=None)

    def blind(*args, **kwargs):
        rounds, heldout = load(*args, **kwargs)
        return [list(map(other, items)) for items in rounds], list(map(other, heldout))

    monkeypatch.setattr(knowledge_setup, "load", blind)
    train.run(values(), tmp_path)
    for before, after in zip(rows(workdir), rows(tmp_path), strict=True):
        for key in ("text", "pairs", "lines", "losses"):
            assert before.get(key) == after.get(key)
    assert {row["mean"] for row in told(tmp_path).values()} == {0.0}


@pytest.mark.parametrize("last", ["ladder/mix/mix", "round_1/adapt"])
def test_a_run_that_was_killed_goes_on_to_the_same_end(workdir, tmp_path, last):
    """After the mixture was drawn, and in the middle of the round."""
    lines = (workdir / "journal.jsonl").read_text().splitlines(keepends=True)
    keys = [json.loads(line)["key"] for line in lines]
    end = next(i for i, key in enumerate(keys) if key.startswith(last))
    for name in ("config.json", "layout.json"):
        shutil.copy(workdir / name, tmp_path)
    (tmp_path / "journal.jsonl").write_text("".join(lines[: end + 1]))
    train.run(values(), tmp_path)
    assert rows(tmp_path) == rows(workdir)
    assert rows(tmp_path, "edits") == rows(workdir, "edits")
    assert told(tmp_path) == told(workdir)


def refused(**changes):
    with pytest.raises(ValueError) as caught:
        train.run(values(**changes), None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_rule_needs_is_said_in_one_line():
    assert "inner.rule='quizz' must be one of" in refused(inner__rule="quizz")
    assert "needs the group config.inner.teach" in refused(inner__teach=None)
    assert "needs the group config.label_free" in refused(label_free=None)
    error = refused(inner__loss__mode="reference")
    assert "use 'masked'" in error and "inner.rule='on_policy'" in error
    error = refused(inner__teach__waves=9)
    assert "waves=9 must be at most inner.epochs=4" in error
    error = refused(inner__rule="edits", inner__teach=None)
    assert "the row 'quiz' of ladder needs the group config.inner.teach" in error
    error = refused(inner__teach__divergence="kl")
    assert "inner.teach.divergence='kl' must be one of" in error
