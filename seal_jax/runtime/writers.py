"""Where a run's numbers by step go besides metrics.jsonl: TensorBoard, W&B, trackio.

`WRITERS` has a row for each; a config names them in `watch.writers`. What cannot work
(no package, no login) is found by `check`, before anything is compiled. After the start
a writer that fails is left out, in one line, and the run goes on: metrics.jsonl has
everything, and a later start of the same run sends what is missing.

No key is read or kept here: W&B and the Hugging Face hub have their own places for it.
"""

import contextlib
import dataclasses
import importlib.util
import io
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from seal_jax.runtime import config_rules, files, reading

TENSORBOARD_NAME = "tensorboard"
STATE_NAME = "writers.json"
# Seconds within which a killed process may not have passed on what it was given.
_LAG = 5.0
# Seconds to wait for uploads at the end; what is left can be sent later.
_FINISH = 60.0


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


# Values of a step by name; None: not finite, as metrics.jsonl has it.
type Values = Mapping[str, float | None]
# Step, Unix seconds, values.
type Row = tuple[int, float, Values]


class CannotWatchError(ValueError):
    """A writer that does not work here; the message says which, why, what to do."""


class Writer(Protocol):
    """One of the places; `where` tells a person how to look at it."""

    where: str

    def write(self, step: int, when: float, values: Values) -> None: ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Target:
    """What a writer is opened for: a run, under an id that its workdir keeps."""

    workdir: Path
    project: str
    config: Mapping[str, Any]
    id: str
    begun: bool
    now: float

    @property
    def name(self) -> str:
        """What people call the run."""
        return Path(os.path.realpath(self.workdir)).name


@dataclasses.dataclass(frozen=True)
class Kind:
    """A row of `WRITERS`.

    `check` raises where the package's own settings do not allow it to work. `anew`: all
    rows are written again at every start; else a start continues, after those that
    `STATE_NAME` says it has.
    """

    package: str
    open: Callable[[Target], Writer]
    check: Callable[[], None] = lambda: None
    anew: bool = False


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
                    failed.close()

    def _save(self, rows: Mapping[str, int]) -> None:
        for name, entry in self._state.items():
            entry["rows"] = max(entry["rows"], rows.get(name, 0))
        if self._state:
            files.write_json(self._path, self._state)

    def close(self) -> None:
        for name in list(self._open):
            with self._spared(name):
                self._open[name].close()
        self._open.clear()
        self._save(self._rows)


def _is_state(entry: Any) -> bool:
    match entry:
        case {"id": str(), "rows": bool()}:
            return False
        case {"id": str(), "rows": int(rows), **rest}:
            return rows >= 0 and not rest
    return False


class TensorBoard:
    """One event file, the only one in its folder."""

    def __init__(self, target: Target):
        # Here, so that reading a workdir does not take them.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer import record_writer

        # protobuf makes these classes at import, out of a type checker's sight.
        self._event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        self._summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
        directory = target.workdir / TENSORBOARD_NAME
        self.where = f"tensorboard --logdir {directory}"
        with files.disk_errors(directory):
            directory.mkdir(exist_ok=True)
            for old in directory.glob("events.out.tfevents.*"):
                old.unlink()
        # The name is TensorBoard's own pattern: time, host.
        name = f"events.out.tfevents.{target.now:.0f}.{socket.gethostname()}"
        self._path = directory / name
        with files.disk_errors(self._path):
            self._writer = record_writer.RecordWriter(self._path.open("wb"))
        self._put(self._event(wall_time=target.now, file_version="brain.Event:2"))

    def write(self, step: int, when: float, values: Values) -> None:
        scalars = [
            self._summary.Value(tag=name, simple_value=_number(value))
            for name, value in values.items()
        ]
        summary = self._summary(value=scalars)
        self._put(self._event(wall_time=when, step=step, summary=summary))

    def _put(self, event: Any) -> None:
        with files.disk_errors(self._path):
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    def close(self) -> None:
        with files.disk_errors(self._path):
            self._writer.close()


class _WandBRun(Protocol):
    """What is used of `wandb.Run`; `url` is None where it is kept here."""

    url: str | None
    dir: str

    def define_metric(self, name: str, *, step_metric: str) -> object: ...
    def log(self, data: dict[str, float]) -> None: ...
    def finish(self) -> None: ...


class WandB:
    """A run of Weights & Biases, the same one at every start.

    Its own steps only ever rise, and ours do by family of names alone ("adapt/",
    "round/"): so each family has a step of its own, "adapt/step", as its axis.
    """

    def __init__(self, target: Target):
        import wandb  # pyright: ignore[reportMissingImports]

        offline = _wandb_is_offline()
        settings = wandb.Settings(
            console="off", silent=True, finish_timeout=_FINISH, init_timeout=_FINISH
        )
        self._run: _WandBRun = wandb.init(
            project=target.project,
            id=target.id,
            name=target.name,
            dir=str(target.workdir),
            config=dict(target.config),
            # Offline nobody is asked; what is sent later comes to the same run.
            resume=None if offline else "allow",
            allow_val_change=True,
            settings=settings,
        )
        self._known: set[str] = set()
        there = Path(self._run.dir).parent
        self.where = f"offline; send it by: wandb sync {there}"
        if not offline:
            self.where = self._run.url or "switched off by its own settings"

    def write(self, step: int, when: float, values: Values) -> None:
        del when
        row: dict[str, float] = {}
        for name, value in values.items():
            axis = f"{name.rpartition('/')[0]}/step".removeprefix("/")
            if name not in self._known:
                self._run.define_metric(name, step_metric=axis)
                self._known.add(name)
            row |= {name: _number(value), axis: step}
        self._run.log(row)

    def close(self) -> None:
        self._run.finish()


def _wandb_is_offline() -> bool:
    """Whether W&B's own settings (WANDB_MODE, `wandb offline`) keep it here."""
    import wandb  # pyright: ignore[reportMissingImports]

    settings = wandb.setup(wandb.Settings(silent=True)).settings
    return settings.mode in ("offline", "dryrun", "disabled")


def _check_wandb() -> None:
    if _wandb_is_offline():
        return
    import wandb  # pyright: ignore[reportMissingImports]

    if not wandb.login(prompt=False, verify=True):
        raise CannotWatchError(
            "watch.writers names 'wandb', and there is no login that its server takes "
            "(none, a wrong key, or no network); run `wandb login`, set WANDB_API_KEY "
            "or WANDB_MODE=offline, or leave it out"
        )


class _TrackioRun(Protocol):
    """What is used of `trackio.Run`."""

    def log(self, metrics: dict[str, float], *, step: int) -> None: ...


class Trackio:
    """A run of trackio: kept on this machine, or where its own variables say."""

    def __init__(self, target: Target):
        import trackio  # pyright: ignore[reportMissingImports]

        self._finish = trackio.finish
        name = f"{target.name}-{target.id}"
        with contextlib.redirect_stdout(io.StringIO()):
            self._run: _TrackioRun = trackio.init(
                project=target.project,
                name=name,
                config=dict(target.config),
                resume="allow" if target.begun else "never",
                embed=False,
            )
        self.where = f"run {name}; trackio show --project {target.project}"

    def write(self, step: int, when: float, values: Values) -> None:
        del when
        self._run.log({k: _number(v) for k, v in values.items()}, step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._finish()


def _check_trackio() -> None:
    import huggingface_hub

    if os.environ.get("TRACKIO_SPACE_ID") and huggingface_hub.get_token() is None:
        raise CannotWatchError(
            "watch.writers names 'trackio' with TRACKIO_SPACE_ID set, and nobody is "
            "logged in to the hub; run `hf auth login`, or unset it"
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


# Those that there are; their order is that of error messages.
WRITERS: dict[str, Kind] = {
    "tensorboard": Kind("tensorboard", TensorBoard, anew=True),
    "wandb": Kind("wandb", WandB, _check_wandb),
    "trackio": Kind("trackio", Trackio, _check_trackio),
}

# What a run has whose config says nothing of it.
TENSORBOARD = WatchConfig(("tensorboard",), "seal")
