"""The boundary of every reader: whatever goes wrong with an input ends in one line.

A reader of ours says by ValueError or OSError what is wrong, in one line with the rule
and the fix. Everything else, from a library's own exceptions to RecursionError and
MemoryError, is turned into such a line here, once, with the place. The cause is
chained: SEAL_TRACEBACK=1 shows it.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Of what files hold; deeper is no data, and functions that walk it would not end well.
MOST_DEEP = 64
# Of whole numbers: what 64 bits hold.
_MOST_DIGITS = 20
_LONGEST_REASON = 160
_SURROGATE = re.compile("[\ud800-\udfff]")

type Place = str | Path


@contextlib.contextmanager
def boundary(
    place: Place, *, wrong: str, fix: str, foreign: bool = False
) -> Iterator[None]:
    """Turns what the block raises into one line that names `place`.

    An error of ours passes as it is. KeyboardInterrupt and SystemExit do too.

    Args:
      place: the file, folder or field that is read.
      wrong: what it is not and has to be, such as "must be one JSON value".
      fix: what to do.
      foreign: whether a library reads, whose ValueErrors are not ours either.

    Raises:
      ValueError: the block raised anything but an OSError.
      OSError: the block raised one.
    """
    try:
        yield
    except BaseException as error:
        ours = _is_our_class(error) or (not foreign and _is_ours(error))
        if ours or not _is_failure(error):
            raise
        message = f"{place}: {wrong} ({reason(error)}); {fix}"
        if isinstance(error, OSError):
            # Of its own class, and without an errno: who asks for those finds them.
            raise _like(error, message) from error
        raise ValueError(message) from error


def reason(error: BaseException) -> str:
    """An error in a few words, on one line."""
    if isinstance(error, OSError) and error.strerror and error.errno is not None:
        where = "" if error.filename is None else f": {error.filename}"
        return shorten(f"{error.strerror}{where}")
    text = shorten(str(error))
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, MemoryError):
        return "more than fits into memory"
    if text and (type(error) is ValueError or isinstance(error, OSError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def printable(text: str) -> str:
    """`text` on one line that can be printed anywhere.

    Characters that would move a terminal's cursor, and half ones, are escaped.
    """
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


def shorten(text: str) -> str:
    """`printable`, its end left out if it is long."""
    shown = printable(text)
    if len(shown) > _LONGEST_REASON:
        shown = f"{shown[:_LONGEST_REASON]}..."
    return shown


def _is_failure(error: BaseException) -> bool:
    # Rust libraries panic with an exception that derives from BaseException.
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _is_ours(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno is None or _is_our_class(error)
    return isinstance(error, ValueError) and not isinstance(error, UnicodeError)


def _is_our_class(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == __name__.partition(".")[0]


def _like(error: OSError, message: str) -> OSError:
    kinds = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    kind = next((k for k in kinds if isinstance(error, k)), OSError)
    return kind(message)


# JSON


def decode_json(data: bytes | str) -> Any:
    """The JSON value in `data`.

    Raises:
      ValueError: it is none, is nested deeper than `MOST_DEEP`, or holds a whole number
        of more digits than 64 bits have; says only why.
    """
    try:
        value = json.loads(data, parse_int=_whole)
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_DEEP}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{error.reason} at byte {error.start}") from None
    if _is_deep(value):
        raise ValueError(f"nested deeper than {MOST_DEEP}")
    return value


def _whole(digits: str) -> int:
    count = len(digits.removeprefix("-"))
    if count > _MOST_DIGITS:
        raise ValueError(f"a number of {count} digits, {digits[:8]}...")
    return int(digits)


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEEP + 1):
        lists = (node.values() if isinstance(node, dict) else node for node in level)
        level = [v for part in lists for v in part if isinstance(v, dict | list)]
        if not level:
            return False
    return True


def surrogate(value: Any) -> str | None:
    """The first text in a JSON value that holds a lone surrogate, key or value."""
    if isinstance(value, str):
        return value if _SURROGATE.search(value) else None
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    else:
        parts = value if isinstance(value, list) else []
    return next((s for part in parts if (s := surrogate(part)) is not None), None)
