"""What reports read from a workdir.

Everything here is tolerant: what a run did not record reads as None.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Concatenate

from seal_jax.runtime import files, formatting, metrics, reading, records

SUMMARY_NAME = "summary.json"
EDITS_NAME = "edits.jsonl"
HELDOUT_NAME = "heldout.jsonl"
ITEMS_NAME = "items.jsonl"

# Of summary.json: a run over sequences of passages, one on the job, one over passages
# together, and one without labels.
CONTINUAL, DEPLOY, POOLED, OVER_SEEDS = "continual", "deploy", "pooled", "over_seeds"
LMSI = "lmsi"
# Of pairs in the report: what they are over, by the kind of run.
OVER = {CONTINUAL: "sequence", DEPLOY: "stream", LMSI: "question"}


def reading_from(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """The boundary of what reads a workdir or a file of results, and shows it."""
    return reading.boundary(
        path,
        wrong="must be as it was written, and is not",
        fix="restore it, or run or download it again",
    )


def bounded[**P, T](
    read: Callable[Concatenate[str | Path, P], T],
) -> Callable[Concatenate[str | Path, P], T]:
    """A reader whose first argument is a path, within `reading_from` that path."""

    @functools.wraps(read)
    def within(path: str | Path, *args: P.args, **kwargs: P.kwargs) -> T:
        with reading_from(path):
            return read(path, *args, **kwargs)

    return within


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
        Path(os.path.realpath(path)).name,
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
            if name not in ("step", "time") and formatting.measured(value) is not None:
                series.setdefault(name, []).append((row.get("step", 0), value))
    return series


def _rows_of(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [row for row in files.read_jsonl(path) if isinstance(row, dict)]


def rows(summary: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects under `key`, empty without one."""
    entries = summary.get(key)
    return (
        [r for r in entries if isinstance(r, dict)] if isinstance(entries, list) else []
    )


def seconds(summary: dict[str, Any]) -> dict[str, float]:
    """Measured seconds by phase, the longest first."""
    recorded = summary.get("seconds")
    phases = recorded.items() if isinstance(recorded, dict) else ()
    measured = {k: float(v) for k, v in phases if formatting.measured(v) is not None}
    return dict(sorted(measured.items(), key=lambda item: -item[1]))


def cost(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, text): time, adapters and tokens, with rates over the adapting phases."""
    phases = seconds(summary)
    total = sum(phases.values())
    adapting = sum(s for name, s in phases.items() if "adapt" in name) or total
    lines = [("time", formatting.duration(total) if phases else formatting.MISSING)]
    # The program of a run over seeds counts no tokens.
    counted = ("adapters", "tokens")[: 1 if summary.get("kind") == OVER_SEEDS else 2]
    for key in counted:
        value = formatting.measured(summary.get(key))
        lines.append((key, formatting.count(value)))
        rate = value / adapting if value is not None and adapting else None
        text = formatting.MISSING if rate is None else formatting.three_digits(rate)
        lines.append((f"{key}/s", text))
    return lines
