"""Host only: which slot trains which line at which step. Numpy, deterministic.

Lines and step counts are known before training starts, so a whole batch of trainings is
laid out beforehand. An adapter trains one line per optimizer step, or a few, in its own
shuffled order, and lines differ in length by a factor of ten; adapters do not interact,
so they need not march in step. Each *global step* has a static budget of tokens, cut
into tiles that belong to one slot each, and is filled with the next lines of the
slots that have the most steps left; the others wait. A slot whose adapter is
finished takes the next of those that it was given, at once.

    jobs -> schedule (who, when, where: lengths only) -> plan_arrays (arrays)
"""

import collections
import dataclasses
import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seal_jax.training import taught as teachers
from seal_jax.training.fitting import fill, fit, fullest
from seal_jax.training.settings import (
    COSINE,
    LINEAR,
    MASKED,
    PADDED,
    REFERENCE,
    LossConfig,
    PlanConfig,
)
from seal_jax.training.taught import Taught


@dataclasses.dataclass(frozen=True)
class Job:
    """One adapter to train.

    `lines` are token ids; `seed` is that of the shuffles. An optimizer step takes the
    next `batch` lines; an epoch's last step may be short. `given` says how many leading
    tokens of each line are no targets; none: the first, which nothing predicts. `cut`
    are places of lines that begin a longer text: nothing follows them in their row, no
    end-of-text and no pads.

    The learning rate climbs linearly from zero over `warmup` steps, then falls to zero
    over the rest of the adapter's own, by `schedule`. `clip` bounds the gradient's
    norm.

    `beside` are texts on which the model shall not change: a step also reads one, and
    `beside_weight` times its mean divergence from the base is added to its loss.

    `taught` are the teachers of lines, None for a line that has none; empty: no line
    has one. `span` are the epochs `[first, last)` that are trained now; None: all. What
    a step is - its lines, its learning rate, its text beside, its sampled pads - is
    that of the whole schedule of `epochs`.
    """

    lines: tuple[tuple[int, ...], ...]
    seed: tuple[int, ...]
    epochs: int
    learning_rate: float
    clip: float
    loss: LossConfig
    batch: int = 1
    given: tuple[int, ...] = ()
    warmup: int = 0
    schedule: str = LINEAR
    beside: tuple[tuple[int, ...], ...] = ()
    beside_weight: float = 0.0
    cut: tuple[int, ...] = ()
    taught: tuple[Taught | None, ...] = ()
    span: tuple[int, int] | None = None

    def __post_init__(self):
        if not self.lines or self.epochs < 1:
            raise ValueError(
                f"a job of {len(self.lines)} lines and {self.epochs} epochs trains "
                "nothing; give it at least one of each"
            )
        most = self.loss.pad_to if self.loss.mode == REFERENCE else None
        for i, ids in enumerate(self.lines):
            if not ids or (most is not None and len(ids) > most):
                raise ValueError(
                    f"training line {i} has {len(ids)} tokens; it must have at least 1 "
                    f"and, if inner.loss.mode={REFERENCE!r}, at most inner.loss.pad_to="
                    f"{self.loss.pad_to}"
                )
        if self.batch < 1:
            raise ValueError(f"batch={self.batch} lines a step must be at least 1")
        if self.warmup < 0:
            raise ValueError(f"warmup={self.warmup} steps must be at least 0")
        if self.schedule not in (LINEAR, COSINE):
            raise ValueError(
                f"schedule={self.schedule!r} must be {LINEAR!r} or {COSINE!r}"
            )
        if self.span and not 0 <= self.span[0] < self.span[1] <= self.epochs:
            raise ValueError(
                f"span={self.span} must be epochs first < last within 0..{self.epochs}"
            )
        self._check_given()
        self._check_beside()
        given = self.given or (1,) * len(self.lines)
        mode = self.loss.mode
        teachers.check(self.taught, self.lines, given, self.targets(), mode)

    def _check_given(self) -> None:
        if self.given and len(self.given) != len(self.lines):
            raise ValueError(
                f"given has {len(self.given)} numbers, there are {len(self.lines)} "
                "training lines; give one for each, or none"
            )
        for i, (ids, given) in enumerate(zip(self.lines, self.given, strict=False)):
            if not 1 <= given <= len(ids):
                raise ValueError(
                    f"given={given} of training line {i} must lie in 1..{len(ids)}, "
                    "the number of its tokens"
                )
        if self.loss.mode == REFERENCE and (self.batch > 1 or set(self.given) - {1}):
            raise ValueError(
                f"inner.loss.mode={REFERENCE!r} trains one line a step on all its "
                f"tokens, batch={self.batch} and given tokens are for {MASKED!r} and "
                f"{PADDED!r}"
            )

        for i in self.cut:
            given = self.given[i] if self.given else 1
            if not (0 <= i < len(self.lines) and len(self.lines[i]) > given):
                raise ValueError(
                    f"cut={self.cut} must be places of the {len(self.lines)} training "
                    f"lines with a target each, {i} is none; leave it out"
                )

    def _check_beside(self) -> None:
        texts, weight = len(self.beside), self.beside_weight
        if not (weight > 0 if texts else weight == 0):
            raise ValueError(
                f"beside_weight={weight} must be positive, with {texts} texts beside, "
                "if there are any, and else 0"
            )
        if not all(self.beside):
            empty = list(map(len, self.beside)).index(0)
            raise ValueError(f"text {empty} beside has no tokens; leave it out")
        if texts and self.loss.mode != MASKED:
            raise ValueError(
                f"inner.loss.mode={self.loss.mode!r} must be {MASKED!r} with texts "
                "beside; pads have no place there"
            )

    @property
    def trained_epochs(self) -> int:
        """Epochs that are trained now."""
        return self.epochs if self.span is None else self.span[1] - self.span[0]

    @property
    def total(self) -> int:
        """Optimizer steps that are taken now."""
        return self.trained_epochs * self._per_epoch

    @property
    def _per_epoch(self) -> int:
        return -(-len(self.lines) // self.batch)

    @property
    def steps(self) -> slice:
        """Those steps within the whole schedule."""
        first, last = self.span or (0, self.epochs)
        return slice(first * self._per_epoch, last * self._per_epoch)

    def batches(self) -> list[tuple[int, ...]]:
        """The lines of each step: all of them in each epoch, shuffled anew."""
        return self.whole_schedule()[self.steps]

    def whole_schedule(self) -> list[tuple[int, ...]]:
        """The lines of each step of all epochs, whichever are trained now."""
        rng = np.random.default_rng(self.seed)
        steps = []
        for _ in range(self.epochs):
            epoch = rng.permutation(len(self.lines)).tolist()
            steps += [
                tuple(epoch[i : i + self.batch])
                for i in range(0, len(epoch), self.batch)
            ]
        return steps

    def order(self) -> list[int]:
        """The lines in training order."""
        return [i for batch in self.batches() for i in batch]

    def beside_order(self) -> list[int]:
        """The text of `beside` that each step reads: in turn, shuffled anew; or []."""
        # Drawn apart from the lines' shuffle, which is the same with texts or without.
        rng, order = np.random.default_rng((*self.seed, 2)), []
        while self.beside and len(order) < self.steps.stop:
            order += rng.permutation(len(self.beside)).tolist()
        return order[self.steps]

    def rates(self) -> np.ndarray:
        """Learning rate of every step, float32, as the Hugging Face Trainer sets it."""
        total = self.epochs * self._per_epoch
        step = np.arange(total, dtype=np.float32)
        left = 1.0 - (step - self.warmup) / np.float32(max(1, total - self.warmup))
        if self.schedule == COSINE:
            # (1 + cos(pi (1 - left))) / 2, without its cancellation at the end.
            left = np.sin(np.float32(np.pi / 2) * left) ** 2
        climb = step / np.float32(max(1, self.warmup))
        factor = np.where(step < self.warmup, climb, left)
        return (np.float32(self.learning_rate) * factor)[self.steps]

    def positions(self) -> list[int]:
        """Positions each line takes, its pads included."""
        sizes, cut = list(map(len, self.lines)), frozenset(self.cut)
        longest = max(sizes)
        return [
            n if i in cut else n + self.loss.extra(n, longest)
            for i, n in enumerate(sizes)
        ]

    def targets(self) -> list[int]:
        """Targets of each line, those of all its pads included."""
        sizes, cut = list(map(len, self.lines)), frozenset(self.cut)
        given, longest = self.given or (1,) * len(sizes), max(sizes)
        return [
            (n if i in cut else self.loss.row(n, longest)) - g
            for i, (n, g) in enumerate(zip(sizes, given, strict=True))
        ]

    def learned(self) -> list[int]:
        """Targets of each line that carry loss: without those that `taught` skips."""
        skipped = [one.skip if one else 0 for one in self.taught]
        return [
            n - skip
            for n, skip in itertools.zip_longest(self.targets(), skipped, fillvalue=0)
        ]


class Placement(NamedTuple):
    """A step's place: job and slot, which of its steps, its lines' first tiles."""

    job: int
    slot: int
    step: int
    tiles: tuple[int, ...]


def needs(job: Job, cfg: PlanConfig) -> list[tuple[int, ...]]:
    """The tiles of each line of each of a job's steps, a text beside them last.

    Raises:
      ValueError: a line that does not fit a row, or a step's that do not fit together.
    """
    positions, steps = job.positions(), job.batches()
    if job.beside:
        pairs = zip(steps, job.beside_order(), strict=True)
        steps = [(*step, len(positions) + text) for step, text in pairs]
        positions += map(len, job.beside)
    if max(positions) > cfg.row_tokens:
        raise ValueError(
            f"a training line{' or a text beside it' if job.beside else ''} takes "
            f"{max(positions)} positions, inner.row_tokens="
            f"{cfg.row_tokens}; use {cfg.tiles(max(positions)) * cfg.tile} or more"
        )
    tiles = [cfg.tiles(count) for count in positions]
    step_tiles = [tuple(tiles[i] for i in step) for step in steps]
    per_row = cfg.row_tokens // cfg.tile
    rows = cfg.step_tokens // cfg.row_tokens
    for step, need in zip(steps, step_tiles, strict=True):
        # A row each always does.
        if len(need) > rows and fit(need, [per_row] * rows, per_row) is None:
            raise ValueError(
                f"lines of {[positions[i] for i in step]} positions, which one step "
                f"trains, do not fit inner.step_tokens={cfg.step_tokens} in rows of "
                f"inner.row_tokens={cfg.row_tokens}; use {len(need) * cfg.row_tokens}"
            )
    return step_tiles


def schedule(
    needs: Sequence[Sequence[tuple[int, ...]]], cfg: PlanConfig
) -> Iterator[list[Placement]]:
    """Lays out all jobs; yields the placements of each global step.

    Which jobs a slot trains is settled beforehand (`queues`), so that slots have about
    as many steps each. Of all slots, those with the most steps left place the lines of
    their next step (see `fitting.fit`), until nothing fits: so they end together, and
    the last steps are as full as others. Ties go to the earlier job, so the layout is a
    function of its arguments. No more than `active` adapters have a line in a chunk, or
    in a step without chunks.

    Where steps come in chunks or places are `by_slot`, some orders near that one are
    tried as well, and the fullest step is taken (`fitting.fullest`). Both are for
    accelerators, whose steps take longer than the search; on a CPU it would take its
    time from them.

    Args:
      needs: for each job, the tiles of each of its steps' lines, in order; at least one
        step, each of which fits an empty global step.
      cfg: sizes.
    """
    return (placed for placed, _ in steps(needs, cfg))


# Positions that short steps must spare a pool. Their program takes as long to compile
# as a step of the demo spares in some hundred of them, and a run has many pools.
LEAST_SPARED = 2**14


def steps(
    needs: Sequence[Sequence[tuple[int, ...]]],
    cfg: PlanConfig,
    short: PlanConfig | None = None,
) -> Iterator[tuple[list[Placement], PlanConfig]]:
    """As `schedule`, each step with its sizes: `cfg`, and in the end `short`, if given.

    Adapters of a pool that all begin at once end one after the other, and the last ones
    fill no step. As soon as no job waits for a slot and the next lines of all slots fit
    a short step, the rest are short, if that spares `LEAST_SPARED` positions. A plan
    that could begin with short steps stays as long as its program, which is there.
    """
    waiting = queues(list(map(len, needs)), cfg.slots)
    left = [sum(len(needs[j]) for j in own) for own in waiting]
    inside = [own.popleft() for own in waiting]
    at = [0] * len(inside)
    rng, began = np.random.default_rng(0), False
    while True:
        open_ = [slot for slot, steps in enumerate(left) if steps]
        if not open_:
            return
        open_.sort(key=lambda slot: (-left[slot], inside[slot]))
        need = {slot: needs[inside[slot]][at[slot]] for slot in open_}
        if short is not None and not any(waiting):
            spared = left[open_[0]] * (cfg.step_tokens - short.step_tokens)
            ahead = (needs[inside[slot]][at[slot] :] for slot in open_)
            fits = _fits_together(need.values(), short) and _fits_each(ahead, short)
            if fits and began and spared >= LEAST_SPARED:
                cfg = short
            if fits:
                short = None
        began = True
        if cfg.chunks > 1 or cfg.by_slot:
            taken = fullest(need, [left[slot] for slot in open_], cfg, rng)
        else:
            taken = fill(open_, need, cfg)
        placed = [
            Placement(inside[slot], slot, at[slot], first)
            for slot, first in taken.first.items()
        ]
        yield placed, cfg
        for slot in taken.first:
            left[slot] -= 1
            at[slot] += 1
            if at[slot] == len(needs[inside[slot]]) and waiting[slot]:
                inside[slot], at[slot] = waiting[slot].popleft(), 0


def _fits_together(need: Collection[tuple[int, ...]], cfg: PlanConfig) -> bool:
    """Whether a step has places and tiles for all of these."""
    tiles = cfg.step_tokens // cfg.tile
    return len(need) <= cfg.active and sum(map(sum, need)) <= tiles


def _fits_each(ahead: Iterable[Sequence[tuple[int, ...]]], cfg: PlanConfig) -> bool:
    """Whether an empty step takes each of the steps ahead of each slot."""
    per_row = cfg.row_tokens // cfg.tile
    empty = [per_row] * (cfg.step_tokens // cfg.row_tokens)
    several = {lines for own in ahead for lines in own if len(lines) > 1}
    return all(fit(lines, empty.copy(), per_row) is not None for lines in several)


def queues(steps: Sequence[int], slots: int) -> list[collections.deque[int]]:
    """The jobs that each slot trains, one after the other, balanced by steps.

    The longest first, each to the slot with the least so far. There are no more queues
    than jobs, and none is empty.

    Args:
      steps: of each job.
      slots: how many there are.
    """
    load = [(0, slot) for slot in range(min(slots, len(steps)))]
    own = [collections.deque[int]() for _ in load]
    for job in sorted(range(len(steps)), key=lambda j: -steps[j]):
        so_far, slot = heapq.heappop(load)
        own[slot].append(job)
        heapq.heappush(load, (so_far + steps[job], slot))
    return own


def share(jobs: Sequence[Job], shards: int, *, most: int) -> list[list[int]]:
    """Which jobs each of `shards` devices trains, at most `most`, balanced by tokens.

    The largest first, each to the device with the least so far.
    """
    work = [
        sum(job.positions()) * job.trained_epochs
        + sum(len(job.beside[text]) for text in job.beside_order())
        for job in jobs
    ]
    load, shares = [0] * shards, [[] for _ in range(shards)]
    for j in sorted(range(len(jobs)), key=lambda j: -work[j]):
        open_ = [d for d in range(shards) if len(shares[d]) < most]
        device = min(open_, key=lambda d: load[d])
        shares[device].append(j)
        load[device] += work[j]
    return [sorted(share) for share in shares]
