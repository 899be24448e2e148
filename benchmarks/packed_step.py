"""A global step of packed training: measured twice, against its model, bit for bit.

    python benchmarks/packed_step.py --shape qwen2.5-7b [--text FILE] [--out]

The published round's own lines (`workload.json`), laid by the plan that a run has, in
the program that a run compiles; `--adapters` of them, so that everything fits a short
session. The first block warms up; the rest is timed, twice from the same start. Then

    same_bits     whether both runs ended in the same bits, every slot and every result
    model_ratio   the measured step over what `roofline.py` makes of this very program,
                  on the constants of an H200: above 1 the model is too fast

`--default-options` compiles without the engine's options for a GPU, to tell what they
are worth; elsewhere it does nothing.
Weights are random. `round_adapt_seconds` is what the published round's 65,490 optimizer
steps would take at this rate.
"""

import argparse
import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import aot_common
import aot_training
import common
import hlo_cost
import jax
import jax.numpy as jnp
import numpy as np
import roofline
import round_task
import training
import workload

from seal_jax.models import decoder
from seal_jax.runtime import backend, command_line
from seal_jax.training import capacity, packed, plan_arrays, throughput

# Optimizer steps of the published round.
ROUND_STEPS = 65_490


def jobs_of(args: argparse.Namespace, arch: decoder.Arch) -> tuple[list, Any]:
    """The longest-running adapters of the published round, and its inner loop."""
    changes = {"inner.lora.rank": args.rank} if args.rank else {}
    if args.targets:
        changes["inner.lora.targets"] = tuple(args.targets.split(","))
    for name in ("row_tokens", "slots", "active", "tile"):
        if getattr(args, name):
            changes[f"inner.{name}"] = getattr(args, name)
    exp = round_task.settings(changes)
    articles = round_task.lengths(workload.load(), exp, scale=args.scale_lengths)
    task = round_task.task(exp, articles, vocab=arch.vocab)
    trials = task.trials[: args.adapters]
    jobs = [task.job(trial, first_step_only=False) for trial in trials]
    step = args.step_tokens or capacity.STEP_TOKENS
    cfg = capacity.build(
        exp.inner,
        step_tokens=step,
        adapters=len(jobs),
        by_slot=capacity.reads_in_place(arch, exp.inner, None),
    )
    return jobs, cfg


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement.

    Raises:
      ValueError: the adapters' plan has fewer blocks than are wanted.
    """
    arch = training.arch_of(
        common.shape(args.shape), dtype=args.dtype, kernel=args.kernel
    )
    device = jax.devices()[0]
    jobs, cfg = jobs_of(args, arch)
    options = {} if args.default_options else dict(packed.GPU_OPTIONS)
    packed.program.cache_clear()
    begin = time.perf_counter()
    with mock.patch.dict(packed.GPU_OPTIONS, options, clear=True):
        program = packed.program(arch, cfg, None)
    compiling, text = time.perf_counter() - begin, program.as_text()
    if args.text is not None:
        args.text.write_text(text, encoding="utf-8")
    laid = plan_arrays.blocks(jobs, cfg.plan, eos=workload.EOS)
    blocks = list(itertools.islice(laid, args.blocks + 1))
    if len(blocks) < 2:
        raise ValueError(
            f"--adapters={len(jobs)} fill {len(blocks)} blocks of {plan_arrays.BLOCK} "
            "steps; at least two are needed, one to warm up: give more adapters"
        )
    params = jax.block_until_ready(
        jax.jit(decoder.init_params, static_argnums=1)(jax.random.key(0), arch)
    )
    keys = jax.random.split(jax.random.key(0), len(jobs))
    taken, ends = [], []
    for _ in range(2):
        state = packed._empty_state(arch, cfg, None)
        for number, block in enumerate(blocks):
            if number == 1:
                jax.block_until_ready(state)
                begin = time.perf_counter()
            counts = np.array([block.length], np.int32)
            more = (block.extras, None) if cfg.extended else ()
            state = program(params, state, keys, block.steps, counts, *more)
        jax.block_until_ready(state)
        taken.append(time.perf_counter() - begin)
        ends.append(state)
    timed = blocks[1:]
    steps = sum(block.length for block in timed)
    updates = sum(block.updates for block in timed)
    made = common.rates(
        taken,
        tokens=sum(block.tokens for block in timed),
        steps=updates,
        global_steps=steps,
    )
    turnover = sum(int(b.steps.start_count[: b.length].sum()) for b in timed) / steps
    chunk = aot_training.head_chunk(arch, cfg)
    trips = {aot_training.TURNOVER: turnover, **loops(timed, chunk=chunk)}
    told = hlo_cost.Told(loops=trips)
    if cfg.plan.by_slot:
        own = aot_common.trained(arch, cfg, updates / steps)
        told = dataclasses.replace(own, loops=trips)
    modelled = roofline.report(text, told)
    peak = backend.peak_flops(device)
    flop = throughput.flops_per_token(arch, cfg) * made["tokens_per_s"]
    step_seconds = made["seconds"] / steps
    return {
        "benchmark": "packed_step",
        **made,
        "step_seconds": step_seconds,
        "modelled": roofline.summary(modelled),
        "model_ratio": step_seconds / modelled.total.seconds,
        "same_bits": same_bits(*ends),
        "mfu": None if peak is None else flop / peak,
        "round_adapt_seconds": ROUND_STEPS / made["steps_per_s"],
        "adapters": len(jobs),
        "turnover": turnover,
        "loops": trips,
        "compile_seconds": compiling,
        "gpu_options": dict(options),
        "shape": args.shape,
        "dtype": args.dtype,
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def loops(blocks: Sequence[plan_arrays.Block], *, chunk: int) -> dict[str, float]:
    """Trips of `packed.run_block`'s loops in a step of these blocks, on the mean.

    `chunk` tokens that need the head are taken at a time.
    """
    steps = sum(block.length for block in blocks)
    folds = heads = 0
    for block in blocks:
        if block.extras.fold_count is not None:
            folds += int(block.extras.fold_count.sum())
        needed = np.count_nonzero(block.steps.weights[: block.length], axis=1)
        heads += int((-(-needed // chunk)).sum())
    return {
        aot_training.STEPS: 1,
        aot_training.FOLDS: folds / steps,
        aot_training.HEAD_CHUNKS: heads / steps,
    }


@jax.jit
def _equal(one: Any, other: Any) -> jax.Array:
    same = jax.tree.map(lambda x, y: jnp.array_equal(_bits(x), _bits(y)), one, other)
    return jnp.array(jax.tree.leaves(same)).all()


def _bits(x: jax.Array) -> jax.Array:
    """As integers: NaN is itself, and zeros have signs."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")


def same_bits(one: Any, other: Any) -> bool:
    """Whether two trees hold the same bits, NaN among them."""
    return bool(_equal(one, other))


def table(result: dict[str, Any]) -> str:
    """The result for reading."""
    modelled = result["modelled"]["seconds"]
    return (
        f"{1e3 * result['step_seconds']:.2f} ms a step; modelled for an H200 "
        f"{1e3 * modelled:.2f} ms, ratio {result['model_ratio']:.3g}; bits "
        f"{'equal' if result['same_bits'] else 'DIFFER'} in two runs"
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.Parser(
        prog="benchmarks/packed_step.py", description="Times a packed step, twice."
    )
    add = parser.add_argument
    add("--shape", default="qwen2.5-7b", help="a name of common.SHAPES, and changes")
    add("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    add("--kernel", default="auto", help="implementation of the low-rank matmul")
    add(
        "--default-options",
        action="store_true",
        help="compile as XLA would, without `packed.GPU_OPTIONS`",
    )
    add("--adapters", type=command_line.COUNT, default=96)
    add("--blocks", type=command_line.FEW, default=2, help="that are timed")
    add("--scale-lengths", type=command_line.FACTOR, default=1.0)
    add("--targets", help="separated by commas; default as in configs/squad.py")
    for name in ("rank", "tile", "row-tokens", "step-tokens", "slots", "active"):
        add(f"--{name}", type=command_line.COUNT, help="default as in configs/squad.py")
    add("--text", type=Path, metavar="FILE", help="write the program's text there")
    common.add_out(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    name = common.slug(f"packed_step-{args.shape}")
    return common.finish(lambda: run(args), args.out, name=name, table=table)


if __name__ == "__main__":
    raise SystemExit(main())
