"""Host only: which adapter trains which line at which step. Numpy, deterministic.

Training many adapters together is a packing problem: an adapter trains one line per
optimizer step, in its own shuffled order, and lines differ in length by a factor of
ten. Adapters do not interact, so they need not march in step: each *global step* has
one width, taken from `length_classes`, and advances the adapters whose next line fits
it, those with the most steps left first. The others wait. Every adapter still sees its
own lines, one at a time, in its own order.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

MASKED, REFERENCE = "masked", "reference"


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


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """How adapters' lines are laid into steps."""

    epochs: int
    loss: LossConfig
    length_classes: tuple[int, ...]
    step_tokens: int

    def rows(self, width: int, slots: int) -> int:
        """Adapters advanced by one global step of the given width."""
        return max(1, min(slots, self.step_tokens // width))

    def longest_line(self) -> int:
        """Tokens of the longest line that fits the widest class with its pads.

        Raises:
          ValueError: not even a line of one token does.
        """
        widest = self.length_classes[-1]
        longest = widest if self.loss.mode == MASKED else self.loss.pad_to
        for tokens in range(min(longest, widest), 0, -1):
            if tokens + self.loss.extra(tokens) <= widest:
                return tokens
        raise ValueError(
            f"inner.length_classes={self.length_classes} hold no line beside its "
            f"{self.loss.extra(1)} pads; add a class of {self.loss.pad_to}"
        )


@dataclasses.dataclass(frozen=True)
class Job:
    """One adapter to train: its lines as token ids, and the seed of its shuffles."""

    lines: tuple[tuple[int, ...], ...]
    seed: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """One global step: `slots[i]` trains `rows[...][i]`; a slot past the end is empty.

    `rows` holds `[A, T]` arrays: tokens, targets, positions, weights (float32), is_key.
    """

    slots: np.ndarray
    rows: dict[str, np.ndarray]


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


def orders(job: Job, epochs: int) -> list[int]:
    """The lines a job trains, in order: all of them in each epoch, shuffled anew."""
    rng = np.random.default_rng(job.seed)
    count = len(job.lines)
    return [int(i) for _ in range(epochs) for i in rng.permutation(count)]


def classify(length: int, classes: tuple[int, ...]) -> int:
    """The narrowest class a row of `length` positions fits.

    Raises:
      ValueError: it fits none.
    """
    for width in classes:
        if length <= width:
            return width
    raise ValueError(
        f"a training line takes {length} positions, inner.length_classes={classes} "
        f"end at {classes[-1]}; add a class of at least {length}"
    )


def steps(
    jobs: Sequence[Job], cfg: PlanConfig, *, slots: int, eos: int
) -> Iterator[Step]:
    """Lays out the training of all jobs, job i in slot i.

    At each global step the class is chosen that fills the largest share of its rows;
    ties go to the narrower class.

    Raises:
      ValueError: more jobs than slots, or a line that fits no length class.
    """
    if len(jobs) > slots:
        raise ValueError(f"{len(jobs)} jobs need as many slots, there are {slots}")
    widths, todo, pads = [], [], []
    for job in jobs:
        lengths = [len(ids) + cfg.loss.extra(len(ids)) for ids in job.lines]
        widths.append([classify(n, cfg.length_classes) for n in lengths])
        todo.append(orders(job, cfg.epochs)[::-1])
        # Drawn apart from the shuffle, so that both are independent of scheduling.
        pads.append(np.random.default_rng((*job.seed, 1)))
    left = np.array([len(order) for order in todo])
    next_width = np.array([widths[j][order[-1]] for j, order in enumerate(todo)])
    while left.any():
        width = _fullest(next_width, left, cfg, slots)
        ready = np.flatnonzero((next_width == width) & (left > 0))
        count = cfg.rows(width, slots)
        # Longest first; stable, so that ties go to the lower slot.
        chosen = ready[np.argsort(-left[ready], kind="stable")][:count]
        rows = []
        for j in chosen:
            ids = jobs[j].lines[todo[j].pop()]
            rows.append(make_row(ids, cfg.loss, width=width, eos=eos, rng=pads[j]))
            left[j] -= 1
            if left[j]:
                next_width[j] = widths[j][todo[j][-1]]
        yield _fill(chosen, rows, count=count, empty=slots)


def _fullest(
    next_width: np.ndarray, left: np.ndarray, cfg: PlanConfig, slots: int
) -> int:
    active = next_width[left > 0]
    waiting = {w: int((active == w).sum()) for w in cfg.length_classes}
    return max(
        (w for w in cfg.length_classes if waiting[w]),
        key=lambda w: (min(waiting[w] / cfg.rows(w, slots), 1.0), -w),
    )


def _fill(chosen: np.ndarray, rows: list[dict], *, count: int, empty: int) -> Step:
    """Stacks rows and pads them to `count` with copies that belong to no slot."""
    missing = count - len(rows)
    index = np.concatenate([chosen, np.full(missing, empty)]).astype(np.int32)
    rows = rows + [rows[-1]] * missing
    return Step(index, {name: np.stack([r[name] for r in rows]) for name in rows[0]})
