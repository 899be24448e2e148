import xml.etree.ElementTree as ET

import few_shot_run

from seal_jax.report import few_shot_view
from seal_jax.report.sections import edits as edits_section

TASKS = few_shot_view.tasks(few_shot_run.ITEMS)


def parse(text):
    return ET.fromstring(f"<div>{text}</div>")


def text_of(element):
    return " ".join(" ".join(element.itertext()).split())


def shown(edits, tasks=TASKS):
    return parse(edits_section.to_read(edits, tasks))


def test_rewards_of_a_few_shot_run_count_what_was_tried():
    root = parse(edits_section.rewards(few_shot_run.SUMMARY, few_shot_run.EDITS))
    captions = [text_of(c) for c in root.iter("figcaption")]
    assert captions == [
        "Round 1, sampled 3 edits, mean 0.333",
        "Round 1, best of E 2 edits, mean 0.500",
        "Round 1, kept 1 edits, mean 1.000",
    ]
    assert "refused was not tried and has no reward" in text_of(root)
    table = root.findall(".//details//table")[0]
    rows = [[text_of(c) for c in row] for row in table.iterfind("tbody/tr")]
    assert rows == [
        ["old", "1", "4", "3", "2", "50.0 %", "1", "epochs 1, over budget 1"],
        ["older", "1", "2", "1", "1", "0.0 %", "0", "learning rate 1"],
    ]


def test_rewards_of_a_knowledge_run_have_no_table_by_task():
    edits = [{"round": 1, "passage_id": p, "reward": 0.5} for p in "ab"]
    root = parse(edits_section.rewards({}, edits))
    assert len(list(root.iter("figure"))) == 3
    assert list(root.iter("details")) == []
    assert "not tried" not in text_of(root)


def test_a_few_shot_edit_is_shown_with_its_drawings():
    root = shown(few_shot_run.EDITS)
    assert [h.text for h in root.iter("h3")] == ["Best", "Worst", "Refused"]
    assert "of 3 edits with a reward. 2 more were refused" in text_of(root)
    best, other, *_ = root.iterfind(".//details[@class='edit']")
    assert "1.000 old kept round 1, edit 0, by seed: 1.00" in text_of(best)
    assert "basic, loss on outputs, learning rate 0.0001, 2 epochs" in text_of(best)
    assert [h.text for h in best.iter("h4")] == ["Edit", "Answers"]
    titles = [drawn.findtext("title") for drawn in best.iter("svg")]
    assert titles == [
        "test 1, input",
        "test 1, output",
        "test 1, guess 1, right",
        "test 1, guess 2",
    ]
    assert "older" in text_of(other)


def test_edits_that_were_drawn_again_and_refused_say_why():
    root = shown(few_shot_run.EDITS)
    assert "Drawn before it: epochs." in text_of(root)
    chips = [c.text for c in root.iter("span") if c.get("class") == "chip"]
    assert chips == ["kept", "over budget", "learning rate"]


def test_a_round_without_any_trained_edit():
    refused = [e for e in few_shot_run.EDITS if e["refused"]]
    root = shown(refused, tasks={})
    assert [h.text for h in root.iter("h3")] == ["Refused"]
    assert "of 0 edits with a reward" in text_of(root)
    assert text_of(root).count("No answers on record.") == 2
    assert shown([{"reward": None}]).find("section") is None
