"""Ctrl-C and SIGTERM: the process ends within seconds, in one line, wherever it is.

A signal raises nothing by itself: an exception inside one of jax's callbacks is
swallowed there, and inside a long compilation none would come. It is noted, and a
thread wakes up. Loops that train, ask or store look at the note between two steps
(`check`) and so end in order, with files closed. Where they do not come to that within
`GRACE_S`, the thread ends the process; a second signal ends it at once. Nothing that
was finished is lost either way, as after a kill.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

# Seconds for the loops to come to a `check`.
GRACE_S = 3.0
# Seconds for what is to be said before the end: a pipe that nobody reads holds it up.
_WORDS_S = 1.0
# The end's line of a command that goes on where it was.
CONTINUES = "stopped; the same command continues"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal came; raised by `check` and by nothing else."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class _Process:
    """What there is once in a process, as its signals are.

    `line` is the end's; `noted` the first signal; `units` is set inside `units()`;
    `ending` is held by the thread that ends the process; `words` run before that.
    """

    line = "stopped"
    installed = False
    noted: int | None = None
    units = False
    ending = threading.Lock()
    words: Callable[[int], None] | None = None


def install(line: str = "stopped") -> None:
    """From here on Ctrl-C and SIGTERM end this process in `line`; see the module.

    For the first line of a command, before its imports take seconds. Called again, it
    changes the line. A signal that the caller of the command ignores stays ignored.
    """
    _Process.line = line
    if _Process.installed:
        return
    _Process.installed = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    # The bytes come from C, also while the main thread runs no line of Python.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _note)


def check() -> None:
    """To be called where a unit of work is finished, or may be dropped.

    Raises:
      Stopped: a signal came.
    """
    if _Process.noted is not None:
        raise Stopped(_Process.noted)


@contextlib.contextmanager
def units() -> Iterator[None]:
    """Around work that calls `check`; outside, a signal ends the process at once."""
    before, _Process.units = _Process.units, True
    try:
        yield
    finally:
        # What a signal has stopped still has files to close.
        _Process.units = before or _Process.noted is not None


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Around a whole command: `Stopped` ends the process in its line.

    SEAL_TRACEBACK=1 shows where it was.
    """
    try:
        yield
    except Stopped as stopped:
        if os.environ.get("SEAL_TRACEBACK"):
            traceback.print_exc()
        end(128 + stopped.number)


@contextlib.contextmanager
def told(words: Callable[[int], None]) -> Iterator[None]:
    """Inside, `words` is called with the exit status before a signal ends it all."""
    before, _Process.words = _Process.words, words
    try:
        yield
    finally:
        _Process.words = before


def end(status: int, line: str | None = None) -> NoReturn:
    """Ends the process, from any thread, in one line; the command's own if None.

    What was printed goes out. Nothing is waited for: other threads may hang. A signal
    that came before has its own line and status.
    """
    if _Process.noted is not None:
        status, line = 128 + _Process.noted, None
    line = _Process.line if line is None else line
    if not _Process.ending.acquire(blocking=False):
        # Another thread is at it.
        threading.Event().wait()
    last = threading.Thread(target=_say, args=(status, line), daemon=True)
    last.start()
    last.join(_WORDS_S)
    os._exit(status)


def _say(status: int, line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            # A progress bar hides the cursor and leaves its line open.
            os.write(2, b"\x1b[?25h\n")
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode() if line else b"")
    if _Process.words is not None:
        _Process.words(status)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


def _note(number: int, frame: object) -> None:
    del frame
    if _Process.noted is None:
        _Process.noted = number


def _watch(reading: int) -> None:
    number = os.read(reading, 1)[0]
    # Ends early if another signal comes.
    select.select([reading], [], [], GRACE_S if _Process.units else 0.0)
    end(128 + number)
