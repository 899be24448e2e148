"""Many seeds as one program against the same seeds driven by the host, in one run.

    python benchmarks/seeds_on_device.py --workdir runs/by_host --seeds 2 [--out]

Both do the whole of `configs/tiny.py:seeds` for the same seeds: two rounds, the control
and every row of the ladder. The program's time is measured in a second call, after one
that compiles; the host's is that of its second seed and later ones, after a first that
compiles, by the seconds of its units of work. `differences` says how far the rows of
the same seed are apart.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import eight_rounds

from seal_jax.experiment import kinds
from seal_jax.generation import policies
from seal_jax.rounds import over_seeds
from seal_jax.runtime import command_line, formatting
from seal_jax.tasks import knowledge_setup

# A quarter of the adapters, for `--small`.
SMALL = {"scale.passages": 8, "scale.edits": 3, "scale.heldout_passages": 8}


def host_values(values: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The config of one seed that the host drives."""
    alone = {key: group for key, group in values.items() if key != "over_seeds"}
    task = alone["task"] | {"shuffle_seed": seed}
    return alone | {"seed": seed, "task": task}


def by_host(values: Mapping[str, Any], seeds: Sequence[int], workdir: Path) -> list:
    """The summary of each seed's own run."""
    return [
        eight_rounds.run(host_values(values, seed), workdir / f"seed{seed}").summary
        for seed in seeds
    ]


def by_program(values: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """What each seed came to, and the seconds of a first and of a second call."""
    exp = kinds.read(values)
    assert isinstance(exp, over_seeds.OverSeeds)
    train, heldout = over_seeds.load(exp)
    blank = policies.describe(exp.model)
    passages = [*(p for items in train for p in items), *heldout]
    task = knowledge_setup.make(exp, blank, passages, [])
    base = policies.load(exp.model, blank, seed=exp.seed)
    tables, cfg = over_seeds.prepare(exp, task, base, passages)
    begin = time.monotonic()
    plans = [
        over_seeds.plan_of(exp, i, train, heldout, task, tables, cfg)
        for i in range(exp.over_seeds.count)
    ]
    took = {"draws": time.monotonic() - begin}
    for name in ("first", "second"):
        begin = time.monotonic()
        outcome = over_seeds.call(exp, base, plans, cfg, mesh=None)
        took[name] = time.monotonic() - begin
    told = [
        over_seeds.one_seed(exp.at(i), base, plan, outcome, i)
        for i, plan in enumerate(plans)
    ]
    return told, took


def differences(
    told: Sequence[Mapping[str, Any]], summaries: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The largest difference of a row's mean between both ways, by row."""
    found: dict[str, float] = {}
    for mine, summary in zip(told, summaries, strict=True):
        for row in summary["ladder"]:
            mean = statistics.fmean(
                v for v in mine["rows"][row["name"]]["values"] if v is not None
            )
            gap = abs(mean - row["mean"])
            found[row["name"]] = max(gap, found.get(row["name"], 0.0))
    return found


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Both ways.

    Raises:
      ValueError, OSError: as `eight_rounds.run`.
    """
    seeds = range(args.seeds)
    chosen = {"count": args.seeds, "chunk": args.seeds, "together": args.together}
    changes = {f"over_seeds.{key}": value for key, value in chosen.items()}
    values = eight_rounds.settings(
        "seeds", changes | (SMALL if args.small else {}), seed=0
    )
    told, took = by_program(values)
    summaries = by_host(values, seeds, Path(args.workdir))
    of_host = [sum(summary["seconds"].values()) for summary in summaries]
    program = (took["draws"] + took["second"]) / args.seeds
    host = statistics.fmean(of_host[1:])
    return {
        "benchmark": "seeds_on_device",
        "seeds": args.seeds,
        "together": args.together,
        "adapters": told[0]["adapters"],
        "program": took | {"a_seed": program},
        "host": {"seconds": of_host, "a_seed": host},
        "host_over_program": host / program,
        "differences": differences(told, summaries),
        **common.stamp(device=common.jax_device()),
    }


def table(result: Mapping[str, Any]) -> str:
    """Seconds a seed, both ways."""
    program, host, n = result["program"], result["host"], result["seeds"]
    lines = [
        ("one program", formatting.number(program["a_seed"], digits=1)),
        (
            "... its draws, on the host",
            formatting.number(program["draws"] / n, digits=1),
        ),
        ("... its first call", formatting.number(program["first"] / n, digits=1)),
        ("driven by the host", formatting.number(host["a_seed"], digits=1)),
    ]
    far = max(result["differences"].values())
    return (
        formatting.ruled(("seconds a seed", f"{result['adapters']} adapters"), lines)
        + f"\n\nrows differ by at most {formatting.number(far)}"
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/seeds_on_device.py",
        description="Many seeds as one program against the host's loop.",
    )
    parser.add_argument("--workdir", required=True, help="of the host's runs")
    parser.add_argument("--seeds", type=int, default=2, help="at least 2")
    parser.add_argument("--together", type=int, default=1, help="side by side")
    parser.add_argument("--small", action="store_true", help="a quarter of the work")
    common.add_out(parser)
    args = parser.parse_args(argv)
    if args.seeds < 2:
        parser.error("--seeds must be at least 2: the host's first one compiles")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(
        lambda: benchmark(args), args.out, name="seeds_on_device", table=table
    )


if __name__ == "__main__":
    raise SystemExit(main())
