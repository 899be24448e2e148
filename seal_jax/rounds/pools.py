"""Training many jobs, one pool at a time, in units that survive a kill.

The device holds `cfg.pool` adapters for each of its shards. `train` cuts the jobs into
such pools, trains those that a store does not hold yet, and returns what it holds of
each: entries of the journal, checkpoints, or, within a larger unit, arrays in memory.
"""

import bisect
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from operator import neg
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.runtime import distributed, meshes, prng, progress
from seal_jax.runtime.journal import Journal
from seal_jax.training import inner, packed, plan, throughput


@dataclasses.dataclass(frozen=True)
class Waves:
    """Training of each pool in `count` waves, with something asked between them.

    `jobs(wave, rows, adapters)` is called before each wave of each pool and gives the
    jobs of this wave, one for each of the work's `rows`, with their `span`. `adapters`
    are those that the wave before left, stacked in this order, with rows to spare, as a
    model applies them; None before the first. `targets`: of a line's teacher, at most,
    whichever wave it is.
    """

    count: int
    jobs: Callable[[int, range, lora.Tree | None], Sequence[plan.Job]]
    targets: int = 0


@dataclasses.dataclass(frozen=True)
class Work:
    """A jobs, each with the integers that are folded into the run's key for it.

    `frozen` and `frozen_of`, a row of it for each job, and `teacher_on_frozen`: see
    `packed.train`. With `waves` the jobs here are only counted: those that are trained
    come from there.
    """

    jobs: Sequence[plan.Job]
    folds: Sequence[tuple[int, ...]]
    frozen: lora.Tree | None = None
    frozen_of: Sequence[int] | None = None
    teacher_on_frozen: bool = False
    waves: Waves | None = None


class Pool(NamedTuple):
    """Jobs `rows` of the work, trained; row a of `trained` is job `rows[a]`.

    `begin`: of the training, by the monotonic clock; `seconds`: that it took.
    """

    rows: range
    trained: packed.TrainedAdapters
    begin: float
    seconds: float

    @property
    def adapters(self) -> lora.Tree:
        """The adapters, without the rows that a pool may have to spare."""
        return jax.tree.map(lambda x: x[: len(self.rows)], self.trained.adapters)

    def cost(self) -> dict[str, int]:
        """What the training took, as units of the journal tell it."""
        trained = self.trained
        cost = {
            "tokens": trained.tokens,
            "computed": trained.computed_tokens,
            "steps": trained.steps,
        }
        if trained.teacher_tokens:
            cost["teacher_tokens"] = trained.teacher_tokens
        return cost


class Store[Unit](Protocol):
    """Where finished pools are kept, by their index from 0 on."""

    def __contains__(self, index: int) -> bool: ...

    def put(self, index: int, pool: Pool) -> None: ...

    def get(self, index: int, rows: range) -> Unit: ...


@dataclasses.dataclass(frozen=True)
class Journaled:
    """Pools as entries "PREFIX/INDEX" of the journal: what `finish` makes of each."""

    journal: Journal
    prefix: str
    finish: Callable[[Pool], dict[str, Any]]

    def __contains__(self, index: int) -> bool:
        return f"{self.prefix}/{index}" in self.journal

    def put(self, index: int, pool: Pool) -> None:
        self.journal.put(f"{self.prefix}/{index}", self.finish(pool))

    def get(self, index: int, rows: range) -> Any:
        """The entry, as JSON."""
        del rows
        return self.journal.get(f"{self.prefix}/{index}")


class Held:
    """Pools in memory, for work that is a part of a unit."""

    def __init__(self):
        self._pools: dict[int, Pool] = {}

    def __contains__(self, index: int) -> bool:
        return index in self._pools

    def put(self, index: int, pool: Pool) -> None:
        self._pools[index] = pool

    def get(self, index: int, rows: range) -> Pool:
        del rows
        return self._pools[index]


def train[Unit](
    policy: policies.Policy,
    work: Work,
    store: Store[Unit],
    *,
    key: jax.Array,
    cfg: inner.EngineConfig,
    mesh: Mesh | None,
    phase: str,
    say: Callable[[str], None],
    log: Callable[[dict[str, float]], None] | None = None,
    whole: progress.Whole | None = None,
) -> list[Unit]:
    """What `store` has of every pool, after training those that it lacks; see `each`.

    Raises:
      ValueError: see `packed.train`.
    """
    units = each(
        *(policy, work, store),
        key=key,
        cfg=cfg,
        mesh=mesh,
        title=f"{phase}: adapt",
        say=lambda line: say(f"{phase}: {line}"),
        log=log,
        visible=distributed.leads(),
        whole=whole,
    )
    return list(units)


def each[Unit](
    policy: policies.Policy,
    work: Work,
    store: Store[Unit],
    *,
    key: jax.Array,
    cfg: inner.EngineConfig,
    mesh: Mesh | None,
    title: str,
    say: Callable[[str], None],
    log: Callable[[dict[str, float]], None] | None = None,
    visible: bool = True,
    whole: progress.Whole | None = None,
) -> Iterator[Unit]:
    """What `store` has of each pool, one after the other, trained when it is asked for.

    Jobs share a pool in the order of `work`: those of similar length should be
    neighbours (`longest_first`).

    Args:
      policy: the model that is adapted.
      work: the jobs.
      store: where finished pools are.
      key: the run's; `work.folds` go into it.
      cfg: the inner loop.
      mesh: devices to share each pool, or None for the one of the base.
      title: of the progress bar.
      say: takes a line on training lines that are cut.
      log: takes each new pool's rates (`throughput.throughput`).
      visible: whether there is a progress bar; none where all is in the store.
      whole: the run, which counts what is trained.

    Raises:
      ValueError: see `packed.train`.
    """
    least = 0 if work.waves is None else work.waves.targets
    pools = cut(work.jobs, cfg, meshes.shards(mesh), least=least)
    count = len(work.jobs)
    done = sum(len(rows) for i, rows in enumerate(pools) if i in store)
    ended = sum(len(job.cut) for job in work.jobs)
    if ended and done < count:
        lines = sum(len(job.lines) for job in work.jobs)
        answers = any(job.cut and job.given for job in work.jobs)
        say(
            f"{ended} of {lines} training lines are longer than a row takes"
            f"{', or their answers than answers may be,' * answers} and end there; "
            f"raise inner.row_tokens{' or answer.max_tokens' * answers}"
        )
    with progress.progress(
        *(count, title, "adapters"),
        done=done,
        visible=visible and done < count,
        whole=whole,
    ) as tick:
        for i, rows in enumerate(pools):
            if i not in store:
                pool = _trained(policy, work, rows, key=key, cfg=cfg, mesh=mesh)
                store.put(i, pool)
                unit = pool.cost() | {
                    "train_seconds": pool.seconds,
                    "seconds": time.monotonic() - pool.begin,
                }
                measured = throughput.throughput(
                    unit, len(rows), arch=policy.arch, cfg=cfg, mesh=mesh
                )
                if log is not None:
                    log(measured)
                tick(len(rows), throughput.line(measured))
                # Its adapters give way to those of the next: memory is for one pool.
                del pool
            yield store.get(i, rows)


def cut(
    jobs: Sequence[plan.Job], cfg: inner.EngineConfig, shards: int, *, least: int = 0
) -> list[range]:
    """Which jobs share a pool: as many as there is room for, in their order.

    There is room for `cfg.pool` on each shard, and for what their teachers predict,
    whichever of the jobs a shard is given; for `least` targets of each taught line,
    where other tails may come.
    """
    pools, first = [], 0
    taught: list[int] = []  # of the pool so far, the most first
    for i, job in enumerate(jobs):
        own = sum(max(one.targets, least) for one in job.taught if one)
        bisect.insort(taught, own, key=neg)
        full = sum(taught[: cfg.pool]) > cfg.bank * cfg.pool
        if i > first and (full or i - first == cfg.pool * shards):
            pools.append(range(first, i))
            first = i
            taught = [own]
    return [*pools, range(first, len(jobs))] if jobs else []


def _trained(
    policy: policies.Policy,
    work: Work,
    rows: range,
    *,
    key: jax.Array,
    cfg: inner.EngineConfig,
    mesh: Mesh | None,
) -> Pool:
    begin, here = time.monotonic(), slice(rows.start, rows.stop)
    train = functools.partial(
        packed.train,
        policy.params,
        keys_A=prng.fold(key, *np.array(work.folds[here]).T),
        arch=policy.arch,
        cfg=cfg,
        eos=policy.eos,
        mesh=mesh,
        frozen=work.frozen,
        frozen_of=None if work.frozen_of is None else work.frozen_of[here],
        teacher_on_frozen=work.teacher_on_frozen,
    )
    if work.waves is None:
        trained = train(work.jobs[here])
        seconds = time.monotonic() - begin
    else:
        trained, seconds = _in_waves(train, work.waves, rows, cfg)
    # Nothing goes on from here.
    return Pool(rows, trained._replace(slots=None), begin, seconds)


def _in_waves(
    train: Callable[..., packed.TrainedAdapters],
    waves: Waves,
    rows: range,
    cfg: inner.EngineConfig,
) -> tuple[packed.TrainedAdapters, float]:
    """What the last wave leaves, with the costs of all, and the seconds of training.

    Raises:
      ValueError: no wave, several that the engine cannot go on between, or see
        `packed.train`.
    """
    if waves.count < 1 or (waves.count > 1 and not cfg.resumes):
        raise ValueError(
            f"waves={waves.count} must be at least 1, and 1 with resumes=False; use "
            "resumes=True for several"
        )
    trained, costs, seconds = None, np.zeros(len(_COSTS), int), 0.0
    for wave in range(waves.count):
        jobs = waves.jobs(wave, rows, trained and trained.adapters)
        slots = trained and trained.slots
        # Memory is for one wave: what it left gives way to the next one's.
        trained = None
        begin = time.monotonic()
        trained = train(jobs, start=slots, consume=True)
        del slots
        seconds += time.monotonic() - begin
        costs += [getattr(trained, name) for name in _COSTS]
    assert trained is not None
    whole = dict(zip(_COSTS, costs.tolist(), strict=True))
    return trained._replace(**whole), seconds


# Of `packed.TrainedAdapters`, what all waves take together.
_COSTS = ("tokens", "computed_tokens", "steps", "adapter_steps", "teacher_tokens")


def longest_first(totals: Sequence[int]) -> list[int]:
    """Indices of jobs by their number of steps, the most first; ties as they stand."""
    return sorted(range(len(totals)), key=lambda i: -totals[i])
