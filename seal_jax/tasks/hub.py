"""Data sets of the Hugging Face hub, for every task that reads one.

The package `datasets` reads them: from the hub, from its cache, or from a folder that
it saved.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seal_jax.runtime import files, reading

# Endings of the files that `rows` reads: such a name is a file's, never sent out.
TEXTS = (".txt", ".md")
TABLES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


# What may follow a name and a colon: which of a data set's configurations is meant.
_CONFIGURATION = re.compile(r"[A-Za-z0-9][\w.-]*")


def is_name(name: str) -> bool:
    """Whether a name can be that of a data set on the hub, and of no file.

    owner/name, or owner/name:configuration for one that has several.
    """
    file = Path(name).suffix.lower() in (*TEXTS, *TABLES)
    owned, colon, which = name.partition(":")
    if colon and not _CONFIGURATION.fullmatch(which):
        return False
    return not file and files.is_hub_name(owned, owner=True)


def check_name(name: str, *, fix: str) -> None:
    """Refuses what is neither here nor a name of the hub.

    Raises:
      FileNotFoundError: see above; says the nearest name in its folder, and `fix`.
    """
    here = bool(name) and (files.is_file(name) or files.is_folder(name))
    if not here:
        _check_form(name, fix)


def _check_form(name: str, fix: str) -> None:
    if not is_name(name):
        raise FileNotFoundError(
            f"data={reading.shorten(name)!r}: no such file; {_nearest(name)}{fix}"
        )


def _nearest(name: str) -> str:
    path = Path(name)
    try:
        beside = {p.name for p in path.parent.iterdir()} - {path.name}
    except (OSError, ValueError):  # No such folder; no name of one.
        return ""
    near = difflib.get_close_matches(path.name, sorted(beside), 1)
    if not near or not name.isprintable():
        return ""
    return f"did you mean {reading.shorten(str(path.parent / near[0]))!r}? Or "


def rows(name: str, split: str, *, fix: str) -> Iterable[Mapping[str, Any]]:
    """The rows of a split of a data set on the hub.

    Args:
      name: see `is_name`; a folder of that name is never taken in its place.
      split: one of its splits.
      fix: what to do where it is not there.

    Raises:
      FileNotFoundError: no such name, or the hub cannot be reached or lacks it; says
        `fix`.
      files.DiskFullError: no room for the download.
    """
    shown = f"data={reading.shorten(name)!r}"
    _check_form(name, fix)
    if files.is_folder(name):
        # The library would read whatever lies in it.
        raise FileNotFoundError(f"{shown}: must be a file, and is a folder here; {fix}")
    if not split:
        raise FileNotFoundError(
            f"{shown}: no such file, and a data set of the hub needs a split, such as "
            f"'train'; name one beside it, or {fix}"
        )
    # Slow to import, and not needed for files.
    import datasets

    try:
        with files.disk_errors(f"{shown}, downloaded"):
            named = filter(None, name.partition(":")[::2])
            return datasets.load_dataset(*named, split=split)  # pyright: ignore
    except files.DiskFullError:
        raise
    except Exception as error:  # Of any of the libraries that it goes through.
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise FileNotFoundError(
            f"{shown}, split={split!r}: no such file, and the hub did not give it "
            f"({why}); {_nearest(name)}{fix}"
        ) from error


def saved(folder: Path, split: str) -> list[dict[str, Any]]:
    """The rows of a data set that `datasets` saved (`save_to_disk`).

    Raises:
      ValueError: it cannot be read; or it has splits, and not this one.
    """
    import datasets

    with reading.boundary(
        folder, wrong="must be a saved data set", fix="save it again", foreign=True
    ):
        found = datasets.load_from_disk(str(folder))
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise ValueError(
                f"{folder}: has no split {split!r}; give one of "
                f"{', '.join(map(str, found))}"
            )
        found = found[split]
    return found.to_list()
