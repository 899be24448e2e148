"""Continual runs as files: the SEAL reference's layout read, written and printed.

    python -m seal_jax.continual_results PATH...

prints the accuracy matrix and the tables made from it (`continual_matrix`). A PATH is a
folder of run*/summary_*.json (results/continual_self_edits), its runs averaged; one
such file; or a folder that holds several such folders, as a continual workdir does for
its arms. Those are never averaged: each has its tables, and all stand side by side.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from seal_jax import continual_matrix, files, formatting
from seal_jax.continual_matrix import Matrix

OVERALL_NAME = "overall_results.json"
SUMMARY_PATTERN = "summary_*.json"


def parse(name: str | Path, value: files.Json) -> Matrix:
    """The matrix in a file's JSON value; `name` begins the error messages.

    Raises:
      ValueError: a field is missing or not what the reference writes.
    """
    if not isinstance(value, dict) or "mean_over_sequences" not in value:
        raise ValueError(
            f"{name}: must be a JSON object with mean_over_sequences; give a file from "
            "results/continual_self_edits"
        )
    sequences = value.get("n_sequences")
    if type(sequences) is not int:
        raise ValueError(
            f"{name}: n_sequences={sequences!r} must be a whole number; get it again"
        )
    try:
        means = _triangle(value, "mean_over_sequences")
        deviations = None
        if sequences > 1 and value.get("std_over_sequences") is not None:
            deviations = _triangle(value, "std_over_sequences")
        texts = [str(value.get(key) or "") for key in ("dataset", "base_model")]
        matrix = Matrix(means, sequences, deviations, *texts)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    stated = value.get("n_datapoints", matrix.passages)
    if stated != matrix.passages:
        raise ValueError(
            f"{name}: n_datapoints={stated!r} must be the number of columns, "
            f"{matrix.passages}; get it again"
        )
    return matrix


def _triangle(value: dict[str, files.Json], key: str) -> continual_matrix.Cells:
    """The measured cells of a square of numbers whose other cells must be 0."""
    rows = value[key]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError(f"{key} must be a list of lists of numbers; get it again")
    cells = []
    for t, row in enumerate(rows):
        if len(row) != len(rows) - 1:
            raise ValueError(
                f"{key}, row {t}: has {len(row)} cells and must have {len(rows) - 1}, "
                "one fewer than there are rows; get it again"
            )
        for p, cell in enumerate(row, start=1):
            if formatting.measured(cell) is None or (0 < t < p and cell != 0):
                rule = "0, not learned yet" if 0 < t < p else "a finite number"
                raise ValueError(
                    f"{key}, row {t}, passage {p}: {cell!r} must be {rule}; get it "
                    "again"
                )
        cells.append(tuple(float(cell) for cell in (row[:t] if t else row)))
    return tuple(cells)


def read(path: str | Path) -> tuple[Matrix, ...]:
    """The runs in a folder, its overall_results.json if it has no others, or a file.

    Raises:
      ValueError: nothing there, runs of several arms, or a file that is malformed.
      OSError: a file cannot be read.
    """
    named = read_all(path)
    if len(named) > 1:
        names = ", ".join(name for name, _ in named)
        raise ValueError(
            f"{path}: holds the runs of several folders, which must not be averaged; "
            f"give one of {names}"
        )
    return named[0][1]


def read_all(path: str | Path) -> list[tuple[str, tuple[Matrix, ...]]]:
    """(path, runs) of each folder of results in `path`, itself included; or a file.

    A folder of results holds its summaries, or folders that each hold some.

    Raises:
      ValueError: nothing there, or a file that is malformed.
      OSError: a file cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.is_file():
            raise ValueError(f"{path}: no such file or folder; give one that is there")
        return [(str(path), (parse(path, files.read_json(path)),))]
    found: dict[Path, list[Path]] = {}
    for name in sorted(path.rglob(SUMMARY_PATTERN)):
        own = path if name.parent == path else name.parent.parent
        found.setdefault(own, []).append(name)
    for name in sorted(path.rglob(OVERALL_NAME)):
        found.setdefault(name.parent, [name])
    if not found:
        raise ValueError(
            f"{path}: must hold {SUMMARY_PATTERN} or {OVERALL_NAME}; give the folder "
            "of a continual run"
        )
    return [
        (str(own), tuple(parse(name, files.read_json(name)) for name in names))
        for own, names in sorted(found.items())
    ]


def write(folder: str | Path, runs: Sequence[Matrix]) -> None:
    """Writes `runs` in the reference's layout: run{i}/summary_{i}.json, and overall.

    Cells not measured are 0 there, and so is every deviation that is not known. Numbers
    are written in full.

    Raises:
      ValueError: as `continual_matrix.pool`, or the folder holds summaries that would
        stay among these.
      DiskFullError: no room.
    """
    overall = continual_matrix.pool(runs)
    folder = Path(folder)
    paths = [folder / f"run{i}" / f"summary_{i}.json" for i in range(len(runs))]
    others = sorted(set(folder.rglob(SUMMARY_PATTERN)) - set(paths))
    if others:
        raise ValueError(
            f"{others[0]}: is of other runs than the {len(runs)} to be written; give "
            "an empty folder"
        )
    for path, run in zip(paths, runs, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, to_json(run))
    files.write_json(folder / OVERALL_NAME, to_json(overall))


def to_json(matrix: Matrix) -> dict[str, files.Json]:
    """The reference's JSON object for a matrix."""
    n = matrix.passages
    nothing = tuple((0.0,) * len(row) for row in matrix.means)

    def square(cells: continual_matrix.Cells) -> list[list[float]]:
        return [[*row, *(0.0,) * (n - len(row))] for row in cells]

    return {
        "mean_over_sequences": square(matrix.means),
        "std_over_sequences": square(matrix.deviations or nothing),
        "n_sequences": matrix.sequences,
        "n_datapoints": n,
        "dataset": matrix.dataset,
        "base_model": matrix.base_model,
    }


# Command


def tables(runs: Sequence[Matrix]) -> str:
    """The matrix of all runs together and what follows from it, as text."""
    matrix, number = continual_matrix.pool(runs), formatting.number
    counts = f"files {len(runs)}, sequences {matrix.sequences}, passages in each "
    source = f"{matrix.passages}; {matrix.base_model or '-'} on {matrix.dataset or '-'}"
    head = ("after edit", *(f"p{p}" for p in range(1, matrix.passages + 1)))
    parts = [counts + source, formatting.ruled(head, _rows(matrix.means))]
    errors = continual_matrix.standard_errors(matrix)
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
            (continual_matrix.seen, continual_matrix.seen_base),
            first=1,
        )
    )
    parts.append(
        _compared(
            runs,
            ("edits since its own", "accuracy", "un-edited"),
            (continual_matrix.lag, continual_matrix.lag_base),
            first=0,
        )
    )
    rows = [
        (name, number(mean, digits=4), number(se, digits=4))
        for name, mean, se in averages(runs)
    ]
    parts.append(formatting.ruled(("average", "mean", "se"), rows))
    t = continual_matrix.crossing(matrix)
    parts.append(
        "the mean over learned passages never falls below the un-edited model"
        if t is None
        else f"the mean over learned passages falls below the un-edited model at {t}"
    )
    return "\n\n".join(parts)


def averages(runs: Sequence[Matrix]) -> list[tuple[str, float | None, float | None]]:
    """(name, mean, standard error) of the single numbers, of those that there are."""
    of = continual_matrix
    curves: tuple[tuple[str, Callable[[Matrix], Sequence[float]]], ...] = (
        ("un-edited", lambda m: [of.seen_base(m)[-1]]),
        ("right after its edit", lambda m: [of.lag(m)[0]]),
        ("  minus un-edited", lambda m: [of.lag(m)[0] - of.seen_base(m)[-1]]),
        ("after the last edit", lambda m: [of.seen(m)[-1]]),
        ("  minus un-edited", lambda m: [of.seen(m)[-1] - of.seen_base(m)[-1]]),
        ("backward transfer", lambda m: _known(of.backward_transfer(m))),
        ("earlier passages, final - un-edited", lambda m: _known(of.final_gain(m))),
    )
    found = [
        (name, mean, se)
        for name, curve in curves
        for mean, se in of.estimates(runs, curve)
    ]
    # A ratio has no error here: the runs' ratios do not average to it.
    return [
        *found,
        ("earlier passages, final / fresh", of.retention(of.pool(runs)), None),
    ]


def _known(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _compared(runs, head, curves, *, first: int) -> str:
    """A table of two curves over the same positions and their difference."""
    of, digits = continual_matrix.estimates, 4
    one, other = curves
    both = zip(
        of(runs, one),
        of(runs, other),
        of(runs, lambda m: [x - y for x, y in zip(one(m), other(m), strict=True)]),
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
                diff / diff_se if diff_se and formatting.enough(len(runs)) else None,
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
        pooled = continual_matrix.pool(runs)
        pairs = zip(
            continual_matrix.seen(pooled),
            continual_matrix.seen_base(pooled),
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


def _rows(cells: continual_matrix.Cells) -> list[tuple[str, ...]]:
    n = len(cells) - 1
    return [
        (str(t), *(formatting.number(x) for x in row), *[""] * (n - len(row)))
        for t, row in enumerate(cells)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables for the paths of a command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seal_jax.continual_results",
        description="Prints what continual runs remember, ours or the reference's.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="folder or file")
    args = parser.parse_args(argv)
    return formatting.exit_status(lambda: _print(args.paths))


def _print(paths: Sequence[str]) -> None:
    named = [pair for path in paths for pair in read_all(path)]
    for name, runs in named:
        print(f"{name}: {tables(runs)}\n")
    if len(named) > 1:
        print(side_by_side(named))


if __name__ == "__main__":
    raise SystemExit(main())
