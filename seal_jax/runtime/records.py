"""A run's workdir: its config, and the lock on it.

Result files are written by `write_json` and `write_jsonl`, whose rules `files` states.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seal_jax.runtime import files, reading
from seal_jax.runtime.config_rules import ADDED

CONFIG_NAME = "config.json"
LAYOUT_NAME = "layout.json"
# Of a workdir's files; another number where a run cannot go on with those of before.
# 1, which had no such mark: journals of the flat package. 2: checkpoints without
# checksums, journals that count no refused texts and no cut lines. 3: checkpoints whose
# layers are stacked.
LAYOUT = 4
_LOCK_NAME = ".lock"
# Groups of a config that decide nothing of what a run comes to: no part of its hash,
# and free to differ where it goes on.
ASIDE = ("watch",)
_SHOWN_DIFFERENCES = 8
_RESTORE = "restore it, or give another --workdir"

read_json = files.read_json
write_json = files.write_json
write_jsonl = files.write_jsonl


class WorkdirInUseError(OSError):
    """Another process holds the workdir."""


# Workdirs


@contextlib.contextmanager
def lock(workdir: str | Path) -> Iterator[None]:
    """Holds `workdir` (created if missing) for this process alone.

    The kernel lets go of the lock when the process ends, however it ends.

    Raises:
      WorkdirInUseError: another process holds it.
      ValueError, CannotWriteError: nothing can be written there.
    """
    path = _make_directory(workdir) / _LOCK_NAME
    with files.disk_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            raise WorkdirInUseError(
                f"{workdir}: in use by process {holder or 'unknown'}; one run per "
                "workdir: wait for it to end or give another --workdir"
            ) from None
        except OSError as error:
            # Network file systems may have no locks, or none that reach other hosts.
            raise ValueError(
                f"{path}: cannot be locked ({error.strerror}), as on network file "
                "systems without locks; give a --workdir on a disk of this machine"
            ) from error
        with files.disk_errors(path):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def open_workdir(path: str | Path, config: dict[str, Any], *, rising: str = "") -> Path:
    """The directory of this run, new or left by an earlier run of the same config.

    `rising`: a dotted key that may be higher here than there, if nothing else differs
    (`risen`); nothing is written then.

    Raises:
      ValueError: it holds a run of another config (the message names the keys), `path`
        is a file, or `config` holds a number that is not finite.
      DiskFullError: no room for its config.json.
    """
    here = _make_directory(path)
    new = json.loads(_canonical(config))
    file = here / CONFIG_NAME
    mark = here / LAYOUT_NAME
    if not file.exists():
        write_json(mark, {"layout": LAYOUT})
        write_json(file, config)
        return here
    layout = _layout(mark)
    if layout != LAYOUT:
        age = "an earlier" if layout < LAYOUT else "a later"
        raise ValueError(
            f"{path}: begun by {age} version (layout {layout}, this one's is {LAYOUT}):"
            " report reads it, but it cannot be continued; a new --workdir runs it anew"
        )
    differences = _differences(read_json(file, fix=_RESTORE), new)
    if differences and not _rises(differences, rising):
        shown = [
            f"{k[:80]}={_shown(there)} there, {_shown(here)} here"
            for k, (there, here) in differences.items()
        ][:_SHOWN_DIFFERENCES]
        if len(differences) > len(shown):
            shown.append(f"and {len(differences) - len(shown)} more")
        raise ValueError(
            f"{path}: holds a run of another config: {'; '.join(shown)}; give another "
            "--workdir or the same config"
        )
    return here


def risen(path: str | Path, config: dict[str, Any], key: str) -> bool:
    """Whether the workdir's config is `config` but for a lower number at `key`."""
    file = Path(path) / CONFIG_NAME
    if not key or not file.exists():
        return False
    there, here = read_json(file, fix=_RESTORE), json.loads(_canonical(config))
    return _rises(_differences(there, here), key)


def _rises(differences: dict[str, tuple[str | None, str | None]], key: str) -> bool:
    if not key or differences.keys() != {key}:
        return False
    old, new = (json.loads(text or "null") for text in differences[key])
    return type(old) is type(new) is int and old < new


def _layout(mark: Path) -> int:
    if not mark.exists():
        return 1
    match files.read_json(mark, fix=_RESTORE):
        case {"layout": int(layout)}:
            return layout
    raise ValueError(f'{mark}: must hold {{"layout": NUMBER}}; {_RESTORE}')


def _differences(
    there: files.Json, here: dict[str, Any]
) -> dict[str, tuple[str | None, str | None]]:
    """{dotted key: (there, here)} as JSON text of what differs; None: absent."""

    def texts(config: files.Json) -> dict[str, str]:
        # As JSON text, so that 1, 1.0 and true differ, as they do in the hash.
        is_tree = isinstance(config, dict)
        flat = leaves(without_aside(config)) if is_tree else {"": config}
        groups = {key.rpartition(".")[0] for key in flat if "." in key}
        # What a config that is older than a key stands for.
        later = {k: v for k, v in ADDED.items() if k.rpartition(".")[0] in groups}
        flat = later | flat
        return {k: json.dumps(v, sort_keys=True) for k, v in flat.items()}

    old, new = texts(there), texts(here)
    return {
        k: (old.get(k), new.get(k))
        for k in sorted(old | new)
        if old.get(k) != new.get(k)
    }


def _shown(text: str | None) -> str:
    return "(absent)" if text is None else reading.shorten(text)


def config_hash(config: dict[str, Any]) -> str:
    """12 hex digits of the SHA-256 of `config` as JSON; the order of keys is nothing.

    Neither are the groups in `ASIDE`.

    Raises:
      ValueError: a number that is not finite.
    """
    return hashlib.sha256(_canonical(config).encode()).hexdigest()[:12]


def _canonical(config: dict[str, Any]) -> str:
    plain = without_aside(files.to_plain(config))
    for key, value in leaves(plain).items():
        if files.without_nan(value) != value:
            raise ValueError(
                f"config.{key}={value} must be finite, or two configs could not be "
                "compared; use None for no limit"
            )
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def without_aside(config: dict[str, Any]) -> dict[str, Any]:
    """The config without the groups in `ASIDE`."""
    return {key: value for key, value in config.items() if key not in ASIDE}


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _make_directory(path: str | Path) -> Path:
    files.check_name(path)
    try:
        with files.disk_errors(path):
            Path(path).mkdir(parents=True, exist_ok=True)
    except files.InTheWayError:
        raise ValueError(
            f"{path}: a workdir must be a directory, and a file is in the way; give "
            "another --workdir"
        ) from None
    except FileNotFoundError as error:  # In /proc, or below a folder just removed.
        raise files.CannotWriteError(errno.ENOENT, path) from error
    return Path(path)
