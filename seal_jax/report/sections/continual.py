"""What continual runs remember, on a page: matrices, curves, arms, general ability."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from seal_jax.analysis import forgetting
from seal_jax.analysis.forgetting import Matrix
from seal_jax.continual import files as continual_files
from seal_jax.report import fragments, run_view
from seal_jax.report.charts import plots
from seal_jax.report.charts.plots import Axes, Cell, Dot, Series
from seal_jax.report.run_view import Workdir
from seal_jax.report.tables import continual as continual_table
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

FOLDER = "continual"  # of a workdir: each arm's runs in the reference's layout
LEGEND = (
    "Learned: right after a passage's own edit. Kept: the earlier passages after the "
    "last edit. Final: all passages after the last edit. General: questions that no "
    "edit touches. Where an arm chooses (best, penalty, gate), half of each passage's "
    "questions decide and all rows show the other half. ± is one standard error over "
    "sequences."
)
_SHOWN_MATRICES = 3
_SCORES = ("learned", "kept", "final", "general_before", "general_after")
_COSTS = ("adapters", "tokens", "answers")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of learning passages in sequence.

    Attributes:
      runs: its matrices, none where they are not known.
      row: what summary.json says of it; empty for released results.
    """

    name: str
    runs: tuple[Matrix, ...]
    row: dict[str, Any] = dataclasses.field(default_factory=dict)


def arms(run: Workdir) -> list[Arm]:
    """The arms of a continual workdir."""
    arm_list = []
    if run.kind == run_view.DEPLOY:  # Its arms have nights, not passages.
        return arm_list
    for row in run_view.rows(run.summary, "arms"):
        name = str(row.get("name", formatting.MISSING))
        arm_list.append(Arm(name, _matrices(run.path, name, row), row))
    return arm_list


def _matrices(path: Path | None, name: str, row: dict[str, Any]) -> tuple[Matrix, ...]:
    """From the arm's files, since runs apart tell the errors; else from its row."""
    folder = path / FOLDER / name if path else None
    # A name is of a folder right there, whatever a summary may say.
    if folder and folder.is_dir() and folder.parent.name == FOLDER:
        return continual_files.read(folder)
    recorded = row.get("matrix")
    if not isinstance(recorded, dict) or not recorded.get("means"):
        return ()
    sequences = row.get("sequences")
    count = sequences if isinstance(sequences, int) and sequences > 0 else 1
    deviations = recorded.get("deviations") if count > 1 else None
    try:
        cells = [_cells(recorded["means"]), _cells(deviations) if deviations else None]
        return (Matrix(cells[0], count, cells[1]),)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"arm {name!r}: matrix is malformed ({error}); run the same command again"
        ) from None


def _cells(rows: Sequence[Sequence[float]]) -> forgetting.Cells:
    """Row 0 in full, of the others what had been learned."""
    return tuple(
        tuple(float(x) for x in (row[:t] if t else row)) for t, row in enumerate(rows)
    )


# Tables


def tables(arms_: Sequence[Arm]) -> list[Table]:
    """What each arm learned, kept and cost; nothing for none."""
    if not arms_:
        return []
    head = ("arm", "learned", "kept", "final", "general before", "after")
    rows = [
        (arm.name, *(_plus_minus(arm.row.get(key)) for key in _SCORES)) for arm in arms_
    ]
    cost = ("arm", "sequences", *_COSTS, "seconds", "committed", "mean scale")
    spent = [
        (
            arm.name,
            formatting.count(arm.row.get("sequences")),
            *(formatting.count(arm.row.get(key)) for key in _COSTS),
            formatting.number(arm.row.get("seconds"), digits=1),
            formatting.percent(arm.row.get("committed")),
            formatting.number(arm.row.get("scale")),
        )
        for arm in arms_
    ]
    return [Table("", head, rows), Table("Cost", cost, spent)]


def _plus_minus(value: Any) -> str:
    estimate = value if isinstance(value, dict) else {"mean": value}
    mean = formatting.number(estimate.get("mean"))
    se = formatting.measured(estimate.get("se"))
    return mean if se is None else f"{mean} ± {formatting.number(se)}"


# Sections


def released(name: str, runs: Sequence[Matrix]) -> Markup:
    """The section of one folder of results."""
    matrix = forgetting.pool(runs)
    arm = Arm(name, tuple(runs))
    rows = [
        (
            label.replace("  ", "… "),
            formatting.number(mean, digits=4),
            formatting.number(se, digits=4),
        )
        for label, mean, se in continual_table.averages(runs)
    ]
    source = f"{matrix.base_model or '-'} on {matrix.dataset or '-'}"
    return fragments.section(
        f"Continual: {name}",
        f"{source}: {matrix.sequences} sequences of {matrix.passages} "
        f"passages in {len(runs)} files. {_matrix_note()}",
        fragments.scroll(heat(matrix))
        + _curves([arm])
        + fragments.shown(Table("Averages", ("average", "mean", "se"), rows))
        + fragments.folded(
            "As tables",
            fragments.pre(continual_table.tables(runs)),
        ),
    )


def section(arm_list: Sequence[Arm], *, of: str = "") -> Markup:
    """The arms of workdirs: what each learned, kept and cost, and what it remembers.

    Args:
      of: a run to name in the headings.
    """
    if not arm_list:
        return fragments.NOTHING
    end = f": {of}" if of else ""
    parts = [fragments.shown(table) for table in tables(arm_list)]
    sections = [fragments.section(f"Arms{end}", LEGEND, fragments.joined(parts))]
    pooled = [(arm, forgetting.pool(arm.runs)) for arm in arm_list if arm.runs]
    most = max((farthest(matrix) for _, matrix in pooled), default=None)
    drawn = [(arm, fragments.scroll(heat(matrix, most=most))) for arm, matrix in pooled]
    if drawn:
        shown = [
            fragments.headed(arm.name, chart) for arm, chart in drawn[:_SHOWN_MATRICES]
        ]
        shown += [
            fragments.folded(arm.name, chart) for arm, chart in drawn[_SHOWN_MATRICES:]
        ]
        title = f"Accuracy matrix{end}"
        sections.append(
            fragments.section(title, _matrix_note(), fragments.joined(shown))
        )
        body = _curves([arm for arm, _ in drawn])
        sections.append(fragments.section(f"Curves{end}", "", body))
    chart = fragments.scroll(general(arm_list))
    if chart:
        note = "Share of general questions answered after so many edits."
        sections.append(fragments.section(f"General ability{end}", note, chart))
    return fragments.joined(sections)


def _matrix_note() -> str:
    return (
        "A row is the model after so many edits, a column a passage. Blue: answered "
        "better than by the un-edited model, red: worse."
    )


# Charts


def farthest(matrix: Matrix) -> float:
    """The largest difference of a cell from the un-edited model's, either way."""
    base = matrix.means[0]
    return max(
        abs(x - b) for row in matrix.means[1:] for x, b in zip(row, base, strict=False)
    )


def heat(matrix: Matrix, *, most: float | None = None) -> Markup:
    """The matrix with its numbers; colours tell the difference from the top row.

    Args:
      most: the difference of the strongest colour; None: the largest of this matrix.
    """
    base = matrix.means[0]
    scale = most or farthest(matrix) or 1.0
    errors = forgetting.standard_errors(matrix)
    rows: list[tuple[str, list[Cell | None]]] = [
        ("un-edited", [Cell(formatting.number(x, digits=2)) for x in base])
    ]
    for t, row in enumerate(matrix.means[1:], start=1):
        cells: list[Cell | None] = []
        for p, x in enumerate(row):
            hint = f"passage {p + 1} after {t} edits: {x:.3f}"
            hint += f" ± {errors[t][p]:.3f}" if errors else ""
            hint += f", un-edited {base[p]:.3f}"
            shade = (x - base[p]) / scale
            cells.append(Cell(formatting.number(x, digits=2), shade, hint))
        rows.append((_edits(t), [*cells, *[None] * (len(base) - len(cells))]))
    columns = [f"p{p}" for p in range(1, len(base) + 1)]
    title = "Accuracy on each passage after each edit"
    return plots.heat(rows, columns, title, corner="passage", ruled=1)


def _edits(count: int) -> str:
    return f"{count} edit{'' if count == 1 else 's'}"


def _curves(arm_list: Sequence[Arm]) -> Markup:
    """Accuracy by edits since its own, and over the passages learned so far."""
    return (
        fragments.headed(
            "Accuracy by edits since its own", fragments.scroll(lag(arm_list))
        )
        + fragments.headed(
            "Mean over the passages learned so far", fragments.scroll(seen(arm_list))
        )
        + fragments.lead(_crossings(arm_list))
        + fragments.lead("Bars: one standard error over runs.")
    )


def lag(arm_list: Sequence[Arm]) -> Markup:
    """Accuracy k edits after a passage's own, a line for each arm."""
    of = forgetting
    return _against_base(
        arm_list, (of.lag, of.lag_base), 0, "edits since its own", "Lag curve"
    )


def seen(arm_list: Sequence[Arm]) -> Markup:
    """The mean over the passages learned so far; a lone arm's crossing is marked."""
    of = forgetting
    marks = ()
    if len(arm_list) == 1:
        t = of.crossing(of.pool(arm_list[0].runs))
        if t is not None:
            marks = ((float(t), f"below un-edited at {t}"),)
    return _against_base(
        arm_list,
        (of.seen, of.seen_base),
        1,
        "passages learned",
        "Mean over learned passages",
        marks,
    )


def _against_base(
    arm_list: Sequence[Arm],
    curves,
    first: int,
    x: str,
    title: str,
    marks: tuple[tuple[float, str], ...] = (),
) -> Markup:
    """Lines of the first curve; dashed the second, of each different base."""
    edited_curve, base_curve = curves
    series, bases = [], {}
    for style, arm in enumerate(arm_list):
        series.append(Series(arm.name, _dots(arm.runs, edited_curve, first), style))
        base = _dots(arm.runs, base_curve, first)
        rounded = tuple(round(d.y, 9) for d in base)
        bases.setdefault(rounded, (arm.name, base))
    for i, (name, base) in enumerate(bases.values()):
        dots = tuple(Dot(d.x, d.y) for d in base)
        label = "un-edited" if len(bases) == 1 else f"un-edited, {name}"
        series.append(Series(label, dots, 7 + 8 * i, dashed=True))
    last = max(len(s.dots) for s in series)
    ticks = tuple((float(i), str(i)) for i in range(first, first + last))
    axes = Axes(x, "accuracy", ticks, marks=marks, share=True)
    return plots.lines(series, axes, title)


def _dots(runs: Sequence[Matrix], curve, first: int) -> tuple[Dot, ...]:
    return tuple(
        plots.erring(i, mean, se)
        for i, (mean, se) in enumerate(forgetting.estimates(runs, curve), first)
    )


def _crossings(arm_list: Sequence[Arm]) -> str:
    phrases = []
    for arm in arm_list:
        t = forgetting.crossing(forgetting.pool(arm.runs))
        end = "never" if t is None else f"at {t}"
        phrases.append(f"{arm.name} {end}")
    return f"Falls below the un-edited model: {', '.join(phrases)}."


def general(arm_list: Sequence[Arm]) -> Markup:
    """General ability after k edits, a line for each arm; nothing if not measured."""
    series = []
    for style, arm in enumerate(arm_list):
        shares = arm.row.get("general")
        values = (
            [formatting.measured(v) for v in shares] if isinstance(shares, list) else []
        )
        dots = tuple(Dot(k, v) for k, v in enumerate(values) if v is not None)
        series.append(Series(arm.name, dots, style))
    count = max((int(d.x) for s in series for d in s.dots), default=0)
    if not count:
        return fragments.NOTHING
    ticks = tuple((float(k), str(k)) for k in range(count + 1))
    axes = Axes("edits", "general questions right", ticks, share=True)
    return plots.lines(series, axes, "General ability by edits")
