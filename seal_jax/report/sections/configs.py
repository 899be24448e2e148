"""The part of report.html on the configurations of a few-shot run: what was written.

A configuration is a valid self-edit. Success is among those that were trained.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from seal_jax.report import few_shot_view, fragments, run_view
from seal_jax.report.charts import svg
from seal_jax.runtime import formatting

_BINS = 14
# The axis of a histogram, and how its name is written.
_AXES = (
    ("learning_rate", "learning rate"),
    ("epochs", "epochs"),
    ("steps", "steps"),
)

type Rows = Sequence[dict[str, Any]]


def section(summary: dict[str, Any], edits: Rows, heldout: Rows) -> Markup:
    """What each policy wrote: an overview, then each one's choices with their success.

    Args:
      edits: rows of edits.jsonl, by round.
      heldout: rows of heldout.jsonl, by row of the ladder.
    """
    groups = _groups(summary, edits, heldout)
    valid = {name: [r for r in rows if _is_valid(r)] for name, rows in groups.items()}
    if not any(valid.values()):
        return fragments.NOTHING
    all_rows = [row for rows in valid.values() for row in rows]
    names = list(
        dict.fromkeys(n for row in all_rows for n in few_shot_view.switches(row))
    )
    overview = [
        _overview(name, rows, valid[name], names) for name, rows in groups.items()
    ]
    stacked = fragments.stacked
    head = ["", "valid", stacked(["in", "budget"]), "solved", *names]
    head += [stacked(["outputs", "only"])]
    head += [stacked(label.split()) for _, label in _AXES]
    table = fragments.table(head, overview, css="close")
    scales = {
        key: svg.log_fit(_positive(all_rows, key), 10, 230)
        for key, _ in _AXES
        if _positive(all_rows, key)
    }
    details = [
        fragments.folded(
            f"{name}: {len(rows)} configurations",
            _choices(rows, names) + fragments.charts(_histograms(rows, scales)),
        )
        for name, rows in valid.items()
        if len({few_shot_view.brief(row) for row in rows}) > 1
    ]
    return fragments.section(
        "Configurations",
        "What the self-edits ask for: shares of the valid ones, medians of numbers. "
        "In budget: share of the valid ones that was trained. Solved: success of "
        "those.",
        table + fragments.joined(details),
    )


def _groups(summary: dict[str, Any], edits: Rows, heldout: Rows) -> dict[str, Rows]:
    """Self-edits by who wrote them: sampled in a round, or for a row of the ladder."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in edits:
        name = f"round {row.get('round', formatting.MISSING)}, sampled"
        groups.setdefault(name, []).append(row)
    arms = [str(row.get("name")) for row in run_view.rows(summary, "ladder")]
    arms += [str(row.get("arm")) for row in heldout]
    for arm in dict.fromkeys(arms):
        arm_rows = [
            row for row in heldout if str(row.get("arm")) == arm and "edit" in row
        ]
        if arm_rows:
            groups[arm] = arm_rows
    return dict(groups)


def _is_valid(row: dict[str, Any]) -> bool:
    return bool(few_shot_view.brief(row))


def _overview(name: str, rows: Rows, valid: Rows, names: Sequence[str]) -> list[str]:
    counts = few_shot_view.edit_counts(rows)
    solved = few_shot_view.success(valid)
    shares = [_share(valid, chosen) for _, chosen in _options(names)]
    medians = [
        f"{statistics.median(values):.3g}" if values else formatting.MISSING
        for values in (_positive(valid, key) for key, _ in _AXES)
    ]
    return [
        name,
        formatting.percent(counts.valid_rate, digits=0),
        formatting.percent(counts.budget_rate, digits=0),
        *map(_share_cell, (solved, *shares)),
        *medians,
    ]


def _share_cell(share: float | None) -> str:
    return fragments.tinted(formatting.percent(share, digits=0), share)


def _options(
    names: Sequence[str],
) -> list[tuple[str, Callable[[dict[str, Any]], bool]]]:
    """(label, whether a self-edit chose it) of what is on or off."""
    options = [
        (name, lambda row, name=name: few_shot_view.switches(row).get(name, False))
        for name in names
    ]
    return [
        *options,
        ("loss on outputs only", lambda row: bool(row.get("output_only"))),
    ]


def _share(rows: Rows, chosen: Callable[[dict[str, Any]], bool]) -> float | None:
    return sum(map(chosen, rows)) / len(rows) if rows else None


def _choices(rows: Rows, names: Sequence[str]) -> Markup:
    """Each choice on and off: how many, how many in budget, how many solved."""
    lines = []
    for label, chosen in _options(names):
        cells = [label]
        for value in (True, False):
            alike = [row for row in rows if chosen(row) == value]
            solved = few_shot_view.success(alike)
            cells += [
                formatting.count(len(alike)),
                formatting.percent(
                    few_shot_view.edit_counts(alike).budget_rate, digits=0
                ),
                _share_cell(solved),
            ]
        lines.append(cells)
    head = ("", "on", "in budget", "solved", "off", "in budget", "solved")
    return fragments.table(head, lines)


def _histograms(rows: Rows, scales: dict[str, svg.LogScale]) -> list[str]:
    solved = [row for row in rows if (few_shot_view.solved(row) or 0.0) >= 0.5]
    figures = []
    for key, label in _AXES:
        values = _positive(rows, key)
        if not values:
            continue
        x, part = scales[key], _positive(solved, key)
        decades = x.high - x.low
        chart = svg.histogram(
            values, x, "k-self", bins=decades * math.ceil(_BINS / decades), part=part
        )
        below = f"{len(values)}, in full colour {len(part)} that solved"
        caption = fragments.caption(label, below=below)
        figures.append(fragments.figure(caption, chart))
    return figures


def _positive(rows: Rows, key: str) -> list[float]:
    values = (formatting.measured(row.get(key)) for row in rows)
    return [value for value in values if value is not None and value > 0]
