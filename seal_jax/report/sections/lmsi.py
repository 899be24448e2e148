"""Runs without labels: rows by policy, what votes were worth, and wrong majorities."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from seal_jax.report import fragments, run_view
from seal_jax.report.run_view import Workdir
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

WAYS = ("direct", "chain", "consistency")
TRAIN = "train"
_SIDES = {
    TRAIN: "the questions that were learned from",
    "heldout": "held-out questions",
}
LEGEND = (
    "Shares of questions that are answered rightly: greedily without a chain of "
    "thought (direct) and with one (chain), and by the majority of many chains "
    "(consistency). ± is one standard error over questions."
)
GROWTH = (
    "Half of a question's chains before elects the majority, and the other half says "
    "what became of it. Of the majorities that were wrong: how many have more of the "
    "chains after (grown) and fewer (shrunk), their mean share of the chains before "
    "and after, and for how many questions the other half's majority is right; of "
    "those that were right, for how many it is wrong (lost). An unchanged policy "
    "grows as many as it shrinks."
)


_GROWN = (
    ("wrong", "wrong"),
    ("grown", "grown"),
    ("shrunk", "shrunk"),
    ("wrong_before", "share before"),
    ("wrong_after", "share after"),
    ("turned_before", "right before"),
    ("turned", "right after"),
    ("lost_before", "right ones lost before"),
    ("lost", "after"),
)


def is_lmsi(summary: dict[str, Any]) -> bool:
    """Whether a summary is of a run without labels."""
    return summary.get("kind") == run_view.LMSI


def tables(summary: dict[str, Any]) -> list[Table]:
    """Rows by side, what was learned, votes and their bins, wrong majorities.

    None for a summary of another kind.
    """
    if not is_lmsi(summary):
        return []
    given = summary.get("sides")
    sides = given if isinstance(given, dict) else {}
    found = [
        Table(f"On {_SIDES.get(side, side)}", ("", *WAYS), rows)
        for side in sides
        if (rows := _by_stage(run_view.rows(sides, side)))
    ]
    found.append(_learned(summary))
    found += [_votes(summary), _bins(summary), _growth(summary)]
    return [table for table in found if table.rows]


def _by_stage(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A policy a row, a way of asking a column."""
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        stage, _, way = str(row.get("name", formatting.MISSING)).rpartition(" ")
        mean = formatting.number(row.get("mean"))
        if formatting.measured(row.get("se")) is not None:
            mean = f"{mean} ± {formatting.number(row.get('se'))}"
        cells.setdefault(stage, {})[way] = mean
    return [
        (stage, *(own.get(way, formatting.MISSING) for way in WAYS))
        for stage, own in cells.items()
    ]


def _learned(summary: dict[str, Any]) -> Table:
    head = ("learned from", "questions", "chains", "rows", "steps")
    rows = [
        (_name(row), *(formatting.count(row.get(key)) for key in head[1:]))
        for row in run_view.rows(summary, "learned")
    ]
    return Table("", head, rows)


def _votes(summary: dict[str, Any]) -> Table:
    rows = [
        (
            _name(row),
            str(row.get("side", formatting.MISSING)),
            *(
                formatting.percent(row.get(k))
                for k in ("share", "sampled", "unreadable", "direct_steps")
            ),
        )
        for row in run_view.rows(summary, "votes")
    ]
    head = (
        "votes",
        "of",
        "the majority's share",
        "chains that are right",
        "unreadable",
        "direct answers with steps",
    )
    return Table("", head, rows)


def _bins(summary: dict[str, Any]) -> Table:
    """How often a majority is right, by its share of the chains."""
    rows, spans = [], list[str]()
    for row in run_view.rows(summary, "votes"):
        bins = run_view.rows(row, "bins")
        here = [
            f"{formatting.percent(b.get('low'))} to {formatting.percent(b.get('high'))}"
            for b in bins
        ]
        spans = max(spans, here, key=len)
        cells = [
            f"{formatting.number(b.get('accuracy'))} ({formatting.count(b.get('n'))})"
            for b in bins
        ]
        rows.append((_name(row), str(row.get("side", formatting.MISSING)), *cells))
    empty = [formatting.MISSING]
    full = [(*row, *empty * (len(spans) + 2 - len(row))) for row in rows]
    title = "How often a majority is right, by its share of the chains (of how many)"
    return Table(title, ("", "of", *spans), full if spans else [])


def _growth(summary: dict[str, Any]) -> Table:
    keys = [key for key, _ in _GROWN]
    rows = [
        (
            _name(row),
            str(row.get("since", formatting.MISSING)),
            str(row.get("side", formatting.MISSING)),
            *(formatting.percent(row.get(key)) for key in keys),
        )
        for row in run_view.rows(summary, "growth")
    ]
    head = ("wrong majorities", "since", "of", *(head for _, head in _GROWN))
    return Table("", head, rows)


def _name(row: dict[str, Any]) -> str:
    return str(row.get("name", formatting.MISSING))


# A page


def section(run: Workdir, *, of: str = "") -> Markup:
    """What a run without labels found; nothing for another one.

    Args:
      run: the workdir.
      of: a run to name in the heading.
    """
    found = tables(run.summary)
    if not found:
        return fragments.NOTHING
    end = f": {of}" if of else ""
    return fragments.section(
        f"Without labels{end}",
        f"{LEGEND} {GROWTH}",
        fragments.joined(map(fragments.shown, found)),
    )


def sections(runs: Sequence[Workdir]) -> list[Markup]:
    """Those of all runs without labels, each named if there are several."""
    found = [run for run in runs if is_lmsi(run.summary)]
    return [section(run, of=run.name if len(found) > 1 else "") for run in found]
