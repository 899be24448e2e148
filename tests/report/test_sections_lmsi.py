"""What a run without labels shows: policies as rows, votes, and wrong majorities."""

import xml.etree.ElementTree as ET

from seal_jax.report import console, fragments
from seal_jax.report.run_view import Workdir
from seal_jax.report.sections import ladder, lmsi

VOTES = {"name": "base", "side": "train", "share": 0.6, "direct_steps": 0.125}
LEARNED = {"questions": 8, "chains": 20, "rows": 80, "steps": 5}


def row(name, mean):
    return {"name": name, "mean": mean, "se": 0.05, "n": 9, "empty_rate": 0.0}


def summary(**changes):
    rows = [row(f"base {way}", 0.25) for way in lmsi.WAYS]
    rows += [row("round_1 direct", 0.5)]
    bins = [{"low": 0.0, "high": 0.5, "n": 3, "accuracy": 0.25}]
    growth = {"wrong": 0.5, "grown": 0.75, "wrong_before": 0.4}
    growth |= {"shrunk": 0.125, "wrong_after": 0.6}
    pair = {"a": "round_1 direct", "b": "base direct", "n": 9, "diff": 0.25, "se": 0.1}
    return {
        "kind": "lmsi",
        "ladder": rows,
        "sides": {"heldout": rows, "train": rows[:1]},
        "votes": [VOTES | {"bins": bins}],
        "growth": [{"name": "round_1", "since": "base", "side": "train", **growth}],
        "learned": [{"name": "round_1"} | LEARNED],
        "paired": [{**pair, "what": "heldout", "z": 2.5}, {**pair, "what": "train"}],
    } | changes


def by_head(found):
    return {table.title or table.head[0]: table for table in found}


def test_policies_are_rows_and_ways_are_columns():
    tables = by_head(lmsi.tables(summary()))
    held = tables["On held-out questions"]
    assert held.head == ("", "direct", "chain", "consistency")
    assert held.rows[1] == ("round_1", "0.500 ± 0.050", "-", "-")
    assert tables["learned from"].rows == [("round_1", "8", "20", "80", "5")]
    assert tables["votes"].rows == [("base", "train", "60.0 %", "-", "-", "12.5 %")]
    (binned,) = (t for t in tables.values() if t.title.startswith("How often"))
    assert binned.rows == [("base", "train", "0.250 (3)")]
    grown = tables["wrong majorities"].rows[0]
    assert grown[:3] == ("round_1", "base", "train")
    shares = ("50.0 %", "75.0 %", "12.5 %", "40.0 %", "60.0 %")
    assert grown[3:8] == shares and set(grown[8:]) == {"-"}


def test_the_console_tells_pairs_of_held_out_questions():
    assert [p["what"] for p in ladder.main_pairs(summary())] == ["heldout"]
    bare = summary(paired=[{**p, "what": "train"} for p in summary()["paired"][:1]])
    assert [p["what"] for p in ladder.main_pairs(bare)] == ["train"]
    text = console.summary_table(summary())
    assert "round_1 direct - base direct" in text and "On held-out questions" in text


def test_other_kinds_have_none_of_it_and_bad_rows_are_missing():
    assert lmsi.tables({"kind": "deploy"}) == []
    bad = summary(votes=[{"bins": "x"}], growth=[{}], sides={"train": [{}, 3]})
    page = str(lmsi.section(Workdir("run", bad)))
    assert "Without labels" in page
    ET.fromstring(f"<div>{page}</div>")
    assert lmsi.section(Workdir("run", {})) == fragments.NOTHING
    assert lmsi.tables(summary(sides=7, votes=7, growth=None, learned="x")) == []
