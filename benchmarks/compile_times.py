"""What a user waits for the programs of a run that were never compiled before.

    .venv/bin/python benchmarks/compile_times.py --config=configs/squad.py:small
        --set scale.passages=1 --set scale.heldout_passages=1 [--out]

The run is made whole, twice, in empty workdirs and without the cache of compiled
programs. The second one finds everything traced and compiled in this process, so what
the first one took longer is what its programs took: `waited_seconds` by the clock, and
`processor_seconds` of this process, whatever else it waited for. Make the run small:
how much of everything there is changes no program. On a machine that other work shares
the clock says little.

A row for each name of a program has how many there were and the seconds from the
beginning to the end of compiling them. Two may be compiled at a time, so these are more
than what was waited; `trace` is what jax takes before the compiler has a program. The
last line printed is one JSON object; `--out` writes it to
benchmarks/results/DEVICE/compile_times.json.
"""

import argparse
import contextlib
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common

TRACED = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
)
COMPILED = "/jax/core/compile/backend_compile_duration"


class Span(NamedTuple):
    """Something that jax timed."""

    event: str
    program: str
    seconds: float


class Took(NamedTuple):
    """What a run took, by the clock and of the processors, and what jax timed in it."""

    clock: float
    processors: float
    spans: list[Span]


def table(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """A row for each name of a program: how many there were, and what they took."""
    rows: dict[str, dict[str, Any]] = {}
    for span in spans:
        row = rows.setdefault(
            span.program, {"program": span.program, "count": 0, "seconds": 0.0}
        )
        row["count"] += span.event == COMPILED
        row["seconds"] += span.seconds
    return sorted(rows.values(), key=lambda row: -row["seconds"])


@contextlib.contextmanager
def recorded() -> Iterator[list[Span]]:
    """All that jax times inside the block, in whatever thread."""
    import jax

    spans: list[Span] = []

    def duration(event: str, duration_secs: float, **about: str | int) -> None:
        if event in (*TRACED, COMPILED):
            name = str(about.get("fun_name")) if event == COMPILED else "trace"
            spans.append(Span(event, name, duration_secs))

    jax.monitoring.register_event_duration_secs_listener(duration)
    try:
        yield spans
    finally:
        jax.monitoring.unregister_event_duration_listener(duration)


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


def result(first: Took, second: Took) -> dict[str, Any]:
    """The first run's programs, and what it took longer than the second.

    Raises:
      ValueError: the second compiled, too.
    """
    again = [span.program for span in second.spans if span.event == COMPILED]
    if again:
        raise ValueError(f"compiled in the second run as well: {', '.join(again)}")
    rows = table(first.spans)
    return {
        "programs": sum(row["count"] for row in rows),
        "waited_seconds": first.clock - second.clock,
        "processor_seconds": first.processors - second.processors,
        "run_seconds": second.clock,
        "rows": rows,
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The result, as JSON."""
    # Read when jax is imported.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    from seal_jax import train

    values = config_of(args.config, common.assignments(args.set))

    def took(workdir: Path) -> Took:
        clock, processors = time.monotonic(), time.process_time()
        with recorded() as spans:
            train.run(values, workdir)
        clock, processors = time.monotonic() - clock, time.process_time() - processors
        return Took(clock, processors, spans)

    with tempfile.TemporaryDirectory() as folder:
        first = took(Path(folder) / "first")
        second = took(Path(folder) / "second")
    return common.stamp(device=common.jax_device()) | result(first, second)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/squad.py:small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    common.add_out(parser)
    args = parser.parse_args(argv)
    return common.finish(lambda: run(args), args.out, name="compile_times")


if __name__ == "__main__":
    sys.exit(main())
