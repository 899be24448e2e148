"""Several runs: what differs between their configs, and intervals over seeds."""

import json
import re

import pytest
import report_run

from seal_jax.analysis import stats
from seal_jax.report import console, html_page, inputs, markdown_page, run_view
from seal_jax.report.sections import compared
from seal_jax.runtime import records

# Two rates, three seeds of the first, two of the second: base and last round.
SCORES = {
    (0.01, 0): (0.10, 0.50),
    (0.01, 1): (0.12, 0.58),
    (0.01, 2): (0.08, 0.60),
    (0.1, 0): (0.10, 0.30),
    (0.1, 1): (0.12, 0.20),
}


def config(rate, seed, **watch):
    return {
        "seed": seed,
        "task": {"name": "world", "shuffle_seed": seed},
        "inner": {"learning_rate": rate, "epochs": 10},
        "ladder": ["base", "self_edits"],
        "watch": {"writers": ["tensorboard"], **watch},
    }


def write(path, rate, seed, scores, **watch):
    base, last = scores
    workdir = records.open_workdir(path, config(rate, seed, **watch))
    pair = {"a": "round_1", "b": "base", "diff": last - base, "se": 0.1, "z": 3.0}
    summary = {
        "ladder": report_run.ladder(base=base, round_1=last),
        "paired": [pair],
        "seconds": {"adapt": 60.0},
        "adapters": 12,
    }
    records.write_json(workdir / "summary.json", summary)
    return workdir


@pytest.fixture
def sweep(tmp_path):
    return [
        write(
            tmp_path / f"rate{rate}-seed{seed}", rate, seed, scores, project=str(seed)
        )
        for (rate, seed), scores in SCORES.items()
    ]


def runs(paths):
    return inputs.read(paths).workdirs


def test_keys_that_differ_are_told_run_by_run(sweep):
    table = compared.differences(runs(sweep))
    assert table.head == ("", "inner.learning_rate", "seed", "task.shuffle_seed")
    assert table.rows[0] == ("rate0.01-seed0", "0.01", "0", "0")
    assert table.rows[4] == ("rate0.1-seed1", "0.1", "1", "1")
    assert len(table.rows) == 5


def test_of_few_runs_each_key_is_a_row(sweep, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    records.open_workdir(one, config(0.01, 0))
    records.open_workdir(
        other, {"seed": 1, "ladder": ["x" * 99], "inner": {"epochs": 1}}
    )
    for path in (one, other):
        records.write_json(path / "summary.json", {"ladder": []})
    table = compared.differences(runs([one, other]))
    assert table.head == ("", "one", "other")
    rows = {key: values for key, *values in table.rows}
    assert rows["seed"] == ["0", "1"]
    assert rows["task.name"] == ['"world"', "(absent)"]
    assert rows["ladder"][1].endswith("...") and len(rows["ladder"][1]) == 40
    assert not any(key.startswith("watch") for key in rows)


def test_equal_configs_and_a_lone_run_have_nothing_to_tell(sweep):
    (run, *_) = runs(sweep)
    assert compared.differences([run]).rows == ()
    assert compared.differences([run, run]).rows == ()
    assert compared.tables([run]) == [] and compared.sections([run]) == []


def test_runs_that_differ_in_the_seed_alone_are_a_group(sweep):
    first, second = compared.groups(runs(sweep))
    assert (first.name, second.name) == (
        "inner.learning_rate=0.01",
        "inner.learning_rate=0.1",
    )
    assert [len(first.runs), len(second.runs)] == [3, 2]


def test_intervals_are_over_seeds(sweep):
    ladder, pairs = compared.tables(runs(sweep))
    assert ladder.rows[0] == ("seeds", "3", "2")
    assert [row[0] for row in ladder.rows] == ["seeds", "base", "round_1"]
    low, high = stats.student([0.5, 0.58, 0.6])
    assert ladder.rows[2][1] == f"0.560 ({low:.3f} to {high:.3f})"
    # By hand: t(1 degree) = 12.706, s = 0.0707, n = 2.
    assert ladder.rows[2][2] == "0.250 (-0.385 to 0.885)"
    low, high = stats.student([0.4, 0.46, 0.52])
    assert pairs.rows == [
        (
            "round_1 - base",
            f"+0.460 ({low:+.3f} to {high:+.3f})",
            "+0.140 (-0.622 to +0.902)",
        )
    ]


def test_a_seed_counts_once(sweep, tmp_path):
    again = write(tmp_path / "again", 0.01, 1, (0.9, 0.9))
    shown = runs([*sweep, again])
    assert compared.tables(shown)[0].rows == compared.tables(runs(sweep))[0].rows
    assert compared.notes(shown) == [
        "again has config and seed of another run here, and is no seed of its own"
    ]


def test_runs_that_are_over_seeds_themselves_are_left_alone(sweep):
    members = runs(sweep)[:2]
    summaries = [run.summary | {"kind": run_view.OVER_SEEDS} for run in members]
    over = [
        run_view.Workdir(run.name, summary, run.config)
        for run, summary in zip(members, summaries, strict=True)
    ]
    assert compared.groups(over) == []


def test_the_command_prints_and_writes_one_page_of_it(sweep, tmp_path, capsys):
    markdown, html = tmp_path / "sweep.md", tmp_path / "sweep.html"
    paths = list(map(str, sweep))
    assert console.main([*paths, f"--markdown={markdown}", f"--html={html}"]) == 0
    printed = capsys.readouterr().out
    for title in ("What differs between the configs", "Ladder over seeds"):
        assert title in printed and title in html.read_text()
    assert printed.endswith(f"page: {html}\n\npage: {markdown}\n")
    page = markdown.read_text()
    assert page.startswith("# sweep\n\n## What differs between the configs\n")
    assert "| round\\_1 | 0.560 (" in page
    assert "|  | inner.learning\\_rate=0.01 | inner.learning\\_rate=0.1 |" in page
    assert "| rate0.1-seed1 | 1:00 min | 12 | 0.2 |" in page
    assert "over seeds. One seed has no interval." in page


def test_texts_of_runs_are_nothing_but_text(sweep, tmp_path):
    hostile = write(tmp_path / "a|b", 0.5, 0, (0.1, 0.2))
    config_file = hostile / records.CONFIG_NAME
    changed = json.loads(config_file.read_text()) | {"name": report_run.HOSTILE}
    config_file.write_text(json.dumps(changed))
    shown = runs([*sweep, hostile])
    page = markdown_page.text("<b>", shown)
    assert page.startswith("# \\<b\\>") and not re.search(r"(?<!\\)[<&]", page)
    assert "| a\\|b |" in page
    out = html_page.write_page(inputs.read([*sweep, hostile]), tmp_path / "p.html")
    assert "<script" not in out.read_text()


def test_a_page_of_no_runs_is_refused(tmp_path, capsys):
    edits = tmp_path / "edits.jsonl"
    edits.write_text(json.dumps(report_run.edit(1, "a", 0, [0.1])) + "\n")
    assert console.main([str(edits), f"--markdown={tmp_path / 'p.md'}"]) == 2
    assert "is a page of runs, and none is given" in capsys.readouterr().err
