"""What this device attains: large products, long copies, and the cost of a launch.

    python benchmarks/ceilings.py [--size 8192] [--shape qwen2.5-7b] [--out]

These are the constants of the modelled figures: `roofline.py` and `floor.py` take
`ATTAINED_FLOPS` of the peak, `ATTAINED_BYTES` of the bandwidth, and `roofline.LAUNCH`
seconds for each kernel. Besides, the products of a packed step on a model's own
projections, each with its rate. Operands are random: products of zeros draw less power
and so run faster.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import common
import floor
import jax
import jax.numpy as jnp
import roofline
from generate import copy_rate
from jax import Array

from seal_jax.runtime import backend, command_line

# Kernels of the chain by which a launch is timed.
CHAIN = 256
# Products in one timed run, so that the host's part does not count.
PRODUCTS = 8


def product_rate(m: int, d: int, f: int, *, dtype: str, repeats: int) -> float:
    """FLOP/s of `[m, d] @ [d, f]`, the median of some runs of several products."""
    keys = jax.random.split(jax.random.key(0))
    x, w = (
        jax.random.normal(key, shape, jnp.float32).astype(dtype)
        for key, shape in zip(keys, ((m, d), (d, f)), strict=True)
    )

    @jax.jit
    def run(x: Array, w: Array) -> Array:
        total = jnp.zeros((), jnp.float32)
        for _ in range(PRODUCTS):
            x, w, total = jax.lax.optimization_barrier((x, w, total))
            total += (x @ w)[0, 0].astype(jnp.float32)
        return total

    return PRODUCTS * 2 * m * d * f / _median(lambda: run(x, w), repeats)


def launch_seconds(*, repeats: int) -> float:
    """Seconds from one small kernel to the next that needs its result."""

    @jax.jit
    def run(x: Array) -> Array:
        for _ in range(CHAIN):
            x = jax.lax.optimization_barrier(x + 1)
        return x

    x = jnp.zeros(256, jnp.int32)
    return _median(lambda: run(x), repeats) / CHAIN


def _median(run: Callable[[], Array], repeats: int) -> float:
    jax.block_until_ready(run())
    seconds = common.time_repeats(lambda: jax.block_until_ready(run()), repeats=repeats)
    return statistics.median(seconds)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures all."""
    device, shape = jax.devices()[0], common.shape(args.shape)
    timing = {"repeats": args.repeats}
    large = product_rate(args.size, args.size, args.size, dtype=args.dtype, **timing)
    copied = copy_rate(args.copy_mib << 20, **timing)
    products = {
        f"{name} {args.tokens}x{d}x{f}": product_rate(
            args.tokens, d, f, dtype=args.dtype, **timing
        )
        for name, (d, f) in shape.linears().items()
        if name in ("q_proj", "v_proj", "gate_proj", "down_proj")
    }
    peak, peak_bytes = backend.peak_flops(device), _peak_bytes(device.device_kind)
    return {
        "benchmark": "ceilings",
        "flops_per_s": large,
        "bytes_per_s": copied,
        "launch_seconds": launch_seconds(**timing),
        "attained_flops": None if peak is None else large / peak,
        "attained_bytes": None if peak_bytes is None else copied / peak_bytes,
        "products_flops_per_s": products,
        "assumed": {
            "attained_flops": floor.ATTAINED_FLOPS,
            "attained_bytes": floor.ATTAINED_BYTES,
            "launch_seconds": roofline.LAUNCH,
        },
        "size": args.size,
        "dtype": args.dtype,
        "shape": args.shape,
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def _peak_bytes(kind: str) -> float | None:
    names = [name for name in floor.PEAK_BYTES if kind.startswith(name)]
    return floor.PEAK_BYTES[max(names, key=len)] if names else None


def table(result: dict[str, Any]) -> str:
    """The result for reading."""
    lines = [
        f"products: {result['flops_per_s'] / 1e12:.4g} TFLOP/s",
        f"copies:   {result['bytes_per_s'] / 1e9:.4g} GB/s",
        f"launches: {result['launch_seconds'] * 1e6:.3g} us",
    ]
    for name, rate in result["products_flops_per_s"].items():
        lines.append(f"{name}: {rate / 1e12:.4g} TFLOP/s")
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.Parser(
        prog="benchmarks/ceilings.py", description="Measures a device's ceilings."
    )
    add = parser.add_argument
    add("--size", type=command_line.whole(1, 65_536), default=8192)
    add("--shape", default="qwen2.5-7b", help="whose projections are timed")
    add("--tokens", type=command_line.COUNT, default=2048, help="of a packed step")
    add("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    add("--copy-mib", type=command_line.COUNT, default=4096)
    add("--repeats", type=command_line.FEW, default=5)
    common.add_out(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(lambda: run(args), args.out, name="ceilings", table=table)


if __name__ == "__main__":
    raise SystemExit(main())
