"""How far a reward measured with few seeds can be trusted, and what more would buy.

    python -m seal_jax reliability PATH...

A PATH is a ranking result of the SEAL reference (results/query_server/train/*.json) or
a workdir (its edits.jsonl, each round on its own). Printed are the variance of rewards
between edits and between seeds; the gain of the best edit for more seeds, as it appears
and as it is; the best use of a budget of trainings; and successive halving beside equal
seeds for all. "real" is for normal rewards, "held out" is measured: chosen by some
seeds, graded by the others.
"""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from seal_jax.analysis import halving, stats, variance
from seal_jax.report import reference, run_view
from seal_jax.report.commands import select as rankings
from seal_jax.rewards import names as reward_names
from seal_jax.runtime import files, formatting

type Rewards = variance.Rewards

_WANTED = "a workdir or a SEAL ranking result"

# Files


@dataclasses.dataclass(frozen=True)
class Measured:
    """rewards[passage][edit][seed], and what the same trainings are to be graded by."""

    name: str
    rewards: Rewards
    judge: Rewards  # shares of right answers; the rewards where those are not known
    raced: int | None = None  # of a race: the seeds that all edits had, and are in


def read(path: str | Path) -> list[Measured]:
    """The rewards in a SEAL ranking result, or of each round of a workdir.

    A workdir whose reward is not the share of right answers gives that as rewards too,
    under a name that ends in "right answers"; so it does with whatever else was
    measured at every seed (`select.compare`), each under its own name. Of a round that
    was a race over seeds only those count that all edits had: the later ones were given
    to edits that had been lucky.

    Raises:
      ValueError: neither of the two, or no rewards in it.
      OSError: it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or directory; give {_WANTED}")
    if not path.is_dir():
        rewards = _ranking(path)
        return [Measured(path.stem, rewards, rewards)]
    rounds: dict[object, dict[object, list[tuple[list, list, dict]]]] = {}
    seeds: dict[object, int] = {}
    for row in run_view.read_edits(path):
        item = row.get("passage_id", row.get("task_id"))
        if item is None or not isinstance(row.get("rewards"), list):
            raise ValueError(
                f"{path}: a row of {run_view.EDITS_NAME} lacks its passage_id or "
                "rewards; give a workdir that seal_jax wrote"
            )
        rewards = [reward_names.measured(r) for r in row["rewards"]]
        number = row.get("round", formatting.MISSING)
        if row.get("out") and rewards:
            seeds[number] = min(len(rewards), seeds.get(number, len(rewards)))
        passages = rounds.setdefault(number, {})
        passages.setdefault(item, []).append((rewards, _right(row), _others(row)))
    if not rounds:
        raise ValueError(f"{path}: no {run_view.EDITS_NAME} with edits; give a workdir")
    found = []
    for number, passages in rounds.items():
        name, cut = f"{path.name} round {number}", seeds.get(number)
        rewards = [[r[:cut] for r, *_ in edits] for edits in passages.values()]
        right = [[s[:cut] for _, s, _ in edits] for edits in passages.values()]
        known = _same_seeds(right, rewards)
        judge = right if known else rewards
        found.append(Measured(name, rewards, judge, cut))
        if known and not _same(right, rewards):
            found.append(Measured(f"{name}, right answers", right, right, cut))
        every = [other for edits in passages.values() for *_, other in edits]
        for key in every[0]:
            own = [
                [other.get(key, [])[:cut] for *_, other in edits]
                for edits in passages.values()
            ]
            # One that takes no adapter has one value, however many seeds there are.
            if _same_seeds(own, rewards) and not _same(own, rewards):
                found.append(Measured(f"{name}, {key}", own, judge, cut))
    return found


def _others(row: dict) -> dict[str, list[float | None]]:
    """What a row measured besides right answers, by name."""
    measured = row.get("measured")
    if not isinstance(measured, dict):
        return {}
    return {
        key: [reward_names.measured(v) for v in own]
        for key, own in measured.items()
        if key != "grade" and isinstance(own, list)
    }


def _same_seeds(a: Rewards, b: Rewards) -> bool:
    """Whether both have a value for the same trainings."""
    return all(
        len(x) == len(y)
        for p, q in zip(a, b, strict=True)
        for x, y in zip(p, q, strict=True)
    )


def _same(a: Rewards, b: Rewards) -> bool:
    """Up to rounding."""
    pairs = [
        (x, y)
        for p, q in zip(a, b, strict=True)
        for e, f in zip(p, q, strict=True)
        for x, y in zip(e, f, strict=True)
    ]
    return all(
        x is y if x is None or y is None else math.isclose(x, y, abs_tol=1e-9)
        for x, y in pairs
    )


def _right(row: dict) -> list[float | None]:
    """Share of right answers at each seed of a row; [] where not listed per question.

    A seed without answers failed, and has none right."""
    try:
        scores = [[q["score"] for q in own] for own in row["answers"]]
    except (KeyError, TypeError):
        return []
    known = [[s for s in own if s is not None] for own in scores]
    return [
        (math.fsum(k) / len(k) if k else None) if own else 0.0
        for own, k in zip(scores, known, strict=True)
    ]


def _ranking(path: Path) -> Rewards:
    value = files.read_json(path)
    if not reference.is_results(value):
        raise ValueError(
            f"{path}: must be {_WANTED}; give a file from results/query_server/train"
        )
    try:
        rewards = [
            [
                rankings.accuracies(c["questions"], "adapter_correct")
                for c in completions
            ]
            for completions in (article["completions"] for article in value["articles"])
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: an article lacks what a SEAL result has ({error!r}); give a file "
            "from results/query_server/train"
        ) from None
    if not all(own for passage in rewards for own in passage):
        raise ValueError(
            f"{path}: an edit lists no answers, so the rewards of its seeds are not "
            "known; give a file that lists its questions"
        )
    return rewards


# Tables


def describe(measured: Measured, *, draws: int = 400) -> str:
    """What `variance` and `halving` say of these rewards, as tables to print.

    Raises:
      ValueError: as `variance.anova`.
    """
    rewards = measured.rewards
    parts = variance.anova(rewards)
    edits, seeds = max(map(len, rewards)), _most_seeds(rewards)
    lines = [
        f"{measured.name}{formatting.raced(measured.raced)}: "
        f"{parts.passages} passages, {parts.edits} edits, "
        f"{parts.trainings} trainings, mean reward {parts.mean:.4f}",
        f"variance: passages {formatting.number(parts.passage, digits=4)}, edits "
        f"{parts.edit:.4f}, seeds {parts.seed:.4f}; of means over {seeds} seeds "
        f"{parts.of_means(seeds):.4f}",
    ]
    for part in parts.clipped:
        lines.append(f"the variance of the {part}s was estimated below 0: taken as 0")
    trust = variance.reliability(parts, seeds)
    lead, error = stats.mean_se(variance.best_lead(rewards))
    real = None if trust is None else lead * trust
    lines.append(
        f"best of {edits}: lead {formatting.signed(lead, digits=4)} (se "
        f"{formatting.number(error, digits=4)}), of which expected to be real "
        f"{formatting.signed(real, digits=4)}"
    )
    if not _same(rewards, measured.judge):
        lines.append("held out: chosen by these rewards, graded by right answers")
    tables = [_by_seeds(measured, parts, edits, seeds), _by_budget(parts)]
    for count in (edits, 4 * edits):
        tables.append(_by_schedule(measured, parts, count, draws))
    return "\n\n".join(["\n".join(lines), *tables])


def _by_seeds(
    measured: Measured, parts: variance.Components, edits: int, seeds: int
) -> str:
    def interval(k: int) -> tuple[float | None, float | None]:
        if not formatting.enough(parts.passages):
            return None, None
        return variance.reliability_interval(measured.rewards, k)

    rows = []
    for k in sorted({1, 2, 3, 4, 6, 8, 12, 24, seeds}):
        gain = variance.expected_gain(parts, edits, k)
        trust = variance.reliability(parts, k)
        rows.append(
            (
                str(k),
                formatting.number(trust, digits=2),
                formatting.span(*interval(k)),
                formatting.number(gain.apparent, digits=4),
                formatting.number(gain.real, digits=4),
                formatting.number(gain.perfect, digits=4),
                *_held_out(measured, halving.uniform(k)),
            )
        )
    head = ("seeds", "reliability", "95 %", "lead", "real", "perfect", "held out", "se")
    return formatting.aligned([head, *rows])


def _by_budget(parts: variance.Components) -> str:
    rows = []
    for budget in (5, 10, 15, 30, 60, 120):
        best = variance.splits(parts, budget)[0]
        rows.append(
            (
                str(budget),
                f"{best.edits} x {best.seeds}",
                formatting.number(best.real, digits=4),
            )
        )
    head = ("trainings a passage", "edits x seeds", "real gain")
    return formatting.aligned([head, *rows])


def _by_schedule(
    measured: Measured, parts: variance.Components, edits: int, draws: int
) -> str:
    """Successive halving beside uniform seeds, on resampled passages."""
    plans = [(f"{k} seeds", halving.uniform(k)) for k in (1, 2, 3, 4, 6, 8, 12)]
    plans[0] = ("1 seed", plans[0][1])
    same = len(plans)
    half = math.ceil(edits / 2)
    halved = [(halving.Rung(1, half), halving.Rung(2, 1))]
    halved += [halving.schedule(edits, first=first) for first in (1, 2, 3)]
    for plan in halved:
        steps = ", ".join(f"{rung.seeds}>{rung.keep}" for rung in plan)
        plans.append((f"halving {steps}", plan))
    grades = [
        halving.resample(
            measured.rewards,
            plan,
            edit=parts.edit,
            seed=parts.seed,
            edits=edits,
            draws=draws,
        )
        for _, plan in plans
    ]
    curve = [(g.trainings, g.gain) for g in grades[:same]]
    rows = []
    for (name, plan), g in zip(plans, grades, strict=True):
        there = edits == max(map(len, measured.rewards))
        rows.append(
            (
                name,
                str(g.trainings),
                formatting.number(g.gain, digits=4),
                formatting.percent(g.share),
                formatting.number(halving.uniform_trainings(g.gain, curve), digits=1),
                *(_held_out(measured, plan) if there else (formatting.MISSING,) * 2),
            )
        )
    head = (f"of {edits} edits", "trainings", "real gain", "of perfect", "as uniform")
    return formatting.aligned([(*head, "held out", "se"), *rows])


def _held_out(measured: Measured, plan: halving.Schedule) -> tuple[str, str]:
    """Gain on seeds not raced with, and its standard error over passages."""
    most = max(rung.seeds for rung in plan)
    there = [
        (own, judge)
        for own, judge in zip(measured.rewards, measured.judge, strict=True)
        if _most_seeds([own]) > most and len(own) >= plan[0].keep
    ]
    gains = halving.held_out(
        [own for own, _ in there], plan, of=[judge for _, judge in there]
    )
    known = [g for g in gains if g is not None]
    if not known:
        return formatting.MISSING, formatting.MISSING
    mean, error = stats.mean_se(known)
    return formatting.number(mean, digits=4), formatting.number(error, digits=4)


def _most_seeds(rewards: Rewards) -> int:
    return max((len(own) for passage in rewards for own in passage), default=0)


# Command


def main(argv: Sequence[str] | None = None) -> int:
    """Prints tables for the paths of a command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seal_jax reliability",
        description="How far rewards can be trusted, and what more seeds would buy.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument("--draws", type=int, default=400, help="resampled races")
    args = parser.parse_args(argv)
    return formatting.exit_status(lambda: _print(args.paths, args.draws))


def _print(paths: Sequence[str], draws: int) -> None:
    if draws < 1:
        raise ValueError(f"--draws {draws}: must be at least 1; give more")
    for path in paths:
        for measured in read(path):
            try:
                print(describe(measured, draws=draws), end="\n\n")
            except ValueError as error:
                raced = measured.raced
                why = "; of a race only the seeds count that all edits had"
                raise ValueError(
                    f"{measured.name}{formatting.raced(raced)}: {error}"
                    f"{'' if raced is None else why}"
                ) from None


if __name__ == "__main__":
    raise SystemExit(main())
