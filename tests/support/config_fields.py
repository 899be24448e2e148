"""Every field of every config file, with its type and the bounds in it.

    PYTHONPATH=.:kernels python tests/support/config_fields.py

writes the table of bounds into docs/configuration.md.
"""

import copy
import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import tiny_model

from seal_jax.embedded.settings import PretrainConfig
from seal_jax.experiment import kinds
from seal_jax.runtime import config_rules

# Each config file, in the variant that runs without anything from elsewhere.
VARIANTS = {
    "squad": "debug",
    "tiny": "debug",
    "arc": "tiny",
    "continual": "tiny",
    "deploy": "debug",
    "lmsi": "debug",
    "own": "tiny",
    "squad_cpt": "tiny",
    "tiny_pretrain": None,
}


class Field(typing.NamedTuple):
    """A place in a config; `hint` is the declared type, with its bounds."""

    config: str
    path: str
    hint: Any


def values(name: str) -> dict[str, Any]:
    """The config's values, with the groups that it could leave out."""
    config = tiny_model.load_config(name, VARIANTS[name]).to_dict()
    if name == "own":  # The one that is nothing without data.
        config["task"]["train"] = str(tiny_model.ROOT / "tests/golden/own.jsonl")
    if "grade" in config:
        config["grade"].setdefault("judge", dict(tiny_model.OPTIONAL["grade.judge"]))
        config["task"].setdefault("columns", dict(tiny_model.OPTIONAL["task.columns"]))
    if "rule" in config.get("inner", {}):
        teach = copy.deepcopy(tiny_model.OPTIONAL["inner.teach"])
        config["inner"].setdefault("teach", teach)
    if "imitate" in config:
        prefer = copy.deepcopy(tiny_model.OPTIONAL["imitate.prefer"])
        config["imitate"].setdefault("prefer", prefer)
    if name in ("tiny", "squad"):
        config.setdefault(
            "label_free", copy.deepcopy(tiny_model.OPTIONAL["label_free"])
        )
    return config


def kind(name: str) -> type:
    """The dataclass that the config is of."""
    return PretrainConfig if name == "tiny_pretrain" else type(kinds.read(values(name)))


def build(name: str, given: Mapping[str, Any]) -> Any:
    """What the command makes of the values."""
    if name == "tiny_pretrain":
        return config_rules.build(PretrainConfig, given)
    return kinds.read(given)


def changed(tree: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The values with one of them changed; the others stay as they are."""
    head, _, rest = path.partition(".")
    return {**tree, head: changed(tree[head], rest, value) if rest else value}


def at(tree: Mapping[str, Any], path: str) -> Any:
    """The value at a place."""
    for part in path.split("."):
        tree = tree[part]
    return tree


def fields(name: str) -> list[Field]:
    """All fields that are no groups."""
    return [Field(name, path, hint) for path, hint in leaves(kind(name), "")]


def groups(name: str) -> list[str]:
    """The places of all groups."""
    found = {f.path.rpartition(".")[0] for f in fields(name)}
    return sorted(found - {""})


def leaves(cls: type, path: str) -> Iterator[tuple[str, Any]]:
    """Fields of a dataclass and of its groups, by their place."""
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        place = f"{path}.{name}" if path else name
        parts = [hint]
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            parts = list(typing.get_args(hint))
        group = next((part for part in parts if dataclasses.is_dataclass(part)), None)
        if group is None:
            yield place, hint
        else:
            yield from leaves(typing.cast(type, group), place)


def numbers(hint: Any) -> list[Any]:
    """The numeric types in a field's type, as (kind, bound or None)."""
    limits = config_rules.bound(hint)
    if limits is not None:
        # Beside a number there may be none, or a text.
        plain = [h for h in typing.get_args(hint) if h not in (type(None), str)]
        inner = typing.get_args(plain[0])
        return [(inner[0] if inner else plain[0], limits)]
    if hint in (int, float):
        return [(hint, None)]
    return [found for part in typing.get_args(hint) for found in numbers(part)]


# The table in docs/configuration.md

PAGE = tiny_model.ROOT / "docs" / "configuration.md"
BEGIN, END = "<!-- bounds:begin -->\n", "<!-- bounds:end -->\n"


def table() -> str:
    """A row for each bound, with the fields that have it."""
    rows: dict[tuple[float, float, float], list[str]] = {}
    for name in VARIANTS:
        for _, path, hint in fields(name):
            for _, limits in numbers(hint):
                key = (limits.low, limits.high, limits.least)
                shown = f"pretrain: {path}" if name == "tiny_pretrain" else path
                rows.setdefault(key, [])
                if shown not in rows[key]:
                    rows[key].append(shown)
    lines = ["| from | to | fields |", "|---|---|---|"]
    for (low, high, least), paths in sorted(rows.items()):
        start = f"{low:,}, or {least} on" if least else f"{low:,}"
        names = ", ".join(f"`{path}`" for path in sorted(paths))
        lines.append(f"| {start} | {high:,} | {names} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the table in its place."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
