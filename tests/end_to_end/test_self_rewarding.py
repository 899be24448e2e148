"""Rounds in which the policy's own verdict decides, learned by DPO, from end to end.

A model this small says no numbers: what it would reply to the prompt for points is put
in its place, and all else is its own.
"""

import json
import shutil

import pytest
import tiny_model

from seal_jax import train
from seal_jax.generation import policies
from seal_jax.rewards import self_score
from seal_jax.rounds import grading

pytestmark = pytest.mark.slow

PROMPT = "{title} {passage} {edit}\nPoints:"  # Short, as the model's context is.


def reply(prompts):
    """Longer notes get more, by one of two replies that can be read."""
    return [
        str(min(5, len(p.split()) // 16)) if i % 2 else "?"
        for i, p in enumerate(prompts)
    ]


def rounds(values, workdir, *, reply=reply, say=print):
    """Runs them with these replies to what asks for points; the rest is the model's."""
    own = policies.write

    def write(writer, prompts, keys, decoding, **more):
        if not prompts[0].endswith("\nPoints:"):
            return own(writer, prompts, keys, decoding, **more)
        return reply(prompts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_score, "PROMPT", PROMPT)
        patch.setattr(policies, "write", write)
        patch.setattr(grading, "scorer", lambda cfg, at: tiny_model.toss)
        return train.run(values, workdir, say=say)


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    return tiny_model.values(
        tiny_model.write(tmp_path_factory.mktemp("self") / "model", layers=1),
        scale__rounds=1,
        select__reward="rubric",
        select__compare=("grade",),
        label_free__rubric="self",
        label_free__samples=2,
        imitate__rule="dpo",
        imitate__prefer__shrink=False,
        imitate__prefer__margin=0.0,
        ladder=("base", "self_edits"),
    )


@pytest.fixture(scope="module")
def run(values, tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("self"), []
    summary = rounds(values, folder / "run", say=said.append)
    return folder / "run", summary, said


def test_its_own_points_decide_what_is_preferred(run):
    folder, summary, said = run
    (line,) = summary["rounds"]
    assert (line["self_scores"], line["unread_self_scores"]) == (8, 4)
    assert any("4 of 8 scores of its own could not be read" in text for text in said)
    rows = [json.loads(x) for x in (folder / "edits.jsonl").read_text().splitlines()]
    for passage in {row["passage_id"] for row in rows}:
        group = [row for row in rows if row["passage_id"] == passage]
        assert all(row["reward"] == row["measured"]["rubric"][0] for row in group)
        kept = [row["reward"] for row in group if row["kept"]]
        assert all(reward == max(r["reward"] for r in group) for reward in kept)
    # The true reward is measured beside it.
    (told,) = line["agreement"]
    assert told["reward"] == "rubric"


def test_its_entropy_is_in_the_report(run):
    folder, summary, _ = run
    (line,) = summary["rounds"]
    assert 0 < line["entropy"] < 10
    assert "Entropy and diversity by round" in (folder / "report.html").read_text()


def test_a_killed_run_asks_for_no_points_again(values, run, tmp_path):
    folder, summary, _ = run
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    keys = [json.loads(line)["key"] for line in lines]
    end = keys.index("round_1/self_score") + 1
    for name in ("config.json", "layout.json"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "journal.jsonl").write_text("".join(lines[:end]))
    asked = []
    again = rounds(values, tmp_path, reply=lambda prompts: asked.extend(prompts) or [])
    assert asked == []
    edits = [(path / "edits.jsonl").read_text() for path in (tmp_path, folder)]
    assert edits[0] == edits[1] and again["ladder"] == summary["ladder"]
