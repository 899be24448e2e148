"""`--column KEY=NAME`: which columns of a table hold what; no jax."""

import argparse
import difflib
from collections.abc import Sequence

from seal_jax.runtime import reading


def add(parser: argparse.ArgumentParser, keys: Sequence[str]) -> None:
    """The flag."""
    parser.add_argument(
        "--column",
        metavar="KEY=NAME",
        action="append",
        default=[],
        help=f"of a table, the column that holds KEY, one of {', '.join(keys)}; again "
        "for more",
    )


def read(given: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """The names by their keys.

    Raises:
      ValueError: another form, an unknown key, or one that is there twice.
    """
    found: dict[str, str] = {}
    for text in given:
        key, equals, name = text.partition("=")
        if key not in keys or not equals or not name or key in found:
            near = difflib.get_close_matches(key, keys, 1)
            hint = f"; did you mean {near[0]}?" if near and near[0] != key else ""
            raise ValueError(
                f"--column={reading.shorten(text)}: must be KEY=NAME, each KEY once, "
                f"of {', '.join(keys)}{hint or '; correct it'}"
            )
        found[key] = name
    return found
