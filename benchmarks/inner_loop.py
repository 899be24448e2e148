"""Training many adapters: the packed engine against slower ways to do the same.

    python benchmarks/inner_loop.py --shape qwen2.5-7b --dtype bfloat16 [--out]

The work is that of workload.json: the published self-edits' real lengths, in random
tokens for a model of random weights. What is compared (`engines.py` has the first
four baselines):

    packed              seal_jax.inner.train
    length_classes      vmap over lines of one class of lengths
    rectangular         vmap over adapters, waves in the workload's order
    rectangular_sorted  the same, adapters of about as many steps in a wave
    one_by_one          a jitted step, an adapter at a time
    peft, peft_padded   peft_baseline.py in --torch-python, also one at a time

Adapters: of the 250 self-edits (750 with three seeds each, where more than 250 are
asked for), sorted by tokens, as many as `--adapters` at even distances. The packed
engine and the length classes train all of them; the two rectangular engines
`--rectangular-adapters` and those that go one by one `--solo-adapters`, chosen in the
same way, since they take so long. They are therefore compared by rates of the same
work: tokens of the lines per second, which for equal sets of adapters is the ratio of
adapters per second. (The packed engine needs many adapters to be at its best; the
others do not, but for whole waves.) Padded PEFT may be cut short by
`--padded-steps`, and every one of its steps costs the same, so it is compared by
optimizer steps per second.

Every program is compiled before the clock starts, by the same engine on one line of
each class. Engines take turns, and medians over `--repeats` are reported.
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
from typing import Any

import common
import engines
import jax
import numpy as np
import workload

from seal_jax import capacity, hf_config, inner, model, plan, runtime

PACKED, ONE_BY_ONE = "packed", "one_by_one"
BASELINES: Mapping[str, Callable[..., inner.Trained]] = {
    "length_classes": engines.length_classes,
    "rectangular": engines.rectangular,
    "rectangular_sorted": engines.rectangular_sorted,
    ONE_BY_ONE: engines.one_by_one,
}
PEFT = {"peft": "unpadded", "peft_padded": "padded"}
PEFT_SCRIPT = Path(__file__).resolve().parent / "peft_baseline.py"
SEED = 0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is trained, and how the packed engine lays it out."""

    epochs: int
    loss: plan.LossConfig
    targets: tuple[str, ...]
    rank: int
    tile: int
    row_tokens: int
    step_tokens: int
    slots: int
    active: int

    def inner(self, *, pool: int) -> inner.InnerConfig:
        """The engine's sizes; alpha is twice the rank, as in the reference."""
        layout = plan.PlanConfig(
            self.tile, self.row_tokens, self.step_tokens, self.slots, self.active
        )
        return inner.InnerConfig(
            self.targets, self.rank, 2.0 * self.rank, layout, pool=pool
        )

    def jobs(self, lengths: Sequence[Sequence[int]], *, vocab: int) -> list[plan.Job]:
        """A job for each list of line lengths, of random tokens."""
        return [
            plan.Job(
                tuple(map(tuple, workload.token_ids(job, vocab=vocab, seed=number))),
                seed=(SEED, number),
                epochs=self.epochs,
                learning_rate=1e-3,
                clip=1.0,
                loss=self.loss,
            )
            for number, job in enumerate(lengths)
        ]


def lengths(
    adapters: int, *, scale: float = 1.0, longest: int | None = None
) -> list[list[int]]:
    """Line lengths of so many adapters, in the workload's order."""
    whole = workload.load()
    seeds = 1 if adapters <= len(whole.edits()) else workload.SEEDS
    jobs = whole.jobs(seeds, scale=scale, longest=longest)
    return [jobs[i] for i in sorted(workload.spread(jobs, adapters))]


def arch_of(shape: common.Shape, *, dtype: str, kernel: str) -> model.ModelConfig:
    """The decoder of a named shape."""
    parsed = hf_config.parse(shape.config(), dtype=dtype)
    return dataclasses.replace(parsed, kernel=kernel)


# One engine


def figures(
    seconds: Sequence[float],
    trained: inner.Trained,
    jobs: Sequence[plan.Job],
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
      jobs: what it trained.
      flops_per_token: of training (`inner.flops_per_token`).
      peak: FLOP/s of the devices, or None where it is not known.

    Raises:
      ValueError: an adapter's weights or losses are not finite.
    """
    if not trained.finite_A.all():
        bad = np.flatnonzero(~trained.finite_A).tolist()
        raise ValueError(f"adapters {bad} must stay finite; use --dtype=float32")
    tokens = sum(job.epochs * sum(map(len, job.lines)) for job in jobs)
    timed = common.rates(
        seconds, adapters=len(jobs), tokens=tokens, steps=trained.adapter_steps
    )
    flops = trained.tokens * flops_per_token / timed["seconds"]
    return {
        "adapters": len(jobs),
        "tokens": tokens,
        "steps": trained.adapter_steps,
        "device_steps": trained.steps,
        **timed,
        "token_efficiency": trained.tokens / trained.computed_tokens,
        "flops_per_s": flops,
        "mfu": None if peak is None else flops / peak,
        "loss": float(np.mean(trained.loss_A)),
    }


def ratios(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How many times faster the packed engine is than each of the others."""
    packed = measured[PACKED]
    return {
        f"ratio_vs_{name}": packed[rate] / other[rate]
        for name, other in measured.items()
        if name != PACKED
        for rate in (compared_by(name),)
    }


def compared_by(name: str) -> str:
    """The rate that an engine is compared by."""
    return "steps_per_s" if name == "peft_padded" else "tokens_per_s"


# All of them in turn


def measure(
    runs: Mapping[str, Callable[[bool], inner.Trained]], *, repeats: int
) -> tuple[dict[str, list[float]], dict[str, inner.Trained], dict[str, float]]:
    """Seconds of each repeat, results, and seconds of compilation.

    Args:
      runs: trains to the end; asked with True, only what compiles the programs.
      repeats: times each runs, in turns.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, inner.Trained] = {}
    compiling = {}
    for name, run in runs.items():
        with runtime.compile_times() as times:
            run(True)
        compiling[name] = times.cold + times.warm

    def once(name: str) -> None:
        results[name] = runs[name](False)

    for _ in range(repeats):
        for name in runs:
            once_named = functools.partial(once, name)
            seconds[name] += common.time_repeats(once_named, repeats=1)
    return seconds, results, compiling


def benchmark(
    arch: model.ModelConfig,
    sizes: Sizes,
    work: Mapping[str, Sequence[Sequence[int]]],
    *,
    wave: int,
    repeats: int,
) -> dict[str, dict[str, Any]]:
    """Figures of each engine.

    Args:
      arch: the decoder; its weights are random.
      sizes: what is trained.
      work: line lengths of the adapters that each engine trains; their names choose
        the engines.
      wave: adapters of a rectangular wave.
      repeats: times each runs.

    Raises:
      ValueError: see `figures`, `plan.blocks` and `engines.width_of`.
    """
    params = jax.jit(model.init_params, static_argnums=1)(jax.random.key(SEED), arch)
    every = {n: sizes.jobs(listed, vocab=arch.vocab) for n, listed in work.items()}
    # A line that is as wide as a row is wider than the widest class.
    classes = tuple(sorted({*engines.CLASSES, sizes.row_tokens}))
    runs = {}
    for name, jobs in every.items():
        keys = jax.random.split(jax.random.key(SEED + 1), len(jobs))
        args: dict[str, Any] = {
            "arch": arch,
            "cfg": sizes.inner(pool=len(jobs)),
            "eos": workload.EOS,
        }
        if name.startswith("rectangular"):
            args["wave"] = min(wave, len(jobs))
        elif name != PACKED:
            args["classes"] = classes
        small = [engines.one_per_class(job, classes) for job in jobs]
        train = BASELINES.get(name, inner.train)
        runs[name] = functools.partial(
            lambda train, jobs, small, keys, args, warm: train(
                params, small if warm else jobs, keys, **args
            ),
            train,
            jobs,
            small,
            keys,
            args,
        )
    seconds, results, compiling = measure(runs, repeats=repeats)
    return {
        name: {
            **figures(
                seconds[name],
                results[name],
                jobs,
                flops_per_token=inner.flops_per_token(arch, sizes.inner(pool=1)),
                peak=runtime.peak_flops(jax.devices()[0]),
            ),
            "compile_seconds": compiling[name],
        }
        for name, jobs in every.items()
    }


# PEFT, in an interpreter of its own


def peft(
    python: str, mode: str, sizes: Sizes, args: argparse.Namespace
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
    if args.longest is not None:
        command += [f"--longest={args.longest}"]
    if mode == "padded" and args.padded_steps is not None:
        command += [f"--max-steps={args.padded_steps}"]
    done = subprocess.run(
        command, cwd=common.ROOT, capture_output=True, text=True, check=False
    )
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
    parser = argparse.ArgumentParser(
        prog="benchmarks/inner_loop.py",
        description="Trains many adapters, packed and in slower ways.",
    )
    add = parser.add_argument
    add("--shape", default="small", help=f"{', '.join(common.SHAPES)}, or NAME,FIELD=N")
    add("--dtype", default="float32", help="of the base: float32 or bfloat16")
    add("--kernel", default="auto", help="implementation of the low-rank matmul")
    add("--adapters", type=int, default=64, help="of the packed engine, at most 750")
    add("--rectangular-adapters", type=int, help="as --adapters if not given")
    add("--solo-adapters", type=int, default=8, help="of those that go one by one")
    add("--engines", default=",".join(BASELINES), help="beside packed")
    add("--torch-python", help="runs PEFT; default $SEAL_TORCH_PYTHON, else none")
    add("--peft", default=",".join(PEFT), help="which of them, with --torch-python")
    add("--padded-steps", type=int, help="of each adapter in peft_padded; default all")
    add("--repeats", type=int, default=3, help="times all is trained; medians count")
    add("--epochs", type=int, default=workload.EPOCHS)
    add("--rank", type=int, default=32)
    add("--targets", default="q_proj,v_proj", help="separated by commas")
    add("--loss", choices=(plan.MASKED, plan.REFERENCE), default=plan.MASKED)
    add("--pad-to", type=int, default=2048, help="of the reference loss, and of PEFT")
    add("--pad-samples", type=int, default=8, help="of the reference loss")
    add("--scale", type=float, default=1.0, help="factor on the lines' lengths")
    add("--longest", type=int, help="cut longer lines to this many tokens")
    add("--tile", type=int, default=16)
    add("--row-tokens", type=int, default=512)
    add("--step-tokens", type=int, help="default 2048, on a CPU 512")
    add("--slots", type=int, help="default one for 32 tokens of a step")
    add("--active", type=int, help="default three quarters of the slots")
    add("--wave", type=int, default=32, help="adapters of a rectangular wave")
    common.add_out(parser)
    return parser.parse_args(argv)


def sizes_of(args: argparse.Namespace) -> Sizes:
    """The flags that say what is trained; writes the defaults into `args`.

    Raises:
      ValueError: a number that must be positive is not, or an unknown name.
    """
    if args.step_tokens is None:
        args.step_tokens = 512 if jax.default_backend() == "cpu" else 2048
    if args.slots is None:
        args.slots = max(1, args.step_tokens // capacity.POSITIONS_PER_SLOT)
    if args.active is None:
        args.active = max(1, args.slots * 3 // 4)
    if args.rectangular_adapters is None:
        args.rectangular_adapters = args.adapters
    counted = "adapters rectangular_adapters solo_adapters repeats epochs rank wave"
    for name in counted.split():
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag}={getattr(args, name)} must be at least 1")
    for flag, listed, known in (
        ("engines", args.engines, BASELINES),
        ("peft", args.peft, PEFT),
        ("targets", args.targets, common.shape(args.shape).linears()),
    ):
        if not set(filter(None, listed.split(","))) <= set(known):
            raise ValueError(f"--{flag}={listed} must be of {', '.join(known)}")
    return Sizes(
        epochs=args.epochs,
        loss=plan.LossConfig(args.loss, args.pad_to, args.pad_samples),
        targets=tuple(args.targets.split(",")),
        rank=args.rank,
        tile=args.tile,
        row_tokens=args.row_tokens,
        step_tokens=args.step_tokens,
        slots=args.slots,
        active=args.active,
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement as one result."""
    sizes, shape = sizes_of(args), common.shape(args.shape)
    arch = arch_of(shape, dtype=args.dtype, kernel=args.kernel)
    picked = functools.partial(lengths, scale=args.scale, longest=args.longest)
    work = {PACKED: picked(args.adapters)}
    for name in filter(None, args.engines.split(",")):
        work[name] = picked(
            args.solo_adapters
            if name == ONE_BY_ONE
            else args.rectangular_adapters
            if name.startswith("rectangular")
            else args.adapters
        )
    measured = benchmark(arch, sizes, work, wave=args.wave, repeats=args.repeats)
    python = args.torch_python or os.environ.get("SEAL_TORCH_PYTHON")
    for name in filter(None, args.peft.split(",")) if python else ():
        measured[name] = peft(str(python), PEFT[name], sizes, args)
    device = jax.devices()[0]
    given = ("shape", "dtype", "kernel", "wave", "scale", "longest", "repeats")
    return {
        "benchmark": "inner_loop",
        **measured[PACKED],
        **ratios(measured),
        "compared_by": {n: compared_by(n) for n in measured if n != PACKED},
        "engines": measured,
        **dataclasses.asdict(sizes),
        **{name: getattr(args, name) for name in given},
        "model": dataclasses.asdict(shape),
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def table(result: Mapping[str, Any]) -> str:
    """The result for reading."""
    head = ("engine", "adapters", "seconds", "adapters/s", "tokens/s", "efficient")
    form = "{:<19}{:>9}{:>10}{:>12}{:>10}{:>11}{:>9}{:>9}"
    lines = [form.format(*head, "mfu", "packed x")]
    for name, one in result["engines"].items():
        adapters, mfu = one["adapters_per_s"], one.get("mfu")
        ratio = result.get(f"ratio_vs_{name}")
        lines.append(
            form.format(
                name,
                one["adapters"],
                f"{one['seconds']:.2f}",
                "cut short" if adapters is None else f"{adapters:.3g}",
                f"{one['tokens_per_s']:.4g}",
                f"{one['token_efficiency']:.1%}",
                "" if mfu is None else f"{mfu:.1%}",
                "" if ratio is None else f"{ratio:.2f}",
            )
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        result = run(args)
        print(table(result))
        name = common.slug(f"inner_loop-{args.shape}")
        written = common.write(result, args.out, name=name)
        if written is not None:
            print(f"written: {written}")
        print(common.line(result))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
