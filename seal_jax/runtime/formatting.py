"""How commands write: numbers, times and tables as text, and how they end.

Numbers are tolerant: what is no finite number is written as "-".
"""

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from seal_jax.runtime import reading

MISSING = "-"
_MOST = 1e100


class Table(NamedTuple):
    """A table of texts, to print or to put on a page; the first column is names."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def measured(value: Any) -> float | None:
    """`value` if it is a number that can have been measured, and be squared."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Also false for nan.
    return float(value) if abs(value) <= _MOST else None


def number(value: Any, *, digits: int = 3) -> str:
    """1,234.568, or "-"."""
    finite = measured(value)
    return MISSING if finite is None else f"{finite:,.{digits}f}"


def signed(value: Any, *, digits: int = 3) -> str:
    """+0.012 or -0.012, or "-"."""
    finite = measured(value)
    return MISSING if finite is None else f"{finite:+,.{digits}f}"


def plus_minus(mean: float | None, se: float | None, *, digits: int = 3) -> str:
    """1.234 ± 0.056; the mean alone without a standard error, "-" for neither."""
    text = number(mean, digits=digits)
    return text if se is None else f"{text} ± {number(se, digits=digits)}"


def span(low: Any, high: Any, *, digits: int = 3) -> str:
    """0.123 to 0.456, or "-"."""
    if measured(low) is None or measured(high) is None:
        return MISSING
    return f"{number(low, digits=digits)} to {number(high, digits=digits)}"


def count(value: Any) -> str:
    """1,234, or "-"."""
    return number(value, digits=0)


def percent(value: Any, *, digits: int = 1) -> str:
    """12.3 % of a share in 0..1, or "-"."""
    finite = measured(value)
    return MISSING if finite is None else f"{100 * finite:.{digits}f} %"


def percents(low: Any, high: Any, *, digits: int = 0) -> str:
    """12 to 34 % of shares, or "-"."""
    if measured(low) is None or measured(high) is None:
        return MISSING
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"


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


def raced(seeds: int | None) -> str:
    """After the name of rewards of a race: which seeds count; nothing for None."""
    if seeds is None:
        return ""
    return f" (a race: only {'seed 1' if seeds == 1 else f'seeds 1 to {seeds}'})"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns: the first to the left, the others to the right."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first_cell, *cells in rows:
        right = [c.rjust(size) for c, size in zip(cells, sizes[1:], strict=True)]
        lines.append("  ".join([first_cell.ljust(sizes[0]), *right]).rstrip())
    return "\n".join(lines)


def ruled(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same under a head, which a rule as wide as all columns sets off."""
    sizes = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = "-" * (sum(sizes) + 2 * (len(sizes) - 1))
    first, *others = aligned([head, *rows]).split("\n")
    return "\n".join([first, rule, *others])


def exit_status(work: Callable[[], None]) -> int:
    """Does the work of a command that prints: 0, or 2 after an error in one line.

    SEAL_TRACEBACK=1 shows where it came from.
    It ends quietly where what it prints is read no further (`... | head`).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path or a text may hold what UTF-8 cannot say.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        work()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer is written at exit, and would fail again.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (ValueError, OSError) as error:
        if os.environ.get("SEAL_TRACEBACK"):
            raise
        print(f"error: {reading.printable(str(error))}", file=sys.stderr)
        return 2
    return 0


def size(count: int) -> str:
    """Bytes for people: 3.2 GB, 45 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
