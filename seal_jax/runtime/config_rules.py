"""From a config's nested mappings to frozen dataclasses, and rules for their values.

A config file (`configs/*.py`) writes every field that its dataclasses declare; there
are no defaults below it. `build` refuses an unknown key, a missing key and a wrong
type, and names the key; what a value may be, each dataclass says with the rules here.

Every number has a lower and an upper bound, which is part of its field's type: `rounds:
Annotated[int, Bound(1, 1000)]`, or one of the kinds named below. `build` holds values
to it, and so does `check`, which a dataclass calls when it is made by hand.

A whole group may be left out where its field is `Group | None`: None means that nothing
uses it, and a setting that does is refused (`needs_group`). A group that is there and
not used is checked like any other and then ignored, so that one override on the command
line can begin to use it.
"""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from seal_jax.runtime import reading, shipped

# Keys of earlier versions, by their place in the config: what each is called now, or
# what to do without it. A row for each key that is renamed or removed.
RENAMED: dict[str, str] = {}

# Keys that came later, by their place in the config: what an earlier config, which does
# not have them, stands for. A row for each key that is added.
ADDED: dict[str, Any] = {
    "imitate.rule": "best",
    "inner.chunk_tokens": 0,
    "inner.rule": "edits",
    "label_free.samples": 4,
    "model.attention": "auto",
    "model.base_dtype": "same",
    "model.chat": "none",
    "propose.search": (),
    "select.objective": "mean",
    "select.prefilter": (),
    "watch": {"writers": ("tensorboard",), "project": "seal"},
}

# Texts are names, paths and one self-edit; tuples are lists of names. Beyond this they
# are something else.
_LONGEST_TEXT, _MOST_ELEMENTS = 10_000, 10_000


# Bounds


@dataclasses.dataclass(frozen=True)
class Bound:
    """The numbers from `low` to `high`, both ends allowed; nan is none of them.

    `least` goes with `low = 0`: of the numbers below it only 0 itself is allowed, which
    means "not at all"; nearer to 0 they would say so with other words, or make
    something overflow.
    """

    low: float
    high: float
    least: float = 0.0

    def check(self, name: str, value: float) -> None:
        """Refuses a number out of bounds.

        Raises:
          ValueError: see above.
        """
        least = self.least if self.least and value > 0 else self.low
        if least <= value <= self.high:
            return
        low = f"0 or at least {self.least}" if self.least else f"at least {self.low}"
        use = self.high if value > self.high else self.low
        raise ValueError(
            f"{name}={shown(value)} must be {low} and at most {self.high}; use {use}"
        )


# Kinds of numbers. The bounds are wide: what lies beyond them is a slip of the hand, or
# would overflow, hang, or mean nothing.
#
# jax.random.key takes 32 bits of a seed: 2**32 would draw what 0 draws.
Seed = Annotated[int, Bound(0, 2**32 - 1)]
Share = Annotated[float, Bound(0.0, 1.0, least=1e-9)]
LearningRate = Annotated[float, Bound(1e-12, 100.0)]
ClipNorm = Annotated[float, Bound(1e-6, 1e6)]
# Weight of a term in a loss or a reward.
Weight = Annotated[float, Bound(1e-6, 1e6)]
Epochs = Annotated[int, Bound(1, 1000)]
# Lines, texts or rows that are taken at once.
Batch = Annotated[int, Bound(1, 8192)]
# Positions of a text or of a row.
Tokens = Annotated[int, Bound(1, 2**20)]
# Items: passages or tasks. SQuAD has 19 thousand passages to train on.
Items = Annotated[int, Bound(1, 20_000)]
Rounds = Annotated[int, Bound(1, 100)]
# Edits of an item, or seeds of an edit.
Edits = Annotated[int, Bound(1, 1000)]
# Where a list of items begins.
Start = Annotated[int, Bound(0, 10_000_000)]
# A size that is computed if it is 0.
AnySize = Annotated[int, Bound(0, 2**20)]

# Of one phase: what is planned and kept for each of them has to fit the host.
MOST_ADAPTERS = 1_000_000
# Of all rounds or sequences together.
MOST_ITEMS = 50_000


def check(group: Any, name: str = "") -> None:
    """Holds the numbers of a dataclass to their bounds; `name` is the group's.

    Raises:
      ValueError: a number out of bounds.
    """
    for field, hint in _hints(type(group)).items():
        full = f"{name}.{field}" if name else field
        _check_bounds(hint, getattr(group, field), full)


def _check_bounds(hint: Any, value: Any, name: str) -> None:
    if isinstance(value, tuple) and typing.get_origin(hint) is tuple:
        for i, element in enumerate(value):
            _check_bounds(typing.get_args(hint)[0], element, f"{name}[{i}]")
    elif isinstance(value, int | float) and (limits := bound(hint)) is not None:
        limits.check(name, value)


def bound(hint: Any) -> Bound | None:
    """The bound in a field's type, if there is one; of `Kind | None`, that of Kind."""
    if _is_union(hint):
        found = (bound(part) for part in typing.get_args(hint))
        return next((limits for limits in found if limits is not None), None)
    parts = getattr(hint, "__metadata__", ())
    return next((part for part in parts if isinstance(part, Bound)), None)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def at_most(what: str, value: int, high: int) -> None:
    """Refuses a product of several settings, which `what` names, above `high`.

    Raises:
      ValueError: see above.
    """
    if value > high:
        raise ValueError(f"{what} = {value} must be at most {high}; lower one of them")


def shown(value: object) -> str:
    """A value for an error: on one line, and not longer than a line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits.
        text = f"a number of {int(typing.cast(int, value)).bit_length()} bits"
    except Exception:
        text = f"an object of type {type(value).__name__}"
    return reading.shorten(text)


# From mappings to dataclasses


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
        named), a key that is missing, a value of the wrong type or out of bounds, or
        one its class refuses.
    """
    hints = _hints(cls)
    names = [field.name for field in dataclasses.fields(typing.cast(Any, cls))]
    for key in values:
        if key not in names:
            raise ValueError(_unknown(key, names, path, renamed))
    place = path.removeprefix("config").removeprefix(".")
    prefix = f"{place}." if place else ""
    values = {n: ADDED[p] for n in names if (p := f"{prefix}{n}") in ADDED} | {**values}
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


def _unknown(
    key: object, names: list[str], path: str, renamed: Mapping[str, str]
) -> str:
    if not isinstance(key, str):
        return f"{path}: the key {shown(key)} must be a name; known: {names}"
    if (place := f"{path}.{key}".removeprefix("config.")) in renamed:
        return f"{path}.{key} is of an earlier version: {renamed[place]}"
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {path}.{near[0]}?" if near else f"known: {names}"
    return f"{path}.{reading.shorten(key)}: no such key; {hint}"


def _is_optional(hint: Any) -> bool:
    """Whether a field is a group that may be left out."""
    return _is_union(hint) and any(
        dataclasses.is_dataclass(part) for part in typing.get_args(hint)
    )


def _value(hint: Any, value: Any, path: str, renamed: Mapping[str, str]) -> Any:
    if _is_union(hint):
        parts = typing.get_args(hint)
        if value is None and type(None) in parts:
            return None
        parts = [part for part in parts if part is not type(None)]
        # Of a text or a number that which it is; else what the first may be.
        hint = next((part for part in parts if _kind(part) is type(value)), parts[0])
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(
                f"{path}={shown(value)} must be a group of keys, not a value; see "
                f"{shipped.place('tiny')} for one"
            )
        return build(typing.cast(type, hint), value, path, renamed)
    if typing.get_origin(hint) is tuple:
        return _elements(typing.get_args(hint)[0], value, path, renamed)
    limits, kind = bound(hint), _kind(hint)
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(
            f"{path}={shown(value)} must be of type {kind.__name__}, "
            f"not {type(value).__name__}; use {_EXAMPLES[kind]}"
        )
    if isinstance(value, str):
        _check_text(path, value)
    elif limits is not None:
        number = typing.cast(float, value)  # Of its kind, as was checked.
        limits.check(path, number)
        return kind(number)
    return value


_EXAMPLES = {
    int: "a whole number, like 3",
    float: "a number, like 0.5",
    str: "a text, like 'name'",
    bool: "True or False",
}


def _kind(hint: Any) -> Any:
    """The type in a field's type, without its bounds."""
    annotated = typing.get_origin(hint) is Annotated
    return typing.get_args(hint)[0] if annotated else hint


def _elements(
    hint: Any, value: Any, path: str, renamed: Mapping[str, str]
) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{path}={shown(value)} must be a tuple, like ('a', 'b')")
    if len(value) > _MOST_ELEMENTS:
        raise ValueError(
            f"{path} holds {len(value)} values and must hold at most {_MOST_ELEMENTS}; "
            "give fewer"
        )
    return tuple(_value(hint, v, f"{path}[{i}]", renamed) for i, v in enumerate(value))


def _check_text(path: str, value: str) -> None:
    # A file name takes neither, and a workdir could not be read back.
    odd = any(c == "\0" or 0xD800 <= ord(c) < 0xE000 for c in value)
    if len(value) > _LONGEST_TEXT or odd:
        raise ValueError(
            f"{path}={shown(value)} must be a text of at most {_LONGEST_TEXT} "
            f"characters, without NUL or lone surrogates; it has {len(value)}: shorten "
            "it, or take them out"
        )


# Rules


def needs_group[Group](group: Group | None, name: str, why: str) -> Group:
    """The group, which a setting (`why`, as "key=value") cannot do without.

    Raises:
      ValueError: it was left out.
    """
    if group is None:
        raise ValueError(
            f"{why} needs the group config.{name}; see {shipped.place('squad')}, and "
            "add it to the config file"
        )
    return group


def one_of(name: str, value: str, allowed: typing.Iterable[str]) -> None:
    """Refuses a value that is not among those allowed.

    Raises:
      ValueError: see above.
    """
    if value not in (allowed := tuple(allowed)):
        is_text = isinstance(value, str)  # A caller may have given anything.
        near = difflib.get_close_matches(value, allowed, 1) if is_text else []
        use = (near or allowed)[:1]
        hint = f"; use {use[0]!r}" if use else ""
        raise ValueError(f"{name}={shown(value)} must be one of {allowed}{hint}")


def distinct(name: str, values: tuple[str, ...]) -> None:
    """Refuses values of which one is there twice.

    Raises:
      ValueError: see above.
    """
    if len(set(values)) < len(values):
        raise ValueError(f"{name}={shown(values)} must differ; name each once")
