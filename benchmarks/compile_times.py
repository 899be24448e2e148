"""What a run compiles, program by program: seconds of the clock and of the processors.

    .venv/bin/python benchmarks/compile_times.py --config=configs/squad.py:small
        --set scale.passages=1 --set scale.heldout_passages=1 [--out]

The run is made whole, in an empty workdir and without the cache of compiled programs,
so make it small: how much of everything there is changes no program. On a machine that
other work shares the clock says little; the processors' seconds are this process's own,
whatever waits. `trace` is what jax takes before the compiler has a program. The last
line printed is one JSON object; `--out` writes it to
benchmarks/results/DEVICE/compile_times.json.
"""

import argparse
import bisect
import contextlib
import os
import runpy
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common

# Seconds between two looks at the processors' time.
TICK = 0.01
TRACED = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
)
COMPILED = "/jax/core/compile/backend_compile_duration"


class Sample(NamedTuple):
    """The processors' seconds of this process at a moment of the clock."""

    clock: float
    processors: float


class Span(NamedTuple):
    """Something that jax timed, and when it ended."""

    event: str
    program: str
    end: float
    seconds: float


def processors(samples: Sequence[Sample], *, end: float, seconds: float) -> float:
    """The processors' seconds over the `seconds` before `end`, to a tick or two."""

    def at(clock: float) -> float:
        place = bisect.bisect_right([sample.clock for sample in samples], clock)
        return samples[max(0, min(place, len(samples)) - 1)].processors

    return at(end) - at(end - seconds)


def table(spans: Sequence[Span], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """A row for each name of a program: how many there were, and what they took."""
    rows: dict[str, dict[str, Any]] = {}
    for span in spans:
        row = rows.setdefault(
            span.program,
            {"program": span.program, "count": 0, "clock": 0.0, "processors": 0.0},
        )
        row["count"] += span.event == COMPILED
        row["clock"] += span.seconds
        row["processors"] += processors(samples, end=span.end, seconds=span.seconds)
    return sorted(rows.values(), key=lambda row: -row["processors"])


@contextlib.contextmanager
def recorded() -> Iterator[tuple[list[Span], list[Sample]]]:
    """All that jax times inside the block, and the processors' time beside it."""
    import jax

    spans: list[Span] = []
    samples = [Sample(time.monotonic(), time.process_time())]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(TICK):
            samples.append(Sample(time.monotonic(), time.process_time()))

    def duration(event: str, duration_secs: float, **about: str | int) -> None:
        if event in (*TRACED, COMPILED):
            name = str(about.get("fun_name")) if event == COMPILED else "trace"
            spans.append(Span(event, name, time.monotonic(), duration_secs))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    jax.monitoring.register_event_duration_secs_listener(duration)
    try:
        yield spans, samples
    finally:
        jax.monitoring.unregister_event_duration_listener(duration)
        done.set()
        watcher.join()
        samples.append(Sample(time.monotonic(), time.process_time()))


def config_of(path: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config file, some of them others.

    Raises:
      ValueError: no such file.
    """
    name, _, variant = path.partition(":")
    if not Path(name).is_file():
        raise ValueError(f"--config {path}: no such file; see configs/")
    config = runpy.run_path(name)["get_config"](variant or None)
    config.update_from_flattened_dict(dict(changes))
    return config.to_dict()


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The result, as JSON."""
    # Read when jax is imported.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    from seal_jax import train

    values = config_of(args.config, common.assignments(args.set))
    with tempfile.TemporaryDirectory() as folder, recorded() as (spans, samples):
        train.run(values, Path(folder) / "run")
    rows = table(spans, samples)
    return common.stamp(device=common.jax_device()) | {
        "programs": sum(row["count"] for row in rows),
        "clock": sum(row["clock"] for row in rows),
        "processors": sum(row["processors"] for row in rows),
        "rows": rows,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/squad.py:small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    common.add_out(parser)
    args = parser.parse_args(argv)
    return common.finish(lambda: run(args), args.out, name="compile_times")


if __name__ == "__main__":
    sys.exit(main())
