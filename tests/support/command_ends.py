"""How a command ends, whether it returns its status or exits with it."""

from collections.abc import Callable, Sequence


def status(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> object:
    """The exit status."""
    try:
        return main(argv)
    except SystemExit as end:
        return end.code
