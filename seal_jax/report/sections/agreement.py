"""How well other rewards agree with the true one, on a page."""

import dataclasses
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from seal_jax.analysis.agreement import TRUE, AllRewards
from seal_jax.report import fragments, read_rewards
from seal_jax.report.charts import plots, svg
from seal_jax.report.charts.plots import Axes, Dot, Series
from seal_jax.report.run_view import Workdir
from seal_jax.report.tables import agreement as agreement_table
from seal_jax.report.tables.agreement import ROUND
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

TITLE = "Agreement with the true reward"
DRIFT = "Agreement by round"
_SHOWN_ROWS = 12  # A longer table is folded away.
_SHOWN_CHARTS = 3  # More of them, too.


def of_workdir(run: Workdir) -> list[AllRewards]:
    """The rewards of each round, where several edits of a passage were graded."""
    if run.path is None or not run.edits:
        return []
    try:
        measured = read_rewards.read(run.path)
    except ValueError:  # Rows of another kind of run: there is nothing to compare.
        return []
    folder = run.path.name
    return [
        dataclasses.replace(m, name=f"{run.name}{m.name.removeprefix(folder)}")
        for m in measured
        if is_comparable(m)
    ]


def is_comparable(measured: AllRewards) -> bool:
    """Whether there is another reward, and a choice between edits."""
    return len(measured.rewards) > 1 and measured.has_choice


def tables(measured: Sequence[AllRewards]) -> list[Table]:
    """A row for each reward of each round or file; see `commands.agreement`."""
    if not measured:
        return []
    texts = [agreement_table.table(m) for m in measured]
    head = ("rewards", *texts[0][0][1:])
    rows = [
        (f"{agreement_table.title(m)}: {name}", *cells)
        for m, (_, *lines) in zip(measured, texts, strict=True)
        for name, *cells in lines
    ]
    return [Table(TITLE, head, rows)]


def drift(
    measured: Sequence[AllRewards], groups: Mapping[str, str] | None = None
) -> Table:
    """By round, runs of a group together; no rows for a single round."""
    head, *rows = agreement_table.by_round(measured, groups or {}) or [()]
    return Table(DRIFT, head, rows)


def section(
    measured: Sequence[AllRewards], groups: Mapping[str, str] | None = None
) -> Markup:
    """What each reward captures, and the tables; nothing for none.

    `groups`: by a run's name that of the runs which differ in their seed alone.
    """
    if not measured:
        return fragments.NOTHING
    (table,) = tables(measured)
    listed = fragments.shown(table._replace(title=""))
    if len(table.rows) > _SHOWN_ROWS:
        listed = fragments.folded("As a table", listed)
    if (by := drift(measured, groups)).rows:
        listed += fragments.folded(by.title, fragments.shown(by._replace(title="")))
    return fragments.section(
        TITLE,
        "Captured: of what a passage's best edit has over the mean edit by the true "
        "reward, the share that choosing by another reward gains; 0 is a random "
        "choice. Other seeds: chosen by some seeds, graded by the others. Bars: 95 % "
        "bootstrap over passages, of five or more. Of a race only the seeds count that "
        "all edits had, after a prefilter only the edits that it let through: chosen "
        "from by its own reward before, they make that look worse than it is.",
        _drawn(measured) + listed,
    )


def _drawn(measured: Sequence[AllRewards]) -> Markup:
    """By round for each run with several, else a row for each reward.

    Of many runs these are folded away, below small charts of all of them.
    """
    runs: dict[str, list[AllRewards]] = {}
    for m in measured:
        runs.setdefault(ROUND.sub("", m.name), []).append(m)
    many = len(runs) > _SHOWN_CHARTS
    parts = [compact(runs)] if many else []
    for name, rounds in runs.items():
        chart = by_round(rounds) if len(rounds) > 1 else intervals(rounds[0])
        if len(runs) == 1:
            return fragments.scroll(chart)
        show = fragments.folded if many else fragments.headed
        parts.append(show(name, fragments.scroll(chart)))
    return fragments.joined(parts)


def compact(runs: Mapping[str, Sequence[AllRewards]]) -> Markup:
    """What each reward captures, a small chart for each with a line for each run.

    What is of no round stands at 1.
    """
    lines: dict[str, dict[str, list[Dot]]] = {}
    for run, rounds in runs.items():
        for m in rounds:
            match = ROUND.search(m.name)
            for reward, agreed in m.agreements.items():
                if agreed is not None and agreed.captured is not None:
                    dot = Dot(int(match[1]) if match else 1, agreed.captured)
                    lines.setdefault(reward, {}).setdefault(run, []).append(dot)
    styles = {run: style for style, run in enumerate(runs)}
    rounds = {d.x for of in lines.values() for dots in of.values() for d in dots}
    step = 1 + (len(rounds) - 1) // 8
    ticks = tuple((n, f"{n:g}") for n in sorted(rounds)[::step])
    axes = Axes("round", "captured", ticks, reference=(0.0, "a random choice"))
    figures = []
    for reward, by_run in lines.items():
        series = [
            Series(run, tuple(sorted(dots, key=lambda d: d.x)), styles[run])
            for run, dots in by_run.items()
        ]
        drawn = plots.lines(series, axes, f"Captured by {reward}", small=True)
        figures.append(fragments.figure(fragments.bold(reward), drawn))
    if not figures:
        return fragments.NOTHING
    named = [Series(run, (), style) for run, style in styles.items()]
    legend = fragments.scroll(plots.legend(named))
    return legend + fragments.small_charts(figures)


def intervals(measured: AllRewards) -> Markup:
    """What each reward captures, a row for each; nothing where nothing is known."""
    points = []
    for name, agreed in measured.agreements.items():
        if agreed is not None and agreed.captured is not None:
            low, high = agreed.captured_interval
            bounds = None if low is None or high is None else (low, high)
            css = "k-oracle" if name.startswith(TRUE) else "k-self"
            text = formatting.percent(agreed.captured, digits=0)
            label = plots.shortened(name, 21)
            points.append(svg.Point(label, text, agreed.captured, None, css, bounds))
    if not points:
        return fragments.NOTHING
    return svg.intervals(points, reference=0.0)


def by_round(measured: Sequence[AllRewards]) -> Markup:
    """What each reward captures, a line for each; nothing where nothing is known."""
    lines: dict[str, list[Dot]] = {}
    for m in measured:
        match = ROUND.search(m.name)
        for name, agreed in m.agreements.items():
            if match and agreed is not None and agreed.captured is not None:
                dot = Dot(int(match[1]), agreed.captured, *agreed.captured_interval)
                lines.setdefault(name, []).append(dot)
    if not lines:
        return fragments.NOTHING
    series = [
        Series(name, tuple(sorted(dots, key=lambda d: d.x)), style)
        for style, (name, dots) in enumerate(lines.items())
    ]
    rounds = sorted({d.x for dots in lines.values() for d in dots})
    step = 1 + (len(rounds) - 1) // 16
    ticks = tuple((n, f"{n:g}") for n in rounds[::step])
    axes = Axes("round", "captured", ticks, reference=(0.0, "a random choice"))
    return plots.lines(series, axes, "What each reward captures, by round")
