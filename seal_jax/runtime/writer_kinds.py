"""The places that show a run's numbers: TensorBoard, Weights & Biases, trackio.

`WRITERS` has a row for each. A package is imported when it is used. No key is read or
kept here: W&B and the Hugging Face hub have their own places for it.
"""

import contextlib
import dataclasses
import io
import math
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from seal_jax.runtime import files

TENSORBOARD_NAME = "tensorboard"
# Seconds to wait for uploads at the end; what is left can be sent later.
_FINISH = 60.0

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
    rows are written again at every start; else a start continues after those that it
    has.
    """

    package: str
    open: Callable[[Target], Writer]
    check: Callable[[], None] = lambda: None
    anew: bool = False


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
