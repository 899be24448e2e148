"""Slower ways to train many adapters: what the packed engine is measured against.

Each takes what `packed.train` takes and returns what it returns, for any number of
adapters, by the same `inner.train_step`: the same lines in the same order, one at a
step, so results agree and only the time differs.

    length_classes   lines of about one length, of whichever adapters have one next
    rectangular      waves of adapters in step, all lines as wide as the longest
    one_by_one       an adapter, then the next
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seal_jax.models import decoder, lora
from seal_jax.training import inner, packed, plan, plan_arrays
from seal_jax.training.settings import PlanConfig

# Widths that lines are padded to; each that occurs is a program of its own.
CLASSES = (16, 32, 64, 128, 256, 512)


def classes_to(longest: int) -> tuple[int, ...]:
    """The classes below `longest`, and `longest`."""
    return (*(width for width in CLASSES if width < longest), longest)


def width_of(positions: int, classes: Sequence[int]) -> int:
    """The narrowest class that holds so many positions.

    Raises:
      ValueError: none does.
    """
    for width in classes:
        if positions <= width:
            return width
    raise ValueError(
        f"a training line takes {positions} positions, classes={tuple(classes)} end at "
        f"{classes[-1]}; add one of {positions} or more"
    )


def one_per_class(job: plan.Job, classes: Sequence[int]) -> plan.Job:
    """A job that compiles all that `job` would, in a few steps.

    Its lines are the longest of each class, once.
    """
    longest: dict[int, tuple[int, int]] = {}
    for index, positions in enumerate(job.positions()):
        width = width_of(positions, classes)
        longest[width] = max(longest.get(width, (0, 0)), (positions, index))
    lines = tuple(job.lines[index] for _, index in sorted(longest.values()))
    return plan.Job(lines, job.seed, 1, job.learning_rate, job.clip, job.loss)


# What they share: slots stacked on the leading axis, and the end of a training


@functools.partial(jax.jit, static_argnames=("arch", "cfg"))
def _fresh(keys_A: Array, arch: decoder.Arch, cfg: inner.EngineConfig):
    def one(key: Array) -> inner.Slot:
        fresh = lora.init(key, arch, targets=cfg.targets, rank=cfg.rank)
        return inner.init_slot(fresh)

    return jax.vmap(one)(keys_A)


@functools.partial(jax.jit, static_argnames=("arch", "cfg"), donate_argnames="slots")
def _advance(
    params: dict,
    slots: inner.Slot,
    index_K: Array,
    rows: dict,
    rates_K: Array,
    clips_K: Array,
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
) -> inner.Slot:
    """The slots named by `index_K` each train their row; one past the last is none."""
    picked = jax.tree.map(lambda s: s.at[index_K].get(mode="clip"), slots)
    batches = jax.tree.map(lambda leaf: leaf[:, None], rows)
    trained = jax.vmap(inner.train_step, in_axes=(None, 0, 0, 0, 0, None, None))(
        params, picked, batches, rates_K, clips_K, arch, cfg
    )
    return jax.tree.map(lambda s, t: s.at[index_K].set(t, mode="drop"), slots, trained)


@functools.partial(jax.jit, static_argnames=("arch", "cfg"), donate_argnames="slot")
def _advance_one(
    params: dict,
    slot: inner.Slot,
    row: dict,
    rate: Array,
    clip: Array,
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
) -> inner.Slot:
    batch = jax.tree.map(lambda leaf: leaf[None], row)
    return inner.train_step(params, slot, batch, rate, clip, arch, cfg)


@functools.partial(jax.jit, static_argnames=("arch", "cfg"))
def _finish(slots: inner.Slot, arch: decoder.Arch, cfg: inner.EngineConfig):
    adapters = lora.scaled(slots.adapter, cfg.alpha / cfg.rank)
    finite_A = jnp.isfinite(slots.loss_sum)
    for leaf in jax.tree.leaves(adapters):
        finite_A &= jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
    loss_A = slots.loss_sum / jnp.maximum(slots.adam.count, 1)
    adapters = jax.tree.map(lambda x: x.astype(arch.dtype), adapters)
    return adapters, loss_A, finite_A


@dataclasses.dataclass
class _Count:
    """Positions and steps, as a training goes on."""

    tokens: int = 0
    computed: int = 0
    steps: int = 0
    lines: int = 0

    def add(self, weights: np.ndarray, *, lines: int, computed: int) -> None:
        self.tokens += int(np.count_nonzero(weights))
        self.computed += computed
        self.steps += 1
        self.lines += lines


def _trained(parts: list[tuple], count: _Count) -> packed.TrainedAdapters:
    adapters, losses, finite = zip(*parts, strict=True)
    return packed.TrainedAdapters(
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *adapters),
        np.concatenate(losses),
        np.concatenate(finite),
        count.tokens,
        count.computed,
        count.steps,
        count.lines,
    )


def _part(done: tuple, jobs: int) -> tuple:
    """The first `jobs` of what `_finish` returned, when they are there."""
    adapters, loss_A, finite_A = done
    adapters = jax.tree.map(lambda leaf: leaf[:jobs], adapters)
    jax.block_until_ready(adapters)
    return adapters, np.asarray(loss_A)[:jobs], np.asarray(finite_A)[:jobs]


def _chunks(
    jobs: Sequence[plan.Job], keys_A: Array, size: int
) -> Iterator[tuple[Sequence[plan.Job], Array]]:
    """Jobs and keys, `size` at a time; the last keys are filled up with copies."""
    for first in range(0, len(jobs), size):
        chunk, keys_K = jobs[first : first + size], keys_A[first : first + size]
        missing = size - len(chunk)
        yield chunk, jnp.concatenate([keys_K, jnp.repeat(keys_A[:1], missing)])


def _stack(rows: Sequence[dict], count: int) -> dict[str, np.ndarray]:
    """Rows as arrays `[count, T]`; what is missing is copies of the last."""
    filled = [*rows, *[rows[-1]] * (count - len(rows))]
    return {name: np.stack([row[name] for row in filled]) for name in rows[0]}


# The engines


def length_classes(
    params: dict,
    jobs: Sequence[plan.Job],
    keys_A: Array,
    *,
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
    eos: int,
    classes: Sequence[int] = CLASSES,
) -> packed.TrainedAdapters:
    """Steps of one width each, over the adapters whose next line is of that class.

    `cfg.plan.slots` adapters at a time, all of them to their end; a step is as many
    rows as make `cfg.plan.step_tokens`. Its class is the one that fills the largest
    share of its rows; the adapters with the most steps left go first.

    Raises:
      ValueError: see `width_of`.
    """
    size, parts, count = cfg.plan.slots, [], _Count()
    for chunk, keys_K in _chunks(jobs, keys_A, size):
        slots = _fresh(keys_K, arch, cfg)
        for index, rows, rates in _class_steps(chunk, cfg.plan, classes, eos=eos):
            width = len(rows[0]["tokens"])
            budget = max(1, min(size, cfg.plan.step_tokens // width))
            fill = budget - len(rows)
            index_K = np.array([*index, *[size] * fill], np.int32)
            rates_K = np.array([*rates, *[0.0] * fill], np.float32)
            clips = [chunk[j].clip for j in index]
            clips_K = np.array([*clips, *[1.0] * fill], np.float32)
            stacked = _stack(rows, budget)
            slots = _advance(
                params, slots, index_K, stacked, rates_K, clips_K, arch, cfg
            )
            weights = stacked["weights"][: len(rows)]
            count.add(weights, lines=len(rows), computed=budget * width)
        parts.append(_part(_finish(slots, arch, cfg), len(chunk)))
    return _trained(parts, count)


def _class_steps(
    jobs: Sequence[plan.Job],
    cfg: PlanConfig,
    classes: Sequence[int],
    *,
    eos: int,
) -> Iterator[tuple[list[int], list[dict], list[float]]]:
    """(jobs, their rows, their rates) of each step."""
    queues = [_queue(job, classes, eos=eos) for job in jobs]
    left = np.array([len(queue) for queue in queues])
    rates = [job.rates() for job in jobs]
    next_width = np.array([len(queue[-1]["tokens"]) for queue in queues])
    budgets = {w: max(1, min(cfg.slots, cfg.step_tokens // w)) for w in classes}
    while left.any():
        waiting = {w: int(((next_width == w) & (left > 0)).sum()) for w in classes}
        width = max(
            (w for w in classes if waiting[w]),
            key=lambda w: (min(waiting[w] / budgets[w], 1.0), -w),
        )
        ready = np.flatnonzero((next_width == width) & (left > 0))
        # Stable, so that ties go to the lower slot.
        order = np.argsort(-left[ready], kind="stable")[: budgets[width]]
        chosen = [int(j) for j in ready[order]]
        yield (
            chosen,
            [queues[j].pop() for j in chosen],
            [float(rates[j][len(rates[j]) - left[j]]) for j in chosen],
        )
        left[chosen] -= 1
        for j in chosen:
            next_width[j] = len(queues[j][-1]["tokens"]) if queues[j] else 0


def _queue(job: plan.Job, classes: Sequence[int], *, eos: int) -> list[dict]:
    """A job's rows, each as wide as its class, the next one last."""
    positions = job.positions()
    widths = [width_of(positions[i], classes) for i in job.order()]
    steps = plan_arrays.rows(job, eos=eos, multiple=1)
    return [_pad(row, w, eos) for (row,), w in zip(steps, widths, strict=True)][::-1]


def _pad(row: dict, width: int, eos: int) -> dict[str, np.ndarray]:
    fill = {"tokens": eos, "targets": eos}
    missing = width - len(row["tokens"])
    return {
        name: np.pad(leaf, (0, missing), constant_values=fill.get(name, 0))
        for name, leaf in row.items()
    }


def rectangular(
    params: dict,
    jobs: Sequence[plan.Job],
    keys_A: Array,
    *,
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
    eos: int,
    wave: int = 32,
) -> packed.TrainedAdapters:
    """`jax.vmap` of the definition: waves of adapters that march in step.

    Every line is as wide as its wave's longest, in whole tiles, and a wave lasts as
    long as its adapter with the most steps. Waves are taken in the order of the jobs.
    """
    parts, count = [], _Count()
    for chunk, keys_K in _chunks(jobs, keys_A, wave):
        width = _widest(chunk, cfg.plan)
        queues = [_queue(job, (width,), eos=eos) for job in chunk]
        last = [queue[0] for queue in queues]
        slots = _fresh(keys_K, arch, cfg)
        clips = np.array([job.clip for job in chunk], np.float32)
        clips_K = np.pad(clips, (0, wave - len(chunk)), constant_values=1)
        rates = [job.rates() for job in chunk]
        for step in range(max(job.total for job in chunk)):
            going = [j for j, queue in enumerate(queues) if queue]
            index_K = np.full(wave, wave, np.int32)
            rates_K = np.zeros(wave, np.float32)
            index_K[going] = going
            rates_K[going] = [rates[j][step] for j in going]
            rows = [q.pop() if q else last[j] for j, q in enumerate(queues)]
            stacked = _stack(rows, wave)
            slots = _advance(
                params, slots, index_K, stacked, rates_K, clips_K, arch, cfg
            )
            weights = stacked["weights"][going]
            count.add(weights, lines=len(going), computed=wave * width)
        parts.append(_part(_finish(slots, arch, cfg), len(chunk)))
    return _trained(parts, count)


def waves(
    jobs: Sequence[plan.Job], cfg: PlanConfig, *, wave: int
) -> list[tuple[list[int], int]]:
    """(jobs, positions computed) of each wave of `rectangular`."""
    made = []
    for first in range(0, len(jobs), wave):
        indices = list(range(first, min(first + wave, len(jobs))))
        chunk = [jobs[j] for j in indices]
        steps = max(job.total for job in chunk)
        made.append((indices, wave * _widest(chunk, cfg) * steps))
    return made


def _widest(jobs: Sequence[plan.Job], cfg: PlanConfig) -> int:
    return cfg.tiles(max(max(job.positions()) for job in jobs)) * cfg.tile


def one_by_one(
    params: dict,
    jobs: Sequence[plan.Job],
    keys_A: Array,
    *,
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
    eos: int,
    classes: Sequence[int] = CLASSES,
) -> packed.TrainedAdapters:
    """An adapter at a time, a line at a time, each as wide as its class.

    Raises:
      ValueError: see `width_of`.
    """
    parts, count = [], _Count()
    for job, keys_1 in _chunks(jobs, keys_A, 1):
        slots = _fresh(keys_1, arch, cfg)
        slot = jax.tree.map(lambda leaf: leaf[0], slots)
        clip = np.float32(job[0].clip)
        queue = _queue(job[0], classes, eos=eos)
        for rate in job[0].rates():
            row = queue.pop()
            slot = _advance_one(params, slot, row, rate, clip, arch, cfg)
            count.add(row["weights"], lines=1, computed=len(row["tokens"]))
        slots = jax.tree.map(lambda leaf: leaf[None], slot)
        parts.append(_part(_finish(slots, arch, cfg), 1))
    return _trained(parts, count)
