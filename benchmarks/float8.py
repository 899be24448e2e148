"""What a base in float8 does to losses, and to which self-edits are best.

    python benchmarks/float8.py --workdir runs/float8 [--seeds 0 1 2 3] [--out]

The embedded demo's model writes self-edits once for each seed (other passages, other
random numbers). Then adapters of the same edits, with the same draws, are trained and
asked on the base as it is (`same`), on one in float8 (`float8`), and on one whose
slopes are rounded to float8_e5m2 (`e5m2`). On a CPU the eight bits are emulated: the
rounding is that of a GPU, the sums are float32.

Rewards of edits on one base are compared with those on another, seed of the adapter by
seed, within passages: rank correlations, how often the edit picked is a truly best one,
and what share of the gain over a random edit it has. `noise` is the same comparison of
two adapter seeds on the unquantised base: two draws of the reward that a round chooses
by. Nothing that agrees as well as these with it can be told from another seed. Figures
are means over the seeds, with intervals of Student's t.

Finished work is kept under `--workdir`; the same command goes on where it was stopped.
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common
import eight_rounds
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats as scipy_stats

from seal_jax.analysis import choice, stats
from seal_jax.experiment import checks, kinds, one_run, workdirs
from seal_jax.generation import policies
from seal_jax.models import float8_base, lora
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import proposals, scoring, trials
from seal_jax.rounds.graded import Exam, Graded
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import command_line, formatting, interrupts
from seal_jax.training import inner, packed, plan_arrays
from seal_kernels import float8

REWARDS = (reward_names.GRADE, reward_names.LOG_LIKELIHOOD)
OVERRIDES: Mapping[str, Any] = {
    "scale.rounds": 1,
    "scale.heldout_passages": 1,
    "ladder": (),
    "select.compare": REWARDS,
}
SAME, EIGHT, E5M2 = "same", "float8", "e5m2"
ARMS = (SAME, EIGHT, E5M2)

# [passage][edit][adapter seed]
type Values = list[list[list[float | None]]]


# Training and asking


@contextlib.contextmanager
def base_of(arm: str, base: policies.Policy) -> Iterator[policies.Policy]:
    """The policy on the arm's base; what was compiled for another one is forgotten."""
    if arm == SAME:
        yield base
        return
    before = float8.SLOPES
    float8.SLOPES = jnp.float8_e5m2 if arm == E5M2 else before
    _forget()
    arch = dataclasses.replace(base.arch, base_dtype=float8_base.FLOAT8)
    try:
        params = float8_base.running(float8_base.added(base.params))
        yield dataclasses.replace(base, arch=arch, params=params)
    finally:
        float8.SLOPES = before
        _forget()


def _forget() -> None:
    packed.program.cache_clear()
    jax.clear_caches()


def measure(values: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
    """One seed: of each arm the rewards and losses, and errors of a gradient."""
    exp = kinds.read(values)
    assert isinstance(exp, PassageRounds)
    checked = checks.check(exp, dict(values))
    say = functools.partial(print, f"{workdir.name}:", flush=True)
    with interrupts.units(), contextlib.ExitStack() as stack:
        workdirs.claim(workdir, dict(values), stack)
        run, base = one_run.open_run(
            exp, dict(values), checked, workdir, stack, say=say
        )
        items = checked.train[0]
        edits = proposals.propose(
            run, base, items, phase="edits", round_index=1, count=exp.scale.edits
        )
        exams, made = [Exam(item) for item in items], {}
        for arm in ARMS:
            with base_of(arm, base) as policy:
                outcomes = trials.adapt_and_answer(
                    run,
                    policy,
                    edits,
                    exams,
                    phase=arm,
                    round_index=1,
                    seeds=range(exp.scale.seeds),
                )
            made[arm] = scoring.reward(
                run, exams, edits, outcomes, phase=arm, final=True
            )
        sound = [i for i, e in enumerate(edits) if not e.refused]
        job = run.task.job(items[edits[sound[0]].item], edits[sound[0]], ())
        return {
            "rewards": {
                arm: {name: by_passage(made[arm], name) for name in REWARDS}
                for arm in ARMS
            },
            "losses": {arm: losses(made[arm]) for arm in ARMS},
            "gradients": gradients(base, run.inner, job),
        }


def by_passage(graded: Sequence[Graded], name: str) -> Values:
    """One reward as `[passage][edit][adapter seed]`."""
    made: dict[int, list[list[float | None]]] = {}
    for one in graded:
        made.setdefault(one.edit.item, []).append(list(one.measured.get(name, ())))
    return list(made.values())


def losses(graded: Sequence[Graded]) -> list[float]:
    """Of each adapter, its steps' mean."""
    return [trial.loss for one in graded for trial in one.trials if not trial.failed]


def gradients(
    base: policies.Policy, cfg: inner.EngineConfig, job: Any
) -> dict[str, float]:
    """How far an adapter's first gradient is off, of its norm.

    Its `b` is drawn too, for at zero its `a` has no gradient.
    """
    delta = lora.init(jax.random.key(0), base.arch, targets=cfg.targets, rank=cfg.rank)
    delta = jax.tree.map(lambda x: x + 0.02 * jax.random.normal(_KEY, x.shape), delta)
    rows = next(iter(plan_arrays.rows(job, eos=base.eos, multiple=1)))
    rows = {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}
    found = {}
    for arm in ARMS:
        with base_of(arm, base) as policy:
            slope = jax.jit(jax.grad(inner.batch_loss, 1), static_argnums=3)
            made = slope(policy.params, delta, rows, policy.arch)
            found[arm] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(made)])
    size = np.linalg.norm(found[SAME])
    return {
        arm: float(np.linalg.norm(found[arm] - found[SAME]) / size) for arm in ARMS[1:]
    }


_KEY = jax.random.key(1)


# Comparing


class Compared(NamedTuple):
    """Rewards beside those taken as true; means over passages, None: nothing to rank.

    `found`: share of picks that are truly best; `captured`: what the picks gain over
    the mean edit, of what the best ones would.
    """

    spearman: float | None
    kendall: float | None
    found: float | None
    captured: float | None
    chance: float | None


def compare(true: Values, proxy: Values, at: tuple[int, int]) -> Compared:
    """Seed `at[1]` of `proxy` beside seed `at[0]` of `true`."""
    pairs = [
        ([_at(edit, at[0]) for edit in ours], [_at(edit, at[1]) for edit in theirs])
        for ours, theirs in zip(true, proxy, strict=True)
    ]
    chosen = [c for pair in pairs if (c := choice.of(*pair)) is not None]
    gain = sum(c.pick - c.mean for c in chosen), sum(c.best - c.mean for c in chosen)
    return Compared(
        spearman=stats.mean(c.spearman for c in chosen),
        kendall=stats.mean(kendall(*pair) for pair in pairs),
        found=stats.mean(c.found for c in chosen),
        captured=gain[0] / gain[1] if gain[1] else None,
        chance=stats.mean(c.chance for c in chosen),
    )


def _at(edit: Sequence[float | None], seed: int) -> float | None:
    return edit[seed] if seed < len(edit) else None


def kendall(
    true: Sequence[float | None], proxy: Sequence[float | None]
) -> float | None:
    """Kendall's tau-b over the edits that have both; None where one side is flat."""
    both = [
        (t, p)
        for t, p in zip(true, proxy, strict=True)
        if t is not None and p is not None
    ]
    if len(both) < 3 or any(len(set(side)) == 1 for side in zip(*both, strict=True)):
        return None
    return float(scipy_stats.kendalltau(*zip(*both, strict=True)).statistic)


def of_seed(measured: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """All comparisons of one seed, each a mean over adapter seeds."""
    rewards = measured["rewards"]
    own = [(s, s) for s in range(seeds)]
    other = [(s, t) for s in range(seeds) for t in range(seeds) if s != t]
    compared = {"noise": (SAME, other), EIGHT: (EIGHT, own), E5M2: (E5M2, own)}
    compared[f"{EIGHT}, another seed"] = (EIGHT, other)
    plain = np.array(measured["losses"][SAME])
    by_seed = plain.reshape(-1, seeds)
    return {
        "agreement": {
            f"{name} | {how}": _means(
                [compare(rewards[SAME][name], rewards[arm][name], at) for at in pairs]
            )
            for name in REWARDS
            for how, (arm, pairs) in compared.items()
        },
        "loss": {SAME: float(plain.mean())}
        | {
            f"{arm} - {SAME}": float(np.mean(measured["losses"][arm] - plain))
            for arm in (EIGHT, E5M2)
        },
        "loss_off": {
            **{
                arm: float(np.mean(np.abs(measured["losses"][arm] - plain)))
                for arm in (EIGHT, E5M2)
            },
            "noise": float(np.mean(np.abs(by_seed[:, 0] - by_seed[:, 1]))),
        },
        "reward": {
            f"{name} | {arm}": stats.mean(
                v for edits in rewards[arm][name] for edit in edits for v in edit
            )
            for name in REWARDS
            for arm in ARMS
        },
        "gradient": measured["gradients"],
    }


def _means(found: Sequence[Compared]) -> dict[str, float | None]:
    return {
        field: stats.mean(getattr(one, field) for one in found)
        for field in Compared._fields
    }


def interval(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean over the seeds, and half of Student's 95 % interval."""
    known = [v for v in values if v is not None]
    if not known:
        return {"mean": None, "half": None}
    half = None
    if len(known) > 1:
        t = float(scipy_stats.t.ppf(0.975, len(known) - 1))
        half = t * statistics.stdev(known) / math.sqrt(len(known))
    return {"mean": statistics.fmean(known), "half": half}


def over_seeds(found: Sequence[Any]) -> Any:
    """Intervals of the numbers in results of one form."""
    if isinstance(found[0], dict):
        return {key: over_seeds([one[key] for one in found]) for key in found[0]}
    return interval(found)


# The command


def table(result: Mapping[str, Any]) -> str:
    """The result for reading."""

    def cell(of: Mapping[str, float | None], show: Callable[..., str]) -> str:
        if of["half"] is None:
            return show(of["mean"], digits=3)
        return f"{show(of['mean'], digits=3)} ± {formatting.number(of['half'])}"

    made = result["over_seeds"]
    head = ("reward | beside the unquantised base", *Compared._fields)
    rows = [
        (name, *(cell(own[field], formatting.number) for field in Compared._fields))
        for name, own in made["agreement"].items()
    ]
    lines = [formatting.ruled(head, rows), ""]
    for part in ("loss", "loss_off", "reward", "gradient"):
        some = [
            f"{name} {cell(own, formatting.number)}" for name, own in made[part].items()
        ]
        lines.append(f"{part}: " + "; ".join(some))
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags."""
    parser = command_line.Parser(
        prog="benchmarks/float8.py",
        description="A base in float8 beside the unquantised one, on the demo's world.",
    )
    add = parser.add_argument
    add("--workdir", required=True, help="of all: seedN is the work of each in it")
    add("--seeds", nargs="+", type=command_line.SEED, default=[0, 1, 2, 3])
    add("--passages", type=command_line.COUNT, default=24)
    add("--edits", type=command_line.FEW, default=5)
    add("--adapter-seeds", type=command_line.FEW, default=2, help="at least 2")
    common.add_out(parser)
    return parser.parse_args(argv)


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Measures all seeds, or reads what is finished.

    Raises:
      ValueError: one adapter seed, which leaves no noise to compare with.
    """
    if args.adapter_seeds < 2:
        raise ValueError(
            f"--adapter-seeds={args.adapter_seeds} must be at least 2, for the noise"
        )
    scale = {
        "scale.passages": args.passages,
        "scale.edits": args.edits,
        "scale.seeds": args.adapter_seeds,
    }
    found = {
        str(seed): of_seed(
            measure(
                eight_rounds.settings("", {**OVERRIDES, **scale}, seed=seed),
                Path(args.workdir) / f"seed{seed}",
            ),
            args.adapter_seeds,
        )
        for seed in dict.fromkeys(args.seeds)
    }
    return {
        "benchmark": "float8",
        "emulated": jax.default_backend() == "cpu",
        "passages": args.passages,
        "edits": args.edits,
        "adapter_seeds": args.adapter_seeds,
        "seeds": found,
        "over_seeds": over_seeds(list(found.values())),
        **common.stamp(device=common.jax_device()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(lambda: benchmark(args), args.out, name="float8", table=table)


if __name__ == "__main__":
    raise SystemExit(main())
