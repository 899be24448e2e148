"""What many seeds say together: the ladder with intervals over seeds; no jax.

A seed is here what a passage is in a single run: `items` of the summary are seeds, and
a paired difference is over them.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seal_jax.analysis import novelty_measures, stats
from seal_jax.rounds import ladder_rows
from seal_jax.tasks import self_edit

KIND = "over_seeds"


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of seeds as `one_seed` tells them, rows in the ladder's order."""
    names = list(seeds[0]["rows"])
    means = {
        name: [stats.mean(seed["rows"][name]["values"]) for seed in seeds]
        for name in names
    }
    return {
        "kind": KIND,
        "ladder": [_row(name, means[name], seeds) for name in names],
        "paired": [
            _pair(high, low, seeds) for low, high in itertools.combinations(names, 2)
        ],
        "items": [
            {"item": f"seed {seed['seed']}", **{n: means[n][i] for n in names}}
            for i, seed in enumerate(seeds)
        ],
        "rounds": [_round(seeds, i) for i in range(len(seeds[0]["rounds"]))],
        "control": [],
        "stopped": None,
    }


def _row(
    name: str, means: Sequence[float | None], seeds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    mean, se = stats.mean_se_of_any(means)
    low, high = stats.student(means)
    rows = [seed["rows"][name] for seed in seeds]
    return {
        "name": name,
        "mean": mean,
        "se": se,
        "low": low,
        "high": high,
        "n": sum(value is not None for value in means),
        "empty_rate": stats.mean(row["empty_rate"] for row in rows),
        "missing": 0,
        "failed": sum(row["failed"] for row in rows),
        "refused": sum(row["refused"] for row in rows),
    }


def _pair(high: str, low: str, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row minus another: the mean over seeds of each seed's paired difference."""
    diffs = []
    for seed in seeds:
        pairs = zip(
            seed["rows"][high]["values"], seed["rows"][low]["values"], strict=True
        )
        both = [a - b for a, b in pairs if a is not None and b is not None]
        diffs.append(stats.mean(both))
    diff, se = stats.mean_se_of_any(diffs)
    start, end = stats.student(diffs)
    measured = [d for d in diffs if d is not None]
    return {
        "a": high,
        "b": low,
        "diff": diff,
        "se": se,
        "z": diff / se if diff is not None and se else None,
        "low": start,
        "high": end,
        "above_0": sum(d > 0 for d in measured),
    }


# Of a seed's round, what its policy wrote: told of each seed as well.
WRITTEN = ("entropy", "diversity")


def _round(seeds: Sequence[Mapping[str, Any]], index: int) -> dict[str, Any]:
    """A round of all seeds: means of means, sums of counts."""
    lines = [seed["rounds"][index] for seed in seeds]
    merged: dict[str, Any] = {}
    for key in lines[0]:
        if key in WRITTEN:
            continue
        values = [line[key] for line in lines]
        if key == "round":
            merged[key] = values[0]
        elif key.endswith(("_mean", "_rate")):
            merged[key] = stats.mean(values)
        elif key == "refused":
            merged[key] = {
                why: sum(v.get(why, 0) for v in values)
                for why in sorted({why for v in values for why in v})
            }
        else:
            merged[key] = sum(values)
    # Seeds that an older version finished have none of these.
    told = [
        {"seed": seed["seed"], **{key: line[key] for key in WRITTEN}}
        for seed, line in zip(seeds, lines, strict=True)
        if all(key in line for key in WRITTEN)
    ]
    if not told:
        return merged
    return merged | {
        "entropy": stats.mean(one["entropy"] for one in told),
        "diversity": {
            name: stats.mean(one["diversity"][name] for one in told)
            for name in told[0]["diversity"]
        },
        "by_seed": told,
    }


def written_line(
    nats_PE: np.ndarray, tokens_PE: np.ndarray, texts: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """What a seed's policy wrote in a round, the texts of each passage.

    Entropy in nats a token, as `proposals.entropy` has it, and
    `novelty_measures.diversity`.
    """
    return {
        "entropy": float(nats_PE.astype(np.float64).sum() / tokens_PE.sum()),
        "diversity": novelty_measures.diversity(texts),
    }


def row(
    right_PES: np.ndarray,
    empty_PES: np.ndarray,
    failed_PES: np.ndarray,
    refused_PE: np.ndarray,
    asked_P: np.ndarray,
) -> dict[str, Any]:
    """A row of one seed's ladder, by counts of answers; see `ladder.row`.

    `values`: of each passage the mean over its trials; None where all were refused.
    """
    tried_PES = np.broadcast_to(~refused_PE[:, :, None], right_PES.shape)
    return {
        "values": _shares(right_PES, tried_PES, asked_P),
        "empty_rate": _empty_rate(empty_PES, tried_PES & ~failed_PES, asked_P),
        "failed": int((failed_PES & tried_PES).sum()),
        "refused": int(refused_PE.sum()),
        "trainings": int(tried_PES.sum()),
    }


def round_line(
    right_PES: np.ndarray,
    empty_PES: np.ndarray,
    failed_PES: np.ndarray,
    refused_PE: np.ndarray,
    baseline_P: np.ndarray,
    kept_PK: np.ndarray,
    asked_P: np.ndarray,
) -> dict[str, Any]:
    """A round of one seed in numbers; see `summary.scores_line`."""
    tried_PES = np.broadcast_to(~refused_PE[:, :, None], right_PES.shape)
    reward_PE = right_PES.mean(-1) / asked_P[:, None]
    tried_PE = ~refused_PE
    best = [
        float(rewards[tried].max())
        for rewards, tried in zip(reward_PE, tried_PE, strict=True)
        if tried.any()
    ]
    kept = [
        float(reward_PE[p, e]) for p, row in enumerate(kept_PK) for e in row if e >= 0
    ]
    refused = int(refused_PE.sum())
    return {
        "baseline_mean": float((baseline_P / asked_P).mean()),
        "sampled_mean": stats.mean(reward_PE[tried_PE].tolist()),
        "best_mean": stats.mean(best),
        "kept_mean": stats.mean(kept),
        "kept": len(kept),
        "refused": {self_edit.BLANK: refused} if refused else {},
        "trainings": int(tried_PES.sum()),
        "failed_adapters": int((failed_PES & tried_PES).sum()),
        "missing_judgements": 0,
        "empty_rate": _empty_rate(empty_PES, tried_PES & ~failed_PES, asked_P),
    }


def _shares(
    right_PES: np.ndarray, tried_PES: np.ndarray, asked_P: np.ndarray
) -> list[float | None]:
    trials_P = tried_PES.sum((1, 2))
    right_P = np.where(tried_PES, right_PES, 0).sum((1, 2))
    return [
        float(right / (trials * asked)) if trials else None
        for right, trials, asked in zip(right_P, trials_P, asked_P, strict=True)
    ]


def _empty_rate(
    empty_PES: np.ndarray, answered_PES: np.ndarray, asked_P: np.ndarray
) -> float | None:
    answers = float((answered_PES.sum((1, 2)) * asked_P).sum())
    return float(empty_PES[answered_PES].sum()) / answers if answers else None


def row_names(wanted: Sequence[str], rounds: int) -> list[str]:
    """All rows of a ladder in order, the base and the rounds among them."""
    after = [ladder_rows.round_name(i) for i in range(1, rounds + 1)]
    order = ["base", "passage_only", "sentence_split", "self_edits"]
    order += [ladder_rows.CONTROL, *after, "oracle"]
    return [name for name in order if name in wanted or name in after]
