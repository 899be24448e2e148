"""What was not used as it was written: texts refused, training lines cut.

Runs count both for each round, row of the ladder and arm; here they are told in one
place, in the console and on a page. Rows that have nothing of the kind are left out.
"""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from seal_jax.report import few_shot_view, fragments, run_view
from seal_jax.report.run_view import Workdir
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

_NOTE = (
    "A text that says nothing, or is no valid self-edit, is refused: no adapter is "
    "trained on it, and it is never imitated. A training line that is longer than a "
    "row takes is cut there, without an end of text (inner.row_tokens)."
)


def table(runs: Sequence[Workdir]) -> Table:
    """A row for each part of each run that has refused texts or cut lines."""
    several = len(runs) > 1
    rows = [
        (f"{run.name}: {name}" if several else name, refused, cut)
        for run in runs
        for name, refused, cut in _rows(run.summary)
    ]
    return Table("Not used as written", ("", "texts refused", "lines cut"), rows)


def section(runs: Sequence[Workdir]) -> Markup:
    """The table as a part of a page; nothing where all texts were used."""
    shown = table(runs)
    if not shown.rows:
        return fragments.NOTHING
    rows = fragments.table(shown.head, shown.rows, css="reasons")
    return fragments.section(shown.title, _NOTE, rows)


def _rows(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    # The ladder of a few-shot run has a column for what was refused.
    told = few_shot_view.is_few_shot(summary)
    parts = [
        *(("round", row, True) for row in run_view.rows(summary, "rounds")),
        *(("control, round", row, True) for row in run_view.rows(summary, "control")),
        *(("", row, not told) for row in run_view.rows(summary, "ladder")),
        *(("", row, True) for row in run_view.rows(summary, "arms")),
    ]
    rows = []
    for what, row, with_refused in parts:
        name = str(row.get("round" if what else "name", formatting.MISSING))
        refused = _refused(row.get("refused")) if with_refused else ""
        cut = _cut(row)
        if refused or cut:
            shown = (refused or formatting.MISSING, cut or formatting.MISSING)
            rows.append((f"{what} {name}".strip(), *shown))
    return rows


def _refused(value: Any) -> str:
    """Reasons with their counts, or a count alone; empty for none."""
    if isinstance(value, dict):
        return few_shot_view.reasons(value)
    return formatting.count(value) if formatting.measured(value) else ""


def _cut(row: dict[str, Any]) -> str:
    cut, lines, texts = (
        formatting.measured(row.get(key)) for key in ("cut", "lines", "texts")
    )
    lines = lines or texts
    if not cut:
        return ""
    of = f" of {formatting.count(lines)}" if lines else ""
    return f"{formatting.count(cut)}{of}"
