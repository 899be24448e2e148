"""The embedded demo as a measurement: seconds by stage, rates, memory.

    .venv/bin/python benchmarks/demo.py [--config=configs/tiny.py] [--out]

The experiment runs in a process of its own and an empty workdir, so everything that a
first `make demo` compiles is compiled here too. The last line printed is one JSON
object; `--out` writes it to benchmarks/results/DEVICE/demo.json as well.
"""

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common

from seal_jax.report import run_view
from seal_jax.runtime import formatting

# This process imports no jax: a child's peak memory is at least its parent's.

STAGES = ("propose", "adapt", "answer", "grade", "imitate")
OTHER = "other"


def stage(phase: str) -> str:
    """The stage a phase of summary.json belongs to; "other" for an unknown one.

    Phases are paths such as round_1/propose, ladder/self_edits/adapt, round_1/base
    (answers without an adapter), round_1/base/grade and policy/imitate/2.
    """
    parts = phase.split("/")
    for name in STAGES:
        if name in parts:
            return name
    return "answer" if parts[-1] == "base" else OTHER


def by_stage(phases: Mapping[str, float], *, wall: float) -> dict[str, float]:
    """Seconds of each stage; `other` is what is left of `wall`.

    That is imports, loading, checkpoints, the report: all that no phase has timed.
    """
    made = {name: 0.0 for name in (*STAGES, OTHER)}
    for phase, seconds in phases.items():
        made[stage(phase)] += seconds
    made[OTHER] += max(0.0, wall - sum(phases.values()))
    return made


def aggregate(
    summary: Mapping[str, Any],
    series: Mapping[str, Sequence[tuple[int, float]]],
    *,
    wall: float,
    peak_bytes: int,
) -> dict[str, Any]:
    """The measured part of the result.

    Args:
      summary: a run's summary.json.
      series: its metrics by name (`run_view.read_metrics`).
      wall: seconds the process took.
      peak_bytes: its peak resident set.

    Raises:
      ValueError: the summary has no seconds, adapters or tokens.
    """
    for key in ("seconds", "adapters", "tokens"):
        if not summary.get(key):
            raise ValueError(
                f"summary.json: {key}={summary.get(key)!r} must not be empty; run the "
                "benchmark in a new workdir"
            )
    stages = by_stage(summary["seconds"], wall=wall)
    adapting = stages["adapt"]
    return {
        "seconds": wall,
        "seconds_by_phase": stages,
        "adapters": summary["adapters"],
        "adapters_per_s": summary["adapters"] / adapting if adapting else None,
        "adapters_per_s_median": _median(series, "adapt/adapters_per_s"),
        "tokens": summary["tokens"],
        "tokens_per_s": summary["tokens"] / adapting if adapting else None,
        "tokens_per_s_median": _median(series, "adapt/tokens_per_s"),
        "token_efficiency_median": _median(series, "adapt/token_efficiency"),
        "peak_memory_bytes": peak_bytes,
    }


def _median(
    series: Mapping[str, Sequence[tuple[int, float]]], name: str
) -> float | None:
    values = [value for _, value in series.get(name, ())]
    return statistics.median(values) if values else None


def table(result: Mapping[str, Any]) -> str:
    """The result for reading."""
    wall = result["seconds"]
    rows = [
        (name, formatting.number(s, digits=1), formatting.percent(s / wall))
        for name, s in result["seconds_by_phase"].items()
    ]
    rows.append(("all", formatting.number(wall, digits=1), formatting.percent(1.0)))
    lines = [formatting.ruled(("stage", "seconds", "share"), rows), ""]
    for label, key in (("adapters/s", "adapters_per_s"), ("tokens/s", "tokens_per_s")):
        whole = formatting.number(result[key], digits=1)
        warm = formatting.number(result[f"{key}_median"], digits=1)
        lines.append(f"{label}: {whole} over the adapt stage, {warm} in a median chunk")
    peak = result["peak_memory_bytes"] / 2**20
    lines.append(f"peak memory: {formatting.number(peak, digits=0)} MiB resident")
    return "\n".join(lines)


# The run


def measure(
    command: Sequence[str], *, env: Mapping[str, str] | None = None
) -> tuple[float, int]:
    """Runs `command` to its end: wall seconds, and bytes of its peak resident set.

    Raises:
      ValueError: it failed.
    """
    begin = time.monotonic()
    # Our buffered lines would otherwise come after the child's.
    sys.stdout.flush()
    process = subprocess.Popen(command, cwd=common.ROOT, env=env)
    try:
        # wait4 and not getrusage(RUSAGE_CHILDREN): that is the peak over all children.
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    wall = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(
            f"{shlex.join(command)}: exit status {process.returncode} must be 0; see "
            "its own error above"
        )
    unit = 1 if sys.platform == "darwin" else 1024
    return wall, usage.ru_maxrss * unit


def benchmark(config: str, workdir: Path) -> dict[str, Any]:
    """Runs `config` in `workdir`, which must be new or empty.

    Raises:
      ValueError: it is neither, or the run failed.
    """
    if workdir.exists() and any(workdir.iterdir()):
        raise ValueError(
            f"--workdir={workdir} must be new or empty, or finished work would be "
            "counted as fast; give another"
        )
    command = [sys.executable, "-m", "seal_jax.train"]
    command += [f"--config={config}", f"--workdir={workdir}"]
    wall, peak = measure(command, env=common.child_env())
    measured = aggregate(
        run_view.read_summary(workdir),
        run_view.read_metrics(workdir),
        wall=wall,
        peak_bytes=peak,
    )
    return {
        "benchmark": "demo",
        **measured,
        "config": config,
        **common.stamp(device=common.jax_device()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/demo.py", description="Measures a run from a cold start."
    )
    parser.add_argument(
        "--config", default="configs/tiny.py", help="from the repository's root"
    )
    parser.add_argument("--workdir", help="new or empty; a temporary one by default")
    common.add_out(parser)
    args = parser.parse_args(argv)

    def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="seal_jax-") as temporary:
            workdir = Path(args.workdir or Path(temporary) / "run").absolute()
            return benchmark(args.config, workdir)

    return common.finish(run, args.out, name="demo", table=table)


if __name__ == "__main__":
    raise SystemExit(main())
