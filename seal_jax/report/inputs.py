"""What a PATH of the report is, found out by looking at it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seal_jax.analysis.forgetting import Matrix
from seal_jax.continual import files as continual_files
from seal_jax.report import reference, run_view
from seal_jax.report.commands import agreement, novelty, reliability
from seal_jax.report.run_view import Workdir
from seal_jax.report.sections import agreement as report_agreement
from seal_jax.report.sections import continual as report_continual
from seal_jax.report.sections import reliability as report_reliability
from seal_jax.runtime import files, records

WANTED = (
    "a workdir with a summary.json, a SEAL result file, a file of self-edits or a "
    "folder of continual results"
)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """All PATHs of a command line, by what they are."""

    workdirs: tuple[Workdir, ...] = ()
    results: tuple[reference.Results, ...] = ()
    # Of result files: those whose seeds tell luck from edits.
    rankings: tuple[reliability.Measured, ...] = ()
    agreements: tuple[agreement.Measured, ...] = ()  # of rankings
    edits: tuple[novelty.Edits, ...] = ()
    continual: tuple[tuple[str, tuple[Matrix, ...]], ...] = ()


def read(paths: Sequence[str | Path]) -> Inputs:
    """Reads every path.

    Raises:
      ValueError: one is nothing that the report knows, or is malformed.
      OSError: one cannot be read.
    """
    found: dict[str, list[Any]] = {f.name: [] for f in dataclasses.fields(Inputs)}
    names = names_of(paths)
    for path, name in zip(map(Path, paths), names, strict=True):
        for kind, items in _one(path, name).items():
            found[kind] += items
    return Inputs(**{kind: tuple(items) for kind, items in found.items()})


def names_of(paths: Sequence[str | Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; a lone one's last part."""
    parts = [_named(Path(path)).parts for path in paths]
    names = []
    for own in parts:
        length = 1
        while length < len(own) and (
            sum(own[-length:] == other[-length:] for other in set(parts)) > 1
        ):
            length += 1
        names.append("/".join(own[-length:]))
    return names


def _named(path: Path) -> Path:
    """What a path is called by: a file's stem, and the folder of a summary.json."""
    path = path.resolve()
    if path.is_dir():
        return path
    if path.name == run_view.SUMMARY_NAME:
        return path.parent
    return path.with_suffix("")


def _one(path: Path, name: str) -> dict[str, list[Any]]:
    if path.is_dir():
        return _folder(path, name)
    if not path.is_file():
        raise ValueError(f"{path}: no such file or directory; give {WANTED}")
    if path.suffix == ".jsonl":
        return {"edits": novelty.read(path, name=name)}
    value = files.read_json(path)
    if isinstance(value, dict):
        if reference.is_results(value):
            return _results(path, name, value)
        if "mean_over_sequences" in value:
            return {"continual": [(name, (continual_files.parse(path, value),))]}
        if isinstance(value.get("ladder"), list) or isinstance(value.get("arms"), list):
            return {"workdirs": [_summary(path, name, value)]}
    elif isinstance(value, list) and value and _has_edits(value[0]):
        return {"edits": novelty.read(path, name=name)}
    raise ValueError(f"{path}: must be {WANTED}; give one of these")


def _has_edits(row: Any) -> bool:
    return isinstance(row, dict) and ("completions" in row or "text" in row)


def _folder(path: Path, name: str) -> dict[str, list[Any]]:
    begun = (path / records.CONFIG_NAME).is_file()
    if begun or (path / run_view.SUMMARY_NAME).is_file():
        run = run_view.read_workdir(path)
        return {"workdirs": [dataclasses.replace(run, name=name)]}
    patterns = (continual_files.SUMMARY_PATTERN, continual_files.OVERALL_NAME)
    if not any(next(path.rglob(pattern), None) for pattern in patterns):
        raise ValueError(f"{path}: must be {WANTED}; give one of these")
    found = []
    for folder, runs in continual_files.read_all(path):
        # The arms of a run are called by their own names alone.
        parts = Path(folder).relative_to(path).parts
        own = [part for part in parts if part != report_continual.FOLDER]
        found.append(("/".join([name, *own]), runs))
    return {"continual": found}


def _summary(path: Path, name: str, value: dict[str, Any]) -> Workdir:
    """Of a summary.json the whole workdir around it; of a copy elsewhere itself."""
    if path.name == run_view.SUMMARY_NAME:
        return dataclasses.replace(run_view.read_workdir(path.parent), name=name)
    return Workdir(name, value)


def _results(path: Path, name: str, value: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        "results": [reference.parse(name, value)],
        "rankings": [
            dataclasses.replace(m, name=name)
            for found in _unless_unfit(reliability.read, path)
            if (m := report_reliability.tellable(found))
        ],
        "agreements": [
            dataclasses.replace(m, name=name)
            for m in _unless_unfit(agreement.read, path)
            if report_agreement.is_comparable(m)
        ],
    }


def _unless_unfit(read: Callable[[Path], list[Any]], path: Path) -> list[Any]:
    """What `read` finds; nothing in results that lack what it needs."""
    try:
        return read(path)
    except ValueError:  # Results without answers or texts are results all the same.
        return []
