"""A whole round on one H200 as its compiled programs say, by phase, beside its floor.

    .venv-aot/bin/python benchmarks/modelled_round.py [--figures FOLDER] [--write]

For SEAL's published round at 7B with adapters on q and v, the same with adapters on all
seven projections, and the few-shot round at 1B. Nothing is measured. Seconds of a
program are those of `roofline.py` on the text that XLA made of it for an H200
(`aot_programs.py`); how often it runs is what the plan says (training), or the queue,
simulated over the published lengths (generation). The host's time is in neither, nor is
what the two models leave out (`floor.py`, `roofline.py`). A ratio is floor over
modelled.

Compiling takes long; what is in FOLDER already is read from there, and what is not is
left there. `--out` writes benchmarks/results/h200-aot/round.json. `--write` does, and
besides writes what the programs may cost at most from now on (tests/aot/bounds.json,
for `make test-aot`) and the tables of docs/engine.md.
"""

# First, since it says where jax may look for devices.
import aot_programs  # isort: skip
import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aot_training
import arc_phases
import arc_plan
import arc_task
import arc_workload
import common
import floor
import jax
import modelled_tables
import occupancy
import roofline
import round_phases
import round_task
import workload
from modelled_phases import (
    Programs,
    adapting,
    imitating,
    micro_batches,
    writing,
)

from seal_jax.generation import side_by_side

DEVICE = "h200-aot"
BOUNDS = common.ROOT / "tests" / "aot" / "bounds.json"
# A bound is the figure that was compiled, and this much more.
MARGIN = 1.03
BOUNDED = ("bytes", "kernels", "temporary_bytes")

# Bounds


def write_bounds(programs: Programs, path: Path = BOUNDS) -> None:
    """Writes what the tested programs may cost at most, a little more than they do."""
    bounds = {}
    for name in aot_programs.TESTED:
        made = programs.figures(name)
        limits = {key: float(f"{made[key] * MARGIN:.4g}") for key in BOUNDED}
        bounds[name] = {**limits, "jax": made["jax"]}
    text = json.dumps(bounds, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


# Rounds


def squad(
    programs: Programs,
    changes: Mapping[str, Any],
    packed: str,
    *,
    base: str = "",
) -> dict[str, Any]:
    """The published round.

    All answers are charged as under adapters on q and v; what those on all seven cost
    more, and the base's own less, is a second or two.

    Args:
      programs: compiled.
      changes: to configs/squad.py.
      packed: the program that trains.
      base: what the names of all programs end in, such as "_float8".
    """
    exp = round_task.settings(changes)
    shape, cfg = common.SHAPES["qwen2.5-7b"], aot_training.squad_engine(changes)
    articles = round_task.lengths(workload.load(), exp)
    task = round_task.task(exp, articles, vocab=2**15)
    jobs = [task.job(trial, first_step_only=False) for trial in task.trials]
    kept = round_phases.choose(task)
    pairs = [(len(task.prompts[p]), articles[p].edits[e].tokens) for p, e in kept]
    machine = floor.machine("NVIDIA H200", roofline.PEAK_FLOPS)
    assert machine is not None
    work = floor.Round(
        articles=articles,
        trained_tokens=arc_plan.work(jobs).tokens,
        trained_steps=sum(job.total for job in jobs),
        adapter=floor.Lora(exp.inner.lora.rank, exp.inner.lora.targets),
        kept=tuple(pairs),
        imitated=floor.Lora(exp.imitate.lora.rank, exp.imitate.lora.targets),
        imitate_epochs=exp.imitate.epochs,
        imitate_steps=len(micro_batches(pairs, exp.imitate)),
    )
    merge = 2 * floor.WEIGHT_BYTES * shape.matmul_parameters() / machine.bytes_per_s
    propose, evaluate, plain = (wanted for wanted, *_ in occupancy.squad().values())
    answering = f"7b_adapters{base}"
    answers = [
        writing(programs, asked, exp.answer, answering, adapters=count)
        for asked, count in ((evaluate, len(jobs)), (plain, 0))
    ]
    phases = {
        "propose": writing(programs, propose, exp.propose, f"7b{base}", adapters=0),
        "adapt": adapting(programs, packed + base, jobs, cfg),
        "evaluate": (
            sum(seconds for seconds, _ in answers),
            {"adapters": answers[0][1], "base": answers[1][1]},
        ),
        "imitate": imitating(programs, f"imitate_7b{base}", pairs, exp.imitate, merge),
    }
    return compared(phases, floor.by_phase(shape, work, machine))


def arc(programs: Programs) -> dict[str, Any]:
    """The few-shot round, with configurations drawn at random.

    Proposals, short texts, are charged as if they were answers.
    """
    exp, cfg = arc_task.settings({}), aot_training.arc_engine()
    shape = common.SHAPES["llama-3.2-1b"]
    tasks = arc_task.lengths(arc_workload.load(), exp)
    whole = arc_task.make(exp, tasks, configuration="random", vocab=2**15, seed=0)
    machine = floor.machine("NVIDIA H200", roofline.PEAK_FLOPS)
    assert machine is not None
    phases = {}
    for which in arc_phases.SETS:
        part: arc_task.Part = getattr(whole, which)
        texts = [
            (side_by_side.Request(prompt), tokens)
            for prompt, own in zip(part.prompts, part.texts, strict=True)
            for tokens in own
        ]
        asked, jobs = part.requests(part.trials), part.jobs()
        made = (
            writing(programs, texts, exp.propose, "1b_adapters", adapters=0),
            adapting(programs, "packed_1b_arc", jobs, cfg),
            writing(programs, asked, exp.answer, "1b_adapters", adapters=len(jobs)),
        )
        names = (arc_phases.phase(name, which) for name in arc_phases.OF_SET)
        phases |= dict(zip(names, made, strict=True))
    pairs = [
        (len(whole.train.prompts[task]), whole.train.texts[task][edit])
        for task, edit in arc_phases.choose(whole.train)
    ]
    merge = 2 * floor.WEIGHT_BYTES * shape.matmul_parameters() / machine.bytes_per_s
    phases["imitate"] = imitating(programs, "imitate_1b", pairs, exp.imitate, merge)
    return compared(phases, arc_plan.least(shape, whole, machine))


def compared(
    phases: Mapping[str, tuple[float, dict[str, Any]]], least: Mapping[str, float]
) -> dict[str, Any]:
    """Each phase and the whole: modelled seconds, floor, and floor over modelled."""

    def one(seconds: float, bound: float) -> dict[str, float]:
        return {"modelled_seconds": seconds, "floor": bound, "ratio": bound / seconds}

    whole = sum(seconds for seconds, _ in phases.values())
    return {
        **one(whole, sum(least.values())),
        "phases": {
            name: {**one(seconds, least[name]), **detail}
            for name, (seconds, detail) in phases.items()
        },
    }


ROUNDS: dict[str, Callable[[Programs], dict[str, Any]]] = {
    "7b_qv": lambda found: squad(found, {}, "packed_7b_qv"),
    "7b_all": lambda found: squad(found, aot_training.ALL_SEVEN, "packed_7b_all"),
    "1b_arc": arc,
}
# By name alone. Their floor is that of bfloat16, to be compared with the one above.
OTHERS: dict[str, Callable[[Programs], dict[str, Any]]] = {
    "7b_qv_float8": lambda found: squad(found, {}, "packed_7b_qv", base="_float8"),
}


# The command


def run(programs: Programs, names: Sequence[str]) -> dict[str, Any]:
    """The rounds of those names, and what each program in them costs."""
    rounds = {name: (ROUNDS | OTHERS)[name](programs) for name in names}
    kept = ("per", "seconds", "flop", "bytes", "kernels", "by_category", "jax")
    return {
        "benchmark": "modelled_round",
        "modelled": True,
        "rounds": rounds,
        "programs": {
            name: {key: made[key] for key in kept}
            for name, made in sorted(programs.used.items())
        },
        "constants": dataclasses.asdict(roofline.h200()),
        "jax": jax.__version__,
        **common.stamp(device=DEVICE),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/modelled_round.py",
        description="Models a round on an H200 from compiled programs.",
    )
    add = parser.add_argument
    add("--figures", type=Path, metavar="FOLDER", help="of compiled programs")
    choices = list(ROUNDS | OTHERS)
    add("--rounds", nargs="+", choices=choices, default=list(ROUNDS))
    add("--write", action="store_true", help="bounds, result and page anew")
    common.add_out(parser)
    args = parser.parse_args(argv)
    programs = Programs(args.figures)

    def measure() -> dict[str, Any]:
        result = run(programs, args.rounds)
        if args.write:
            write_bounds(programs)
            modelled_tables.write_page(result)
        return result

    out = "" if args.write and args.out is None else args.out
    return common.finish(measure, out, name="round", table=modelled_tables.table)


if __name__ == "__main__":
    raise SystemExit(main())
