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
import hlo_order
import hlo_text

unordered_scatters = hlo_order.unordered_scatters

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

# By the place that a kernel comes from (`hlo_text.Program.place`): modules of the
# decoder, files and functions of the program. The first that matches counts.
_PLACES = {
    GENERATION: r"sample\w*\.py:_?(draw|admit|new_rows|nucleus|enter)|draw\w*\.py:",
    HEAD: r"cross_entropy\.py:|:(logits|head)\b|\bunembed\b",
    OPTIMIZER: r"inner\.py:(update|clipped|moved|init_slot)|:step_all\.<locals>"
    r"|updates\.py:(put|updated|rows_at)|imitate\.py:_opt|optax|transform\.py:",
    ATTENTION: r"\battention\b|:attend|\battend_cached\b|:decode_attention",
}
_PROJECTION = r"\b(q|k|v|o|gate|up|down)_proj\b"
# The product with the base's weights, forward or for the slope of its input. XLA may
# have joined others of the same rows to it.
_BASE_PRODUCT = r"_proj/(cond/branch_\d+_fun/)?(mf,df->md/)?dot_general"
_LORA = r":lora_matmul|:_?(gather|scatter)_adapters|\blow_rank\b"
_DECODER = r"decoder\.py:"


def category(kernel: hlo_cost.Kernel) -> str:
    """Which part of the work a kernel belongs to.

    A product is named by itself, whatever is fused to it; all else by the instruction
    that the kernel is named after, or by what is fused in it if that says nothing.
    """
    for place in [kernel.product] if kernel.product else kernel.places:
        for name, pattern in _PLACES.items():
            if re.search(pattern, place):
                return name
        if re.search(_PROJECTION, place):
            base = re.search(_BASE_PRODUCT, place)
            if kernel.product:
                return BASE if base else LORA
            if re.search(_LORA, place) and not base:
                return LORA
            return COPIES if kernel.moves else ELEMENTWISE
        if kernel.moves:
            return COPIES
        if re.search(_DECODER, place):
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
        place = one.product or next(iter(one.places), "")
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
