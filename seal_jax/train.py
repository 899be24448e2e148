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

from absl import app, flags
from ml_collections import ConfigDict, config_flags


def run(
    values: dict[str, Any], workdir: str | Path, *, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Runs, or continues, the experiment `values` describes.

    Args:
      values: a config as nested dicts (`ConfigDict.to_dict()`); see `config.Experiment`.
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
        raise app.UsageError(f"unexpected arguments {argv[1:]}; use --config.key=value")
    values: ConfigDict = _CONFIG.value
    if os.environ.get("SEAL_TRACEBACK"):
        run(values.to_dict(), _WORKDIR.value)
        return
    try:
        run(values.to_dict(), _WORKDIR.value)
    except (ValueError, OSError) as error:
        # One line for the user; SEAL_TRACEBACK=1 shows where it came from.
        sys.exit(f"error: {error}")


_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment file, such as configs/tiny.py."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of this run.")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
