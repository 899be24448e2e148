"""A run's numbers by step, in the places that its config names (`watch.writers`).

What cannot work there (no package, no login) is found by `check`, before anything is
compiled. After the start a place that fails is left out, in one line, and the run goes
on: metrics.jsonl has everything, and a later start of the same run sends what is
missing.
"""

import contextlib
import dataclasses
import importlib.util
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seal_jax.runtime import config_rules, files, reading
from seal_jax.runtime.writer_kinds import (
    WRITERS,
    CannotWatchError,
    Row,
    Target,
    Values,
    Writer,
)

STATE_NAME = "writers.json"
# Seconds within which a killed process may not have passed on what it was given.
_LAG = 5.0


@dataclasses.dataclass(frozen=True)
class WatchConfig:
    """Where a run can be watched; nothing that it comes to depends on this.

    `writers`: rows of `WRITERS`, besides metrics.jsonl. `project`: under what W&B and
    trackio keep the run.
    """

    writers: tuple[str, ...]
    project: str

    def __post_init__(self):
        for name in self.writers:
            config_rules.one_of("watch.writers", name, WRITERS)
        config_rules.distinct("watch.writers", self.writers)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", self.project):
            raise ValueError(
                f"watch.project={config_rules.shown(self.project)} must be a name of "
                "at most 64 letters, digits, '-', '_' and '.'; use 'seal'"
            )


def check(cfg: WatchConfig) -> None:
    """Refuses writers that cannot work here: no package, no login.

    Raises:
      ValueError: see above, in one line.
    """
    for name in cfg.writers:
        kind = WRITERS[name]
        if importlib.util.find_spec(kind.package) is None:
            raise CannotWatchError(
                f"watch.writers names {name!r}, and its package is not installed; pip "
                f"install 'seal-jax[{name}]', or leave it out"
            )
        with _explained(name, "cannot be used"):
            kind.check()


def _explained(name: str, wrong: str) -> contextlib.AbstractContextManager[None]:
    return reading.boundary(
        f"watch.writers: {name!r}",
        wrong=wrong,
        fix="correct that, or leave it out",
        foreign=True,
    )


class Writers:
    """The open writers of a run.

    Args:
      cfg: which they are.
      workdir: of the run.
      config: of the run, for those that show it.
      rows: all that is on record already.
      say: takes a line on where each is to be seen, and one on each that fails.
      clock: seconds.

    Raises:
      ValueError, OSError: one cannot be opened.
    """

    def __init__(
        self,
        cfg: WatchConfig,
        workdir: Path,
        config: Mapping[str, Any],
        rows: Sequence[Row],
        *,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ):
        self._say, self._clock, self._path = say, clock, workdir / STATE_NAME
        self._open: dict[str, Writer] = {}
        self._state = self._read_state()
        # Rows that each has: as of now, and as of the last look at the clock.
        self._rows: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        # And that each of `_state` had when this began.
        self._first: dict[str, int] = {}
        self._looked = clock()
        try:
            for name in cfg.writers:
                self._begin(name, cfg.project, workdir, config, rows)
            self._save(self._rows)
        except BaseException:
            self.close()
            raise

    def _begin(
        self,
        name: str,
        project: str,
        workdir: Path,
        config: Mapping[str, Any],
        rows: Sequence[Row],
    ) -> None:
        kind, known = WRITERS[name], self._state.get(name)
        has = 0 if known is None or kind.anew else min(known["rows"], len(rows))
        own = secrets.token_hex(4) if known is None else known["id"]
        target = Target(workdir, project, config, own, known is not None, self._clock())
        with _explained(name, "cannot be opened"):
            self._open[name] = kind.open(target)
        if not kind.anew:
            # Before the first row: a start after a kill must find the same id.
            self._state[name] = {"id": own, "rows": has}
            self._first[name] = has
            self._save({})
            self._say(f"watch: {name}: {self._open[name].where}")
        self._rows[name] = has
        for row in rows[has:]:
            self._write(name, row)

    def _read_state(self) -> dict[str, dict[str, Any]]:
        state = files.read_json(self._path) if files.is_file(self._path) else {}
        match state:
            case {**entries} if all(map(_is_state, entries.values())):
                return entries
        raise ValueError(
            f'{self._path}: must hold {{"WRITER": {{"id": TEXT, "rows": NUMBER}}}}; '
            "restore it, or delete it to begin new runs there"
        )

    def write(self, step: int, when: float, values: Values) -> None:
        """Gives a row to all of them."""
        for name in list(self._open):
            self._write(name, (step, when, values))
        if self._state and self._clock() - self._looked >= _LAG:
            self._save(self._seen)
            self._seen, self._looked = dict(self._rows), self._clock()

    def _write(self, name: str, row: Row) -> None:
        if name not in self._open:  # It failed.
            return
        with self._spared(name):
            self._open[name].write(*row)
            self._rows[name] += 1

    @contextlib.contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        """Leaves a writer out that fails within."""
        try:
            yield
        except Exception as error:
            failed = self._open.pop(name, None)
            self._say(
                f"watch: {name} is left out from here on ({reading.reason(error)}); "
                "metrics.jsonl has everything, and the next start of this run tries "
                "again"
            )
            if failed is not None:
                with contextlib.suppress(Exception):
                    self._end(name, failed)

    def _save(self, rows: Mapping[str, int]) -> None:
        for name, entry in self._state.items():
            entry["rows"] = max(entry["rows"], rows.get(name, 0))
        if self._state:
            files.write_json(self._path, self._state)

    def _end(self, name: str, writer: Writer) -> None:
        """Closes a writer; if that fails, nothing given since the start counts."""
        try:
            writer.close()
        except Exception:
            if name in self._first:
                first = self._first[name]
                self._rows[name] = self._seen[name] = first
                self._state[name]["rows"] = first
            raise

    def close(self) -> None:
        for name in list(self._open):
            with self._spared(name):
                self._end(name, self._open.pop(name))
        self._save(self._rows)


def _is_state(entry: Any) -> bool:
    match entry:
        case {"id": str(), "rows": bool()}:
            return False
        case {"id": str(), "rows": int(rows), **rest}:
            return rows >= 0 and not rest
    return False


# What a run has whose config says nothing of it.
TENSORBOARD = WatchConfig(("tensorboard",), "seal")
