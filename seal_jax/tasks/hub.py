"""Data sets of the Hugging Face hub, for every task that reads one."""

from collections.abc import Iterable, Mapping
from typing import Any

from seal_jax.runtime import files


def rows(name: str, split: str, *, fix: str) -> Iterable[Mapping[str, Any]]:
    """The rows of a split of a data set on the hub.

    Raises:
      FileNotFoundError: the hub cannot be reached or lacks it; says `fix`.
      files.DiskFullError: no room for the download.
    """
    # Slow to import, and not needed for files.
    import datasets
    import datasets.exceptions

    try:
        with files.disk_errors(f"data={name!r}, downloaded"):
            return datasets.load_dataset(name, split=split)  # pyright: ignore
    except files.DiskFullError:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FileNotFoundError(
            f"data={name!r}, split={split!r}: no such file, and the hub did not give "
            f"it ({type(error).__name__}: {reason}); {fix}"
        ) from None
