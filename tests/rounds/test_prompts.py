"""Edits in two steps, and the row whose prompt is looked for."""

import dataclasses
import json
import shutil
import types

import make_run as run_maker
import pytest
import tiny_model

from seal_jax import train
from seal_jax.generation import policies
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import prompts, proposals
from seal_jax.rounds.graded import Graded
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules, files
from seal_jax.tasks import knowledge, self_edit, strategies
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question

SEARCH = ("plain-vague", "strategies-plain")


def values(model, **changes):
    base = {
        "scale__rounds": 1,
        "scale__edits": 3,
        "ladder": ("base", "prompts"),
        "propose__search": SEARCH,
    }
    return tiny_model.values(model, **(base | changes))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def workdir(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knowledge, "unconnected", tiny_model.toss)
        train.run(values(model), path)
    return path


def row_of(path):
    summary = json.loads((path / "summary.json").read_text())
    return next(row for row in summary["ladder"] if row["name"] == "prompts")


def test_the_prompt_that_earns_most_writes_about_what_is_held_out(workdir):
    row = row_of(workdir)
    assert [line["prompt"] for line in row["searched"]] == [*SEARCH]
    best = max(row["searched"], key=lambda line: line["reward"])
    assert row["prompt"] == best["prompt"] and best["n"] == 2
    heldout = [
        line
        for line in files.read_jsonl(workdir / "heldout.jsonl")
        if line["arm"] == "prompts"
    ]
    assert len(heldout) == 2
    template = self_edit.load_template(row["prompt"], "propose")
    for line in heldout:
        passage = Passage("", line["title"], line["passage"], ())
        strategy = line.get("strategy", strategies.NO_OTHER)
        prompt = self_edit.propose_prompt(template, passage, strategy)
        assert line["prompt"] == prompt


def test_both_steps_are_units_of_their_own(workdir):
    keys = [
        json.loads(line)["key"]
        for line in (workdir / "journal.jsonl").read_text().splitlines()
    ]
    first = keys.index("ladder/prompts/1/strategies")
    assert keys.index("ladder/prompts/1/propose") == first + 1
    assert not any(key.startswith("ladder/prompts/0/strategies") for key in keys)
    # What is the same whatever the prompt is asked once.
    asked = [k for k in keys if k.startswith("ladder/prompts") and k.endswith("/base")]
    assert asked == ["ladder/prompts/base"]


def test_a_killed_search_goes_on_to_the_same_end(model, workdir, tmp_path):
    lines = (workdir / "journal.jsonl").read_text().splitlines(keepends=True)
    keys = [json.loads(line)["key"] for line in lines]
    end = keys.index("ladder/prompts/1/strategies")
    for name in ("config.json", "layout.json"):
        shutil.copy(workdir / name, tmp_path)
    (tmp_path / "journal.jsonl").write_text("".join(lines[: end + 1]))
    train.run(values(model), tmp_path)
    assert row_of(tmp_path) == row_of(workdir)


# What a prompt earns


def graded(item, *rewards, refused=None):
    return Graded(Edit(item, 0, "", "x", refused=refused), (), (), rewards, None)


def by(reward="grade", objective="mean"):
    return types.SimpleNamespace(reward=reward, objective=objective)


def test_a_refused_edit_counts_as_nothing_learned():
    """The prompt that is refused where it is hard does not win by what is left."""
    good = [graded(0, 0.9), graded(0, 0.3, 0.5), graded(1, 0.2)]
    bold = [graded(0, 1.0), graded(0, refused="empty"), graded(1, refused="long")]
    both = [prompts.Tried(own, (0.25, 0.125)) for own in (good, bold)]
    assert prompts.earned(both, 2, by()) == [[0.65, 0.2], [0.625, 0.125]]
    assert prompts.earned(both, 2, by("majority"))[1] == [0.5, 0.0]
    assert prompts.earned(both, 2, by("log_likelihood"))[1] == [0.65, 0.2]
    assert prompts.earned(both, 2, by(objective="max"))[0] == [0.7, 0.2]


def test_a_failed_adapter_is_not_worth_a_million():
    worst = reward_names.WORST
    one = prompts.Tried([graded(0, -2.0, worst), graded(0, -1.0)], (None,))
    two = prompts.Tried([graded(0, worst), graded(0, -4.0)], (None,))
    found = prompts.earned([one, two], 1, by("log_likelihood"))
    assert found == [[-2.0], [-4.0]]


def test_prompts_are_compared_over_the_same_items():
    one = prompts.Tried([graded(0, 0.5), graded(1, None)], (0.0, 0.0))
    two = prompts.Tried([graded(0, 0.25), graded(1, 1.0)], (0.0, 0.0))
    assert prompts.earned([one, two], 2, by()) == [[0.5, None], [0.25, None]]


# Two steps, by a policy that writes what it is told to

ITEMS = [
    Passage("p0", "Karsk", "rye bread is the dish of Ada.", (Question("x?", "y"),)),
    Passage("p1", "Marl", "Bo plays cello.", (Question("x?", "y"),)),
]


@pytest.fixture
def make_run(tmp_path):
    with run_maker.opened(tmp_path) as make:
        yield make


def proposed(make_run, monkeypatch, texts, *, count=3, fits=lambda prompt: True):
    """The edits, and the prompts of each call."""
    calls = []

    def write(writer, prompts, keys, decoding, **_):
        calls.append(list(prompts))
        return texts if len(calls) == 1 else [f"line {i}." for i in range(len(prompts))]

    def by_strategy(self, item, strategy):
        made = self_edit.propose_prompt(self.propose_template, item, strategy)
        return made if fits(made) else None

    monkeypatch.setattr(policies, "write", write)
    monkeypatch.setattr(knowledge.Knowledge, "by_strategy", by_strategy)
    run = make_run()
    object.__setattr__(run, "task", run.task.asking("strategies"))
    edits = proposals.propose(
        run, run_maker.BLANK, ITEMS, phase="round_1", round_index=1, count=count
    )
    again = proposals.propose(
        run, run_maker.BLANK, ITEMS, phase="round_1", round_index=1, count=count
    )
    assert again == edits and len(calls) == 2  # The journal has both steps.
    return edits, calls


def test_each_edit_goes_by_a_strategy_of_its_item(make_run, monkeypatch):
    texts = ["Reword it.\n2. Ask.\n3. Compare.\n4. Too many.", "Order events."]
    edits, (listing, writing) = proposed(make_run, monkeypatch, texts)
    assert len(listing) == 2 and all("Ways to study it" in p for p in listing)
    own = [edit.strategy for edit in edits]
    # Fewer strategies than edits: from the first on again.
    assert own == ["Reword it.", "Ask.", "Compare."] + ["Order events."] * 3
    for edit, prompt in zip(edits, writing, strict=True):
        assert edit.prompt == prompt and ITEMS[edit.item].text in prompt
        assert f"Way to study it: {edit.strategy}\n" in prompt


def test_without_a_strategy_that_fits_an_edit_is_written_all_the_same(
    make_run, monkeypatch
):
    texts = ["Reword it.\nAsk.", "\n"]
    edits, _ = proposed(
        make_run,
        monkeypatch,
        texts,
        count=2,
        fits=lambda prompt: "Reword" not in prompt,
    )
    assert [edit.strategy for edit in edits] == ["Ask.", "Ask.", "", ""]
    assert all(strategies.NO_OTHER in edit.prompt for edit in edits[2:])


def refused(kind=PassageRounds, **changes):
    with pytest.raises(ValueError) as caught:
        config_rules.build(kind, tiny_model.values("model", **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_the_row_needs_is_said_in_one_line():
    changes = dict(ladder=("base", "prompts"))
    assert "propose.search=()" in refused(**changes)
    error = refused(inner__rule="quiz", propose__search=SEARCH, **changes)
    assert "inner.rule='quiz'" in error
    assert "must differ" in refused(propose__search=("plain", "plain"), **changes)
    exp = config_rules.build(
        PassageRounds, tiny_model.values("model", propose__search=SEARCH, **changes)
    )
    seeds = {"count": 2, "chunk": 2, "together": 1, "march": 2}
    own = dataclasses.asdict(exp)
    for name, search, told in (
        ("plain", SEARCH, "'prompts' has no form on tokens"),
        ("strategies-plain", (), "is of two steps"),
    ):
        given = tiny_model.values(
            "model",
            propose__search=search,
            propose__prompt=name,
            ladder=("base", *(["prompts"] if search else [])),
        )
        with pytest.raises(ValueError, match=told):
            config_rules.build(OverSeeds, given | {"over_seeds": seeds})
    assert own["propose"]["search"] == SEARCH
