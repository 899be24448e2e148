import math
import re
import xml.etree.ElementTree as ET

import few_shot_run
import pytest
import report_run

from seal_jax.report import html_page
from seal_jax.report import inputs as report_inputs
from seal_jax.runtime import metrics, records

HOSTILE = report_run.HOSTILE


def edit(passage, number, reward, **changes):
    answer = {"question": "Who?", "gold": "Ada", "answer": "Ada Q.", "score": 1.0}
    return {
        "round": 1,
        "passage_id": passage,
        "title": f"Title of {passage}",
        "passage": "text",
        "edit": number,
        "prompt": "Say it again.",
        "text": f"edit {passage}{number}",
        "lines": ["line one", "line two"],
        "rewards": [reward, None],
        "reward": reward,
        "answers": [[answer], None],
        "kept": False,
        "failed": None,
    } | changes


SUMMARY = {
    "ladder": [
        {"name": "base", "mean": 0.1, "se": 0.02, "n": 40, "empty_rate": 0.05},
        {"name": "self_edits", "mean": 0.4, "se": 0.03, "n": 40, "empty_rate": 0.0},
        {"name": "round_1", "mean": 0.5, "se": None, "n": 1},
    ],
    "paired": [
        {"a": "round_1", "b": "base", "diff": 0.4, "se": 0.1, "z": 4.0, "n": 40},
        {"a": "base", "b": "base", "diff": 0.0, "se": 0.0, "z": None},
    ],
    "rounds": [{"round": 1, "sampled_mean": 0.4, "best_mean": 0.6, "kept_mean": 0.6}],
    "adapters": 12,
    "seconds": {"adapt": 6.0, "propose": 2.0},
    "tokens": 1000,
    "config_hash": "0123456789ab",
}


def build(path, *, summary=None, edits=(), config=None, values=()):
    records.open_workdir(path, config or {"name": "demo"})
    records.write_json(path / "summary.json", SUMMARY if summary is None else summary)
    if edits:
        records.write_jsonl(path / "edits.jsonl", edits)
    if values:
        with metrics.Metrics(path) as log:
            for step, value in enumerate(values):
                log.log(step, {"sft/loss": value})
    return html_page.write_html(path)


def parse(path):
    """The page as XML, which is stricter than any browser."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>\n")
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def headings(root):
    return [h.text for h in root.iter("h2")]


def text_of(element):
    return " ".join("".join(element.itertext()).split())


def test_a_full_run_has_every_section(tmp_path):
    edits = [edit("p", 0, 0.25), edit("p", 1, 0.75, kept=True), edit("q", 0, 0.5)]
    path = build(tmp_path, edits=edits, values=[2.0, 1.0, math.nan, 0.5])
    assert path == tmp_path / "report.html"
    root = parse(path)
    assert headings(root) == [
        "Ladder",
        "Rounds",
        "Paired differences",
        "Rewards by round",
        "Agreement with the true reward",
        "Novelty of self-edits",
        "Edits to read",
        "Training",
        "Cost",
        "Config",
    ]
    text = text_of(root)
    for part in ("0.100 ± 0.020", "round_1 − base", "+0.400", "+4.0", "0123456789ab"):
        assert part in text
    assert "sft/loss" in text
    assert "adapters/s2" in text


@pytest.mark.parametrize(
    "summary",
    [
        {},
        {"ladder": [{}], "paired": [{}], "rounds": [{}], "seconds": {}, "tokens": None},
        {"ladder": [{"name": "base", "mean": 0.0, "se": 0.0}], "adapters": 0},
        {"ladder": "?", "seconds": {"adapt": 0.0}, "adapters": 3},
    ],
)
def test_missing_values_are_no_error(tmp_path, summary):
    root = parse(build(tmp_path, summary=summary))
    assert "Ladder" in headings(root)
    assert not re.search(r"\b(nan|inf|None)\b", text_of(root.find("body")))


def test_edits_of_a_run_where_much_went_wrong(tmp_path):
    edits = [
        edit("p", 0, None, failed="not finite", rewards=[None, None], answers=[]),
        edit("p", 1, 0.5, answers=[[{"question": "Q", "score": None}], []], lines=None),
        {"reward": 0.5},
    ]
    root = parse(build(tmp_path, edits=edits))
    text = text_of(root)
    assert "of 2 edits with a reward. 1 more failed." in text
    assert "not judged" in text
    only_failed = parse(build(tmp_path / "b", edits=edits[:1]))
    assert "Edits to read" not in headings(only_failed)


def test_every_text_of_the_run_is_escaped(tmp_path):
    answer = {"question": HOSTILE, "gold": HOSTILE, "answer": HOSTILE, "score": 0.5}
    texts = dict.fromkeys(("title", "passage", "prompt", "text"), HOSTILE)
    hostile = edit("p", 0, 0.5, lines=[HOSTILE], answers=[[answer]]) | texts
    summary = {
        "ladder": [{"name": HOSTILE, "mean": 0.5, "se": 0.1}],
        "paired": [{"a": HOSTILE, "b": HOSTILE, "diff": 0.5, "se": 0.1, "z": 5.0}],
        "seconds": {HOSTILE: 1.0},
        "config_hash": HOSTILE,
        "rounds": [{"round": HOSTILE}],
    }
    config = {"name": HOSTILE, HOSTILE: HOSTILE}
    path = build(tmp_path, summary=summary, edits=[hostile], config=config)
    root = parse(path)
    assert list(root.iter("script")) == []
    assert "<script" not in path.read_text(encoding="utf-8")
    shown = "<script>alert('x')</script>&amp;\ufffd\ufffd\"]]>"
    assert text_of(root.find(".//h1")) == shown
    assert sum(pre.text == shown for pre in root.iter("pre")) == 3


def test_the_page_stands_alone_in_both_schemes(tmp_path):
    text = build(tmp_path, edits=[edit("p", 0, 0.5)]).read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    # Every colour class that is used has a colour.
    used = set(re.findall(r"class=\"(k-\w+)\"", text))
    assert used
    for name in used:
        assert f"svg .{name} {{" in text or name == "k-control"


def test_best_and_worst_are_by_reward_one_for_each_passage(tmp_path):
    edits = [
        edit(p, i, 0.1 * i + 0.01 * k) for k, p in enumerate("abcdefgh") for i in (1, 2)
    ]
    root = parse(build(tmp_path, edits=edits))
    shown = [
        details.find("summary/b").text
        for details in root.iter("details")
        if details.get("class") == "edit"
    ]
    assert shown == ["0.270", "0.260", "0.250", "0.100", "0.110", "0.120"]


def test_a_small_run_shows_no_edit_twice(tmp_path):
    root = parse(build(tmp_path, edits=[edit("p", 0, 0.5), edit("q", 0, 0.5)]))
    shown = [d for d in root.iter("details") if d.get("class") == "edit"]
    assert len(shown) == 2
    titles = [h.text for h in root.iter("h3")]
    assert "Best" in titles
    assert "Worst" not in titles


@pytest.mark.parametrize(
    ("score", "shown"),
    [
        (1.0, "✓"),
        (0, "✗"),
        (True, "✓"),
        (None, "not judged"),
        (0.25, "0.25"),
        (-3, "-3.00"),
    ],
)
def test_verdicts(tmp_path, score, shown):
    answer = {"question": "Q", "gold": "G", "answer": " ", "score": score}
    root = parse(build(tmp_path, edits=[edit("p", 0, 0.5, answers=[[answer]])]))
    (table,) = root.findall(".//table[@class='answers']")
    (row,) = table.findall("tbody/tr")
    assert [text_of(cell) for cell in row] == ["Q", "G", "empty", shown, "0"]


def test_all_seeds_answer_a_question_side_by_side(tmp_path):
    answers = [
        [{"question": q, "gold": q, "answer": f"{q}{seed}", "score": 1} for q in "QR"]
        for seed in range(2)
    ]
    root = parse(build(tmp_path, edits=[edit("p", 0, 0.5, answers=answers)]))
    (table,) = root.findall(".//table[@class='answers']")
    cells = [[text_of(c) for c in row][::2] for row in table.findall("tbody/tr")]
    assert cells == [
        ["Q", "Q0", "0"],
        ["", "Q1", "1"],
        ["R", "R0", "0"],
        ["", "R1", "1"],
    ]


def test_rewards_that_are_log_likelihoods_fit(tmp_path):
    edits = [edit("p", i, r) for i, r in enumerate((-12.5, -3.0, -0.25))]
    root = parse(build(tmp_path, edits=edits))
    bars = [
        int((t.text or "").split()[0])
        for rect in root.iter("rect")
        for t in rect.iter("title")
    ]
    assert sum(bars) == 3 + 1  # sampled, best of E; none is kept


def test_a_few_shot_run_has_every_section(tmp_path):
    root = parse(few_shot_run.build(tmp_path))
    assert headings(root) == [
        "Ladder",
        "Rounds",
        "By item",
        "Paired differences",
        "Tasks",
        "Configurations",
        "Rewards by round",
        "Edits to read",
        "Cost",
        "Config",
    ]
    ladder, _, items, paired = root.findall(".//section")[:4]
    rates, refused = [
        [[text_of(cell) for cell in row] for row in table.iterfind("tbody/tr")]
        for table in ladder.iter("table")
    ]
    assert rates[0] == ["in_context", "0.333", "0.250", "0.000 to 0.750", *"3----"]
    assert rates[2][4:] == ["3", "8", "62.5 %", "80.0 %", "0.750"]
    assert refused[1] == ["round_1", "not json 2, epochs 1, over budget 1"]
    assert "95 % interval" in text_of(ladder.find("p"))
    assert "task one1.000.000.501.00" in text_of(items)
    assert "Over the same tasks" in text_of(paired)


@pytest.mark.parametrize("gone", ["edits", "heldout", "items"])
def test_a_few_shot_run_with_a_file_missing(tmp_path, gone):
    root = parse(few_shot_run.build(tmp_path, **{gone: None}))
    expected = {"edits": "Edits to read", "heldout": "Tasks", "items": "Tasks"}
    assert expected[gone] not in headings(root)
    assert "Configurations" in headings(root)
    assert not re.search(r"\b(nan|inf|None)\b", text_of(root.find("body")))


def test_every_text_of_a_few_shot_run_is_escaped(tmp_path):
    wild = {"task_id": HOSTILE, "text": HOSTILE, "prompt": HOSTILE, "round": HOSTILE}
    wild |= {"redrawn": [HOSTILE], "switches": {HOSTILE: True}}
    edits = [
        few_shot_run.edit("one", 0, True, **wild),
        few_shot_run.refused(few_shot_run.edit("one", 1, True), HOSTILE),
    ]
    names = ("in_context", HOSTILE)
    summary = {
        "ladder": [few_shot_run.row(n, 0.5, (1, 2, 1, 0.5)) for n in names],
        "items": [{"item": HOSTILE, HOSTILE: 0.5}],
    }
    summary["ladder"][1]["refused"] = {HOSTILE: 1}
    heldout = [{"arm": n, **e} for e in edits for n in (*names, "oracle")]
    items = [few_shot_run.ITEMS[0] | {"task_id": HOSTILE}, few_shot_run.ITEMS[0]]
    path = few_shot_run.build(
        tmp_path, summary=summary, edits=edits, heldout=heldout, items=items
    )
    root = parse(path)
    assert headings(root)[2:4] == ["Tasks", "Configurations"]
    assert "<script" not in path.read_text(encoding="utf-8")


def test_a_few_shot_page_stands_alone_in_both_schemes(tmp_path):
    text = few_shot_run.build(tmp_path).read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)
    style = text[: text.index("</style>")]
    for colour in range(10):
        assert f".c{colour} {{ --k: #" in style
    for name in set(re.findall(r'class="([a-z]+)', text)):
        assert f".{name}" in style or name in ("k", "c", "s"), name


def test_a_knowledge_run_shows_its_passages_and_intervals(tmp_path):
    bounds = {"low": 0.05, "high": 0.15}
    few = [{"item": f"passage {i} (T)", "base": 0.1 * i} for i in range(12)]
    for count, folded in ((12, 0), (13, 1)):
        summary = {
            "ladder": [SUMMARY["ladder"][0] | bounds],
            "items": [*few, *few][:count],
        }
        root = parse(build(tmp_path / str(count), summary=summary))
        ladder, items = root.findall(".//section")[:2]
        assert len(list(items.iter("details"))) == folded
        assert len(list(items.iter("tr"))) == count + 1
        assert "0.050 to 0.150" in text_of(ladder)
        assert "95 % interval" in text_of(ladder.find("p"))
        assert "Tasks" not in headings(root)


def test_a_page_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a workdir"):
        html_page.write_html(tmp_path)


def page_of(tmp_path, *paths):
    out = tmp_path / "page.html"
    html_page.write_page(report_inputs.read(paths), out)
    return parse(out)


def test_a_run_of_many_rounds_has_what_they_tell(tmp_path):
    path = report_run.rounds_run(tmp_path / "run", stopped="no gain <2>")
    root = page_of(tmp_path, path)
    assert headings(root) == [
        "Ladder",
        "Rounds",
        "Paired differences",
        "Rewards by round",
        "Reliability of rewards",
        "Agreement with the true reward",
        "Novelty of self-edits",
        "Edits to read",
        "Cost",
        "Config",
    ]
    assert "after 3 rounds: no gain <2>" in text_of(root)


def test_one_workdir_has_the_same_page_either_way(tmp_path):
    path = report_run.rounds_run(tmp_path / "run")
    own = html_page.write_html(path).read_text(encoding="utf-8")
    page_of(tmp_path, path)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == own


def test_a_continual_run_has_its_arms_and_no_ladder(tmp_path):
    root = page_of(tmp_path, report_run.continual_run(tmp_path / "run"))
    assert headings(root) == [
        "Arms",
        "Accuracy matrix",
        "Curves",
        "General ability",
        "Paired differences",
        "Cost",
        "Config",
    ]
    text = text_of(root)
    assert "replay − merge" in text
    assert "+0.125" in text
    assert "0.030 to 0.220" not in text  # of two sequences
    assert "Over the same sequences" in text


def test_a_pooled_run_is_not_about_held_out_passages(tmp_path):
    rows = report_run.ladder(base=0.3, self_edits=0.5)
    summary = {"kind": "pooled", "ladder": rows, "rounds": [], "paired": []}
    text = text_of(parse(build(tmp_path, summary=summary)))
    assert "Mean score on the passages that were trained together." in text
    assert "held-out" not in text


def test_a_page_of_everything(tmp_path):
    root = page_of(
        tmp_path,
        report_run.rounds_run(tmp_path / "one"),
        report_run.rounds_run(tmp_path / "two", rounds=2),
        report_run.continual_run(tmp_path / "learned"),
        report_run.continual_folder(tmp_path / "results"),
        report_run.ranking_file(tmp_path / "rank.json"),
        report_run.edits_file(tmp_path / "iter0.json"),
    )
    assert headings(root) == [
        "What differs between the configs",
        "Result files",
        "Paired differences",
        "Rounds",
        "Ladders",
        "Arms",
        "Accuracy matrix",
        "Curves",
        "General ability",
        "Paired differences: learned",
        "Continual: results",
        "Reliability of rewards",
        "Reliability of rewards: rank",
        "Agreement with the true reward",
        "Novelty of self-edits",
        "Cost",
    ]
    assert text_of(root.find(".//header")).endswith(
        "Compared: 3 runs, 1 result file, 1 set of self-edits, 1 folder of continual "
        "results."
    )
    assert not re.search(r"\b(nan|inf|None)\b", text_of(root.find("body")))


def test_many_arms_of_several_runs_have_charts_by_run(tmp_path):
    paths = [
        report_run.continual_run(tmp_path / name, *"abcde", files=False)
        for name in ("one", "two")
    ]
    assert headings(page_of(tmp_path, *paths))[1:3] == [
        "Arms: one",
        "Accuracy matrix: one",
    ]
    paths[1] = report_run.continual_run(tmp_path / "few", files=False)
    root = page_of(tmp_path, *paths)
    assert headings(root)[1:3] == ["Arms", "Accuracy matrix"]
    assert "few: replay" in text_of(root)


def test_hostile_names_of_runs_arms_and_files_are_escaped(tmp_path):
    name = "<script>x&"
    report_run.continual_folder(tmp_path / "other" / name)
    paths = [
        report_run.rounds_run(tmp_path / name, stopped=HOSTILE),
        report_run.rounds_run(tmp_path / "two", agreement=[{"reward": HOSTILE}]),
        report_run.continual_run(tmp_path / "c", HOSTILE, files=False),
        tmp_path / "other" / name,
        report_run.ranking_file(tmp_path / f"{name}.json"),
        report_run.edits_file(tmp_path / f"{name}2.json"),
    ]
    page_of(tmp_path, *paths)
    assert "<script" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_of_everything_stands_alone_in_both_schemes(tmp_path):
    page_of(
        tmp_path,
        report_run.rounds_run(tmp_path / "one"),
        report_run.continual_run(tmp_path / "learned"),
        report_run.ranking_file(tmp_path / "rank.json"),
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)
    style = text[: text.index("</style>")]
    used = {n for names in re.findall(r'class="([^"]+)"', text) for n in names.split()}
    # A plain control has the colour of every group.
    assert {n for n in used if f".{n}" not in style} <= {"k-control"}
    for colour in range(8):
        assert style.count(f"--s{colour}: #") == 2  # light and dark
