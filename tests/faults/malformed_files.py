"""Malformed inputs for every door that reads a file, and what each must end in.

    PYTHONPATH=tests/support .venv/bin/python tests/faults/malformed_files.py

A door is a set of good files and what reads them. A case damages one of the files, by
value (a place in its JSON becomes something else, or goes) or by byte, and opens the
door. It must end: read (the damage meant nothing, or the method counts and skips such
entries), or refused by one line that names the place and says what to do. Anything
else is a defect: another exception, several lines, a hang, half an output.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import file_doors

# Seconds after which an input counts as one that hangs.
LIMIT_S = 30
_LONGEST = 800

# Placeholders for what `json.dumps` does not write.
_RAW = {
    "<huge>": "1" + "0" * 400,
    "<tiny>": "5e-324",
    "<large>": "1e308",
    "<beyond>": "1e999",
    "<negative>": "-1",
    "<nan>": "NaN",
    "<infinity>": "-Infinity",
    "<deep>": "[" * 4000 + "]" * 4000,
    "<deep objects>": '{"a":' * 4000 + "1" + "}" * 4000,
    "<nested>": "[" * 40 + "]" * 40,
    "<surrogate>": '"\\ud800"',
    "<NUL>": '"a\\u0000b"',
    "<long>": '"' + "x" * 100_000 + '"',
}
VALUES = (*_RAW, None, True, False, 0, -1, 3, 0.5, 10**12, "", " ", "x", "../x", [], {})
SHAPES = ("wrap", "text", "drop", "rename", "double", "empty", "swap")
BYTES = (
    "nothing",
    "cut",
    "flip",
    "NUL",
    "order mark",
    "utf-16",
    "garbage",
    "blank",
    "folder",
    "gone",
    "twice",
    "loop",
    "pipe",
)


class HangError(BaseException):
    """A door took longer than `LIMIT_S`."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a case ended; `defect` is empty for one that ended as it must."""

    door: str
    damage: str
    ended: str  # "read" or "refused"
    said: str
    defect: str


# Damage


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON value, the whole included."""
    yield path
    if isinstance(value, dict):
        for key, child in value.items():
            yield from places(child, (*path, key))
    elif isinstance(value, list):
        # Entries are alike; the first few stand for all.
        for i, child in enumerate(value[:3]):
            yield from places(child, (*path, i))


def changed(value: Any, path: tuple, change: Callable[[Any], Any]) -> Any:
    """A copy with `change` of what is at `path`; `GONE` removes it."""
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    child = changed(value[path[0]], path[1:], change)
    if child is GONE:
        del copy[path[0]]
    else:
        copy[path[0]] = child
    return copy


GONE = object()


def shape(kind: str, value: Any) -> Any:
    """The value in another shape."""
    if kind == "wrap":
        return [value]
    if kind == "text":
        return json.dumps(value)
    if kind == "drop":
        return GONE
    if kind == "rename":
        return {"x": value}
    if kind == "double":
        return value * 2 if isinstance(value, list | str) else [value, value]
    if kind == "empty":
        return type(value)() if isinstance(value, list | str | dict) else None
    return [value] if isinstance(value, dict) else {"0": value}


def text_of(value: Any) -> str:
    """JSON with the placeholders written out."""
    text = json.dumps(value)
    for name, raw in _RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


def damage_json(path: pathlib.Path, rng: random.Random) -> str:
    """Changes one place of a JSON file, or of one line; returns what was done."""
    whole, number = path.read_text(encoding="utf-8"), 0
    lines = whole.split("\n") if path.suffix == ".jsonl" else [whole]
    if path.suffix == ".jsonl":
        number = rng.randrange(max(1, len(lines) - 1))
    value = json.loads(lines[number])
    where = rng.choice(list(places(value)))
    if rng.random() < 0.7:
        new = rng.choice(VALUES)
        lines[number] = text_of(changed(value, where, lambda old: new))
        what = repr(new)
    else:
        what = rng.choice(SHAPES)
        result = changed(value, where, lambda old: shape(what, old))
        lines[number] = "null" if result is GONE else text_of(result)
    path.write_text("\n".join(lines), encoding="utf-8")
    return f"{path.name} {'/'.join(map(str, where))} -> {what}"


def damage_bytes(path: pathlib.Path, rng: random.Random, kind: str) -> str:
    """Damages a file below its form; returns what was done."""
    data = path.read_bytes()
    at = rng.randrange(max(1, len(data)))
    path.unlink()
    made = {
        "nothing": b"",
        "cut": data[:at],
        "flip": data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        if data
        else b"",
        "NUL": data[:at] + b"\0" + data[at:],
        "order mark": b"\xef\xbb\xbf" + data,
        "utf-16": data.decode("utf-8", "replace").encode("utf-16"),
        "garbage": rng.randbytes(200),
        "blank": b" \n\n",
        "twice": data + data,
    }
    if kind in made:
        path.write_bytes(made[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    return f"{path.name} {kind} at {at}"


# Cases


def run_case(door: file_doors.Door, seed: int, folder: pathlib.Path) -> Outcome:
    """One case: the door's files in `folder`, one of them damaged, and opened."""
    rng = random.Random(f"{door.name} {seed}")
    door.write(folder)
    found = (p for name in door.files for p in folder.glob(name))
    paths = sorted(p for p in found if p.is_file())
    # Every file and kind in turn, so that few cases are spread as well as many.
    path = paths[seed % len(paths)]
    is_json = path.suffix in (".json", ".jsonl")
    if is_json and seed // len(paths) % 4:
        damage = damage_json(path, rng)
    else:
        damage = damage_bytes(path, rng, BYTES[seed // len(paths) % len(BYTES)])
    return opened(door, folder, damage)


def opened(door: file_doors.Door, folder: pathlib.Path, damage: str) -> Outcome:
    """Opens a door and judges its end."""
    out, err = io.StringIO(), io.StringIO()
    before = listing(folder)
    ended, said, defect = "read", "", ""
    try:
        with (
            limited(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = door.open(folder)
        if code:
            ended, said = "refused", err.getvalue().removesuffix("\n")
            if not said.startswith("error: "):
                defect = "does not begin with error:"
            if out.getvalue():
                defect = "half an output"
        elif err.getvalue():
            defect = f"said on stderr: {err.getvalue()[:200]}"
    except (ValueError, OSError) as error:
        ended, said = "refused", str(error)
    except HangError:
        defect = "hangs"
    except Exception as error:
        defect = f"{type(error).__name__}: {error}"[:300]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        defect = f"{type(error).__name__}: {error}"[:300]
    if ended == "refused" and not defect:
        defect = fault(said, folder)
        if not defect and listing(folder) != before:
            new = sorted(listing(folder) - before)
            defect = f"left behind: {new}"
    return Outcome(door.name, damage, ended, said, defect)


def fault(said: str, folder: pathlib.Path) -> str:
    """What is wrong with a message; empty for a good one."""
    if "\n" in said or not all(c.isprintable() for c in said):
        return "more than one line, or not printable"
    if len(said.replace(str(folder), "")) > _LONGEST:
        return "too long"
    if "; " not in said:
        return "no fix"
    return "" if "must" in said or "(" in said or ":" in said else "no rule"


def listing(folder: pathlib.Path) -> set[str]:
    """The files that a door has made beside those that it reads."""
    made = (str(p.relative_to(folder)) for p in folder.rglob("*"))
    # The lock's file stays, and TensorBoard's is made anew from metrics.jsonl.
    return {p for p in made if not p.endswith(".lock") and "tensorboard" not in p}


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Ends what takes longer than `LIMIT_S`."""

    def ring(number: int, frame: types.FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(
    counts: Mapping[str, int], *, first: int = 0, tick: Callable[[Outcome], None]
) -> None:
    """Runs so many cases of each door, from number `first` on."""
    for name, count in counts.items():
        door = file_doors.DOORS[name]
        for seed in range(first, first + count):
            folder = pathlib.Path(tempfile.mkdtemp(prefix="malformed-"))
            try:
                tick(run_case(door, seed, folder))
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def shares(count: int) -> dict[str, int]:
    """`count` cases over all doors, by their weights."""
    total = sum(door.weight for door in file_doors.DOORS.values())
    return {
        name: max(1, round(count * door.weight / total))
        for name, door in file_doors.DOORS.items()
    }


def main() -> int:
    """Runs a sample and prints how it ended, by door."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--door", choices=file_doors.DOORS)
    parser.add_argument("--show", action="store_true", help="every message")
    args = parser.parse_args()
    counts = {args.door: args.count} if args.door else shares(args.count)
    ends: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)

    def tick(outcome: Outcome) -> None:
        ends[outcome.door]["defect" if outcome.defect else outcome.ended] += 1
        if outcome.defect or args.show:
            print(
                f"{outcome.door}: {outcome.damage}: {outcome.defect or outcome.ended}"
            )
            print(f"    {outcome.said[:400]}", flush=True)

    run(counts, first=args.first, tick=tick)
    for name, counter in ends.items():
        print(name, dict(sorted(counter.items())))
    total = sum(ends.values(), collections.Counter())
    print("all", dict(sorted(total.items())))
    return 1 if total["defect"] else 0


if __name__ == "__main__":
    sys.exit(main())
