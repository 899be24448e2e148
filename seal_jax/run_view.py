"""What reports read from a workdir, and how they write numbers.

Everything here is tolerant: what a run did not record reads as None, and shows as "-".
"""

import dataclasses
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seal_jax import files, metrics, records

SUMMARY_NAME = "summary.json"
EDITS_NAME = "edits.jsonl"
HELDOUT_NAME = "heldout.jsonl"
ITEMS_NAME = "items.jsonl"
MISSING = "-"

# Fewer items than this make neither a z nor an interval.
FEWEST = 5
# Of summary.json: a run over sequences of passages, and one over passages together.
CONTINUAL, POOLED = "continual", "pooled"


class Table(NamedTuple):
    """A table of texts, to print or to put on a page; the first column is names."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A finished run as its files tell of it; `path` is None for a lone summary."""

    name: str
    summary: dict[str, Any]
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    edits: Sequence[dict[str, Any]] = ()
    path: Path | None = None

    @property
    def kind(self) -> str | None:
        """What summary.json says of the kind of run."""
        kind = self.summary.get("kind")
        return kind if isinstance(kind, str) else None


def read_workdir(path: str | Path) -> Workdir:
    """All that reports compare of a finished run.

    Raises:
      ValueError: not a workdir, or the run has not finished.
    """
    path = Path(path)
    return Workdir(
        path.resolve().name,
        read_summary(path),
        read_config(path),
        read_edits(path),
        path,
    )


def read_summary(workdir: str | Path) -> dict[str, Any]:
    """The summary.json of a finished run.

    Raises:
      ValueError: not a workdir, or the run has not finished.
    """
    path = Path(workdir) / SUMMARY_NAME
    if not path.is_file():
        if (Path(workdir) / records.CONFIG_NAME).is_file():
            raise ValueError(
                f"{workdir}: the run has not finished ({SUMMARY_NAME} is missing); "
                "start it again with the same command to continue"
            )
        raise ValueError(
            f"{workdir}: must be a workdir with a {SUMMARY_NAME}, or a SEAL result "
            "file; give one of these"
        )
    summary = files.read_json(path)
    if not isinstance(summary, dict):
        raise ValueError(f"{path}: must be a JSON object; run the same command again")
    return summary


def read_config(workdir: str | Path) -> dict[str, Any]:
    """The config.json, {} without one."""
    path = Path(workdir) / records.CONFIG_NAME
    config = files.read_json(path) if path.is_file() else {}
    return config if isinstance(config, dict) else {}


def read_edits(workdir: str | Path) -> list[dict[str, Any]]:
    """The rows of edits.jsonl, none without one."""
    return _rows_of(Path(workdir) / EDITS_NAME)


def read_heldout(workdir: str | Path) -> list[dict[str, Any]]:
    """The rows of heldout.jsonl, none without one."""
    return _rows_of(Path(workdir) / HELDOUT_NAME)


def read_items(workdir: str | Path) -> list[dict[str, Any]]:
    """The rows of items.jsonl, none without one."""
    return _rows_of(Path(workdir) / ITEMS_NAME)


def read_metrics(workdir: str | Path) -> dict[str, list[tuple[int, float]]]:
    """{name: [(step, value), ...]} from metrics.jsonl, without the missing values."""
    series: dict[str, list[tuple[int, float]]] = {}
    for row in _rows_of(Path(workdir) / metrics.FILE_NAME):
        for name, value in row.items():
            if name not in ("step", "time") and measured(value) is not None:
                series.setdefault(name, []).append((row.get("step", 0), value))
    return series


def _rows_of(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [row for row in files.read_jsonl(path) if isinstance(row, dict)]


def rows(summary: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects under `key`, empty without one."""
    found = summary.get(key)
    return [r for r in found if isinstance(r, dict)] if isinstance(found, list) else []


def measured(value: Any) -> float | None:
    """`value` if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def seconds(summary: dict[str, Any]) -> dict[str, float]:
    """Measured seconds by phase, the longest first."""
    found = summary.get("seconds")
    phases = found.items() if isinstance(found, dict) else ()
    known = {k: float(v) for k, v in phases if measured(v) is not None}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def cost(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, text): time, adapters and tokens, with rates over the adapting phases."""
    phases = seconds(summary)
    total = sum(phases.values())
    adapting = sum(s for name, s in phases.items() if "adapt" in name) or total
    lines = [("time", metrics.duration(total) if phases else MISSING)]
    for key in ("adapters", "tokens"):
        value = measured(summary.get(key))
        lines.append((key, count(value)))
        rate = value / adapting if value is not None and adapting else None
        text = MISSING if rate is None else metrics.three_digits(rate)
        lines.append((f"{key}/s", text))
    return lines


def number(value: Any, *, digits: int = 3) -> str:
    """1,234.568, or "-"."""
    known = measured(value)
    return MISSING if known is None else f"{known:,.{digits}f}"


def signed(value: Any, *, digits: int = 3) -> str:
    """+0.012 or -0.012, or "-"."""
    known = measured(value)
    return MISSING if known is None else f"{known:+,.{digits}f}"


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
    known = measured(value)
    return MISSING if known is None else f"{100 * known:.{digits}f} %"


def percents(low: Any, high: Any, *, digits: int = 0) -> str:
    """12 to 34 % of shares, or "-"."""
    if measured(low) is None or measured(high) is None:
        return MISSING
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"


def raced(seeds: int | None) -> str:
    """After the name of rewards of a race: which seeds count; nothing for None."""
    if seeds is None:
        return ""
    return f" (a race: only {'seed 1' if seeds == 1 else f'seeds 1 to {seeds}'})"


def enough(count: Any) -> bool:
    """Whether `count` items make a z and an interval; so do those nobody counted."""
    known = measured(count)
    return known is None or known >= FEWEST


def exit_status(work: Callable[[], None]) -> int:
    """Does the work of a command that prints: 0, or 2 after an error in one line.

    It ends quietly where what it prints is read no further (`... | head`).
    """
    try:
        work()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer is written at exit, and would fail again.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


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
