"""Malformed configs: each field of each config file, by its type and its bounds.

    PYTHONPATH=.:kernels:tests/support python tests/faults/malformed_config.py [COUNT]

puts COUNT values and as many command lines (default: all) through the door, prints
those that do not end in one line, and how many there were.
"""

import collections
import contextlib
import decimal
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import absl.flags
import config_fields
import tiny_model
from ml_collections import config_flags

from seal_jax import train
from seal_jax.embedded import settings as pretrain_settings
from seal_jax.experiment import workdirs
from seal_jax.runtime import config_file, config_rules, shipped

# Seconds that one case may take; on busy cores a check takes two.
LIMIT_S = 60


class Case(typing.NamedTuple):
    """One value at one place of a config.

    `way`: what is wrong with it, for strata. `legal`: it may also be taken.
    """

    config: str
    path: str
    way: str
    value: Any
    legal: bool = False

    def __str__(self) -> str:
        return (
            f"{self.config}: {self.path} ({self.way}) {config_rules.shown(self.value)}"
        )


class Missing:
    """In the place of a value: the key is left out."""


class Odd:
    """Something that a config file may make, and that cannot be written."""

    def __repr__(self) -> str:
        raise RuntimeError("not to be written")


def deep(levels: int = 2000) -> list[Any]:
    """A list in a list in a list."""
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


# What is no value of any field.
NOWHERE: tuple[tuple[str, Any], ...] = (
    ("bytes", b"3"),
    ("complex", 3j),
    ("set", {3}),
    ("decimal", decimal.Decimal(3)),
    ("function", len),
    ("class", int),
    ("unwritable", Odd()),
    ("deep", deep()),
    ("keys", {3: 4, None: 5}),
    ("group", {"a": {"b": 1}}),
    ("lists", [[["x"]], None]),
    ("ellipsis", ...),
)

HUGE = (10**12, 2**31, 2**32, 2**63, 10**400, -(10**400), 10**5000)
FLOATS = (float("nan"), float("inf"), -float("inf"), 1e308, -1e308, -5e-324)


def of_numbers(hint: Any, value: Any) -> Iterator[tuple[str, Any, bool]]:
    """(way, value, legal) of a field that takes a number."""
    ((kind, limits),) = config_fields.numbers(hint)
    for number in HUGE:
        yield "huge", number, limits.low <= number <= limits.high
    for number in (limits.low - 1, limits.high + 1, -1, -2):
        yield "outside", number, limits.low <= number <= limits.high
    yield "least", limits.low, True
    yield "most", limits.high, True
    if kind is float:
        for number in FLOATS:
            yield "float", number, False
        yield "float", 5e-324, limits.low < 0
    else:
        for number in (1.5, *FLOATS):
            yield "float", number, False
    for text in ("3", "nan", "", "x" * 100_000, "1\n2", "\udc80"):
        yield "text", text, False
    yield "bool", True, False
    yield "none", None, type(None) in typing.get_args(hint)
    yield "tuple", (3,), False
    yield "tuple", (), False


def of_texts(hint: Any, value: Any) -> Iterator[tuple[str, Any, bool]]:
    """Of a field that takes a text."""
    if hint is bool:
        return (yield "bool", False, True)
    for text in ("\0", "a\0b", "\udc80", "x" * 10_001):
        yield "text", text, False
    for text in ("", " ", "None", "../..", "a\nb", "\x1b[2J", "\U0001f4a5", "x" * 5000):
        yield "text", text, True
    for number in (3, -1, 1.5, float("nan"), 10**400):
        yield "number", number, False
    yield "bool", True, False
    yield "none", None, False
    yield "tuple", ("x",), False


def of_tuples(hint: Any, value: Any) -> Iterator[tuple[str, Any, bool]]:
    """Of a field that takes a tuple of texts or numbers."""
    for other in ("abc", 3, None, True, 1.5, {"a": 1}, range(3), ""):
        yield "no tuple", other, False
    for inner in (None, True, b"x", deep(100), {"a": 1}, Odd()):
        yield "element", (inner,), False
    for elements in ((), ("x",) * 2, tuple(value) * 2, ("\udc80",), (10**12,)):
        yield "elements", elements, True
    yield "many", ("x",) * 100_000, False
    yield "many", (3,) * 100_000, False


def cases() -> list[Case]:
    """All of them."""
    found = []
    for name in config_fields.VARIANTS:
        tree = config_fields.values(name)
        for _, path, hint in config_fields.fields(name):
            value = config_fields.at(tree, path)
            if isinstance(value, tuple):
                ways = of_tuples
            elif config_fields.numbers(hint):
                ways = of_numbers
            else:
                ways = of_texts
            found += [Case(name, path, *case) for case in ways(hint, value)]
            found += [Case(name, path, *case) for case in NOWHERE]
            # Configs from before a key was there stand for its first value.
            later = path in config_rules.ADDED
            found.append(Case(name, path, "missing", Missing, later))
        for path in config_fields.groups(name):
            optional = path in ("grade.judge", "label_free", "label_free.quiz")
            for value in (3, "x", (), [], True, {}, deep(100)):
                found.append(Case(name, path, "no group", value))
            found.append(Case(name, path, "no group", None, optional))
            later = path in config_rules.ADDED
            found.append(Case(name, path, "missing", Missing, optional or later))
            for key in ("sead", "x" * 5000, "a b\n", "\udc80", 3, None):
                known = config_fields.at(tree, path)
                found.append(Case(name, path, "key", {**known, key: 1}))
    return found


def stratified(count: int, *, seed: int = 0) -> list[Case]:
    """So many of them, as evenly from each config and way as they allow.

    Without those at an upper bound: they are legal, and their check takes minutes.
    """
    strata: dict[tuple[str, str], list[Case]] = collections.defaultdict(list)
    for case in cases():
        if case.way == "most":
            continue
        strata[case.config, case.way].append(case)
    rng = random.Random(f"malformed configs {seed}")
    for members in strata.values():
        rng.shuffle(members)
    order = [case for row in _rows(list(strata.values())) for case in row]
    return order[:count]


def _rows(strata: Sequence[list[Case]]) -> Iterator[list[Case]]:
    for i in range(max(map(len, strata))):
        yield [members[i] for members in strata if i < len(members)]


# The door


def write_data(folder: Path) -> Path:
    """A folder for $SEAL_DATA, with the passages that squad.py:debug reads."""
    rows = [
        {
            "title": f"Town {i}",
            "context": f"The mayor of town {i} is called Number {i}.",
            "questions": [
                {"question": f"Who is mayor of town {i}?", "answer": f"Number {i}"}
            ],
        }
        for i in range(210)
    ]
    path = folder / "knowledge-incorporation" / "data" / "squad_val.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return folder


class _AcceptedError(Exception):
    """Everything that is checked before a workdir is claimed has passed."""


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises TimeoutError where the block takes longer; in the main thread."""

    def late(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    # Again each second: an exception in a callback of a library is swallowed.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def values_of(case: Case) -> dict[str, Any]:
    """The config with the case's value in its place."""
    tree = config_fields.values(case.config)
    if case.value is not Missing:
        return config_fields.changed(tree, case.path, case.value)
    *groups, last = case.path.split(".")
    above = config_fields.at(tree, ".".join(groups)) if groups else tree
    left = {key: value for key, value in above.items() if key != last}
    return config_fields.changed(tree, ".".join(groups), left) if groups else left


def outcome(case: Case, workdir: Path) -> str | None:
    """What the door says of a case; None where it is taken."""

    def claimed(*_: object, **__: object) -> None:
        raise _AcceptedError

    values, claim = values_of(case), workdirs.claim
    workdirs.claim = claimed
    try:
        with limited(5 * LIMIT_S if case.way == "most" else LIMIT_S):
            if case.config == "tiny_pretrain":
                config_rules.build(pretrain_settings.PretrainConfig, values)
            else:
                train.run(values, workdir)
    except _AcceptedError:
        return None
    except (ValueError, OSError) as error:
        return f"{error}" if not isinstance(error, TimeoutError) else f"hang: {error}\n"
    except NotImplementedError as error:  # A kernel that does not run here.
        return f"{error}"
    finally:
        workdirs.claim = claim
    return None


RULE = re.compile(r"must|missing|no such|; ")


def fault(case: Case, workdir: Path) -> str | None:
    """What is wrong with how a case ends; None for one line, or one that is legal."""
    try:
        said = outcome(case, workdir)
    except BaseException as error:
        return f"{type(error).__name__}: {config_rules.shown(str(error))}"
    if list(workdir.parent.iterdir()):
        return f"wrote {[p.name for p in workdir.parent.iterdir()]}"
    if said is None:
        return None if case.legal else "taken"
    names = case.path.split(".")
    if "\n" in said or len(said) > 1000 or not said.isprintable():
        return f"not one line: {said[:200]!r}"
    if not RULE.search(said) or not any(name in said for name in names):
        return f"no place or no rule: {said}"
    return None


# The command line

FLAGS = (
    "", "None", "nan", "1e999", "9" * 5000, "-1", "[", "(1,", "{'a': 1}", "\x00",
    "'x'", "x" * 5000, "1e308", "5e-324", "True", "((1,),)", "\U0001f4a5",
)  # fmt: skip


# Groups that the command line cannot set, as the file does not have them.
_LEFT_OUT = dict.fromkeys(
    config_fields.VARIANTS, ("grade.judge", "label_free", "task.columns")
) | {"squad": ("task.columns",), "own": ("grade.judge",)}


def flag_cases() -> list[Case]:
    """Each field of each config with texts that a shell may hand over."""
    return [
        Case(name, path, "flag", text, legal=True)
        for name in config_fields.VARIANTS
        for _, path, _ in config_fields.fields(name)
        if not path.startswith(_LEFT_OUT[name])
        for text in FLAGS
    ]


# Keys of some configs that follow another one: a flag of theirs sets that.
FOLLOWED = {"task.shuffle_seed": ("config.seed",), "select.k_best": ("scale.edits",)}


def flag_fault(case: Case) -> str | None:
    """What is wrong with how a case on the command line ends; None for one line."""
    variant = config_fields.VARIANTS[case.config]
    file = f"{tiny_model.ROOT}/configs/{case.config}.py"
    argv = [
        "train",
        f"--config={file}{f':{variant}' if variant else ''}",
        "--workdir=w",
        f"--config.{case.path}={case.value}",
    ]
    holder = absl.flags.FlagValues()
    absl.flags.DEFINE_string("workdir", None, "", flag_values=holder)
    config = config_flags.DEFINE_config_file(
        "config", flag_values=holder, sys_argv=argv
    )
    try:
        with limited(LIMIT_S):
            pretrains = case.config in shipped.PRETRAINING
            config_file.check(argv, pretrains=pretrains)
            try:
                holder(argv)
            except absl.flags.Error as error:
                raise ValueError(config_file.of_flags(error)) from error
            config_fields.build(case.config, config.value.to_dict())
    except (ValueError, OSError) as error:
        said = str(error)
        good = "\n" not in said and len(said) < 1000 and RULE.search(said)
        names = (case.path.split(".")[-1], *FOLLOWED.get(case.path, ()))
        named = any(name in said for name in names)
        return None if good and named else f"not one line: {said[:300]!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {config_rules.shown(str(error))}"
    return None


def main(argv: Sequence[str]) -> int:
    """Prints the faults among so many cases; returns how many."""
    count = int(argv[0]) if argv else None
    found, ran, begin = 0, 0, time.monotonic()
    chosen = cases() if count is None else stratified(count)
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as runs:
        os.environ["SEAL_DATA"] = str(write_data(Path(data)))
        for case in chosen:
            ran += 1
            if wrong := fault(case, Path(runs) / "run"):
                found += 1
                print(f"{case}: {wrong}", flush=True)
    flags = flag_cases()
    for case in flags[:: max(1, len(flags) // (count or len(flags)))]:
        ran += 1
        if wrong := flag_fault(case):
            found += 1
            print(f"flag {case}: {wrong}", flush=True)
    print(f"{ran} cases, {found} faults, {time.monotonic() - begin:.0f} s")
    return found


if __name__ == "__main__":
    raise SystemExit(bool(main(sys.argv[1:])))
