"""Rounds in variants over several seeds: means with Student's 95 % intervals.

A part of `eight_rounds.py`. A seed is one value: passages, edits, adapters and held-out
items are all its own. Differences are taken seed by seed, of variants that had the same
passages.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seal_jax.analysis import stats
from seal_jax.runtime import formatting

# What is told of each variant: from its figures of one seed (`eight_rounds.describe`).
# How far the policy fell from its best round by the last: SEAL calls its rounds
# unstable.
MEASURES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "first": lambda run: list(run["means"].values())[1],
    "best": lambda run: max(_rounds(run)),
    "last": lambda run: _rounds(run)[-1],
    "fall": lambda run: max(_rounds(run)) - _rounds(run)[-1],
    "plateau": lambda run: run["plateau"],
    "over_seal": lambda run: run["over_seal"] and run["over_seal"]["diff"],
    "alike": lambda run: run["novelty_last"]["jaccard3"],
    "novel": lambda run: run["novelty_last"]["novel3"],
    "kept": lambda run: sum(run["kept"]) / len(run["kept"]),
}
HEADS = {
    "first": "round 1",
    "best": "best round",
    "last": "last round",
    "fall": "fall from the best",
    "plateau": "plateau",
    "over_seal": "last - seal's",
    "alike": "edits alike, last",
    "novel": "novel, last",
    "kept": "kept a round",
}


def _rounds(run: Mapping[str, Any]) -> list[float]:
    """Means of the rows after the rounds."""
    return list(run["means"].values())[1:]


def over(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each variant's measures over its seeds.

    Args:
      runs: by seed, then by variant; a variant may be in some of them.

    Returns:
      of each variant its `seeds`, and of each measure `values`, `mean` and `half`, the
      half width of Student's 95 % interval; null where there are too few.
    """
    names = dict.fromkeys(name for variants in runs.values() for name in variants)
    made = {}
    for name in names:
        own = [variants[name] for variants in runs.values() if name in variants]
        made[name] = {"seeds": len(own)} | {
            measure: _summed([read(run) for run in own])
            for measure, read in MEASURES.items()
        }
    return made


def _summed(values: Sequence[float | None]) -> dict[str, Any]:
    low, high = stats.student(values)
    half = None if low is None or high is None else (high - low) / 2
    return {"values": list(values), "mean": stats.mean(values), "half": half}


def table(over_seeds: Mapping[str, Mapping[str, Any]]) -> str:
    """For people: mean and half width."""
    rows = [
        (name, str(made["seeds"]), *(_shown(made[measure]) for measure in MEASURES))
        for name, made in over_seeds.items()
    ]
    return formatting.ruled(("variant", "seeds", *HEADS.values()), rows)


def _shown(made: Mapping[str, Any]) -> str:
    mean = formatting.number(made["mean"])
    return (
        mean if made["half"] is None else f"{mean} ± {formatting.number(made['half'])}"
    )
