"""The low-rank matmul: kernels against XLA, and both against the bare matmul.

    python benchmarks/lora_ops.py --cases qwen2.5-7b [--write-tuned] [--out]
    python benchmarks/lora_ops.py --quick                  small shapes, for a CPU

For each named case (`seal_kernels.lora_matmul.cases`) and each implementation that runs
here: device seconds of the forward pass, of the backward pass, and of both as a layer
runs them, beside the base product alone (`gemm`) and the peak, a large matmul of the
same run. A measurement is many repetitions in one compiled loop, each held apart from
the next by a barrier, so that none is hoisted out or dropped; engines take turns, and
medians over `--repeats` count. An implementation that does not run here is listed with
its reason.

`xla_gemm` is what XLA made of the forward pass: which library runs each product, and
whether one of them adds to the other (beta = 1) or another kernel has to. Read off the
compiled program of a GPU; empty on others.

`errors` are relative distances of results and gradients from XLA's, the largest of all.

`--write-tuned` writes the table that `auto` reads, benchmarked cases only: the fastest
kernel where each of its repeats was faster than each of XLA's, else `xla`.
"""

import argparse
import functools
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import jax
import jax.numpy as jnp
from jax import Array

from seal_jax.runtime import command_line
from seal_kernels.lora_matmul import api, cases, dispatch
from seal_kernels.tuned import table

GEMM, XLA = "gemm", "xla"
DIRECTIONS = ("forward", "backward", "both")
QUICK = {
    case.name: case
    for case in (
        cases.Case("quick/packed", 256, 256, 512, 8, 12, 16, "float32"),
        cases.Case("quick/dense", 512, 256, 256, 8, 4, 128, "float32"),
        cases.Case("quick/decode", 32, 256, 512, 8, 8, 1, "float32"),
    )
}

type Op = Callable[..., Any]


# What is timed


def op(implementation: str, direction: str) -> Op:
    """The operation on `(dy, x, u, w, a, b, slots)`."""

    def forward(dy, x, u, w, a, b, slots):
        if implementation == GEMM:
            return x @ w
        return dispatch.forward(implementation, x, w, a, b, slots)[0]

    def backward(dy, x, u, w, a, b, slots):
        if implementation == GEMM:
            return jnp.einsum("mf,df->md", dy, w)
        return dispatch.backward(implementation, dy, x, u, w, a, b, slots)

    def both(dy, x, u, w, a, b, slots):
        if implementation == GEMM:
            return forward(dy, x, u, w, a, b, slots), backward(dy, x, u, w, a, b, slots)
        run = functools.partial(api.lora_matmul_packed, implementation=implementation)
        y, pull = jax.vjp(lambda x, a, b: run(x, w, a, b, slots), x, a, b)
        return y, pull(dy)

    return {"forward": forward, "backward": backward, "both": both}[direction]


def flops(case: cases.Case, implementation: str, direction: str) -> int:
    """Of one operation."""
    if implementation == GEMM:
        return case.base_flops() * (2 if direction == "both" else 1)
    parts = {"forward": case.forward_flops(), "backward": case.backward_flops()}
    return parts[direction] if direction in parts else sum(parts.values())


def operands(case: cases.Case) -> tuple[Array, ...]:
    """Random `(dy, x, u, w, a, b, slots)`."""
    x, w, a, b, slots = cases.operands(case, jax.random.key(0))
    dy = jax.random.normal(jax.random.key(1), (case.M, case.F)).astype(x.dtype)
    _, u = dispatch.forward(XLA, x, w, a, b, slots)
    return dy, x, u, w, a, b, slots


def repeated(run: Op, count: int) -> Op:
    """`run`, `count` times in one loop on the device."""

    def body(_: Array, carry: tuple[Array, tuple[Array, ...]]):
        # Behind the barrier the operands seem new in every turn; and an element of each
        # result is used, behind a second one, so that all of it has to be there.
        token, args = jax.lax.optimization_barrier(carry)
        outs = jax.lax.optimization_barrier(run(*args))
        for leaf in jax.tree.leaves(outs):
            token += leaf[(0,) * leaf.ndim].astype(token.dtype)
        return token, args

    def loop(*args: Array) -> Array:
        return jax.lax.fori_loop(0, count, body, (jnp.zeros(()), args))[0]

    return loop


def compiled(run: Op, args: Sequence[Array], *, count: int) -> Callable[[], None]:
    """Runs the loop and waits for it.

    Raises:
      NotImplementedError: the implementation does not run here.
    """
    program = jax.jit(repeated(run, count)).lower(*args).compile()
    program(*args).block_until_ready()
    return lambda: program(*args).block_until_ready() and None


def measure_peak(*, size: int, dtype: str, seconds: float, repeats: int) -> float:
    """FLOP/s of a large square matmul."""
    x = jnp.ones((size, size), dtype)
    work = 2 * size**3
    run = compiled(jnp.matmul, (x, x), count=1)
    once = min(common.time_repeats(run, repeats=2))
    count = max(1, round(seconds / once))
    run = compiled(jnp.matmul, (x, x), count=count)
    return work * count / statistics.median(common.time_repeats(run, repeats=repeats))


# A case


def measure(
    case: cases.Case,
    names: Sequence[str],
    *,
    peak: float,
    seconds: float,
    repeats: int,
) -> dict[str, Any]:
    """Figures of a case: `timings[direction][implementation]`, and what was skipped.

    Args:
      case: shapes.
      names: implementations; `gemm` is the base product alone.
      peak: FLOP/s of a large matmul here.
      seconds: roughly how long a repeat should take.
      repeats: of each, in turns.
    """
    args = operands(case)
    skipped: dict[str, str] = {}
    timings: dict[str, Any] = {}
    for direction in DIRECTIONS:
        runs, counts = {}, {}
        for name in names:
            # At a quarter of the peak.
            estimate = 4 * flops(case, name, direction) / peak
            counts[name] = min(1000, max(2, round(seconds / estimate)))
            try:
                runs[name] = compiled(op(name, direction), args, count=counts[name])
            except NotImplementedError as error:
                skipped[name] = str(error)
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                (once,) = common.time_repeats(run, repeats=1)
                taken[name].append(once / counts[name])
        timings[direction] = {
            name: figures(taken, name, work=flops(case, name, direction), peak=peak)
            for name in runs
        }
    ran = [name for name in names if name not in {GEMM, *skipped}]
    made = {name: jax.jit(op(name, "both"))(*args) for name in ran}
    errors = {name: worst_error(made[name], made[XLA]) for name in ran}
    return {"timings": timings, "skipped": skipped, "errors": errors}


def worst_error(got: Any, want: Any) -> float:
    """The largest relative distance between two trees' arrays, in the 2-norm."""

    def apart(x: Array, y: Array) -> Array:
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        return jnp.linalg.norm(x - y) / jnp.maximum(jnp.linalg.norm(y), 1e-30)

    distances = jax.tree.leaves(jax.tree.map(apart, got, want))
    return max(map(float, distances))


def figures(
    taken: Mapping[str, Sequence[float]], name: str, *, work: int, peak: float
) -> dict[str, Any]:
    """Of one implementation: ratios above 1 are in its favour."""
    medians = {n: statistics.median(seconds) for n, seconds in taken.items()}
    return {
        "seconds": medians[name],
        "seconds_by_repeat": list(taken[name]),
        "share_of_peak": work / medians[name] / peak,
        "ratio_vs_xla": medians[XLA] / medians[name],
        "ratio_vs_gemm": medians[GEMM] / medians[name],
    }


# What XLA chose


def xla_gemm(case: cases.Case) -> list[str]:
    """The matmuls of the compiled forward pass, as `read_gemms` puts them."""
    if jax.default_backend() != "gpu":
        return []
    args = operands(case)
    text = jax.jit(op(XLA, "forward")).lower(*args).compile().as_text()
    return read_gemms(text)


def read_gemms(text: str) -> list[str]:
    """A line for each matmul of a GPU program: who runs it, its shape, its beta.

    `cublaslt bf16[128,16,3584] beta=1` adds to what is there, so no other kernel has
    to; `triton bf16[2048,3584] add=1` adds before it writes. With 0 in all of them, the
    two products are added by another kernel.
    """
    found = []
    for line in text.splitlines():
        made = re.search(r"= \(?(\w+\[[\d,]*\])", line)
        if made is None:
            continue
        if "__cublas$" in line:
            library = "cublaslt" if "__cublas$lt" in line else "cublas"
            beta = re.search(r'"beta":"?([\d.]+)', line)
            found.append(f"{library} {made[1]} beta={float(beta[1]) if beta else 0:g}")
        elif "triton" in line and "gemm" in line and "fusion(" in line:
            called = re.search(r"calls=%?([\w.-]+)", line)
            body = _computation(text, called[1]) if called else ""
            found.append(f"triton {made[1]} add={int(' add(' in body)}")
    return found


def _computation(text: str, name: str) -> str:
    found = re.search(rf"^%?{re.escape(name)} .*?^}}", text, re.DOTALL | re.MULTILINE)
    return found[0] if found else ""


# The table that `auto` reads


def entries(case: cases.Case, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows for `seal_kernels.tuned`, one for each direction.

    The fastest kernel, if each of its repeats was faster than each of XLA's; else XLA,
    which keeps a neighbour's win from spreading to this shape.
    """
    rows = []
    for direction in table.DIRECTIONS:
        timed = measured["timings"][direction]
        bar = min(timed[XLA]["seconds_by_repeat"])
        ahead = {
            name: one["seconds"]
            for name, one in timed.items()
            if name in dispatch.PLATFORMS and max(one["seconds_by_repeat"]) < bar
        }
        best = min(ahead, key=lambda name: ahead[name], default=XLA)
        sizes = {name: getattr(case, name) for name in ("M", "D", "F", "R", "tile")}
        rows.append(
            {
                "direction": direction,
                **sizes,
                "dtype": case.dtype,
                "implementation": best,
                "config": {},
                "seconds": timed[best]["seconds"],
                "xla_seconds": timed[XLA]["seconds"],
            }
        )
    return rows


def write_tuned(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Puts the rows into the table, in place of those of the same shapes."""

    def key(row: Mapping[str, Any]) -> tuple:
        names = ("direction", "dtype", "M", "D", "F", "R", "tile")
        return tuple(row[name] for name in names)

    whole = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    new = {key(row) for row in rows}
    kept = [row for row in whole.get("lora_matmul", []) if key(row) not in new]
    whole["lora_matmul"] = sorted([*kept, *rows], key=key)
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


# The command


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.Parser(
        prog="benchmarks/lora_ops.py",
        description="Times the low-rank matmul's implementations.",
    )
    add = parser.add_argument
    add("--cases", default="", help="those whose name contains this; default all")
    add("--quick", action="store_true", help="small shapes in place of the named cases")
    add("--implementations", help="separated by commas; default all kernels and xla")
    add("--repeats", type=command_line.FEW, default=7)
    add(
        "--seconds",
        type=command_line.real(1e-6, 3600.0),
        default=0.03,
        help="of each repeat, roughly",
    )
    add(
        "--peak-size",
        type=command_line.whole(1, 65_536),
        help="default 8192, on a CPU 1024",
    )
    add("--write-tuned", action="store_true", help="write the table that auto reads")
    common.add_out(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All cases as one result; prints a line for each timing.

    Raises:
      ValueError: no such case or implementation.
    """
    known = QUICK if args.quick else cases.CASES
    chosen = [case for name, case in known.items() if args.cases in name]
    if not chosen:
        raise ValueError(f"--cases={args.cases} must be in one of {', '.join(known)}")
    kernels = ",".join(dispatch.PLATFORMS)
    names = (args.implementations or kernels).split(",")
    if not set(names) <= set(dispatch.MEASURED):
        listed = ", ".join(dispatch.MEASURED)
        raise ValueError(f"--implementations={','.join(names)} must be of {listed}")
    names = [GEMM, XLA, *(name for name in names if name != XLA)]
    timing = {"seconds": args.seconds, "repeats": args.repeats}
    device = jax.devices()[0]
    size = args.peak_size or (1024 if device.platform == "cpu" else 8192)
    peak = measure_peak(size=size, dtype=chosen[0].dtype, **timing)
    print(f"peak: {peak / 1e12:.3g} TFLOP/s, {size} x {size} x {size}")
    results, tuned = {}, []
    for case in chosen:
        measured = measure(case, names, peak=peak, **timing)
        results[case.name] = {**measured, "xla_gemm": xla_gemm(case)}
        print(lines(case.name, results[case.name]), flush=True)
        tuned += entries(case, measured)
    if args.write_tuned:
        path = table.path_of(device.device_kind)
        write_tuned(tuned, path)
        print(f"written: {path}")
    return {
        "benchmark": "lora_ops",
        "peak_flops_per_s": peak,
        "cases": results,
        "tuned": tuned,
        "repeats": args.repeats,
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def lines(name: str, result: Mapping[str, Any]) -> str:
    """A case for reading."""
    made = []
    for direction, timed in result["timings"].items():
        for implementation, one in timed.items():
            made.append(
                f"{name:<28}{direction:<9}{implementation:<11}"
                f"{one['seconds'] * 1e6:>10.1f} us {one['share_of_peak']:>7.1%} of peak"
                f"{one['ratio_vs_xla']:>7.2f} x xla{one['ratio_vs_gemm']:>7.2f} x gemm"
            )
    for implementation, error in result["errors"].items():
        made.append(f"{name:<28}{implementation}: {error:.2g} from xla")
    made += [f"{name:<28}XLA: {gemm}" for gemm in result["xla_gemm"]]
    made += [f"{name:<28}no {n}: {why}" for n, why in result["skipped"].items()]
    return "\n".join(made)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(lambda: run(args), args.out, name="lora_ops")


if __name__ == "__main__":
    raise SystemExit(main())
