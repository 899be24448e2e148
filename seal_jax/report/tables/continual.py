"""What continual runs remember, as text."""

from collections.abc import Callable, Sequence

from seal_jax.analysis import forgetting, stats
from seal_jax.analysis.forgetting import Matrix
from seal_jax.runtime import formatting


def tables(runs: Sequence[Matrix]) -> str:
    """The matrix of all runs together and what follows from it, as text."""
    matrix, number = forgetting.pool(runs), formatting.number
    counts = f"files {len(runs)}, sequences {matrix.sequences}, passages in each "
    source = f"{matrix.passages}; {matrix.base_model or '-'} on {matrix.dataset or '-'}"
    head = ("after edit", *(f"p{p}" for p in range(1, matrix.passages + 1)))
    parts = [counts + source, formatting.ruled(head, _rows(matrix.means))]
    errors = forgetting.standard_errors(matrix)
    if errors:
        cells = [cell for row in errors for cell in row]
        parts.append(
            f"standard error of a cell over {matrix.sequences} sequences: "
            f"{formatting.span(min(cells), max(cells))}; below, over files "
            f"({len(runs)})"
        )
    parts.append(
        _compared(
            runs,
            ("passages learned", "mean over them", "un-edited"),
            (forgetting.seen, forgetting.seen_base),
            first=1,
        )
    )
    parts.append(
        _compared(
            runs,
            ("edits since its own", "accuracy", "un-edited"),
            (forgetting.lag, forgetting.lag_base),
            first=0,
        )
    )
    rows = [
        (name, number(mean, digits=4), number(se, digits=4))
        for name, mean, se in averages(runs)
    ]
    parts.append(formatting.ruled(("average", "mean", "se"), rows))
    t = forgetting.crossing(matrix)
    parts.append(
        "the mean over learned passages never falls below the un-edited model"
        if t is None
        else f"the mean over learned passages falls below the un-edited model at {t}"
    )
    return "\n\n".join(parts)


def averages(runs: Sequence[Matrix]) -> list[tuple[str, float | None, float | None]]:
    """(name, mean, standard error) of the single numbers, of those that there are."""
    of = forgetting
    curves: tuple[tuple[str, Callable[[Matrix], Sequence[float]]], ...] = (
        ("un-edited", lambda m: [of.seen_base(m)[-1]]),
        ("right after its edit", lambda m: [of.lag(m)[0]]),
        ("  minus un-edited", lambda m: [of.lag(m)[0] - of.seen_base(m)[-1]]),
        ("after the last edit", lambda m: [of.seen(m)[-1]]),
        ("  minus un-edited", lambda m: [of.seen(m)[-1] - of.seen_base(m)[-1]]),
        ("backward transfer", lambda m: _listed(of.backward_transfer(m))),
        ("earlier passages, final - un-edited", lambda m: _listed(of.final_gain(m))),
    )
    estimates = [
        (name, mean, se)
        for name, curve in curves
        for mean, se in of.estimates(runs, curve)
    ]
    # A ratio has no error here: the runs' ratios do not average to it.
    return [
        *estimates,
        ("earlier passages, final / fresh", of.retention(of.pool(runs)), None),
    ]


def _listed(value: float | None) -> list[float]:
    return [] if value is None else [value]


type Curve = Callable[[Matrix], Sequence[float]]


def _compared(
    runs: Sequence[Matrix],
    head: tuple[str, str, str],
    curves: tuple[Curve, Curve],
    *,
    first: int,
) -> str:
    """A table of two curves over the same positions and their difference."""
    of, digits = forgetting.estimates, 4
    curve, base_curve = curves

    def difference(matrix: Matrix) -> list[float]:
        pairs = zip(curve(matrix), base_curve(matrix), strict=True)
        return [value - base for value, base in pairs]

    both = zip(
        of(runs, curve),
        of(runs, base_curve),
        of(runs, difference),
        strict=True,
    )
    rows = [
        (
            str(i),
            formatting.number(mean, digits=digits),
            formatting.number(se, digits=digits),
            formatting.number(base, digits=digits),
            formatting.signed(diff, digits=digits),
            formatting.number(diff_se, digits=digits),
            formatting.signed(
                diff / diff_se if diff_se and stats.enough(len(runs)) else None,
                digits=1,
            ),
        )
        for i, ((mean, se), (base, _), (diff, diff_se)) in enumerate(both, first)
    ]
    return formatting.ruled((head[0], head[1], "se", head[2], "diff", "se", "z"), rows)


def side_by_side(named: Sequence[tuple[str, Sequence[Matrix]]]) -> str:
    """The mean over learned passages minus the un-edited model's, a row for each.

    It stands below its title, since it is not the `learned` of a run's arms, which is
    of each passage right after its own edit.
    """
    rows = []
    for name, runs in named:
        pooled = forgetting.pool(runs)
        pairs = zip(
            forgetting.seen(pooled),
            forgetting.seen_base(pooled),
            strict=True,
        )
        gains = [formatting.signed(now - base) for now, base in pairs]
        rows.append((name, *gains))
    width = max(map(len, rows))
    padded = [(*row, *[formatting.MISSING] * (width - len(row))) for row in rows]
    head = ("mean so far - un-edited, after edit", *map(str, range(1, width)))
    return (
        "Mean over all passages learned so far, minus the un-edited model's on the "
        f"same ones\n\n{formatting.ruled(head, padded)}"
    )


def _rows(cells: forgetting.Cells) -> list[tuple[str, ...]]:
    n = len(cells) - 1
    return [
        (str(t), *(formatting.number(x) for x in row), *[""] * (n - len(row)))
        for t, row in enumerate(cells)
    ]
