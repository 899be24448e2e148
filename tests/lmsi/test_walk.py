"""Whole runs without labels on the embedded model of two-hop questions."""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_model

from seal_jax import train
from seal_jax.lmsi import table, teaching, votes, walk
from seal_jax.lmsi.settings import RANDOM, Lmsi
from seal_jax.report import console
from seal_jax.runtime import config_rules, files
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import hops
from seal_jax.tasks.chains import Question

SHORT = {
    "scale.questions": 4,
    "scale.heldout": 0,
    "scale.rounds": 2,
    "chains.samples": 3,
    "chains.shots": 1,
    "chains.formats": ("few_chain", "zero_direct"),
    "propose.batch": 12,
    "answer.batch": 12,
    "imitate.learning_rate": 0.02,
    "imitate.lora.rank": 2,
    "imitate.batch": 4,
    "imitate.micro_batch": 2,
    "imitate.length_multiple": 128,
    "arms": ("majority", "random_chain"),
}
ROWS = {"task.name": "rows", "task.shuffle_seed": 0}


def values(**changes):
    config = tiny_model.load_config("lmsi", "debug")
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(SHORT | dotted)
    return config.to_dict()


def write(path, answers):
    """Questions of the world as rows, with these answers."""
    asked = hops.questions("train", seed=0, start=0, count=6)
    path.write_text(
        json.dumps(
            [
                {"question": q.question, **({"answer": a} if a is not None else {})}
                for q, a in zip(asked, answers(asked), strict=True)
            ]
        )
    )
    return str(path)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The example that prompts show."""
    (one,) = hops.exemplars(1)
    path = tmp_path_factory.mktemp("examples") / "shown.json"
    row = {"question": one.question, "answer": f"{one.steps}\nAnswer: {one.answer}"}
    path.write_text(json.dumps([row]))
    return str(path)


def arrays_of(folder):
    """The bits of each adapter in a folder of checkpoints, by its round."""
    found = {}
    for path in sorted(folder.glob("*/tree")):
        tree = ocp.PyTreeCheckpointer().restore(path)
        found[path.parent.name] = [
            np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)
        ]
    return found


def learned(workdir):
    """The bits of what every arm learned in every round, and of the last policy."""
    arms = sorted((workdir / "checkpoints").iterdir())
    found = {arm.name: arrays_of(arm) for arm in arms}
    weights = (workdir / "policy/model.safetensors").read_bytes()
    return found | {"weights": weights}


def go(workdir, **changes):
    said = []
    summary = train.run(values(**changes), workdir, say=said.append)
    return summary, said


def test_no_gold_answer_is_read_in_training(tmp_path, shown):
    """Gold answers, noise in their place, and nothing in their place."""
    gives = {
        "gold": lambda asked: [q.answer for q in asked],
        "noise": lambda asked: [f"noise {i}" for i in range(len(asked))],
        "nothing": lambda asked: [None] * len(asked),
    }
    found, scores = {}, {}
    for name, answers in gives.items():
        given = {key.replace(".", "__"): value for key, value in ROWS.items()}
        given |= {"task__answer": "answer", "task__examples": shown}
        given["task__train"] = write(tmp_path / f"{name}.json", answers)
        if name == "nothing":  # The examples are worked, and have the column.
            rows = json.loads((tmp_path / "nothing.json").read_text())
            rows[0]["answer"] = ""
            (tmp_path / "nothing.json").write_text(json.dumps(rows))
        summary, _ = go(tmp_path / name, **given)
        found[name] = learned(tmp_path / name)
        scores[name] = [row["mean"] for row in summary["sides"]["train"]]
    assert [len(found["gold"][arm]) for arm in ("policy", "random_chain")] == [2, 2]
    assert found["gold"] == found["noise"] == found["nothing"]
    assert set(scores["noise"]) == {0.0} and set(scores["nothing"]) == {None}
    assert max(scores["gold"]) > 0


def test_a_run_has_its_rows_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    changes = {"scale__heldout": 3, "scale__rounds": 1, "arms": ("majority", "gold")}
    summary, said = go(tmp_path / "whole", **changes)
    stages = ("base", "round_1", "gold_1")
    names = [f"{stage} {way}" for way in table.WAYS for stage in stages]
    for side, count in (("train", 4), ("heldout", 3)):
        rows = summary["sides"][side]
        assert [row["name"] for row in rows] == names
        assert {row["n"] for row in rows} == {count}
    assert summary["ladder"] == summary["sides"]["heldout"]
    pairs = {(p["a"], p["b"], p["what"]) for p in summary["paired"]}
    assert ("round_1 chain", "base chain", "heldout") in pairs
    assert ("gold_1 direct", "round_1 direct", "train") in pairs
    assert ("base consistency", "base chain", "heldout") in pairs
    assert [g["name"] for g in summary["growth"]] == ["round_1", "gold_1"] * 2
    shown = files.read_jsonl(tmp_path / "whole" / "heldout.jsonl")
    assert len(shown) == 3 * (4 + 3)
    for row in summary["votes"]:
        own = [r for r in shown if (r["arm"], r["side"]) == (row["name"], row["side"])]
        voted = [r for r in own if r["majority"] is not None]
        assert sum(b["n"] for b in row["bins"]) == len(voted)
        assert row["share"] == pytest.approx(sum(r["share"] for r in own) / len(own))
    assert any(line.startswith("round_1, heldout: direct ") for line in said)
    assert "base/train: propose 12 chains" in said
    assert not any("self-edit" in line for line in said)
    assert "Of the majorities that were wrong" in console.summary_table(summary)

    put, moments = Journal.put, iter((2, 3, 2, 100))

    class Killed(BaseException):
        pass

    while True:
        left = next(moments)

        def counted(self, key, value):
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            put(self, key, value)

        monkeypatch.setattr(Journal, "put", counted)
        try:
            again, _ = go(tmp_path / "killed", **changes)
            break
        except Killed:
            pass
    assert next(moments, None) is None  # It was killed each time.
    assert learned(tmp_path / "killed") == learned(tmp_path / "whole")
    for key in ("sides", "paired", "growth", "votes", "learned"):
        assert again[key] == summary[key]
    assert files.read_jsonl(tmp_path / "killed" / "heldout.jsonl") == shown


def test_the_control_keeps_as_many_as_the_rule_in_each_round():
    """By question, though its own majorities are others, and after the rule."""
    exp = config_rules.build(Lmsi, values(chains__cap=0, chains__threshold=0.0))
    asked = [Question("a?"), Question("b?")]
    voted = [
        votes.of_texts([f"Answer: {a}" for a in answers])
        for answers in ("xxyz", "xyzw")
    ]
    # Of a question that has fewer, others make them up while they have some.
    for counts, kept in (([1, 3], [1, 3]), ([0, 4], [0, 4]), ([1, 6], [3, 4])):
        chosen = teaching.kept(exp, RANDOM, voted, asked, 2, counts)
        assert [len(own) for own in chosen] == kept
        assert all(len({*map(id, own)}) == len(own) for own in chosen)
    chosen = teaching.kept(exp, RANDOM, voted, asked, 2, [4, 9])
    assert [len(own) for own in chosen] == [4, 4]
    # What every question had enough for is drawn as it was without the others.
    (own, _), (alone,) = (
        teaching.kept(exp, RANDOM, voted[:n], asked[:n], 2, [2, 9][:n]) for n in (2, 1)
    )
    assert own[:2] == alone
    assert list(map(len, teaching.kept(exp, RANDOM, voted, asked, 2))) == [2, 1]


def test_one_chain_is_learned_whatever_it_says(tmp_path):
    summary, _ = go(
        tmp_path, chains__samples=1, scale__rounds=1, arms=("majority", "random_chain")
    )
    by_name = {row["name"]: row for row in summary["learned"]}
    readable = round(4 * (1 - summary["votes"][0]["unreadable"]))
    one, other = by_name["round_1"], by_name["random_chain_1"]
    assert one["chains"] == one["questions"] == other["chains"] == readable
    arms = learned(tmp_path)
    assert arms["policy"] == arms["random_chain"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"scale__questions": 193}, "of a group of the generated world"),
        ({"propose__max_tokens": 500}, "the longest prompt takes "),
        ({"chains__shots": 99}, "lower propose.max_tokens"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is_compiled(
    tmp_path, changes, said
):
    with pytest.raises(ValueError) as caught:
        go(tmp_path / "run", **changes)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "journal.jsonl").exists()


def rows_of(path, answered):
    rows = [
        {"question": f"{i}?", "answer": "1" if a else ""}
        for i, a in enumerate(answered)
    ]
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"scale__heldout": 2},
            "scale.heldout=2: 1 of 2 questions have no gold answer",
        ),
        ({"arms": ("gold",)}, "arms=('gold',): 1 of 2 questions have no gold answer"),
    ],
)
def test_missing_gold_answers_are_told_where_a_row_needs_them(tmp_path, changes, said):
    given = {key.replace(".", "__"): value for key, value in ROWS.items()}
    given["task__train"] = rows_of(tmp_path / "a.json", (True, False))
    path = tmp_path / "b.json"
    path.write_text(json.dumps([{"question": "x?", "answer": "1"}, {"question": "y?"}]))
    given["task__heldout"] = str(path)
    exp = config_rules.build(Lmsi, values(scale__questions=2, **given, **changes))
    with pytest.raises(ValueError) as caught:
        walk.load(exp)
    assert said in str(caught.value) and "leave them out" in str(caught.value)


def test_a_question_of_both_sides_is_refused(tmp_path):
    given = {key.replace(".", "__"): value for key, value in ROWS.items()}
    given["task__train"] = rows_of(tmp_path / "a.json", (True, True))
    given["task__heldout"] = given["task__train"]
    exp = config_rules.build(
        Lmsi, values(scale__questions=2, scale__heldout=2, **given)
    )
    with pytest.raises(ValueError, match="2 held-out questions are learned from too"):
        walk.load(exp)


@pytest.mark.parametrize("side", ["train", "heldout"])
def test_an_example_that_is_asked_is_refused(tmp_path, side):
    """Prompts would tell its gold answer."""
    given = {key.replace(".", "__"): value for key, value in ROWS.items()}
    for name in ("train", "heldout"):
        rows = [{"question": f"{name} {i}?", "answer": "a\n#### 1"} for i in range(2)]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows))
        given[f"task__{name}"] = str(path)
    given |= {"scale__questions": 2, "scale__heldout": 2}
    given["task__examples"] = given[f"task__{side}"]
    exp = config_rules.build(Lmsi, values(**given))
    with pytest.raises(ValueError, match="1 of the 1 that prompts show") as caught:
        walk.load(exp)
    assert "\n" not in str(caught.value) and "give others" in str(caught.value)


def test_questions_without_the_column_of_answers_can_be_learned_from(tmp_path):
    given = {key.replace(".", "__"): value for key, value in ROWS.items()}
    for name, extra in (("train", {}), ("heldout", {"answer": True})):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps([{"question": f"{name}?"} | extra]))
        given[f"task__{name}"] = str(path)
    given |= {"scale__questions": 1, "scale__heldout": 1}
    train, heldout = walk.load(config_rules.build(Lmsi, values(**given)))
    assert train == [[Question("train?")]] and heldout == [Question("heldout?", "yes")]
    labelled = config_rules.build(Lmsi, values(**given, arms=("gold",)))
    with pytest.raises(ValueError, match="no column 'answer'"):
        walk.load(labelled)
