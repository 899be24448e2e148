"""How far a long phase is, on the terminal or as plain lines of a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import rich.console
import rich.progress

from seal_jax.runtime.formatting import duration, three_digits


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
    interval: float = 10.0,
) -> Iterator[Callable[..., None]]:
    """Shows how far a long phase is, with its rate and the time left.

        with progress(750, "adapt", "adapters") as advance:
            for chunk in chunks:
                train(chunk)
                advance(len(chunk))

    On a terminal this is a bar. Elsewhere it is a plain line at most every `interval`
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
        if clock() - shown >= interval:
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
