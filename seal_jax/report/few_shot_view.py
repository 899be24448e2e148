"""What reports read of few-shot runs: rates of self-edits, solved tasks, grids.

As tolerant as `run_view`: what a run did not record reads as None or is left out.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from seal_jax.report import run_view
from seal_jax.rounds import ladder_rows
from seal_jax.runtime import formatting
from seal_jax.tasks.arc import self_edit as arc_edit

# Of the items' names.
PREFIX, OF_A_PASSAGE = "task ", "passage "
NO_ADAPTER = ladder_rows.IN_CONTEXT
# Rows that no ladder of few-shot tasks has.
OF_PASSAGES = {ladder_rows.BASE, "passage_only", "sentence_split"}

COLOURS = range(10)
_MOST_SIDE = 30

type Grid = tuple[tuple[int, ...], ...]


def is_few_shot(summary: dict[str, Any]) -> bool:
    """Whether a summary.json is of a few-shot run: by its items or its rows."""
    if summary.get("kind") in (*run_view.OVER, run_view.POOLED):
        return False
    items = [str(row.get("item", "")) for row in run_view.rows(summary, "items")]
    told = [item for item in items if item.startswith((PREFIX, OF_A_PASSAGE))]
    if told:
        return any(item.startswith(PREFIX) for item in told)
    names = {row.get("name") for row in run_view.rows(summary, "ladder")}
    return NO_ADAPTER in names and not names & OF_PASSAGES


def reference(summary: dict[str, Any]) -> str:
    """The name of the ladder's row that the others are held against."""
    return NO_ADAPTER if is_few_shot(summary) else ladder_rows.BASE


def items_table(summary: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """The ladder's names, and the rows of items that have any of them."""
    names = [str(r["name"]) for r in run_view.rows(summary, "ladder") if r.get("name")]
    items = run_view.rows(summary, "items")
    return names, [row for row in items if any(name in row for name in names)]


def last_round(summary: dict[str, Any]) -> str | None:
    """The name of the ladder's row for the last policy."""
    names = [str(row.get("name")) for row in run_view.rows(summary, "ladder")]
    return next((n for n in reversed(names) if ladder_rows.is_round(n)), None)


# Self-edits


@dataclasses.dataclass(frozen=True)
class Counts:
    """Texts drawn for self-edits, and what became of them.

    `refused` counts texts by the reason, those that were drawn again included. Rates
    are None where nothing is there to divide by.
    """

    edits: int
    drawn: int
    trained: int
    refused: dict[str, int]

    @property
    def valid(self) -> int:
        """Texts that are self-edits, whether they are over budget or not."""
        invalid = sum(
            n for why, n in self.refused.items() if why != arc_edit.OVER_BUDGET
        )
        return self.drawn - invalid

    @property
    def valid_rate(self) -> float | None:
        """Valid texts among those drawn."""
        return self.valid / self.drawn if self.drawn else None

    @property
    def budget_rate(self) -> float | None:
        """Trained self-edits among the valid ones."""
        return self.trained / self.valid if self.valid else None

    def reasons(self) -> str:
        """The refusals as text, the most frequent first; empty without any."""
        return reasons(self.refused)


def reasons(refused: dict[str, Any]) -> str:
    """Counts of refusals as text, the most frequent first; empty without any."""
    counted = [(str(why), formatting.measured(n)) for why, n in refused.items()]
    ordered = sorted((-n, why) for why, n in counted if n)
    return ", ".join(f"{why} {formatting.count(-n)}" for n, why in ordered)


def row_counts(row: dict[str, Any]) -> Counts | None:
    """The counts of a ladder row, None for a row without self-edits."""
    edits, drawn, trained = (
        int(formatting.measured(row.get(key)) or 0)
        for key in ("edits", "drawn", "trained")
    )
    refused = row.get("refused")
    refusals = refused.items() if isinstance(refused, dict) else ()
    reasons = {str(k): int(v) for k, v in refusals if formatting.measured(v)}
    return Counts(edits, drawn, trained, reasons) if drawn else None


def edit_counts(rows: Sequence[dict[str, Any]]) -> Counts:
    """The counts of rows of edits.jsonl or heldout.jsonl."""
    reasons = collections.Counter(
        str(why)
        for row in rows
        for why in (*(row.get("redrawn") or ()), row.get("refused"))
        if why
    )
    return Counts(
        edits=len(rows),
        drawn=len(rows) + sum(len(row.get("redrawn") or ()) for row in rows),
        trained=sum(not row.get("refused") for row in rows),
        refused=dict(reasons),
    )


def solved(row: dict[str, Any]) -> float | None:
    """The share of a self-edit's adapters that solved the task; None if it has none.

    Not always the reward, which a run may take from likelihoods.
    """
    if row.get("refused"):
        return None
    seeds = row.get("answers")
    if not isinstance(seeds, list) or not seeds:
        return formatting.measured(row.get("reward"))
    return sum(is_solved(tests) for tests in seeds) / len(seeds)


def is_solved(tests: Any) -> bool:
    """Whether one adapter's answers are right for every test."""
    outcomes = _objects(tests)
    return bool(outcomes) and all(test.get("right") is True for test in outcomes)


def success(rows: Iterable[dict[str, Any]]) -> float | None:
    """The mean of `solved` over those that were trained."""
    shares = [share for row in rows if (share := solved(row)) is not None]
    return sum(shares) / len(shares) if shares else None


def switches(row: dict[str, Any]) -> dict[str, bool]:
    """The augmentation families of a valid self-edit by name; {} of another."""
    recorded = row.get("switches")
    families = recorded.items() if isinstance(recorded, dict) else ()
    return {str(name): bool(value) for name, value in families}


def brief(row: dict[str, Any]) -> str:
    """A valid self-edit in a line; empty for another."""
    mesh = [name for name, value in switches(row).items() if value]
    keys = ("learning_rate", "epochs", "steps")
    rate, epochs, steps = (formatting.measured(row.get(key)) for key in keys)
    if rate is None or epochs is None:
        return ""
    parts = [
        " + ".join(mesh) or "no augmentation",
        "loss on outputs" if row.get("output_only") else "loss on all tokens",
        f"learning rate {rate:.3g}",
        f"{epochs:.0f} epoch{'s' if epochs != 1 else ''}",
    ]
    if steps is not None:
        parts.append(f"{formatting.count(steps)} steps")
    return ", ".join(parts)


# Tasks


@dataclasses.dataclass(frozen=True)
class Task:
    """A row of items.jsonl: pairs of (input, output); a grid that is none is None."""

    id: str
    train: tuple[tuple[Grid | None, Grid | None], ...]
    tests: tuple[tuple[Grid | None, Grid | None], ...]


def tasks(rows: Sequence[dict[str, Any]]) -> dict[str, Task]:
    """The tasks of items.jsonl by id."""
    return {
        str(row["task_id"]): Task(
            str(row["task_id"]), _pairs(row.get("train")), _pairs(row.get("test"))
        )
        for row in rows
        if row.get("task_id") is not None
    }


def _pairs(value: Any) -> tuple[tuple[Grid | None, Grid | None], ...]:
    return tuple((grid(p.get("input")), grid(p.get("output"))) for p in _objects(value))


def grid(value: Any) -> Grid | None:
    """`value` as rows of colours of one length; None if it is anything else."""
    if not isinstance(value, list | tuple) or not 0 < len(value) <= _MOST_SIDE:
        return None
    if not all(isinstance(row, list | tuple) for row in value):
        return None
    if not 0 < len(value[0]) <= _MOST_SIDE or len({len(row) for row in value}) > 1:
        return None
    if not all(type(cell) is int and cell in COLOURS for row in value for cell in row):
        return None
    return tuple(tuple(row) for row in value)


@dataclasses.dataclass(frozen=True)
class Answer:
    """One adapter's answer to one test; no guesses where no view gave a grid."""

    guesses: tuple[Grid, ...]
    right: bool


def answers(tests: Any) -> list[Answer]:
    """What an adapter answered, a row for each test; equal guesses count once."""
    rows = []
    for test in _objects(tests):
        two = test.get("guesses")
        grids = [g for v in (two if isinstance(two, list) else ()) if (g := grid(v))]
        if test.get("parsed") == 0:
            grids = []
        rows.append(Answer(tuple(dict.fromkeys(grids)), test.get("right") is True))
    return rows


def _objects(value: Any) -> list[dict[str, Any]]:
    entries = value if isinstance(value, list) else ()
    return [v for v in entries if isinstance(v, dict)]
