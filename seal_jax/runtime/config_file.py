"""Command lines of an experiment: its config file, and the values set over it.

`config_flags` reads both, and has no error type of its own: what a file raises comes
through it as it is, or as the text of its traceback. So both are looked at here first;
what is wrong is said in one line with the file and the place.
"""

import difflib
import importlib.machinery
import importlib.util
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections.config_flags import config_path

from seal_jax.runtime import reading, shipped

_FLAG = "config"
# The flag of a command line that needs no workdir.
DRY_RUN = "dry_run"


def check(argv: Sequence[str], *, pretrains: bool = False) -> None:
    """Refuses a command line without config and workdir, or with wrong ones.

    Args:
      argv: as `sys.argv`.
      pretrains: whether the command is `pretrain`, which has configs of its own.

    Raises:
      ValueError: no such flag, a file that gives no config, a key that it has not.
      FileNotFoundError: no such file.
    """
    named = _value(argv, _FLAG)
    known = shipped.names(pretrains=pretrains)
    if not named:
        example = f"--{_FLAG}={known[0]}" if pretrains else shipped.EXAMPLE
        raise ValueError(
            f"--{_FLAG}=FILE must name an experiment, {', '.join(known)}, or its file; "
            f"give one, such as {example}"
        )
    if not pretrains and Path(named.split(":")[0]).stem in shipped.PRETRAINING:
        raise ValueError(
            f"--{_FLAG}={reading.shorten(named)}: belongs to the command pretrain; run "
            f"that, or give one of {', '.join(known)}"
        )
    if not _is_set(argv, DRY_RUN) and not _value(argv, "workdir"):
        raise ValueError(
            "--workdir=FOLDER must name where this run's files go; give one, such as "
            "--workdir=runs/tiny"
        )
    config = load(named, pretrains=pretrains)
    for key in _overrides(argv):
        _check_key(named, config, key)


def parse(argv: Sequence[str], *, pretrains: bool = False) -> list[str]:
    """Parses the flags of a command that has --config and --workdir; see `check`.

    Returns:
      what is left of `argv`, as absl gives it.

    Raises:
      ValueError, FileNotFoundError: see `check`; or what absl refuses.
    """
    helps = bool({"--help", "-help", "--helpshort", "--helpfull"} & set(argv))
    if not helps:
        check(argv, pretrains=pretrains)
    try:
        return flags.FLAGS(_with_paths(argv))
    except SystemExit:
        # absl ends its help with status 1; who asked for it has got it.
        if helps:
            raise SystemExit(0) from None
        raise
    except flags.Error as error:
        raise ValueError(of_flags(error)) from error
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"--{_FLAG}: {reading.shorten(str(error))}; see --help"
        ) from error


def load(named: str, *, pretrains: bool = False) -> ml_collections.ConfigDict:
    """The config of "FILE.py" or "NAME", or of one of its variants, "NAME:VARIANT".

    Raises:
      ValueError: the file raises or ends the program, or gives no config.
      FileNotFoundError: no such file, and no such name (see `shipped`).
    """
    name, *variant = named.split(":", 1)
    path = shipped.find(name, pretrains=pretrains)
    try:
        config = _run(path, variant)
    except (Exception, SystemExit) as error:
        raise ValueError(_told(name, path, error)) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(
            f"{name}: get_config must return a ConfigDict, not "
            f"{type(config).__name__}; see {shipped.place('tiny')}"
        )
    return config


def _with_paths(argv: Sequence[str]) -> list[str]:
    """`argv` with paths for the names of experiments, as `config_flags` takes them."""
    words = list(argv)
    for i, argument in enumerate(argv):
        flag, equals, named = argument.partition("=")
        if argument == "--":
            break
        valued = equals or i + 1 < len(words)
        if i and valued and flag in (f"-{_FLAG}", f"--{_FLAG}"):
            name, *variant = (named if equals else words.pop(i + 1)).split(":", 1)
            words[i] = f"{flag}={':'.join([shipped.find(name), *variant])}"
    return words


def _run(name: str, variant: Sequence[str]) -> Any:
    spec = importlib.util.spec_from_loader(
        f"{_FLAG}_file",
        importlib.machinery.SourceFileLoader(f"{_FLAG}_file", name),
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise _NoFunctionError("must have a function get_config(variant=None)")
    return get_config(*variant)


class _NoFunctionError(ValueError):
    pass


def _told(name: str, path: str, error: BaseException) -> str:
    """What a config file raised, with its place in the file.

    `name`: what the user gave, a path or the name of an experiment.
    """
    text = reading.shorten(str(error))
    own = type(error) is ValueError or isinstance(error, _NoFunctionError)
    # Of a file that names itself, such as those of the project.
    for itself in (path, f"configs/{Path(path).name}"):
        if own and text.startswith(itself):
            return name + text.removeprefix(itself)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines, text = [error.lineno], reading.shorten(error.msg)
    where = f"{name} line {lines[-1]}" if lines else name
    if isinstance(error, RecursionError):
        where = name
    kind = "" if own else f"{type(error).__name__}: "
    said = f"{where}: {kind}{text}".rstrip(": ")
    return f"{said}; correct the file, see {shipped.place('tiny')}"


# Flags


def _value(argv: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, as absl takes it: --flag=value or --flag value."""
    value = None
    for i, argument in enumerate(argv[1:], start=1):
        name, equals, text = argument.lstrip("-").partition("=")
        if argument == "--":
            break
        if argument.startswith("-") and name == flag:
            value = text if equals else next(iter(argv[i + 1 : i + 2]), None)
    return value


def _is_set(argv: Sequence[str], flag: str) -> bool:
    """Whether a boolean flag is given, and not as false."""
    words = [a.lstrip("-").partition("=") for a in argv[1:] if a.startswith("-")]
    given = [text.lower() for name, _, text in words if name == flag]
    return bool(given) and given[-1] not in ("false", "f", "no", "n", "0")


_LIBRARY_WORDS = (
    (r"invalid literal for int\(\).*", "must be a whole number"),
    (r"could not convert string to float.*", "must be a number"),
    (r"\(.Non-boolean argument to boolean flag.*", "must be True or False"),
)


def of_flags(error: Exception) -> str:
    """What absl says of a flag, in one line that ends in what to do."""
    text = reading.shorten(str(error)).removeprefix("flag ")
    for words, ours in _LIBRARY_WORDS:
        text = re.sub(words, ours, text)
    return f"{text}; correct it, or see --help"


def _overrides(argv: Sequence[str]) -> list[str]:
    """The keys of all --config.KEY=value."""
    names = [a.lstrip("-").partition("=")[0] for a in argv[1:] if a.startswith("-")]
    begin = f"{_FLAG}."
    return [name.removeprefix(begin) for name in names if name.startswith(begin)]


def _check_key(named: str, config: ml_collections.ConfigDict, key: str) -> None:
    """Refuses a key that the config does not have, or that is a group.

    Raises:
      ValueError: see above; the nearest key, or what to do for a group, is named.
    """
    shown = f"--{_FLAG}.{reading.shorten(key)}"
    try:
        parts = config_path.split(key)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(
            f"{shown}: must be a key of the config; correct it, as in --{_FLAG}.seed=1"
        ) from None
    place: Any = config
    part: Any
    for depth, part in enumerate(parts):
        above = ".".join(str(p) for p in parts[:depth])
        if isinstance(place, tuple | list) and isinstance(part, int):
            if not -len(place) <= part < len(place):
                raise ValueError(
                    f"{shown}: {above} has {len(place)} entries; give all of them, as "
                    f"--{_FLAG}.{above}=\"('a', 'b')\""
                )
        elif not isinstance(place, Mapping | ml_collections.ConfigDict):
            raise ValueError(
                f"{shown}: {above} is {reading.shorten(repr(place))} and has no keys; "
                f"set --{_FLAG}.{above} itself"
            )
        elif part not in place:
            raise ValueError(
                f"{shown}: no such key; {_hint(named, place, parts, depth, above)}"
            )
        place = place[part]  # pyright: ignore[reportArgumentType]
    if isinstance(place, ml_collections.ConfigDict):
        first = next(iter(place), "key")
        raise ValueError(
            f"{shown}: is a group of keys; set them one by one, such as "
            f"{shown}.{first}={reading.shorten(repr(place.get(first)))}"
        )


def _hint(named: str, place: Any, parts: Sequence[Any], depth: int, above: str) -> str:
    known = [str(name) for name in place]
    part = str(parts[depth])
    prefix = f"{above}." if above else ""
    if near := difflib.get_close_matches(part, known, 1):
        rest = "".join(f".{p}" for p in parts[depth + 1 :])
        return f'did you mean "{near[0]}", --{_FLAG}.{prefix}{near[0]}{rest}?'
    there = f"known {f'in {above}' if above else 'there'}: {', '.join(known)}"
    if depth < len(parts) - 1:
        return (
            f"{named} has no group {prefix}{part}; add it to the file, where "
            f"{shipped.place('squad')} may show it ({there})"
        )
    return there
