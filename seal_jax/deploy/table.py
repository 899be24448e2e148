"""A run's numbers: from its journal to the lines of its summary.

All are shares of questions answered right, 0..1, of a stream on a night; None where
there was nothing to ask. Where an arm chooses, half of the users' questions of each
context decide, and all rows show the other half (`continual.halves`).
"""

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from seal_jax.analysis import stats
from seal_jax.continual import halves
from seal_jax.continual.entries import Scores
from seal_jax.continual.halves import AllHalves
from seal_jax.continual.table import estimate
from seal_jax.deploy.entries import BaseEntry, NightEntry, Step
from seal_jax.deploy.sessions import Streams
from seal_jax.deploy.settings import EDITS, NONE, Deploy

# Of a night: the day's own questions without its contexts, those of all days before,
# the day's in other words, what nobody asked that day, and the day's with the contexts
# in view; the probes; nats a token from the base.
MEASURES = (
    "learned",
    "kept",
    "rephrased",
    "unasked",
    "in_context",
    "general",
    "drift",
)
COSTS = ("adapters", "tokens", "teacher_tokens", "written_tokens", "seconds")

# By night, then by stream.
type Nights = list[list[float | None]]


@dataclasses.dataclass(frozen=True)
class ArmRow:
    """One arm's numbers: each of `MEASURES` by night and stream; what it cost.

    `final`: the users' questions of all days after the last night, by stream.
    """

    name: str
    measured: dict[str, Nights]
    final: list[float | None]
    steps: Sequence[Step]


def mean(scores: Iterable[Sequence[float | None]]) -> float | None:
    """Over all questions that were judged."""
    return stats.mean([x for row in scores for x in row if x is not None])


def arm_row(
    arm: str, parts: AllHalves, streams: Streams, steps: Sequence[Step]
) -> ArmRow:
    """One arm's numbers from its days."""
    nights = [_of_night(step, parts, streams, t) for t, step in enumerate(steps, 1)]
    last = steps[-1]["morning"]["asked"]
    return ArmRow(
        arm,
        {name: [values[name] for values in nights] for name in MEASURES},
        [mean(_reported(own, p)) for own, p in zip(last, parts, strict=True)],
        steps,
    )


def _of_night(
    step: Step, parts: AllHalves, streams: Streams, t: int
) -> dict[str, list[float | None]]:
    """Each measure after night t, by stream."""
    morning, found = step["morning"], {name: [] for name in MEASURES}
    for s, own in enumerate(parts):
        before = sum(streams.lengths[s][: t - 1])
        until = before + streams.lengths[s][t - 1]
        today = own[before:until]
        asked = _reported(morning["asked"][s], own)
        found["learned"].append(mean(asked[before:until]))
        found["kept"].append(mean(asked[:before]))
        # Of a context that has any, one for each of the users' questions, in their
        # order.
        other = zip(morning["rephrased"][s], today, strict=False)
        there = [(row, half) for row, half in other if row]
        rows, halved = [row for row, _ in there], [half for _, half in there]
        found["rephrased"].append(mean(_reported(rows, halved)) if rows else None)
        found["unasked"].append(mean(morning["unasked"][s]))
        found["in_context"].append(mean(_reported(step["day"]["viewed"][s], today)))
        found["general"].append(mean(morning["general"][s]))
        found["drift"].append(morning["drift"][s])
    return found


def _reported(scores: Scores, parts: Sequence[halves.Halves]) -> Scores:
    return halves.of_scores(scores, parts, "reporting")


def report(step: Step, parts: AllHalves, streams: Streams, t: int) -> dict[str, float]:
    """One night in numbers, without those that there is nothing of."""
    found = _of_night(step, parts, streams, t)
    means = {name: stats.mean(found[name]) for name in MEASURES}
    return {name: value for name, value in means.items() if value is not None}


def still(streams: Streams, before: BaseEntry) -> list[Step]:
    """The days of the row that learns nothing, from what the base was asked once."""
    return [_still(streams, before, t) for t in range(1, streams.nights + 1)]


def _still(streams: Streams, before: BaseEntry, t: int) -> Step:
    ends = [sum(lengths[:t]) for lengths in streams.lengths]
    begins = [sum(lengths[: t - 1]) for lengths in streams.lengths]

    def today[T](kind: Sequence[Sequence[T]]) -> list[list[T]]:
        return [[*own[a:b]] for own, a, b in zip(kind, begins, ends, strict=True)]

    asked = [[*own[:b]] for own, b in zip(before["asked"], ends, strict=True)]
    last, count = t == streams.nights, len(ends)
    return Step(
        day={
            "answers": today(before["answers"]),
            "viewed": today(before["viewed"]),
            "questions": 0,
            "seconds": 0.0,
        },
        write={"texts": [], "dreams": [], "written_tokens": 0, "seconds": 0.0},
        teach={
            "logged": [],
            "dreams": [],
            "dropped": 0,
            "written_tokens": 0,
            "seconds": 0.0,
        },
        night=nothing(count),
        morning={
            "answers": [],
            "asked": asked,
            "rephrased": today(before["rephrased"]),
            "unasked": today(before["unasked"]),
            "general": [before["general"]] * count,
            "drift": [0.0] * count,
            # Once for all days.
            "questions": before["questions"] * last,
            "seconds": before["seconds"] * last,
        },
    )


def nothing(count: int) -> NightEntry:
    """A night in which none of so many streams learns anything."""
    return {
        "scales": [0.0] * count,
        "gates": [[] for _ in range(count)],
        "losses": [],
        "failed": 0,
        "refused": 0,
        "cut": 0,
        "adapters": 0,
        "tokens": 0,
        "teacher_tokens": 0,
        "seconds": 0.0,
    }


# The summary


def summary(exp: Deploy, streams: Streams, rows: Sequence[ArmRow]) -> dict[str, Any]:
    """summary.json of the run."""
    return {
        "kind": "deploy",
        "streams": len(streams.days),
        "nights": streams.nights,
        "sessions": sum(map(sum, streams.lengths)),
        # Whether the answers in a log stood as gold, there being none.
        "gold": "logged" if streams.logged else "given",
        "chooses": exp.chooses,
        "arms": [_table_row(row) for row in rows],
        "paired": _pairs(rows),
    }


def _table_row(row: ArmRow) -> dict[str, Any]:
    """One arm's line: over all nights, by night, and its cost by night."""
    nights = [_costs(step) for step in row.steps]
    scales = [x for step in row.steps for x in step["night"]["scales"]]
    taken = [x for x in scales if x]
    return {
        "name": row.name,
        **{name: _estimate(_by_stream(row.measured[name])) for name in MEASURES},
        "final": _estimate(row.final),
        # What is left at the end, not what was there on the way.
        "kept": _estimate(row.measured["kept"][-1]),
        "general": _estimate(row.measured["general"][-1]),
        "drift": _estimate(row.measured["drift"][-1]),
        "by_night": {
            name: [_mean_se(values) for values in row.measured[name]]
            for name in MEASURES
        },
        "costs": {name: [night[name] for night in nights] for name in COSTS},
        **{name: _sum([night[name] for night in nights]) for name in COSTS},
        "answers": sum(
            step[part]["questions"] for step in row.steps for part in _ASKING
        ),
        "failed": sum(step["night"]["failed"] for step in row.steps),
        "refused": sum(step["night"]["refused"] for step in row.steps),
        "cut": sum(step["night"]["cut"] for step in row.steps),
        "dropped": sum(step["teach"]["dropped"] for step in row.steps),
        "committed": len(taken) / len(scales),
        "scale": statistics.fmean(taken) if taken else 0.0,
    }


_ASKING = ("day", "morning")


def _costs(step: Step) -> dict[str, Any]:
    """What one night cost: not the day, which goes on anyway, nor the questions."""
    night = step["night"]
    parts = (step["write"], step["teach"], night)
    return {
        "adapters": night["adapters"],
        "tokens": night["tokens"],
        "teacher_tokens": night["teacher_tokens"],
        "written_tokens": _written(step),
        "seconds": sum(part["seconds"] for part in parts),
    }


def _written(step: Step) -> int | None:
    """Tokens that the models drew in a night; None: the unit is older than the count.

    Self-edits and dreams, the answers to dreams, mixed ones, and those that adapters
    practise on. What is said by day is said anyway.
    """
    write, teach = (
        # Of older runs: `tokens`, or none.
        step[part].get("written_tokens", step[part].get("tokens"))
        for part in ("write", "teach")
    )
    if write is None or teach is None:
        return None
    waves = (told for pool in step["night"].get("practice", ()) for told in pool)
    return write + teach + sum(told["drawn"] for told in waves)


def _sum(values: Sequence[float | None]) -> float | None:
    """Of all; None where one is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _by_stream(nights: Nights) -> list[float | None]:
    """Each stream's mean over its nights."""
    return [stats.mean(values) for values in zip(*nights, strict=True)]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _estimate(values: Sequence[float | None]) -> dict[str, Any] | None:
    """See `continual.table.estimate`; None: nothing was asked."""
    known = _known(values)
    return estimate(known) if known else None


def _mean_se(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = _known(values)
    if not known:
        return None
    mean, se = stats.mean_se(known)
    return {"mean": mean, "se": se}


def _pairs(rows: Sequence[ArmRow]) -> list[dict[str, Any]]:
    """Differences over the streams: to learning nothing, and to statements."""
    values: dict[str, dict[str, list[float | None]]] = {
        row.name: {
            "learned": _by_stream(row.measured["learned"]),
            "final": row.final,
            "rephrased": _by_stream(row.measured["rephrased"]),
            "unasked": _by_stream(row.measured["unasked"]),
            "general": row.measured["general"][-1],
        }
        for row in rows
    }
    others = [name for name in (NONE, EDITS) if name in values]
    keys = next(iter(values.values()))
    lines = []
    for key, other, name in itertools.product(keys, others, values):
        if name == other or (name == NONE and other == EDITS):
            continue
        both = [
            (a, b)
            for a, b in zip(values[name][key], values[other][key], strict=True)
            if a is not None and b is not None
        ]
        if not both:
            continue
        a, b = [x for x, _ in both], [y for _, y in both]
        diff, se, z = stats.paired(a, b)
        low, high = stats.interval([x - y for x, y in both])
        lines.append(
            {"a": name, "b": other, "what": key, "diff": diff, "se": se}
            | {"z": z, "low": low, "high": high, "n": len(both)}
        )
    return lines
