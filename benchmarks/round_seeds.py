"""Rounds in variants over several seeds: means with Student's 95 % intervals.

A part of `eight_rounds.py`. A seed is one value: passages, edits, adapters and held-out
items are all its own. Differences are taken seed by seed, of variants that had the same
passages.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seal_jax.analysis import stats
from seal_jax.runtime import formatting

# SEAL calls its rounds unstable: how far is the last from an early one? Not from the
# best, which is chosen, so that noise alone would be a fall.
EARLY = 2

# What is told of each variant: from its figures of one seed (`eight_rounds.describe`).
MEASURES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "first": lambda run: list(run["means"].values())[1],
    "last": lambda run: _rounds(run)[-1],
    "since": lambda run: _since(_rounds(run)),
    "fall": lambda run: _fall(_rounds(run)),
    "over_seal": lambda run: run["over_seal"] and run["over_seal"]["diff"],
    "alike": lambda run: run["novelty_last"]["jaccard3"],
    "novel": lambda run: run["novelty_last"]["novel3"],
    "entropy": lambda run: run["entropy"][-1],
    "kept": lambda run: sum(run["kept"]) / len(run["kept"]),
}
HEADS = {
    "first": "round 1",
    "last": "last round",
    "since": f"last - round {EARLY}",
    "fall": "worst fall",
    "over_seal": "last - seal's",
    "alike": "edits alike, last",
    "novel": "novel, last",
    "entropy": "entropy, last",
    "kept": "kept a round",
}


def _rounds(run: Mapping[str, Any]) -> list[float]:
    """Means of the rows after the rounds."""
    return list(run["means"].values())[1:]


def _since(rounds: Sequence[float]) -> float | None:
    """The last round minus an early one that was not chosen; None if it is that one."""
    return rounds[-1] - rounds[EARLY - 1] if len(rounds) > EARLY else None


def _fall(rounds: Sequence[float]) -> float | None:
    """The most that was lost from one round to the next, 0 or more; None: one round.

    The most of several noisy differences: it is above 0 where nothing falls, so that it
    is compared with that of other variants, not with 0.
    """
    falls = [a - b for a, b in itertools.pairwise(rounds)]
    return max(0.0, *falls) if falls else None


def over(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each variant's measures over its seeds.

    Args:
      runs: by seed, then by variant; a variant may be in some of them.

    Returns:
      of each variant its `seeds`, and of each measure, and of the mean `by_round` (0:
      before any), `values`, `mean` and `half`, the half width of Student's 95 %
      interval; null where there are too few. `plateaus`:
      the round of each seed's plateau, null where it rose to its end; `rising` counts
      those. They have no mean: of the latter the round is only known to be later.
    """
    names = dict.fromkeys(name for variants in runs.values() for name in variants)
    made = {}
    for name in names:
        own = [variants[name] for variants in runs.values() if name in variants]
        plateaus = [run["plateau"] for run in own]
        told = {"plateaus": plateaus, "rising": plateaus.count(None)}
        by_round = zip(*(run["means"].values() for run in own), strict=False)
        told["by_round"] = [_summed(values) for values in by_round]
        made[name] = {"seeds": len(own), **told} | {
            measure: _summed([read(run) for run in own])
            for measure, read in MEASURES.items()
        }
    return made


def _summed(values: Sequence[float | None]) -> dict[str, Any]:
    low, high = stats.student(values)
    half = None if low is None or high is None else (high - low) / 2
    return {"values": list(values), "mean": stats.mean(values), "half": half}


def table(over_seeds: Mapping[str, Mapping[str, Any]]) -> str:
    """For people: the mean by round, then the measures; mean and half width."""
    rounds = max(len(made["by_round"]) for made in over_seeds.values())
    means = [
        (name, *(_shown(r) for r in made["by_round"]))
        + (formatting.MISSING,) * (rounds - len(made["by_round"]))
        for name, made in over_seeds.items()
    ]
    rows = [
        (
            *(name, str(made["seeds"])),
            *(_shown(made[measure]) for measure in MEASURES),
            " ".join(str(r) for r in made["plateaus"] if r is not None),
            str(made["rising"]),
        )
        for name, made in over_seeds.items()
    ]
    heads = ("variant", "seeds", *HEADS.values(), "plateaus", "without")
    numbers = ("before", *(str(i) for i in range(1, rounds)))
    by_round = formatting.ruled(("variant", *numbers), means)
    return f"{by_round}\n\n{formatting.ruled(heads, rows)}"


def _shown(made: Mapping[str, Any]) -> str:
    mean = formatting.number(made["mean"])
    return (
        mean if made["half"] is None else f"{mean} ± {formatting.number(made['half'])}"
    )
