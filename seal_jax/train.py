"""Runs an experiment: rounds of ReST-EM and the ladder, from a config file.

    python -m seal_jax.train --config=configs/tiny.py --workdir=runs/tiny

The same command continues a run that was stopped. `run` does the same from a test or a
notebook.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from seal_jax import judge


def run(
    values: dict[str, Any], workdir: str | Path, *, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Runs, or continues, the experiment `values` describes.

    Args:
      values: a config as nested dicts (`ConfigDict.to_dict()`), `config.Experiment`'s.
      workdir: where everything goes.
      say: receives progress, a line at a time.

    Returns:
      The summary, as in summary.json.

    Raises:
      ValueError, OSError: bad input, in one line, before anything is compiled.
    """
    # Imported here: `--help` and a mistyped flag should not wait for jax.
    from seal_jax import config, experiment

    exp = config.build(config.Experiment, values)
    return experiment.run(exp, values, Path(workdir), say=say)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments {argv[1:]}; use --config.key=value")
    logging.set_verbosity(logging.WARNING)  # Orbax reports every save at length.
    values, workdir = flags.FLAGS.config.to_dict(), flags.FLAGS.workdir
    if os.environ.get("SEAL_TRACEBACK"):
        run(values, workdir)
        return
    try:
        run(values, workdir)
    except (ValueError, OSError, judge.JudgeError) as error:
        # One line for the user; SEAL_TRACEBACK=1 shows where it came from.
        sys.exit(f"error: {_one_line(error)}")


def define_flags() -> None:
    """Adds --config and --workdir; a function, so that an import has no effect."""
    config_flags.DEFINE_config_file(
        "config", None, "Experiment file, such as configs/tiny.py."
    )
    flags.DEFINE_string("workdir", None, "Directory of this run.")
    flags.mark_flags_as_required(["config", "workdir"])


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a wrong one ends the program in one line.

    The config file runs in here, and `config_flags` has no error type of its own.
    """
    try:
        rest = flags.FLAGS(argv)
        flags.FLAGS.config.to_dict()  # A file that did not load says so only here.
    except (flags.Error, ValueError, OSError, LookupError, AttributeError) as error:
        sys.exit(f"error: {_one_line(error)}")
    return rest


def _one_line(error: Exception) -> str:
    """What an error comes down to; those of `config_flags` span many lines."""
    if isinstance(error, (AttributeError, LookupError)):
        while isinstance(error.args[0], Exception):
            error = error.args[0]
        return f"--config: no such key: {' '.join(str(error.args[0]).split())}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # It quotes the whole traceback of a config file; the last line is the reason.
    return lines[-1] if len(lines) > 3 else " ".join(lines)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse)
