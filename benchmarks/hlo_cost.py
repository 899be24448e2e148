"""What each kernel of a compiled program does: FLOP, bytes, and how often it runs.

`kernels(program)` walks what the program runs, from its entry through calls, loops and
branches, and gives one `Kernel` for each instruction that a GPU launches:

    matmul FLOP   2 for each product of a dot, a convolution, or a call of cuBLAS, also
                  inside fusions; what a kernel of another maker does has to be told
    vector FLOP   of all else, weighed by `WEIGHTS`
    bytes         what is read and written: of a slice or gather what it takes, of an
                  update in place what it writes, of a sort each of its passes
    times         the product of the trip counts around it

A trip count or a branch's share that the text does not hold has to be told as well:
nothing is counted once in silence.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from hlo_text import Computation, Instruction, Program

# What no kernel is launched for.
FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all iota partition-id "
    "replica-id opt-barrier optimization-barrier add-dependency domain".split()
)
# What moves values and computes none.
MOVES = FREE | frozenset(
    "copy transpose reshape broadcast slice dynamic-slice dynamic-update-slice "
    "concatenate pad reverse gather copy-start copy-done convert fusion call".split()
)
# Vector operations for one element of the result, where it is more than one.
WEIGHTS = {
    "divide": 4,
    "sqrt": 4,
    "rsqrt": 4,
    "exponential": 4,
    "exponential-minus-one": 8,
    "log": 8,
    "log-plus-one": 8,
    "logistic": 8,
    "tanh": 8,
    "power": 16,
    "sine": 16,
    "cosine": 16,
}
# Elements that a bitonic sort orders at a time in shared memory.
SORT_TILE = 2048


@dataclasses.dataclass(frozen=True)
class Told:
    """What the text of a program does not hold. Patterns are searched in `op_name`.

    Attributes:
      loops: trips of the loops whose count is not known.
      branches: of a conditional, how often each branch is taken, from 0 to 1; else
        the one that moves most bytes always is.
      foreign: of a kernel that is not XLA's, what one launch does; searched in
        "TARGET OP_NAME -> SHAPES".
    """

    loops: Mapping[str, float] = dataclasses.field(default_factory=dict)
    branches: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    foreign: Mapping[str, "Foreign"] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Foreign:
    """What one launch of a kernel does.

    `flop`, and the share of its operands that it reads and of its results that it
    writes: of all, or by the index of those of which that is not the whole.
    """

    flop: float
    read: float | Mapping[int, float] = 1.0
    written: float = 1.0


NOTHING = Told()


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One launched instruction; `flop`, `vector` and `bytes` are of one launch.

    `dtype` is the narrowest type that its products multiply, and `product` the place
    (`Program.place`) of the largest, "" without any. `places` are those of all that is
    fused in it, its own first; `moves` says that it computes nothing, and
    `foreign` that what it does was told.
    """

    name: str
    op: str
    shape: str
    times: float
    flop: float
    vector: float
    bytes: float
    dtype: str
    product: str
    places: tuple[str, ...]
    moves: bool
    foreign: bool = False


def kernels(program: Program, told: Told = NOTHING) -> list[Kernel]:
    """Every kernel that the program launches.

    Raises:
      ValueError: a loop's trip count is neither in the text nor told.
    """
    return list(_walk(program, told, program.entry, 1.0))


def _walk(
    program: Program, told: Told, where: Computation, times: float
) -> Iterator[Kernel]:
    for one in where:
        if one.op == "while":
            trips = one.trips if one.trips is not None else _trips(one, told)
            body = program[one.called("body") or ""]
            yield from _walk(program, told, body, times * trips)
        elif one.op == "conditional":
            for branch, share in _shares(program, told, one):
                yield from _walk(program, told, program[branch], times * share)
        elif one.op in ("call", "async-start") and (to := _inner(one)):
            yield from _walk(program, told, program[to], times)
        elif one.op in FREE or one.op.endswith(("-done", "-update")):
            continue
        else:
            yield _kernel(program, told, where, one, times)


def _trips(loop: Instruction, told: Told) -> float:
    for pattern, trips in told.loops.items():
        if re.search(pattern, loop.op_name):
            return trips
    raise ValueError(
        f"loop %{loop.name} ({loop.op_name}) must have a trip count: the text has none "
        f"and told.loops={list(told.loops)} does not match; name it there"
    )


def _shares(program: Program, told: Told, one: Instruction) -> list[tuple[str, float]]:
    for pattern, shares in told.branches.items():
        if re.search(pattern, one.op_name):
            return list(zip(one.branches, shares, strict=True))

    def moved(branch: str) -> float:
        run = _walk(program, told, program[branch], 1.0)
        return sum(kernel.bytes * kernel.times for kernel in run)

    return [(max(one.branches, key=moved), 1.0)]


def _inner(one: Instruction) -> str | None:
    """The computation that a fusion or a call runs."""
    return one.called("calls") or one.called("to_apply")


def _kernel(
    program: Program, told: Told, where: Computation, one: Instruction, times: float
) -> Kernel:
    inside = list(_inside(program, where, one))
    flop = sum(matmul_flop(*each) for each in inside)
    moved = moved_bytes(program, where, one)
    shape = " ".join(map(str, one.shapes))
    called, foreign = f"{one.target} {one.op_name} -> {shape}", False
    for pattern, known in told.foreign.items():
        if one.op == "custom-call" and re.search(pattern, called):
            flop, foreign = known.flop, True
            moved -= _untouched(known, where, one)
            break
    places = [program.place(inner) for _, inner in inside]
    return Kernel(
        name=one.name,
        op=one.op,
        shape=shape,
        times=times,
        flop=flop,
        vector=sum(vector_flop(*each) for each in inside),
        bytes=moved,
        dtype=_narrowest(inside),
        product=_product(program, inside),
        places=tuple(dict.fromkeys(filter(None, places))),
        foreign=foreign,
        moves=all(inner.op in MOVES for _, inner in inside),
    )


def _untouched(known: Foreign, where: Computation, one: Instruction) -> float:
    """Bytes of operands and results that a kernel leaves alone."""
    sizes = [x.bytes for x in where.operands(one)]
    read = known.read
    if not isinstance(read, Mapping):
        read = dict.fromkeys(range(len(sizes)), read)
    unread = sum((1 - share) * sizes[index] for index, share in read.items())
    return unread + (1 - known.written) * sum(shape.bytes for shape in one.shapes)


def _inside(
    program: Program, where: Computation, one: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
    """The instruction, and all that is fused in it, each with its computation."""
    yield where, one
    if one.op in ("fusion", "fusion-start", "call") and (name := _inner(one)):
        for inner in program[name]:
            yield from _inside(program, program[name], inner)


# Operations


def _is_gemm(one: Instruction) -> bool:
    return one.op == "custom-call" and ("gemm" in one.target or "matmul" in one.target)


def matmul_flop(where: Computation, one: Instruction) -> float:
    """2 for each product of a dot, a convolution or a call of cuBLAS; else 0."""
    if one.op == "dot" or _is_gemm(one):
        key = "lhs_contracting_dim" + ("s" if one.op == "dot" else "ensions")
        lhs = where[one.operands[0]].shapes[0].dims
        depth = math.prod(lhs[axis] for axis in one.numbers(key))
        return 2.0 * one.shapes[0].elements * depth
    if one.op == "convolution":
        # Each element of the result sums over the kernel, but for its output features.
        kernel = where[one.operands[1]].shapes[0].dims
        labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes)
        if labels is None:
            raise ValueError(f"%{one.name}: a convolution must have dim_labels")
        depth = math.prod(kernel) // kernel[labels[1].index("o")]
        return 2.0 * one.shapes[0].elements * depth
    return 0.0


def vector_flop(where: Computation, one: Instruction) -> float:
    """Operations outside matmuls, an exponential counted as four additions."""
    if one.op in MOVES or matmul_flop(where, one) or one.op == "custom-call":
        return 0.0
    if one.op in ("reduce", "reduce-window"):
        return float(sum(x.elements for x in where.operands(one)[: len(one.shapes)]))
    if one.op == "sort":
        elements = one.shapes[0].elements
        return float(elements * sort_passes(_sorted_length(one), tile=1))
    return float(one.shapes[0].elements * WEIGHTS.get(one.op, 1))


def _narrowest(inside: Sequence[tuple[Computation, Instruction]]) -> str:
    operands = [
        shape
        for where, one in inside
        if matmul_flop(where, one)
        for x in where.operands(one)[:2]
        for shape in x.shapes
    ]
    if not operands:
        return ""
    return min(operands, key=lambda shape: shape.bytes / shape.elements).dtype


def _product(
    program: Program, inside: Sequence[tuple[Computation, Instruction]]
) -> str:
    largest = max(inside, key=lambda each: matmul_flop(*each))
    return program.place(largest[1]) if matmul_flop(*largest) else ""


# Bytes


def moved_bytes(program: Program, where: Computation, one: Instruction) -> float:
    """What one launch of a kernel reads and writes."""
    if one.op in ("fusion", "fusion-start") and (name := _inner(one)):
        inner = program[name]
        read = sum(_read(program, inner, x) for x in inner.parameters.values())
        return read + _written(program, inner, inner.root)
    operands = where.operands(one)
    if one.op in ("dynamic-slice", "slice", "gather"):
        return 2 * one.bytes
    if one.op == "dynamic-update-slice":
        return 2 * operands[1].bytes
    if one.op == "scatter":
        return 2 * _touched(program, one, operands) + sum(x.bytes for x in operands[1:])
    if one.op == "copy-start":
        return 2 * operands[0].bytes
    if one.op == "sort":
        passes = sort_passes(_sorted_length(one), tile=SORT_TILE)
        return 2 * passes * one.bytes
    # What cuBLAS works in is given to it as bytes, and does not travel.
    made = [s for s in one.shapes if not (_is_gemm(one) and s.dtype == "s8")]
    return sum(s.bytes for s in made) + sum(x.bytes for x in operands)


def _touched(
    program: Program, scatter: Instruction, operands: Sequence[Instruction]
) -> float:
    """What a scatter takes of its operand beside writing it: nothing if it assigns."""
    updates = operands[-1].bytes
    combine = scatter.called("to_apply")
    assigns = combine is not None and program[combine].root.op == "parameter"
    return updates / 2 if assigns else updates


def _read(program: Program, where: Computation, value: Instruction) -> float:
    """Bytes of a value that its users inside a fusion read, at most all of it."""
    if value.is_root:
        return value.bytes
    total = 0.0
    for user, place in where.users[value.name]:
        if user.op in ("bitcast", "reshape", "convert", "copy") and user.bytes:
            total += _read(program, where, user) * value.bytes / user.bytes
        elif user.op in ("dynamic-slice", "slice", "gather") and place == 0:
            total += user.bytes
        elif user.op == "dynamic-update-slice" and place == 0:
            continue
        elif user.op == "scatter" and place == 0:
            operands = where.operands(user)
            total += 2 * _touched(program, user, operands) - operands[-1].bytes
        elif user.op in ("fusion", "call") and (name := _inner(user)):
            inner = program[name]
            total += _read(program, inner, inner.parameters[place])
        else:
            return value.bytes
    return min(total, value.bytes)


def _written(program: Program, where: Computation, root: Instruction) -> float:
    """Bytes that a fusion writes: its results, of those updated in place the new."""
    if root.op == "tuple":
        return sum(_written(program, where, x) for x in where.operands(root))
    if root.op in ("bitcast", "reshape", "convert", "copy"):
        under = where[root.operands[0]]
        if under.op in ("dynamic-update-slice", "scatter", "bitcast", "fusion"):
            return _written(program, where, under) * root.bytes / under.bytes
    if root.op == "dynamic-update-slice":
        return where[root.operands[1]].bytes
    if root.op == "scatter":
        return where[root.operands[-1]].bytes
    if root.op in ("fusion", "call") and (name := _inner(root)):
        return _written(program, program[name], program[name].root)
    return root.bytes


def _sorted_length(sort: Instruction) -> int:
    (axis,) = sort.numbers("dimensions")
    return sort.shapes[0].dims[axis]


def sort_passes(length: int, *, tile: int) -> int:
    """Passes of a bitonic sort over memory, `tile` elements being sorted in one.

    Stage k of log2(length) compares at k distances; those within a tile are one pass.
    """
    stages, within = max(length - 1, 1).bit_length(), tile.bit_length() - 1
    later = range(within + 1, stages + 1)
    if tile == 1:
        return sum(later)
    return 1 + sum(k - within + 1 for k in later)
