"""Do seeds that go to the better edits find as good ones with fewer trainings?

    python benchmarks/racing.py --workdir runs/racing [--out]

One round of `configs/tiny.py`, run for real several times: with the same seeds for
every edit, as successive halving over the edits of each passage (`select.halving`), and
once, as `truth`, with seeds to spare. A training is the same wherever it happens: every
run's losses and accuracies must be the first ones of `truth`, to the last bit, or the
command fails. The seeds of `truth` that no run has used grade what each of them kept.

Edits are chosen by accuracy, and by the dense reward (the gold answers' log-likelihood,
which every run measures too, so that uniform seeds need no run of their own); accuracy
grades both. What a run happens to keep is one draw of its seeds: `expected` is the mean
over draws of the race's seeds among those of `truth`, graded by the rest
(`halving.held_out`).

Each run has a workdir under `--workdir`; a finished one is only read.
"""

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import eight_rounds

from seal_jax.analysis import halving, stats, variance
from seal_jax.report import run_view
from seal_jax.runtime import command_line, formatting

type Pairs = tuple[tuple[int, int], ...]
type Row = Mapping[str, Any]
# Of each passage, its edits in the order they were drawn.
type Passages = Sequence[Sequence[Row]]

TRUTH = "truth"
GRADE, DENSE = "grade", "log_likelihood"
ROUNDING = 1e-5
OVERRIDES: Mapping[str, Any] = {
    # Only the choice is looked at, so what follows it is as short as can be.
    "scale.rounds": 1,
    "scale.heldout_passages": 1,
    "imitate.epochs": 1,
    "ladder": (),
    "select.compare": (GRADE, DENSE),
}


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to choose: by `reward`, with the (seeds, keep) of each rung."""

    name: str
    reward: str
    pairs: Pairs

    @property
    def plan(self) -> halving.Schedule:
        return halving.from_pairs(self.pairs)

    @property
    def raced(self) -> bool:
        """Whether later seeds depend on earlier rewards."""
        return len(self.pairs) > 1

    @property
    def run(self) -> str:
        """The workdir that has its trainings; uniform seeds are the same for both."""
        dense = self.raced and self.reward == DENSE
        return f"{self.name}_dense" if dense else self.name


# The first one is what the others are compared with.
WAYS = (
    Way("uniform_4", GRADE, ((4, 1),)),
    Way("uniform_2", GRADE, ((2, 1),)),
    Way("uniform_1", GRADE, ((1, 1),)),
    Way("race_1_2_4", GRADE, ((1, 3), (2, 2), (4, 1))),
    Way("race_1_4", GRADE, ((1, 2), (4, 1))),
    Way("uniform_4", DENSE, ((4, 1),)),
    Way("uniform_2", DENSE, ((2, 1),)),
    Way("uniform_1", DENSE, ((1, 1),)),
    Way("race_1_2_4", DENSE, ((1, 3), (2, 2), (4, 1))),
)


def overrides(way: Way) -> dict[str, Any]:
    """What a way's run changes in the config."""
    return {
        "scale.seeds": way.pairs[-1][0],
        "select.halving": way.pairs if way.raced else (),
        "select.reward": way.reward if way.raced else GRADE,
    }


# Reading the runs


def passages(edits: Sequence[Row]) -> list[list[Row]]:
    """The rows of edits.jsonl by passage."""
    found: dict[str, list[Row]] = {}
    for row in edits:
        found.setdefault(row["passage_id"], []).append(row)
    return [sorted(own, key=lambda r: r["edit"]) for own in found.values()]


def rewards(of: Passages, name: str) -> list[list[list[float | None]]]:
    """[passage][edit][seed], as `halving` takes them."""
    return [[list(row["measured"].get(name, ())) for row in own] for own in of]


def check(truth: Passages, found: Passages, *, run: str) -> None:
    """That a run's edits, losses and rewards are those of `truth`, as far as it went.

    Losses and accuracies to the last bit. Log-likelihoods are taken in batches of many
    adapters, and where an adapter stands in its batch changes how sums are rounded.

    Raises:
      ValueError: one differs.
    """
    names = [[(r["passage_id"], r["edit"], r["text"]) for r in p] for p in found]
    if names != [[(r["passage_id"], r["edit"], r["text"]) for r in p] for p in truth]:
        raise ValueError(
            f"{run}: its edits must be those of {TRUTH}; give a new --workdir"
        )
    for ours, theirs in zip(found, truth, strict=True):
        for row, whole in zip(ours, theirs, strict=True):
            for name, tolerance in (("losses", 0.0), (GRADE, 0.0), (DENSE, ROUNDING)):
                own, wanted = _values(row, name), _values(whole, name)
                if not _first_of(own, wanted, tolerance):
                    raise ValueError(
                        f"{run}: {row['passage_id']}, edit {row['edit']}: {name} {own} "
                        f"must be the first of {wanted}, those of {TRUTH}; the same "
                        "training gave another adapter"
                    )


def _values(row: Row, name: str) -> list[float | None]:
    return list(row[name] if name == "losses" else row["measured"].get(name, ()))


def _first_of(
    own: Sequence[float | None], wanted: Sequence[float | None], tolerance: float
) -> bool:
    return len(own) <= len(wanted) and all(
        a is b if a is None or b is None else math.isclose(a, b, rel_tol=tolerance)
        for a, b in zip(own, wanted, strict=False)
    )


def picks(way: Way, found: Passages) -> list[int | None]:
    """The edit that each passage keeps; None where none was trained.

    Raises:
      ValueError: a run kept another edit than its rewards say.
    """
    by_reward = rewards(found, way.reward)
    made: list[int | None] = []
    for p, edits in enumerate(by_reward):
        trained = [e for e, own in enumerate(edits) if own]
        # Who left the race has fewer seeds than those that ended it.
        last = max((len(edits[e]) for e in trained), default=0)
        still = [e for e in trained if len(edits[e]) == last]
        best = halving.survivors([edits[e] for e in still], 1) if still else []
        chosen = still[best[0]] if best else None
        kept = [e for e, row in enumerate(found[p]) if row["kept"]]
        ran_so = way.raced or way.reward == GRADE
        if ran_so and kept != ([] if chosen is None else [chosen]):
            raise ValueError(
                f"{way.run}: passage {p} kept {kept} and its rewards say {chosen}; "
                "give a new --workdir"
            )
        made.append(chosen)
    return made


# Grading them


def true_values(truth: Passages, *, used: int) -> list[list[float | None]]:
    """Mean accuracy of each edit at the seeds of `truth` from `used` on."""
    return [[_mean(own[used:]) for own in edits] for edits in rewards(truth, GRADE)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def graded(
    truth: Passages, runs: Mapping[str, run_view.Workdir], ways: Sequence[Way]
) -> list[dict[str, Any]]:
    """Each way's figures; the first way is the reference of the differences.

    Raises:
      ValueError: as `check` and `picks`.
    """
    value = true_values(truth, used=max(way.pairs[-1][0] for way in ways))
    middle = [_mean(edits) for edits in value]
    measured = {name: rewards(truth, name) for name in (GRADE, DENSE)}
    made, first = [], None
    for way in ways:
        found = passages(runs[way.run].edits)
        check(truth, found, run=way.run)
        chosen = picks(way, found)
        own = [None if e is None else value[p][e] for p, e in enumerate(chosen)]
        expected = halving.held_out(measured[way.reward], way.plan, of=measured[GRADE])
        first = (own, expected) if first is None else first
        made.append(
            {
                "choice": way.name,
                "reward": way.reward,
                "schedule": [list(pair) for pair in way.pairs],
                "trainings": sum(len(r["measured"][GRADE]) for p in found for r in p),
                "adapt_seconds": adapt_seconds(runs[way.run].summary),
                "true_reward": stats.mean_se(own)[0],
                "gain": paired(own, middle),
                "over_first": None if way is ways[0] else paired(own, first[0]),
                "expected": _mean(expected),
                "expected_over_first": (
                    None if way is ways[0] else paired(expected, first[1])
                ),
            }
        )
    return made


def paired(
    a: Sequence[float | None], b: Sequence[float | None]
) -> dict[str, float | None]:
    """Mean of a - b over the passages, its standard error and z."""
    diff, se, z = stats.paired(a, b)
    return {"diff": diff, "se": se, "z": z}


def adapt_seconds(summary: Mapping[str, Any]) -> float:
    """Seconds of training the round's adapters and of answering under them."""
    phases = summary["seconds"].items()
    return sum(
        s for name, s in phases if name.startswith("round_1/") and "/adapt" in name
    )


def table(result: Mapping[str, Any]) -> str:
    """The result for reading."""

    def difference(found: Mapping[str, Any] | None) -> str:
        if found is None:
            return formatting.MISSING
        return f"{formatting.signed(found['diff'])} ± {formatting.number(found['se'])}"

    head = ("choice", "reward", "trainings", "adapt s", "true", "gain over the mean")
    head += ("over the first", "expected", "over the first")
    lines = [
        (
            row["choice"],
            row["reward"],
            formatting.count(row["trainings"]),
            formatting.number(row["adapt_seconds"], digits=0),
            formatting.number(row["true_reward"]),
            difference(row["gain"]),
            difference(row["over_first"]),
            formatting.signed(row["expected"]),
            difference(row["expected_over_first"]),
        )
        for row in result["choices"]
    ]
    spread = result["spread"]
    return "\n".join(
        (
            formatting.ruled(head, lines),
            "",
            f"accuracy differs by {formatting.number(spread['edits'])} between the"
            f" edits of a passage and by {formatting.number(spread['seeds'])} between"
            " the seeds of an edit (standard deviations)",
        )
    )


# The command


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/racing.py",
        description="Races over edits against uniform seeds, graded by other seeds.",
    )
    parser.add_argument("--workdir", required=True, help="of all runs, one folder each")
    parser.add_argument(
        "--passages", type=command_line.COUNT, default=48, help="at least 2"
    )
    parser.add_argument(
        "--judge-seeds",
        type=command_line.FEW,
        default=8,
        help="of truth, used by no run",
    )
    parser.add_argument(
        "--seed", type=command_line.SEED, default=0, help="of config and passages"
    )
    common.add_out(parser)
    return parser.parse_args(argv)


def measure(
    values: Mapping[str, Mapping[str, Any]], workdir: Path, ways: Sequence[Way]
) -> dict[str, Any]:
    """Runs or reads everything; the measured part of the result.

    Args:
      values: config values of each run by its name, `TRUTH` among them.
      workdir: folder of the runs.

    Raises:
      ValueError, OSError: as `eight_rounds.run` and `graded`.
    """
    runs = {name: eight_rounds.run(own, workdir / name) for name, own in values.items()}
    truth = passages(runs[TRUTH].edits)
    parts = variance.anova(rewards(truth, GRADE))
    return {
        "choices": graded(truth, runs, ways),
        "spread": {
            "edits": parts.edit**0.5,
            "seeds": parts.seed**0.5,
        },
        "truth_trainings": sum(len(r["measured"][GRADE]) for p in truth for r in p),
        "truth_adapt_seconds": adapt_seconds(runs[TRUTH].summary),
    }


def needed(ways: Sequence[Way], *, judge_seeds: int) -> dict[str, dict[str, Any]]:
    """What each run changes in the config, by its name."""
    most = max(way.pairs[-1][0] for way in ways)
    spare = Way(TRUTH, GRADE, ((most + judge_seeds, 1),))
    return {way.run: {**OVERRIDES, **overrides(way)} for way in (spare, *ways)}


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Runs or reads all that `WAYS` needs.

    Raises:
      ValueError, OSError: as `measure`, or a flag below what makes sense.
    """
    for flag, value, least in (
        ("passages", args.passages, 2),
        ("judge-seeds", args.judge_seeds, 1),
    ):
        if value < least:
            raise ValueError(f"--{flag}={value} must be at least {least}")
    scale = {"scale.passages": args.passages}
    values = {
        name: eight_rounds.settings("", changes | scale, seed=args.seed)
        for name, changes in needed(WAYS, judge_seeds=args.judge_seeds).items()
    }
    return {
        "benchmark": "racing",
        "passages": args.passages,
        "judge_seeds": args.judge_seeds,
        "seed": args.seed,
        **measure(values, Path(args.workdir), WAYS),
        **common.stamp(device=common.jax_device()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(lambda: benchmark(args), args.out, name="racing", table=table)


if __name__ == "__main__":
    raise SystemExit(main())
