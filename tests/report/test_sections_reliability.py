import xml.etree.ElementTree as ET

import pytest
import report_run

from seal_jax.analysis import halving, reliability, stats, variance
from seal_jax.analysis.reliability import SeedRewards
from seal_jax.report import read_seeds, run_view
from seal_jax.report.sections import reliability as reliability_section
from seal_jax.report.tables import reliability as reliability_table
from seal_jax.rewards import names as reward_names
from seal_jax.runtime import records


def parse(text):
    return ET.fromstring(f"<div>{text}</div>")


def values(root):
    """{line: [value, ...]} from what is told at its dots."""
    found = {}
    for mark in root.iter():
        told = mark.findtext("title") if mark.tag in ("circle", "polygon") else None
        if told:
            name, _, rest = told.partition(", ")
            found.setdefault(name, []).append(float(rest.split()[1].rstrip(",")))
    return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = report_run.ranking_file(tmp_path_factory.mktemp("r") / "rank.json")
    (found,) = read_seeds.read(path)
    return found


def test_the_table_has_the_numbers_of_the_analysis(measured):
    (row,) = reliability_section.table([measured]).rows
    parts = variance.anova(measured.rewards)
    trust = variance.reliability(parts, 2)
    low, high = variance.reliability_interval(measured.rewards, 2)
    lead, _ = stats.mean_se(variance.best_lead(measured.rewards))
    assert row == (
        "rank",
        "2",
        f"{trust:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{parts.edit:.4f}",
        f"{parts.seed:.4f}",
        f"{parts.mean:.4f}",
        f"{lead:+.4f}",
        f"{lead * trust:+.4f}",
        "3",
        "6",
        "12",
    )


def test_the_charts_draw_the_same_numbers(measured):
    parts = variance.anova(measured.rewards)
    seeds = (1, 2, 3, 4, 6, 8, 12, 24)
    drawn = values(ET.fromstring(reliability_section.by_seeds(measured)))
    expected = [variance.reliability(parts, k) for k in seeds]
    assert drawn["reliability"] == pytest.approx(expected, rel=1e-3)
    drawn = values(ET.fromstring(reliability_section.gains(measured)))
    for name in ("apparent", "real", "perfect"):
        gains = [getattr(variance.expected_gain(parts, 2, k), name) for k in seeds]
        assert drawn[name] == pytest.approx(gains, rel=1e-3)
    own = halving.held_out(measured.rewards, halving.uniform(1))
    assert drawn["held out"] == pytest.approx([stats.mean_se(own)[0]], rel=1e-3)


def test_schedules_are_graded_as_the_tables_are(measured):
    parts = variance.anova(measured.rewards)
    drawn = values(ET.fromstring(reliability_section.schedules(measured, 4, draws=20)))
    for name, plans in (
        ("equal seeds", [halving.uniform(k) for k in (1, 2, 3, 4, 6, 8, 12)]),
        ("halving", reliability.halvings(4)),
    ):
        grades = [
            halving.resample(
                measured.rewards,
                plan,
                edit=parts.edit,
                seed=parts.seed,
                edits=4,
                draws=20,
            )
            for plan in plans
        ]
        gains = [g.gain for g in sorted(grades, key=lambda g: g.trainings)]
        assert drawn[name] == pytest.approx(gains, rel=1e-3)


def test_halvings_are_those_of_the_printed_table(measured):
    text = reliability_table.describe(measured, draws=5)
    for plan in reliability.halvings(2):
        assert f"halving {reliability_table.steps(plan)}" in text


def test_a_ranking_has_its_charts_and_tables(measured):
    page = parse(reliability_section.ranking(measured, draws=5))
    assert [h.text for h in page.iter("h3")] == [
        "Reliability by seeds",
        "Gain of the best of 2 edits over the mean edit",
        "Equal seeds or halving, 2 edits a passage",
        "Equal seeds or halving, 8 edits a passage",
    ]
    assert page.findtext(".//pre") == reliability_table.describe(measured, draws=5)


def test_a_workdir_is_told_by_round_and_by_reward(tmp_path):
    path = report_run.rounds_run(tmp_path / "run", rounds=2)
    rows = [
        row
        | {
            "measured": {
                "rubric": [r**2 for r in row["rewards"]],
                "same": row["rewards"],
            }
        }
        for row in report_run.edits(2)
    ]
    records.write_jsonl(path / "edits.jsonl", rows)
    found = reliability_section.of_workdir(run_view.read_workdir(path))
    names = ["run round 1", "run round 2", "run round 1, rubric", "run round 2, rubric"]
    assert [m.name for m in found] == names
    assert (
        found[2].rewards
        == [[[r**2 for r in row["rewards"]] for row in rows if row["round"] == 1][:2]]
        * 2
    )
    page = parse(reliability_section.section(found))
    titles = ["Of the rewards that chose", "Of rubric"]
    assert [h.text for h in page.iter("h3")] == titles
    drawn = values(page)["run"]
    expected = [variance.reliability(variance.anova(m.rewards), 2) for m in found]
    assert drawn == pytest.approx(expected, rel=1e-3)


def test_failed_marks_are_no_rewards_and_copies_are_told_once(tmp_path):
    path = report_run.rounds_run(tmp_path / "run", rounds=1)
    failed = reward_names.WORST
    rows = [
        row | {"measured": {"dense": [row["reward"], failed], "grade": row["rewards"]}}
        for row in report_run.edits(1)
    ]
    rows[0]["measured"]["dense"][1] = 0.125
    records.write_jsonl(path / "edits.jsonl", rows)
    first, dense = reliability_section.of_workdir(run_view.read_workdir(path))
    assert (first.name, dense.name) == ("run round 1", "run round 1, dense")
    assert [own[1] for p in dense.rewards for own in p] == [0.125, None, None, None]


def test_rewards_that_tell_nothing_of_luck_are_left_out(tmp_path):
    path = report_run.rounds_run(tmp_path / "run", rounds=1)
    for rows in (
        [report_run.edit(1, "a", e, [0.5]) for e in range(2)],  # one seed
        [report_run.edit(1, "a", 0, [0.5, 0.25])],  # one edit
        [{"text": "no reward"}],
        [],
    ):
        records.write_jsonl(path / "edits.jsonl", rows)
        assert reliability_section.of_workdir(run_view.read_workdir(path)) == []
    assert reliability_section.section([]) == ""
    assert reliability_section.of_workdir(run_view.Workdir("r", {})) == []


def test_rewards_without_any_spread_are_no_error():
    same = [[[0.5, 0.5], [0.5, 0.5]]] * 2
    page = reliability_section.section([SeedRewards("r round 1", same, same)])
    assert "nan" not in page
    parse(page)


def test_names_are_escaped(measured):
    hostile = SeedRewards(
        f"{report_run.HOSTILE} round 1", measured.rewards, measured.judge
    )
    for page in (
        reliability_section.section([hostile]),
        reliability_section.ranking(hostile, draws=2),
    ):
        parse(page)
        assert "<script" not in page
