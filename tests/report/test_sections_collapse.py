"""Entropy and diversity by round: read from summaries, one line for several seeds."""

import xml.etree.ElementTree as ET

from seal_jax.report import run_view
from seal_jax.report.sections import collapse

# Student's half width of two values that are 0.5 apart: 12.706 / 4.
SPREAD = "0.500 (-2.677 to 3.677)"


def run(name, entropies, *, seed=0, data="replace", **diversity):
    lines = [
        {"round": r, "entropy": value, "diversity": diversity}
        for r, value in enumerate(entropies, start=1)
    ]
    summary = {"rounds": lines, "ladder": [{"name": "base", "mean": 0.5}]}
    config = {"seed": seed, "imitate": {"data": data}}
    return run_view.Workdir(name, summary, config)


def test_runs_lie_side_by_side_and_seeds_are_one_line():
    runs = [
        run("a", [1.0, 0.5], distinct3=0.25),
        run("b", [2.0, 1.5], seed=1, distinct3=0.75),
        run("c", [1.0, 1.0], data="accumulate"),
    ]
    rows = collapse.table(runs).rows
    replaced, accumulated = 'imitate.data="replace"', 'imitate.data="accumulate"'
    assert rows == [
        (replaced, "1", "1.500 (-4.853 to 7.853)", "-", SPREAD, "-", "-"),
        (replaced, "2", "1.000 (-5.353 to 7.353)", "-", SPREAD, "-", "-"),
        (accumulated, "1", "1.000", "-", "-", "-", "-"),
        (accumulated, "2", "1.000", "-", "-", "-", "-"),
    ]
    alone = collapse.table([runs[0], runs[2]]).rows
    assert [row[:3] for row in alone][::2] == [("a", "1", "1.000"), ("c", "1", "1.000")]


def test_a_run_over_many_seeds_is_one_line_with_its_interval():
    """As its seeds would be as runs of their own."""
    seeds = [run("a", [1.0, 0.5], distinct3=0.25), run("b", [2.0, 1.5], distinct3=0.75)]
    by_round = zip(*(one.summary["rounds"] for one in seeds), strict=True)
    lines = [
        {"round": r, "entropy": 0.0, "diversity": {}, "by_seed": list(told)}
        for r, told in enumerate(by_round, start=1)
    ]
    many = run_view.Workdir("many", {"rounds": lines, "kind": "over_seeds"}, {})
    assert collapse.table([many]).rows == [
        ("many", "1", "1.500 (-4.853 to 7.853)", "-", SPREAD, "-", "-"),
        ("many", "2", "1.000 (-5.353 to 7.353)", "-", SPREAD, "-", "-"),
    ]
    assert "<svg" in collapse.section([many])


def test_the_page_has_a_chart_for_each_measure_that_was_recorded():
    runs = [run("a", [1.0, 0.5], distinct3=0.25), run("c", [1.0, 1.0])]
    root = ET.fromstring(f"<div>{collapse.section(runs)}</div>")
    titles = [b.text for b in root.iter("b")]
    assert titles[:2] == ["entropy", "distinct3"]
    hints = [m.findtext("title") for m in root.iter() if m.find("title") is not None]
    assert "a, 2: 0.5" in hints and "c, 2: 1" in hints


def test_a_single_round_has_no_chart_and_an_older_run_nothing():
    assert "<svg" not in collapse.section([run("a", [1.0])])
    assert "1.000" in collapse.section([run("a", [1.0])])
    older = run_view.Workdir("old", {"rounds": [{"round": 1, "kept": 3}]})
    strange = run_view.Workdir("odd", {"rounds": [{"round": "x", "entropy": "high"}]})
    assert not collapse.section([older]) and not collapse.section([strange])
