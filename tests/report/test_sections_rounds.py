import dataclasses
import xml.etree.ElementTree as ET

import pytest
import report_run

from seal_jax.report import run_view
from seal_jax.report.sections import rounds as rounds_section


def workdir(path, **options):
    return run_view.read_workdir(report_run.rounds_run(path, **options))


def parse(text):
    return ET.fromstring(f"<div>{text}</div>")


def hints(root):
    return [
        mark.findtext("title")
        for mark in root.iter()
        if mark.tag in ("circle", "polygon") and mark.find("title") is not None
    ]


def test_scores_are_by_round_and_self_edits_are_before_the_first():
    names = ("base", "self_edits", "round_10", "round_2", "round_x", "oracle")
    rows = [{"name": n} for n in names]
    found = rounds_section.scores({"ladder": [*rows, {}]})
    assert [(k, row["name"]) for k, row in found.items()] == [
        (0, "self_edits"),
        (2, "round_2"),
        (10, "round_10"),
    ]


def test_the_tables_of_two_runs(tmp_path):
    short = workdir(tmp_path / "short", rounds=2, stopped="no gain in 2 rounds")
    ladder, ends, rewards = rounds_section.tables([workdir(tmp_path / "long"), short])
    assert list(ladder.head) == ["run", "base", *(f"round {i}" for i in range(4))]
    assert ladder.rows == [
        ("long", "0.125", "0.250", "0.400", "0.500", "0.600"),
        ("short", "0.125", "0.250", "0.400", "0.500", "-"),
    ]
    assert ends.rows == [
        ("long", "9", "+0.350", "0.050", "+7.0", "-", "24", "100", "after 3 rounds"),
        (
            *("short", "9", "+0.350", "0.050", "+7.0", "-", "16", "100"),
            "after 2 rounds: no gain in 2 rounds",
        ),
    ]
    assert rewards.rows[0] == ("long", "-", "1", "0.300", "0.400", "0.350", "4", "8")
    assert len(rewards.rows) == 5


def test_the_ladder_chart_shows_each_round_with_its_error(tmp_path):
    runs = [workdir(tmp_path / "one"), workdir(tmp_path / "two", rounds=2)]
    root = ET.fromstring(rounds_section.ladder_chart(runs))
    found = hints(root)
    assert found[:2] == ["one, 0: 0.25 (0.23 to 0.27)", "one, 1: 0.4 (0.38 to 0.42)"]
    assert len(found) == 4 + 3
    words = [t.text for t in root.iter("text")]
    assert "base model, no adapter" in words


def test_without_an_adapter_a_few_shot_run_is_at_its_base():
    rows = report_run.ladder(in_context=0.375, self_edits=0.5, round_1=0.75)
    run = run_view.Workdir("r", {"ladder": rows})
    assert rounds_section.tables([run])[0].rows == [("r", "0.375", "0.500", "0.750")]
    assert "base model" in rounds_section.ladder_chart([run])


def test_bases_that_differ_are_no_common_level(tmp_path):
    other = report_run.ladder(base=0.2, self_edits=0.3, round_1=0.4)
    runs = [workdir(tmp_path / "one"), workdir(tmp_path / "two", ladder=other)]
    assert "base model" not in rounds_section.ladder_chart(runs)


def test_the_rewards_of_one_run_and_of_several(tmp_path):
    runs = [workdir(tmp_path / "one"), workdir(tmp_path / "two", rounds=2)]
    alone = parse(rounds_section.rewards_chart(runs[:1]))
    assert hints(alone)[:2] == ["sampled, 1: 0.3", "sampled, 2: 0.4"]
    assert len(hints(alone)) == 9
    both = parse(rounds_section.rewards_chart(runs))
    assert [f.findtext("figcaption/b") for f in both.iter("figure")] == [
        "sampled",
        "best of E",
        "kept",
    ]
    last = hints(both)[-2:]
    assert last == ["two, 1: 0.35", "two, 2: 0.45"]


def test_runs_of_different_rewards_share_no_chart(tmp_path):
    runs = [
        dataclasses.replace(
            workdir(tmp_path / name), config={"select": {"reward": reward}}
        )
        for name, reward in (("a", "grade"), ("b", "rubric"), ("c", "grade"))
    ]
    page = parse(rounds_section.rewards_chart(runs))
    titles = ["Rewards by round: grade", "Rewards by round: rubric: b"]
    assert [h.text for h in page.iter("h3")] == titles
    assert [f.findtext("figcaption/b") for f in page.iter("figure")] == [
        "sampled",
        "best of E",
        "kept",
    ]
    told = hints(page)
    assert sum((hint or "")[:3] in ("a, ", "c, ") for hint in told) == 3 * 2 * 3
    assert "sampled, 1: 0.3" in told
    rewards = rounds_section.tables(runs)[2]
    assert [row[:2] for row in rewards.rows[::3]] == [
        ("a", "grade"),
        ("b", "rubric"),
        ("c", "grade"),
    ]


@pytest.mark.parametrize("rounds", [0, 1])
def test_where_there_is_nothing_to_draw_by_round(rounds):
    rows = report_run.ladder(base=0.1, **{f"round_{i}": 0.3 for i in range(rounds)})
    lines = [{"round": 1, "sampled_mean": 0.3}][:rounds]
    run = run_view.Workdir("r", {"ladder": rows, "rounds": lines})
    assert rounds_section.section([run]) == ""


def test_a_stop_is_told_even_without_a_chart():
    summary = {"rounds": [{"round": 1}], "stopped": "no <gain>"}
    page = parse(rounds_section.section([run_view.Workdir("r", summary)]))
    assert "after 1 round: no <gain>" in "".join(page.itertext())


def test_long_tables_are_folded(tmp_path):
    runs = [workdir(tmp_path / str(i)) for i in range(5)]
    page = parse(rounds_section.section(runs))
    assert [s.text for s in page.iter("summary")] == ["Rewards by round"]


def test_the_plateau_is_the_first_round_that_nothing_later_beats(tmp_path):
    wobble = [0.01 * (i % 3) for i in range(8)]
    values = {
        "self_edits": [0.1] * 8,
        "round_1": [0.5 + w for w in wobble],
        "round_2": [0.8 + w for w in wobble],
        "round_3": [0.8 + w for w in reversed(wobble)],
    }
    items = [
        {"item": str(i), **{name: own[i] for name, own in values.items()}}
        for i in range(8)
    ]
    path = report_run.rounds_run(tmp_path / "run", rounds=3)
    run = run_view.read_workdir(path)
    assert rounds_section.plateau_of(run.summary) is None  # no items on record
    flat = dataclasses.replace(run, summary=run.summary | {"items": items})
    assert rounds_section.plateau_of(flat.summary) == 2
    assert "no round is clearly above 2" in rounds_section.ladder_chart([flat])
    ends = rounds_section.tables([flat])[1]
    assert ends.rows[0][ends.head.index("plateau")] == "2"
