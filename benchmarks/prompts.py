"""The ladder of several runs, row less row, and what their searches for prompts found.

    python benchmarks/prompts.py runs/search_60 runs/search_61 runs/search_62 \
        [--beside runs/strategies_60 runs/strategies_61 runs/strategies_62] \
        [--name strategies] [--out]

reads finished runs that differ in their seed. Of each row of the ladder, and of each
row less `self_edits`, it gives the mean over the runs with the half width of Student's
95 % interval; of `--beside`, runs of another config with the same seeds, the same, and
each row of the runs less the same row of those. Nothing is run.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import job_seeds

from seal_jax.runtime import command_line, files, formatting

BEFORE = "self_edits"


def ladder(folder: str) -> dict[str, Mapping[str, Any]]:
    """The rows of a finished run, by name.

    Raises:
      ValueError: it is not finished, or has no ladder.
      OSError: it cannot be read.
    """
    path = Path(folder) / "summary.json"
    summary = files.read_json(path) if path.is_file() else None
    if not isinstance(summary, dict) or not summary.get("ladder"):
        raise ValueError(f"{folder}: no finished run with a ladder; give others")
    return {row["name"]: row for row in summary["ladder"]}


def compared(
    runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Each row over the runs, and less `BEFORE` of the others, run by run."""
    names = [n for n in runs[0] if all(n in run for run in runs)]
    means = {n: [run[n]["mean"] for run in runs] for n in names}
    first = [run[BEFORE]["mean"] for run in others]
    return {
        "rows": {n: job_seeds.over_seeds(values) for n, values in means.items()},
        "less_self_edits": {
            n: job_seeds.over_seeds(
                list(itertools.starmap(job_seeds.less, zip(values, first, strict=True)))
            )
            for n, values in means.items()
        },
    }


def over(
    runs: Sequence[Mapping[str, Any]], beside: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Each row that all have, less the same row of the run beside it."""
    names = [n for n in runs[0] if all(n in run for run in (*runs, *beside))]
    return {
        n: job_seeds.over_seeds(
            [
                job_seeds.less(own[n]["mean"], other[n]["mean"])
                for own, other in zip(runs, beside, strict=True)
            ]
        )
        for n in names
    }


def searched(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What each prompt earned on training passages, and how often it was chosen."""
    rows = [run["prompts"] for run in runs if "prompts" in run]
    names = dict.fromkeys(line["prompt"] for row in rows for line in row["searched"])
    return {
        name: {
            "reward": job_seeds.over_seeds(
                [
                    line["reward"]
                    for row in rows
                    for line in row["searched"]
                    if line["prompt"] == name
                ]
            ),
            "chosen": sum(row["prompt"] == name for row in rows),
        }
        for name in names
    }


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """The figures over all runs.

    Raises:
      ValueError: see `ladder`; or not as many runs beside as there are.
      OSError: a summary that cannot be read.
    """
    runs = list(map(ladder, args.runs))
    beside = list(map(ladder, args.beside))
    if beside and len(beside) != len(runs):
        raise ValueError(
            f"--beside names {len(beside)} runs, there are {len(runs)}; give one of "
            "each seed, in the same order"
        )
    more = " ".join(["--beside", *args.beside]) if beside else ""
    return {
        "command": " ".join(
            ["python benchmarks/prompts.py", *args.runs, more, "--name", args.name]
        ),
        "runs": compared(runs, runs),
        "beside": compared(beside, runs) if beside else {},
        "over_beside": over(runs, beside) if beside else {},
        "searched": searched(runs),
        **common.stamp(device=common.jax_device()),
    }


def table(result: Mapping[str, Any]) -> str:
    """Rows, differences and prompts, for people."""
    lines = [
        (
            part,
            name,
            *(cell(result[part][k][name]) for k in ("rows", "less_self_edits")),
        )
        for part in ("runs", "beside")
        for name in result[part].get("rows", {})
    ]
    lines += [
        ("less beside", name, cell(found), "")
        for name, found in result["over_beside"].items()
    ]
    lines += [
        ("prompt", name, cell(found["reward"]), f"chosen {found['chosen']}")
        for name, found in result["searched"].items()
    ]
    return formatting.ruled(("of", "row", "mean", "less self_edits"), lines)


def cell(found: Mapping[str, Any]) -> str:
    """A mean and its half width."""
    return formatting.plus_minus(found["mean"], found["half"])


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/prompts.py",
        description="Ladders of several runs, and their searches for prompts.",
    )
    parser.add_argument("runs", nargs="+", help="workdirs of finished runs")
    parser.add_argument(
        "--beside", nargs="+", default=[], help="runs of another config, same seeds"
    )
    parser.add_argument("--name", default="strategies", help="of the result file")
    common.add_out(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(lambda: benchmark(args), args.out, name=args.name, table=table)


if __name__ == "__main__":
    raise SystemExit(main())
