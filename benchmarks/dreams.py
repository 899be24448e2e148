"""What a gradient finds among many self-edits, none of them trained for it.

    python benchmarks/dreams.py runs/all_60 runs/all_61 runs/all_62 [--out]

reads finished runs in which all that was written was trained, with several seeds, and
`gradient` was measured beside the grade. For each round it asks what rewards choose by
the grade (`captured`), and what an item's best edit would have been worth, had only
some been trained: those that a filter likes, or some at random. Seeds that choose do
not judge: half of them choose, the others say what the chosen edit is worth, over all
ways to halve them. Figures are means over the runs, with the half width of Student's
95 % interval. Nothing is run.
"""

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import job_seeds
import numpy as np

from seal_jax.analysis import agreement
from seal_jax.runtime import command_line, files, formatting

TRAINED = 5
DRAWS = 200
PER_LINE = "gradient, mean of lines"


def measured(folder: str) -> list[list[Mapping[str, Any]]]:
    """The first round's edits by item, each as its row of edits.jsonl.

    Raises:
      ValueError: a run that is not finished, did not measure what is asked for, or
        whose edits were all refused.
      OSError: it cannot be read.
    """
    path = Path(folder)
    if not (path / "summary.json").is_file():
        raise ValueError(f"{folder}: no finished run; give others")
    items: dict[str, list[Mapping[str, Any]]] = {}
    for row in files.read_jsonl(path / "edits.jsonl"):
        if row["round"] == 1:
            items.setdefault(row["passage_id"], []).append(row)
    for row in itertools.chain(*items.values()):
        found = row["measured"]
        if not row["refused"] and not {"grade", "gradient"} <= found.keys():
            raise ValueError(
                f"{folder}: an edit has no grade or no gradient; give runs with "
                "select.compare=('gradient', ...) and no prefilter"
            )
    # An edit that was refused has no worth, and nothing is said of it: nor of an item
    # that has no other.
    valid = [[row for row in rows if not row["refused"]] for rows in items.values()]
    if not any(valid):
        raise ValueError(f"{folder}: no edit that was not refused; give others")
    return [rows for rows in valid if rows]


def scores(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """What a filter says of each edit; nan where it says nothing."""
    if name == PER_LINE:
        counts = np.array([len(row["lines"]) for row in rows])
        return scores(rows, "gradient") / counts
    values = [row["measured"].get(name, [None])[0] for row in rows]
    return np.array([np.nan if v is None else v for v in values])


def captured(items: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float | None]:
    """Of every reward the share of the gain to the best edit that it chooses."""
    names = dict.fromkeys(n for rows in items for r in rows for n in r["measured"])
    rewards = {
        name: [[row["measured"].get(name, []) for row in rows] for rows in items]
        for name in names
    }
    rewards[PER_LINE] = [
        [[None if np.isnan(v) else float(v)] for v in scores(rows, PER_LINE)]
        for rows in items
    ]
    return {
        name: None if found is None else found.captured
        for name, found in agreement.compare(rewards).items()
    }


def halves(seeds: int) -> list[tuple[list[int], list[int]]]:
    """All ways to have half of the seeds choose, and the others judge."""
    parts = itertools.combinations(range(seeds), seeds // 2)
    return [(list(part), [s for s in range(seeds) if s not in part]) for part in parts]


def chosen(
    grades_ES: np.ndarray,
    tried: Sequence[np.ndarray],
    *,
    choose: str = "mean",
    judge: str = "mean",
) -> float:
    """What the best of the tried edits is worth, less the mean edit.

    Args:
      grades_ES: of each edit and seed.
      tried: sets of edits, over which the mean is taken.
      choose, judge: what an edit's seeds come to, "mean" or "max".
    """
    gains = []
    for own, other in halves(grades_ES.shape[1]):
        by_E = getattr(np, choose)(grades_ES[:, own], axis=1)
        worth_E = getattr(np, judge)(grades_ES[:, other], axis=1)
        for edits in tried:
            values = np.round(by_E[edits], 12)
            # The first of equal ones, as rounds choose.
            gains.append(worth_E[edits[int(np.argmax(values))]] - worth_E.mean())
    return float(np.mean(gains))


def ranked(values: np.ndarray) -> np.ndarray:
    """Edits, the best first; what is not known comes last, equal ones as they stand."""
    return np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")


FILTERS = ("gradient", PER_LINE, "gradient_gold", "rubric")


def known(items: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Those of `FILTERS` that every item has a value of."""
    return [
        name
        for name in FILTERS
        if not any(np.isnan(scores(rows, name)).all() for rows in items)
    ]


def ways(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], rng: np.random.Generator
) -> dict[str, list]:
    """Sets of edits of an item that are trained, by the way they are found.

    `names`: of `FILTERS`, which choose.
    """
    count = len(rows)
    everyone = np.arange(count)

    def drawn(kept: np.ndarray) -> list[np.ndarray]:
        rest = np.setdiff1d(everyone, kept)
        more = min(TRAINED - len(kept), len(rest))
        return [
            np.sort([*kept, *rng.choice(rest, more, replace=False)])
            for _ in range(DRAWS)
        ]

    found = {
        "all trained": [everyone],
        f"{TRAINED} at random": drawn(everyone[:0]),
    }
    for name in names:
        order = ranked(scores(rows, name)).astype(int)
        found[f"best {TRAINED} by {name}"] = [np.sort(order[:TRAINED])]
        found[f"best 3 by {name}, 2 at random"] = drawn(order[:3])
        found[f"best 1 by {name}"] = [order[:1]]
    return found


def of_run(folder: str) -> dict[str, Any]:
    """All figures of one run."""
    items = measured(folder)
    names = known(items)
    gains: dict[str, list[float]] = {}
    objectives: dict[str, list[float]] = {}
    for p, rows in enumerate(items):
        grades_ES = np.array([row["measured"]["grade"] for row in rows], float)
        for name, tried in ways(rows, names, np.random.default_rng(p)).items():
            gains.setdefault(name, []).append(chosen(grades_ES, tried))
        everyone = [np.arange(len(rows))]
        for choose, judge in itertools.product(("mean", "max"), repeat=2):
            gain = chosen(grades_ES, everyone, choose=choose, judge=judge)
            objectives.setdefault(f"by {choose}, worth {judge}", []).append(gain)
    means = {name: float(np.mean(values)) for name, values in gains.items()}
    whole = means["all trained"]
    return {
        "captured": captured(items),
        "gains": means,
        "shares": {name: value / whole for name, value in means.items()},
        "objectives": {name: float(np.mean(v)) for name, v in objectives.items()},
        "mean": float(np.mean([r["measured"]["grade"] for i in items for r in i])),
        "items": len(items),
        "edits": sum(map(len, items)),
        "cost": cost(folder),
    }


def cost(folder: str) -> dict[str, float]:
    """Tokens that scoring and training took in the first round, and their seconds."""
    found: dict[str, float] = {}
    for line in (Path(folder) / "journal.jsonl").read_text().splitlines():
        entry = json.loads(line)
        key, value = entry["key"], entry["value"]
        if key == "round_1/gradient":
            found["scored_tokens"] = value["scored_tokens"]
            found["scoring_seconds"] = value["seconds"]
        if key.startswith("round_1/adapt/"):
            for name, own in (("trained_tokens", "tokens"), ("seconds", "seconds")):
                found[name] = found.get(name, 0) + value[own]
    return found


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """The figures over all runs.

    Raises:
      ValueError, OSError: see `measured`.
    """
    runs = {Path(folder).name: of_run(folder) for folder in args.runs}
    parts = {
        part: {
            name: job_seeds.over_seeds([run[part][name] for run in runs.values()])
            # What all runs measured.
            for name in next(iter(runs.values()))[part]
            if all(name in run[part] for run in runs.values())
        }
        for part in ("captured", "gains", "shares", "objectives")
    }
    return {
        "command": "python benchmarks/dreams.py " + " ".join(args.runs),
        **parts,
        "runs": runs,
        **common.stamp(device=common.jax_device()),
    }


def table(result: Mapping[str, Any]) -> str:
    """All figures, for people."""
    lines = [
        (part, name, formatting.plus_minus(found["mean"], found["half"]))
        for part in ("captured", "gains", "shares", "objectives")
        for name, found in result[part].items()
    ]
    return formatting.ruled(("figure", "of", "mean over runs"), lines)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/dreams.py",
        description="What a gradient finds among many self-edits.",
    )
    parser.add_argument("runs", nargs="+", help="workdirs of finished runs")
    common.add_out(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(lambda: benchmark(args), args.out, name="dreams", table=table)


if __name__ == "__main__":
    raise SystemExit(main())
