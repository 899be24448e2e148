"""Whole runs on many passages at once, on a very small model of random weights."""

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
import test_pooled_settings as test_config_pooled
import tiny_model

from seal_jax.generation import policies
from seal_jax.pooled import arms as pooled
from seal_jax.pooled.settings import HOW, UNTRAINED, Pooled
from seal_jax.report import console
from seal_jax.rounds import grading, trials
from seal_jax.runtime import backend, files, metrics
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import world
from seal_jax.training import capacity, finetune, packed

CHANGES = {
    "pool__passages": 3,
    "pool__edits": 2,
    "pool__seeds": 2,
    "propose__min_tokens": 1,
    "propose__max_tokens": 12,
    "propose__prompt_multiple": 112,
    "propose__batch": 6,
    "inner__lora__targets": ("q_proj", "v_proj"),
    "inner__lora__rank": 2,
    "inner__learning_rate": 0.05,
    "inner__epochs": 2,
    "inner__batch": 2,
    "inner__row_tokens": 96,
    "inner__step_tokens": 192,
    "inner__pool": 3,
    "full__learning_rate": 0.02,
    "full__epochs": 1,
    "full__batch": 2,
    "full__length_multiple": 96,
    "answer__max_tokens": 3,
    "answer__prompt_multiple": 32,
    "answer__batch": 18,
    "arms": ("oracle", "base", "passage_only", "self_edits", "in_context"),
}
QUESTION = {"question": "Q?", "answer": "A"}
ROWS = ("base", "in_context", "passage_only", "self_edits", "oracle")


def experiment(path, **changes) -> Pooled:
    return test_config_pooled.build(
        "debug", model__path=str(path), **(CHANGES | changes)
    )


@dataclasses.dataclass
class Started:
    """A run about to walk, as the experiment's shell prepares it."""

    exp: Any
    state: trials.Run
    base: policies.Policy
    train: list
    said: list[str]

    def walk(self, workdir) -> dict[str, Any]:
        return pooled.walk(self.state, self.base, self.train, [], workdir)


def start(path, workdir, **changes) -> Started:
    exp: Any = experiment(path, **changes)
    train, heldout = pooled.load(exp)
    assert heldout == []
    blank = policies.describe(exp.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grading, "scorer", lambda cfg, at: tiny_model.toss)
        task = grading.connect(exp, pooled.make(exp, blank, train[0], []), workdir)
    tokens = exp.inner.step_tokens
    said: list[str] = []
    workdir.mkdir(exist_ok=True)
    state = trials.Run(
        exp=exp,
        inner=capacity.build(exp.inner, step_tokens=tokens, adapters=exp.adapters),
        mesh=None,
        journal=Journal(workdir / "journal.jsonl"),
        metrics=metrics.NullMetrics(),
        task=task,
        say=said.append,
    )
    base = policies.load(exp.model, blank, seed=exp.seed)
    return Started(exp, state, base, train, said)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module", params=HOW)
def finished(request, model_path, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / request.param
    started = start(model_path, workdir, pool__how=request.param)
    return started, started.walk(workdir), workdir


# What it is about


@pytest.mark.parametrize("seed", range(3))
def test_no_question_has_two_answers(seed):
    exp = test_config_pooled.build("tiny", seed=seed, task__shuffle_seed=seed)
    (passages,), _ = pooled.load(exp)
    assert len(passages) == exp.pool.passages == 48
    # A fact can be asked for in two ways.
    answers: dict[tuple[str, str], set[str]] = {}
    for question in (q for p in passages for q in p.questions):
        words = question.question.rstrip("?").split()
        if words[1] == "does":
            who, infinitive = " ".join(words[2:4]), " ".join(words[4:])
            relations = (*world.PERSON_RELATIONS, *world.FIRM_RELATIONS)
            (kind,) = (r.noun for r in relations if r.infinitive == infinitive)
        else:
            who, kind = " ".join(words[-2:]), words[3]
        answers.setdefault((who, kind), set()).add(question.answer)
    assert len(answers) == 48 * 6 and {len(gold) for gold in answers.values()} == {1}


def test_more_passages_than_residents_are_refused():
    exp = test_config_pooled.build("tiny", pool__passages=95)
    with pytest.raises(
        ValueError, match=r"pool\.passages=95: .*; use 94 passages"
    ) as e:
        pooled.load(exp)
    assert "\n" not in str(e.value)


def test_more_questions_than_there_are_are_refused():
    passages, _ = pooled.load(test_config_pooled.build("debug", pool__questions=24))
    assert sum(len(p.questions) for p in passages[0]) == 24
    with pytest.raises(ValueError, match=r"pool\.questions=25 must be .* the 24 about"):
        pooled.load(test_config_pooled.build("debug", pool__questions=25))


def test_a_file_of_too_few_passages_is_refused_by_their_key(tmp_path):
    record = {"title": "T", "context": "C", "questions": [QUESTION]}
    (tmp_path / "one.json").write_text(json.dumps([record]))
    exp = test_config_pooled.build(task__train=str(tmp_path / "one.json"))
    with pytest.raises(ValueError, match=r"^task\.train, for pool\.passages=200: .* 1"):
        pooled.load(exp)


# What a run leaves


def test_the_summary_is_a_ladder(finished):
    _, summary, _ = finished
    assert summary["kind"] == "pooled"
    assert [row["name"] for row in summary["ladder"]] == list(ROWS)
    for row in summary["ladder"]:
        assert row["n"] == 3 and 0 <= row["mean"] <= 1 and row["questions"] == 18
        assert row["missing"] == row["failed"] == row["cut"] == 0
        assert (row["loss"] is None) == (row["name"] in UNTRAINED)
    edits = {row["name"]: row["edits"] for row in summary["ladder"]}
    trained = {"passage_only": 3, "self_edits": 6, "oracle": 3}
    assert edits == dict.fromkeys(UNTRAINED, 0) | trained
    texts = {row["name"]: row["texts"] for row in summary["ladder"]}
    assert texts["base"] == texts["in_context"] == 0
    assert texts["passage_only"] == 3 < texts["self_edits"]
    pairs = [(row["a"], row["b"]) for row in summary["paired"]]
    assert pairs == [(b, a) for a, b in itertools.combinations(ROWS, 2)]
    shown = console.summary_table(summary)
    assert all(name in shown for name in ROWS)


def test_everything_can_be_read(finished):
    started, summary, workdir = finished
    lines = files.read_jsonl(workdir / "heldout.jsonl")
    assert [line["arm"] for line in lines] == [n for n in ROWS for _ in range(3)]
    means = {row["name"]: row["mean"] for row in summary["ladder"]}
    for name in ROWS:
        arm = [line for line in lines if line["arm"] == name]
        assert sum(line["reward"] for line in arm) / 3 == pytest.approx(means[name])
        for line, passage in zip(arm, started.train[0], strict=True):
            assert line["passage_id"] == passage.id
            seeds = 1 if name in UNTRAINED else 2
            assert len(line["answers"]) == len(line["rewards"]) == seeds
            for answers, value in zip(line["answers"], line["rewards"], strict=True):
                gold = [q.answer for q in passage.questions]
                assert [a["gold"] for a in answers] == gold
                assert sum(a["score"] for a in answers) / 6 == pytest.approx(value)
            texts = [f"{passage.title}\n{passage.text}"]
            assert line["lines"][-1:] == ([] if name in UNTRAINED else texts)


def test_a_training_changes_what_is_said(finished):
    _, _, workdir = finished
    lines = files.read_jsonl(workdir / "heldout.jsonl")
    answers = {
        name: [
            tuple(a["answer"] for a in training)
            for line in lines
            if line["arm"] == name
            for training in line["answers"]
        ]
        for name in ROWS
    }
    assert len({tuple(sorted(training)) for training in answers.values()}) == len(ROWS)
    # Two seeds are two trainings.
    assert all(len(set(e["losses"])) == 2 for e in lines if e["losses"] != [None])


def test_work_is_counted(finished):
    started, _, _ = finished
    journal = started.state.journal
    units = [journal.get(k) for k in journal.keys()]  # noqa: SIM118 (not a mapping)
    assert all(unit["seconds"] >= 0 for unit in units)
    trained = [unit for unit in units if "tokens" in unit]
    lora = started.exp.pool.how == "lora"
    assert sum(unit["adapters"] for unit in trained) == (6 if lora else 0)
    assert len(trained) == (2 if lora else 6)  # in pools of 3
    assert all(0 < unit["tokens"] <= unit["computed"] for unit in trained)


# A run that was stopped


def refuse(*args, **kwargs):
    raise AssertionError("trained again")


def test_a_finished_run_trains_nothing_again(finished, model_path, monkeypatch):
    started, summary, workdir = finished
    how = started.exp.pool.how
    started.state.journal.close()
    monkeypatch.setattr(packed, "train", refuse)
    monkeypatch.setattr(finetune, "train", refuse)
    again = start(model_path, workdir, pool__how=how)
    assert again.walk(workdir) == summary
    assert not [line for line in again.said if "propose" not in line]


# What cannot be run


@pytest.mark.parametrize("how", HOW)
def test_a_failed_training_scores_nothing(how, model_path, tmp_path, monkeypatch):
    started = start(
        model_path,
        tmp_path / "run",
        pool__how=how,
        pool__seeds=1,
        arms=("base", "passage_only"),
    )
    alone, many = finetune.train, packed.train
    monkeypatch.setattr(
        finetune, "train", lambda *a, **k: alone(*a, **k)._replace(finite=False)
    )
    none = np.zeros(3, bool)
    monkeypatch.setattr(
        packed, "train", lambda *a, **k: many(*a, **k)._replace(finite_A=none)
    )
    base, failed = started.walk(tmp_path / "run")["ladder"]
    assert base["failed"] == 0
    assert (failed["failed"], failed["mean"], failed["n"]) == (1, 0.0, 3)
    assert failed["empty_rate"] is None
    assert [line for line in started.said if "training failed" in line]


def test_only_some_questions_can_be_asked(model_path, tmp_path):
    started = start(model_path, tmp_path / "run", pool__questions=4, arms=("base",))
    (row,) = started.walk(tmp_path / "run")["ladder"]
    assert row["questions"] == 4 and 1 <= row["n"] <= 3


def test_what_does_not_fit_is_refused_before_it_is_loaded(model_path, monkeypatch):
    def make(**changes):
        exp: Any = experiment(model_path, **changes)
        (passages,), _ = pooled.load(exp)
        return pooled.make(exp, policies.describe(exp.model), passages, [])

    monkeypatch.setattr(backend, "memory_limit", lambda device: 1000)
    make()
    with pytest.raises(ValueError, match=r"full fine-tuning holds .*pool.how='lora'"):
        make(pool__how="full")
    make(pool__how="full", arms=("base",))


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, True),
        ({"arms": ("base", "oracle")}, False),
        ({"pool__edits_file": "file.json"}, False),
        ({"writer__path": "other"}, False),
    ],
)
def test_a_self_edit_prompt_must_fit_the_model_that_reads_it(
    changes, used, model_path, tmp_path, monkeypatch
):
    exp: Any = experiment(model_path, propose__max_tokens=250, **changes)
    (passages,), _ = pooled.load(exp)
    blank = policies.describe(exp.model)
    roomy = dataclasses.replace(
        blank, arch=dataclasses.replace(blank.arch, max_position=512)
    )
    monkeypatch.setattr(policies, "describe", lambda source: roomy)
    monkeypatch.setattr(pooled.pooled_texts, "read_edits", lambda *a, **k: [])
    if used:
        with pytest.raises(ValueError, match="its self-edit prompt takes"):
            pooled.make(exp, blank, passages, [])
    else:
        task = pooled.make(exp, blank, passages, [])
        assert passages[0].text in task.propose_prompt(passages[0])
        assert task.exp is exp
    # What is read closed-book must fit whatever is written.
    wide: Any = dataclasses.replace(
        exp, answer=dataclasses.replace(exp.answer, max_tokens=255)
    )
    few = dataclasses.replace(wide.propose, max_tokens=1)
    with pytest.raises(ValueError, match="a question prompt takes"):
        pooled.make(dataclasses.replace(wide, propose=few), blank, passages, [])


def test_ideal_edits_are_the_worlds_alone(seal_data):
    path = seal_data / "knowledge-incorporation" / "data" / "squad_val.json"
    exp = test_config_pooled.build(
        task__train=str(path), arms=("base", "oracle"), pool__passages=3
    )
    with pytest.raises(ValueError, match=r"'oracle' needs a task .* task.name='squad'"):
        pooled.load(exp)


def test_in_context_is_asked_with_the_passage_in_view(model_path, tmp_path):
    started = start(model_path, tmp_path, arms=("base", "in_context"))
    asked = []

    def answer(policy, adapters, prompts, keys, decoding):
        asked.append(prompts[0])
        return [[""] * len(prompts[0])]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "answer", answer)
        started.walk(tmp_path)
    (passages,) = started.train
    questions = [(p, q) for p in passages for q in p.questions]
    for prompts, shown in zip(asked, (False, True), strict=True):
        for prompt, (passage, question) in zip(prompts, questions, strict=True):
            assert (passage.text in prompt) == shown and question.question in prompt
