"""Numbers by step: metrics.jsonl, and whatever else is to show them.

metrics.jsonl is the record; TensorBoard and the other `writers` are derived from it. A
resumed run does again what it had begun but not finished, and logs some steps a second
time. So at opening, metrics.jsonl is read, every (step, name) pair in it is known, and
logging a known pair does nothing. The TensorBoard file is then written anew from those
rows: a kill between the two writes leaves no gap and no double point. The others are
given the rows that they do not have.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from seal_jax.runtime import files, writers

FILE_NAME = "metrics.jsonl"
_MOST_STEPS = 1 << 62  # TensorBoard has 64 bits for them.
_RESERVED = ("step", "time")


class Log(Protocol):
    """Where numbers by step go."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Adds values of a step."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Metrics:
    """Writes scalars to `workdir`/metrics.jsonl and to `watch.writers`.

    A row of metrics.jsonl is {"step": int, "time": Unix seconds, name: value, ...}. A
    value that is not finite is null there (and NaN elsewhere after a resume).

    Args:
      workdir: of the run.
      watch: the writers.
      config: of the run, for writers that show it.
      say: takes a line on where a writer is to be seen, and one where one fails.
      clock: Unix seconds.

    Raises:
      ValueError: at opening, a malformed metrics.jsonl, or a writer that cannot be
        opened; at `log`, a reserved name.
      files.DiskFullError: no room for metrics.jsonl.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        watch: writers.WatchConfig = writers.TENSORBOARD,
        config: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
    ):
        self._clock = clock
        # No fsync per row: the page cache outlives a killed process, and a metric is
        # no unit of work.
        self._lines = files.Lines(Path(workdir) / FILE_NAME, sync=False)
        self._known: set[tuple[int, str]] = set()
        try:
            # All are looked at before any is written out again.
            rows = [self._row(i, row) for i, row in enumerate(self._lines.rows, 1)]
            self._known = {(step, name) for step, _, row in rows for name in row}
            self._writers = writers.Writers(
                watch, Path(workdir), config or {}, rows, say=say, clock=clock
            )
        except BaseException:
            self._lines.close()
            raise
        self._lines.rows = []

    def _row(
        self, number: int, row: files.Json
    ) -> tuple[int, float, dict[str, float | None]]:
        match row:
            case {"step": int(step), "time": float() | int() as when, **values}:
                numbers = [when, *(v for v in values.values() if v is not None)]
            case _:
                raise files.bad_line(self._lines.path, number, "no step or time")
        numbers.append(step)
        if not all(map(_is_number, numbers)) or abs(step) > _MOST_STEPS:
            raise files.bad_line(self._lines.path, number, "a value is no number")
        return step, when, values

    def log(self, step: int, values: dict[str, float]) -> None:
        """Adds the values whose (step, name) is not on record yet."""
        for name in values:
            if name in _RESERVED:
                raise ValueError(
                    f"metric {name!r}: must not be one of {_RESERVED}, which "
                    f"{FILE_NAME} uses itself; rename it"
                )
        new = {k: float(v) for k, v in values.items() if (step, k) not in self._known}
        if not new:
            return
        now = self._clock()
        self._lines.append_row({"step": int(step), "time": now} | new)
        self._writers.write(step, now, new)
        self._known |= {(step, name) for name in new}

    def close(self) -> None:
        self._lines.close()
        self._writers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forget(workdir: str | Path, stale: Callable[[str], bool]) -> None:
    """Takes the values of names that are `stale` out of a closed metrics.jsonl.

    Raises:
      ValueError: a whole line that is not JSON.
    """
    path = Path(workdir) / FILE_NAME
    if not path.exists():
        return
    rows = [
        {k: v for k, v in row.items() if not stale(k)} if isinstance(row, dict) else row
        for row in files.read_jsonl(path)
    ]
    # What `Metrics` refuses stays, for it to say so.
    kept = [row for row in rows if not (isinstance(row, dict) and _empty(row))]
    files.write_jsonl(path, kept)


def _empty(row: dict[str, Any]) -> bool:
    return row.keys() == set(_RESERVED)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class NullMetrics:
    """The metrics of a process that leaves writing to another one."""

    def log(self, step: int, values: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
