import dataclasses
import xml.etree.ElementTree as ET

import pytest
import report_run

from seal_jax.analysis import novelty
from seal_jax.report import read_texts, run_view
from seal_jax.report.sections import novelty as novelty_section
from seal_jax.report.tables import novelty as novelty_table
from seal_jax.runtime import records


def workdir(path, **options):
    return run_view.read_workdir(report_run.rounds_run(path, **options))


def run_with(folder, lines):
    """A run with edits whose summary has other lines of rounds."""
    run = workdir(folder / "with", rounds=1)
    return dataclasses.replace(run, summary={"rounds": lines})


def parse(text):
    return ET.fromstring(f"<div>{text}</div>")


def hints(root):
    return [
        mark.findtext("title")
        for mark in root.iter()
        if mark.tag in ("circle", "polygon") and mark.find("title") is not None
    ]


def named(*names):
    own = {("t", "a b c d"): ("one two three four",)}
    return [novelty.Edits(name, own) for name in names]


def test_rounds_are_found_in_the_names_of_runs_and_of_files():
    groups = named(
        "r round 2",
        "r round 1",
        "r held-out round_1",
        "r held-out self_edits",
        "r held-out oracle",
        "iter0_train",
        "rank_iter1",
        "round 1",
        "r round 1 prompt 2",
    )
    found = {
        line: [number for number, _ in edits]
        for line, edits in novelty_section.rounds(groups).items()
    }
    assert found == {
        "r": [1, 2],
        "r held-out": [0, 1],
        "train": [0],
        "rank": [1],
        "edits": [1],
        "r prompt 2": [1],
    }


def test_the_charts_show_the_measures_of_each_round(tmp_path):
    run = workdir(tmp_path / "run")
    groups = novelty_section.of_workdir(run)
    assert [e.name for e in groups] == [f"run round {i}" for i in (1, 2, 3)]
    root = parse(novelty_section.charts(novelty_section.rounds(groups)))
    captions = [f.findtext("figcaption/b") for f in root.iter("figure")]
    assert captions == ["novel3", "cov3", "jaccard3", "distinct2", "zlib", "words"]
    mean, _ = novelty.summarize(groups[0])["novel3"]
    assert hints(root)[0].startswith(f"run, 1: {mean:.4g}")


def test_held_out_edits_have_their_runs_colour_in_dashes():
    groups = named("r round 1", "r round 2", "r held-out round_1", "s round 1")
    root = parse(novelty_section.charts(novelty_section.rounds(groups)))
    assert {g.get("class") for g in root.iter("g")} >= {"s0", "s0 dashed", "s1"}


def test_only_neighbouring_rounds_of_a_run_are_compared(tmp_path):
    groups = novelty_section.of_workdir(workdir(tmp_path / "run"))
    first, changes = novelty_section.tables([], [groups])
    assert first.rows == novelty_table.summary_rows(groups)[1:]
    assert [row[0] for row in changes.rows] == [
        "run round 2 - run round 1",
        "run round 3 - run round 2",
    ]
    _, every = novelty_section.tables(groups)
    assert every.rows == novelty_table.change_rows(groups)[1:]
    assert len(every.rows) == 3


def test_what_the_rounds_recorded(tmp_path):
    (table,) = novelty_section.recorded([workdir(tmp_path / "run", rounds=2)])
    assert list(table.head) == ["run", "round", "overlap"]
    assert table.rows == [("run", "1", "0.062"), ("run", "2", "0.125")]
    told = [{"round": 1, "novelty": {"novel3": 0.5, "zlib": 2.0}}]
    assert novelty_section.recorded([run_with(tmp_path, told)]) == []
    lines = [{"novelty": None}, {"round": 2, "novelty": {"novel3": None}}]
    run = run_view.Workdir("r", {"rounds": lines})
    assert novelty_section.recorded([run])[0].rows == [("r", "2", "-")]
    assert novelty_section.recorded([run_view.Workdir("r", {})]) == []


def test_files_without_rounds_are_shown_as_intervals(tmp_path):
    paths = [report_run.edits_file(tmp_path / f"{n}.json", n) for n in ("one", "two")]
    groups = [e for path in paths for e in read_texts.read(path)]
    page = parse(novelty_section.section(groups))
    captions = [f.findtext("figcaption/b") for f in page.iter("figure")]
    assert captions == ["novel3", "cov3", "jaccard3", "distinct2", "zlib"]
    mean, se = novelty.summarize(groups[0])["cov3"]
    assert f"{mean:.3f} ± {se:.3f}" in [t.text for t in page.iter("text")]


def test_runs_without_edits_about_passages_have_no_novelty(tmp_path):
    assert novelty_section.of_workdir(run_view.Workdir("r", {})) == []
    assert novelty_section.section([], [run_view.Workdir("r", {})]) == ""
    run = workdir(tmp_path / "run")
    for rows in ([{"task_id": "t", "text": "x"}], [{"passage": "p"}], []):
        records.write_jsonl(run.path / "edits.jsonl", rows)
        again = run_view.read_workdir(run.path)
        assert novelty_section.of_workdir(again) == []


@pytest.mark.parametrize("several", [False, True])
def test_every_text_is_escaped(several):
    name = report_run.HOSTILE
    own = {("t", "a b c"): ("x y z",)}
    groups = [
        novelty.Edits(f"{name} round {i}", own, "<p>") for i in range(1 + several)
    ]
    page = novelty_section.section(groups)
    parse(page)
    assert "<script" not in page
    assert "&lt;p&gt;" in page


def test_half_characters_are_measured_as_question_marks(tmp_path):
    run = workdir(tmp_path / "run", rounds=1)
    rows = [row | {"text": "one two \ud800 three"} for row in run.edits]
    records.write_jsonl(run.path / "edits.jsonl", rows)
    (edits,) = novelty_section.of_workdir(run_view.read_workdir(run.path))
    texts = {text for own in edits.by_passage.values() for text in own}
    assert texts == {"one two ? three"}
    assert novelty_section.tables([edits])
