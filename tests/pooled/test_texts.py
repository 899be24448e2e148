"""What a pooled training is made of: texts, files of self-edits, questions."""

import dataclasses
import json
from typing import Any

import pytest
import test_pooled_settings as test_config_pooled

from seal_jax.generation import policies
from seal_jax.pooled import arms as pooled
from seal_jax.pooled import texts as pooled_texts
from seal_jax.tasks import knowledge, knowledge_setup, squad
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question

A = Passage("a", "Karsk", "Old. New.", (Question("Who?", "Ada"), Question("Why?", "x")))
B = Passage("b", "Dolmen", "Big.", tuple(Question(f"{i}?", "y") for i in range(5)))


def task_of(arg: str = "debug", **changes) -> knowledge.Knowledge:
    exp: Any = test_config_pooled.build(arg, **changes)
    return knowledge_setup.make(exp, policies.describe(exp.model), [], [])


# Texts

EDITS = [
    Edit(0, 0, "", "one\ntwo"),
    Edit(0, 1, "", "three"),
    Edit(1, 0, "", "four"),
    Edit(1, 1, "", ""),
]


@pytest.mark.parametrize(
    ("rule", "copies", "expected"),
    [
        ("lines", "once", [["one", "two", "three", "Old. New."], ["four", "Big."]]),
        ("whole", "once", [["one\ntwo", "three", "Old. New."], ["four", "Big."]]),
        (
            "whole",
            "each",
            [
                ["one\ntwo", "Old. New.", "three", "Old. New."],
                ["four", "Big.", "Big."],
            ],
        ),
    ],
)
def test_texts_of_each_passage(rule, copies, expected):
    task = task_of(edit__split=rule)
    made = pooled_texts.texts(task, [A, B], EDITS, copies=copies)
    titled = [
        [f"{passage.title}\n{text}" for text in own]
        for passage, own in zip((A, B), expected, strict=True)
    ]
    assert made == titled


@pytest.mark.parametrize("copies", ["once", "each"])
def test_a_row_of_one_edit_has_its_passage_once(copies):
    task = task_of(edit__split="whole")
    edits = [Edit(0, 0, "", "Old.\nNew.", fixed=True), Edit(1, 0, "", "", fixed=True)]
    made = pooled_texts.texts(task, [A, B], edits, copies=copies)
    # What no policy wrote is lines, whatever the rule.
    assert made == [
        ["Karsk\nOld.", "Karsk\nNew.", "Karsk\nOld. New."],
        ["Dolmen\nBig."],
    ]


def test_refused_edits_are_not_trained_on(tmp_path):
    refused = [Edit(p, e, "", "---", refused="blank") for p in (0, 1) for e in (0, 1)]
    edits = [refused[0], Edit(0, 1, "", "one"), *refused[2:]]
    for copies in ("once", "each"):
        made = pooled_texts.texts(task_of(), [A, B], edits, copies=copies)
        assert made == [["Karsk\none", "Karsk\nOld. New."], ["Dolmen\nBig."]]


def test_a_file_s_blank_edits_give_way_to_later_ones(tmp_path):
    a, b = (
        dataclasses.replace(p, id=squad.passage_id(p.title, p.text)) for p in (A, B)
    )
    path = write(tmp_path / "e.json", record(A, "", "u", "--- "), record(B, "\n", "1."))
    assert pooled_texts.read_edits(path, [a, b], count=2) == [
        Edit(0, 0, "", "u"),
        Edit(0, 1, "", "", refused="blank"),
        Edit(1, 0, "", "", refused="blank"),
        Edit(1, 1, "", "1.", refused="blank"),
    ]
    read = pooled_texts.read_edits(path, [a], count=2, quirks="reference")
    assert [e.text for e in read] == ["u", "---"]


# Training


@pytest.mark.parametrize(
    ("how", "count", "steps"), [("lora", 9, 6), ("full", 9, 6), ("lora", 8, 3)]
)
def test_a_job_takes_all_texts(how, count, steps):
    task = task_of(
        pool__how=how,
        inner__epochs=3,
        full__epochs=3,
        full__warmup_share=0.3,
        inner__warmup_share=0.3,
    )
    texts = [[f"Karsk\nAda {'cooks ' * i}" for i in range(count - 2)], ["x", "y"]]
    job = pooled_texts.job(task.exp, task, texts, 1)
    assert job.total == steps and job.batch == 8
    assert job.warmup == {6: 2, 3: 1}[steps]
    exp: Any = task.exp
    cfg = exp.inner if how == "lora" else exp.full
    assert (job.learning_rate, job.clip) == (cfg.learning_rate, cfg.clip)
    flat = [text for own in texts for text in own]
    assert job.lines == tuple(tuple(task.blank.encode(text)) for text in flat)
    assert job.seed != pooled_texts.job(task.exp, task, texts, 2).seed


def test_long_texts_are_cut():
    task = task_of(inner__row_tokens=8, inner__step_tokens=64)
    texts = [["Karsk\n" + "Ada " * 40], ["Karsk\nAda"]]
    job = pooled_texts.job(task.exp, task, texts, 0)
    assert [len(line) for line in job.lines] == [8, len(job.lines[1])]
    assert job.cut == (0,) and job.targets() == [7, len(job.lines[1])]
    assert len(job.lines[1]) < 8 and pooled_texts.count_too_long(task, texts) == 1


# Questions


@pytest.mark.parametrize("count", [0, 7, 100])
def test_all_questions_are_asked(count):
    assert pooled_texts.ask_some([A, B], count, seed=0) == [A, B]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_some_questions_are_drawn(count):
    drawn = [pooled_texts.ask_some([A, B], count, seed=s) for s in range(40)]
    for asked in drawn:
        assert sum(len(p.questions) for p in asked) == count
        for p in asked:
            whole = {"a": A, "b": B}[p.id]
            places = [whole.questions.index(q) for q in p.questions]
            assert places == sorted(places) and p.questions
            assert dataclasses.replace(p, questions=whole.questions) == whole
    assert pooled_texts.ask_some([A, B], count, seed=3) == drawn[3]
    seen = {q.question for asked in drawn for p in asked for q in p.questions}
    assert seen == {"Who?", "Why?", "0?", "1?", "2?", "3?", "4?"}


# Files


def write(path, *records):
    path.write_text(json.dumps(records))
    return path


def record(passage: Passage, *completions) -> dict[str, Any]:
    questions = [dataclasses.asdict(q) for q in passage.questions]
    return {
        "title": passage.title,
        "context": passage.text,
        "questions": questions,
        "completions": list(completions),
    }


def test_edits_are_found_by_passage(tmp_path):
    a, b = (
        dataclasses.replace(p, id=squad.passage_id(p.title, p.text)) for p in (A, B)
    )
    path = write(tmp_path / "e.json", record(B, "x", "y", "z"), record(A, " u\n", "v"))
    assert pooled_texts.read_edits(path, [a, b], count=2) == [
        Edit(0, 0, "", "u"),
        Edit(0, 1, "", "v"),
        Edit(1, 0, "", "x"),
        Edit(1, 1, "", "y"),
    ]
    with pytest.raises(
        ValueError, match=r"pool.edits=3 completions about .* has 2; lower"
    ):
        pooled_texts.read_edits(path, [a, b], count=3)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(A, "u")], r"about passage 'Big\.' of 'Dolmen', has none; take"),
        ([record(A, "u"), record(B) | {"completions": "x"}], "has none; take the file"),
        ([record(A, "u"), record(B, 3)], "completion 3 must be text"),
        ([{"title": "Karsk"}], "context is missing"),
    ],
)
def test_files_that_lack_something_are_refused(tmp_path, records, message):
    passages = [
        dataclasses.replace(p, id=squad.passage_id(p.title, p.text)) for p in (A, B)
    ]
    path = write(tmp_path / "e.json", *records)
    with pytest.raises(ValueError, match=message):
        pooled_texts.read_edits(path, passages, count=1)
    with pytest.raises(FileNotFoundError, match=r"pool.edits_file='.*': no such file"):
        pooled_texts.read_edits(tmp_path / "none.json", passages, count=1)


# What the authors of SEAL trained on, as their manifests count it


@pytest.mark.parametrize(
    ("name", "arm", "sequences"),
    [
        ("base", "self_edits", 2000),
        ("iter2", "self_edits", 2000),
        ("gpt4_1", "self_edits", 2082),
        ("naive", "passage_only", 400),
    ],
)
def test_released_edits_give_the_counted_sequences(seal_data, name, arm, sequences):
    folder = seal_data / "knowledge-incorporation" / "data"
    path = folder / "synthetic_data" / "eval" / f"{name}_val.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in this copy of the released data")
    task = task_of(
        "",
        model__path="embedded:debug",
        edit__quirks="reference",
        task__train=str(folder / "squad_val.json"),
    )
    exp: Any = task.exp
    (passages,), _ = pooled.load(exp)
    # Their own order: the same 200 passages come first in the file.
    in_order = squad.load(path, split="", seed=None)
    assert [p.id for p in passages] == [p.id for p in in_order[:200]]
    if arm == "self_edits":
        edits = pooled_texts.read_edits(path, passages, count=exp.pool.edits)
    else:
        edits = [Edit(p, 0, "", "", fixed=True) for p in range(len(passages))]
    made = pooled_texts.texts(task, passages, edits, copies="each")
    assert sum(map(len, made)) == sequences
    job = pooled_texts.job(task.exp, task, made, 0)
    assert job.total == 3 * -(-sequences // 8)
