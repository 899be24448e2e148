"""Arguments of the small commands: errors in one line, and bounds for every number."""

import argparse
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound


class Parser(argparse.ArgumentParser):
    """Ends in one line at a wrong argument, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        said = re.sub(r"^argument (\S+): =", r"\1=", " ".join(message.split()))
        print(f"error: {said}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `low` to `high`."""
    return _number(int, "whole number", Bound(low, high))


def real(low: float, high: float, *, least: float = 0.0) -> Callable[[str], float]:
    """The type of an argument that is a number from `low` to `high`; see `Bound`."""
    return _number(float, "number", Bound(low, high, least))


def _number[N: (int, float)](
    kind: Callable[[str], N], word: str, limits: Bound
) -> Callable[[str], N]:
    def parse(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"={config_rules.shown(text)} must be a {word}, at least {limits.low} "
                f"and at most {limits.high}; use {limits.low}"
            ) from None
        try:
            limits.check("", value)  # `Parser.error` puts the flag before it.
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return parse


SEED = whole(0, 2**32 - 1)
COUNT = whole(1, 1_000_000)
FEW = whole(1, 10_000)
FACTOR = real(1e-3, 1e3)
