"""Self-improvement without labels over several seeds: every row, with intervals.

    python benchmarks/lmsi_seeds.py runs/lmsi-20 runs/lmsi-21 runs/lmsi-22 [--out]

reads finished runs of `configs/lmsi.py` that differ in their seed. Of each policy and
side it gives the three ways of asking, the share of chains that are right and the
majority's share; of the last rounds differences; of each round what became of wrong
majorities; and of the base's votes how often they are right by their share. Means over
the seeds, with the half width of Student's 95 % interval. Nothing is run; growth is
counted from heldout.jsonl, where it is there.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
from job_seeds import less, over_seeds

from seal_jax.lmsi import votes
from seal_jax.runtime import command_line, files, formatting
from seal_jax.tasks.chains import Chain, Question

WAYS = ("direct", "chain", "consistency")
VOTES = ("sampled", "share")
GROWTH = (
    *("wrong", "grown", "shrunk", "wrong_before", "wrong_after"),
    *("turned_before", "turned", "lost_before", "lost"),
)
# Of the last round of an arm, and another policy of the same round, or the base.
PAIRS = (
    ("round", "base"),
    ("random_chain", "base"),
    ("round", "random_chain"),
    ("gold", "round"),
)


def measures(summary: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """All of a run's rows: by "side policy", the ways and what its chains are like."""
    found: dict[str, dict[str, float | None]] = {}
    for side, rows in summary["sides"].items():
        for row in rows:
            stage, _, way = row["name"].rpartition(" ")
            found.setdefault(f"{side} {stage}", {})[way] = row["mean"]
    for row in summary["votes"]:
        found[f"{row['side']} {row['name']}"] |= {key: row[key] for key in VOTES}
    return found


def grown(summary: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """What became of wrong majorities: by "side policy since policy"."""
    # Older runs lack what was before.
    return {
        f"{row['side']} {row['name']} since {row['since']}": {
            key: row.get(key) for key in GROWTH
        }
        for row in summary["growth"]
    }


def counted_again(summary: dict[str, Any], path: Path) -> dict[str, Any]:
    """A summary whose growth is counted from the answers of its heldout.jsonl.

    So runs of before are measured as those of now. Without the file it stays as it is.
    """
    if not path.exists():
        return summary
    said: dict[tuple[str, str], list[Any]] = {}
    for row in files.read_jsonl(path):
        assert isinstance(row, dict)
        said.setdefault((row["side"], row["arm"]), []).append(row)

    def voted(side: str, stage: str) -> list[votes.Vote]:
        return [
            votes.of_chains(
                tuple(None if a is None else Chain("", a) for a in row["answers"])
            )
            for row in said[side, stage]
        ]

    growth = []
    for row in summary["growth"]:
        side, name, since = row["side"], row["name"], row["since"]
        asked = [Question(r["question"], r["gold"]) for r in said[side, name]]
        found = votes.growth(voted(side, since), voted(side, name), asked)
        growth.append(row | found)
    return summary | {"growth": growth}


def bins(summary: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """How often the base's majorities are right, by their share of the chains."""
    return {
        f"{row['side']} {one['low']:.1f} to {one['high']:.1f}": {
            "n": float(one["n"]),
            "accuracy": one["accuracy"],
        }
        for row in summary["votes"]
        if row["name"] == "base"
        for one in row["bins"]
    }


def differences(
    rows: Mapping[str, Mapping[str, float | None]],
) -> dict[str, dict[str, float | None]]:
    """`PAIRS` of the last round, on both sides."""
    last = max(int(name.rpartition("_")[2]) for name in rows if " round_" in name)
    found = {}
    for side in dict.fromkeys(name.partition(" ")[0] for name in rows):
        for a, b in PAIRS:
            high, low = (
                f"{side} {name}" if name == "base" else f"{side} {name}_{last}"
                for name in (a, b)
            )
            if high in rows and low in rows:
                found[f"{high} - {low.partition(' ')[2]}"] = {
                    key: less(rows[high][key], rows[low][key])
                    for key in (*WAYS, *VOTES)
                }
    return found


def joined(
    by_run: Sequence[Mapping[str, Mapping[str, float | None]]],
) -> dict[str, dict[str, Any]]:
    """The same of all runs, each number over them."""
    return {
        name: {key: over_seeds([run[name][key] for run in by_run]) for key in row}
        for name, row in by_run[0].items()
    }


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """The rows over all runs.

    Raises:
      ValueError: a run that is not finished, is of another kind, or has other rows.
      OSError: a summary that cannot be read.
    """
    runs = {}
    for folder in args.runs:
        summary = files.read_json(Path(folder) / "summary.json")
        if not isinstance(summary, dict) or summary.get("kind") != "lmsi":
            raise ValueError(f"{folder}: no finished run without labels; give others")
        path = Path(folder) / "heldout.jsonl"
        runs[Path(folder).name] = counted_again(summary, path)
    by_run = list(map(measures, runs.values()))
    for folder, rows in zip(args.runs, by_run, strict=True):
        if list(rows) != list(by_run[0]):
            raise ValueError(
                f"{folder}: has rows {list(rows)} and {args.runs[0]} has "
                f"{list(by_run[0])}; give runs of one config that differ in their seed"
            )
    keys = ("sides", "votes", "growth", "learned", "seconds", "config_hash")
    return {
        "command": "python benchmarks/lmsi_seeds.py " + " ".join(args.runs),
        "rows": joined(by_run),
        "differences": joined(list(map(differences, by_run))),
        "growth": joined(list(map(grown, runs.values()))),
        "bins": joined(list(map(bins, runs.values()))),
        "runs": {name: {k: s[k] for k in keys} for name, s in runs.items()},
        **common.stamp(device=common.jax_device()),
    }


def table(result: Mapping[str, Any]) -> str:
    """All of it, for people."""
    parts = []
    for part, heads in (
        ("rows", (*WAYS, *VOTES)),
        ("differences", (*WAYS, *VOTES)),
        ("growth", GROWTH),
        ("bins", ("n", "accuracy")),
    ):
        lines = [
            (
                name,
                *(
                    formatting.plus_minus(row[key]["mean"], row[key]["half"])
                    for key in heads
                ),
            )
            for name, row in result[part].items()
        ]
        parts.append(formatting.ruled((part, *heads), lines))
    return "\n\n".join(parts)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/lmsi_seeds.py",
        description="Self-improvement without labels over several seeds.",
    )
    parser.add_argument("runs", nargs="+", help="workdirs of finished runs")
    common.add_out(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(
        lambda: benchmark(args), args.out, name="lmsi_tiny", table=table
    )


if __name__ == "__main__":
    raise SystemExit(main())
