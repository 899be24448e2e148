"""Learning on the job over several seeds: each row's measures, with intervals.

    python benchmarks/job_seeds.py runs/job-20 runs/job-21 runs/job-22 [--out]

reads finished runs of `configs/deploy.py` that differ in their seed. Of each row it
gives the mean over the seeds, with the half width of Student's 95 % interval, and the
same of differences between rows. Nothing is run.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common

from seal_jax.report.tables import deploy as deploy_table
from seal_jax.runtime import command_line, files, formatting

MEASURES = deploy_table.MEASURES
COSTS = ("tokens", "teacher_tokens", "written_tokens", "seconds")
PAIRS = (
    ("quiz", "edits"),
    ("edits+replay", "edits"),
    ("quiz+replay", "quiz"),
    ("quiz+dream", "quiz"),
    ("quiz+kl", "quiz"),
    ("quiz+keep", "quiz"),
    ("distill", "quiz"),
    ("on_policy", "quiz"),
    ("on_policy", "distill"),
    ("on_policy+replay", "quiz+replay"),
)


def less(a: float | None, b: float | None) -> float | None:
    """The difference; None where one is not known."""
    return None if a is None or b is None else a - b


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and half width of the interval; None where a seed has no value, or alone."""
    return dataclasses.asdict(deploy_table.over_seeds(values))


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """The rows over all runs.

    Raises:
      ValueError: a run that is not finished, is none on the job, or has other rows.
      OSError: a summary that cannot be read.
    """
    runs = {}
    for folder in args.runs:
        summary = files.read_json(Path(folder) / "summary.json")
        if not isinstance(summary, dict) or summary.get("kind") != "deploy":
            raise ValueError(f"{folder}: no finished run on the job; give others")
        runs[Path(folder).name] = summary
    by_run = [{a["name"]: a for a in s["arms"]} for s in runs.values()]
    names = list(by_run[0])
    for folder, arms in zip(args.runs, by_run, strict=True):
        if list(arms) != names:
            raise ValueError(
                f"{folder}: has rows {list(arms)} and {args.runs[0]} has {names}; give "
                "runs of one config that differ in their seed"
            )

    def values(name: str, measure: str) -> list[float | None]:
        return [deploy_table.value(arms[name], measure) for arms in by_run]

    rows = {n: {m: over_seeds(values(n, m)) for m in MEASURES} for n in names}
    differences = {
        f"{a} - {b}": {
            m: over_seeds(list(map(less, values(a, m), values(b, m)))) for m in MEASURES
        }
        for a, b in PAIRS
        if a in names and b in names
    }
    keys = ("arms", "adapters", "seconds", "config_hash")
    return {
        "rows": rows,
        "differences": differences,
        "costs": {n: _a_night([arms[n] for arms in by_run]) for n in names},
        "runs": {name: {k: s[k] for k in keys} for name, s in runs.items()},
        **common.stamp(device=common.jax_device()),
    }


def _a_night(arms: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """What a night costs all streams of a run together, the mean over runs.

    None: a run did not count it.
    """
    found = {}
    for name in COSTS:
        nights = [value for arm in arms for value in arm["costs"][name]]
        known = [value for value in nights if value is not None]
        found[name] = statistics.fmean(known) if len(known) == len(nights) else None
    return found


def table(result: Mapping[str, Any]) -> str:
    """The rows, the differences, and what a night costs, for people."""

    def cell(found: Mapping[str, Any]) -> str:
        return formatting.plus_minus(found["mean"], found["half"])

    lines = [
        (name, *(cell(row[m]) for m in MEASURES))
        for part in ("rows", "differences")
        for name, row in result[part].items()
    ]
    spent = [
        (name, *(formatting.number(own[cost], digits=0) for cost in COSTS))
        for name, own in result["costs"].items()
    ]
    return "\n\n".join(
        (
            formatting.ruled(("row", *MEASURES), lines),
            formatting.ruled(("row, a night", *COSTS), spent),
        )
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/job_seeds.py",
        description="Learning on the job over several seeds.",
    )
    parser.add_argument("runs", nargs="+", help="workdirs of finished runs")
    common.add_out(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(
        lambda: benchmark(args), args.out, name="job_tiny", table=table
    )


if __name__ == "__main__":
    raise SystemExit(main())
