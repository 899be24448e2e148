"""The journal of a run: finished units of work, by which a killed run resumes.

Each finished unit of work is one entry, and the same command run again finds it there
instead of doing it again. The journal is read by nobody else, so it keeps NaN and
infinities as Python's json spells them.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

from seal_jax.runtime import files, interrupts


class Share(Protocol):
    """How the processes of a run agree on a value: all get the first one's `fn()`."""

    def __call__[T](self, fn: Callable[[], T], /) -> T: ...


def alone[T](fn: Callable[[], T], /) -> T:
    """The `Share` of a single process."""
    return fn()


_MORE = {"sum"}


def _sum(key: str, text: str) -> int:
    """CRC-32 of an entry: its value's JSON text as `json.dumps` writes it."""
    return zlib.crc32(f"{key}\n{text}".encode())


class Journal:
    """Finished units of work, by key, on disk before `put` returns.

    A unit is one line {"key": ..., "value": ..., "sum": ...}; by the sum, a line that
    was altered is found at opening. A value goes through JSON on its way in (a tuple
    becomes a list, an array its nested lists, a non-string key a string), so the value
    a first run works with is the value a resumed run reads back: floats bit for bit,
    NaN and infinities too. Every `get` builds the value anew; changing it changes
    nothing here.

    With several processes one of them writes, and `share` hands what it stores to the
    others, so that all hold the same entries. All processes must then open the journal
    and come to each `put` in the same order; the value of the one that writes counts.

    Args:
      writes: whether this process has the file; False needs a `share` between
        processes.
      share: how the processes agree.
      summed: whether all lines must have a sum; False: those after the first that has
        one.

    Raises:
      ValueError: at opening, a whole line that is not such an entry, or was altered.
      DiskFullError: at `put`; the journal keeps what it had.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        writes: bool = True,
        share: Share = alone,
        summed: bool = False,
    ):
        self._share, self._summed = share, summed
        self._lines = files.Lines(path) if writes else None
        self._texts = share(self._read)

    def _read(self) -> dict[str, str]:
        """{key: value as JSON text} of the file."""
        texts: dict[str, str] = {}
        if self._lines is None:
            return texts
        summed = self._summed
        for number, row in enumerate(self._lines.rows, start=1):
            wrong = 'not {"key": ..., "value": ...}'
            match row:
                case {"key": str(key), "value": value, **rest} if rest.keys() <= _MORE:
                    texts[key] = json.dumps(value)
                    summed = summed or "sum" in rest
                    if not summed or rest.get("sum") == _sum(key, texts[key]):
                        continue
                    wrong = "altered since it was written: its sum is another"
            self._lines.close()
            raise files.bad_line(self._lines.path, number, wrong)
        self._lines.rows = []
        return texts

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def __len__(self) -> int:
        return len(self._texts)

    def keys(self) -> list[str]:
        """All keys, in the order they were first stored."""
        return list(self._texts)

    def get(self, key: str) -> files.Json:
        """The value last stored under `key`; KeyError without one."""
        return json.loads(self._texts[key])

    def put(self, key: str, value: Any) -> None:
        """Stores `value`; an earlier entry of the same key is superseded.

        A unit ends here, and so does a run that is to stop (`interrupts.check`).
        """
        self._texts[key] = self._share(lambda: self._append(key, value))
        interrupts.check()

    def _append(self, key: str, value: Any) -> str:
        """Adds the entry to the file; returns its value as JSON text."""
        # As it is read back: of a key that is there twice, the last value.
        text = json.dumps(files.to_plain(value))
        if self._lines is not None:
            name, total = json.dumps(key), _sum(key, text)
            self._lines.append(f'{{"key": {name}, "value": {text}, "sum": {total}}}')
        return text

    def cached(self, key: str, fn: Callable[[], Any]) -> files.Json:
        """The stored value of `key`; without one, `fn()` is stored and read back."""
        if key not in self._texts:
            self.put(key, fn())
        return self.get(key)

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forget(path: str | Path, stale: Callable[[str], bool]) -> None:
    """Takes entries out of a journal that nobody has open: of keys that are `stale`.

    The file is replaced whole, so a kill leaves it as it was or as it is to be.

    Raises:
      ValueError: a whole line that is no entry.
    """
    lines = []
    for number, row in enumerate(files.read_jsonl(path), start=1):
        if not isinstance(row, dict) or not isinstance(row.get("key"), str):
            raise files.bad_line(path, number, 'not {"key": ..., "value": ...}')
        if not stale(row["key"]):
            lines.append(json.dumps(row) + "\n")
    files.write_text(path, "".join(lines))
