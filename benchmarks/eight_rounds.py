"""Eight rounds of the embedded demo in several variants: where does each plateau?

    python benchmarks/eight_rounds.py --workdir runs/eight_rounds [--out]
    python -m seal_jax.report runs/eight_rounds/seed_0/* --html rounds.html  # plots

Variants differ from `configs/tiny.py:rounds` (24 passages, 8 rounds of SEAL's ReST-EM)
in what a round trains on, by which rule, and from where: `VARIANTS`. Each has a workdir
of its name under `--workdir`, in the folder of its seed. One that is finished is only
read, one that was stopped goes on, so the same command may be given again, and with
other `--variants` and `--seeds`.

All variants of a seed have the same passages, and are compared over the same held-out
ones. With several `--seeds` there is a table over them (`round_seeds`).
"""

import argparse
import functools
import itertools
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import round_seeds

from seal_jax import train
from seal_jax.analysis import plateau, stats
from seal_jax.report import run_view
from seal_jax.runtime import command_line, formatting, records
from seal_jax.training import outer_rules

CONFIG = common.ROOT / "configs" / "tiny.py"
BEFORE = "self_edits"  # The row of the policy before any round.
REFERENCE = "seal"
VARIANTS: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "base": {"imitate.start": "base"},
    "accumulate": {"imitate.data": "accumulate"},
    "base_accumulate": {"imitate.start": "base", "imitate.data": "accumulate"},
    "improving": {"select.threshold": "baseline"},
    "k2": {"select.k_best": 2},
    "novelty": {"select.novelty_bonus": 0.3},
}
# The outer rules, by what `configs/tiny.py` has for each.
RULES = tuple(rule for rule in outer_rules.RULES if rule != outer_rules.BEST)
VARIANTS |= {rule: {"imitate.rule": rule} for rule in RULES}
VARIANTS |= {
    f"{rule}_accumulate": {"imitate.rule": rule, "imitate.data": "accumulate"}
    for rule in RULES
}
# Flags, and what of the config each is in place of.
SIZES = {
    "rounds": "scale.rounds",
    "passages": "scale.passages",
    "heldout": "scale.heldout_passages",
}
PLATEAU_Z = 2.0
STOPS = tuple(itertools.product((2, 3), (2.0, 3.0)))  # Patience and z of `verdict`.
MEASURES = (
    "novel3",
    "jaccard3",
)  # As a round's line has them (`novelty_measures.measure`).


def settings(arg: str, overrides: Mapping[str, Any], *, seed: int) -> dict[str, Any]:
    """A variant of configs/tiny.py with some of its values replaced."""
    made = runpy.run_path(str(CONFIG))["get_config"](arg)
    made.update_from_flattened_dict({"seed": seed, **overrides})
    return made.to_dict()


def run(values: Mapping[str, Any], workdir: Path) -> run_view.Workdir:
    """The run of these values, which is read if it has finished and made if not.

    Raises:
      ValueError: the workdir holds a run of other values.
      OSError: it cannot be read or written.
    """
    if (workdir / run_view.SUMMARY_NAME).is_file():
        records.open_workdir(workdir, dict(values))  # Nothing but the comparison.
    else:
        say = functools.partial(print, f"{workdir.name}:", flush=True)
        train.run(dict(values), workdir, say=say)
    return run_view.read_workdir(workdir)


# What a run says of its rounds


def rows(summary: Mapping[str, Any]) -> list[str]:
    """Names of the ladder's rows before any round and after each one, in order.

    Raises:
      ValueError: the run has none of these, or not its value for each item, or two
        items of one name.
    """
    names = [r["name"] for r in run_view.rows(dict(summary), "ladder")]
    wanted = [n for n in names if n == BEFORE or n.startswith("round_")]
    items = run_view.rows(dict(summary), "items")
    known = {item["item"] for item in items if all(n in item for n in wanted)}
    if len(wanted) < 2 or not items or len(known) < len(items):
        raise ValueError(
            f"a summary with the rows {names} and {len(items)} items must have "
            f"{BEFORE}, a round, and the values of items of different names; give a "
            "run of configs/tiny.py"
        )
    return wanted


def by_item(summary: Mapping[str, Any], name: str) -> dict[str, float | None]:
    """A row's value for each held-out item."""
    return {item["item"]: item[name] for item in summary["items"]}


def describe(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The rounds of one run as figures: see the keys in docs/benchmarks.md.

    Raises:
      ValueError: as `rows`.
    """
    names = rows(summary)
    values = [list(by_item(summary, name).values()) for name in names]
    means = {r["name"]: r["mean"] for r in summary["ladder"] if r["name"] in names}
    lines = summary["rounds"]
    first, last = lines[0].get("novelty", {}), lines[-1].get("novelty", {})
    return {
        "means": means,
        "plateau": plateau.plateaus(values, z=PLATEAU_Z),
        "stops": [
            {"patience": p, "z": z, "round": stopped(values, patience=p, z=z)}
            for p, z in STOPS
        ],
        "gain": difference(summary, names[-1], summary, names[0]),
        "trainings": sum(line["trainings"] for line in lines),
        "kept": [line["kept"] for line in lines],
        # Nats a token of what the policy wrote; None: of a run that did not record it.
        "entropy": [line.get("entropy") for line in lines],
        "novelty_first": {name: first.get(name) for name in MEASURES},
        "novelty_last": {name: last.get(name) for name in MEASURES},
    }


def stopped(values: plateau.Rounds, *, patience: int, z: float) -> int | None:
    """The round after which `stop.rule = "plateau"` would have ended the run."""
    for count in range(2, len(values) + 1):
        found = plateau.verdict(values[:count], rule="plateau", patience=patience, z=z)
        if found:
            return found.round
    return None


def difference(
    a: Mapping[str, Any], row_a: str, b: Mapping[str, Any], row_b: str
) -> dict[str, Any]:
    """A row of one run minus a row of another, over the held-out items of both.

    Raises:
      ValueError: the runs have other items.
    """
    high, low = by_item(a, row_a), by_item(b, row_b)
    if set(high) != set(low):
        raise ValueError(
            f"{len(set(high) ^ set(low))} held-out items are in one run alone: all "
            "variants must be asked about the same ones; give them the same --seed"
        )
    diff, se, z = stats.paired(list(high.values()), [low[item] for item in high])
    return {"diff": diff, "se": se, "z": z}


def compare(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All variants, each also against SEAL's last round where that is among them.

    Raises:
      ValueError: as `describe` and `difference`.
    """
    made = {name: describe(summary) for name, summary in summaries.items()}
    seal = summaries.get(REFERENCE)
    for name, summary in summaries.items():
        made[name]["over_seal"] = (
            None
            if seal is None or name == REFERENCE
            else difference(summary, rows(summary)[-1], seal, rows(seal)[-1])
        )
    return made


# For reading


def table(variants: Mapping[str, Mapping[str, Any]]) -> str:
    """Three tables: means by round, what happened when, and costs with novelty."""
    number, names = formatting.number, list(variants)
    longest = max((list(v["means"]) for v in variants.values()), key=len)
    heads = [BEFORE, *(name.removeprefix("round_") for name in longest[1:])]
    means = [
        (name, *(number(variants[name]["means"].get(row)) for row in longest))
        for name in names
    ]
    when = [
        (
            name,
            _round(variants[name]["plateau"]),
            *(_round(stop["round"]) for stop in variants[name]["stops"]),
            _difference(variants[name]["gain"]),
            _difference(variants[name]["over_seal"]),
        )
        for name in names
    ]
    stops = [f"stop p{p} z{z:g}" for p, z in STOPS]
    last = [
        (
            name,
            formatting.count(variants[name]["trainings"]),
            formatting.count(sum(variants[name]["kept"])),
            *(
                number(variants[name][f"novelty_{end}"][measure])
                for measure in MEASURES
                for end in ("first", "last")
            ),
        )
        for name in names
    ]
    ends = [f"{m} {end}" for m in MEASURES for end in ("round 1", "last")]
    return "\n\n".join(
        (
            formatting.ruled(("variant", *heads), means),
            formatting.ruled(
                ("variant", "plateau", *stops, "last - first", "last - seal's"), when
            ),
            formatting.ruled(("variant", "trainings", "kept", *ends), last),
        )
    )


def _round(index: int | None) -> str:
    return formatting.MISSING if index is None else str(index)


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return formatting.MISSING
    diff, se = formatting.signed(found["diff"]), formatting.number(found["se"])
    return f"{diff} ± {se} (z {formatting.signed(found['z'], digits=1)})"


# The command


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/eight_rounds.py",
        description="Eight rounds of the embedded demo in several variants.",
    )
    parser.add_argument(
        "--workdir", required=True, help="of all: seed_N/VARIANT is the run of each"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=tuple(VARIANTS),
        default=list(VARIANTS),
        help="which ones; all by default",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=command_line.SEED,
        default=[0],
        help="of config and passages; each is run in all variants before the next",
    )
    for name, what in SIZES.items():
        parser.add_argument(
            f"--{name}",
            type=command_line.COUNT,
            help=f"in place of the config's {what}",
        )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of the config of all variants, such as imitate.prefer.rates.dpo=3e-3",
    )
    common.add_out(parser)
    return parser.parse_args(argv)


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Runs or reads the variants.

    Raises:
      ValueError, OSError: as `run` and `compare`.
    """
    given = {key: vars(args)[name] for name, key in SIZES.items()}
    shared = {key: value for key, value in given.items() if value is not None}
    shared |= common.assignments(args.set)
    runs: dict[str, Any] = {}
    for seed in args.seeds:
        summaries = {
            name: run(
                settings("rounds", shared | VARIANTS[name], seed=seed),
                Path(args.workdir) / f"seed_{seed}" / name,
            ).summary
            for name in args.variants
        }
        items = min(len(summary["items"]) for summary in summaries.values())
        runs[str(seed)] = compare(summaries)
    return {
        "benchmark": "eight_rounds",
        "seeds": args.seeds,
        "items": items,
        "settings": shared,
        "runs": runs,
        "over_seeds": round_seeds.over(runs) if len(runs) > 1 else {},
        **common.stamp(device=common.jax_device()),
    }


def tables(result: Mapping[str, Any]) -> str:
    """Those of each seed, and that over all of them."""
    made = [
        f"seed {seed}\n\n{table(variants)}" for seed, variants in result["runs"].items()
    ]
    if result["over_seeds"]:
        made.append(f"over seeds\n\n{round_seeds.table(result['over_seeds'])}")
    return "\n\n".join(made)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(
        lambda: benchmark(args), args.out, name="eight_rounds", table=tables
    )


if __name__ == "__main__":
    raise SystemExit(main())
