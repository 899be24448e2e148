import xml.etree.ElementTree as ET

import few_shot_run
import pytest

from seal_jax.report.sections import configs as configs_section


def section(**changes):
    given = {
        "summary": few_shot_run.SUMMARY,
        "edits": few_shot_run.EDITS,
        "heldout": few_shot_run.HELDOUT,
    } | changes
    return ET.fromstring(f"<div>{configs_section.section(*given.values())}</div>")


def text_of(element):
    return " ".join(" ".join(element.itertext()).split())


def rows_of(table):
    return {
        text_of(row[0]): [text_of(c) for c in row[1:]]
        for row in table.iterfind("tbody/tr")
    }


def test_the_overview_has_what_each_policy_wrote():
    table = next(section().iter("table"))
    assert [text_of(cell) for cell in table.iter("th")] == [
        *("", "valid", "in budget", "solved"),
        *("basic", "chain", "repeat", "size", "outputs only"),
        *("learning rate", "epochs", "steps"),
    ]
    rows = rows_of(table)
    assert list(rows) == ["round 1, sampled", "self_edits", "round_1", "oracle"]
    # Six texts of five edits: four are valid, three of them trained, one solved. Of
    # the four, three have the basic family on and three train on outputs only.
    assert rows["round 1, sampled"] == [
        *("67 %", "75 %", "33 %", "75 %", "0 %", "0 %", "0 %", "75 %"),
        *("0.001", "2", "20"),
    ]
    # Of eight texts five are valid; of these four trained and three solved.
    assert rows["round_1"] == [
        *("62 %", "80 %", "75 %", "80 %", "20 %", "0 %", "20 %", "100 %"),
        *("0.001", "2", "20"),
    ]
    assert rows["oracle"][:3] == ["100 %", "100 %", "100 %"]


def test_choices_are_shown_with_their_success():
    details = {text_of(d.find("summary")): d for d in section().iter("details")}
    # One configuration for all leaves nothing to compare.
    assert list(details) == [
        "round 1, sampled: 4 configurations",
        "round_1: 5 configurations",
    ]
    rows = rows_of(next(details["round_1: 5 configurations"].iter("table")))
    assert rows == {
        "basic": ["4", "75 %", "67 %", "1", "100 %", "100 %"],
        "chain": ["1", "100 %", "100 %", "4", "75 %", "67 %"],
        "repeat": ["0", "-", "-", "5", "80 %", "75 %"],
        "size": ["1", "100 %", "100 %", "4", "75 %", "67 %"],
        "loss on outputs only": ["5", "80 %", "75 %", "0", "-", "-"],
    }


def test_histograms_count_the_valid_and_those_that_solved():
    details = section().findall(".//details")[1]
    rate, epochs, steps = details.iter("figure")
    assert "learning rate 5, in full colour 3 that solved" in text_of(rate)

    def bars(figure):
        return list(dict.fromkeys(t.text for t in figure.iterfind(".//rect/title")))

    # 1e-4 and 1e-3 are the decade's ends; 5 valid, one at the lower end.
    assert [t.split(" from ")[0] for t in bars(rate)] == ["1", "4"]
    assert [t.rsplit(", ")[1] for t in bars(rate)] == ["0 of them", "3 of them"]
    assert [t.split(" from ")[0] for t in bars(epochs)] == ["4", "1"]
    assert [t.split(" from ")[0] for t in bars(steps)] == ["4", "1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"edits": [], "heldout": []},
        {"edits": [{}], "heldout": [{"arm": "oracle", "edit": 0}]},
        {"heldout": few_shot_run.HELDOUT[:3], "edits": []},
        {"edits": [], "heldout": few_shot_run.HELDOUT[5:6]},
    ],
)
def test_without_a_valid_edit_there_is_no_section(changes):
    assert section(**changes).find("section") is None


def test_values_that_are_missing_are_dashes():
    bare = {"learning_rate": 0.0, "epochs": 1, "round": "<1>", "reward": None}
    rows = rows_of(next(section(edits=[bare], heldout=[], summary={}).iter("table")))
    assert rows == {"round <1>, sampled": ["100 %", "100 %", "-", "0 %", "-", "1", "-"]}
