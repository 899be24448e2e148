"""How far a long phase is, on the terminal or as plain lines of a log.

On a terminal one line is alive while a phase lasts, and gives way to the line that a
log has at its end. A log gets whole lines only, more of them at first than later, and
one now and then where nothing has finished for long, so that it is seen to live.
"""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

import rich.console
import rich.progress
import rich.table
import rich.text

from seal_jax.runtime.formatting import count as counted
from seal_jax.runtime.formatting import duration, three_digits

# Seconds between lines of a log: at first, and after that many times as long in all.
_FIRST, _SHARE, _MOST = 10.0, 0.2, 300.0


class Advance(Protocol):
    """`count` more units are finished; `note`: how, in a few words."""

    def __call__(self, count: int = 1, note: str = "") -> None: ...


class Whole:
    """How far the run is that a phase is a part of, in units of its costliest work.

    Args:
      total: units, about.
      done: of them, by earlier starts of the run.
      unit: their name.
      clock: seconds.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.unit, self.done = max(total, done), unit, done
        self._first, self._clock, self._begin = done, clock, clock()

    def add(self, count: int) -> None:
        self.done += count
        # Counted beforehand from the config, and so not to the last one.
        self.total = max(self.total, self.done)

    def text(self) -> str:
        """For the end of a line: how much of the run is done, and when it may end.

        By the units of this start and all its time, so that what else phases do counts.
        """
        shown = f"{counted(self.done)} of about {counted(self.total)} {self.unit}"
        return f"run: {shown}{self._left()}"

    def brief(self) -> str:
        """The same in fewer words."""
        share = self.done / self.total if self.total else 1.0
        return f"run {share:.0%}{self._left()}"

    def _left(self) -> str:
        since = self.done - self._first
        if not since:
            return ""
        left = (self.total - self.done) * (self._clock() - self._begin) / since
        return f", about {duration(left)} left"


@contextlib.contextmanager
def progress(
    total: int,
    desc: str,
    unit: str,
    *,
    done: int = 0,
    visible: bool = True,
    whole: Whole | None = None,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Advance]:
    """Shows how far a long phase is, with its rate and the time left.

        with progress(750, "adapt", "adapters") as advance:
            for chunk in chunks:
                train(chunk)
                advance(len(chunk))

    `done` units were finished by an earlier run: they count as progress, not as speed.

    Args:
      visible: False shows nothing, for a process that is not to speak.
      whole: the run, if these are its units; it is counted even where nothing is shown.
      stream: where to; standard error if None.

    Yields:
      advance(count=1, note=""): `count` more units are finished.
    """
    state = _State(total, desc, unit, whole, done, clock)
    if not visible:
        yield state.add
        return
    out = stream or sys.stderr
    with _bar(out, state) if out.isatty() else _lines(out, state) as advance:
        yield advance
    print(state.line(last=True), file=out, flush=True)


@dataclasses.dataclass
class _State:
    """What is known of a phase, and how that reads."""

    total: int
    desc: str
    unit: str
    whole: Whole | None
    done: int
    clock: Callable[[], float]

    def __post_init__(self):
        self.begin, self.begun_at, self.note = self.clock(), self.done, ""

    def add(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self.note = note or self.note
        if self.whole is not None:
            self.whole.add(count)

    @property
    def spent(self) -> float:
        return self.clock() - self.begin

    @property
    def rate(self) -> float:
        since = self.done - self.begun_at
        return since / self.spent if self.spent > 0 else 0.0

    def live(self) -> str:
        """As short as it can be, for one line of a terminal."""
        parts = [f"{self.desc} {self.done}/{self.total}"]
        parts += [f"{three_digits(self.rate)}/s"] if self.rate else []
        whole = f"; {self.whole.brief()}" if self.whole is not None else ""
        return f"{', '.join([*parts, self._time()])}{whole}"

    def _time(self) -> str:
        if self.rate:
            return f"{duration((self.total - self.done) / self.rate)} left"
        return f"{duration(self.spent)} so far"

    def line(self, *, last: bool = False) -> str:
        parts = [f"{self.desc}: {self.done}/{self.total} {self.unit}"]
        if self.rate:
            parts.append(f"{three_digits(self.rate)} {self.unit}/s")
        parts.append(f"took {duration(self.spent)}" if last else self._time())
        more = [self.note, self.whole.text() if self.whole is not None else ""]
        return "; ".join([", ".join(parts), *filter(None, more)])


@contextlib.contextmanager
def _lines(out: TextIO, state: _State) -> Iterator[Advance]:
    """Lines of a log: when units finish, and from a thread where none does."""
    lock, ended = threading.Lock(), threading.Event()
    due = state.clock() + _FIRST

    def show() -> None:
        nonlocal due
        if (now := state.clock()) >= due:
            due = now + min(max(_FIRST, _SHARE * state.spent), _MOST)
            print(state.line(), file=out, flush=True)

    def advance(count: int = 1, note: str = "") -> None:
        with lock:
            state.add(count, note)
            if state.done < state.total:  # The end has a line of its own.
                show()

    def heartbeat() -> None:
        # As long again: where units finish in time, their lines are enough.
        while not ended.wait(max(_FIRST, due - state.clock() + _FIRST)):
            with lock, contextlib.suppress(OSError, ValueError):
                show()

    # A daemon: it ends with the process, whatever else does not.
    thread = threading.Thread(target=heartbeat, name="progress", daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _bar(out: TextIO, state: _State) -> Iterator[Advance]:
    """One line of a terminal, redrawn a few times a second, gone at the end."""
    columns = rich.progress.BarColumn(bar_width=12), _Live(state)
    bar = rich.progress.Progress(
        *columns,
        console=rich.console.Console(file=out),
        transient=True,
        # What is printed meanwhile goes above the bar; but not what goes to a file.
        redirect_stdout=sys.stdout.isatty(),
    )

    with bar:
        task = bar.add_task("", total=state.total, completed=state.done)

        def advance(count: int = 1, note: str = "") -> None:
            state.add(count, note)
            bar.advance(task, count)

        yield advance


class _Live(rich.progress.ProgressColumn):
    """A phase in words; what a narrow terminal has no room for is left out."""

    def __init__(self, state: _State):
        column = rich.table.Column(no_wrap=True, overflow="ellipsis")
        super().__init__(table_column=column)
        self._state = state

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        del task  # The state is newer: its clock runs on.
        return rich.text.Text(self._state.live(), no_wrap=True, overflow="ellipsis")
