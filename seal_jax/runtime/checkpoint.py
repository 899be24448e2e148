"""Trees of arrays on disk, by step: a thin wrapper around Orbax.

A step becomes visible when it is complete: it is written into a temporary directory,
with checksums of its files, and renamed at the end, so a kill in mid-save leaves the
steps before it as they were. Old steps are kept. One whose bytes were altered is
refused, before anything else reads it.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from seal_jax.runtime import files, reading

type Tree = Any

# Beside the arrays: Orbax's own metadata, a few kB for each.
_MARGIN_BYTES = 1 << 20
_LITTLE_BYTES = 1 << 15
_UNFINISHED = ".orbax-checkpoint-tmp"
# SHA-256 of a step's other files.
_SUMS = "sha256.json"
_ALTERED = "altered since it was saved, or of another version"
_FIX = "restore it from a copy, or give another --workdir to run anew"


def save(directory: str | Path, step: int, tree: Tree, meta: dict[str, Any]) -> None:
    """Writes `tree` (arrays) and `meta` (JSON) as `step`; returns when it is complete.

    Raises:
      ValueError: `directory` holds `step` already.
      files.DiskFullError: no room; earlier steps are untouched.
    """
    directory = Path(directory).absolute()
    place = directory / str(step)
    if step in steps(directory):
        raise ValueError(
            f"{directory}: step {step} is saved already; restore it or save a later "
            "step"
        )
    with files.disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(directory)
        _check_room(directory)
    # Asked first because Orbax reports a full disk from inside its threads, at length.
    needed = sum(x.nbytes for x in jax.tree.leaves(tree)) + _MARGIN_BYTES
    if shutil.disk_usage(directory).free < needed:
        raise files.DiskFullError(errno.ENOSPC, place)
    args = ocp.args.Composite(
        # From the host: with several processes Orbax refuses arrays of one of them.
        tree=ocp.args.StandardSave(jax.tree.map(np.asarray, tree)),
        meta=ocp.args.JsonSave(files.to_plain(meta)),
    )
    unfinished = directory / f"saving{_UNFINISHED}"
    try:
        with files.disk_errors(place), _quietly():
            unfinished.mkdir()
            with _open(unfinished) as manager:
                manager.save(step, args=args)
                manager.wait_until_finished()
            written = unfinished / str(step)
            files.write_json(written / _SUMS, _sums(written))
            written.rename(place)
            unfinished.rmdir()
    except (ValueError, OSError) as error:
        # A thread of Orbax may still write there; the next save removes the rest.
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError):
            raise
        raise _disk_error(error, place) or error from None


def check_directory(directory: str | Path) -> None:
    """Writes a small checkpoint, reads it back and removes it.

    For the beginning of a run, which comes to its first checkpoint hours later.

    Raises:
      CannotWriteError: it cannot be written; says why.
    """
    trial = Path(directory) / ".trial"
    with files.disk_errors(trial):
        shutil.rmtree(trial, ignore_errors=True)  # A kill left it.
        tree = {"trial": np.arange(4.0, dtype=np.float32)}
        try:
            save(trial, 0, tree, {})
            restore(trial, 0, tree)
        finally:
            shutil.rmtree(trial, ignore_errors=True)


def latest(directory: str | Path) -> int | None:
    """The newest complete step in `directory`; None if there is none."""
    return max(steps(directory), default=None)


def restore(
    directory: str | Path, step: int, like: Tree
) -> tuple[Tree, dict[str, Any]]:
    """The tree and meta that were saved as `step`, bit for bit.

    Args:
      like: arrays or `jax.ShapeDtypeStruct`s: the structure, shapes and dtypes to find.
        A leaf goes where its counterpart lies, or to the first device.

    Raises:
      ValueError: there is no complete `step`, or it is not like `like`.
    """
    there = steps(directory)
    if step not in there:
        raise ValueError(
            f"{directory}: step {step} is none of its complete steps {there}; use one "
            "of these"
        )
    where = f"{directory} step {step}"
    _check_sums(Path(directory) / str(step), where)
    with _open(directory) as manager:
        with _as_saved(where):
            stored = _layout(manager.item_metadata(step)["tree"].tree)
        _check_like(where, stored, _layout(like))
        with _as_saved(where):
            restored = manager.restore(
                step,
                args=ocp.args.Composite(
                    tree=ocp.args.StandardRestore(jax.tree.map(_abstract, like)),
                    meta=ocp.args.JsonRestore(),
                ),
            )
    return restored["tree"], restored["meta"]


def steps(directory: str | Path) -> list[int]:
    """The complete steps, in order."""
    if not Path(directory).is_dir():
        return []
    folders = [path for path in Path(directory).iterdir() if path.is_dir()]
    return sorted(int(p.name) for p in folders if re.fullmatch("[0-9]{1,18}", p.name))


def _as_saved(where: str | Path) -> contextlib.AbstractContextManager[None]:
    return reading.boundary(where, wrong=_ALTERED, fix=_FIX, foreign=True)


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path from there."""
    sums = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sums[path.relative_to(folder).as_posix()] = digest
    return sums


def _check_sums(folder: Path, where: str) -> None:
    """Refuses a step whose files are not those that were saved, before Orbax reads.

    Raises:
      ValueError: see above; one of the files is named.
    """
    with _as_saved(where):
        stored = files.read_json(folder / _SUMS)
        if not isinstance(stored, dict):
            raise ValueError(f"{_SUMS} is no JSON object")
        here = {k: v for k, v in _sums(folder).items() if k != _SUMS}
        odd = sorted(k for k in stored | here if stored.get(k) != here.get(k))
        if odd:
            raise ValueError(f"{odd[0]} does not have the checksum of {_SUMS}")


def _open(directory: str | Path) -> ocp.CheckpointManager:
    here = jax.process_index()
    # Of several processes one calls: Orbax is not to wait for the others.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}
    )
    return ocp.CheckpointManager(
        Path(directory).absolute(),
        item_handlers={
            "tree": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
            "meta": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        },
        options=ocp.CheckpointManagerOptions(
            max_to_keep=None,
            create=False,
            enable_async_checkpointing=False,
            multiprocessing_options=alone,
        ),
    )


def _remove_unfinished(directory: Path) -> None:
    """Removes what killed or failed saves left, to give the space back."""
    for unfinished in directory.glob(f"*{_UNFINISHED}*"):
        shutil.rmtree(unfinished)


def _check_room(directory: Path) -> None:
    """Writes a little: what is free says nothing of quotas."""
    path = directory / ".room"
    try:
        path.write_bytes(os.urandom(_LITTLE_BYTES))
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without Orbax's own report of an error, a traceback of its thread."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    # Not after an error: the thread may report only when this is over.
    logger.setLevel(level)


def _disk_error(error: ValueError, path: Path) -> files.CannotWriteError | None:
    """Tensorstore reports system errors as ValueError, with the code in the text."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return files.write_error(int(code[1]), path) if code else None


def _layout(tree: Tree) -> dict[str, str]:
    """{"layers/q_proj/a": "float32[2, 8, 64]"}."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _check_like(where: str, stored: dict[str, str], like: dict[str, str]) -> None:
    # Orbax casts a differing dtype in silence, which would not be the saved state.
    for name in sorted(stored | like):
        there, here = stored.get(name, "absent"), like.get(name, "absent")
        if there != here:
            raise ValueError(
                f"{where}: {name} is {there} there, {here} here; they must be equal: "
                "use the config it was saved with"
            )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
