"""A compiled program's text, read: computations, instructions, shapes. No jax.

`parse(compiled.as_text())` takes what XLA prints of an optimised module for a CPU, GPU
or TPU. Nothing is interpreted here; `roofline` says what an instruction costs.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

# Bits of a value, by the type's name.
BITS = {
    "pred": 8,
    **{f"{sign}{bits}": bits for sign in "su" for bits in (2, 4, 8, 16, 32, 64)},
    **{"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128},
    **{"f8e4m3fn": 8, "f8e5m2": 8, "f8e4m3": 8, "f8e8m0fnu": 8, "f4e2m1fn": 4},
    "token": 0,
    "opaque": 0,
}

_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_BEGIN = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_OPCODE = re.compile(r"([\w\-]+)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_INDEX = re.compile(r"/\*index=\d+\*/")
# Lines of the tables by which an instruction names the functions it comes from.
_QUOTED = re.compile(r'(\d+) "(.*)"$')
_LOCATION = re.compile(r"(\d+) \{file_name_id=(\d+) function_name_id=(\d+)")
_FRAME = re.compile(r"(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?")


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array's type and sizes."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        return self.elements * BITS[self.dtype] / 8

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith(("f", "bf", "c"))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `%name = shapes op(operands), attributes`.

    `shapes` are the arrays of the result, several if it is a tuple; `inside` is the
    text between the parentheses, which holds a parameter's number or a constant.
    """

    name: str
    op: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    inside: str
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> float:
        return sum(shape.bytes for shape in self.shapes)

    @property
    def elements(self) -> int:
        return sum(shape.elements for shape in self.shapes)

    @property
    def op_name(self) -> str:
        """Where in the program it comes from, as jax names it; "" if unknown."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1] if found else ""

    @property
    def frame(self) -> int:
        """Its place in `Program.frames`; 0 if unknown."""
        found = re.search(r"\bstack_frame_id=(\d+)", self.attributes)
        return int(found[1]) if found else 0

    @property
    def target(self) -> str:
        """Of a custom call: what is called; "" for all else."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, key: str) -> str | None:
        """The computation that an attribute names, such as `calls` or `body`."""
        found = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else None

    @property
    def branches(self) -> tuple[str, ...]:
        """A conditional's computations."""
        listed = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if listed:
            return tuple(_NAME.findall(listed[1]))
        both = map(self.called, ("true_computation", "false_computation"))
        return tuple(name for name in both if name)

    @property
    def trips(self) -> int | None:
        """A loop's trip count, if the compiler knows it."""
        found = re.search(r"known_trip_count[^\d]*(\d+)", self.attributes)
        return int(found[1]) if found else None

    def numbers(self, key: str) -> tuple[int, ...]:
        """The list that an attribute holds: `key={0,2}`, or `"key":["0","2"]`."""
        found = re.search(rf'\b{key}"?[=:][{{\[]([\d,"]*)[}}\]]', self.attributes)
        return tuple(map(int, re.findall(r"\d+", found[1]))) if found else ()

    def flag(self, key: str) -> bool:
        return f"{key}=true" in self.attributes


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order in which they are printed."""

    name: str
    instructions: Mapping[str, Instruction]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """Those that are of this computation, which all are."""
        return [self.instructions[name] for name in instruction.operands]

    @functools.cached_property
    def root(self) -> Instruction:
        return next(one for one in self if one.is_root)

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """By number."""
        return {int(one.inside): one for one in self if one.op == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[tuple[Instruction, int]]]:
        """Of each value: who takes it, and as which operand."""
        found: dict[str, list[tuple[Instruction, int]]]
        found = {name: [] for name in self.instructions}
        for one in self:
            for place, name in enumerate(one.operands):
                found[name].append((one, place))
        return found


@dataclasses.dataclass(frozen=True)
class Program:
    """All computations of a module; `entry` is run.

    `frames` are the Python functions that an instruction comes from, outermost first,
    each as `file.py:function`, by `Instruction.frame`.
    """

    computations: Mapping[str, Computation]
    entry: Computation
    frames: Mapping[int, tuple[str, ...]]

    def __getitem__(self, name: str) -> Computation:
        return self.computations[name]

    def place(self, instruction: Instruction) -> str:
        """Where it comes from: jax's name for it, then its Python functions."""
        frames = " > ".join(self.frames.get(instruction.frame, ()))
        return f"{instruction.op_name} < {frames}" if frames else instruction.op_name


def parse(text: str) -> Program:
    """Reads a module.

    Raises:
      ValueError: no entry computation, or a type that is not known.
    """
    computations: dict[str, Computation] = {}
    entry = name = None
    lines: dict[str, Instruction] = {}
    for line in text.splitlines():
        if name is None:
            begin = _BEGIN.match(line)
            if begin:
                name, lines = begin[2], {}
                entry = name if begin[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(name, lines)
            name = None
        elif found := _LINE.match(line):
            one = _instruction(found[2], _INDEX.sub("", found[3]), bool(found[1]))
            lines[one.name] = one
    if entry not in computations:
        raise ValueError(
            f"text={text[:40]!r}... must have an ENTRY computation; give what "
            "compiled.as_text() says"
        )
    return Program(computations, computations[entry], _frames(text))


def _frames(text: str) -> dict[int, tuple[str, ...]]:
    """The tables before the first computation; empty if there are none."""
    tables: dict[str, list[str]] = {}
    rows: list[str] = []
    for line in text.splitlines():
        if _BEGIN.match(line):
            break
        if line.isalpha():
            rows = tables.setdefault(line, [])
        else:
            rows.append(line)

    def found(table: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, ...]]:
        matches = map(pattern.match, tables.get(table, []))
        return (match.groups("0") for match in matches if match)

    files = {i: name.rsplit("/", 1)[-1] for i, name in found("FileNames", _QUOTED)}
    functions = dict(found("FunctionNames", _QUOTED))
    places = {
        i: f"{files[file]}:{functions[function]}"
        for i, file, function in found("FileLocations", _LOCATION)
    }
    made: dict[int, tuple[str, ...]] = {0: ()}
    # Parents come first, and are counted from one where frames are from zero.
    for i, place, parent in found("StackFrames", _FRAME):
        made[int(i)] = (*made.get(int(parent) - 1, ()), places[place])
    return made


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    op = _OPCODE.match(rest)
    if op is None:
        raise ValueError(f"%{name} = {shape} {rest[:40]}: must have an operation")
    close = _closing(rest, op.end() - 1)
    inside = rest[op.end() : close]
    return Instruction(
        name,
        op[1],
        tuple(_shapes(shape)),
        tuple(_NAME.findall(inside)),
        inside,
        rest[close + 1 :],
        is_root,
    )


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims in _SHAPE.findall(text):
        if dtype not in BITS:
            raise ValueError(f"type {dtype} of {text[:60]} must be one of {list(BITS)}")
        yield Shape(dtype, tuple(map(int, dims.split(","))) if dims else ())


def _closing(text: str, opening: int) -> int:
    """The parenthesis that closes the one at `opening`; quoted text does not count."""
    depth, quoted = 0, False
    for at in range(opening, len(text)):
        mark = text[at]
        if mark == '"' and text[at - 1] != "\\":
            quoted = not quoted
        elif not quoted:
            depth += (mark == "(") - (mark == ")")
            if depth == 0:
                return at
    raise ValueError(f"{text[opening : opening + 60]}... must close its parenthesis")
