"""Runs on the job: what each night taught, kept and cost, as tables and curves."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from seal_jax.report import fragments, run_view
from seal_jax.report.charts import plots
from seal_jax.report.charts.plots import Axes, Series
from seal_jax.report.run_view import Workdir
from seal_jax.report.sections import compared
from seal_jax.report.tables import deploy as deploy_table
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table


class Measure(NamedTuple):
    """A number of a row: its key in summary.json, what it says, whether a share."""

    key: str
    title: str
    share: bool = True


# By night, and over all nights or at the end.
MEASURES = (
    Measure("learned", "Learned: the day's questions the next morning"),
    Measure("rephrased", "Rephrased: the day's facts in words that nobody has used"),
    Measure("unasked", "Unasked: facts of the day that no user asked"),
    Measure("kept", "Kept: the questions of all days before"),
    Measure("in_context", "In context: the day's questions with the contexts in view"),
    Measure("general", "General: questions that no night is about"),
    Measure("drift", "Drift: nats a token from the un-edited model", share=False),
)
_OVERALL = ("learned", "rephrased", "unasked", "kept", "final", "in_context", "general")
# Of a night, by their keys: what they are called, and their digits.
_COSTS = {
    "adapters": ("adapters", 0),
    "tokens": ("tokens trained", 0),
    "teacher_tokens": ("tokens read by teachers", 0),
    "written_tokens": ("tokens written", 0),
    "seconds": ("seconds", 1),
}
LEGEND = (
    "Without contexts, but for the column in context, which is the ceiling. Learned, "
    "rephrased, unasked and in context: means over nights, each of its own day. Kept, "
    "general and drift: after the last night; final: the questions of all days then. "
    "± is one standard error over streams."
)
_LOGGED = " The log's own answers stood as gold: right is what was answered then."
_HALF = (
    " Where an arm gates, half of the users' questions decide, the others are shown."
)


def is_deploy(summary: dict[str, Any]) -> bool:
    """Whether a summary is of a run on the job."""
    return summary.get("kind") == run_view.DEPLOY


def legend(summary: dict[str, Any]) -> str:
    """How to read the tables of a run."""
    logged = _LOGGED * (summary.get("gold") == "logged")
    return LEGEND + logged + _HALF * bool(summary.get("chooses"))


def tables(summary: dict[str, Any], *, brief: bool = False) -> list[Table]:
    """Over all nights, then measure by measure with nights as columns, then the cost.

    None for a summary of another kind. `brief`: what is learned and kept alone.
    """
    rows = run_view.rows(summary, "arms") if is_deploy(summary) else []
    if not rows:
        return []
    overall = [
        (
            _name(row),
            *(_plus_minus(row.get(key)) for key in _OVERALL),
            _plus_minus(row.get("drift")),
        )
        for row in rows
    ]
    heads = (*(key.replace("_", " ") for key in _OVERALL), "drift")
    found = [Table("", ("arm", *heads), overall)]
    for measure in [MEASURES[0], MEASURES[3]] if brief else MEASURES:
        cells = [(_name(row), _by_night(row, measure.key)) for row in rows]
        found += _nights(measure.title, cells, _plus_minus)
    for key, (called, digits) in _COSTS.items():
        cells = [(_name(row), _costs(row, key)) for row in rows]
        title = f"Cost of a night, all streams: {called}"
        found += _nights(title, cells, lambda x, d=digits: _number(x, d), total=True)
    return found


def _nights(title: str, cells, shown, *, total: bool = False) -> list[Table]:
    """Nights as columns, arms as rows; nothing where nothing is known."""
    count = max((len(values) for _, values in cells), default=0)
    if not any(value is not None for _, values in cells for value in values):
        return []
    head = ("arm", *(f"night {t}" for t in range(1, count + 1)))
    rows = []
    for name, values in cells:
        texts = [shown(value) for value in values]
        texts += [formatting.MISSING] * (count - len(values))
        if total:
            known = [v for v in map(formatting.measured, values) if v is not None]
            texts.append(shown(sum(known)) if known else formatting.MISSING)
        rows.append((name, *texts))
    return [Table(title, (*head, *(["all"] if total else [])), rows)]


def _name(row: dict[str, Any]) -> str:
    return str(row.get("name", formatting.MISSING))


def _by_night(row: dict[str, Any], key: str) -> list[Any]:
    return _listed(row.get("by_night"), key)


def _costs(row: dict[str, Any], key: str) -> list[Any]:
    return _listed(row.get("costs"), key)


def _listed(group: Any, key: str) -> list[Any]:
    values = group.get(key) if isinstance(group, dict) else None
    return values if isinstance(values, list) else []


def _plus_minus(value: Any) -> str:
    estimate = value if isinstance(value, dict) else {"mean": value}
    mean = formatting.number(estimate.get("mean"))
    se = formatting.measured(estimate.get("se"))
    return mean if se is None else f"{mean} ± {formatting.number(se)}"


def _number(value: Any, digits: int) -> str:
    if not digits:
        return formatting.count(formatting.measured(value))
    return formatting.number(value, digits=digits)


# A page


def section(run: Workdir, *, of: str = "") -> Markup:
    """The arms of a run on the job; nothing for another one.

    Args:
      run: the workdir.
      of: a run to name in the headings.
    """
    found = tables(run.summary)
    if not found:
        return fragments.NOTHING
    end = f": {of}" if of else ""
    first, *rest = found
    by_night = [table for table in rest if not table.title.startswith("Cost")]
    costs = [table for table in rest if table.title.startswith("Cost")]
    parts = [
        fragments.section(
            f"On the job{end}", legend(run.summary), fragments.shown(first)
        )
    ]
    drawn = [
        fragments.headed(measure.title, fragments.scroll(chart))
        for measure in MEASURES
        if (chart := curve(run.summary, measure))
    ]
    parts.append(
        fragments.section(
            f"Night by night{end}",
            "Bars: one standard error over streams.",
            fragments.joined(drawn)
            + fragments.folded(
                "As tables", fragments.joined(map(fragments.shown, by_night))
            ),
        )
    )
    note = (
        "What was written, taught and trained in a night; not the questions of users. "
        "Written: self-edits, questions of the model's own and answers to them, and "
        "answers that are drawn to be learned from."
    )
    parts.append(
        fragments.section(
            f"Cost of a night{end}",
            note,
            fragments.joined(map(fragments.shown, costs)),
        )
    )
    return fragments.joined(parts)


def curve(summary: dict[str, Any], measure: Measure) -> Markup:
    """One measure by night, a line for each arm; nothing where it was not measured."""
    series = []
    for style, row in enumerate(run_view.rows(summary, "arms")):
        dots = tuple(
            plots.erring(t, mean, formatting.measured(value.get("se")))
            for t, value in enumerate(_by_night(row, measure.key), start=1)
            if isinstance(value, dict)
            and (mean := formatting.measured(value.get("mean"))) is not None
        )
        series.append(Series(_name(row), dots, style))
    nights = sorted({int(dot.x) for one in series for dot in one.dots})
    if not nights:
        return fragments.NOTHING
    ticks = tuple((float(t), str(t)) for t in range(nights[0], nights[-1] + 1))
    axes = Axes("nights", measure.key.replace("_", " "), ticks, share=measure.share)
    return plots.lines(series, axes, measure.title)


def over_seeds(runs: Sequence[Workdir]) -> list[Table]:
    """Runs that differ in their seed alone, together: their rows, then by night.

    None where every run is alone. Each cell is the mean over runs, with half of
    Student's 95 % interval.
    """
    found = []
    jobs = [run for run in runs if is_deploy(run.summary)]
    for group in compared.groups(jobs, having="arms"):
        end = f": {group.name}" if group.name else ""
        arms = [
            {_name(row): row for row in run_view.rows(run.summary, "arms")}
            for run in group.runs
        ]
        names = [name for name in arms[0] if all(name in own for own in arms)]
        rows = []
        for name in names:
            cells = (
                deploy_table.over_seeds(
                    [deploy_table.value(own[name], m) for own in arms]
                ).text
                for m in deploy_table.MEASURES
            )
            rows.append((name, formatting.count(len(arms)), *cells))
        head = ("arm", "seeds", *deploy_table.MEASURES)
        found.append(Table(f"Over seeds{end}", head, rows))
        for measure in MEASURES:
            nights = [
                (
                    name,
                    _columns(
                        [deploy_table.by_night(own[name], measure.key) for own in arms]
                    ),
                )
                for name in names
            ]
            title = f"Over seeds{end}: {measure.title}"
            found += _nights(
                title, nights, lambda x: formatting.MISSING if x is None else x.text
            )
    return found


def _told(found: deploy_table.OverSeeds | None) -> str:
    return formatting.MISSING if found is None else found.text


def _columns(
    by_run: Sequence[Sequence[float | None]],
) -> list[deploy_table.OverSeeds | None]:
    """By night over the runs; None where no run has a value."""
    columns = itertools.zip_longest(*by_run)
    told = [deploy_table.over_seeds(values) for values in columns]
    return [one if any(v is not None for v in one.values) else None for one in told]


def sections(runs: Sequence[Workdir]) -> list[Markup]:
    """Those of all runs on the job, each named if there are several."""
    found = [run for run in runs if is_deploy(run.summary)]
    return [
        _together(over_seeds(found)),
        *(section(run, of=run.name if len(found) > 1 else "") for run in found),
    ]


def _together(tables: Sequence[Table]) -> Markup:
    if not tables:
        return fragments.NOTHING
    first = [table for table in tables if "seeds" in table.head]
    rest = [table for table in tables if table not in first]
    return fragments.section(
        "On the job, over seeds",
        "Runs of the same config but for the seed: the mean over them ± half of "
        "Student's 95 % interval. Where a run has no value there is none.",
        fragments.joined(map(fragments.shown, first))
        + fragments.folded(
            "Night by night", fragments.joined(map(fragments.shown, rest))
        ),
    )
