"""Arguments of the small commands: errors in one line, and bounds for every number."""

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound


class Parser(argparse.ArgumentParser):
    """Ends in one line at a wrong argument, with exit status 2.

    A flag or a choice that there is not is answered with the nearest that there is.
    `examples` are lines of the help, commands that work as they stand there. `lists`
    names the flags that are lists, and may be empty; nothing else may.
    """

    def __init__(
        self,
        *args: Any,
        examples: str = "",
        lists: Sequence[str] = (),
        **kwargs: Any,
    ):
        self.lists = frozenset(lists)
        if examples:
            kwargs |= {
                "epilog": f"examples:\n{textwrap.indent(examples.strip(), '  ')}",
                "formatter_class": argparse.RawDescriptionHelpFormatter,
            }
        super().__init__(*args, **kwargs)

    # argparse has it as overloads, of which commands use one.
    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Also says so where a flag is unknown and something else is missing."""
        words = sys.argv[1:] if args is None else list(args)
        known = list(self._option_string_actions)
        for word in words[: words.index("--") if "--" in words else None]:
            flag = word.split("=")[0]
            if flag.startswith("--") and not any(k.startswith(flag) for k in known):
                self.error(f"unrecognized arguments: {word}")
        parsed = super().parse_args(words, namespace)
        self._refuse_empty(parsed)
        return parsed

    def _refuse_empty(self, parsed: argparse.Namespace) -> None:
        # As of "$UNSET": no name, path or text is empty, and Path("") is where one is.
        for action in self._actions:
            given = getattr(parsed, action.dest, None)
            if action.dest in self.lists or (given == "" and action.const == ""):
                continue
            if given is not action.default and (
                given == "" or (isinstance(given, list) and "" in given)
            ):
                name = "/".join(action.option_strings) or action.metavar or action.dest
                self.error(f"{name}='' must not be empty; fill it in or leave it out")

    def _nearest(self, message: str) -> str:
        """`; did you mean X?` for a word that is like another."""
        if flag := re.match(r"unrecognized arguments: --([^\s=]+)", message):
            flags = [k[2:] for k in self._option_string_actions if k[:2] == "--"]
            near = nearest(flag[1], flags)
            return f"; did you mean --{near}?" if near else ""
        if choice := re.search(
            r"invalid choice: '(.*?)' \(choose from (.*)\)", message
        ):
            near = nearest(choice[1], re.findall(r"[^\s',]+", choice[2]))
            return f"; did you mean {near}?" if near else ""
        return ""

    def error(self, message: str) -> NoReturn:
        said = re.sub(r"^argument (\S+): =", r"\1=", " ".join(message.split()))
        said += self._nearest(message)
        print(f"error: {said}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like another one; None if none is."""
    return next(iter(difflib.get_close_matches(word, list(known), 1)), None)


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
