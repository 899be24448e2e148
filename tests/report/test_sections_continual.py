import re
import xml.etree.ElementTree as ET

import pytest
import report_run

from seal_jax.analysis import forgetting
from seal_jax.continual import files as continual_files
from seal_jax.report import run_view
from seal_jax.report.sections import continual as continual_section
from seal_jax.report.sections.continual import Arm


def parse(text):
    return ET.fromstring(f"<div>{text}</div>")


def words(root):
    return [" ".join("".join(e.itertext()).split()) for e in root.iter() if e.text]


def hints(root):
    """{line: its values} of a chart, from what is told at its dots."""
    found = {}
    for mark in root.iter():
        told = mark.findtext("title") if mark.tag in ("circle", "polygon") else None
        if told:
            name, _, value = told.partition(", ")
            found.setdefault(name, []).append(float(value.split(": ")[1].split(" ")[0]))
    return found


def test_the_heat_map_shows_every_cell_and_colours_the_difference():
    matrix = forgetting.pool(report_run.matrices())
    root = ET.fromstring(continual_section.heat(matrix))
    cells = [
        (g.findtext("text"), g.get("class"), g.get("style")) for g in root.iter("g")
    ]
    flat = [x for row in matrix.means for x in row]
    assert [float(text) for text, _, _ in cells] == pytest.approx(flat, abs=0.00501)
    assert {style for _, _, style in cells[:3]} == {"--s: 0.00"}
    # p1 ends at 0.15 of 0.6 un-edited: the farthest of all.
    assert cells[6][1:] == ("warm", "--s: 1.00")
    # p2 after its own edit, 0.6 of 0.3 un-edited.
    assert cells[5][1:] == ("cool", "--s: 0.67")
    weaker = ET.fromstring(continual_section.heat(matrix, most=0.9))
    assert [g.get("style") for g in weaker.iter("g")][6] == "--s: 0.50"
    hint = [g.findtext("title") for g in root.iter("g")][5]
    assert hint == "passage 2 after 2 edits: 0.600 ± 0.200, un-edited 0.300"


def test_curves_are_those_of_the_matrix_with_the_base_beside_them():
    runs = tuple(report_run.matrices())
    matrix = forgetting.pool(runs)
    for draw, curve, base in (
        (continual_section.lag, forgetting.lag, forgetting.lag_base),
        (continual_section.seen, forgetting.seen, forgetting.seen_base),
    ):
        found = hints(ET.fromstring(draw([Arm("merge", runs)])))
        assert found["merge"] == pytest.approx(curve(matrix), abs=1e-4)
        assert found["un-edited"] == pytest.approx(base(matrix), abs=1e-4)


def test_arms_with_one_base_share_its_line_and_others_have_their_own():
    runs = tuple(report_run.matrices())
    one, other = Arm("a", runs), Arm("b", runs[:1])
    same = hints(ET.fromstring(continual_section.lag([one, Arm("b", runs)])))
    assert set(same) == {"a", "b", "un-edited"}
    both = ET.fromstring(continual_section.lag([one, other]))
    names = {g.findtext("text") for g in both.iter("g")}
    assert {"un-edited, a", "un-edited, b"} <= names


def test_the_crossing_is_marked_and_told():
    runs = tuple(report_run.matrices())
    t = forgetting.crossing(forgetting.pool(runs))
    assert t == 3
    page = parse(continual_section.released("folder", runs))
    assert "below un-edited at 3" in words(page)
    assert "Falls below the un-edited model: folder at 3." in words(page)


def test_a_folder_of_results_names_its_source_and_its_averages():
    page = parse(continual_section.released("<f>", report_run.matrices()))
    text = " ".join(words(page))
    assert "m on passages <1>: 2 sequences of 3 passages in 2 files" in text
    rows = [[c.text for c in row] for row in page.iterfind(".//table/tbody/tr")]
    # The mean over both runs of 0.3, and of 0.25 after the last edit.
    assert ["un-edited", "0.4500", "0.1500"] in rows
    assert ["after the last edit", "0.3750", "0.1250"] in rows


def test_the_arms_of_a_workdir(tmp_path):
    path = report_run.continual_run(tmp_path / "run")
    found = continual_section.arms(run_view.read_workdir(path))
    assert [a.name for a in found] == ["merge", "replay"]
    assert all(len(a.runs) == 2 for a in found)
    scores, cost = continual_section.tables(found)
    assert scores.rows[0] == (
        "merge",
        "0.625 ± 0.031",
        "0.375 ± 0.031",
        "0.438 ± 0.031",
        "0.625 ± 0.031",
        "0.500 ± 0.031",
    )
    told = ("replay", "2", "6", "12,345", "77", "1.5", "75.0 %", "0.812")
    assert cost.rows[1] == told
    page = parse(continual_section.section(found, of="<run>"))
    assert [h.text for h in page.iter("h2")] == [
        "Arms: <run>",
        "Accuracy matrix: <run>",
        "Curves: <run>",
        "General ability: <run>",
    ]


def test_without_files_the_matrix_is_that_of_the_summary(tmp_path):
    path = report_run.continual_run(tmp_path / "run", files=False)
    (arm, _) = continual_section.arms(run_view.read_workdir(path))
    pooled = forgetting.pool(report_run.matrices())
    assert len(arm.runs) == 1
    assert arm.runs[0].means == pooled.means
    assert arm.runs[0].deviations == pooled.deviations


def test_squares_are_cut_to_what_was_learned():
    pooled = forgetting.pool(report_run.matrices())
    square = [[*row, *[0.0] * (3 - len(row))] for row in pooled.means]
    row = report_run.arm("a", matrix={"means": square, "deviations": None})
    (arm,) = continual_section.arms(run_view.Workdir("", {"arms": [row]}))
    assert arm.runs[0].means == pooled.means


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"name": "a", "matrix": None, "general": None, "learned": 0.5},
        {"name": "a", "general": [0.5]},
        {"name": "a", "general": [None, "?"], "matrix": {}, "kept": {}},
    ],
)
def test_what_an_arm_does_not_tell_is_no_error(row):
    found = continual_section.arms(run_view.Workdir("", {"arms": [row]}))
    page = parse(continual_section.section(found))
    assert [h.text for h in page.iter("h2")] == ["Arms"]
    assert not re.search(r"\b(nan|None)\b", " ".join(words(page)))


def test_a_malformed_matrix_is_a_one_line_error():
    row = report_run.arm("a", matrix={"means": [[0.5], [1.5]]})
    with pytest.raises(ValueError, match="arm 'a': matrix is malformed"):
        continual_section.arms(run_view.Workdir("", {"arms": [row]}))


def test_an_arm_named_like_a_path_reads_nothing_elsewhere(tmp_path):
    report_run.continual_folder(tmp_path / "elsewhere")
    path = report_run.continual_run(tmp_path / "run", files=False)
    (path / "continual").mkdir()
    summary = {"arms": [{"name": "../../elsewhere"}]}
    (arm,) = continual_section.arms(run_view.Workdir("", summary, path=path))
    assert arm.runs == ()


def test_many_matrices_are_folded(tmp_path):
    names = tuple("abcde")
    path = report_run.continual_run(tmp_path / "run", *names, files=False)
    found = continual_section.arms(run_view.read_workdir(path))
    page = parse(continual_section.section(found))
    assert [s.text for s in page.iter("summary")] == ["d", "e"]


def test_general_ability_is_drawn_as_measured():
    arms = [Arm("a", (), {"general": [0.5, None, 0.25]}), Arm("b", ())]
    found = hints(ET.fromstring(continual_section.general(arms)))
    assert found == {"a": [0.5, 0.25]}
    assert continual_section.general(arms[1:]) == ""


def test_the_released_runs_draw_their_known_numbers(seal_data):
    folder = seal_data / "knowledge-incorporation/results/continual_self_edits"
    runs = continual_files.read(folder)
    found = hints(ET.fromstring(continual_section.lag([Arm("r", runs)])))
    assert found["r"][:3] == [0.4146, 0.3669, 0.2945]
    assert "below un-edited at 5" in continual_section.released("r", runs)
