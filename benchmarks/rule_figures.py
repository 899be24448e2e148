"""Figures of `inner_rules.py`: means, differences and costs of its cells.

Numbers in, numbers out; nothing is trained here.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seal_jax.analysis import stats

# What a rule's rate is chosen by.
BY_ACCURACY, BY_BOTH = CRITERIA = ("accuracy", "both")
# Of an adapter for each passage: shares of questions answered right.
SINGLE = ("own", "rephrased", "asked", "unasked", "general")
# Of a stream, one value each.
STREAMS = ("right_after", "after_8", "rephrased_after_8", "general_after_8")
# Rules that the others are compared with.
REFERENCES = ("edits", "quiz")
# Of a cell; seconds of the processors, then of the clock.
COUNTS = ("tokens", "teacher_tokens", "sampled", "optimizer_steps", "written_tokens")
CPU_SECONDS = ("train_cpu_seconds", "ask_cpu_seconds")
COSTS = (*COUNTS, *CPU_SECONDS, "train_seconds", "ask_seconds", "write_seconds")

type Values = Mapping[str, list[float | None]]


def mean_of(scores: Iterable[Iterable[float | None]]) -> float | None:
    """The share of all questions that were answered right."""
    return stats.mean(value for own in scores for value in own)


def single_values(
    passages: Sequence[Mapping[str, Any]], asked: Sequence[Sequence[bool]]
) -> Values:
    """`SINGLE` by passage; `asked` and `unasked` None where there is no such fact."""

    def facts(which: bool) -> list[float | None]:
        return [
            stats.mean(
                score
                for score, put in zip(own["own"][0], known, strict=True)
                if put == which
            )
            for own, known in zip(passages, asked, strict=True)
        ]

    plain = ("own", "rephrased", "general")
    made = {part: [mean_of(own[part]) for own in passages] for part in plain}
    made |= {"asked": facts(True), "unasked": facts(False)}
    return {name: made[name] for name in SINGLE}


def stream_values(cell: Mapping[str, Any]) -> Values:
    """`STREAMS` by stream."""
    ends = cell["end"]
    return {
        "right_after": [mean_of(after) for after in cell["after"]],
        "after_8": [mean_of(end["own"]) for end in ends],
        "rephrased_after_8": [mean_of(end["rephrased"]) for end in ends],
        "general_after_8": [mean_of(end["general"]) for end in ends],
    }


def summarized(by_seed: Sequence[Values]) -> dict[str, Any]:
    """Each measure's mean and standard error over items, with Student's over seeds."""
    made = {}
    for name in by_seed[0]:
        mean, se = stats.mean_se_of_any(v for values in by_seed for v in values[name])
        seeds = [stats.mean(values[name]) for values in by_seed]
        low, high = stats.student(seeds)
        made[name] = {"mean": mean, "se": se, "low": low, "high": high, "seeds": seeds}
    return made


def differences(a: Sequence[Values], b: Sequence[Values]) -> dict[str, Any]:
    """a - b of each measure: paired over items, with Student's interval over seeds."""
    made = {}
    for name in a[0]:
        pairs = [
            [
                None if x is None or y is None else x - y
                for x, y in zip(one[name], other[name], strict=True)
            ]
            for one, other in zip(a, b, strict=True)
        ]
        diff, se = stats.mean_se_of_any(v for own in pairs for v in own)
        low, high = stats.student([stats.mean(own) for own in pairs])
        made[name] = {"diff": diff, "se": se, "low": low, "high": high}
    return made


def chosen(found: Mapping[float, Mapping[str, float]], criterion: str) -> float:
    """The best of a rule's rates by their `own` and `general`; of equals the least."""

    def value(rate: float) -> float:
        own, general = found[rate]["own"], found[rate]["general"]
        return own if criterion == BY_ACCURACY else (own + general) / 2

    return max(sorted(found), key=value)


def mean_costs(cells: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Of one cell: means of counts, medians of seconds, in which programs compile."""
    made: dict[str, float | None] = {}
    for name in COSTS:
        own = [cell["cost"][name] for cell in cells if name in cell["cost"]]
        middle = statistics.median if name.endswith("seconds") else statistics.fmean
        made[name] = middle(own) if own else None
    return made
