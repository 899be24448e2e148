"""What a PATH of the report is, found out by looking at it."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seal_jax.analysis import reliability
from seal_jax.analysis.agreement import AllRewards
from seal_jax.analysis.forgetting import Matrix
from seal_jax.analysis.novelty import Edits
from seal_jax.analysis.reliability import SeedRewards
from seal_jax.continual import files as continual_files
from seal_jax.report import read_rewards, read_seeds, read_texts, reference, run_view
from seal_jax.report.run_view import Workdir
from seal_jax.report.sections import agreement as agreement_section
from seal_jax.report.sections import continual as continual_section
from seal_jax.runtime import files, reading, records

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
    rankings: tuple[SeedRewards, ...] = ()
    agreements: tuple[AllRewards, ...] = ()  # of rankings
    edits: tuple[Edits, ...] = ()
    continual: tuple[tuple[str, tuple[Matrix, ...]], ...] = ()


def read(paths: Sequence[str | Path]) -> Inputs:
    """Reads every path.

    Raises:
      ValueError: one is nothing that the report can read, or is malformed.
      OSError: one cannot be read.
    """
    parts = []
    for path, name in zip(map(Path, paths), names_of(paths), strict=True):
        with reading.boundary(path, wrong=f"must be {WANTED}", fix="give one of these"):
            parts.append(_read_path(path, name))
    return Inputs(
        workdirs=tuple(run for part in parts for run in part.workdirs),
        results=tuple(file for part in parts for file in part.results),
        rankings=tuple(ranking for part in parts for ranking in part.rankings),
        agreements=tuple(rewards for part in parts for rewards in part.agreements),
        edits=tuple(edits for part in parts for edits in part.edits),
        continual=tuple(named for part in parts for named in part.continual),
    )


def names_of(paths: Sequence[str | Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; a lone one's last part."""
    parts = [_named(Path(path)).parts for path in paths]
    names = []
    for path in parts:
        length = 1
        while length < len(path) and (
            sum(path[-length:] == other[-length:] for other in set(parts)) > 1
        ):
            length += 1
        names.append("/".join(path[-length:]))
    return names


def _named(path: Path) -> Path:
    """What a path is called by: a file's stem, and the folder of a summary.json."""
    # Not Path.resolve, which raises at a link to itself.
    path = Path(os.path.realpath(path))
    if path.is_dir():
        return path
    if path.name == run_view.SUMMARY_NAME:
        return path.parent
    return path.with_suffix("")


def _read_path(path: Path, name: str) -> Inputs:
    if path.is_dir():
        return _folder(path, name)
    if not path.is_file():
        raise ValueError(f"{path}: no such file or directory; give {WANTED}")
    if path.suffix == ".jsonl":
        return Inputs(edits=tuple(read_texts.read(path, name=name)))
    value = files.read_json(path)
    if isinstance(value, dict):
        if reference.is_results(value):
            return _results(path, name, value)
        if "mean_over_sequences" in value:
            matrix = continual_files.parse(path, value)
            return Inputs(continual=((name, (matrix,)),))
        if isinstance(value.get("ladder"), list) or isinstance(value.get("arms"), list):
            return Inputs(workdirs=(_summary(path, name, value),))
    elif isinstance(value, list) and value and _has_edits(value[0]):
        return Inputs(edits=tuple(read_texts.read(path, name=name)))
    raise ValueError(f"{path}: must be {WANTED}; give one of these")


def _has_edits(row: Any) -> bool:
    return isinstance(row, dict) and ("completions" in row or "text" in row)


def _folder(path: Path, name: str) -> Inputs:
    begun = (path / records.CONFIG_NAME).is_file()
    if begun or (path / run_view.SUMMARY_NAME).is_file():
        run = run_view.read_workdir(path)
        return Inputs(workdirs=(dataclasses.replace(run, name=name),))
    patterns = (continual_files.SUMMARY_PATTERN, continual_files.OVERALL_NAME)
    if not any(next(path.rglob(pattern), None) for pattern in patterns):
        raise ValueError(f"{path}: must be {WANTED}; give one of these")
    continual = []
    for folder, runs in continual_files.read_all(path):
        # The arms of a run are called by their own names alone.
        parts = Path(folder).relative_to(path).parts
        below = [part for part in parts if part != continual_section.FOLDER]
        continual.append(("/".join([name, *below]), tuple(runs)))
    return Inputs(continual=tuple(continual))


def _summary(path: Path, name: str, value: dict[str, Any]) -> Workdir:
    """Of a summary.json the whole workdir around it; of a copy elsewhere itself."""
    if path.name == run_view.SUMMARY_NAME:
        return dataclasses.replace(run_view.read_workdir(path.parent), name=name)
    return Workdir(name, value)


def _results(path: Path, name: str, value: dict[str, Any]) -> Inputs:
    return Inputs(
        results=(reference.parse(name, value),),
        rankings=tuple(
            dataclasses.replace(measured, name=name)
            for measured in _unless_unfit(read_seeds.read, path)
            if reliability.is_separable(measured.rewards)
        ),
        agreements=tuple(
            dataclasses.replace(measured, name=name)
            for measured in _unless_unfit(read_rewards.read, path)
            if agreement_section.is_comparable(measured)
        ),
    )


def _unless_unfit[T](read: Callable[[Path], list[T]], path: Path) -> list[T]:
    """What `read` gives; nothing in results that lack what it needs."""
    try:
        return read(path)
    except ValueError:  # Results without answers or texts are results all the same.
        return []
