"""Pretrains the embedded models on generated worlds.

    python -m seal_jax pretrain --config=configs/tiny_pretrain.py --workdir=DIR
    python -m seal_jax pretrain --config=configs/tiny_pretrain.py:arc --workdir=DIR
    python -m seal_jax pretrain --config=configs/tiny_pretrain.py:hops --workdir=DIR

write `DIR/model` in Hugging Face format, which is what `embedded/assets/tiny` (for
`configs/tiny.py`), `embedded/assets/grids` (for `configs/arc.py:tiny`) and
`embedded/assets/hops` (for `configs/lmsi.py:tiny`) hold.
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install(interrupts.CONTINUES)  # Before imports that take seconds.

import os
import sys
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from seal_jax.embedded import settings
from seal_jax.runtime import config_file, config_rules, reading


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments {argv[1:]}; use --config.key=value")
    logging.set_verbosity(logging.WARNING)  # Orbax reports every save at length.
    workdir = Path(flags.FLAGS.workdir).absolute()
    try:
        values = flags.FLAGS.config.to_dict()
        cfg = config_rules.build(settings.PretrainConfig, values)
        # Imported here: `--help` and a wrong value should not wait for jax.
        from seal_jax.embedded import pretraining

        with interrupts.units():
            pretraining.run(cfg, workdir)
    except (ValueError, OSError) as error:
        _end(error)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a wrong one ends the program in one line."""
    try:
        return config_file.parse(argv, pretrains=True)
    except (ValueError, OSError) as error:
        _end(error)


def _end(error: Exception) -> NoReturn:
    """Ends the program in one line; SEAL_TRACEBACK=1 shows where it came from."""
    if os.environ.get("SEAL_TRACEBACK"):
        raise error
    sys.exit(f"error: {reading.printable(str(error))}")


if __name__ == "__main__":
    with interrupts.one_line():
        config_flags.DEFINE_config_file(
            "config", None, "Pretraining: tiny_pretrain, or a config file."
        )
        flags.DEFINE_string("workdir", None, "Where to write.")
        app.run(main, flags_parser=parse)
