import xml.etree.ElementTree as ET

import pytest
import report_run

from seal_jax.analysis.agreement import AllRewards
from seal_jax.report import read_rewards, run_view
from seal_jax.report.sections import agreement as agreement_section
from seal_jax.report.tables import agreement as agreement_table
from seal_jax.runtime import records


@pytest.fixture
def run(tmp_path):
    """Two rounds in which `cheap` ranks as the grade does, and `wrong` the reverse."""
    path = report_run.rounds_run(tmp_path / "run", rounds=2)
    rows = [
        row
        | {
            "measured": {
                "grade": row["rewards"],
                "cheap": [r**2 for r in row["rewards"]],
                "wrong": [-r for r in row["rewards"]],
            }
        }
        for row in report_run.edits(2)
    ]
    records.write_jsonl(path / "edits.jsonl", rows)
    return run_view.read_workdir(path)


def parse(text):
    return ET.fromstring(f"<div>{text}</div>")


def test_the_table_is_that_of_the_module_for_every_round(run):
    found = agreement_section.of_workdir(run)
    assert [m.name for m in found] == ["run round 1", "run round 2"]
    (table,) = agreement_section.tables(found)
    own = [agreement_table.table(m) for m in read_rewards.read(run.path)]
    assert list(table.head[1:]) == list(own[0][0][1:])
    lines = [row for _, *rows in own for row in rows]
    assert [row[1:] for row in table.rows] == [row[1:] for row in lines]
    names = [row[0] for row in table.rows]
    assert "run round 2: cheap" in names
    assert "run round 1: rubric by rules" in names


def test_what_is_captured_is_drawn_by_round(run):
    root = ET.fromstring(agreement_section.by_round(agreement_section.of_workdir(run)))
    hints = [t.text or "" for t in root.iter("title")]
    assert [h.split(" (")[0] for h in hints if h.startswith("cheap, 1:")] == [
        "cheap, 1: 1"
    ]
    assert [h.split(" (")[0] for h in hints if h.startswith("wrong, 2:")] == [
        "wrong, 2: -1"
    ]


def test_one_round_is_a_row_for_each_reward(run):
    found = agreement_section.of_workdir(run)[:1]
    root = ET.fromstring(agreement_section.intervals(found[0]))
    told = [t.text for t in root.iter("title")]
    assert "cheap: 100 %" in told
    assert "wrong: -100 %" in told
    page = parse(agreement_section.section(found))
    assert page.find(".//details") is None
    both = parse(agreement_section.section(agreement_section.of_workdir(run)))
    assert both.findtext(".//summary") == "As a table"


def test_the_charts_of_many_runs_are_folded(run):
    (own, _) = agreement_section.of_workdir(run)
    named = [AllRewards(n, own.rewards) for n in ("a", "<b>", "c", "d")]
    few = parse(agreement_section.section(named[:2]))
    assert [h.text for h in few.iter("h3")] == ["a", "<b>"]
    assert few.findall(".//figure") == []
    many = parse(agreement_section.section(named))
    # One open chart for each reward, with a dot for each run.
    names = [f.findtext("figcaption/b") for f in many.iter("figure")]
    assert "cheap" in names and "wrong" in names
    cheap = list(many.iter("figure"))[names.index("cheap")]
    told = [t.text for t in cheap.iter("title")]
    assert [t for t in told if t != "Captured by cheap"] == [
        f"{name}, 1: 1" for name in ("a", "<b>", "c", "d")
    ]
    assert [s.text for s in many.iter("summary")] == [
        "a",
        "<b>",
        "c",
        "d",
        "As a table",
    ]


def test_where_there_is_nothing_to_compare(tmp_path, run):
    assert agreement_section.of_workdir(run_view.Workdir("r", {})) == []
    assert agreement_section.section([]) == ""
    assert agreement_section.tables([]) == []
    for rows in (
        [report_run.edit(1, "a", 0, [0.5])],  # one edit
        [{"text": "no passage"}],
        [],
    ):
        records.write_jsonl(run.path / "edits.jsonl", rows)
        assert agreement_section.of_workdir(run_view.read_workdir(run.path)) == []


def test_names_are_escaped(run):
    (one, _) = agreement_section.of_workdir(run)
    rewards = one.rewards | {report_run.HOSTILE: one.rewards["cheap"]}
    hostile = AllRewards(report_run.HOSTILE, rewards)
    page = agreement_section.section([hostile, one])
    parse(page)
    assert "<script" not in page
