"""The few-shot round at a model's size: seconds by phase, against the floor.

    python benchmarks/arc_round.py --shape llama-3.2-1b --out    # SEAL's setting
    python benchmarks/arc_round.py --shape llama-3.2-1b --plan-only --out

propose, adapt, evaluate, select and imitate are what a run does, with the settings of
configs/arc.py: `generate.run`, `packed.train` with sizes from `capacity.choose`,
`select.best`, `imitate.train` and the merge; then propose, adapt and evaluate again, by
the policy that came of it, for the tasks held out. Weights and tokens are random,
lengths are those of arc_workload.json. Every self-edit is valid at once and as long as
its configuration written out; the configurations are drawn at random from the valid
ones within budget (or all the oracle's), where a policy would have its own. Answers
have the right one's length: what an adapter that learned nothing would ramble is not in
it. Rewards are made up and half of them 1. Nothing is graded or saved. One device.

Every program runs once before the clock starts: on the same prompts with empty texts,
and on one step of each adapter. What compiles after that is reported by phase.

--plan-only computes nothing on the device: it counts steps and tokens, lays the plan
out, and gives the floor of an H200.

`floor` and `ratio_vs_floor` are those of round.py. `ratio_vs_reference` is 9,000
seconds over those measured: the paper says two to three hours of one GPU for the round,
and this is their middle; we count the held-out tasks too. It is null for anything but
the whole of its setting.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import arc_phases
import arc_plan
import arc_task
import arc_workload
import common
import floor
import jax
import round as whole_round

from seal_jax.generation import policies
from seal_jax.models import decoder, hf_config, lora
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.runtime import backend, command_line
from seal_jax.training import capacity, throughput

REFERENCE_SECONDS = 9_000
REFERENCE_SHAPE = "llama-3.2-1b"
PLANNED_FOR = "NVIDIA H200"
# Whose steps have no chunks, but a place for each slot.
BY_SLOT = True


# What comes of it


def figures(
    outcome: arc_phases.Outcome,
    task: arc_task.Round,
    *,
    flops_per_token: int,
    peak: float | None,
) -> dict[str, Any]:
    """The measured part of the result; rates of a set are over its phase adapt."""
    seconds = outcome.clock.seconds
    made: dict[str, Any] = {
        "seconds": sum(seconds.values()),
        "seconds_by_phase": seconds,
        "compile_seconds_by_phase": outcome.clock.compiling,
        "imitated": len(outcome.kept),
        "imitated_tokens": sum(map(sum, outcome.kept)),
        "imitate_steps": len(outcome.losses),
    }
    for which, done in outcome.done.items():
        own = arc_plan.work(getattr(task, which).jobs())
        adapting = seconds[arc_phases.phase("adapt", which)]
        computed = sum(part.computed_tokens for part in done.trained)
        flops = own.tokens * flops_per_token / adapting
        made[which] = {
            **own._asdict(),
            "device_steps": sum(part.steps for part in done.trained),
            "adapters_per_s": own.adapters / adapting,
            "tokens_per_s": own.tokens / adapting,
            "steps_per_s": own.steps / adapting,
            "token_efficiency": own.tokens / computed,
            "flops_per_s": flops,
            "mfu": None if peak is None else flops / peak,
            "written": {
                name: whole_round.written(parts, seconds[arc_phases.phase(name, which)])
                for name, parts in (
                    ("propose", [done.proposed]),
                    ("evaluate", done.answered),
                )
            },
        }
    return made


def compared(
    seconds: float,
    task: arc_task.Round,
    shape: common.Shape,
    mesh: floor.Machine | None,
    *,
    published: bool,
) -> dict[str, Any]:
    """The round against its floor, and against the reference if it is `published`."""
    reference = REFERENCE_SECONDS / seconds if published else None
    made = {"floor": None, "ratio_vs_floor": None, "ratio_vs_reference": reference}
    if mesh is None:
        return made
    by_phase = arc_plan.least(shape, task, mesh)
    least = sum(by_phase.values())
    made["floor"] = {"seconds": least, "seconds_by_phase": by_phase, **mesh._asdict()}
    return {**made, "ratio_vs_floor": least / seconds}


def is_published(exp: FewShot, *, shape: str, scale: float) -> bool:
    """Whether this is SEAL's setting, whole."""
    own = arc_task.settings({})
    same = all(
        getattr(exp, name) == getattr(own, name)
        for name in ("scale", "data", "edit", "views")
    )
    return same and shape == REFERENCE_SHAPE and scale == 1


# The command


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.Parser(
        prog="benchmarks/arc_round.py",
        description="Runs and times a whole few-shot round of SEAL, or plans one.",
    )
    add = parser.add_argument
    of_config = "default: as in configs/arc.py"
    add("--shape", default="small", help=f"{', '.join(common.SHAPES)}, or NAME,FIELD=N")
    add("--dtype", help=f"of the base; {of_config}, on a CPU float32")
    add("--tasks", type=command_line.COUNT, help=f"to learn from; {of_config}")
    add("--edits", type=command_line.FEW, help=f"of each of these; {of_config}")
    add("--heldout-tasks", type=command_line.COUNT, help=of_config)
    add("--heldout-edits", type=command_line.FEW, help=of_config)
    add("--configuration", choices=arc_task.CONFIGURATIONS, default="random")
    add(
        "--seed", type=command_line.SEED, default=0, help="of the random configurations"
    )
    add(
        "--scale-lengths",
        type=command_line.FACTOR,
        default=1.0,
        help="factor on every length",
    )
    add("--plan-only", action="store_true", help="count and lay out, compute nothing")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value of configs/arc.py, such as answer.batch=64",
    )
    common.add_out(parser)
    return parser.parse_args(argv)


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags change in the config; --set comes last.

    Raises:
      ValueError: --set without a key or a value.
    """
    names = ("tasks", "edits", "heldout_tasks", "heldout_edits")
    flags = {f"scale.{name}": getattr(args, name) for name in names}
    made = {key: value for key, value in flags.items() if value is not None}
    return made | common.assignments(args.set)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement, or the plan, as one result."""
    shape, scale = common.shape(args.shape), args.scale_lengths
    exp = arc_task.settings(overrides(args))
    tasks = arc_task.lengths(arc_workload.load(), exp, scale=scale)
    task = arc_task.make(
        exp,
        tasks,
        configuration=args.configuration,
        vocab=shape.vocab,
        seed=args.seed,
    )
    device = jax.devices()[0]
    made = (_plan if args.plan_only else _measure)(args, shape, task, device)
    return {
        **made,
        "configuration": args.configuration,
        "seed": args.seed,
        "scale": dataclasses.asdict(exp.scale),
        "config": {
            name: dataclasses.asdict(getattr(exp, name))
            for name in ("propose", "edit", "data", "inner", "answer", "imitate")
        },
        "shape": args.shape,
        "model": dataclasses.asdict(shape),
        "scale_lengths": scale,
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def _plan(
    args: argparse.Namespace, shape: common.Shape, task: arc_task.Round, device: Any
) -> dict[str, Any]:
    del args, device
    exp = task.exp
    cfg = capacity.build(
        exp.inner,
        step_tokens=exp.inner.step_tokens or exp.inner.row_tokens * exp.lines_per_step,
        adapters=exp.scale.adapters,
        by_slot=BY_SLOT,
    )
    peak = backend.PEAK_FLOPS[PLANNED_FOR]
    mesh = floor.machine(PLANNED_FOR, peak)
    assert mesh is not None
    return {
        "benchmark": "arc_plan",
        **arc_plan.describe(shape, task, cfg.plan, mesh, pool=cfg.pool),
        "planned_for": PLANNED_FOR,
        "sizes": {**dataclasses.asdict(cfg.plan), "pool": cfg.pool},
    }


def _measure(
    args: argparse.Namespace, shape: common.Shape, task: arc_task.Round, device: Any
) -> dict[str, Any]:
    exp = task.exp
    dtype = args.dtype or ("float32" if device.platform == "cpu" else exp.model.dtype)
    arch = dataclasses.replace(
        hf_config.parse(shape.config(), dtype=dtype), kernel=exp.model.kernel
    )
    for name, wanted in (("inner", exp.inner.lora), ("imitate", exp.imitate.lora)):
        lora.check(arch, targets=wanted.targets, rank=wanted.rank, name=f"{name}.lora")
    begin = time.perf_counter()
    with backend.compile_times() as times:
        cfg, memory = capacity.choose(
            arch,
            exp.inner,
            limit=backend.memory_limit(device),
            adapters=exp.scale.adapters,
            lines=exp.lines_per_step,
        )
        params = jax.jit(decoder.init_params, static_argnums=1)(
            jax.random.key(args.seed), arch
        )
        # Its stop token is none of the vocabulary: a drawn one would end a text early.
        policy = policies.Policy(arch, params, None, (arch.vocab,), Path())
        arc_phases.run_round(policy, task, cfg, warm_up=True)
    warming = time.perf_counter() - begin
    outcome = arc_phases.run_round(policy, task, cfg)
    stats = device.memory_stats() or {}
    peak = backend.peak_flops(device)
    mesh = floor.machine(device.device_kind, peak) if dtype == "bfloat16" else None
    made = figures(
        outcome, task, flops_per_token=throughput.flops_per_token(arch, cfg), peak=peak
    )
    published = is_published(exp, shape=args.shape, scale=args.scale_lengths)
    return {
        "benchmark": "arc_round",
        **made,
        **compared(made["seconds"], task, shape, mesh, published=published),
        "warm_up_seconds": warming,
        "compile_seconds": times.cold + times.warm,
        "compile": dataclasses.asdict(times),
        "peak_memory_bytes": stats.get("peak_bytes_in_use"),
        "planned_memory_bytes": {**memory._asdict(), "total": memory.total},
        "sizes": {**dataclasses.asdict(cfg.plan), "pool": cfg.pool},
        "dtype": dtype,
    }


def table(result: Mapping[str, Any]) -> str:
    """The result of a round for reading."""
    lines = [whole_round.phases_table(result, arc_phases.PHASES)]
    for which in arc_phases.SETS:
        one = result[which]
        mfu = "" if one["mfu"] is None else f", MFU {one['mfu']:.0%}"
        lines.append(
            f"{_training(which, one)}; {one['adapters_per_s']:.3g} adapters/s, "
            f"{one['tokens_per_s']:.4g} tokens/s{mfu}"
        )
        for name, own in one["written"].items():
            lines.append(
                f"  {name}: {own['texts']} texts, {own['tokens']} tokens in "
                f"{own['device_steps']} steps, {own['tokens_per_s']:.4g} tokens/s"
            )
    for name in ("floor", "reference"):
        ratio = result[f"ratio_vs_{name}"]
        lines += [] if ratio is None else [f"{ratio:.3g} times as fast as the {name}"]
    lines.append(
        f"before: {result['warm_up_seconds']:.1f} s to warm up, "
        f"{result['compile_seconds']:.1f} s of them compiling"
    )
    return "\n".join(lines)


def plan_table(result: Mapping[str, Any]) -> str:
    """The result of --plan-only for reading."""
    lines = []
    for which in arc_phases.SETS:
        one = result[which]
        lines += [
            f"{_training(which, one)}, attention efficiency "
            f"{one['attention_efficiency']:.1%}",
            f"  {one['global_steps']} global steps of {one['adapters_per_step']:.1f} "
            f"adapters; {one['prompts']} prompts of {one['prompt_tokens']} tokens, "
            f"{one['answer_tokens']} of answers",
        ]
    least = result["floor"]
    lines += [
        f"floor of {name}: {seconds:.2f} s"
        for name, seconds in least["seconds_by_phase"].items()
    ]
    lines.append(f"floor on one {PLANNED_FOR}: {least['seconds']:.0f} s")
    return "\n".join(lines)


def _training(which: str, one: Mapping[str, Any]) -> str:
    return (
        f"{which}: {one['adapters']} adapters, {one['steps']} steps of "
        f"{one['tokens']} tokens ({one['padded_tokens']} padded), token efficiency "
        f"{one['token_efficiency']:.1%}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    name = "arc_plan" if args.plan_only else f"arc_round-{args.shape}"
    if args.configuration != "random":
        name += f"-{args.configuration}"
    return common.finish(
        lambda: run(args),
        args.out,
        name=common.slug(name),
        table=plan_table if args.plan_only else table,
    )


if __name__ == "__main__":
    raise SystemExit(main())
