"""How well other rewards agree with the true one, on a page."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from seal_jax.report import fragments
from seal_jax.report.charts import plots, svg
from seal_jax.report.charts.plots import Axes, Dot, Series
from seal_jax.report.commands import agreement
from seal_jax.report.commands.agreement import Measured
from seal_jax.report.run_view import Workdir
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

TITLE = "Agreement with the true reward"
_SHOWN_ROWS = 12  # A longer table is folded away.
_SHOWN_CHARTS = 3  # More of them, too.
_ROUND = re.compile(r" round (\d+)$")


def of_workdir(run: Workdir) -> list[Measured]:
    """The rewards of each round, where several edits of a passage were graded."""
    if run.path is None or not run.edits:
        return []
    try:
        found = agreement.read(run.path)
    except ValueError:  # Rows of another kind of run: there is nothing to compare.
        return []
    folder = run.path.name
    return [
        dataclasses.replace(m, name=f"{run.name}{m.name.removeprefix(folder)}")
        for m in found
        if is_comparable(m)
    ]


def is_comparable(measured: Measured) -> bool:
    """Whether there is another reward, and a choice between edits."""
    return len(measured.rewards) > 1 and agreement.has_choice(measured)


def tables(found: Sequence[Measured]) -> list[Table]:
    """A row for each reward of each round or file; see `agreement`."""
    if not found:
        return []
    made = [agreement.table(m) for m in found]
    head = ("rewards", *made[0][0][1:])
    rows = [
        (f"{m.title}: {name}", *cells)
        for m, (_, *lines) in zip(found, made, strict=True)
        for name, *cells in lines
    ]
    return [Table(TITLE, head, rows)]


def section(found: Sequence[Measured]) -> Markup:
    """What each reward captures, and the table; nothing for none."""
    if not found:
        return fragments.NOTHING
    (table,) = tables(found)
    listed = fragments.shown(table._replace(title=""))
    if len(table.rows) > _SHOWN_ROWS:
        listed = fragments.folded("As a table", listed)
    return fragments.section(
        TITLE,
        "Captured: of what a passage's best edit has over the mean edit by the true "
        "reward, the share that choosing by another reward gains; 0 is a random "
        "choice. Other seeds: chosen by some seeds, graded by the others. Bars: 95 % "
        "bootstrap over passages, of five or more. Of a race only the seeds count that "
        "all edits had.",
        _drawn(found) + listed,
    )


def _drawn(found: Sequence[Measured]) -> Markup:
    """By round for each run with several, else a row for each reward.

    Of many runs these are folded away, below small charts of all of them.
    """
    runs: dict[str, list[Measured]] = {}
    for m in found:
        runs.setdefault(_ROUND.sub("", m.name), []).append(m)
    many = len(runs) > _SHOWN_CHARTS
    parts = [compact(runs)] if many else []
    for name, own in runs.items():
        chart = by_round(own) if len(own) > 1 else intervals(own[0])
        if len(runs) == 1:
            return fragments.scroll(chart)
        show = fragments.folded if many else fragments.headed
        parts.append(show(name, fragments.scroll(chart)))
    return fragments.joined(parts)


def compact(runs: Mapping[str, Sequence[Measured]]) -> Markup:
    """What each reward captures, a small chart for each with a line for each run.

    What is of no round stands at 1.
    """
    lines: dict[str, dict[str, list[Dot]]] = {}
    for run, found in runs.items():
        for m in found:
            match = _ROUND.search(m.name)
            for reward, own in m.agreements.items():
                if own is not None and own.captured is not None:
                    dot = Dot(int(match[1]) if match else 1, own.captured)
                    lines.setdefault(reward, {}).setdefault(run, []).append(dot)
    styles = {run: style for style, run in enumerate(runs)}
    numbers = sorted({d.x for own in lines.values() for ds in own.values() for d in ds})
    step = 1 + (len(numbers) - 1) // 8
    ticks = tuple((n, f"{n:g}") for n in numbers[::step])
    axes = Axes("round", "captured", ticks, reference=(0.0, "a random choice"))
    figures = []
    for reward, own in lines.items():
        series = [
            Series(run, tuple(sorted(dots, key=lambda d: d.x)), styles[run])
            for run, dots in own.items()
        ]
        drawn = plots.lines(series, axes, f"Captured by {reward}", small=True)
        figures.append(fragments.figure(fragments.bold(reward), drawn))
    if not figures:
        return fragments.NOTHING
    named = [Series(run, (), style) for run, style in styles.items()]
    legend = fragments.scroll(plots.legend(named))
    return legend + fragments.small_charts(figures)


def intervals(measured: Measured) -> Markup:
    """What each reward captures, a row for each; nothing where nothing is known."""
    points = []
    for name, own in measured.agreements.items():
        if own is not None and own.captured is not None:
            low, high = own.captured_interval
            bounds = None if low is None or high is None else (low, high)
            css = "k-oracle" if name.startswith(agreement.TRUE) else "k-self"
            told = formatting.percent(own.captured, digits=0)
            label = plots.shortened(name, 21)
            points.append(svg.Point(label, told, own.captured, None, css, bounds))
    if not points:
        return fragments.NOTHING
    return svg.intervals(points, reference=0.0)


def by_round(found: Sequence[Measured]) -> Markup:
    """What each reward captures, a line for each; nothing where nothing is known."""
    lines: dict[str, list[Dot]] = {}
    for m in found:
        match = _ROUND.search(m.name)
        for name, own in m.agreements.items():
            if match and own is not None and own.captured is not None:
                dot = Dot(int(match[1]), own.captured, *own.captured_interval)
                lines.setdefault(name, []).append(dot)
    if not lines:
        return fragments.NOTHING
    series = [
        Series(name, tuple(sorted(dots, key=lambda d: d.x)), style)
        for style, (name, dots) in enumerate(lines.items())
    ]
    numbers = sorted({d.x for dots in lines.values() for d in dots})
    step = 1 + (len(numbers) - 1) // 16
    ticks = tuple((n, f"{n:g}") for n in numbers[::step])
    axes = Axes("round", "captured", ticks, reference=(0.0, "a random choice"))
    return plots.lines(series, axes, "What each reward captures, by round")
