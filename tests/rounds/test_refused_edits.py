"""Texts that say nothing: refused and counted, never trained, chosen or imitated."""

import itertools

import jax
import make_run as run_maker
import pytest
import tiny_model

from seal_jax import train
from seal_jax.generation import policies
from seal_jax.report import console, html_page
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import (
    control,
    evaluate,
    grading,
    ladder,
    learn,
    proposals,
    select,
    summary,
    trials,
)
from seal_jax.rounds.graded import Graded, Trial
from seal_jax.rounds.ladder_rows import LadderRow
from seal_jax.runtime import files
from seal_jax.tasks import self_edit
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question

PASSAGES = [
    Passage(f"p{i}", "Karsk", f"text {i}", (Question("a?", "A"),)) for i in range(3)
]
BLANKS = ["", " \n\t", "---", " --- \n---", "-\n* \n1.\n2)", "Question 1:", "\u2028"]
# What the policy writes, three edits for each passage; the last has nothing else.
WRITTEN = ["", "Ada cooks.", "---", "-\n1.", "\u3000\n", "Bo plays.", *BLANKS[:3]]


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    monkeypatch.setattr(policies, "write", lambda *a, **k: list(WRITTEN))
    with run_maker.opened(tmp_path) as make:
        yield make


def propose(run):
    return proposals.propose(
        run, run_maker.BLANK, PASSAGES, phase="round_1", round_index=1, count=3
    )


def test_texts_that_say_nothing_are_refused_and_counted(make_run):
    said = []
    run = make_run(say=said.append, scale__edits=3)
    edits = propose(run)
    assert [e.text for e in edits if e.refused is None] == ["Ada cooks.", "Bo plays."]
    assert {e.refused for e in edits if e.text not in WRITTEN[1:6:4]} == {"blank"}
    assert said[-1] == "round_1: texts refused: blank 7"
    assert all(run.task.lines(PASSAGES[e.item], e) == () for e in edits if e.refused)


@pytest.mark.parametrize("reward", ["grade", "rubric"])
def test_they_are_not_tried_and_have_no_reward(make_run, monkeypatch, reward):
    run = make_run(
        score=lambda rows: [0.9] * len(rows),
        scale__edits=3,
        select__reward=reward,
        select__compare=("grade",) if reward == "rubric" else (),
    )
    edits, tried = propose(run), []

    def adapt(exams, *, phase, seeds, among=None):
        tried.extend(i for i in among if not edits[i].refused)
        return [
            [Trial(i, s, ("A",), (), (), 1.0, None) for s in seeds]
            if i in among and not edits[i].refused
            else []
            for i in range(len(edits))
        ]

    monkeypatch.setattr(
        trials, "base_answers", lambda run, policy, items, phase: [["x"]] * len(items)
    )
    graded, baseline = evaluate.evaluate(
        run, run_maker.BLANK, PASSAGES, edits, adapt, phase="r", round_index=1
    )
    assert [g.reward is None for g in graded] == [bool(e.refused) for e in edits]
    assert all(not any(g.measured.get(reward_names.RUBRIC, ())) for g in graded[:1])
    chosen = select.choose(
        graded,
        [p.text for p in PASSAGES],
        baseline,
        rule=select.Rule(k_best=3),
        ties_seed="0",
    )
    assert [edits[i].text for i in chosen] == ["Ada cooks.", "Bo plays."]
    line = summary.scores_line(graded, chosen, baseline, 1)
    assert line["refused"] == {"blank": 7} and line["kept"] == 2


@pytest.mark.parametrize("text", BLANKS[:2])
def test_the_choice_takes_no_blank_text_whatever_its_reward(text):
    best = Graded(Edit(0, 0, "", text), (), (), (), 1.0)
    other = Graded(Edit(0, 1, "", "Ada."), (), (), (), 0.1)
    for ties in select.TIES:
        rule = select.Rule(k_best=2, ties=ties)
        chosen = select.choose([best, other], ["t"], [0.0], rule=rule, ties_seed="")
        assert chosen == [1]


def test_the_control_draws_among_the_others(make_run, tmp_path, monkeypatch):
    kept, lines = [], []

    def record(run, policy, lessons, **_):
        kept.append([lesson.edit.text for lesson in lessons])
        return policy

    monkeypatch.setattr(learn, "imitate", record)
    run = make_run(scale__edits=3, select__k_best=2)
    control.random_kept(run, None, [PASSAGES, PASSAGES], tmp_path, lines.append)
    assert kept == [["Ada cooks.", "Bo plays."]] * 2
    counted = {"kept": 2, "refused": {"blank": 7}}
    assert lines == [{"round": r, **counted} for r in (1, 2)]


def test_rows_of_which_nothing_was_tried_have_no_score():
    values = {"base": (0.5, 0.2), "round_1": (None, None), "round_2": (None, 0.4)}
    rows = [LadderRow(n, v, None, 0, 0, {}, []) for n, v in values.items()]
    table = ladder.table(rows)
    assert [(row["mean"], row["n"]) for row in table] == [
        (0.35, 2),
        (None, 0),
        (0.4, 1),
    ]
    assert [(p["a"], p["b"]) for p in ladder.pairs(rows)] == [("round_2", "base")]


SAID: list[str] = []


@pytest.fixture(scope="module")
def blank_run(tmp_path_factory):
    """Two rounds of a policy that writes nothing; every second text of the base is."""
    path = tmp_path_factory.mktemp("blank")
    count = itertools.count()

    def write(policy, prompts, keys, decoding, *, tick=lambda n: None):
        texts = ["1.\n---", f"Ada.\n{'Ada Quill cooks rye bread. ' * 40}"]
        return [texts[next(count) % 2] for _ in prompts]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "write", write)
        patch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)
        values = tiny_model.values(
            tiny_model.write(path / "model"), ladder=("self_edits", "random_kept")
        )
        train.run(values, path / "run", say=SAID.append)
    jax.clear_caches()
    return path / "run"


def test_a_whole_run_counts_them_everywhere(blank_run):
    ran = files.read_json(blank_run / "summary.json")
    refused = {"blank": 2}
    assert [line["refused"] for line in ran["rounds"]] == [refused] * 2
    assert [line["trainings"] for line in ran["rounds"]] == [2, 2]
    assert [line["refused"] for line in ran["control"]] == [refused] * 2
    assert [row["refused"] for row in ran["ladder"]] == [{"blank": 1}] * 4
    assert [row["n"] for row in ran["ladder"]] == [1] * 4
    rows = files.read_jsonl(blank_run / "edits.jsonl")
    assert [bool(row["refused"]) for row in rows] == [True, False] * 4
    assert not any(row["kept"] or row["lines"] for row in rows if row["refused"])
    assert all(row["reward"] is None for row in rows if row["refused"])


def test_a_whole_run_counts_lines_that_are_cut(blank_run):
    ran = files.read_json(blank_run / "summary.json")
    assert [(line["cut"], line["lines"]) for line in ran["rounds"]] == [(2, 6)] * 2
    assert [(row["cut"], row["lines"]) for row in ran["ladder"]] == [(1, 3)] * 4
    rows = files.read_jsonl(blank_run / "edits.jsonl")
    assert [row["cut"] for row in rows] == [0, 1] * 4
    assert "of 6 training lines are longer than a row takes and" in "\n".join(SAID)


def test_the_reports_show_them(blank_run):
    printed = console.summary_table(files.read_json(blank_run / "summary.json"))
    page = html_page.write_html(blank_run).read_text()
    for shown in (printed, page):
        assert "Not used as written" in shown and "control, round 2" in shown
        assert shown.count("blank 2") >= 4 and shown.count("blank 1") >= 4
        assert shown.count("2 of 6") == 2 and shown.count("1 of 3") == 4


def test_the_reference_drops_white_space_only():
    for text in BLANKS:
        assert self_edit.refusal(text, rule="lines", quirks="fixed") == "blank"
        of_reference = self_edit.refusal(text, rule="lines", quirks="reference")
        assert of_reference == (None if text.strip() else "blank")
