"""Runs side by side as one page of Markdown: to be read as text, or put into a README.

What differs, what comes out over seeds, each run's ladder, and what the runs cost.
Everything else is on the page of `html_page`.
"""

from collections.abc import Sequence
from pathlib import Path

from seal_jax.report import run_view
from seal_jax.report.inputs import Inputs
from seal_jax.report.run_view import Workdir
from seal_jax.report.sections import collapse, compared, deploy
from seal_jax.runtime import files, formatting, reading
from seal_jax.runtime.formatting import Table


def write_page(inputs: Inputs, out: str | Path) -> Path:
    """Writes the page of all runs in `inputs`.

    Raises:
      ValueError: there is no run among them.
      files.DiskFullError: no room.
    """
    path = Path(out)
    if not inputs.workdirs:
        raise ValueError(
            f"--markdown {path}: is a page of runs, and none is given; give a workdir "
            "with a summary.json, or use --html"
        )
    files.write_text(path, text(path.stem, inputs.workdirs))
    return path


def text(title: str, runs: Sequence[Workdir]) -> str:
    """The page under a title."""
    tables = [
        compared.differences(runs),
        *compared.tables(runs),
        *deploy.over_seeds(runs),
        collapse.table(runs),
        _ladders(runs),
        _costs(runs),
    ]
    parts = [f"# {_cell(title)}", *map(_markdown, tables), *compared.notes(runs)]
    if any(table.title == compared.LADDER for table in tables):
        parts.append(compared.OVER_SEEDS)
    return "\n\n".join(part for part in parts if part) + "\n"


def _ladders(runs: Sequence[Workdir]) -> Table:
    names = dict.fromkeys(
        str(row.get("name"))
        for run in runs
        for row in run_view.rows(run.summary, "ladder")
    )
    by_run = [
        {str(row.get("name")): row for row in run_view.rows(run.summary, "ladder")}
        for run in runs
    ]
    rows = [
        (name, *(_mean(of_run.get(name, {})) for of_run in by_run)) for name in names
    ]
    return Table(
        "Ladder of each run, ± standard error over its items",
        ("", *(run.name for run in runs)),
        rows,
    )


def _mean(row: dict) -> str:
    mean, se = (formatting.measured(row.get(key)) for key in ("mean", "se"))
    return formatting.plus_minus(mean, se)


def _costs(runs: Sequence[Workdir]) -> Table:
    costs = [dict(run_view.cost(run.summary)) for run in runs]
    head = dict.fromkeys(label for cost in costs for label in cost)
    rows = [
        (run.name, *(cost.get(label, formatting.MISSING) for label in head))
        for run, cost in zip(runs, costs, strict=True)
    ]
    return Table("Cost", ("run", *head), rows)


def _markdown(table: Table) -> str:
    """A table under its title; nothing for one without rows."""
    if not table.rows:
        return ""
    rule = ("---", *("---:" for _ in table.head[1:]))
    lines = [list(map(_cell, table.head)), rule]
    lines += [list(map(_cell, row)) for row in table.rows]
    return f"## {table.title}\n\n" + "\n".join(
        f"| {' | '.join(line)} |" for line in lines
    )


def _cell(words: str) -> str:
    """Text that is nothing but text in Markdown."""
    shown = reading.printable(words)
    for sign in "\\`*_[]<>|#&":
        shown = shown.replace(sign, f"\\{sign}")
    return shown
