"""What a run on the job shows: nights as columns, arms as rows, costs by night."""

import dataclasses
import xml.etree.ElementTree as ET

import report_run

from seal_jax.report import console, html_page, inputs, markdown_page, run_view
from seal_jax.report.sections import continual as continual_section
from seal_jax.report.sections import deploy
from seal_jax.report.tables import deploy as deploy_table


def summary(tmp_path, *names, **changes):
    return run_view.read_summary(
        report_run.deploy_run(tmp_path / "run", *names, **changes)
    )


def by_title(tables):
    return {table.title: table for table in tables}


def test_nights_are_columns_and_arms_are_rows(tmp_path):
    tables = by_title(deploy.tables(summary(tmp_path, "none", "quiz+gate")))
    kept = tables["Kept: the questions of all days before"]
    assert kept.head == ("arm", "night 1", "night 2")
    assert kept.rows == [("none", "-", "0.250"), ("quiz+gate", "-", "0.250")]
    learned = tables["Learned: the day's questions the next morning"]
    assert learned.rows[1] == ("quiz+gate", "0.500 ± 0.125", "0.500 ± 0.125")
    tokens = tables["Cost of a night, all streams: tokens trained"]
    assert tokens.head[-1] == "all" and tokens.rows[1][1:] == (
        "1,200",
        "1,200",
        "2,400",
    )
    written = tables["Cost of a night, all streams: tokens written"]
    assert written.rows[1][1:] == ("-", "300", "300")


def test_a_measure_that_nobody_has_is_left_out(tmp_path):
    nothing = {"by_night": {"learned": [{"mean": 0.5, "se": None}], "unasked": [None]}}
    row = {"name": "edits", "learned": {"mean": 0.5}} | nothing
    titles = by_title(deploy.tables(summary(tmp_path, arms=[row])))
    assert set(titles) == {"", "Learned: the day's questions the next morning"}
    assert titles[""].rows[0][:3] == ("edits", "0.500", "-")


def test_whose_gold_and_which_half_is_told(tmp_path):
    assert "stood as gold" not in deploy.legend(summary(tmp_path))
    other = summary(tmp_path / "x", gold="logged", chooses=True)
    assert "The log's own answers stood as gold" in deploy.legend(other)
    assert "Where an arm gates, half" in deploy.legend(other)


def test_other_kinds_have_none_of_it_and_it_none_of_theirs(tmp_path):
    run = run_view.read_workdir(report_run.deploy_run(tmp_path / "run"))
    assert continual_section.arms(run) == []
    other = run_view.read_workdir(report_run.continual_run(tmp_path / "c"))
    assert deploy.tables(other.summary) == [] and not deploy.section(other)


def test_malformed_rows_are_shown_as_missing(tmp_path):
    rows = [
        {"name": "a", "by_night": [1], "costs": None},
        {"name": "b", "by_night": {"learned": 3, "kept": ["x", None]}, "costs": {}},
    ]
    found = deploy.tables(summary(tmp_path, arms=rows))
    assert found[0].rows[0] == ("a", *["-"] * 8)
    run = run_view.read_workdir(tmp_path / "run")
    assert "On the job" in deploy.section(run)


def test_the_console_is_brief_and_compares_with_statements(tmp_path):
    names = ("none", "edits", "quiz")
    pair = {"what": "final", "diff": 0.1, "se": 0.1, "n": 2}
    text = console.summary_table(
        summary(
            tmp_path,
            *names,
            paired=[
                {"a": "quiz", "b": "edits"} | pair,
                {"a": "quiz", "b": "none"} | pair,
            ],
        )
    )
    assert "Learned:" in text and "Kept:" in text and "Unasked:" not in text
    assert "quiz - edits" in text and "quiz - none" not in text


def test_a_page_draws_each_measure_and_two_runs_are_named(tmp_path):
    run = report_run.deploy_run(tmp_path / "one")
    page = html_page.write_html(run).read_text()
    ET.fromstring(page)  # Well-formed.
    for measure in deploy.MEASURES:
        assert measure.title.replace("'", "&#39;") in page
    assert "Paired differences" in page and "streams" in page
    other = report_run.deploy_run(tmp_path / "two")
    given = inputs.read([run, other])
    both = html_page.write_page(given, tmp_path / "both.html").read_text()
    assert "On the job: one" in both and "On the job: two" in both


def seeded(tmp_path, seed, mean, **changes):
    path = report_run.deploy_run(tmp_path / f"run-{seed}", "none", "quiz")
    run = run_view.read_workdir(path)
    for arm in run.summary["arms"]:
        arm["final"] = {"mean": mean}
        arm["by_night"]["learned"] = [{"mean": mean, "se": 0.1}, None]
    return dataclasses.replace(run, config={"seed": seed, **changes})


def test_seeds_of_one_config_are_a_row_with_students_interval(tmp_path):
    runs = [seeded(tmp_path, 0, 0.25), seeded(tmp_path, 1, 0.75)]
    first, *nights = deploy.over_seeds(runs)
    assert first.head == ("arm", "seeds", *deploy_table.MEASURES)
    # Student's half width of two values that are a half apart: 12.706 / 4.
    assert first.rows[1][:4] == ("quiz", "2", "0.500 ± 0.000", "0.500 ± 3.177")
    learned = by_title(nights)[f"Over seeds: {deploy.MEASURES[0].title}"]
    assert learned.rows[0] == ("none", "0.500 ± 3.177", "-")
    page = "".join(deploy.sections(runs))
    assert "On the job, over seeds" in page and "± 3.177" in page
    ET.fromstring(f"<div>{page}</div>")
    printed = "\n".join(console.texts(inputs.Inputs(workdirs=tuple(runs))))
    assert "0.500 ± 3.177" in printed
    assert "0.500 ± 3.177" in markdown_page.text("job", runs)


def test_runs_of_other_configs_are_not_put_together(tmp_path):
    runs = [seeded(tmp_path, 0, 0.25), seeded(tmp_path, 1, 0.75, arms=["quiz"])]
    assert deploy.over_seeds(runs) == []
    assert "over seeds" not in "".join(deploy.sections(runs))


def test_a_value_that_a_seed_lacks_has_no_mean():
    found = deploy_table.over_seeds([0.5, None])
    assert (found.mean, found.half, found.text) == (None, None, "-")
    assert deploy_table.over_seeds([0.5]).text == "0.500"
