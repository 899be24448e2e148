"""Host time of planning and choosing, for thousands of adapters. No device.

    python benchmarks/planning.py --adapters 10000 100000 --out

The published round's jobs again and again, a pool at a time as a run trains them:

    needs      tiles of each step's lines
    schedule   who trains when and where
    blocks     the whole plan, tokens included (with both of the above)
    first      of `blocks`, up to the first one of a pool: what nothing hides
    choose     the best edit of each passage, after a majority over its adapters
    interval   a bootstrap interval over the passages

Seconds are the processor's, of one core, so that a busy machine changes them little.
The device needs no planning but the next block's: a thread lays it meanwhile
(`training.plan_shards`, `runtime.ahead`). `hidden_above_ms` is how long a global step
must take for that to hide all of it.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import common
import workload

from seal_jax.analysis import stats
from seal_jax.rounds import scoring, select
from seal_jax.rounds.graded import Graded, Trial
from seal_jax.tasks.base import Edit
from seal_jax.training import plan, plan_arrays
from seal_jax.training.settings import LossConfig, PlanConfig

# Those of configs/squad.py, as its sizes come out on one H200.
PLAN = PlanConfig(tile=8, row_tokens=1024, step_tokens=2048, slots=40, active=40)
LOSS = LossConfig("reference", pad_to=2048, pad_samples=8)
POOL, RATE, CLIP = 750, 1e-3, 1.0
LONGEST = PLAN.row_tokens - LOSS.pad_samples
QUESTIONS = 5


def jobs(adapters: int) -> Iterator[plan.Job]:
    """The published jobs over and over, each with a shuffle of its own."""
    lines = [
        tuple(map(tuple, (range(1, n + 1) for n in own)))
        for own in workload.load().jobs(longest=LONGEST)
    ]
    for i in range(adapters):
        yield plan.Job(
            lines[i % len(lines)],
            (0, i),
            epochs=workload.EPOCHS,
            learning_rate=RATE,
            clip=CLIP,
            loss=LOSS,
        )


class Clock:
    """Seconds of this process's processor, by what they were spent on."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str | None = None) -> None:
        """What passed since the last lap goes to `name`, or to nothing."""
        now = time.process_time()
        if name is not None:
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def planned(adapters: int, clock: Clock, *, pool: int) -> dict[str, int]:
    """Plans them a pool at a time; counts of what was planned."""
    counts = dict.fromkeys(("adapter_steps", "global_steps", "blocks", "pools"), 0)
    for batch in itertools.batched(jobs(adapters), pool):
        clock.lap()
        needs = [plan.needs(job, PLAN) for job in batch]
        clock.lap("needs")
        counts["global_steps"] += sum(1 for _ in plan.schedule(needs, PLAN))
        clock.lap("schedule")
        laid = plan_arrays.blocks(batch, PLAN, eos=workload.EOS)
        first = next(laid)
        clock.lap("first")
        rest = [(block.updates, 1) for block in laid]
        clock.lap("rest")
        counts["adapter_steps"] += first.updates + sum(updates for updates, _ in rest)
        counts["blocks"] += 1 + len(rest)
        counts["pools"] += 1
    return counts


def chosen(adapters: int, clock: Clock) -> int:
    """Chooses among as many adapters; how many passages they are of."""
    edits, seeds = workload.EDITS, workload.SEEDS
    passages = max(2, adapters // (edits * seeds))
    graded = []
    for p, e in itertools.product(range(passages), range(edits)):
        # Answers that differ between edits, and sometimes between seeds.
        trials = tuple(
            Trial(
                p * edits + e,
                s,
                tuple(str((p * e + q * s) % 7) for q in range(QUESTIONS)),
                (),
                (),
                1.0,
                None,
            )
            for s in range(seeds)
        )
        rewards = tuple((p + 3 * e + s) % 5 / 5 for s in range(seeds))
        edit = Edit(p, e, "", "a text about it")
        graded.append(Graded(edit, trials, ((0.0,),) * seeds, rewards, sum(rewards)))
    clock.lap()
    voted = scoring.with_majority(graded)
    select.choose(
        voted, [None] * passages, [0.0] * passages, rule=select.Rule(), ties_seed="0"
    )
    clock.lap("choose")
    stats.interval([(p * 7919 % 101) / 101 for p in range(passages)])
    clock.lap("interval")
    return passages


def measure(adapters: int, *, pool: int) -> dict[str, Any]:
    """Seconds by part, and the figures that follow from them."""
    clock = Clock()
    counts = planned(adapters, clock, pool=pool)
    passages = chosen(adapters, clock)
    seconds = clock.seconds
    seconds["blocks"] = seconds["first"] + seconds.pop("rest")
    return {
        "adapters": adapters,
        "passages": passages,
        **counts,
        "cpu_seconds": {name: round(value, 4) for name, value in seconds.items()},
        "us_per_adapter_step": 1e6 * seconds["blocks"] / counts["adapter_steps"],
        "first_ms_per_pool": 1e3 * seconds["first"] / counts["pools"],
        "hidden_above_ms": 1e3 * seconds["blocks"] / counts["global_steps"],
    }


PARTS = ("needs", "schedule", "first", "blocks", "choose", "interval")


def table(result: dict[str, Any]) -> str:
    """The rows for people."""
    lines = [f"{'adapters':>9} {'steps':>10} {'us/step':>8}  CPU seconds"]
    for row in result["rows"]:
        parts = "  ".join(f"{name} {row['cpu_seconds'][name]:.2f}" for name in PARTS)
        lines.append(
            f"{row['adapters']:>9} {row['adapter_steps']:>10} "
            f"{row['us_per_adapter_step']:>8.1f}  {parts}"
        )
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/planning.py", description=str(__doc__).split("\n", 1)[0]
    )
    parser.add_argument("--adapters", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--pool", type=int, default=POOL, help="adapters planned at once"
    )
    common.add_out(parser)
    args = parser.parse_args(argv)
    if min(args.pool, *args.adapters) < 1:
        parser.error("--adapters and --pool must be at least 1")
    return args


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The result."""
    rows = [measure(adapters, pool=args.pool) for adapters in args.adapters]
    device = common.device_name("cpu", "")
    return {"pool": args.pool, "rows": rows, **common.stamp(device=device)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(lambda: run(args), args.out, name="planning", table=table)


if __name__ == "__main__":
    raise SystemExit(main())
