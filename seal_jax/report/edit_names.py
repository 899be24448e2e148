"""How an edit of a run is called: ROUND/ITEM/EDIT."""

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Place:
    """An edit of a run: its round, its item's number, its own, its row."""

    round: int
    item: int
    edit: int
    row: dict[str, Any]

    @property
    def name(self) -> str:
        """As `seal-jax export --edit` takes it."""
        return f"{self.round}/{self.item}/{self.edit}"

    @property
    def id(self) -> str:
        """The item's id."""
        return item_id(self.row)


def places(rows: Sequence[dict[str, Any]]) -> list[Place]:
    """Every edit of an edits.jsonl, in order; items count from 0 in each round."""
    found: list[Place] = []
    item, before = 0, None
    for row in rows:
        here = row["round"], item_id(row)
        if before is None or before[0] != here[0]:
            item = 0
        elif before != here:
            item += 1
        before = here
        found.append(Place(row["round"], item, row["edit"], row))
    return found


def item_id(row: dict[str, Any]) -> str:
    """Of the passage or the task."""
    return str(row.get("passage_id") or row.get("task_id"))
