"""report.html: one page that shows a run, or several runs and files side by side.

It has no scripts or outside files, is well-formed XML as well as HTML, every text from
the runs is escaped (`fragments`), and its colours follow the reader's light or dark
scheme.
"""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from seal_jax.analysis.agreement import AllRewards
from seal_jax.report import few_shot_view, fragments, run_view
from seal_jax.report.charts import plots, svg
from seal_jax.report.inputs import Inputs
from seal_jax.report.run_view import Workdir
from seal_jax.report.sections import agreement as agreement_section
from seal_jax.report.sections import collapse as collapse_section
from seal_jax.report.sections import compared as compared_section
from seal_jax.report.sections import configs as configs_section
from seal_jax.report.sections import continual as continual_section
from seal_jax.report.sections import deploy as deploy_section
from seal_jax.report.sections import edits as edits_section
from seal_jax.report.sections import grids as grids_section
from seal_jax.report.sections import ladder as ladder_section
from seal_jax.report.sections import lmsi as lmsi_section
from seal_jax.report.sections import novelty as novelty_section
from seal_jax.report.sections import reference as reference_section
from seal_jax.report.sections import reliability as reliability_section
from seal_jax.report.sections import rounds as rounds_section
from seal_jax.report.sections import unused as unused_section
from seal_jax.rounds import ladder_rows
from seal_jax.runtime import files, formatting

REPORT_NAME = "report.html"
_SHOWN_METRICS = 12


def write_html(workdir: str | Path, *, out: str | Path | None = None) -> Path:
    """Writes the page of a finished run: `out`, or `workdir`/report.html.

    Raises:
      ValueError: `workdir` is none, or its run has not finished.
      files.DiskFullError: no room.
    """
    path = Path(out) if out else Path(workdir) / REPORT_NAME
    with run_view.reading_from(workdir):
        run = run_view.read_workdir(workdir)
        name = str(run.config.get("name") or run.name)
        page = fragments.page(name, _run(name, run))
    files.write_text(path, page)
    return path


def write_page(inputs: Inputs, out: str | Path) -> Path:
    """Writes the page of everything in `inputs`; of a lone workdir, its own.

    Raises:
      ValueError: a workdir whose files are malformed.
      files.DiskFullError: no room.
    """
    runs = inputs.workdirs
    others = (inputs.results, inputs.edits, inputs.continual)
    if len(runs) == 1 and runs[0].path and not any(others):
        return write_html(runs[0].path, out=out)
    path = Path(out)
    title = path.stem
    sections = [fragments.header(title, _contents(inputs)), *compared(inputs)]
    files.write_text(path, fragments.page(title, sections, what="SEAL report"))
    return path


def compared(inputs: Inputs) -> list[str]:
    """The sections of several runs and files, by kind."""
    runs = inputs.workdirs
    trusted = [m for run in runs for m in reliability_section.of_workdir(run)]
    return [
        *compared_section.sections(runs),
        *reference_section.sections(inputs.results),
        rounds_section.section(runs),
        ladder_section.ladders(runs),
        *_continual(runs),
        *deploy_section.sections(runs),
        *lmsi_section.sections(runs),
        *(
            ladder_section.paired(
                ladder_section.pairs(run.summary),
                what=run_view.OVER[run.kind],
                title=f"Paired differences: {run.name}",
            )
            for run in runs
            if run.kind in run_view.OVER
        ),
        *(continual_section.released(*named) for named in inputs.continual),
        reliability_section.section(trusted),
        *map(reliability_section.ranking, inputs.rankings),
        agreement_section.section(
            agreements(inputs), compared_section.group_names(runs)
        ),
        collapse_section.section(runs),
        novelty_section.section(inputs.edits, runs),
        unused_section.section(runs),
        _costs(runs),
    ]


def agreements(inputs: Inputs) -> list[AllRewards]:
    """The rewards of ranking files and of all runs' rounds."""
    of_runs = map(agreement_section.of_workdir, inputs.workdirs)
    return [*inputs.agreements, *itertools.chain.from_iterable(of_runs)]


def _continual(runs: tuple[Workdir, ...]) -> list[str]:
    """All arms in the same charts, or if they are many, each run's in its own."""
    together = arms(runs)
    if len(together) <= plots.COLOURS:
        return [continual_section.section(together)]
    return [
        continual_section.section(of_run, of=run.name)
        for run in runs
        if (of_run := continual_section.arms(run))
    ]


def arms(runs: tuple[Workdir, ...]) -> list[continual_section.Arm]:
    """The arms of all continual runs, named by their run if there are several."""
    pairs = [(run, arm) for run in runs for arm in continual_section.arms(run)]
    if len({run.name for run, _ in pairs}) < 2:
        return [arm for _, arm in pairs]
    return [
        dataclasses.replace(arm, name=f"{run.name}: {arm.name}") for run, arm in pairs
    ]


def _contents(inputs: Inputs) -> str:
    """What the page is about, in a line."""
    counted = (
        (len(inputs.workdirs), "run"),
        (len(inputs.results), "result file"),
        (len(inputs.edits), "set of self-edits"),
        (len(inputs.continual), "folder of continual results"),
    )
    phrases = [_counted(count, what) for count, what in counted if count]
    return f"Compared: {', '.join(phrases)}."


def _counted(count: int, what: str) -> str:
    first, _, rest = what.partition(" ")
    if count == 1:
        return f"1 {what}"
    if rest.startswith("of"):
        return f"{count} {first}s {rest}"
    return f"{count} {what}s"


def _run(name: str, run: Workdir) -> list[str]:
    """The sections of one run."""
    summary, edits = run.summary, run.edits
    few_shot, tasks = [], {}
    if few_shot_view.is_few_shot(summary) and run.path:
        heldout = run_view.read_heldout(run.path)
        tasks = few_shot_view.tasks(run_view.read_items(run.path))
        few_shot = [
            grids_section.section(summary, heldout, tasks),
            configs_section.section(summary, edits, heldout),
        ]
    what = "task" if few_shot_view.is_few_shot(summary) else "passage"
    return [
        _header(name, summary),
        ladder_section.ladder(summary),
        rounds_section.section([run]),
        continual_section.section(continual_section.arms(run)),
        deploy_section.section(run),
        lmsi_section.section(run),
        ladder_section.items(summary),
        ladder_section.paired(
            ladder_section.pairs(summary),
            first=ladder_section.main_pairs(summary),
            what=run_view.OVER.get(run.kind or "", what),
        ),
        *few_shot,
        edits_section.rewards(summary, edits),
        reliability_section.section(reliability_section.of_workdir(run)),
        agreement_section.section(agreement_section.of_workdir(run)),
        collapse_section.section([run]),
        novelty_section.section([], [run]),
        unused_section.section([run]),
        edits_section.to_read(edits, tasks),
        _metrics(run_view.read_metrics(run.path) if run.path else {}),
        _cost(summary),
        _config(run.config),
    ]


def _header(name: str, summary: dict[str, Any]) -> Markup:
    means = {
        row.get("name"): row.get("mean") for row in run_view.rows(summary, "ladder")
    }
    rounds = [n for n in means if ladder_rows.is_round(str(n))]
    tiles = []
    for row in ("base", few_shot_view.NO_ADAPTER, "self_edits", *rounds[-1:]):
        if row in means:
            tiles.append((formatting.number(means[row]), str(row)))
    tiles += [
        (value, label)
        for label, value in run_view.cost(summary)
        if label != "tokens" and value != formatting.MISSING
    ]
    digest = str(summary.get("config_hash", formatting.MISSING))
    note = fragments.joined(
        ["SEAL run, config ", fragments.render("parts.code", text=digest)]
    )
    return fragments.header(name, note, tiles)


def _metrics(series: dict[str, list[tuple[int, float]]]) -> Markup:
    charts = [
        fragments.figure(name, svg.line(points))
        for name, points in series.items()
        if len(points) > 1
    ][:_SHOWN_METRICS]
    if not charts:
        return fragments.NOTHING
    return fragments.section("Training", "", fragments.charts(charts))


def _cost(summary: dict[str, Any]) -> Markup:
    phases = run_view.seconds(summary)
    total = sum(phases.values())
    bars = [
        (
            name,
            s,
            f"{formatting.number(s, digits=1)} s, {s / total:.0%}" if total else "-",
        )
        for name, s in phases.items()
    ]
    lines = run_view.cost(summary)
    return fragments.section(
        "Cost",
        "Rates are over the phases that train adapters, where the run names them.",
        fragments.scroll(svg.bars(bars) if bars else "")
        + fragments.table(("", ""), lines, css="facts"),
    )


def _config(config: dict[str, Any]) -> Markup:
    if not config:
        return fragments.NOTHING
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return fragments.section(
        "Config",
        "",
        fragments.folded("config.json", fragments.pre(text)),
    )


def _costs(runs: tuple[Workdir, ...]) -> Markup:
    """Of several runs: a row for each."""
    if not runs:
        return fragments.NOTHING
    lines = [run_view.cost(run.summary) for run in runs]
    rows = [
        (run.name, *(value for _, value in cost))
        for run, cost in zip(runs, lines, strict=True)
    ]
    head = ("run", *(label for label, _ in lines[0]))
    return fragments.section("Cost", "", fragments.table(head, rows, css="close"))
