"""The inner loop by transformers, PEFT and PyTorch: one adapter at a time.

    python benchmarks/peft_baseline.py --shape qwen2.5-7b --mode padded [--out]

This is what the packed engine is compared with. It needs an interpreter that has torch,
transformers and peft; neither jax nor this package has to be installed there.

Two modes. `padded` is the work as SEAL's TTT server does it: every line is filled to
2048 positions with end-of-text and every position is a target. `unpadded` is what a
careful user would run: the line and one end-of-text. Both take one line per step, a
LoRA on q_proj and v_proj, AdamW at 1e-3 falling linearly to zero over the adapter's own
steps, and clip at 1.0; on CUDA float32 adapters over a bfloat16 base under autocast, on
a CPU float32 throughout.

The loop is faster than the reference's, so that ratios to it are not flattered: the
model is built once and an adapter is reset in place, token tensors lie on the device
before the clock starts, the optimizer is the fused one, the host never waits for a
loss, and nothing is saved, loaded or logged. Weights and tokens are random.

Adapters: the 250 self-edits of workload.json, sorted by tokens, cut into as many equal
parts as adapters are asked for; the middle one of each part is trained. The figures are
of those alone: nothing is stated about adapters that were not trained. `--max-steps`
ends each adapter early where padded steps take long: then `steps_per_s` is what can be
compared, and `adapters_per_s` is left out.
"""

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import common
import peft_loop
import workload

PACKAGES = ("torch", "transformers", "peft")

# Of any count.
_MOST = 1_000_000


def count(
    jobs: Sequence[Sequence[int]], settings: peft_loop.Settings
) -> dict[str, int]:
    """Of one repeat: steps, tokens of the lines they trained, positions computed."""
    total = {"steps": 0, "tokens": 0, "positions": 0}
    padded = settings.mode == "padded"
    for number, job in enumerate(jobs):
        trained = peft_loop.order(len(job), settings, seed=number)
        for tokens in (job[index] for index in trained[: settings.max_steps]):
            total["steps"] += 1
            total["tokens"] += min(tokens, settings.pad_to) if padded else tokens
            total["positions"] += settings.pad_to if padded else tokens + 1
    return total


def aggregate(
    seconds: Sequence[float],
    jobs: Sequence[Sequence[int]],
    settings: peft_loop.Settings,
) -> dict[str, Any]:
    """The measured part of the result.

    `adapters_per_s` is None where `max_steps` ended an adapter before its time.

    Args:
      seconds: one per repeat, of training every job.
      jobs: tokens of each line of each adapter.
      settings: how they were trained.

    Raises:
      ValueError: no repeats, or one that took no time.
    """
    counted = count(jobs, settings)
    whole = counted["steps"] == settings.epochs * sum(map(len, jobs))
    timed = common.rates(
        seconds,
        adapters=len(jobs) if whole else None,
        steps=counted["steps"],
        tokens=counted["tokens"],
    )
    return {
        "adapters": len(jobs),
        **counted,
        **timed,
        "token_efficiency": counted["tokens"] / counted["positions"],
    }


def benchmark(
    shape: common.Shape,
    jobs: Sequence[Sequence[int]],
    settings: peft_loop.Settings,
    *,
    repeats: int,
    device: str,
) -> dict[str, Any]:
    """Trains the jobs one after another, `repeats` times; the figures.

    A step at every length that occurs is done before the clock starts.

    Raises:
      ValueError: a loss is not finite.
    """
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    model, wrapper = peft_loop.build(shape, settings, device=device)
    rows = [
        peft_loop.rows_of(job, shape.vocab, settings, seed=number, device=device)
        for number, job in enumerate(jobs)
    ]
    plans = [peft_loop.order(len(job), settings, seed=i) for i, job in enumerate(jobs)]
    losses: list[tuple[Any, Any]] = []

    def run() -> None:
        losses.clear()
        for job_rows, plan in zip(rows, plans, strict=True):
            steps, total = plan[: settings.max_steps], len(plan)
            losses.append(
                peft_loop.train(
                    model, job_rows, steps, settings, total=total, device=device
                )
            )
        if device == "cuda":
            torch.cuda.synchronize()

    by_length = {r["input_ids"].shape[1]: r for job_rows in rows for r in job_rows}
    warm = list(by_length.values())
    peft_loop.train(
        model, warm, range(len(warm)), settings, total=len(warm), device=device
    )
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = common.time_repeats(run, repeats=repeats)
    first, last = (sum(float(pair[i]) for pair in losses) / len(jobs) for i in (0, 1))
    if not math.isfinite(first + last):
        raise ValueError(
            f"loss {first} -> {last} must be finite; lower --learning-rate"
        )
    trainable = [p.numel() for p in wrapper.parameters() if p.requires_grad]
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {
        **aggregate(seconds, jobs, settings),
        "loss_first_step": first,
        "loss_last_step": last,
        "trainable_parameters": sum(trainable),
        "peak_memory_bytes": peak,
        "threads": torch.get_num_threads(),
    }


def device_of(name: str | None) -> tuple[str, str]:
    """("cuda" or "cpu", the device's name as a folder); CUDA where there is one.

    Raises:
      ValueError: CUDA was asked for and there is none.
    """
    import torch

    if name == "cpu" or (name is None and not torch.cuda.is_available()):
        return "cpu", common.device_name("cpu", "")
    if not torch.cuda.is_available():
        raise ValueError(
            "--device=cuda needs a GPU that torch can see; install a CUDA build of "
            "torch or give --device=cpu"
        )
    return "cuda", common.device_name("gpu", torch.cuda.get_device_name())


# The command


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    usual = peft_loop.Settings()
    parser = argparse.ArgumentParser(
        prog="benchmarks/peft_baseline.py",
        description="Trains adapters one at a time with PEFT, as the reference does.",
    )
    add = parser.add_argument
    add("--mode", choices=peft_loop.MODES, default=usual.mode)
    add("--shape", default="small", help=f"{', '.join(common.SHAPES)}, or NAME,FIELD=N")
    add("--adapters", type=int, default=8, help="how many of the 250 edits to train")
    add("--repeats", type=int, default=3, help="times all is trained; medians count")
    add("--epochs", type=int, default=usual.epochs)
    add("--max-steps", type=int, help="of each adapter; the default is all")
    add("--scale", type=float, default=1.0, help="factor on the lines' lengths")
    add("--longest", type=int, help="cut longer lines to this many tokens")
    add("--pad-to", type=int, default=usual.pad_to, help="positions, padded mode")
    add("--rank", type=int, default=usual.rank)
    add("--alpha", type=float, default=usual.alpha)
    add("--targets", default=",".join(usual.targets), help="separated by commas")
    add("--learning-rate", type=float, default=usual.learning_rate)
    add("--clip", type=float, default=usual.clip)
    add("--device", choices=("cuda", "cpu"), help="cuda if there is one")
    add("--json-only", action="store_true", help="print nothing but the last line")
    common.add_out(parser)
    return parser.parse_args(argv)


def settings_of(args: argparse.Namespace) -> peft_loop.Settings:
    """The flags that say what is trained.

    Raises:
      ValueError: a number that must be positive is not, or an unknown target.
    """
    counts = "adapters repeats epochs max_steps longest pad_to rank"
    for name in counts.split():
        value = getattr(args, name)
        if value is not None and not 1 <= value <= _MOST:
            flag = name.replace("_", "-")
            raise ValueError(
                f"--{flag}={value} must be at least 1 and at most {_MOST}; use 1"
            )
    for name in ("scale", "alpha", "learning_rate", "clip"):
        if not 1e-12 <= (value := getattr(args, name)) <= _MOST:
            flag = name.replace("_", "-")
            raise ValueError(
                f"--{flag}={value} must be at least 1e-12 and at most {_MOST}; use 1"
            )
    targets = tuple(args.targets.split(","))
    known = common.shape(args.shape).linears()
    if not set(targets) <= set(known):
        raise ValueError(f"--targets={args.targets} must be of {', '.join(known)}")
    names = {field.name for field in dataclasses.fields(peft_loop.Settings)} - {
        "targets"
    }
    return peft_loop.Settings(
        targets=targets, **{name: getattr(args, name) for name in names}
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        settings = settings_of(args)
        shape = common.shape(args.shape)
        lengths = workload.load()
        jobs = lengths.jobs(1, scale=args.scale, longest=args.longest)
        jobs = [jobs[i] for i in workload.spread(jobs, args.adapters)]
        device, folder = device_of(args.device)
        measured = benchmark(shape, jobs, settings, repeats=args.repeats, device=device)
        result = {
            "benchmark": "peft_baseline",
            **measured,
            **dataclasses.asdict(settings),
            "shape": args.shape,
            "model": dataclasses.asdict(shape),
            "dtype": "bfloat16" if device == "cuda" else "float32",
            "scale": args.scale,
            "longest": args.longest,
            **common.stamp(device=folder, packages=PACKAGES),
        }
        name = common.slug(f"peft_baseline-{args.shape}-{args.mode}")
        written = common.write(result, args.out, name=name)
        if not args.json_only:
            print(summary(result))
        if written is not None and not args.json_only:
            print(f"written: {written}")
        print(common.line(result))
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        print(
            f"error: {sys.executable} must have {', '.join(PACKAGES)}, {error.name} is "
            "missing; install it or run this file with another interpreter",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def summary(result: dict[str, Any]) -> str:
    """The result for reading."""
    rate = result["adapters_per_s"]
    adapters = "cut short" if rate is None else f"{rate:.3g} adapters/s"
    return (
        f"{result['shape']}, {result['mode']}, {result['adapters']} adapters one by "
        f"one on {result['device']}: {result['seconds']:.1f} s (median of "
        f"{len(result['seconds_by_repeat'])}), {adapters}, "
        f"{result['steps_per_s']:.3g} steps/s, {result['tokens_per_s']:.4g} tokens/s, "
        f"{result['token_efficiency']:.1%} of positions carry text"
    )


if __name__ == "__main__":
    raise SystemExit(main())
