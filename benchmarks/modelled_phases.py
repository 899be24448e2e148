"""Seconds of a round's phases, from compiled programs and how often each runs."""

# First, since it says where jax may look for devices.
import aot_programs  # isort: skip
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aot_common
import aot_training
import arc_plan
import occupancy
import workload

from seal_jax.generation import side_by_side
from seal_jax.generation.settings import Decoding
from seal_jax.training import imitate, plan, plan_arrays, sft_rows
from seal_jax.training.inner import EngineConfig
from seal_jax.training.settings import ImitateConfig

# A request and how many tokens become of it.
type Asked = Sequence[tuple[side_by_side.Request, int]]
type Pairs = Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Programs:
    """Figures of compiled programs; compiled when first asked for, if not in a folder.

    `used` are those that were asked for.
    """

    folder: Path | None
    compiled: Callable[[str], dict[str, Any]] = aot_programs.figures
    used: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def figures(self, name: str) -> dict[str, Any]:
        if name not in self.used:
            self.used[name] = self._found(name)
        return self.used[name]

    def _found(self, name: str) -> dict[str, Any]:
        file = None if self.folder is None else self.folder / f"{name}.json"
        if file is not None and file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        made = self.compiled(name)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(made), encoding="utf-8")
        return made

    def seconds(self, name: str, trips: Mapping[str, float] | None = None) -> float:
        """Of one run, with other trips of its loops than it was told."""
        made = self.figures(name)
        return made["seconds"] + sum(
            (count - made["loops"][loop]["trips"]) * made["loops"][loop]["seconds"]
            for loop, count in (trips or {}).items()
        )


class Planned(NamedTuple):
    """Training packed: global steps, and what runs in all of them together.

    Chunks of tokens that need the head, and optimizer steps of adapters.
    """

    global_steps: int
    head_chunks: int
    adapter_steps: int
    token_efficiency: float


def planned(jobs: Sequence[plan.Job], cfg: EngineConfig, *, chunk: int) -> Planned:
    """The plan of training all jobs, a pool of them at a time."""
    steps = chunks = 0
    for first in range(0, len(jobs), cfg.pool):
        some = jobs[first : first + cfg.pool]
        # Positions with loss of each of a job's steps.
        with_loss = [[sum(part) for part in _by_step(job)] for job in some]
        needs = [plan.needs(job, cfg.plan) for job in some]
        for placed in plan.schedule(needs, cfg.plan):
            steps += 1
            chunks += -(-sum(with_loss[one.job][one.step] for one in placed) // chunk)
    tokens = arc_plan.work(jobs).tokens
    updates = sum(job.total for job in jobs)
    return Planned(steps, chunks, updates, tokens / (steps * cfg.plan.step_tokens))


def _by_step(job: plan.Job) -> list[list[int]]:
    """Of each step's lines: positions less those whose targets are given."""
    given = job.given or (1,) * len(job.lines)
    positions = job.positions()
    return [[positions[i] - given[i] + 1 for i in batch] for batch in job.batches()]


def adapting(
    programs: Programs, name: str, jobs: Sequence[plan.Job], cfg: EngineConfig
) -> tuple[float, dict[str, Any]]:
    """Seconds of training all jobs, and what the plan of it is."""
    arch = aot_common.arch_of(aot_programs.PROGRAMS[name].shape)
    taken = planned(jobs, cfg, chunk=aot_training.head_chunk(arch, cfg))
    trips = {
        aot_training.TURNOVER: len(jobs) / taken.global_steps,
        aot_training.HEAD_CHUNKS: taken.head_chunks / taken.global_steps,
    }
    # What comes before the steps is done once for a block of them.
    once = programs.figures(name).get("once_seconds", 0.0)
    each = programs.seconds(name, trips) - once * (1 - 1 / plan_arrays.BLOCK)
    return taken.global_steps * each, {**taken._asdict(), "step_ms": 1e3 * each}


def writing(
    programs: Programs, asked: Asked, decoding: Decoding, name: str, *, adapters: int
) -> tuple[float, dict[str, Any]]:
    """Seconds of continuing all requests, by the programs `prefill_` and `decode_`."""
    taken = occupancy.simulate(asked, decoding, adapters=adapters)
    read, step = (programs.seconds(f"{kind}_{name}") for kind in ("prefill", "decode"))
    kept = ("rows", "readings", "steps", "occupancy")
    return taken["readings"] * read + taken["steps"] * step, {
        **{key: taken[key] for key in kept},
        "reading_ms": 1e3 * read,
        "step_ms": 1e3 * step,
    }


def imitating(
    programs: Programs, name: str, pairs: Pairs, cfg: ImitateConfig, merge: float
) -> tuple[float, dict[str, Any]]:
    """Seconds of fine-tuning on the pairs, and of merging, which takes `merge`."""
    micro = micro_batches(pairs, cfg)
    each = programs.seconds(name, {aot_training.MICRO_BATCHES: sum(micro) / len(micro)})
    return len(micro) * each + merge, {
        "optimizer_steps": len(micro),
        "micro_batches": sum(micro),
        "step_ms": 1e3 * each,
    }


def micro_batches(pairs: Pairs, cfg: ImitateConfig) -> list[int]:
    """Of each optimizer step."""
    lines = [
        sft_rows.line([0] * sum(pair), first_target=pair[0], eos=workload.EOS)
        for pair in pairs
    ]
    width = imitate.width([one.positions for one in lines], cfg.length_multiple)
    made = []
    for _ in range(cfg.epochs):
        for first in range(0, len(lines), cfg.batch):
            some = lines[first : first + cfg.batch]
            _, count = imitate.micro_batches(
                some, cfg, width=width, shards=1, eos=workload.EOS
            )
            made.append(int(count))
    return made
