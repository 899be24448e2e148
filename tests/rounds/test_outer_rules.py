"""Rounds by every outer rule, with a small random model: one contract for all."""

import json
import shutil

import pytest
import tiny_model

from seal_jax import train
from seal_jax.rounds import grading, loop
from seal_jax.runtime import files
from seal_jax.training.outer_rules import RULES


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny", layers=1)


@pytest.fixture(autouse=True)
def graded_by_chance(monkeypatch):
    monkeypatch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)


def values(rule, path="model", **changes):
    """Two rounds of three passages, three edits and a seed each."""
    given = {
        "scale__passages": 3,
        "scale__edits": 3,
        "imitate__rule": rule,
        "imitate__learning_rate": 0.05,
        "imitate__prefer__kl": 0.1,
        "ladder": ("self_edits",),
    }
    return tiny_model.values(path, **(given | changes))


@pytest.fixture(scope="module")
def of_rule(tmp_path_factory, model):
    """The workdir of a rule's run; each is run once."""
    made = {}

    def run(rule):
        if rule not in made:
            made[rule] = tmp_path_factory.mktemp(rule)
            train.run(values(rule, model), made[rule])
        return made[rule]

    return run


def edits(path):
    return list(files.read_jsonl(path / "edits.jsonl"))


def summary(path):
    return json.loads((path / "summary.json").read_text())


# Each rule compiles programs of its own: two of them stand for all of one kind.
EVERY = [
    pytest.param(rule, marks=pytest.mark.slow if rule in ("ipo", "rloo") else ())
    for rule in RULES
]


@pytest.mark.parametrize("rule", EVERY)
def test_a_run_by_any_rule(of_rule, rule):
    path, of = of_rule(rule), RULES[rule]
    lines, rows = summary(path)["rounds"], edits(path)
    assert [line["round"] for line in lines] == [1, 2]
    for line in lines:
        own = [row for row in rows if row["round"] == line["round"]]
        kept = [row for row in own if row["kept"]]
        assert line["kept"] == len(kept) > 0
        assert ("learned" in line) == of.weighed
        if of.pairs:
            by_place = {(row["title"], row["edit"]): row for row in own}
            for row in own:
                assert row["kept"] == (row["preferred_to"] is not None)
            for row in kept:
                loser = by_place[row["title"], row["preferred_to"]]
                assert loser["reward"] < row["reward"]
            assert line["learned"]["lessons"] == len(kept)
        elif of.groups:
            assert [row["kept"] for row in own] == [
                (row["advantage"] or 0) > 0 for row in own
            ]
            taught = [row for row in own if row["advantage"] is not None]
            assert line["learned"]["lessons"] == len(taught) > len(kept)
            assert sum(row["advantage"] for row in taught) == pytest.approx(0, abs=1e-6)
        else:
            assert "preferred_to" not in rows[0] and "advantage" not in rows[0]
    # It is the policy after the first round that writes in the second.
    first = {row["text"] for row in rows if row["round"] == 2}
    other = "best" if rule != "best" else "dpo"
    assert first != {row["text"] for row in edits(of_rule(other)) if row["round"] == 2}


def test_the_base_writes_the_same_for_every_rule(of_rule):
    texts = [
        [row["text"] for row in edits(of_rule(rule)) if row["round"] == 1]
        for rule in ("best", "dpo", "grpo")
    ]
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("last", ["policy/imitate/1", "round_2/adapt"])
def test_a_run_that_was_killed_goes_on_to_the_same_end(of_rule, model, tmp_path, last):
    whole = of_rule("dpo")
    lines = (whole / "journal.jsonl").read_text().splitlines(keepends=True)
    keys = [json.loads(line)["key"] for line in lines]
    end = next(i for i, key in enumerate(keys) if key.startswith(last))
    for name in ("config.json", "layout.json"):
        shutil.copy(whole / name, tmp_path)
    checkpoint = "checkpoints/policy"
    first = min((whole / checkpoint).iterdir())
    shutil.copytree(first, tmp_path / checkpoint / first.name)
    (tmp_path / "journal.jsonl").write_text("".join(lines[: end + 1]))
    train.run(values("dpo", model), tmp_path)
    assert edits(tmp_path) == edits(whole)
    assert summary(tmp_path)["ladder"] == summary(whole)["ladder"]


def test_a_margin_that_no_pair_reaches_leaves_the_policy_as_it_is(model, tmp_path):
    """Nothing is trained, saved or consumed; the second round writes as the base."""
    more = {"scale__seeds": 2, "imitate__prefer__margin": 90.0}
    given = values("dpo", model, **more)
    said = []
    train.run(given, tmp_path, say=said.append)
    lines = summary(tmp_path)["rounds"]
    assert [line["kept"] for line in lines] == [0, 0]
    assert not any("learned" in line for line in lines)
    assert not (tmp_path / "checkpoints" / "policy").exists()
    told = [line for line in said if "the policy stays as it is" in line]
    assert len(told) == 2 and "imitate.prefer.margin" in told[0]
    means = {row["name"]: row["mean"] for row in summary(tmp_path)["ladder"]}
    assert means["round_1"] == means["round_2"] == means["self_edits"]


class Begun(Exception):
    """The rounds would begin here."""


@pytest.mark.parametrize(("top_p", "lines"), [(0.9, 1), (1.0, 0)])
def test_a_run_says_once_that_its_samples_are_not_the_policys(
    monkeypatch, model, tmp_path, top_p, lines
):
    def begin(*args):
        raise Begun

    monkeypatch.setattr(loop, "all_rounds", begin)
    given = {"ladder": (), "propose__temperature": 1.0, "propose__top_p": top_p}
    said = []
    with pytest.raises(Begun):
        train.run(values("grpo", model, **given), tmp_path, say=said.append)
    assert sum("its gradient is biased" in line for line in said) == lines


def refused(rule, **changes):
    with pytest.raises(ValueError) as caught:
        train.run(values(rule, **changes), None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_rule_needs_is_said_in_one_line():
    assert "imitate.rule='orpo' must be one of" in refused("orpo")
    assert "needs the group config.imitate.prefer" in refused(
        "dpo", imitate__prefer=None
    )
    assert "scale.edits=1 are none to compare" in refused("grpo", scale__edits=1)
    assert "use scale.seeds=2 or more" in refused("dpo", imitate__prefer__margin=2.0)
    assert "use 'previous'" in refused("rloo", imitate__start="base")
    assert "imitate.prefer.tilt=-1.0 must be" in refused(
        "grpo", imitate__prefer__tilt=-1.0
    )


def test_few_shot_tasks_are_refused_alike():
    config = tiny_model.load_config("arc", "tiny")
    config.imitate.rule = "grpo"
    with pytest.raises(ValueError, match=r"use select\.threshold='none'"):
        train.run(config.to_dict(), None)
    config.select.threshold = "none"
    config.scale.edits = 1
    with pytest.raises(ValueError, match=r"scale\.edits=1 are none to compare"):
        train.run(config.to_dict(), None)
    config.scale.edits = 15
    # Every edit that solved its task is imitated; a group has all of them anyway.
    with pytest.raises(ValueError, match=r"select\.k_best=15 chooses among several"):
        train.run(config.to_dict(), None)
