"""A whole round of SEAL at a model's size: seconds by phase, against the floor.

    python benchmarks/round.py --shape qwen2.5-7b --out      # the published round
    python benchmarks/round.py --articles 2 --edits 2 --epochs 2 --scale-lengths 0.25

propose, adapt, evaluate, select and imitate are what a run does, with the settings of
configs/squad.py: `generate.run`, `packed.train` with sizes from `capacity.choose`,
`select.best`, `imitate.train` and the merge. Weights and tokens are random, lengths are
those of workload.json: a text ends after as many tokens as the published one had, as if
a stop token came there, and no other is drawn. A random model's answers are worth
nothing, so rewards are made up and nothing is graded. Nothing is saved. One device.

Every program runs once before the clock starts: on the same prompts with empty texts,
and on one line of each adapter. What compiles after that is reported by phase.

In the result, `floor` is what `floor.by_phase` says of the same work, null where the
device's peaks are not known or the base is not bfloat16. `ratio_vs_floor` is the
floor's seconds over those measured, `ratio_vs_reference` the 43,200 GPU-seconds of the
reference over them; that one is null for anything but its round.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import floor
import jax
import round_phases
import round_task
import workload

from seal_jax.generation import generate, policies
from seal_jax.models import decoder, hf_config, lora
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import backend, command_line
from seal_jax.training import capacity, throughput
from seal_jax.training.settings import MASKED, REFERENCE

# Six hours of two H100s.
REFERENCE_GPU_SECONDS = 43_200
REFERENCE_SHAPE = "qwen2.5-7b"


# What comes of a round


def figures(
    outcome: round_phases.Outcome,
    task: round_task.Task,
    *,
    flops_per_token: int,
    peak: float | None,
) -> dict[str, Any]:
    """The measured part of the result.

    Rates of adapters, tokens (those of the lines), steps and operations are over the
    phase adapt alone; `token_efficiency` is the share of computed positions that carry
    loss, and `mfu` counts the operations of those.

    Args:
      outcome: of a round that was not a warm-up.
      task: what it ran.
      flops_per_token: of training (`throughput.flops_per_token`).
      peak: FLOP/s of the device, or None where it is not known.
    """
    seconds, trained = outcome.clock.seconds, outcome.trained
    with_loss = sum(part.tokens for part in trained)
    steps = sum(part.adapter_steps for part in trained)
    jobs = [task.job(trial, first_step_only=False) for trial in task.trials]
    tokens = sum(job.epochs * sum(map(len, job.lines)) for job in jobs)
    adapting = seconds["adapt"]
    flops = with_loss * flops_per_token / adapting
    return {
        "seconds": sum(seconds.values()),
        "seconds_by_phase": seconds,
        "compile_seconds_by_phase": outcome.clock.compiling,
        "adapters": len(jobs),
        "tokens": tokens,
        "tokens_with_loss": with_loss,
        "steps": steps,
        "device_steps": sum(part.steps for part in trained),
        "adapters_per_s": len(jobs) / adapting,
        "tokens_per_s": tokens / adapting,
        "steps_per_s": steps / adapting,
        "token_efficiency": with_loss / sum(part.computed_tokens for part in trained),
        "flops_per_s": flops,
        "mfu": None if peak is None else flops / peak,
        "written": {
            name: written(outcome.written[name], seconds[name])
            for name in ("propose", "evaluate")
        },
        "imitated": len(outcome.kept),
        "imitated_tokens": sum(map(sum, outcome.kept)),
        "imitate_steps": len(outcome.losses),
    }


def written(parts: Sequence[generate.Generated], seconds: float) -> dict[str, Any]:
    """What a phase wrote; a prompt that several texts share counts once."""
    tokens = sum(part.new_tokens for part in parts)
    return {
        "texts": sum(len(part.tokens) for part in parts),
        "prompt_tokens": sum(part.prompt_tokens for part in parts),
        "tokens": tokens,
        "tokens_per_s": tokens / seconds,
        "device_steps": sum(part.steps for part in parts),
    }


def compared(
    outcome: round_phases.Outcome,
    task: round_task.Task,
    shape: common.Shape,
    machine: floor.Machine | None,
    *,
    published: bool,
) -> dict[str, Any]:
    """The round against its floor, and against the reference if it is `published`."""
    seconds = sum(outcome.clock.seconds.values())
    reference = REFERENCE_GPU_SECONDS / seconds if published else None
    made = {"floor": None, "ratio_vs_floor": None, "ratio_vs_reference": reference}
    if machine is None:
        return made
    inner_lora, imitate_lora = (
        floor.Lora(wanted.rank, wanted.targets)
        for wanted in (task.exp.inner.lora, task.exp.imitate.lora)
    )
    work = floor.Round(
        articles=task.articles,
        trained_tokens=sum(part.tokens for part in outcome.trained),
        trained_steps=sum(part.adapter_steps for part in outcome.trained),
        adapter=inner_lora,
        kept=tuple(outcome.kept),
        imitated=imitate_lora,
        imitate_epochs=task.exp.imitate.epochs,
        imitate_steps=len(outcome.losses),
    )
    by_phase = floor.by_phase(shape, work, machine)
    least = sum(by_phase.values())
    made["floor"] = {
        "seconds": least,
        "seconds_by_phase": by_phase,
        **machine._asdict(),
    }
    return {**made, "ratio_vs_floor": least / seconds}


def is_published(exp: PassageRounds, *, shape: str, scale: float) -> bool:
    """Whether this is the reference's round, whole."""
    asked = (exp.scale.passages, exp.scale.edits, exp.scale.seeds, exp.inner.epochs)
    full = workload.ARTICLES, workload.EDITS, workload.SEEDS, workload.EPOCHS
    return shape == REFERENCE_SHAPE and scale == 1 and asked == full


# The command


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.Parser(
        prog="benchmarks/round.py", description="Runs and times a whole round of SEAL."
    )
    add = parser.add_argument
    of_config = "default: as in configs/squad.py"
    add("--shape", default="small", help=f"{', '.join(common.SHAPES)}, or NAME,FIELD=N")
    add("--dtype", help=f"of the base; {of_config}, on a CPU float32")
    add("--articles", type=command_line.COUNT, help=of_config)
    add("--edits", type=command_line.FEW, help=f"of each article; {of_config}")
    add("--seeds", type=command_line.FEW, help=f"adapters of each edit; {of_config}")
    add("--epochs", type=command_line.FEW, help=f"of the inner loop; {of_config}")
    add(
        "--loss",
        choices=(MASKED, REFERENCE),
        help=of_config,
    )
    add(
        "--scale-lengths",
        type=command_line.FACTOR,
        default=1.0,
        help="factor on every length",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value of configs/squad.py, such as propose.batch=128",
    )
    common.add_out(parser)
    return parser.parse_args(argv)


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags change in the config; --set comes last.

    Raises:
      ValueError: --set without a key or a value.
    """
    flags = {
        "scale.passages": args.articles,
        "scale.edits": args.edits,
        "scale.seeds": args.seeds,
        "inner.epochs": args.epochs,
        "inner.loss.mode": args.loss,
    }
    made = {key: value for key, value in flags.items() if value is not None}
    return made | common.assignments(args.set)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement as one result."""
    shape, scale = common.shape(args.shape), args.scale_lengths
    exp = round_task.settings(overrides(args))
    device = jax.devices()[0]
    dtype = args.dtype or ("float32" if device.platform == "cpu" else exp.model.dtype)
    arch = dataclasses.replace(
        hf_config.parse(shape.config(), dtype=dtype), kernel=exp.model.kernel
    )
    for name, wanted in (("inner", exp.inner.lora), ("imitate", exp.imitate.lora)):
        lora.check(arch, targets=wanted.targets, rank=wanted.rank, name=f"{name}.lora")
    articles = round_task.lengths(workload.load(), exp, scale=scale)
    task = round_task.task(exp, articles, vocab=arch.vocab)
    begin = time.perf_counter()
    with backend.compile_times() as times:
        limit, adapters = backend.memory_limit(device), len(task.trials)
        cfg, memory = capacity.choose(arch, exp.inner, limit=limit, adapters=adapters)
        params = jax.jit(decoder.init_params, static_argnums=1)(
            jax.random.key(round_task.SEED), arch
        )
        # Its stop token is none of the vocabulary: a drawn one would end a text early.
        policy = policies.Policy(arch, params, None, (arch.vocab,), Path())
        round_phases.run_round(policy, task, cfg, warm_up=True)
    warming = time.perf_counter() - begin
    outcome = round_phases.run_round(policy, task, cfg)
    stats = device.memory_stats() or {}
    peak = backend.peak_flops(device)
    known = dtype == "bfloat16"
    machine = floor.machine(device.device_kind, peak) if known else None
    return {
        "benchmark": "round",
        **figures(
            outcome,
            task,
            flops_per_token=throughput.flops_per_token(arch, cfg),
            peak=peak,
        ),
        **compared(
            outcome,
            task,
            shape,
            machine,
            published=is_published(exp, shape=args.shape, scale=scale),
        ),
        "warm_up_seconds": warming,
        "compile_seconds": times.cold + times.warm,
        "compile": dataclasses.asdict(times),
        "peak_memory_bytes": stats.get("peak_bytes_in_use"),
        "planned_memory_bytes": {**memory._asdict(), "total": memory.total},
        "sizes": {**dataclasses.asdict(cfg.plan), "pool": cfg.pool},
        "articles": exp.scale.passages,
        "edits": exp.scale.edits,
        "seeds": exp.scale.seeds,
        "config": {
            name: dataclasses.asdict(getattr(exp, name))
            for name in ("propose", "inner", "answer", "select", "imitate")
        },
        "shape": args.shape,
        "model": dataclasses.asdict(shape),
        "dtype": dtype,
        "scale_lengths": scale,
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def phases_table(result: Mapping[str, Any], phases: Sequence[str]) -> str:
    """Of each phase: seconds, their share, their floor, what was compiled in it."""
    width = max(10, *(len(name) + 2 for name in phases))
    form = f"{{:<{width}}}{{:>10}}{{:>8}}{{:>10}}{{:>10}}"
    lines = [form.format("phase", "seconds", "share", "floor", "compile")]
    least = result["floor"]
    whole = result["seconds"]
    rows = [(name, least and least["seconds_by_phase"][name]) for name in phases]
    for name, bound in [*rows, ("all", least and least["seconds"])]:
        took = result["seconds_by_phase"].get(name, whole)
        compiling = result["compile_seconds_by_phase"].get(
            name, sum(result["compile_seconds_by_phase"].values())
        )
        floor_cell = "" if bound is None else f"{bound:.2f}"
        cells = f"{took:.2f}", f"{took / whole:.0%}", floor_cell, f"{compiling:.2f}"
        lines.append(form.format(name, *cells))
    return "\n".join(lines)


def table(result: Mapping[str, Any]) -> str:
    """The result for reading."""
    lines = [phases_table(result, round_phases.PHASES)]
    rate = f"{result['adapters_per_s']:.3g} adapters/s, {result['tokens_per_s']:.4g}"
    mfu = "" if result["mfu"] is None else f", MFU {result['mfu']:.0%}"
    lines.append(
        f"adapt: {rate} tokens/s, token efficiency {result['token_efficiency']:.1%}"
        + mfu
    )
    for name, one in result["written"].items():
        lines.append(
            f"{name}: {one['texts']} texts, {one['tokens']} tokens in "
            f"{one['device_steps']} steps, {one['tokens_per_s']:.4g} tokens/s"
        )
    for name in ("floor", "reference"):
        ratio = result[f"ratio_vs_{name}"]
        lines += [] if ratio is None else [f"{ratio:.3g} times as fast as the {name}"]
    lines.append(
        f"before: {result['warm_up_seconds']:.1f} s to warm up, "
        f"{result['compile_seconds']:.1f} s of them compiling"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    name = common.slug(f"round-{args.shape}")
    return common.finish(lambda: run(args), args.out, name=name, table=table)


if __name__ == "__main__":
    raise SystemExit(main())
