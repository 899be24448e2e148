"""Host only: which slot trains which line at which step. Numpy, deterministic.

Lines and step counts are known before training starts, so a whole batch of trainings is
laid out beforehand. An adapter trains one line per optimizer step, in its own shuffled
order, and lines differ in length by a factor of ten; adapters do not interact, so they
need not march in step. Each *global step* has a static budget of tokens, cut into tiles
that belong to one slot each, and is filled with the next lines of the adapters that
have the most steps left; the others wait. A slot whose adapter is finished takes the
longest one that waits, at once.

    jobs -> schedule (who, when, where: lengths only) -> blocks of arrays for the device
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

MASKED, REFERENCE = "masked", "reference"

# Global steps in one transfer to the device. The last block of a plan is filled up with
# steps that are not run, so this bounds only what the host holds.
BLOCK = 64


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Which tokens of a line carry loss.

    `masked`: the line's tokens and one end-of-text token, averaged.

    `reference`: what the reference trains (SEAL's TTT server): the line is padded to
    `pad_to` positions with end-of-text, every position is a target, and the sum is
    divided by `pad_to`. A pad attends to the line and to no other pad, so pads are
    independent of each other. Exact: the terms of the line, the first end-of-text, and
    with `pad_samples = -1` all other pads. Estimated: with `pad_samples = k >= 0`, the
    pads' sum is k of them, one drawn from each of k equal strata, weighted to the full
    count. With k > 0 that is unbiased; k = 0 leaves out the pads after the first.
    """

    mode: str
    pad_to: int
    pad_samples: int

    def __post_init__(self):
        if self.mode not in (MASKED, REFERENCE):
            raise ValueError(
                f"inner.loss.mode={self.mode!r} must be {MASKED!r} or {REFERENCE!r}"
            )
        if self.pad_to < 2:
            raise ValueError(
                f"inner.loss.pad_to={self.pad_to} must be at least 2, a token and its "
                "target"
            )
        if self.pad_samples < -1:
            raise ValueError(
                f"inner.loss.pad_samples={self.pad_samples} must be -1 (all pads) or "
                "the number of pads to sample"
            )

    def extra(self, tokens: int) -> int:
        """How many pad positions are computed beside a line of `tokens` tokens."""
        if self.mode == MASKED:
            return 0
        pads = max(0, self.pad_to - 1 - tokens)
        return pads if self.pad_samples < 0 else min(pads, self.pad_samples)

    def longest(self, width: int) -> int:
        """Tokens of the longest line that fits `width` positions with its pads.

        Raises:
          ValueError: not even a line of one token does.
        """
        longest = width if self.mode == MASKED else self.pad_to
        for tokens in range(min(longest, width), 0, -1):
            if tokens + self.extra(tokens) <= width:
                return tokens
        raise ValueError(
            f"inner.row_tokens={width} holds no line beside its {self.extra(1)} pads; "
            f"use {self.pad_to}"
        )


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """How lines are laid into global steps.

    A step has `step_tokens` positions in rows of `row_tokens`, within which attention
    works; a line lies in one row. A `tile` of positions belongs to one adapter. `slots`
    adapters are in training at a time; at most `active` of them step at once.
    """

    tile: int
    row_tokens: int
    step_tokens: int
    slots: int
    active: int

    def __post_init__(self):
        for name in ("tile", "row_tokens", "step_tokens", "slots", "active"):
            if getattr(self, name) < 1:
                raise ValueError(f"inner.{name}={getattr(self, name)} must be positive")
        _multiple("row_tokens", self.row_tokens, "tile", self.tile)
        _multiple("step_tokens", self.step_tokens, "row_tokens", self.row_tokens)

    def tiles(self, positions: int) -> int:
        """Tiles that a line of so many positions takes."""
        return -(-positions // self.tile)


def _multiple(name: str, value: int, unit: str, size: int) -> None:
    if value % size:
        raise ValueError(
            f"inner.{name}={value} must be a multiple of inner.{unit}={size}; use "
            f"{-(-value // size) * size}"
        )


@dataclasses.dataclass(frozen=True)
class Job:
    """One adapter to train.

    `lines` are token ids; `seed` is that of the shuffles; the learning rate falls
    linearly to zero over the adapter's own steps; `clip` bounds the gradient's norm.
    """

    lines: tuple[tuple[int, ...], ...]
    seed: tuple[int, ...]
    epochs: int
    learning_rate: float
    clip: float
    loss: LossConfig

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

    @property
    def total(self) -> int:
        """Optimizer steps."""
        return len(self.lines) * self.epochs

    def order(self) -> list[int]:
        """The lines in training order: all of them in each epoch, shuffled anew."""
        rng = np.random.default_rng(self.seed)
        count = len(self.lines)
        return [int(i) for _ in range(self.epochs) for i in rng.permutation(count)]

    def rates(self) -> np.ndarray:
        """Learning rate of every step, float32: linear decay without warm-up."""
        left = 1.0 - np.arange(self.total, dtype=np.float32) / np.float32(self.total)
        return np.float32(self.learning_rate) * left

    def positions(self) -> list[int]:
        """Positions each line takes, its pads included."""
        return [len(ids) + self.loss.extra(len(ids)) for ids in self.lines]

    def rows(self, *, eos: int, multiple: int) -> Iterator[dict[str, np.ndarray]]:
        """What each step trains, as `make_row` lays it, at a width that just fits."""
        # Drawn apart from the shuffle, so that both are independent of scheduling.
        rng = np.random.default_rng((*self.seed, 1))
        made: dict[int, dict[str, np.ndarray]] = {}
        for i in self.order():
            ids = self.lines[i]
            extra = self.loss.extra(len(ids))
            if extra or i not in made:
                width = -(-(len(ids) + extra) // multiple) * multiple
                made[i] = make_row(ids, self.loss, width=width, eos=eos, rng=rng)
            yield made[i]


def make_row(
    ids: Sequence[int],
    loss: LossConfig,
    *,
    width: int,
    eos: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Arrays `[T]` for one training line: the line's tokens, then pads that query.

    Args:
      ids: the line's token ids, without end-of-text; at most `loss.pad_to` of them.
      loss: which tokens carry loss.
      width: T, at least `len(ids) + loss.extra(len(ids))`.
      eos: end-of-text id; the target of the last token, and the pads' input and target.
      rng: draws the sampled pads.
    """
    n, extra = len(ids), loss.extra(len(ids))
    row = {
        "tokens": np.full(width, eos, np.int32),
        "targets": np.full(width, eos, np.int32),
        "positions": np.zeros(width, np.int32),
        "weights": np.zeros(width, np.float32),
        "is_key": np.zeros(width, bool),
    }
    row["tokens"][:n] = ids
    row["targets"][: n - 1] = ids[1:]
    row["positions"][:n] = np.arange(n)
    row["is_key"][:n] = True
    if loss.mode == MASKED:
        row["weights"][:n] = 1.0 / n
        return row
    # A line that fills pad_to has no pad after it: its last token has no target.
    row["weights"][: min(n, loss.pad_to - 1)] = 1.0 / loss.pad_to
    pads = max(0, loss.pad_to - 1 - n)
    if extra:
        edges = n + np.arange(extra + 1) * pads // extra
        span = slice(n, n + extra)
        row["positions"][span] = rng.integers(edges[:-1], edges[1:])
        row["weights"][span] = np.diff(edges) / loss.pad_to
    return row


class Placement(NamedTuple):
    """A line's place: job and slot, which of the job's steps, its first tile."""

    job: int
    slot: int
    index: int
    tile: int


def schedule(
    needs: Sequence[Sequence[int]], cfg: PlanConfig
) -> Iterator[list[Placement]]:
    """Lays out all jobs; yields the placements of each global step.

    Longest first: of the adapters in slots, those with the most steps left place their
    next line, each in the fullest row that still takes it, until nothing fits. Ties go
    to the earlier job, so the layout is a function of its arguments.

    Args:
      needs: for each job, the tiles of each of its steps in order; at least one step,
        none wider than a row.
      cfg: sizes.
    """
    per_row = cfg.row_tokens // cfg.tile
    rows = cfg.step_tokens // cfg.row_tokens
    waiting = sorted(range(len(needs)), key=lambda j: -len(needs[j]))[::-1]
    free = list(range(cfg.slots))[::-1]
    slot_of: dict[int, int] = {}
    at = [0] * len(needs)
    while waiting or slot_of:
        while waiting and free:
            slot_of[waiting.pop()] = free.pop()
        room, placed = [per_row] * rows, []
        for job in sorted(slot_of, key=lambda j: (at[j] - len(needs[j]), j)):
            need = needs[job][at[job]]
            fitting = [r for r in range(rows) if room[r] >= need]
            if not fitting:
                continue
            row = min(fitting, key=lambda r: room[r])
            first = row * per_row + per_row - room[row]
            room[row] -= need
            placed.append(Placement(job, slot_of[job], at[job], first))
            if len(placed) == cfg.active:
                break
        for place in placed:
            at[place.job] += 1
            if at[place.job] == len(needs[place.job]):
                free.append(slot_of.pop(place.job))
        yield placed


def share(jobs: Sequence[Job], shards: int, *, most: int) -> list[list[int]]:
    """Which jobs each of `shards` devices trains, at most `most`, balanced by tokens.

    The largest first, each to the device with the least so far.
    """
    work = [sum(job.positions()) * job.epochs for job in jobs]
    load, shares = [0] * shards, [[] for _ in range(shards)]
    for j in sorted(range(len(jobs)), key=lambda j: -work[j]):
        open_ = [d for d in range(shards) if len(shares[d]) < most]
        device = min(open_, key=lambda d: load[d])
        shares[device].append(j)
        load[device] += work[j]
    return [sorted(share) for share in shares]


class Steps(NamedTuple):
    """Global steps as the device reads them; every leaf has a leading axis of steps.

    The leaves are numpy arrays here and jax arrays there.

    Positions `[M]`: `segments` tells the lines of a step apart (-1: none). Tiles `[G]`:
    index into the active adapters (K: none). Active adapters `[K]`: slot (S or more:
    none; no slot occurs twice), learning rate, clip. `starts` and `ends`, `[K, 2]`: the
    first `start_count` (`end_count`) are the (slot, job) pairs of adapters that take
    their first (last) step here.
    """

    tokens: Any
    targets: Any
    positions: Any
    weights: Any
    segments: Any
    is_key: Any
    tiles: Any
    slots: Any
    rates: Any
    clips: Any
    starts: Any
    start_count: Any
    ends: Any
    end_count: Any


def empty_steps(cfg: PlanConfig, *, eos: int, count: int = BLOCK) -> Steps:
    """Steps in which nobody trains anything."""
    m, g, k = cfg.step_tokens, cfg.step_tokens // cfg.tile, cfg.active

    def full(width: tuple[int, ...], value: float, dtype: type = np.int32):
        return np.full((count, *width), value, dtype)

    return Steps(
        tokens=full((m,), eos),
        targets=full((m,), eos),
        positions=full((m,), 0),
        weights=full((m,), 0, np.float32),
        segments=full((m,), -1),
        is_key=full((m,), False, np.bool_),
        tiles=full((g,), k),
        slots=cfg.slots + full((k,), 0) + np.arange(k, dtype=np.int32),
        rates=full((k,), 0, np.float32),
        clips=full((k,), 1, np.float32),
        starts=full((k, 2), 0),
        start_count=full((), 0),
        ends=full((k, 2), 0),
        end_count=full((), 0),
    )


class Block(NamedTuple):
    """`count` steps for the device, and what they hold.

    `lines` optimizer steps are taken in them and `tokens` positions carry loss.
    """

    steps: Steps
    count: int
    lines: int
    tokens: int


def blocks(jobs: Sequence[Job], cfg: PlanConfig, *, eos: int) -> Iterator[Block]:
    """The whole training of all jobs, `BLOCK` global steps at a time.

    Raises:
      ValueError: a line that does not fit a row.
    """
    needs, rows, rates = [], [], []
    for job in jobs:
        positions = job.positions()
        if max(positions) > cfg.row_tokens:
            raise ValueError(
                f"a training line takes {max(positions)} positions, inner.row_tokens="
                f"{cfg.row_tokens}; use {cfg.tiles(max(positions)) * cfg.tile} or more"
            )
        needs.append([cfg.tiles(positions[i]) for i in job.order()])
        rows.append(job.rows(eos=eos, multiple=cfg.tile))
        rates.append(job.rates())
    steps, i, lines, tokens = empty_steps(cfg, eos=eos), 0, 0, 0
    for placed in schedule(needs, cfg):
        for k, place in enumerate(placed):
            row = next(rows[place.job])
            tokens += _put(steps, i, k, place, row, cfg)
            steps.slots[i, k] = place.slot
            steps.rates[i, k] = rates[place.job][place.index]
            steps.clips[i, k] = jobs[place.job].clip
            if place.index == 0:
                steps.starts[i, steps.start_count[i]] = place.slot, place.job
                steps.start_count[i] += 1
            if place.index == len(needs[place.job]) - 1:
                steps.ends[i, steps.end_count[i]] = place.slot, place.job
                steps.end_count[i] += 1
        lines += len(placed)
        i += 1
        if i == BLOCK:
            yield Block(steps, i, lines, tokens)
            steps, i, lines, tokens = empty_steps(cfg, eos=eos), 0, 0, 0
    if i:
        yield Block(steps, i, lines, tokens)


def _put(
    steps: Steps, i: int, k: int, place: Placement, row: dict, cfg: PlanConfig
) -> int:
    """Writes a line into step i as segment k; returns its positions with loss."""
    width = len(row["tokens"])
    span = slice(place.tile * cfg.tile, place.tile * cfg.tile + width)
    for name, leaf in row.items():
        getattr(steps, name)[i, span] = leaf
    steps.segments[i, span] = k
    steps.tiles[i, place.tile : place.tile + width // cfg.tile] = k
    return int(np.count_nonzero(row["weights"]))
