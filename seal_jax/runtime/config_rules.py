"""From a config's nested mappings to frozen dataclasses, and rules for their values.

A config file (`configs/*.py`) writes every field that its dataclasses declare; there
are no defaults below it. `build` refuses an unknown key, a missing key and a wrong
type, and names the key; what a value may be, each dataclass says with the rules here.

A whole group may be left out where its field is `Group | None`: None means that nothing
uses it, and a setting that does is refused (`needs_group`). A group that is there and
not used is checked like any other and then ignored, so that one override on the command
line can begin to use it.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

# Keys of earlier versions, by their place in the config: what each is called now, or
# what to do without it. A row for each key that is renamed or removed.
RENAMED: dict[str, str] = {}


def build[T](
    cls: type[T],
    values: Mapping[str, Any],
    path: str = "config",
    renamed: Mapping[str, str] = RENAMED,
) -> T:
    """An instance of the dataclass `cls` from nested mappings.

    Args:
      cls: the dataclass.
      values: the mappings.
      path: where they stand in the config.
      renamed: as `RENAMED`.

    Raises:
      ValueError: a key that `cls` does not have (its new name or the nearest one is
        named), a key that is missing, a value of the wrong type, or one its class
        refuses.
    """
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(typing.cast(Any, cls))]
    for key in values:
        if key not in names:
            if (place := f"{path}.{key}".removeprefix("config.")) in renamed:
                raise ValueError(
                    f"{path}.{key} is of an earlier version: {renamed[place]}"
                )
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {path}.{near[0]}?" if near else f"known: {names}"
            raise ValueError(f"{path}.{key}: no such key; {hint}")
    missing = [n for n in names if n not in values and not _is_optional(hints[n])]
    if missing:
        raise ValueError(f"{path}: keys {missing} are missing; add them to the config")
    fields = {
        n: _value(hints[n], values[n], f"{path}.{n}", renamed) if n in values else None
        for n in names
    }
    try:
        return cls(**fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _is_optional(hint: Any) -> bool:
    """Whether a field is a group that may be left out."""
    return isinstance(hint, types.UnionType) and any(
        dataclasses.is_dataclass(part) for part in typing.get_args(hint)
    )


def _value(hint: Any, value: Any, path: str, renamed: Mapping[str, str]) -> Any:
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{path}={value!r} must be a group of keys, not a value")
        return build(typing.cast(type, hint), value, path, renamed)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise ValueError(f"{path}={value!r} must be a tuple, like ('a', 'b')")
        inner = typing.get_args(hint)[0]
        return tuple(
            _value(inner, v, f"{path}[{i}]", renamed) for i, v in enumerate(value)
        )
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(
            f"{path}={value!r} must be of type {hint.__name__}, "
            f"not {type(value).__name__}"
        )
    return value


def needs_group[Group](group: Group | None, name: str, why: str) -> Group:
    """The group, which a setting (`why`, as "key=value") cannot do without.

    Raises:
      ValueError: it was left out.
    """
    if group is None:
        raise ValueError(
            f"{why} needs the group config.{name}; see configs/squad.py, and add it to "
            "the config file"
        )
    return group


def one_of(name: str, value: str, allowed: typing.Iterable[str]) -> None:
    """Refuses a value that is not among those allowed.

    Raises:
      ValueError: see above.
    """
    if value not in (allowed := tuple(allowed)):
        raise ValueError(f"{name}={value!r} must be one of {allowed}")


def at_least(name: str, value: int, low: int) -> None:
    """Refuses a value below `low`.

    Raises:
      ValueError: see above.
    """
    if value < low:
        raise ValueError(f"{name}={value} must be at least {low}")


def positive(name: str, value: float) -> None:
    """Refuses a value that is not above 0.

    Raises:
      ValueError: see above.
    """
    if not value > 0:
        raise ValueError(f"{name}={value} must be greater than 0")


def within(name: str, value: float, low: float, high: float) -> None:
    """Refuses a value out of `low..high`.

    Raises:
      ValueError: see above.
    """
    if not low <= value <= high:
        raise ValueError(f"{name}={value} must lie in {low}..{high}")


def all_positive(name: str, group: Any) -> None:
    """Refuses a dataclass with a field below 1.

    Raises:
      ValueError: see above.
    """
    for field in dataclasses.fields(group):
        at_least(f"{name}.{field.name}", getattr(group, field.name), 1)
