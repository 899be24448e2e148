"""Does a policy collapse: its entropy, and how different its self-edits are, by round.

Of several runs side by side each is a line, and runs that differ in nothing but their
seed are one: so replaced data can be held against accumulated data, rule by rule.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from seal_jax.analysis import stats
from seal_jax.report import fragments, run_view
from seal_jax.report.charts import plots
from seal_jax.report.run_view import Workdir
from seal_jax.report.sections import compared
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

TITLE = "Entropy and diversity by round"
NOTE = (
    "Of what the policy wrote in each round. entropy: nats a token, the mean of -log p "
    "of its own samples, which is their entropy if they were drawn at temperature 1 "
    "from all tokens. distinct_edits: share of different texts among the edits of a "
    "passage. distinct3: different trigrams over all trigrams of the round. "
    "overlap_within, overlap_between: how alike two edits of one passage are, and of "
    "two passages (Jaccard index of their trigrams). Runs that differ in their seed "
    "alone are one line, and so is a run over many seeds, with Student's 95 % interval "
    "over seeds."
)
MEASURES = (
    "entropy",
    "distinct_edits",
    "distinct3",
    "overlap_within",
    "overlap_between",
)
_SHOWN_ROWS = 12  # A longer table is folded away.


class Line(NamedTuple):
    """A run, or runs of several seeds: by measure and round one value for each seed."""

    name: str
    values: dict[str, dict[int, list[float]]]


def lines(runs: Sequence[Workdir]) -> list[Line]:
    """The runs whose rounds recorded any of the measures."""
    groups = [
        (group.name or "all runs", group.runs) for group in compared.groups(runs)
    ] or [(run.name, (run,)) for run in runs]
    made = []
    for name, members in groups:
        values: dict[str, dict[int, list[float]]] = {}
        for run in members:
            for number, measure, value in _recorded(run.summary):
                values.setdefault(measure, {}).setdefault(number, []).append(value)
        if values:
            made.append(Line(name, values))
    return made


def _recorded(summary: dict[str, Any]) -> Iterator[tuple[int, str, float]]:
    for row in run_view.rows(summary, "rounds"):
        number = formatting.measured(row.get("round"))
        # A run over many seeds tells of each of them.
        for told in run_view.rows(row, "by_seed") or [row]:
            measured = told.get("diversity")
            measured = {
                **(measured if isinstance(measured, dict) else {}),
                "entropy": told.get("entropy"),
            }
            for measure in MEASURES:
                value = formatting.measured(measured.get(measure))
                if number is not None and value is not None:
                    yield int(number), measure, value


def table(runs: Sequence[Workdir]) -> Table:
    """A row for each line and round; no rows where nothing was recorded."""
    rows = []
    for line in lines(runs):
        numbers = {n for by_round in line.values.values() for n in by_round}
        for number in sorted(numbers):
            cells = [_cell(line.values.get(m, {}).get(number, ())) for m in MEASURES]
            rows.append((line.name, str(number), *cells))
    return Table(TITLE, ("run", "round", *MEASURES), rows)


def _cell(values: Sequence[float]) -> str:
    low, high = stats.student(values)
    span = f" ({formatting.span(low, high, digits=3)})" if low is not None else ""
    return f"{formatting.number(stats.mean(values))}{span}"


def section(runs: Sequence[Workdir]) -> Markup:
    """A small chart of each measure, and the table; nothing where none was recorded."""
    shown = table(runs)
    if not shown.rows:
        return fragments.NOTHING
    listed = fragments.shown(shown._replace(title=""))
    if len(shown.rows) > _SHOWN_ROWS:
        listed = fragments.folded("As a table", listed)
    return fragments.section(TITLE, NOTE, charts(lines(runs)) + listed)


def charts(found: Sequence[Line]) -> Markup:
    """A chart for each measure by round; nothing for a single round."""
    numbers = sorted({n for one in found for by in one.values.values() for n in by})
    if len(numbers) < 2:
        return fragments.NOTHING
    step = 1 + (len(numbers) - 1) // 8
    axes = plots.Axes("round", "", tuple((n, str(n)) for n in numbers[::step]))
    figures = []
    for measure in MEASURES:
        series = [
            plots.Series(one.name, _dots(one.values.get(measure, {})), style)
            for style, one in enumerate(found)
        ]
        if any(each.dots for each in series):
            drawn = plots.lines(series, axes, f"{measure} by round", small=True)
            figures.append(fragments.figure(fragments.bold(measure), drawn))
    named = [plots.Series(one.name, (), style) for style, one in enumerate(found)]
    legend = fragments.scroll(plots.legend(named))
    return legend + fragments.small_charts(figures)


def _dots(by_round: dict[int, list[float]]) -> tuple[plots.Dot, ...]:
    dots = []
    for number, values in sorted(by_round.items()):
        mean = stats.mean(values)
        if mean is not None:
            dots.append(plots.Dot(number, mean, *stats.student(values)))
    return tuple(dots)
