"""Rows of the ladder: their names, and what each of them holds."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

from seal_jax.runtime import metrics

# Rows without an adapter.
BASE, IN_CONTEXT = NO_ADAPTER = ("base", "in_context")
# The same rounds with a random edit kept.
CONTROL = "random_kept"

_ROUND = "round_"


class RowKind(enum.Enum):
    """What a row of the ladder is about."""

    NO_ADAPTER = "no adapter"
    ARM = "arm"
    CONTROL = "control"
    ROUND = "round"


def kind_of(name: str) -> RowKind:
    """The kind of the row of that name."""
    if name in NO_ADAPTER:
        return RowKind.NO_ADAPTER
    if name == CONTROL:
        return RowKind.CONTROL
    return RowKind.ROUND if is_round(name) else RowKind.ARM


def round_name(index: int) -> str:
    """The name of a round, and of its row: "round_1" of round 1."""
    return f"{_ROUND}{index}"


def round_of(name: str) -> int | None:
    """The number of the round that a row or a phase is named after, or None."""
    head, _, tail = name.partition(_ROUND)
    return int(tail) if not head and tail.isdecimal() else None


def is_round(name: str) -> bool:
    """Whether a row, or a phase, is a round's."""
    return name.startswith(_ROUND)


@dataclasses.dataclass(frozen=True)
class LadderRow:
    """One way of writing self-edits, measured on the held-out items.

    `values`: mean score of each item; None: no judgement. `empty_rate`: share of blank
    answers. `missing`: judgements that could not be had; `failed`: adapters. `counts`:
    more about the row, for the summary; `edits`: rows of heldout.jsonl.
    """

    name: str
    values: tuple[float | None, ...]
    empty_rate: float | None
    missing: int
    failed: int
    counts: dict[str, Any]
    edits: list[dict[str, Any]]

    @property
    def kind(self) -> RowKind:
        return kind_of(self.name)


def log_means(log: metrics.Log, table: Sequence[Mapping[str, Any]]) -> None:
    """Logs the mean of each row that has one; the step is its place in the table."""
    for place, row in enumerate(table):
        if row["mean"] is not None:
            log.log(place, {f"ladder/{row['name']}": row["mean"]})
