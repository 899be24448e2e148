"""Files that survive a kill: replaced whole, or grown by whole lines.

A file is replaced by way of a sibling file, fsync and rename. A growing file gains one
JSON line at a time, and a line torn by a kill is dropped at the next open. What is
written here is plain JSON for anyone to read, so a number that is not finite is written
as null; finite floats are written in full and come back bit for bit.
"""

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from seal_jax.runtime import reading

# A value as `json.loads` gives it, and as loosely typed: who reads a file that others
# may have written checks what is in it.
type Json = Any

_PART = r"[A-Za-z0-9_][\w.-]{0,95}"
_OWNED_NAME = re.compile(f"{_PART}/{_PART}", re.ASCII)
_HUB_NAME = re.compile(f"({_PART}/)?{_PART}", re.ASCII)


class CannotWriteError(OSError):
    """A file could not be written; the message says where, why, and what to do."""

    fix = "make it writable"

    def __init__(self, code: int, path: str | Path):
        super().__init__(
            code,
            f"{path}: cannot be written ({os.strerror(code)}); {self.fix} or give "
            "another folder, then run the same command again to continue",
        )

    def __str__(self) -> str:
        return self.strerror or ""


class DiskFullError(CannotWriteError):
    """A file could not be written for want of space, quota or allowed file size."""

    fix = "free some space"


class NoFolderError(CannotWriteError):
    """The folder that a file is to be in is not there."""

    fix = "create its folder"


class InTheWayError(CannotWriteError):
    """A folder stands where a file is to be, or a file where a folder is."""

    fix = "move it away"


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BARRED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG)


def write_error(code: int | None, path: str | Path) -> CannotWriteError | None:
    """The error for a system's error number; None for one that says something else."""
    if code in _FULL:
        return DiskFullError(code, path)
    if code in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return InTheWayError(code, path)
    if code == errno.ENOENT:
        return NoFolderError(errno.ENOENT, path)
    return CannotWriteError(code, path) if code in _BARRED else None


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns what the disk says to a writer inside the block into one line.

    That names `path`, or the file that is barred.

    Raises:
      DiskFullError: no space.
      CannotWriteError: read-only, no permission, something in the way, or a fault of
        the disk.
    """
    try:
        yield
    except CannotWriteError:
        raise
    except OSError as error:
        # Of a rename the second name is that of the file that is wanted.
        named = error.filename2 or error.filename
        at = path if error.errno in _FULL else named or path
        if (told := write_error(error.errno, at)) is None:
            raise
        raise told from None


def check_name(path: str | Path) -> None:
    """Refuses a path that not all who write there can spell.

    Raises:
      ValueError: it is not valid UTF-8.
    """
    whole = os.path.abspath(path)
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{whole!a}: must be a path of valid UTF-8; rename it, or give "
            "another --workdir"
        ) from None


# Whole files


def write_text(path: str | Path, text: str) -> None:
    """Replaces `path` by `text` (UTF-8): readers see the old file or the new one.

    Raises:
      DiskFullError: no room; the old file, if any, is untouched.
    """
    path = Path(path)
    # A fixed name: the leftover of a kill is overwritten, not collected.
    temporary = path.with_name(f".{path.name}.tmp")
    # backslashreplace: a lone surrogate inside a JSON string becomes its JSON escape.
    data = text.encode("utf-8", "backslashreplace")
    try:
        with disk_errors(path):
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Replaces `path` by `value` as indented JSON, keys sorted, newline at the end."""
    write_text(path, _encode(without_nan(to_plain(value)), indent=2) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    """Replaces `path` by one JSON line per row, keys sorted."""
    write_text(
        path, "".join(_encode(without_nan(to_plain(row))) + "\n" for row in rows)
    )


_AGAIN = "write or download it again"


def read_json(path: str | Path, *, fix: str = _AGAIN) -> Json:
    """The JSON value in `path`; `fix` is what to do where it holds none.

    Raises:
      ValueError: `path` is not JSON, or not such as `reading.decode_json` takes.
      OSError: `path` cannot be read.
    """
    with _readable(path, "one JSON value", fix):
        return reading.decode_json(_bytes(path))


def read_data(path: str | Path) -> Json:
    """`read_json`, without the lone surrogates that JSON can hold and UTF-8 cannot.

    Raises:
      ValueError, OSError: as `read_json`; or a text with a lone surrogate.
    """
    value = read_json(path)
    if (text := reading.surrogate(value)) is not None:
        raise ValueError(
            f"{path}: {reading.shorten(text)[:40]!r} must be text without lone "
            "surrogates; write it again as UTF-8"
        )
    return value


def read_prompt(path: str | Path) -> str:
    """The text of a file that a person wrote: UTF-8, with a byte order mark or none.

    Raises:
      ValueError: it is not such a text.
      OSError: it cannot be read.
    """
    with _readable(path, "a text file", fix="save it as UTF-8"):
        data = _bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: must be UTF-8 text ({error.reason} at byte "
            f"{error.start}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError(
            f"{path}: must be text, and has a NUL at character "
            f"{text.index(chr(0))}; save it as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; a name that no file can have is that of none."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long, a NUL in it, a folder without access
        return False


def _bytes(path: str | Path) -> bytes:
    # What is there and no file, such as a pipe, would be waited for.
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError("no file")
    return Path(path).read_bytes()


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder; a name that none can have is that of none."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_hub_name(name: str, *, owner: bool) -> bool:
    """Whether a name can be that of a repository on a hub: [owner/]name.

    No part of it can be "..", and it never is an absolute path: a name does not lead
    out of the folder that a download goes to.

    Args:
      owner: whether there must be one.
    """
    form = _OWNED_NAME if owner else _HUB_NAME
    return form.fullmatch(name) is not None and ".." not in name


def _readable(
    path: str | Path, what: str, fix: str = _AGAIN
) -> contextlib.AbstractContextManager[None]:
    return reading.boundary(path, wrong=f"must be {what}", fix=fix, foreign=True)


def read_jsonl(path: str | Path) -> list[Json]:
    """The rows of `path`, one JSON value per line; a torn last line is left out.

    Raises:
      ValueError: a whole line that is not JSON.
      OSError: `path` cannot be read.
    """
    with _readable(path, "a file of JSON lines"):
        data = _bytes(path)
    lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
    return [_decode_line(path, i, line) for i, line in enumerate(lines, start=1)]


def read_rows(path: str | Path) -> list[Json]:
    """The rows of a file of JSON lines that a person wrote, not a run.

    So the last line needs no end, blank lines and a byte order mark are passed over.

    Raises:
      ValueError: a line that is not JSON.
      OSError: `path` cannot be read.
    """
    return [row for _, row in read_numbered(path)]


def read_numbered(
    path: str | Path, refused: dict[int, str] | None = None
) -> list[tuple[int, Json]]:
    """As `read_rows`, each row with the number of its line, 1 being the first.

    `refused`: takes what is wrong with lines that are not JSON, which is raised if it
    is not given.
    """
    with _readable(path, "a file of JSON lines"):
        lines = _bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    rows = []
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append((i, _decode_line(path, i, line, "correct the line")))
        except ValueError as error:
            if refused is None:
                raise
            refused[i] = str(error)
    return rows


# Growing files


class Lines:
    """A file that grows by whole JSON lines.

    Opening drops a torn last line (what a kill in mid-write leaves) from the file.
    `sync` makes every append wait for the disk, so that it survives a power loss too.

    Attributes:
      rows: the rows found at opening.

    Raises:
      ValueError: at opening, a whole line that is not JSON.
      DiskFullError: at append; the file keeps its whole lines and nothing else.
    """

    def __init__(self, path: str | Path, *, sync: bool = True):
        self.path = Path(path)
        self._sync = sync
        if self.path.exists() and not self.path.is_file():
            raise ValueError(
                f"{self.path}: must be a file to write to; move away what is there"
            )
        with (
            reading.boundary(
                path,
                wrong="cannot be opened for writing",
                fix="move it away, or give another --workdir",
            ),
            disk_errors(self.path),
        ):
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._size = self.path.read_bytes().rfind(b"\n") + 1
            os.ftruncate(self._fd, self._size)
            self.rows = read_jsonl(self.path)
            _sync_directory(self.path.parent)
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, line: str) -> None:
        """Adds `line` (JSON text), or leaves the file as it was."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            with disk_errors(self.path):
                written = 0
                while written < len(data):
                    written += os.write(self._fd, data[written:])
                if self._sync:
                    os.fsync(self._fd)
        except BaseException:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def append_row(self, row: Any) -> None:
        """Adds `row` as plain JSON with sorted keys."""
        self.append(_encode(without_nan(to_plain(row))))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sync_directory(path: Path) -> None:
    # Without it a rename or a new file may not outlive a power loss.
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# JSON


def _encode(value: Json, indent: int | None = None) -> str:
    return json.dumps(
        value, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False
    )


def to_plain(value: Any) -> Any:
    """`value` as JSON gives it back: tuples as lists, keys as strings, no arrays."""
    return json.loads(json.dumps(value, default=to_json))


def without_nan(value: Any) -> Any:
    """Plain JSON `value` with None for every number that is not finite."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value: Any) -> Any:
    """`json.dumps(default=...)`: arrays and their scalars, or a one-line TypeError."""
    if hasattr(value, "tolist"):  # numpy and jax arrays and scalars
        return value.tolist()
    raise TypeError(
        f"{type(value).__name__} {value!r:.60} cannot be stored as JSON; convert it to "
        "dicts, lists, strings or numbers first"
    )


_RESTORE = "restore the file, or delete it to start again"


def _decode_line(
    path: str | Path, number: int, line: bytes, fix: str = _RESTORE
) -> Json:
    try:
        return reading.decode_json(line)
    except ValueError as error:
        raise bad_line(path, number, str(error), fix) from None


def bad_line(
    path: str | Path, number: int, why: str, fix: str = _RESTORE
) -> ValueError:
    """The error for a whole line that no kill can have left."""
    return ValueError(f"{path} line {number}: must be one JSON entry ({why}); {fix}")
