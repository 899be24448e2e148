import xml.etree.ElementTree as ET

import pytest
import report_run

from seal_jax.report import run_view
from seal_jax.report.sections import ladder as ladder_section


def pair(a, b, **changes):
    return {"a": a, "b": b, "diff": 0.1, "se": 0.02, "z": 5.0} | changes


def rows(page):
    found = ET.fromstring(page).iterfind(".//table/tbody/tr")
    return [["".join(c.itertext()) for c in row] for row in found]


@pytest.mark.parametrize(
    ("a", "b", "telling"),
    [
        ("self_edits", "base", True),  # neighbours
        ("round_1", "base", False),
        ("round_2", "base", True),  # the last round
        ("x", "base", True),  # not a row
        ("base", None, True),
    ],
)
def test_which_pairs_are_telling(a, b, telling):
    names = ("base", "self_edits", "round_1", "round_2")
    summary = {"ladder": [{"name": n} for n in names], "paired": [pair(a, b)]}
    assert bool(ladder_section.main_pairs(summary)) == telling


@pytest.mark.parametrize(
    ("a", "b", "telling"),
    [
        ("in_context", "base", True),
        ("passage_only", "base", True),  # the ceiling stands between them
        ("passage_only", "in_context", False),
        ("round_1", "in_context", False),
        ("round_1", "base", True),
    ],
)
def test_the_ceiling_is_nobodys_neighbour(a, b, telling):
    names = ("base", "in_context", "passage_only", "round_1")
    summary = {"ladder": [{"name": n} for n in names], "paired": [pair(a, b)]}
    assert bool(ladder_section.main_pairs(summary)) == telling


def test_what_few_shot_tasks_begin_with_is_no_ceiling():
    names = ("in_context", "self_edits", "oracle")
    first = pair("self_edits", "in_context")
    summary = {"ladder": [{"name": n} for n in names], "paired": [first]}
    assert len(ladder_section.main_pairs(summary)) == 1


def test_many_pairs_are_folded_but_the_first():
    many = [pair(f"r{i}", "base") for i in range(40)]
    page = ET.fromstring(ladder_section.paired(many, first=many[:3]))
    assert page.findtext(".//summary") == "37 more"
    assert len(page.findall("div/table/tbody/tr")) == 3
    assert len(page.findall("details/div/table/tbody/tr")) == 37
    few = ET.fromstring(ladder_section.paired(many[:10], first=many[:3]))
    assert few.find(".//details") is None
    assert ladder_section.paired([]) == ""


def test_pairs_say_what_they_are_of_and_their_interval():
    of = pair("a", "b", what="kept <x>", low=0.05, high=0.15)
    assert rows(ladder_section.paired([of])) == [
        ["a − b", "", "kept <x>", "-", "+0.100", "0.020", "+5.0", "0.050 to 0.150"]
    ]
    assert rows(ladder_section.paired([pair("a", "b")])) == [
        ["a − b", "", "-", "+0.100", "0.020", "+5.0"]
    ]


@pytest.mark.parametrize(("n", "told"), [(4, ["-", "-"]), (5, ["+5.0", "0.1 to 0.2"])])
def test_few_items_make_neither_a_z_nor_an_interval(n, told):
    ((*_, count, _, _, z, interval),) = rows(
        ladder_section.paired([pair("a", "b", n=n, low=0.1, high=0.2)])
    )
    assert (count, [z, interval.replace("00", "")]) == (str(n), told)


def test_a_pair_is_over_the_items_it_says_or_those_of_its_smaller_row():
    rows = [{"name": "a", "n": 9}, {"name": "b", "n": 7}, {"name": "c", "n": 2}]
    for own, expected in ((pair("a", "b"), 7), (pair("a", "c", n=5), 5)):
        assert ladder_section.shared(own, {"ladder": rows}) == expected
    assert ladder_section.shared(pair("x", "y"), {"ladder": rows}) is None


def test_ladders_of_runs_are_folded_where_rounds_are_drawn():
    rows = report_run.ladder(base=0.5)
    runs = [
        run_view.Workdir("<one>", {"ladder": rows, "rounds": [{"round": 1}]}),
        run_view.Workdir("none", {"kind": "continual"}),
        run_view.Workdir("<two>", {"ladder": rows, "rounds": []}),
    ]
    page = ET.fromstring(ladder_section.ladders(runs))
    folded = ["<one>", "As a table", "As a table"]
    assert [s.text for s in page.iter("summary")] == folded
    assert [h.text for h in page.iter("h3")] == ["<two>"]
    assert ladder_section.ladders(runs[1:2]) == ""
    assert ladder_section.ladder(runs[1].summary) == ""
