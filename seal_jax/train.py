"""Runs an experiment from a config file: rounds, sequences, or many passages at once.

    python -m seal_jax.train --config=configs/tiny.py --workdir=runs/tiny
    python -m seal_jax.train --config=configs/tiny.py:debug --workdir=runs/debug
    python -m seal_jax.train --config=configs/arc.py:tiny --workdir=runs/arc
    python -m seal_jax.train --config=configs/tiny.py --config.seed=1 --workdir=runs/one

The files come with the package: --config=tiny or --config=arc:tiny finds them from any
folder.

The same command continues a run that was stopped. `run` does the same from a test or a
notebook. With --more_rounds=1 the run, finished or not, gets a round more than its
config says. --dry_run tells what a run would do and need, and writes nothing.

Several processes, such as one on each host, make one run: those that srun, mpirun or a
TPU slice started together, or those that --coordinator, --processes and --process name.
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install(interrupts.CONTINUES)  # Before imports that take seconds.

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from seal_jax.rewards import judge
from seal_jax.runtime import config_file, config_rules, reading

_MOST_PROCESSES = 65_536


def run(
    values: dict[str, Any],
    workdir: str | Path,
    *,
    say: Callable[[str], None] = print,
    more_rounds: int = 0,
) -> dict[str, Any]:
    """Runs, or continues, the experiment `values` describes.

    Args:
      values: a config as nested dicts (`ConfigDict.to_dict()`), of one of the kinds in
        `kinds.KINDS`.
      workdir: where everything goes.
      say: receives progress, a line at a time.
      more_rounds: rounds beyond those of `values`, for the run in `workdir`.

    Returns:
      The summary, as in summary.json.

    Raises:
      ValueError, OSError: bad input, in one line, before anything is compiled.
    """
    # Imported here: `--help` and a mistyped flag should not wait for jax.
    from seal_jax.experiment import kinds, one_run
    from seal_jax.rounds import more_rounds as more

    if not str(workdir):
        raise ValueError("--workdir='': must name a directory, such as runs/tiny")
    if more_rounds:
        values = kinds.raised(values, more_rounds)
        more.check_begun(Path(workdir), more_rounds)
    exp = kinds.read(values)

    def counted(*items: list[Any]) -> int:
        from seal_jax.forecast import work

        return sum(phase.adapters for phase in work.phases(exp, work.text(exp, items)))

    return one_run.run(exp, values, Path(workdir), say=say, counted=counted)


def foretell(
    values: dict[str, Any],
    *,
    say: Callable[[str], None] = print,
    more_rounds: int = 0,
    rate: float = 0.0,
) -> None:
    """Tells what a run of `values` would do and cost; loads and writes nothing.

    Args:
      values: as of `run`.
      say: receives it, a line at a time.
      more_rounds: rounds beyond those of `values`.
      rate: trained tokens a second that were measured, or 0: modelled.

    Raises:
      ValueError, OSError: a config that cannot be, in one line.
    """
    from seal_jax.experiment import kinds
    from seal_jax.forecast import show

    if more_rounds:
        values = kinds.raised(values, more_rounds)
    for line in show.lines(kinds.read(values), values, rate=rate):
        say(line)


def tell_next(
    values: dict[str, Any], argv: list[str], workdir: Path, *, more_rounds: int
) -> None:
    """Prints what to look at, and commands to go on with, after a finished run."""
    from seal_jax.experiment import kinds
    from seal_jax.report import next_steps

    rising = bool(kinds.kind_of(kinds.read(values)).rising)
    print(*next_steps.lines(argv, workdir, rising=rising, more=more_rounds), sep="\n")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments {argv[1:]}; use --config.key=value")
    logging.set_verbosity(logging.WARNING)  # Orbax reports every save at length.
    # jax takes three quarters of a GPU unless told otherwise, and reads this once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    _read_line_by_line()
    # Imported here, like all that brings jax: see `run`.
    from seal_jax.runtime import distributed

    values, workdir = flags.FLAGS.config.to_dict(), flags.FLAGS.workdir
    if flags.FLAGS.dry_run:
        with _errors_in_one_line():
            foretell(values, more_rounds=flags.FLAGS.more_rounds, rate=flags.FLAGS.rate)
        return
    names = ("coordinator", "processes", "process")
    # Twice, because what fails inside is also told to the other processes.
    with (
        _errors_in_one_line(),
        distributed.joined(*(flags.FLAGS[name].value for name in names)),
        _errors_in_one_line(),
    ):
        more = flags.FLAGS.more_rounds
        run(values, workdir, more_rounds=more)
        if distributed.leads():
            tell_next(values, sys.argv[1:], Path(workdir), more_rounds=more)


def _read_line_by_line() -> None:
    """Makes what this prints, and libraries print, fit for a log that is followed."""
    # A file would get it in blocks, and out of order with standard error.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    if not sys.stderr.isatty():
        # Bars of downloads, which are one endless line in a file.
        for name in ("HF_HUB", "HF_DATASETS"):
            os.environ.setdefault(f"{name}_DISABLE_PROGRESS_BARS", "1")


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Ends the program with one line for the user, not with a traceback.

    SEAL_TRACEBACK=1 shows where it came from.
    """
    try:
        yield
    # NotImplementedError: a kernel that was asked for by name does not run here.
    except (ValueError, OSError, NotImplementedError, judge.JudgeError) as error:
        if os.environ.get("SEAL_TRACEBACK"):
            raise
        sys.exit(f"error: {_one_line(error)}")


def define_flags() -> None:
    """Adds the command's flags; a function, so that an import has no effect."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "An experiment by its name, such as tiny or tiny:seeds, or its file.",
    )
    flags.DEFINE_string("workdir", None, "Directory of this run.")
    flags.DEFINE_integer(
        "more_rounds",
        0,
        "Rounds beyond the config's scale.rounds, for the run in the workdir.",
        lower_bound=0,
        upper_bound=config_rules.MOST_ITEMS,
    )
    flags.DEFINE_boolean(
        config_file.DRY_RUN,
        False,
        "Tells what a run would do and need; needs no workdir and writes nothing.",
    )
    flags.DEFINE_float(
        "rate",
        0.0,
        "Of a dry run: trained tokens a second, as measured; 0: time is modelled.",
        lower_bound=0.0,
        upper_bound=1e12,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "With several processes: host:port of process 0, or auto for a cluster that "
        "jax detects. srun, mpirun and TPU slices need none.",
    )
    flags.DEFINE_integer(
        "processes",
        None,
        "How many belong to the run; 1 keeps a process for itself.",
        lower_bound=1,
        upper_bound=_MOST_PROCESSES,
    )
    flags.DEFINE_integer(
        "process",
        None,
        "Which one this is, from 0 on.",
        lower_bound=0,
        upper_bound=_MOST_PROCESSES - 1,
    )


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a wrong one ends the program in one line.

    The config file runs in here, twice: see `config_file`.
    """
    with _errors_in_one_line():
        return config_file.parse(argv)


def _one_line(error: BaseException) -> str:
    """What an error comes down to; those of libraries may span many lines."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return reading.printable(" ".join(lines[:3])) or type(error).__name__


if __name__ == "__main__":
    with interrupts.one_line():
        define_flags()
        app.run(main, flags_parser=parse)
