"""A continual run's numbers: from its journal to the lines of its summary."""

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from seal_jax.analysis import stats
from seal_jax.continual.entries import BaseEntry, Scores, StepEntry
from seal_jax.continual.settings import MERGE

UNEDITED = "un-edited"


@dataclasses.dataclass(frozen=True)
class ArmRow:
    """One arm's numbers, for each sequence; shares of questions answered right, 0..1.

    `cells`: its matrix; `learned`: right after their edit, mean over passages; `kept`:
    the earlier passages after the last edit; `final`: all of them. `general`: the
    probes after each step, by step first.
    """

    name: str
    cells: list[list[list[float]]]
    learned: list[float]
    kept: list[float]
    final: list[float]
    general: list[list[float]]
    steps: Sequence[StepEntry]


def report(entry: StepEntry, before: BaseEntry) -> dict[str, float]:
    """One step in numbers: the passages learned so far, the last, general ability."""
    cells = [means(scores) for scores in entry["scores"]]
    base = [means(scores)[: len(cells[0])] for scores in before["scores"]]
    return {
        "seen": statistics.fmean(x for row in cells for x in row),
        "seen_base": statistics.fmean(x for row in base for x in row),
        "fresh": statistics.fmean(row[-1] for row in cells),
        "general": statistics.fmean(_general(entry)),
        "scale": statistics.fmean(entry["scales"]),
    }


def means(scores: Scores) -> list[float]:
    """The mean score of each passage, over its questions that were judged."""
    return [statistics.fmean(x for x in row if x is not None) for row in scores]


def _general(entry: StepEntry) -> list[float]:
    """Each sequence's mean over the probes' questions."""
    return [_pooled(scores) for scores in entry["general"]]


def _pooled(scores: Scores) -> float:
    return statistics.fmean(x for row in scores for x in row if x is not None)


def arm_row(arm: str, before: BaseEntry, steps: Sequence[StepEntry]) -> ArmRow:
    """One arm's numbers from its steps."""
    matrices = [
        [means(before["scores"][s]), *(means(entry["scores"][s]) for entry in steps)]
        for s in range(len(before["scores"]))
    ]
    return ArmRow(
        arm,
        cells=matrices,
        learned=[statistics.fmean(row[-1] for row in rows[1:]) for rows in matrices],
        kept=[statistics.fmean(rows[-1][:-1]) for rows in matrices],
        final=[statistics.fmean(rows[-1]) for rows in matrices],
        general=[_general(entry) for entry in steps],
        steps=steps,
    )


def estimate(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over sequences, its standard error, a bootstrap interval of 95 %."""
    mean, se = stats.mean_se(values)
    low, high = stats.interval(values)
    return {"mean": mean, "se": se, "low": low, "high": high}


def table_row(row: ArmRow, before: BaseEntry) -> dict[str, Any]:
    """One arm's line of the summary."""
    general = [_pooled(before["general"])] * len(row.cells)
    scales = [scale for entry in row.steps for scale in entry["scales"]]
    taken = [scale for scale in scales if scale]
    return {
        "name": row.name,
        "sequences": len(row.cells),
        "matrix": _matrix(row.cells),
        "learned": estimate(row.learned),
        "kept": estimate(row.kept),
        "final": estimate(row.final),
        "general_before": estimate(general),
        "general_after": estimate(row.general[-1]),
        "general": [statistics.fmean(values) for values in (general, *row.general)],
        "adapters": sum(entry["adapters"] for entry in row.steps),
        "failed": sum(entry["failed"] for entry in row.steps),
        "refused": sum(entry["refused"] for entry in row.steps),
        "cut": sum(entry["cut"] for entry in row.steps),
        "tokens": sum(entry["tokens"] for entry in row.steps),
        "answers": sum(entry["asked"] for entry in row.steps),
        "seconds": sum(entry["seconds"] for entry in row.steps),
        "committed": len(taken) / len(scales),
        "scale": statistics.fmean(taken) if taken else 0.0,
    }


def _matrix(cells: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Means and deviations over sequences."""

    def each(fn: Callable[[Sequence[float]], float]) -> list[list[float]]:
        return [
            [fn(values) for values in zip(*rows, strict=True)]
            for rows in zip(*cells, strict=True)
        ]

    return {
        "means": each(statistics.fmean),
        "deviations": each(statistics.stdev) if len(cells) > 1 else None,
    }


def pairs(rows: Sequence[ArmRow], before: BaseEntry) -> list[dict[str, Any]]:
    """Differences over the sequences: to the un-edited model, and to merging."""
    general = _pooled(before["general"])
    values = {
        UNEDITED: {
            "final": [statistics.fmean(means(scores)) for scores in before["scores"]],
            "general": [general] * len(before["scores"]),
        }
    } | {r.name: {"final": r.final, "general": r.general[-1]} for r in rows}
    others = [UNEDITED, *([MERGE] if any(r.name == MERGE for r in rows) else [])]
    lines = []
    for what, other, r in itertools.product(("final", "general"), others, rows):
        if r.name == other:
            continue
        a, b = values[r.name][what], values[other][what]
        diff, se, z = stats.paired(a, b)
        low, high = stats.interval([x - y for x, y in zip(a, b, strict=True)])
        lines.append(
            {"a": r.name, "b": other, "what": what, "diff": diff, "se": se}
            | {"z": z, "low": low, "high": high, "n": len(a)}
        )
    return lines
