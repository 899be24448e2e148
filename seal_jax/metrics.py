"""Numbers by step (metrics.jsonl and TensorBoard), and progress on the terminal.

metrics.jsonl is the record; the TensorBoard file is derived from it. A resumed run does
again what it had begun but not finished, and logs some steps a second time. So at
opening, metrics.jsonl is read, every (step, name) pair in it is known, and logging a
known pair does nothing. The TensorBoard file is then written anew from those rows: a
kill between the two writes leaves no gap and no double point.
"""

import contextlib
import math
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TextIO

import rich.console
import rich.progress
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer import record_writer

from seal_jax import files

FILE_NAME = "metrics.jsonl"
TENSORBOARD_NAME = "tensorboard"
_RESERVED = ("step", "time")

# protobuf makes these classes at import, out of a type checker's sight.
_Event = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
_Summary = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]


class Metrics:
    """Writes scalars to `workdir`/metrics.jsonl and `workdir`/tensorboard.

    A row of metrics.jsonl is {"step": int, "time": Unix seconds, name: value, ...}. A
    value that is not finite is null there (and NaN in TensorBoard after a resume).

    Raises:
      ValueError: at opening, a malformed metrics.jsonl; at `log`, a reserved name.
      files.DiskFullError: no room.
    """

    def __init__(self, workdir: str | Path, *, clock: Callable[[], float] = time.time):
        self._clock = clock
        # No fsync per row: the page cache outlives a killed process, and a metric is
        # no unit of work.
        self._lines = files.Lines(Path(workdir) / FILE_NAME, sync=False)
        self._events = _Events(Path(workdir) / TENSORBOARD_NAME, clock())
        self._known: set[tuple[int, str]] = set()
        try:
            for number, row in enumerate(self._lines.rows, start=1):
                self._replay(number, row)
        except BaseException:
            self.close()
            raise
        self._lines.rows = []

    def _replay(self, number: int, row: files.Json) -> None:
        match row:
            case {"step": int(step), "time": float() | int() as when, **values}:
                self._known |= {(step, name) for name in values}
                self._events.write(step, when, values)
            case _:
                raise files.bad_line(self._lines.path, number, "no step or time")

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
        self._events.write(step, now, new)
        self._known |= {(step, name) for name in new}

    def close(self) -> None:
        self._lines.close()
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Unwritten(Metrics):
    """The metrics of a process that leaves writing to another one."""

    def __init__(self):
        pass

    def log(self, step: int, values: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class _Events:
    """One TensorBoard event file, the only one in its directory."""

    def __init__(self, directory: Path, now: float):
        with files.disk_errors(directory):
            directory.mkdir(exist_ok=True)
        for old in directory.glob("events.out.tfevents.*"):
            old.unlink()
        # The name is TensorBoard's own pattern: time, host.
        self._path = directory / f"events.out.tfevents.{now:.0f}.{socket.gethostname()}"
        with files.disk_errors(self._path):
            self._writer = record_writer.RecordWriter(self._path.open("wb"))
        self._put(_Event(wall_time=now, file_version="brain.Event:2"))

    def write(self, step: int, when: float, values: Mapping[str, float | None]) -> None:
        scalars = [
            _Summary.Value(tag=name, simple_value=math.nan if value is None else value)
            for name, value in values.items()
        ]
        summary = _Summary(value=scalars)
        self._put(_Event(wall_time=when, step=step, summary=summary))

    def _put(self, event: Any) -> None:
        with files.disk_errors(self._path):
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    def close(self) -> None:
        self._writer.close()


@contextlib.contextmanager
def progress(
    total: int,
    desc: str,
    unit: str,
    *,
    done: int = 0,
    visible: bool = True,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    every: float = 10.0,
) -> Iterator[Callable[..., None]]:
    """Shows how far a long phase is, with its rate and the time left.

        with metrics.progress(750, "adapt", "adapters") as advance:
            for chunk in chunks:
                train(chunk)
                advance(len(chunk))

    On a terminal this is a bar. Elsewhere it is a plain line at most every `every`
    seconds and one at the end, so that logs stay readable. `done` units were finished
    by an earlier run: they count as progress, not as speed.

    Args:
      visible: False shows nothing, for a process that is not to speak.
      stream: where to; standard error if None.

    Yields:
      advance(count=1): `count` more units are finished.
    """
    if not visible:
        yield lambda count=1: None
        return
    out = stream or sys.stderr
    if out.isatty():
        with _bar(out) as bar:
            task = bar.add_task(desc, total=total, completed=done, unit=unit)
            yield lambda count=1: bar.advance(task, count)
        return
    state = _Plain(total, desc, unit, done, clock())
    shown = clock()

    def advance(count: int = 1) -> None:
        nonlocal shown
        state.done += count
        if clock() - shown >= every:
            shown = clock()
            print(state.line(shown), file=out, flush=True)

    yield advance
    print(state.line(clock(), last=True), file=out, flush=True)


class _Plain:
    """The plain line of a phase that is `done` of `total`."""

    def __init__(self, total: int, desc: str, unit: str, done: int, begin: float):
        self.total, self.desc, self.unit = total, desc, unit
        self.begun_at, self.begin = done, begin
        self.done = done

    def line(self, now: float, *, last: bool = False) -> str:
        spent = now - self.begin
        rate = (self.done - self.begun_at) / spent if spent > 0 else 0.0
        parts = [f"{self.desc}: {self.done}/{self.total} {self.unit}"]
        if rate:
            parts.append(f"{three_digits(rate)} {self.unit}/s")
        if last:
            parts.append(f"took {duration(spent)}")
        elif rate:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        return ", ".join(parts)


def _bar(out: TextIO) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        _RateColumn(),
        rich.progress.TimeRemainingColumn(),
        console=rich.console.Console(file=out),
    )


class _RateColumn(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> str:
        speed = task.finished_speed or task.speed
        rate = three_digits(speed) if speed else "-"
        return f"{rate} {task.fields['unit']}/s"


def three_digits(value: float) -> str:
    """0.0123, 4.56, 78.9, 1,234."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """45 s, 3:05 min, 2:00:09 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"
