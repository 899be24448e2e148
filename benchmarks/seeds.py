"""The embedded demo over many seeds: which of its steps hold, and how surely?

    python benchmarks/seeds.py --seeds 30 31 32 33 --workdir runs/seeds [--out]

Each seed is a run of `configs/tiny.py` in a folder of its own under `--workdir`: other
passages, other random numbers, the same base model. One that is finished is only read,
one that was stopped goes on, so the same command may be given again, and with more
seeds. A step is the paired difference of two rows of the ladder over a run's held-out
passages. Over the seeds it has a mean, and an interval of Student's t.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import eight_rounds
from scipy import stats as scipy_stats

from seal_jax.runtime import command_line, formatting

STEPS = (
    ("passage_only", "base"),
    ("self_edits", "passage_only"),
    ("round_1", "self_edits"),
    ("round_2", "round_1"),
    ("round_2", "random_kept"),
)
# A difference of so many standard errors is told from none in a single run.
TELLING_Z = 2.0


def step(summary: Mapping[str, Any], a: str, b: str) -> dict[str, float]:
    """The difference of two rows in one run.

    Raises:
      ValueError: the summary does not have it.
    """
    for line in summary.get("paired", ()):
        for first, second, sign in ((a, b, 1), (b, a, -1)):
            if (line["a"], line["b"]) == (first, second):
                return {
                    "diff": sign * line["diff"],
                    "se": line["se"],
                    "z": sign * line["z"],
                }
    raise ValueError(
        f"the summary has no difference of {a} and {b}; give runs of configs/tiny.py"
    )


def over_seeds(found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """One step in all runs: its mean, its spread, and how often it is plain.

    Raises:
      ValueError: fewer than two runs.
    """
    if len(found) < 2:
        raise ValueError(f"{len(found)} seeds have no interval; give at least 2")
    diffs = [line["diff"] for line in found]
    mean, sd = statistics.fmean(diffs), statistics.stdev(diffs)
    t = scipy_stats.t.ppf(0.975, len(diffs) - 1)
    half = float(t) * sd / math.sqrt(len(diffs))
    zs = [line["z"] for line in found]
    return {
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "sd": sd,
        "above_0": sum(diff > 0 for diff in diffs),
        "telling": sum(z >= TELLING_Z for z in zs),
        "least_z": min(zs),
    }


def table(result: Mapping[str, Any]) -> str:
    """Two tables: rows by seed, and steps over seeds."""
    seeds = result["runs"]
    rows = list(next(iter(seeds.values()))["means"])
    means = [
        (row, *(formatting.number(run["means"].get(row)) for run in seeds.values()))
        for row in rows
    ]
    lines = []
    for name, found in result["steps"].items():
        number = formatting.signed
        lines.append(
            (
                name,
                f"{number(found['mean'])} ({number(found['low'])} to "
                f"{number(found['high'])})",
                formatting.number(found["sd"]),
                f"{found['above_0']} of {len(seeds)}",
                f"{found['telling']} of {len(seeds)}",
                number(found["least_z"], digits=1),
            )
        )
    head = ("step", "mean (95 %)", "sd", "above 0", f"z >= {TELLING_Z:g}", "least z")
    return "\n\n".join(
        (
            formatting.ruled(("row", *seeds), means),
            formatting.ruled(head, lines),
        )
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/seeds.py", description="The embedded demo over many seeds."
    )
    parser.add_argument(
        "--workdir", required=True, help="of all: seedN is the run of each in it"
    )
    parser.add_argument("--seeds", required=True, nargs="+", type=command_line.SEED)
    common.add_out(parser)
    args = parser.parse_args(argv)
    args.seeds = list(dict.fromkeys(args.seeds))
    return args


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Runs or reads all seeds.

    Raises:
      ValueError, OSError: as `eight_rounds.run`, `step` and `over_seeds`.
    """
    summaries = {
        str(seed): eight_rounds.run(
            eight_rounds.settings("", {}, seed=seed), Path(args.workdir) / f"seed{seed}"
        ).summary
        for seed in args.seeds
    }
    return {
        "benchmark": "seeds",
        "runs": {
            seed: {
                "means": {row["name"]: row["mean"] for row in summary["ladder"]},
                "steps": {f"{a} - {b}": step(summary, a, b) for a, b in STEPS},
            }
            for seed, summary in summaries.items()
        },
        "steps": {
            f"{a} - {b}": over_seeds([step(s, a, b) for s in summaries.values()])
            for a, b in STEPS
        },
        **common.stamp(device=common.jax_device()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(
        lambda: benchmark(args), args.out, name="tiny_seeds", table=table
    )


if __name__ == "__main__":
    raise SystemExit(main())
