import random
import re
import xml.etree.ElementTree as ET

import few_shot_run
import pytest

from seal_jax.report import few_shot_view
from seal_jax.report.sections import grids as grids_section


def parse(text):
    return ET.fromstring(f"<div>{text}</div>")


def text_of(element):
    return " ".join("".join(element.itertext()).split())


def section(summary=few_shot_run.SUMMARY, heldout=few_shot_run.HELDOUT, items=None):
    rows = few_shot_run.ITEMS if items is None else items
    return grids_section.section(summary, heldout, few_shot_view.tasks(rows))


def grids_of(element):
    """{title: rows as text} of the drawings inside, by their descriptions."""
    return {
        drawn.findtext("title"): (drawn.findtext("desc") or "").split(": ")[1]
        for drawn in element.iter("svg")
    }


def arms_of(article):
    """{the name of a row: its figure}."""
    return {f.findtext(".//b"): f for f in article.findall("div[@class='arms']/figure")}


def test_a_task_shows_demonstrations_tests_and_both_guesses():
    root = parse(section())
    one, two, three = root.iter("article")
    assert [a.findtext("h3") for a in (one, two, three)] == ["one", "two", "three"]
    shown, asked = two.findall("div[@class='row']")[0], two.find("div[2]")
    assert grids_of(shown) == {
        "demonstration 1, input": "03",
        "demonstration 1, output": "3, 0",
        "demonstration 2, input": "12, 30",
        "demonstration 2, output": "44",
    }
    assert grids_of(asked) == {
        "test 1, input": "12, 30",
        "test 1, output": "44",
        "test 2, input": "44",
        "test 2, output": "5, 6, 7",
    }
    arms = arms_of(two)
    assert list(arms) == ["in_context", "self_edits", "round_1", "oracle"]
    assert grids_of(arms["round_1"]) == {
        "test 1, guess 1": "5, 6, 7",
        "test 1, guess 2, right": "44",
        "test 2, guess 1, right": "5, 6, 7",
    }


def test_right_guesses_are_marked_by_more_than_colour():
    one = next(parse(section()).iter("article"))
    first, second = arms_of(one)["in_context"].findall(".//span[@class]/svg/..")
    assert (first.get("class"), text_of(first.find("span"))) == ("guess right", "✓")
    assert (second.get("class"), text_of(second.find("span"))) == ("guess", "✗")


def test_the_first_trained_edit_is_shown_with_the_share_that_solved():
    one, two, three = parse(section()).iter("article")
    text = text_of(arms_of(one)["round_1"])
    assert "round_1: 50 % of 2 edits" in text
    # Edit 0 was over budget; edit 1 has these.
    assert "chain + size, loss on outputs, learning rate 0.001, 2 epochs" in text
    assert "self_edits: 0 % of 1 edits" in text_of(arms_of(three)["self_edits"])
    assert "refused: not json 1" in text_of(arms_of(three)["self_edits"])
    assert "no grid answered ✗" in text_of(arms_of(two)["in_context"])
    assert "edits" not in text_of(arms_of(one)["in_context"])


def test_tasks_beyond_a_dozen_are_folded_away():
    items = [few_shot_run.ITEMS[0] | {"task_id": f"t{i}"} for i in range(15)]
    heldout = [few_shot_run.HELDOUT[0] | {"task_id": f"t{i}"} for i in range(15)]
    root = parse(section(heldout=heldout, items=items))
    assert len(root.findall("section/article")) == 12
    (details,) = root.iter("details")
    assert text_of(details.find("summary")) == "3 more"
    assert [h.text for h in details.iter("h3")] == ["t12", "t13", "t14"]


def noise(rng, side):
    return [[rng.randrange(10) for _ in range(side)] for _ in range(side)]


def test_a_page_of_the_largest_tasks_stays_below_two_megabytes(tmp_path):
    rng = random.Random(0)
    items, heldout = [], []
    for i in range(24):
        pairs = [{k: noise(rng, 30) for k in ("input", "output")} for _ in range(6)]
        items.append({"task_id": f"t{i}", "train": pairs[:4], "test": pairs[4:]})
        tests = [{"guesses": [noise(rng, 30), noise(rng, 30)]} for _ in range(2)]
        for arm in ("in_context", "self_edits", "round_1", "oracle"):
            heldout.append({"arm": arm, "task_id": f"t{i}", "answers": [tests]})
    page = few_shot_run.build(tmp_path, heldout=heldout, items=items)
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 2_000_000
    drawn = text.count("<article")
    assert 1 < drawn < 24
    assert f"{24 - drawn} more tasks are left out" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"heldout": []},
        {"items": []},
        {"items": [{"task_id": "elsewhere"}]},
        {"heldout": [{}, {"arm": "oracle"}]},
    ],
)
def test_nothing_to_draw_is_no_section(changes):
    assert section(**changes) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"items": [{"task_id": "one"}]},
        {"items": [{"task_id": "one", "train": [{"input": [[11]]}], "test": [{}]}]},
        {"heldout": [{"arm": "oracle", "task_id": "one"}]},
        {"heldout": [{"arm": "oracle", "task_id": "one", "answers": [None]}]},
        {"heldout": [{"arm": "oracle", "task_id": "one", "answers": [[{}]]}]},
        {"summary": {}},
    ],
)
def test_what_was_not_recorded_is_no_error(changes):
    text = section(**changes)
    assert parse(text).find("section/article") is not None
    assert not re.search(r"\b(nan|inf|None)\b", text_of(parse(text)))


def test_answers_of_every_seed_beside_the_test():
    task = few_shot_view.tasks(few_shot_run.ITEMS)["one"]
    seeds = [few_shot_run.RIGHT["one"], few_shot_run.WRONG["one"], []]
    root = parse(grids_section.answers(task, seeds))
    captions = [text_of(c) for c in root.iter("figcaption")]
    assert captions == ["test 1", "seed 0", "seed 1", "seed 2"]
    assert "test 1, guess 1, right" in grids_of(root)
    assert "No answers on record." in text_of(root)
    assert "No answers on record." in grids_section.answers(task, [])


def test_answers_without_the_task_have_the_verdict_of_each_test():
    root = parse(grids_section.answers(None, [few_shot_run.RIGHT["two"]]))
    labels = [text_of(s) for s in root.iter("span") if s.get("class") == "note"]
    assert labels == ["test 1 ✓", "test 2 ✓"]
    assert all(s.get("class") != "guess right" for s in root.iter("span"))
