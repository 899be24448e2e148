"""The plan as the device reads it: arrays of global steps, a block at a time.

Host only, numpy. `plan.schedule` says who trains when and where; here the tokens are
written to their places.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from seal_jax.training import plan
from seal_jax.training.plan import Job, PlanConfig
from seal_jax.training.settings import REFERENCE
from seal_jax.training.taught import Taught

# Global steps in one transfer to the device. The last block of a plan is filled up with
# steps that are not run, so this bounds only what the host holds.
BLOCK = 64


def rows(
    job: Job, *, eos: int, multiple: int, shelved: Sequence[int] = ()
) -> Iterator[list[dict[str, np.ndarray]]]:
    """What each of a job's steps trains: a row for each line, as wide as it needs.

    As `make_row` lays it, but `weights` are those of the step's loss, and the pads lie
    where they were drawn for this step. If the job has texts beside its lines, each row
    also has `anchors`, the weights of its tokens' divergence from the base, and the
    step's text follows its lines, a row that weighs nothing but that.

    If the job's lines have teachers, each row has `distill`, the weights of the
    divergence from the teacher, and `teacher`, the row of the teachers' bank that
    predicts the position's target (0, where there is none). Both kinds of targets share
    the mean. `shelved` says where in the bank each line's begin (`teacher.Shelves`);
    empty: one line's behind the other's, from row 1 on.
    """
    batches, targets, positions = job.batches(), job.targets(), job.positions()
    given, learned = job.given or (1,) * len(job.lines), job.learned()
    shelved = shelved or own_shelves(job)
    sampled = _sampled_pads(job)
    # By line and divisor. A step takes them as they are, and is not to write to them.
    laid: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    beside = job.beside_order()
    for index, batch in enumerate(batches):
        divisor = sum(learned[i] for i in batch)
        if job.loss.mode == REFERENCE:
            divisor = job.loss.pad_to
        step = []
        for i in batch:
            n = len(job.lines[i])
            pads = positions[i] - n
            if (i, divisor) not in laid:
                row = make_row(
                    job.lines[i],
                    given=given[i],
                    row=targets[i] + given[i],
                    pads=pads,
                    width=-(-positions[i] // multiple) * multiple,
                    eos=eos,
                )
                row["weights"] /= np.float32(divisor)
                if beside:
                    row["anchors"] = np.zeros_like(row["weights"])
                if job.taught:
                    row |= _taught(job.taught[i], row["weights"], given[i], shelved[i])
                laid[i, divisor] = row
            row = laid[i, divisor]
            if pads:
                row = row | {"positions": row["positions"].copy()}
                row["positions"][n : n + pads] = next(sampled)
            step.append(row)
        if beside:
            step.append(_beside_row(job, beside[index], eos=eos, multiple=multiple))
        yield step


def own_shelves(job: Job) -> list[int]:
    """Where each line's rows begin in a bank of this job's teachers alone, in order."""
    counts = [one.targets if one else 0 for one in job.taught]
    return [1 + sum(counts[:i]) for i in range(len(counts))]


def _taught(
    taught: Taught | None, weights: np.ndarray, given: int, first: int
) -> dict[str, np.ndarray]:
    """Weights of a row, `[T]`, those of targets that a teacher predicts moved to it.

    Args:
      taught: the line's teacher, or None.
      weights: of the row without one.
      given: leading tokens of the line that are no targets.
      first: the bank's row for the first of the teacher's targets.
    """
    weights, distill = weights.copy(), np.zeros_like(weights)
    teacher = np.zeros(len(weights), np.int32)
    if taught is not None:
        # The position before the tail predicts its first token, on both sides.
        begin, skip, count = given - 1, taught.skip, taught.count
        own = slice(begin + skip, begin + count)
        distill[own] = weights[own]
        teacher[own] = first + np.arange(count - skip)
        weights[begin : begin + count] = 0
    return {"weights": weights, "distill": distill, "teacher": teacher}


def _sampled_pads(job: Job) -> Iterator[np.ndarray]:
    """Where the pads of each line that has some lie, in the order of training.

    All are drawn at once: that gives the numbers that a draw for each line gives.
    """
    targets, positions = job.targets(), job.positions()
    edges = {}
    for i, ids in enumerate(job.lines):
        if pads := positions[i] - len(ids):
            row = targets[i] + (job.given[i] if job.given else 1)
            edges[i] = strata(len(ids), row, pads)
    whole = job.whole_schedule()
    order = [i for batch in whole for i in batch if i in edges]
    if not order:
        return iter(())
    # Drawn apart from the shuffle, so that both are independent of scheduling.
    drawn = np.random.default_rng((*job.seed, 1)).integers(
        np.concatenate([edges[i][:-1] for i in order]),
        np.concatenate([edges[i][1:] for i in order]),
    )
    ends = np.cumsum([len(edges[i]) - 1 for i in order])
    before = sum(i in edges for batch in whole[: job.steps.start] for i in batch)
    return iter(np.split(drawn, ends[:-1])[before:])


def _beside_row(job: Job, text: int, *, eos: int, multiple: int) -> dict:
    ids = job.beside[text]
    n = len(ids)
    width = -(-n // multiple) * multiple
    laid = make_row(ids, given=1, row=n + 1, pads=0, width=width, eos=eos)
    anchors = laid["weights"] * np.float32(job.beside_weight / n)
    row = laid | {"weights": np.zeros_like(anchors), "anchors": anchors}
    if job.taught:
        nowhere = np.zeros(width, np.int32)
        row |= {"distill": np.zeros_like(anchors), "teacher": nowhere}
    return row


def make_row(
    ids: Sequence[int], *, given: int, row: int, pads: int, width: int, eos: int
) -> dict[str, np.ndarray]:
    """Arrays `[T]` for one training line: the line's tokens, then pads that query.

    `weights` are the targets that a position stands for; a pad lies at the first of its
    positions (`strata`).

    Args:
      ids: the line's token ids, without end-of-text.
      given: how many of them are no targets, at least 1.
      row: tokens of the whole row, of which a line that fills it has no end-of-text.
      pads: how many positions behind the line stand for all that the row has there.
      width: T, at least `len(ids) + pads`.
      eos: end-of-text id; the target of the last token, and the pads' input and target.
    """
    n, edges = len(ids), strata(len(ids), row, pads)
    tokens = np.full(width + 1, eos, np.int32)
    tokens[:n] = ids
    laid = {
        "tokens": tokens[:-1],
        "targets": tokens[1:],
        "positions": np.zeros(width, np.int32),
        "weights": np.zeros(width, np.float32),
        "is_key": np.arange(width) < n,
    }
    laid["positions"][:n] = np.arange(n)
    laid["positions"][n : n + pads] = edges[:-1]
    laid["weights"][given - 1 : min(n, row - 1)] = 1
    laid["weights"][n : n + pads] = np.diff(edges)
    return laid


def strata(n: int, row: int, pads: int) -> np.ndarray:
    """The bounds between what `pads` pads stand for, of a row's behind n tokens."""
    # The row's last token predicts nothing.
    return n + np.arange(pads + 1) * (row - 1 - n) // max(pads, 1)


class Steps(NamedTuple):
    """Global steps as the device reads them; every leaf has a leading axis of steps.

    The leaves are numpy arrays here and jax arrays there.

    Positions `[M]`: `segments` tells the lines of a global step apart (-1: none). Tiles
    `[G]`: the place of the adapter (K: none). Places `[K]`, those of one chunk after
    those of another: the adapter's slot (S or more: none), learning rate, clip. A slot
    has a place in each chunk that it has a line in (`Extras.folds`), or, `by_slot`,
    that of its number. `starts` and `ends`, `[K, 2]`: the first `start_count`
    (`end_count`) are the (slot, job) pairs of adapters that take their first (last)
    step here.
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
    m, g, k = cfg.step_tokens, cfg.step_tokens // cfg.tile, cfg.places

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


class Extras(NamedTuple):
    """What `Steps` holds besides where an inner loop asks for it, else None.

    Positions `[M]`: `anchors`, float32, weigh the divergence from the base; `distill`,
    float32, that from a teacher, whose row of the bank is `teacher`, int32. Places
    `[K]`: `frozen`, int32, is the adapter's row of the stacks it trains on. `folds`,
    `[K, 2]`, where there are several chunks: the first `fold_count` are the (first,
    other) places of slots that have several.
    """

    anchors: Any = None
    frozen: Any = None
    folds: Any = None
    fold_count: Any = None
    teacher: Any = None
    distill: Any = None


# Of `Extras`, what `rows` gives of each position.
OF_POSITIONS = ("anchors", "teacher", "distill")


def empty_extras(
    cfg: PlanConfig,
    *,
    anchored: bool,
    frozen: bool,
    taught: bool = False,
    count: int = BLOCK,
) -> Extras:
    """Those of steps in which nobody trains anything."""
    several, positions = cfg.chunks > 1, (count, cfg.step_tokens)
    return Extras(
        np.zeros(positions, np.float32) if anchored else None,
        np.zeros((count, cfg.places), np.int32) if frozen else None,
        # What is not counted is past the places.
        np.full((count, cfg.places, 2), cfg.places, np.int32) if several else None,
        np.zeros(count, np.int32) if several else None,
        np.zeros(positions, np.int32) if taught else None,
        np.zeros(positions, np.float32) if taught else None,
    )


class Block(NamedTuple):
    """`length` steps for the device, and what they hold.

    `updates` optimizer steps are taken in them. `tokens` positions are needed for that:
    those that carry loss, of whatever kind, and those of their lines before them.
    """

    steps: Steps
    length: int
    updates: int
    tokens: int
    extras: Extras = Extras()

    @property
    def step_tokens(self) -> int:
        """Positions of a step."""
        return self.steps.tokens.shape[1]


def count_blocks(jobs: Sequence[Job], cfg: PlanConfig) -> int:
    """How many `blocks` there will be, by lengths alone: a sixth of the work."""
    needs = [plan.needs(job, cfg) for job in jobs]
    return -(-sum(1 for _ in plan.schedule(needs, cfg)) // BLOCK)


def blocks(
    jobs: Sequence[Job],
    cfg: PlanConfig,
    *,
    eos: int,
    frozen_of: Sequence[int] | None = None,
    anchored: bool = False,
    shelved: Sequence[Sequence[int]] | None = None,
    short: PlanConfig | None = None,
) -> Iterator[Block]:
    """The whole training of all jobs, `BLOCK` global steps at a time.

    Args:
      jobs: one per adapter.
      cfg: sizes.
      eos: end-of-text id.
      frozen_of: the row of the frozen stacks that each job trains on, or None.
      anchored: whether the device has a use for `anchors`.
      shelved: where in the bank the teachers of each job's lines begin, as `rows`
        takes it; None: the device has no bank.
      short: sizes of the last steps, if those may be shorter (`plan.steps`); their
        blocks are the last.

    Raises:
      ValueError: lines that do not fit, see `plan.needs`; texts beside them if not
        `anchored`; teachers without a bank.
    """
    if not anchored and any(job.beside for job in jobs):
        raise ValueError(
            "jobs with texts beside their lines need an inner loop with "
            "divergence=True; make it with that, or leave the texts out"
        )
    if shelved is None and any(any(job.taught) for job in jobs):
        raise ValueError(
            "jobs with taught lines need an inner loop with teach, a kind of "
            "divergence, and a bank; make it with those, or leave taught out"
        )

    def empty(cfg: PlanConfig) -> tuple[Steps, Extras]:
        extras = empty_extras(
            cfg,
            anchored=anchored,
            frozen=frozen_of is not None,
            taught=shelved is not None,
        )
        return empty_steps(cfg, eos=eos), extras

    needs = [plan.needs(job, cfg) for job in jobs]
    rates = [job.rates() for job in jobs]
    shelves = shelved or [()] * len(jobs)
    laid = {
        j: rows(job, eos=eos, multiple=cfg.tile, shelved=shelves[j])
        for j, job in enumerate(jobs)
    }
    (steps, extras), i, updates, tokens = empty(cfg), 0, 0, 0
    for placed, sizes in plan.steps(needs, cfg, short):
        if sizes is not cfg:
            if i:
                yield Block(steps, i, updates, tokens, extras)
            cfg = sizes
            (steps, extras), i, updates, tokens = empty(cfg), 0, 0, 0
        segment, taken = 0, [0] * cfg.chunks
        for place in placed:
            places: dict[int, int] = {}  # of its chunks
            for tile, row in zip(place.tiles, next(laid[place.job]), strict=True):
                width = len(row["tokens"]) // cfg.tile
                if cfg.by_slot:
                    places[0] = place.slot
                _assign(steps.tiles[i, tile : tile + width], tile, places, taken, cfg)
                tokens += _put((steps, extras), i, segment, tile, row, cfg)
                segment += 1
            at = list(places.values())
            steps.slots[i, at] = place.slot
            steps.rates[i, at] = rates[place.job][place.step]
            steps.clips[i, at] = jobs[place.job].clip
            if frozen_of is not None:
                extras.frozen[i, at] = frozen_of[place.job]
            for other in at[1:]:
                extras.folds[i, extras.fold_count[i]] = at[0], other
                extras.fold_count[i] += 1
            if place.step == 0:
                steps.starts[i, steps.start_count[i]] = place.slot, place.job
                steps.start_count[i] += 1
            if place.step == len(needs[place.job]) - 1:
                steps.ends[i, steps.end_count[i]] = place.slot, place.job
                steps.end_count[i] += 1
                # The rows that it keeps are not needed any more.
                del laid[place.job]
        updates += len(placed)
        i += 1
        if i == BLOCK:
            yield Block(steps, i, updates, tokens, extras)
            (steps, extras), i, updates, tokens = empty(cfg), 0, 0, 0
    if i:
        yield Block(steps, i, updates, tokens, extras)


def _assign(
    tiles: np.ndarray,
    first: int,
    places: dict[int, int],
    taken: list[int],
    cfg: PlanConfig,
) -> None:
    """Writes an adapter's places to the tiles of a line that begins at tile `first`.

    Args:
      tiles: the line's, of `Steps.tiles`.
      first: the line's first tile.
      places: the adapter's place in each of its chunks; grows.
      taken: how many places of each chunk are taken; grows.
      cfg: sizes.
    """
    per_chunk, at = cfg.step_tokens // cfg.chunks // cfg.tile, 0
    while at < len(tiles):
        chunk, inside = divmod(first + at, per_chunk)
        if chunk not in places:
            places[chunk] = chunk * cfg.active + taken[chunk]
            taken[chunk] += 1
        end = at + per_chunk - inside
        tiles[at:end] = places[chunk]
        at = end


def _put(
    arrays: tuple[Steps, Extras],
    i: int,
    segment: int,
    tile: int,
    row: dict,
    cfg: PlanConfig,
) -> int:
    """Writes a line into step i; returns its positions' number."""
    steps, extras = arrays
    width = len(row["tokens"])
    span = slice(tile * cfg.tile, tile * cfg.tile + width)
    for name, leaf in row.items():
        if name not in OF_POSITIONS:
            getattr(steps, name)[i, span] = leaf
        elif (of_step := getattr(extras, name)) is not None:
            of_step[i, span] = leaf
    steps.segments[i, span] = segment
    carries = row["weights"]
    for name in ("anchors", "distill"):
        carries = carries + row[name] if name in row else carries
    return int(carries.nonzero()[0][-1]) + 1
