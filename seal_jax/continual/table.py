"""A continual run's numbers: from its journal to the lines of its summary."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from seal_jax.analysis import stats
from seal_jax.continual.settings import MERGE

UNEDITED = "un-edited"

type Scores = list[list[float | None]]


def report(entry: dict[str, Any], before: dict[str, Any]) -> dict[str, float]:
    """One step in numbers: the passages learned so far, the last, general ability."""
    cells = [means(own) for own in entry["scores"]]
    base = [means(own)[: len(cells[0])] for own in before["scores"]]
    return {
        "seen": statistics.fmean(x for own in cells for x in own),
        "seen_base": statistics.fmean(x for own in base for x in own),
        "fresh": statistics.fmean(own[-1] for own in cells),
        "general": statistics.fmean(_general(entry)),
        "scale": statistics.fmean(entry["scales"]),
    }


def means(scores: Scores) -> list[float]:
    """The mean score of each passage, over its questions that were judged."""
    return [statistics.fmean(x for x in own if x is not None) for own in scores]


def _general(entry: dict[str, Any]) -> list[float]:
    """Each sequence's mean over the probes' questions."""
    return [_pooled(own) for own in entry["general"]]


def _pooled(scores: Scores) -> float:
    return statistics.fmean(x for own in scores for x in own if x is not None)


def row(
    arm: str, before: dict[str, Any], steps: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One arm's numbers, for each sequence.

    `cells`: its matrix; `learned`: right after their own edit, mean over passages;
    `kept`: the earlier passages after the last edit; `final`: all of them.
    """
    count = len(before["scores"])
    cells = [
        [means(before["scores"][s]), *(means(entry["scores"][s]) for entry in steps)]
        for s in range(count)
    ]
    return {
        "name": arm,
        "cells": cells,
        "learned": [statistics.fmean(r[-1] for r in own[1:]) for own in cells],
        "kept": [statistics.fmean(own[-1][:-1]) for own in cells],
        "final": [statistics.fmean(own[-1]) for own in cells],
        "general": [_general(entry) for entry in steps],
        "steps": steps,
    }


def estimate(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over sequences, its standard error, a bootstrap interval of 95 %."""
    mean, se = stats.mean_se(values)
    low, high = stats.interval(values)
    return {"mean": mean, "se": se, "low": low, "high": high}


def table_row(row: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """One arm's line of the summary; see `row`."""
    steps = row["steps"]
    general = [_pooled(before["general"])] * len(row["cells"])
    scales = [scale for entry in steps for scale in entry["scales"]]
    taken = [scale for scale in scales if scale]
    return {
        "name": row["name"],
        "sequences": len(row["cells"]),
        "matrix": _matrix(row["cells"]),
        **{key: estimate(row[key]) for key in ("learned", "kept", "final")},
        "general_before": estimate(general),
        "general_after": estimate(row["general"][-1]),
        "general": [statistics.fmean(own) for own in (general, *row["general"])],
        "adapters": sum(entry["adapters"] for entry in steps),
        "failed": sum(entry["failed"] for entry in steps),
        "tokens": sum(entry["tokens"] for entry in steps),
        "answers": sum(entry["asked"] for entry in steps),
        "seconds": sum(entry["seconds"] for entry in steps),
        "committed": len(taken) / len(scales),
        "scale": statistics.fmean(taken) if taken else 0.0,
    }


def _matrix(cells: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Means and deviations over sequences."""

    def each(fn: Callable[[Sequence[float]], float]) -> list[list[Any]]:
        return [
            [fn(values) for values in zip(*rows, strict=True)]
            for rows in zip(*cells, strict=True)
        ]

    several = len(cells) > 1
    return {
        "means": each(statistics.fmean),
        "deviations": each(statistics.stdev) if several else None,
    }


def pairs(
    rows: Sequence[dict[str, Any]], before: dict[str, Any]
) -> list[dict[str, Any]]:
    """Differences over the sequences: to the un-edited model, and to merging."""
    general = _pooled(before["general"])
    values = {
        UNEDITED: {
            "final": [statistics.fmean(means(own)) for own in before["scores"]],
            "general": [general] * len(before["scores"]),
        }
    } | {r["name"]: {"final": r["final"], "general": r["general"][-1]} for r in rows}
    others = [UNEDITED, *([MERGE] if _merges(rows) else [])]
    made = []
    for what, other, r in itertools.product(("final", "general"), others, rows):
        if r["name"] == other:
            continue
        a, b = values[r["name"]][what], values[other][what]
        diff, se, z = stats.paired(a, b)
        low, high = stats.interval([x - y for x, y in zip(a, b, strict=True)])
        made.append(
            {"a": r["name"], "b": other, "what": what, "diff": diff, "se": se}
            | {"z": z, "low": low, "high": high, "n": len(a)}
        )
    return made


def _merges(rows: Sequence[dict[str, Any]]) -> bool:
    return any(r["name"] == MERGE for r in rows)
