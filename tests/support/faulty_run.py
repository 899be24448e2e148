"""A run that meets one fault at one moment: a program that tests start and start again.

    python -m faulty_run CONFIG WORKDIR FAULT MOMENT COUNTS [--coordinator=...]

CONFIG is a JSON file. A moment is the how-manieth time that a file of the workdir is
opened, renamed, made or removed: between any two of them the same files are there.
FAULT is "none", a signal's name, "error" or "full" (from then on the disk is).
COUNTS gains a line: how many moments there were, and what was trained.
"""

import errno
import json
import os
import pathlib
import signal
import sys
import time
from typing import Any

from seal_jax.runtime import interrupts

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
STATUS = {
    "SIGKILL": -9,
    "SIGTERM": 143,
    "SIGINT": 130,
    "error": 1,
    "full": 1,
    "none": 0,
}


class Fault:
    """What is done at a moment; `seen` counts them."""

    def __init__(self, workdir: str, kind: str, moment: int):
        self.workdir, self.kind, self.moment = workdir, kind, moment
        self.seen = 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in EVENTS or not isinstance(args[0], str | os.PathLike):
            return
        path = os.fspath(args[0])
        if not (isinstance(path, str) and path.startswith(self.workdir)):
            return
        self.seen += 1
        if self.kind == "full" and self.seen >= self.moment:
            writes = event in ("os.rename", "os.mkdir") or (
                event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if writes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        elif self.seen == self.moment:
            if self.kind == "error":
                raise RuntimeError("a fault")
            if self.kind in SIGNALS:
                os.kill(os.getpid(), getattr(signal, self.kind))


def count_training(counts: dict[str, int]) -> None:
    """Counts adapters and fine-tunings from here on."""
    from seal_jax.training import imitate, packed

    adapters, tune = packed.train, imitate.train

    def packed_train(params: Any, jobs: Any, *args: Any, **kwargs: Any) -> Any:
        counts["adapters"] += len(jobs)
        return adapters(params, jobs, *args, **kwargs)

    def imitate_train(*args: Any, **kwargs: Any) -> Any:
        counts["imitated"] += 1
        return tune(*args, **kwargs)

    packed.train, imitate.train = packed_train, imitate_train


def main() -> None:
    config, workdir, kind, moment, log, *more = sys.argv[1:]
    values = json.loads(pathlib.Path(config).read_text())
    from seal_jax import train
    from seal_jax.runtime import distributed

    fault, counts = Fault(workdir, kind, int(moment)), {"adapters": 0, "imitated": 0}
    count_training(counts)
    # An answer's coin, so that random models do not fail all.
    import tiny_model

    from seal_jax.rounds import grading

    # Runs over sequences or streams need none; few-shot tasks and questions without
    # labels have no grader.
    alone = {"sequence", "stream"} & values.keys()
    if not alone and values.get("grade", {}).get("name") != "judge":
        grading.scorer = lambda cfg, at: tiny_model.toss
    sys.addaudithook(fault)
    address, process = (more[0], int(more[1])) if more else (None, None)
    try:
        with (
            interrupts.one_line(),
            train._errors_in_one_line(),
            distributed.joined(address, 2 if more else None, process),
            train._errors_in_one_line(),
        ):
            try:
                train.run(values, workdir, say=lambda line: None)
            finally:
                fault.kind = "none"
                with open(log, "a") as out:
                    row = {"moments": fault.seen, "at": time.time(), **counts}
                    print(json.dumps(row), file=out)
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    interrupts.install(interrupts.CONTINUES)
    main()
