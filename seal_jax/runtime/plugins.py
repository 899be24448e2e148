"""`module:name`, wherever a config or a flag may name code of the user's own.

The module is looked for in the current folder, then among what is installed, the same
under `seal-jax` as under `python -m`. What is wrong with it ends in one line that names
the key. Modules of Python's own library are refused: a config that came with someone
else's workdir is not to reach for them.
"""

import contextlib
import difflib
import importlib
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from seal_jax.runtime import config_rules, reading
from seal_jax.runtime.config_rules import shown

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class Told(Exception):
    """Says all in one line: passes through the user's code (`call`) as it is."""


class OwnCodeError(Told, ValueError):
    """The user's own code raised, or gave what it must not give."""


_RULE = "must be module:name, with dots and without .py"


def is_named(text: object) -> bool:
    """Whether a value is `module:name` by its form, and so no name of the package's.

    A colon alone does not make it so: a shell hands over all sorts of texts.
    """
    if not isinstance(text, str):
        return False
    named, _, attribute = text.partition(":")
    well = _MODULE.fullmatch(named) and not named.endswith(".py")
    return bool(well) and attribute.isidentifier()


def _meant(text: object) -> str:
    """The `module:name` that a path to a file, with a name behind it, must mean; ""."""
    if not isinstance(text, str):
        return ""
    named, _, attribute = text.partition(":")
    plain = named.removesuffix(".py").strip("./").replace("/", ".")
    found = f"{plain}:{attribute}"
    return found if found != text and is_named(found) else ""


def one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    """Refuses a value that is neither among those allowed nor `module:name` by form.

    Whether there is such a module, `find` tells.

    Raises:
      ValueError: see above.
    """
    if is_named(value):
        return
    if meant := _meant(value):
        raise ValueError(f"{key}={shown(value)} {_RULE}, such as {meant!r}; correct it")
    try:
        config_rules.one_of(key, value, allowed)
    except ValueError as error:
        raise ValueError(f"{error}, or module:name for your own") from None


class Names(tuple[str, ...]):
    """The choices of a flag that also takes `module:name`.

    What is nearly one is let through, as `find` tells it better.
    """

    def __contains__(self, value: object) -> bool:
        return super().__contains__(value) or is_named(value) or bool(_meant(value))


def find(key: str, text: str) -> Any:
    """What `module:name` names.

    Raises:
      ValueError: another form, a module that is not there, belongs to Python or fails
        as it is imported, or one without the name; the nearest is named.
    """
    where = f"{key}={shown(text)}"
    if not is_named(text):
        meant = _meant(text)
        hint = f", such as {meant!r}" if meant else ""
        raise ValueError(f"{where} {_RULE}{hint}; correct it")
    named, _, attribute = text.partition(":")
    if named.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(
            f"{where}: {named} is a module of Python's own; name one of yours, and "
            "rename its file if it is called so"
        )
    module = _imported(where, named)
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if not name.startswith("_")]
        raise ValueError(
            f"{where}: {named} has no {attribute}; {_nearest(attribute, names)}"
        )
    return getattr(module, attribute)


def _imported(where: str, named: str) -> Any:
    """The module; the current folder comes first, as with `python -m`."""
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(named)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{named}.".startswith(f"{missing}."):
            raise ValueError(f"{where}: {failure(error, named)}") from error
        found = [m.name for m in pkgutil.iter_modules([here])]
        raise ValueError(
            f"{where}: no module {missing} in the current folder ({here}) or among "
            f"what is installed; {_nearest(missing, found)}"
        ) from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"{where}: {failure(error, named)}") from error
    finally:
        sys.path.remove(here)
        # What it imports later, inside its functions, is found as well.
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    if near:
        return f"did you mean {near[0]}?"
    return f"there: {reading.shorten(', '.join(known))}" if known else "correct it"


def failure(error: BaseException, module: str) -> str:
    """What the user's own code raised, with its place in the module's file."""
    path = getattr(sys.modules.get(module), "__file__", None)
    # Of a module whose import failed nothing is left but its name.
    end = os.path.join(os.getcwd(), *module.split(".")) + ".py"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename in (path, end)]
    place = f"{module} line {lines[-1]}: " if lines else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{os.path.basename(error.filename)} line {error.lineno}: "
        error = SyntaxError(error.msg)
    text, kind = reading.shorten(str(error)), type(error).__name__
    return f"{place}{kind}{': ' if text else ''}{text}; correct it"


def function(
    key: str, text: str, takes: Sequence[str] | None = None
) -> Callable[..., Any]:
    """The function that `module:name` names.

    `takes`: what it is called with, in order; None: whoever asks looks for himself.

    Raises:
      ValueError: see `find`; or it is no function, or takes something else.
    """
    found, where = find(key, text), f"{key}={shown(text)}"
    if not callable(found) or isinstance(found, type):
        raise ValueError(
            f"{where}: must be a function, and is {shown(found)}; name one"
        )
    if takes is not None:
        check_takes(where, found, takes)
    return found


def check_takes(where: str, found: Callable[..., Any], takes: Sequence[str]) -> None:
    """Refuses a function that cannot be called with `takes` in order.

    Raises:
      ValueError: see above; begins with `where`.
    """
    if (signature := signature_of(found)) is None:
        return
    try:
        signature.bind(*takes)
    except TypeError:
        raise ValueError(
            f"{where} must take ({', '.join(takes)}) and takes {signature}; change it"
        ) from None
    # Names are free, but these in another order would be mixed up unseen.
    first = [*signature.parameters][: len(takes)]
    if first != [*takes] and sorted(first) == sorted(takes):
        raise ValueError(
            f"{where} is called with ({', '.join(takes)}), in this order, and takes "
            f"{signature}; change it"
        )


def signature_of(found: Callable[..., Any]) -> inspect.Signature | None:
    """The signature; None where Python does not know it."""
    try:
        return inspect.signature(found)
    except (ValueError, TypeError):
        return None


def source(kind: type) -> str:
    """The user's own module that a class is from, as text; "" if it is ours."""
    package = __name__.partition(".")[0]
    for base in kind.__mro__:
        top = base.__module__.partition(".")[0]
        if top != package and top not in sys.stdlib_module_names:
            with contextlib.suppress(OSError, TypeError):
                return inspect.getsource(sys.modules[base.__module__])
    return ""


def call(key: str, text: str, found: Callable[..., Any], *args: Any, **kw: Any) -> Any:
    """Calls the user's own code; whatever it raises ends in one line.

    Raises:
      OwnCodeError: it raised.
      Told: what it called raised it.
    """
    try:
        return found(*args, **kw)
    except Told:
        raise
    except (Exception, SystemExit) as error:
        why = failure(error, text.partition(":")[0])
        raise OwnCodeError(f"{key}={shown(text)}: {why}") from error


def number(
    key: str, text: str, value: Any, low: float, high: float, *, of: str = ""
) -> float | None:
    """What the user's own code gave, as a number from `low` to `high`, or None.

    `of`: the method of a class that gave it.

    Raises:
      OwnCodeError: it is something else.
    """
    if value is None:
        return None
    try:
        plain = float(value) if not isinstance(value, str | bytes) else float("nan")
    except (TypeError, ValueError):
        plain = float("nan")
    if not low <= plain <= high:
        gave = f"{of} gave" if of else "gave"
        raise OwnCodeError(
            f"{key}={shown(text)}: {gave} {shown(value)}, and must give a number from "
            f"{low:g} to {high:g}, or None where there is none; change it"
        )
    return plain
