"""What an adapter is trained on, and by which loss: rules at rates of their own.

    python benchmarks/inner_rules.py --choose 50 51 --report 60 61 62 \
        --workdir runs/inner_rules [--also 3e-3] [--variants] [--out]

On the embedded world, with the base policy and no reward: for each held-out passage the
base writes statements or asks itself questions once, and every rule (`inner.rule`)
trains an adapter on them. Each adapter is asked the passage's own questions, the same
in words that no quiz has, and about residents that no edit is about. Then streams of
eight passages, one after the other, each adapter on the frozen stack of those before.

Rules are compared at rates of their own, which the seeds of `--choose` pick: the best
by accuracy on the own questions, and the best by the mean of that and what is left of
the general ability. The figures are those of the seeds of `--report`.

Every cell is kept under `--workdir`: the same command goes on where it was stopped, and
only reads what is finished.
"""

import argparse
import contextlib
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import rule_cells
import rule_figures as figures
import rule_seeds
import rule_tables
from rule_figures import BY_ACCURACY, BY_BOTH, CRITERIA, REFERENCES, Values
from rule_seeds import Arm, Seed, Sizes

from seal_jax.analysis import stats
from seal_jax.runtime import command_line
from seal_jax.training.inner_rules import DIVERGENCES, RULES

RATES = (1e-3, 3e-3, 1e-2, 3e-2)
# Rules whose divergence is varied, and the waves of the one that has them.
VARIED, WAVES = ("distill", "on_policy"), (1, 5, 10)

# The stages


def arm_of(seed: Seed, rule: str, rate: float, **changes: Any) -> Arm:
    """A rule at a rate, with the config's divergence and waves but for `changes`."""
    teach = seed.run.exp.inner.teach
    assert teach is not None
    return Arm(rule, rate, teach.divergence, teach.waves)._replace(**changes)


def choose(
    seeds: Sequence[Seed], rules: Sequence[str], rates: Sequence[float]
) -> dict[str, Any]:
    """`tried`: of each rule and rate own and general; `rates` by criterion and rule."""
    tried: dict[str, dict[float, dict[str, float]]] = {rule: {} for rule in rules}
    for rule in rules:
        for rate in rates:
            passages = [
                passage
                for seed in seeds
                for passage in rule_cells.cell_single(seed, arm_of(seed, rule, rate))[
                    "passages"
                ]
            ]
            tried[rule][rate] = {
                part: statistics.fmean(
                    figures.mean_of(p[part]) or 0.0 for p in passages
                )
                for part in ("own", "rephrased", "general")
            }
    return {
        "tried": {
            rule: {f"{rate:g}": found for rate, found in own.items()}
            for rule, own in tried.items()
        },
        "rates": {
            criterion: {rule: figures.chosen(tried[rule], criterion) for rule in rules}
            for criterion in CRITERIA
        },
    }


def measured(seeds: Sequence[Seed], rule: str, rate: float, **changes: Any) -> tuple:
    """The cells of an adapter for each passage, and their values, by seed."""
    cells, values = [], []
    for seed in seeds:
        asked = rule_cells.cell_quizzes(seed, arm_of(seed, "quiz", rate))["asked"]
        arm = arm_of(seed, rule, rate, **changes)
        cells.append(rule_cells.costed(seed, arm))
        values.append(figures.single_values(cells[-1]["passages"], asked))
    return cells, values


def compared(
    rates: Mapping[str, float], values_of: Callable[[str, float], Sequence[Values]]
) -> dict[str, Any]:
    """Each rule's figures at its rate, and less those of `REFERENCES` at theirs."""
    values = {rule: values_of(rule, rate) for rule, rate in rates.items()}
    return {
        rule: figures.summarized(own)
        | {
            f"less_{other}": figures.differences(own, values[other])
            for other in REFERENCES
            if other in values and other != rule
        }
        for rule, own in values.items()
    }


def report(seeds: Sequence[Seed], rates: Mapping[str, Mapping[str, float]]) -> Any:
    """Every rule at its chosen rates: single passages, then streams."""

    def single(rule: str, rate: float) -> Sequence[Values]:
        return measured(seeds, rule, rate)[1]

    def streams(rule: str, rate: float) -> Sequence[Values]:
        arms = [arm_of(seed, rule, rate) for seed in seeds]
        cells = map(rule_cells.cell_streams, seeds, arms)
        return list(map(figures.stream_values, cells))

    made = {
        by: {"rates": own, "single": compared(own, single)} for by, own in rates.items()
    }
    for by, own in rates.items():
        # What a stream keeps is no question to a rate that was chosen without it.
        made[by]["streams"] = compared(own, streams) if by != BY_ACCURACY else {}
        made[by]["cost"] = {
            rule: figures.mean_costs(measured(seeds, rule, rate)[0])
            for rule, rate in own.items()
        }
        for what in ("refused", "failed"):
            made[by][what] = {
                rule: sum(cell[what] for cell in measured(seeds, rule, rate)[0])
                for rule, rate in own.items()
            }
    return made


def varied(seeds: Sequence[Seed], rates: Mapping[str, float]) -> dict[str, Any]:
    """Other divergences and waves at the rates of the config's own."""
    made = {}
    changes = [
        (rule, {"divergence": name}) for rule in VARIED for name in DIVERGENCES
    ] + [("on_policy", {"waves": count}) for count in WAVES]
    for rule, change in changes:
        if rule not in rates:
            continue
        cells, values = measured(seeds, rule, rates[rule], **change)
        _, own = measured(seeds, rule, rates[rule])
        name = ", ".join(f"{key} {value}" for key, value in change.items())
        made[f"{rule}, {name}"] = figures.summarized(values) | {
            "rate": rates[rule],
            "less_config": figures.differences(values, own),
            "cost": figures.mean_costs(cells),
        }
    return made


def unedited(seeds: Sequence[Seed]) -> dict[str, Any]:
    """The base: closed-book, and with each passage in view, the teachers' ceiling."""
    by_seed: dict[str, list[Values]] = {"base": [], "in_context": []}
    for seed in seeds:
        found = rule_cells.cell_base(seed)
        for row, own in found.items():
            values = {
                part: [stats.mean(scores) for scores in own[part]]
                for part in ("own", "rephrased", "general")
                if own[part]
            }
            by_seed[row].append(values)
    return {row: figures.summarized(values) for row, values in by_seed.items()}


def coverage(seeds: Sequence[Seed]) -> dict[str, Any]:
    """What the quizzes ask: shares of the facts, and counts of questions."""
    found = [rule_cells.cell_quizzes(s, arm_of(s, "quiz", RATES[0])) for s in seeds]
    shares = [
        {
            name: [stats.mean(own) for own in cell[name]]
            for name in ("asked", "same_words")
        }
        for cell in found
    ]
    counts = {
        name: sum(sum(cell[name]) for cell in found) for name in ("written", "kept")
    }
    return {
        **figures.summarized(shares),
        **counts,
        "dropped": counts["written"] - counts["kept"],
        "copied": sum(cell["copied"] for cell in found),
    }


def written(seeds: Sequence[Seed], rules: Sequence[str]) -> dict[str, Any]:
    """What each rule's edits cost to write: tokens in all and by part, of one seed."""
    made = {}
    for rule in rules:
        found = [rule_seeds.writing(s, arm_of(s, rule, RATES[0])) for s in seeds]
        names = dict.fromkeys(name for own in found for name in own["parts"])
        made[rule] = {
            "parts": {
                name: statistics.fmean(own["parts"].get(name, 0) for own in found)
                for name in names
            },
            "written_tokens": statistics.fmean(o["written_tokens"] for o in found),
        }
    return made


# The command


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 100")
    return value


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/inner_rules.py",
        description="Inner rules at rates of their own, on the embedded world.",
    )
    seeds = {"nargs": "+", "type": command_line.SEED, "required": True}
    parser.add_argument("--choose", **seeds, help="seeds that pick each rule's rates")
    parser.add_argument("--report", **seeds, help="other seeds, of the figures")
    parser.add_argument(
        "--workdir", required=True, help="of all: seedN holds the cells of each"
    )
    parser.add_argument(
        "--rules", nargs="+", choices=tuple(RULES), default=list(RULES), help="all"
    )
    parser.add_argument("--rates", nargs="+", type=_rate, default=list(RATES))
    for name, count, what in (
        ("passages", 24, "held out, an adapter each"),
        ("streams", 8, f"of {rule_seeds.LENGTH} passages"),
        ("probes", 4, "residents whose facts probe what no edit is about"),
    ):
        parser.add_argument(
            f"--{name}", type=command_line.FEW, default=count, help=what
        )
    parser.add_argument(
        "--by",
        nargs="+",
        choices=CRITERIA,
        default=list(CRITERIA),
        help="what the reported rates were chosen by; both by default",
    )
    parser.add_argument(
        "--also",
        nargs="+",
        type=_rate,
        default=[],
        help="rates at which all rules are reported as well",
    )
    parser.add_argument(
        "--variants",
        action="store_true",
        help="other divergences and waves too, at the rates chosen by both",
    )
    parser.add_argument(
        "--written",
        action="store_true",
        help="only what the edits of --report cost to write; no adapter is trained",
    )
    common.add_out(parser)
    args = parser.parse_args(argv)
    for name in ("choose", "report", "rules", "rates", "by", "also"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    return args


def reported(
    args: argparse.Namespace, rates: Mapping[str, Mapping[str, float]]
) -> dict[str, Mapping[str, float]]:
    """The rate of every rule, by what it was chosen by, or by one rate for all."""
    made: dict[str, Mapping[str, float]] = {by: rates[by] for by in args.by}
    for rate in args.also:
        made[f"{rate:g} for all"] = dict.fromkeys(args.rules, float(rate))
    return made


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Makes or reads the cells of both stages.

    Raises:
      ValueError, OSError: a seed in both stages, or see `rule_seeds.opened`.
    """
    both = sorted(set(args.choose) & set(args.report))
    if both:
        raise ValueError(
            f"--choose and --report share seed {both[0]}: rates would be reported on "
            "what they were chosen by; give it to one of them"
        )
    sizes = Sizes(args.passages, args.streams, args.probes)
    with contextlib.ExitStack() as stack:

        def opened(seed: int) -> Seed:
            return stack.enter_context(
                rule_seeds.opened(seed, Path(args.workdir), sizes, say=say)
            )

        say = functools.partial(print, flush=True)
        if args.written:
            seeds = list(map(opened, args.report))
            return {
                "benchmark": "inner_rules_written",
                "seeds": {"report": args.report},
                "sizes": sizes._asdict(),
                "written": written(seeds, args.rules),
                "coverage": coverage(seeds),
                **common.stamp(device=common.jax_device()),
            }
        choice = choose(list(map(opened, args.choose)), args.rules, args.rates)
        seeds = list(map(opened, args.report))
        made = {
            "unedited": unedited(seeds),
            "coverage": coverage(seeds),
            "report": report(seeds, reported(args, choice["rates"])),
            "variants": (
                varied(seeds, choice["rates"][BY_BOTH]) if args.variants else {}
            ),
        }
    return {
        "benchmark": "inner_rules",
        "seeds": {"choose": args.choose, "report": args.report},
        "sizes": sizes._asdict(),
        "choice": choice,
        **made,
        **common.stamp(device=common.jax_device()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    name, table = "inner_rules", rule_tables.table
    if args.written:
        name, table = "inner_rules_written", rule_tables.written
    return common.finish(lambda: benchmark(args), args.out, name=name, table=table)


if __name__ == "__main__":
    raise SystemExit(main())
