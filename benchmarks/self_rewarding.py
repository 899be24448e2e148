"""Self-rewarding rounds: does the policy's own reward drift from the true one?

    python benchmarks/self_rewarding.py runs/self-* [--out]

reads finished runs of `configs/tiny.py:self_rewarding` and of variants of it, which
measure both rewards in every round. Runs of one reward and one outer rule are seeds of
each other. Figures are means over the seeds, with half of Student's 95 % interval;
nothing is run.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import common
import eight_rounds

from seal_jax.report import read_rewards, run_view
from seal_jax.report.tables import deploy as over
from seal_jax.runtime import command_line, formatting

OWN = "self_asked"
# How it agrees on the adapters that it was measured on, how on others, and how the
# grade agrees with itself on others: no reward can do better than that.
AGREEMENTS = (OWN, f"{OWN}, other seeds", "grade, other seeds")
DIVERSITY = ("distinct3", "overlap_within", "overlap_between")


def figures(run: run_view.Workdir) -> dict[str, list[float | None]]:
    """What the table has of a run, by round; the score begins before the first.

    Raises:
      ValueError: a run without rounds or edits.
    """
    assert run.path is not None
    summary = run.summary
    means = {row["name"]: row["mean"] for row in run_view.rows(summary, "ladder")}
    found = {"score": [means[name] for name in eight_rounds.rows(summary)]}
    lines = run_view.rows(summary, "rounds")
    found["entropy"] = [line.get("entropy") for line in lines]
    for name in DIVERSITY:
        found[name] = [line.get("diversity", {}).get(name) for line in lines]
    measured = read_rewards.read(run.path)
    for name in AGREEMENTS:
        told = [m.agreements.get(name) for m in measured]
        found[f"captured by {name}"] = [a and a.captured for a in told]
        found[f"correlation of {name}"] = [a and a.pooled for a in told]
    return found


def less(
    a: Sequence[float | None], b: Sequence[float | None]
) -> Sequence[float | None]:
    """Differences; None where one is not known."""
    pairs = zip(a, b, strict=True)
    return [None if x is None or y is None else x - y for x, y in pairs]


def together(values: Sequence[float | None]) -> dict[str, Any]:
    """Over the seeds."""
    return dataclasses.asdict(over.over_seeds(values))


def variant(run: run_view.Workdir) -> str:
    """What rewards the policy, and how it learns."""
    return f"{run.config['select']['reward']}, {run.config['imitate']['rule']}"


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """What all runs say.

    Raises:
      ValueError: a run that is not finished, without rounds, or of a seed that another
        of its variant has.
      OSError: a file that cannot be read.
    """
    runs: dict[str, dict[int, run_view.Workdir]] = {}
    for path in args.runs:
        run = run_view.read_workdir(path)
        own = runs.setdefault(variant(run), {})
        if own.setdefault(run.config["seed"], run) is not run:
            raise ValueError(
                f"{path}: is of a seed that is there already; leave it out"
            )
    seeds = {tuple(sorted(own)) for own in runs.values()}
    if len(seeds) > 1:
        raise ValueError(
            f"the variants {list(runs)} have the seeds {sorted(seeds)}: they are "
            "compared in pairs; give runs of the same seeds"
        )
    by_run = {
        name: [figures(own[seed]) for seed in sorted(own)] for name, own in runs.items()
    }
    rows = {
        name: {
            measure: [
                together(values)
                for values in zip(*(one[measure] for one in own), strict=True)
            ]
            for measure in own[0]
        }
        for name, own in by_run.items()
    }
    last = {name: [one["score"][-1] for one in own] for name, own in by_run.items()}
    first = next(iter(runs))
    captured = f"captured by {AGREEMENTS[1]}"
    return {
        "seeds": sorted(*seeds),
        "rows": rows,
        # Of the last round's score, in pairs over the seeds.
        "apart": {
            f"{name} - {first}": together(less(last[name], last[first]))
            for name in [*runs][1:]
        },
        # Of what the own reward captures, from the first round to the last.
        "drift": {
            name: together(
                less(
                    [one[captured][-1] for one in own],
                    [one[captured][0] for one in own],
                )
            )
            for name, own in by_run.items()
        },
        "runs": {
            run.name: {k: run.summary[k] for k in ("config_hash", "adapters")}
            for own in runs.values()
            for run in own.values()
        },
        **common.stamp(device=common.jax_device()),
    }


def table(result: Mapping[str, Any]) -> str:
    """A row for each variant and measure, a column for each round."""

    def cell(found: Mapping[str, Any]) -> str:
        return formatting.plus_minus(found["mean"], found["half"])

    lines = []
    for name, measures in result["rows"].items():
        for measure, by_round in measures.items():
            # Only the score is known before the first round.
            before = [] if measure == "score" else [formatting.MISSING]
            lines.append((f"{name}: {measure}", *before, *map(cell, by_round)))
    count = max(len(line) for line in lines) - 1
    head = ("", *(f"round {i}" for i in range(count)))
    said = [
        f"last score, {name}: {cell(found)}" for name, found in result["apart"].items()
    ]
    said += [
        f"captured by {AGREEMENTS[1]}, last round - first, {name}: {cell(found)}"
        for name, found in result["drift"].items()
    ]
    return "\n".join([formatting.ruled(head, lines), *said])


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/self_rewarding.py",
        description="Does a policy's own reward drift from the true one?",
    )
    parser.add_argument("runs", nargs="+", help="workdirs of finished runs")
    common.add_out(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(
        lambda: benchmark(args), args.out, name="self_rewarding", table=table
    )


if __name__ == "__main__":
    raise SystemExit(main())
