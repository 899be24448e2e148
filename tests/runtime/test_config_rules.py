"""Rules for a config's values: both bounds of every number, and what errors show."""

import dataclasses
import functools
import itertools
import math
from typing import Annotated

import config_fields
import hypothesis
import pytest
from hypothesis import strategies

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound

FIELDS = [f for name in config_fields.VARIANTS for f in config_fields.fields(name)]
NUMBERS = [f for f in FIELDS if config_fields.numbers(f.hint)]
VALUES = {name: config_fields.values(name) for name in config_fields.VARIANTS}


def test_every_number_of_every_config_has_both_bounds():
    for config, path, hint in NUMBERS:
        for kind, limits in config_fields.numbers(hint):
            assert limits is not None, f"{config}: {path} needs a config_rules.Bound"
            assert -math.inf < limits.low < limits.high < math.inf, path
            assert type(limits.low) is type(limits.high) is kind, path
            if limits.least:
                assert kind is float and limits.low == 0 < limits.least, path


def test_the_walk_over_configs_misses_no_field():
    def places(tree, path=""):
        for key, value in tree.items():
            place = f"{path}.{key}" if path else key
            yield from places(value, place) if isinstance(value, dict) else [place]

    for name, tree in VALUES.items():
        known = {f.path for f in FIELDS if f.config == name}
        assert known == set(places(tree))
    assert len(NUMBERS) > 250


def test_the_page_has_the_bounds():
    assert config_fields.PAGE.read_text(encoding="utf-8") == config_fields.page()


def outside(limits, kind):
    """Numbers that the bound refuses."""
    found = [limits.low - 1, limits.high + 1, 10**12, 2**63, 10**400, -(10**400)]
    if kind is float:
        found += [math.nan, math.inf, -math.inf, 1e308, -1e308, -5e-324]
        found += [limits.least / 2] if limits.least else []
        found += [math.nextafter(limits.low, -math.inf)]
        found += [math.nextafter(limits.high, math.inf)]
        if limits.low >= 0:
            found += [5e-324]
    return [
        n for n in found if not (limits.low <= n <= limits.high) or _between(n, limits)
    ]


def _between(n, limits):
    return 0 < n < limits.least


def given(hint, old, value):
    """The value in the place of a field's first number; an empty one holds pairs.

    Or, where it may hold texts, a text and numbers.
    """
    if not isinstance(old, tuple):
        return value
    if old:
        return (given(hint, old[0], value), *old[1:])
    return ("gradient", value, 3, 2) if "str" in str(hint) else ((value, 1),)


@pytest.mark.parametrize("name", config_fields.VARIANTS)
def test_a_number_out_of_its_bounds_is_refused_in_one_line(name):
    tree = VALUES[name]
    for _, path, hint in of_config(name):
        old = config_fields.at(tree, path)
        ((kind, limits),) = config_fields.numbers(hint)
        for number in outside(limits, kind):
            values = config_fields.changed(tree, path, given(hint, old, number))
            with pytest.raises(ValueError) as caught:
                config_fields.build(name, values)
            said = str(caught.value)
            assert path in said and "\n" not in said and len(said) < 400, said
            assert "must be" in said and f"at most {limits.high}; use" in said, said
            assert config_rules.shown(number) in said or "..." in said, said


@pytest.mark.parametrize("name", config_fields.VARIANTS)
def test_a_bound_holds_where_a_dataclass_is_made_by_hand(name):
    whole = config_fields.build(name, VALUES[name])
    for _, path, hint in of_config(name):
        *groups, field = path.split(".")
        group = functools.reduce(getattr, groups, whole)
        old = getattr(group, field)
        ((_, limits),) = config_fields.numbers(hint)
        for number in (limits.low - 1, limits.high + 1, math.nan):
            with pytest.raises(ValueError, match=rf"{field}.* must be .* and at most"):
                dataclasses.replace(group, **{field: given(hint, old, number)})


def of_config(name):
    return [field for field in NUMBERS if field.config == name]


@dataclasses.dataclass(frozen=True)
class Leaf:
    count: Annotated[int, Bound(2, 9)]
    share: config_rules.Share
    pairs: tuple[tuple[Annotated[int, Bound(1, 5)], ...], ...]
    maybe: Annotated[float, Bound(0.5, 2.0)] | None
    name: str

    def __post_init__(self):
        config_rules.check(self, "leaf")


GOOD = {"count": 3, "share": 0.5, "pairs": ((1, 2),), "maybe": None, "name": "x"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    ids=itertools.count(),
    argvalues=[
        ("count", 1, "config.count=1 must be at least 2 and at most 9; use 2"),
        ("count", 10, "config.count=10 must be at least 2 and at most 9; use 9"),
        ("share", 1e-10, "share=1e-10 must be 0 or at least 1e-09 and at most 1.0; u"),
        (
            "share",
            math.nan,
            "share=nan must be 0 or at least 1e-09 and at most 1.0",
        ),
        ("share", 10**400, "and at most 1.0; use 1.0"),
        ("share", 10**5000, "share=a number of 16610 bits must be"),
        ("pairs", ((1, 2), (6,)), "config.pairs[1][0]=6 must be at least 1 and at"),
        ("pairs", [[True]], "config.pairs[0][0]=True must be of type int, not bool"),
        ("pairs", range(10), "config.pairs=range(0, 10) must be a tuple"),
        ("pairs", ((),) * 10_001, "config.pairs holds 10001 values and must hold at m"),
        ("maybe", 0.1, "config.maybe=0.1 must be at least 0.5 and at most 2.0; use 0"),
        ("maybe", "None", "config.maybe='None' must be of type float, not str; use a"),
        ("count", None, "config.count=None must be of type int, not NoneType; use a "),
        ("name", "a\0b", "config.name='a\\x00b' must be a text of at most 10000 chara"),
        ("name", "\udc80", "config.name='\\udc80' must be a text of at most 10000 cha"),
        ("name", "x" * 10_001, "... must be a text"),
        ("name", {"a": "\n"}, "config.name={'a': '\\n'} must be of type str, not dict"),
    ],
)
def test_what_an_error_says(key, value, message):
    with pytest.raises(ValueError) as caught:
        config_rules.build(Leaf, GOOD | {key: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_keys_that_are_no_names_are_refused():
    for key in (3, None, "a" * 10_000, "a\nb", ("a",)):
        with pytest.raises(ValueError) as caught:
            config_rules.build(Leaf, {**GOOD, key: 1})
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


class Odd:
    def __repr__(self):
        raise RuntimeError("no")


def test_a_value_that_cannot_be_written_is_named_by_its_type():
    assert config_rules.shown(Odd()) == "an object of type Odd"
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert config_rules.shown(deep) == "an object of type list"
    while deep:  # Its own destruction would recurse as deeply.
        deep = deep.pop()


JUNK = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text()
    | strategies.binary()
    | strategies.complex_numbers(),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.tuples(inner, inner)
        | strategies.dictionaries(strategies.text() | strategies.integers(), inner)
    ),
    max_leaves=5,
)


@hypothesis.given(strategies.sampled_from([*GOOD]), JUNK)
def test_any_value_is_taken_as_it_is_or_refused_in_one_line(key, value):
    try:
        built = config_rules.build(Leaf, GOOD | {key: value})
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
    else:
        taken = getattr(built, key)
        assert taken == value or list(map(list, taken)) == list(map(list, value))


@hypothesis.given(
    strategies.floats() | strategies.integers(),
    strategies.floats(-1e9, 1e9),
    strategies.floats(1e-3, 1e9),
)
def test_a_bound_allows_what_lies_in_it_and_nothing_else(value, low, size):
    limits = Bound(low, low + size)
    hypothesis.assume(limits.low < limits.high)
    try:
        limits.check("n", value)
    except ValueError as error:
        assert not low <= value <= limits.high
        assert str(error).endswith(f"use {limits.high if value > low else low}")
    else:
        assert low <= value <= limits.high


@hypothesis.given(strategies.floats(0, 1))
def test_a_least_number_leaves_room_for_zero(value):
    limits = Bound(0.0, 1.0, least=0.25)
    if value == 0 or value >= 0.25:
        limits.check("n", value)
    else:
        with pytest.raises(ValueError, match=r"must be 0 or at least 0\.25 and "):
            limits.check("n", value)


def test_a_product_is_bounded_too():
    tree = VALUES["tiny"]
    for side, items in itertools.product(("", "heldout_"), (10_000,)):
        big = tree
        for name, value in (("passages", items), ("edits", 100), ("seeds", 100)):
            big = config_fields.changed(big, f"scale.{side}{name}", value)
        with pytest.raises(ValueError, match=r"scale\..* = 100000000 must be at most"):
            config_fields.build("tiny", big)
