"""Continual runs as files: the SEAL reference's layout, read and written.

A folder of results holds run*/summary_*.json (results/continual_self_edits).
"""

from collections.abc import Sequence
from pathlib import Path

from seal_jax.analysis import forgetting
from seal_jax.analysis.forgetting import Matrix
from seal_jax.runtime import files, formatting

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
            f"{name}: n_sequences={sequences!r:.40} must be a whole number; get it "
            "again"
        )
    try:
        means = _triangle(value, "mean_over_sequences")
        deviations = None
        if sequences > 1 and value.get("std_over_sequences") is not None:
            deviations = _triangle(value, "std_over_sequences")
        texts = [str(value.get(key) or "") for key in ("dataset", "base_model")]
        matrix = Matrix(means, sequences, deviations, *texts)
    except ValueError as error:
        raise ValueError(f"{name}: {_with_fix(str(error))}") from None
    stated = value.get("n_datapoints", matrix.passages)
    if stated != matrix.passages:
        raise ValueError(
            f"{name}: n_datapoints={stated!r:.40} must be the number of columns, "
            f"{matrix.passages}; get it again"
        )
    return matrix


def _with_fix(message: str) -> str:
    return message if "; " in message else f"{message}; get it again"


def _triangle(value: dict[str, files.Json], key: str) -> forgetting.Cells:
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
                    f"{key}, row {t}, passage {p}: {cell!r:.40} must be {rule}; get it "
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
    summaries: dict[Path, list[Path]] = {}
    for name in sorted(path.rglob(SUMMARY_PATTERN)):
        folder = path if name.parent == path else name.parent.parent
        summaries.setdefault(folder, []).append(name)
    for name in sorted(path.rglob(OVERALL_NAME)):
        summaries.setdefault(name.parent, [name])
    if not summaries:
        raise ValueError(
            f"{path}: must hold {SUMMARY_PATTERN} or {OVERALL_NAME}; give the folder "
            "of a continual run"
        )
    return [
        (str(folder), tuple(parse(name, files.read_json(name)) for name in names))
        for folder, names in sorted(summaries.items())
    ]


def write(folder: str | Path, runs: Sequence[Matrix]) -> None:
    """Writes `runs` in the reference's layout: run{i}/summary_{i}.json, and overall.

    Cells not measured are 0 there, and so is every deviation that is not known. Numbers
    are written in full.

    Raises:
      ValueError: as `forgetting.pool`, or the folder holds summaries that would
        stay among these.
      DiskFullError: no room.
    """
    overall = forgetting.pool(runs)
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

    def square(cells: forgetting.Cells) -> list[list[float]]:
        return [[*row, *(0.0,) * (n - len(row))] for row in cells]

    return {
        "mean_over_sequences": square(matrix.means),
        "std_over_sequences": square(matrix.deviations or nothing),
        "n_sequences": matrix.sequences,
        "n_datapoints": n,
        "dataset": matrix.dataset,
        "base_model": matrix.base_model,
    }
