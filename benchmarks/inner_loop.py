"""Training many adapters: the packed engine against slower ways to do the same.

    python benchmarks/inner_loop.py --shape qwen2.5-7b --dtype bfloat16 [--out]

The work is that of workload.json: the published self-edits' real lengths, in random
tokens for a model of random weights. What is compared (`engines.py` has the first
four baselines):

    packed              seal_jax.training.packed.train
    length_classes      vmap over lines of one class of lengths
    rectangular         vmap over adapters, waves in the workload's order
    rectangular_sorted  the same, adapters of about as many steps in a wave
    one_by_one          a jitted step, an adapter at a time
    peft, peft_padded   peft_baseline.py in --torch-python, also one at a time

The packed engine and the length classes train `--adapters`: of the 250 self-edits (or
all 750 adapters, where more than 250 are asked for), sorted by tokens, those at even
distances. What takes long is measured in part:

* rectangular: `--waves` of the waves of the same adapters, from small to large, at
  even distances. Every position of a rectangle costs the same, and how many all waves
  have is known: the seconds are scaled up to them.
* one by one, and PEFT: `--solo-adapters`, chosen as above. Ratios to these are of the
  tokens of lines per second, which for equal adapters is the ratio of adapters.
* padded PEFT: `--padded-steps` of each adapter. A padded step always costs the same,
  so the ratio is of optimizer steps per second.

Every program is compiled before the clock starts, by the same engine on one line of
each class. Engines take turns (PEFT comes last), and medians over `--repeats` count.
With `--against REV` the packed engine also takes turns with that of another revision
(`against.py`).
"""

import argparse
import dataclasses
import functools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import against
import common
import engines
import jax
import numpy as np
import training
import workload

from seal_jax.models import decoder
from seal_jax.runtime import backend, command_line
from seal_jax.training import packed, plan, throughput

PACKED, ONE_BY_ONE = "packed", "one_by_one"
BASELINES = ("length_classes", "rectangular", "rectangular_sorted", ONE_BY_ONE)
PEFT = {"peft": "unpadded", "peft_padded": "padded"}
PEFT_SCRIPT = Path(__file__).resolve().parent / "peft_baseline.py"


# One engine


class Task(NamedTuple):
    """What an engine is measured on.

    Attributes:
      train: the engine, `packed.train` or one of `engines`, with its own arguments.
      jobs: what it trains.
      whole: the jobs that the figures are for, where it trains only some of them.
      positions: how many it would compute for those.
    """

    train: Callable[..., packed.TrainedAdapters]
    jobs: list[plan.Job]
    whole: list[plan.Job] | None = None
    positions: int = 0


def figures(
    seconds: Sequence[float],
    trained: packed.TrainedAdapters,
    task: Task,
    *,
    flops_per_token: int,
    peak: float | None,
) -> dict[str, Any]:
    """An engine's rates.

    `tokens` are those of the lines, the same for every engine; `token_efficiency` is
    the share of computed positions that carry loss (sampled pads do), and `mfu` counts
    the operations of those.

    Args:
      seconds: one per repeat.
      trained: what a repeat returned.
      task: what it trained; with `whole`, seconds are scaled up by positions.
      flops_per_token: of training (`throughput.flops_per_token`).
      peak: FLOP/s of the devices, or None where it is not known.

    Raises:
      ValueError: an adapter's weights or losses are not finite.
    """
    if not trained.finite_A.all():
        bad = np.flatnonzero(~trained.finite_A).tolist()
        raise ValueError(f"adapters {bad} must stay finite; use --dtype=float32")
    jobs, positions, carrying = task.jobs, trained.computed_tokens, trained.tokens
    part = {}
    if task.whole is not None:
        part = {"measured_adapters": len(jobs), "measured_seconds": list(seconds)}
        seconds = [s * task.positions / positions for s in seconds]
        jobs, positions = task.whole, task.positions
        carrying = sum(job.epochs * sum(job.positions()) for job in jobs)
    tokens = sum(job.epochs * sum(map(len, job.lines)) for job in jobs)
    steps = sum(job.total for job in jobs)
    timed = common.rates(seconds, adapters=len(jobs), tokens=tokens, steps=steps)
    flops = carrying * flops_per_token / timed["seconds"]
    return {
        "adapters": len(jobs),
        "tokens": tokens,
        "steps": steps,
        **timed,
        **part,
        "token_efficiency": carrying / positions,
        "flops_per_s": flops,
        "mfu": None if peak is None else flops / peak,
        "mean_loss": float(np.mean(trained.loss_A)),
    }


def ratios(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How many times faster the packed engine is than each of the others."""
    packed = measured[PACKED]
    return {
        f"ratio_vs_{name}": packed[compared_by(name)] / other[compared_by(name)]
        for name, other in measured.items()
        if name != PACKED
    }


def compared_by(name: str) -> str:
    """The rate that an engine is compared by."""
    return "steps_per_s" if name == "peft_padded" else "tokens_per_s"


# All of them in turn


def tasks(
    arch: decoder.Arch,
    sizes: training.Sizes,
    names: Sequence[str],
    *,
    adapters: Sequence[Sequence[int]],
    solo: Sequence[Sequence[int]],
    wave: int,
    count: int,
) -> dict[str, Task]:
    """What each of the named engines is measured on.

    Args:
      arch: the decoder.
      sizes: what is trained.
      names: engines, `packed` or of `BASELINES`.
      adapters: line lengths of each adapter.
      solo: those of the adapters for `one_by_one`.
      wave: adapters of a rectangular wave.
      count: how many waves are measured, at most.
    """
    jobs = sizes.jobs(adapters, vocab=arch.vocab)
    widths = engines.classes_to(sizes.row_tokens)
    made = {}
    for name in names:
        if name == PACKED:
            made[name] = Task(packed.train, jobs)
        elif name == "length_classes":
            train = functools.partial(engines.length_classes, classes=widths)
            made[name] = Task(train, jobs)
        elif name == ONE_BY_ONE:
            train = functools.partial(engines.one_by_one, classes=widths)
            made[name] = Task(train, sizes.jobs(solo, vocab=arch.vocab))
        else:
            by_steps = name == "rectangular_sorted"
            ordered = sorted(jobs, key=lambda job: job.total if by_steps else 0)
            layout, many = sizes.inner(pool=1).plan, min(wave, len(jobs))
            cut = engines.waves(ordered, layout, wave=many)
            picked = spread([cost for _, cost in cut], count)
            some = [ordered[j] for i in picked for j in cut[i][0]]
            train = functools.partial(engines.rectangular, wave=many)
            made[name] = Task(train, some, ordered, sum(cost for _, cost in cut))
    return made


def spread(costs: Sequence[int], count: int) -> list[int]:
    """Indices of up to `count` waves at even distances by cost, the last wave last.

    Only the last may be short of adapters, and what follows a short one would be cut
    differently.
    """
    ordered = sorted(range(len(costs)), key=lambda i: (costs[i], i))
    count = min(count, len(costs))
    return sorted(
        ordered[(2 * part + 1) * len(costs) // (2 * count)] for part in range(count)
    )


def benchmark(
    arch: decoder.Arch,
    sizes: training.Sizes,
    work: Mapping[str, Task],
    *,
    repeats: int,
) -> dict[str, dict[str, Any]]:
    """Figures of each engine, which take turns.

    Args:
      arch: the decoder; its weights are random.
      sizes: what is trained.
      work: from `tasks`.
      repeats: times each runs.

    Raises:
      ValueError: see `figures`, `plan_arrays.blocks` and `engines.width_of`.
    """
    params = jax.jit(decoder.init_params, static_argnums=1)(
        jax.random.key(training.SEED), arch
    )
    results: dict[str, packed.TrainedAdapters] = {}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    compiling = {}

    def run(name: str, jobs: Sequence[plan.Job]) -> None:
        cfg = sizes.inner(pool=len(jobs))
        keys = jax.random.split(jax.random.key(training.SEED + 1), len(jobs))
        args = {"arch": arch, "cfg": cfg, "eos": workload.EOS}
        results[name] = work[name].train(params, jobs, keys, **args)

    widths = engines.classes_to(sizes.row_tokens)
    for name, task in work.items():
        small = [engines.one_per_class(job, widths) for job in task.jobs]
        with backend.compile_times() as times:
            run(name, small)
            if name == PACKED:
                # Few jobs need no program of short steps, all of them may.
                cfg = sizes.inner(pool=len(task.jobs))
                for compiled in packed.programs(arch, cfg, None).values():
                    compiled()
        compiling[name] = times.cold + times.warm
    for _ in range(repeats):
        for name, task in work.items():
            once = functools.partial(run, name, task.jobs)
            seconds[name] += common.time_repeats(once, repeats=1)
    peak = backend.peak_flops(jax.devices()[0])
    per_token = throughput.flops_per_token(arch, sizes.inner(pool=1))
    return {
        name: {
            **figures(
                seconds[name], results[name], task, flops_per_token=per_token, peak=peak
            ),
            "compile_seconds": compiling[name],
        }
        for name, task in work.items()
    }


# PEFT, in an interpreter of its own


def peft(
    python: str, mode: str, sizes: training.Sizes, args: argparse.Namespace
) -> dict[str, Any]:
    """The baseline's result on the adapters of the `one_by_one` engine.

    Raises:
      ValueError: it failed.
    """
    command = [python, str(PEFT_SCRIPT), "--json-only", f"--mode={mode}"]
    command += [f"--shape={args.shape}", f"--adapters={args.solo_adapters}"]
    command += [f"--repeats={args.repeats}", f"--epochs={sizes.epochs}"]
    command += [f"--rank={sizes.rank}", f"--alpha={2.0 * sizes.rank}"]
    command += [f"--targets={','.join(sizes.targets)}", f"--scale={args.scale}"]
    command += [f"--pad-to={sizes.loss.pad_to}"]
    command += [f"--device={'cpu' if jax.default_backend() == 'cpu' else 'cuda'}"]
    cut = args.padded_steps if mode == "padded" else None
    for flag, value in (("longest", args.longest), ("max-steps", cut)):
        command += [] if value is None else [f"--{flag}={value}"]
    done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["(no message)"])[-1]
        raise ValueError(
            f"{shlex.join(command)}: exit status {done.returncode} must be 0: {last}"
        )
    result = json.loads(done.stdout.strip().splitlines()[-1])
    stamped = ("command", "commit", "date", "device", "model", "shape", "benchmark")
    return {name: value for name, value in result.items() if name not in stamped}


# The command


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.Parser(
        prog="benchmarks/inner_loop.py",
        description="Trains adapters in many ways.",
        lists=("engines", "peft"),
    )
    add = parser.add_argument
    training.add_flags(parser)
    add(
        "--adapters",
        type=command_line.COUNT,
        default=64,
        help="of the packed engine, at most 750",
    )
    add(
        "--solo-adapters",
        type=command_line.COUNT,
        default=8,
        help="of those that go one by one",
    )
    add("--engines", default=",".join(BASELINES), help="beside packed")
    add("--against", help="a revision whose packed engine takes turns with this one")
    add("--torch-python", help="runs PEFT; default $SEAL_TORCH_PYTHON, else none")
    add("--peft", default=",".join(PEFT), help="which of them, with --torch-python")
    add(
        "--padded-steps",
        type=command_line.COUNT,
        help="of each adapter in peft_padded; default all",
    )
    add(
        "--repeats",
        type=command_line.FEW,
        default=3,
        help="times all is trained; medians count",
    )
    add(
        "--scale",
        type=command_line.FACTOR,
        default=1.0,
        help="factor on the lines' lengths",
    )
    add(
        "--longest",
        type=command_line.COUNT,
        help="cut longer lines to this many tokens",
    )
    add(
        "--wave",
        type=command_line.COUNT,
        default=32,
        help="adapters of a rectangular wave",
    )
    add(
        "--waves",
        type=command_line.FEW,
        default=2,
        help="rectangular waves measured, at most",
    )
    common.add_out(parser)
    args = parser.parse_args(argv)
    args.flags = sys.argv[1:] if argv is None else list(argv)
    return args


def check(args: argparse.Namespace) -> None:
    """Refuses what this benchmark's own flags cannot be.

    Raises:
      ValueError: an unknown name.
    """
    for flag, known in (("engines", BASELINES), ("peft", PEFT)):
        listed = getattr(args, flag)
        if not set(filter(None, listed.split(","))) <= set(known):
            raise ValueError(f"--{flag}={listed} must be of {', '.join(known)}")
    if args.against:
        against.check(args.against)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement as one result."""
    check(args)
    sizes, arch = training.sizes_of(args), training.arch_from(args)
    picked = functools.partial(training.lengths, scale=args.scale, longest=args.longest)
    work = tasks(
        arch,
        sizes,
        [PACKED, *filter(None, args.engines.split(","))],
        adapters=picked(args.adapters),
        solo=picked(args.solo_adapters),
        wave=args.wave,
        count=args.waves,
    )
    measured = benchmark(arch, sizes, work, repeats=args.repeats)
    python = args.torch_python or os.environ.get("SEAL_TORCH_PYTHON")
    for name in filter(None, args.peft.split(",")) if python else ():
        measured[name] = peft(str(python), PEFT[name], sizes, args)
    other = {}
    if args.against:
        turns = against.compare(args.flags, args.against, repeats=args.repeats)
        other = {"ratio_vs_revision": turns["ratio"], "against": turns}
    device = jax.devices()[0]
    given = ("shape", "dtype", "kernel", "wave", "scale", "longest", "repeats")
    return {
        "benchmark": "inner_loop",
        **measured[PACKED],
        **ratios(measured),
        **other,
        "compared_by": {n: compared_by(n) for n in measured if n != PACKED},
        "engines": measured,
        **dataclasses.asdict(sizes),
        **{name: getattr(args, name) for name in given},
        "model": dataclasses.asdict(common.shape(args.shape)),
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def table(result: Mapping[str, Any]) -> str:
    """The result for reading."""
    head = ("engine", "adapters", "seconds", "adapters/s", "tokens/s", "efficient")
    form = "{:<19}{:>9}{:>10}{:>12}{:>10}{:>11}{:>9}{:>9}"
    lines = [form.format(*head, "mfu", "packed x")]
    for name, one in result["engines"].items():
        rate, mfu = one["adapters_per_s"], one.get("mfu")
        ratio = result.get(f"ratio_vs_{name}")
        cells = [name, one["adapters"], f"{one['seconds']:.2f}"]
        cells += ["cut short" if rate is None else f"{rate:.3g}"]
        cells += [f"{one['tokens_per_s']:.4g}", f"{one['token_efficiency']:.1%}"]
        cells += ["" if mfu is None else f"{mfu:.1%}"]
        cells += ["" if ratio is None else f"{ratio:.2f}"]
        lines.append(form.format(*cells))
    if turns := result.get("against"):
        lines.append(
            f"{turns['ratio']:.2f} times as fast as {turns['revision'][:12]} "
            f"({turns['least']:.2f} to {turns['most']:.2f}, {len(turns['ours'])} turns)"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    name = common.slug(f"inner_loop-{args.shape}")
    return common.finish(lambda: run(args), args.out, name=name, table=table)


if __name__ == "__main__":
    raise SystemExit(main())
