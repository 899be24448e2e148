"""What a compiled program would take on a device: a roofline of its kernels.

    python benchmarks/roofline.py FILE [--loop PATTERN=N ...] [--top 20]

FILE is `compiled.as_text()` of a program that was compiled for a GPU; `aot_programs.py`
makes such files without one. Each kernel (`hlo_cost.py`) takes the longest of

    matmul FLOP   at what large products attain (`floor.ATTAINED_FLOPS` of the peak;
                  twice that in eight bits, half in float32)
    vector FLOP   at `VECTOR` a second
    bytes         at what long copies attain (`floor.ATTAINED_BYTES` of the bandwidth)

and `LAUNCH` seconds besides. That is a model and no measurement: it knows nothing of
small products, of kernels side by side, or of caches.

`unordered_scatters` lists what makes a program's results depend on the order in which
a device's threads arrive.
"""

import argparse
import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import common
import floor
import hlo_cost
import hlo_text

# Assumed, not measured: seconds from one kernel's end to the next one's work, and
# elementwise operations a second of an H200.
LAUNCH = 2e-6
VECTOR = 30e12
# FLOP/s of an H200 in bfloat16, as its data sheet has it.
PEAK_FLOPS = 989e12

# Products of narrower or wider types, as a share of the bfloat16 rate.
RATES = {"f8": 2.0, "s8": 2.0, "bf16": 1.0, "f16": 1.0, "f32": 0.5, "f64": 0.07}


@dataclasses.dataclass(frozen=True)
class Device:
    """What a device is taken to attain, a second, and seconds for each launch."""

    kind: str
    flop: float
    bytes: float
    vector: float
    launch: float

    def seconds(self, kernel: hlo_cost.Kernel) -> float:
        """Of one launch."""
        rate = next(
            (r for name, r in RATES.items() if kernel.dtype.startswith(name)), 1.0
        )
        work = max(
            kernel.flop / (self.flop * rate),
            kernel.vector / self.vector,
            kernel.bytes / self.bytes,
        )
        return work + self.launch


def h200() -> Device:
    """An H200, by the constants of the floor."""
    kind = "NVIDIA H200"
    machine = floor.machine(kind, PEAK_FLOPS)
    assert machine is not None
    return Device(kind, machine.flops_per_s, machine.bytes_per_s, VECTOR, LAUNCH)


# Categories

BASE, ATTENTION, LORA = "base matmuls", "attention", "LoRA"
COPIES, ELEMENTWISE = "layer copies", "elementwise"
OPTIMIZER, HEAD, GENERATION = "optimizer", "head and loss", "generation"
OTHER = "other"
CATEGORIES = (
    BASE,
    ATTENTION,
    LORA,
    COPIES,
    ELEMENTWISE,
    OPTIMIZER,
    HEAD,
    GENERATION,
    OTHER,
)

# By what jax calls the place that a kernel comes from: the program's named scopes, and
# the modules of the decoder. The first that matches counts.
_PLACES = {
    GENERATION: r"\bdraw\b|\badmit\b|_draw_next",
    HEAD: r"\b(loss|head|unembed|cross_entropy)\b",
    OPTIMIZER: r"\b(optimizer|slots)\b",
    ATTENTION: r"\b(attention|attend|attend_cached|dot_product_attention)\b",
    LORA: r"\b(lora|low_rank)\b",
}
_PROJECTION = r"\b(q|k|v|o|gate|up|down)_proj\b"
_DECODER = r"\b(layers(_\d+)?|final_norm|input_norm|post_norm|embedded|Decoder)\b"


def category(kernel: hlo_cost.Kernel) -> str:
    """Which part of the work a kernel belongs to.

    A product is named by itself, whatever is fused to it; all else by the instruction
    that the kernel is named after, or by what is fused in it if that says nothing.
    """
    names = [kernel.product] if kernel.product else kernel.names
    for name in names:
        for place, pattern in _PLACES.items():
            if re.search(pattern, name):
                return place
        if re.search(_PROJECTION, name):
            if kernel.product:
                return BASE
            return COPIES if kernel.moves else ELEMENTWISE
        if kernel.moves:
            return COPIES
        if re.search(_DECODER, name):
            return ELEMENTWISE
    return COPIES if kernel.moves else OTHER


# Reports


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of some kernels, all of their runs together; `flop` is of matmuls."""

    seconds: float = 0.0
    flop: float = 0.0
    bytes: float = 0.0
    kernels: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*map(sum, pairs))


@dataclasses.dataclass(frozen=True)
class Report:
    """The kernels of a program on a device."""

    kernels: tuple[hlo_cost.Kernel, ...]
    device: Device

    def cost(self, kernels: Iterable[hlo_cost.Kernel]) -> Cost:
        """The sum over some kernels, as often as each runs."""
        return sum(
            (
                Cost(
                    one.times * self.device.seconds(one),
                    one.times * one.flop,
                    one.times * one.bytes,
                    one.times,
                )
                for one in kernels
            ),
            start=Cost(),
        )

    @property
    def total(self) -> Cost:
        return self.cost(self.kernels)

    def by_category(self) -> dict[str, Cost]:
        """Every category's cost; that of one without kernels is nothing."""
        of: dict[str, list[hlo_cost.Kernel]] = collections.defaultdict(list)
        for one in self.kernels:
            of[category(one)].append(one)
        return {name: self.cost(of[name]) for name in CATEGORIES}


def report(
    text: str,
    told: hlo_cost.Told = hlo_cost.NOTHING,
    device: Device | None = None,
) -> Report:
    """The roofline of a compiled program.

    Args:
      text: `compiled.as_text()`.
      told: what the text does not hold, such as trips of loops.
      device: that it would run on; an H200 if none is given.

    Raises:
      ValueError: no such text, or a loop without a trip count.
    """
    kernels = hlo_cost.kernels(hlo_text.parse(text), told)
    return Report(tuple(kernels), device or h200())


# Order

# Combining in another order gives the same bits.
_COMMUTES_EXACTLY = ("maximum", "minimum", "and", "or")


def unordered_scatters(text: str) -> list[str]:
    """Scatters of floating-point numbers whose result depends on an order, a line each.

    Where two updates may fall on one place, a GPU's threads add them as they arrive.
    Indices that are sorted do not prevent that there: a run of equal ones is cut over
    threads. So only `unique_indices` makes a scatter ordered, or a single update, or a
    combination that rounds nothing (`max`). One that `sets` has no order either: of two
    updates of one place either may stay.

    Args:
      text: `compiled.as_text()` for any device.
    """
    program = hlo_text.parse(text)
    found = []
    for where in program.computations.values():
        for one in where:
            how = _unordered(program, where, one)
            if how and any(shape.is_float for shape in one.shapes):
                shapes = ", ".join(map(str, one.shapes))
                found.append(
                    f"%{one.name} {how} {shapes} in %{where.name}: {one.op_name}"
                )
    return found


def _unordered(
    program: hlo_text.Program,
    where: hlo_text.Computation,
    one: hlo_text.Instruction,
) -> str | None:
    """What an instruction does in an order of its own, "adds to" or "sets"."""
    if one.op == "select-and-scatter":
        return "adds to"
    if one.op != "scatter" or one.flag("unique_indices"):
        return None
    combine = program[one.called("to_apply") or ""].root.op
    updates = where.operands(one)[-1].shapes[0].dims
    window = one.numbers("update_window_dims")
    several = any(n > 1 for axis, n in enumerate(updates) if axis not in window)
    if combine in _COMMUTES_EXACTLY or not several:
        return None
    return "sets" if combine == "parameter" else "adds to"


# The command


def table(made: Report, *, top: int = 0) -> str:
    """A report for reading: categories, and the `top` kernels that take longest."""
    total = made.total
    head = ("category", "ms", "share", "TFLOP", "GB", "kernels")
    lines = ["{:<16}{:>9}{:>8}{:>9}{:>9}{:>9}".format(*head)]
    for name, cost in [*made.by_category().items(), ("all", total)]:
        share = cost.seconds / total.seconds if total.seconds else 0.0
        lines.append(
            f"{name:<16}{1e3 * cost.seconds:>9.2f}{share:>8.1%}{cost.flop / 1e12:>9.3f}"
            f"{cost.bytes / 1e9:>9.2f}{cost.kernels:>9.0f}"
        )
    longest = sorted(
        made.kernels, key=lambda one: -one.times * made.device.seconds(one)
    )
    for one in longest[:top]:
        seconds = one.times * made.device.seconds(one)
        place = one.product or next(iter(one.names), "")
        lines.append(
            f"{1e3 * seconds:9.3f} ms {one.times:6.0f} x {category(one):<14}"
            f"{one.op}:{one.name[:32]} {one.shape[:40]} {place[-70:]}"
        )
    lines.append(
        f"modelled for one {made.device.kind}, not measured: "
        f"{made.device.flop / 1e12:.0f} TFLOP/s, {made.device.bytes / 1e12:.2f} TB/s, "
        f"{1e6 * made.device.launch:g} us a kernel"
    )
    return "\n".join(lines)


def loops(given: Sequence[str]) -> dict[str, float]:
    """PATTERN=N of the flag --loop.

    Raises:
      ValueError: one that is not.
    """
    made = {}
    for one in given:
        pattern, _, count = one.rpartition("=")
        try:
            made[pattern] = float(count)
        except ValueError:
            raise ValueError(
                f"--loop={one}: must be PATTERN=N, as in while$=64"
            ) from None
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/roofline.py", description="Models a compiled program's time."
    )
    parser.add_argument("file", help="compiled.as_text() of a program")
    parser.add_argument("--loop", action="append", default=[], metavar="PATTERN=N")
    parser.add_argument("--top", type=int, default=20, help="kernels to list")
    args = parser.parse_args(argv)

    def run() -> dict[str, Any]:
        text = Path(args.file).read_text(encoding="utf-8")
        made = report(text, hlo_cost.Told(loops=loops(args.loop)))
        print(table(made, top=args.top))
        unordered = unordered_scatters(text)
        print(f"{len(unordered)} scatters in no order", *unordered[:3], sep="\n  ")
        return summary(made) | {"unordered_scatters": unordered}

    return common.finish(run, None, name="roofline")


def summary(made: Report) -> dict[str, Any]:
    """A report as JSON: the whole, and each category."""
    return {
        "modelled": True,
        **dataclasses.asdict(made.total),
        "by_category": {
            name: dataclasses.asdict(cost) for name, cost in made.by_category().items()
        },
        "device": dataclasses.asdict(made.device),
    }


if __name__ == "__main__":
    raise SystemExit(main())
