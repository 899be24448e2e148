"""What a continual run remembers: its accuracy matrix, and what follows from it.

A sequence teaches one model n passages, one after another, and after each asks for all
passages so far (the forgetting experiment of arXiv 2506.10943).

Standard errors. A cell has one over sequences, its deviation / sqrt(sequences). A mean
of several cells has not: they come from the same sequences and move together, and the
deviations do not say how much. Such a mean gets its standard error over the runs, with
the runs' own means as its sample (`estimates`). Few runs make it rough; a run for each
sequence makes it the error over sequences.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence

# Sums of the same shares in another order differ in their last bits.
_ROUNDING = 1e-12

type Cells = tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """The (n + 1) x n accuracies of a continual run over n passages.

    Attributes:
      means: means[0][p] is the un-edited model's share of right answers on passage p,
        0..1; means[t][p] the model's after t passages, for the p < t it has learned. So
        row 0 holds n numbers and row t holds t.
      sequences: how many sequences each cell is the mean of.
      deviations: of each cell over its sequences, n - 1 below the line; None where not
        known, and for a single sequence.
      dataset, base_model: where the passages and the un-edited model come from.

    Raises:
      ValueError: at creation, rows of the wrong length, or a number out of range.
    """

    means: Cells
    sequences: int = 1
    deviations: Cells | None = None
    dataset: str = ""
    base_model: str = ""

    def __post_init__(self):
        if self.sequences < 1:
            raise ValueError(f"sequences={self.sequences} must be at least 1")
        if self.deviations is not None and self.sequences == 1:
            raise ValueError(
                "deviations of 1 sequence are not defined; give None for them"
            )
        _check(self.means, "means")
        if self.deviations is not None:
            _check(self.deviations, "deviations")
            if len(self.deviations) != len(self.means):
                raise ValueError(
                    f"deviations have {len(self.deviations)} rows and means "
                    f"{len(self.means)}: must be of the same passages"
                )

    @property
    def passages(self) -> int:
        """n."""
        return len(self.means) - 1


def _check(cells: Cells, name: str) -> None:
    n = len(cells) - 1
    if n < 1:
        raise ValueError(
            f"{name} have {n + 1} rows: must be one for the un-edited model and one "
            "for each passage"
        )
    for t, row in enumerate(cells):
        if len(row) != (t or n):
            raise ValueError(
                f"{name}, row {t}: has {len(row)} cells and must have {t or n}, the "
                f"passages {'asked about' if t == 0 else 'learned by then'}"
            )
        for p, value in enumerate(row, start=1):
            if not 0.0 <= value <= 1.0:  # nan too
                raise ValueError(
                    f"{name}, row {t}, passage {p}: {value} must be in 0..1"
                )


# Averages over runs


def pool(runs: Sequence[Matrix]) -> Matrix:
    """All sequences of `runs` as one matrix: mean and deviation of each cell.

    The deviation is that of all sequences together, so what sets the runs apart is in
    it. The reference's overall_results.json states the plain mean of the runs'
    deviations instead; the two differ by up to 11 % in the released files.

    Raises:
      ValueError: no runs, or they differ in passages, dataset or base model.
    """
    if not runs:
        raise ValueError("runs=[] must hold at least one run; give one")
    first = runs[0]
    for run in runs:
        for name in ("passages", "dataset", "base_model"):
            here, there = getattr(run, name), getattr(first, name)
            if here != there:
                raise ValueError(
                    f"{name} {here!r} and {there!r}: runs to average must share it; "
                    "give each kind a folder of its own"
                )
    weights = [run.sequences for run in runs]
    total = sum(weights)
    means = tuple(
        tuple(
            min(
                1.0,
                math.fsum(w * x for w, x in zip(weights, cell, strict=True)) / total,
            )
            for cell in zip(*rows, strict=True)
        )
        for rows in zip(*(run.means for run in runs), strict=True)
    )
    has_deviations = all(run.deviations or run.sequences == 1 for run in runs)
    return Matrix(
        means,
        total,
        _pooled_deviations(runs, means) if has_deviations and total > 1 else None,
        first.dataset,
        first.base_model,
    )


def _pooled_deviations(runs: Sequence[Matrix], means: Cells) -> Cells:
    total = sum(run.sequences for run in runs)

    def cell(t: int, p: int) -> float:
        within = math.fsum(
            (run.sequences - 1) * run.deviations[t][p] ** 2
            for run in runs
            if run.deviations
        )
        between = math.fsum(
            run.sequences * (run.means[t][p] - means[t][p]) ** 2 for run in runs
        )
        return math.sqrt((within + between) / (total - 1))

    return tuple(
        tuple(cell(t, p) for p in range(len(row))) for t, row in enumerate(means)
    )


def standard_errors(matrix: Matrix) -> Cells | None:
    """Of each cell, over sequences; None where the deviations are not known."""
    if matrix.deviations is None:
        return None
    root = math.sqrt(matrix.sequences)
    return tuple(tuple(s / root for s in row) for row in matrix.deviations)


def estimates(
    runs: Sequence[Matrix], curve: Callable[[Matrix], Sequence[float]]
) -> list[tuple[float, float | None]]:
    """(mean, standard error) over `runs` of each number that `curve` makes of one.

    Runs count by their sequences. For a curve that is linear in the cells, which holds
    for all below but `retention`, the mean is that of the pooled matrix. The standard
    error is None for a single run; of equally large runs it is the usual s / sqrt(n).
    """
    total = sum(run.sequences for run in runs)
    shares = [run.sequences / total for run in runs]
    pairs = []
    for values in zip(*map(curve, runs), strict=True):
        mean = math.fsum(w * x for w, x in zip(shares, values, strict=True))
        spread = math.fsum(
            (w * (x - mean)) ** 2 for w, x in zip(shares, values, strict=True)
        )
        n = len(values)
        se = math.sqrt(spread * n / (n - 1)) if n > 1 else None
        if se is not None and se <= _ROUNDING:
            se = 0.0
        pairs.append((mean, se))
    return pairs


# What a matrix says; positions count from 0, edits and passages from 1


def seen(matrix: Matrix) -> list[float]:
    """After t = 1..n edits, the mean over the t passages learned by then."""
    return [statistics.fmean(row) for row in matrix.means[1:]]


def seen_base(matrix: Matrix) -> list[float]:
    """The un-edited model's mean over the same t passages, t = 1..n."""
    base = matrix.means[0]
    return [statistics.fmean(base[:t]) for t in range(1, len(base) + 1)]


def crossing(matrix: Matrix) -> int | None:
    """The first t at which `seen` is below `seen_base`; None if it never is."""
    pairs = zip(seen(matrix), seen_base(matrix), strict=True)
    below = [t for t, (now, base) in enumerate(pairs, 1) if now < base - _ROUNDING]
    return below[0] if below else None


def fresh(matrix: Matrix) -> list[float]:
    """Accuracy on each passage right after its own edit: the diagonal."""
    return [row[-1] for row in matrix.means[1:]]


def final(matrix: Matrix) -> list[float]:
    """Accuracy on each passage after the last edit: the last row."""
    return list(matrix.means[-1])


def lag(matrix: Matrix) -> list[float]:
    """For k = 0..n-1: accuracy k edits after a passage's own, mean over passages.

    k is reached by the first n - k passages only, so compare with `lag_base`.
    """
    n = matrix.passages
    return [
        statistics.fmean(matrix.means[p + 1 + k][p] for p in range(n - k))
        for k in range(n)
    ]


def lag_base(matrix: Matrix) -> list[float]:
    """The un-edited model's mean over the passages that reach each lag."""
    return seen_base(matrix)[::-1]


def backward_transfer(matrix: Matrix) -> float | None:
    """Mean of final - fresh over all passages but the last; None for one passage.

    What the later edits did to the earlier passages; below 0 is forgetting (Lopez-Paz
    and Ranzato, arXiv 1706.08840).
    """
    if matrix.passages == 1:
        return None
    pairs = zip(final(matrix)[:-1], fresh(matrix)[:-1], strict=True)
    return statistics.fmean(end - start for end, start in pairs)


def final_gain(matrix: Matrix) -> float | None:
    """Mean of final - un-edited over all passages but the last; None for one passage.

    Below 0, those passages would be answered better had none been learned.
    """
    if matrix.passages == 1:
        return None
    pairs = zip(final(matrix)[:-1], matrix.means[0][:-1], strict=True)
    return statistics.fmean(end - base for end, base in pairs)


def retention(matrix: Matrix) -> float | None:
    """Sum of final over sum of fresh, of all passages but the last.

    None for one passage, and where nothing was right after its own edit.
    """
    fresh_sum = math.fsum(fresh(matrix)[:-1])
    return math.fsum(final(matrix)[:-1]) / fresh_sum if fresh_sum else None
