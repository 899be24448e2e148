"""Attention over key ranges, forward and backward: the form that never holds the scores
of a long row against the one that holds them all.

    python benchmarks/attention.py [--cases tiny squad] [--implementations xla] [--out]

Lines are of one length, side by side in rows, and see themselves alone. Milliseconds
are medians; `scores` is `attention.reference` but in the dtype of the model: every
query against every key, and the mask. `errors` are relative distances of results and
gradients from its own, the largest of all.
"""

import argparse
import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from lora_ops import worst_error

from seal_jax.runtime import command_line
from seal_kernels.attention import api

WHOLE = "scores"


@dataclasses.dataclass(frozen=True)
class Case:
    """Rows of one layer; `line` tokens to a line."""

    rows: int
    positions: int
    line: int
    heads: int
    kv_heads: int
    head_dim: int


# A step of configs/tiny.py; rows of configs/squad.py and configs/arc.py, with the heads
# that a CPU can be asked for; and one line to a row.
CASES = {
    "tiny": Case(10, 64, 20, 4, 4, 32),
    "tiny128": Case(10, 128, 40, 4, 4, 32),
    "squad": Case(2, 1024, 51, 8, 2, 64),
    "arc": Case(1, 5120, 1280, 8, 2, 64),
    "line": Case(1, 2048, 2048, 8, 2, 64),
}


def whole(q: Array, k: Array, v: Array, first: Array, end: Array) -> Array:
    """All scores of the rows at once."""
    at = jnp.arange(q.shape[1])[None, None, :]
    seen = (at >= first[:, :, None]) & (at < end[:, :, None])
    return jax.nn.dot_product_attention(q, k, v, mask=seen[:, None])


def both_passes(attend: Callable[..., Array]) -> Callable[..., Any]:
    """The result and its gradients, compiled."""

    @jax.jit
    def run(q: Array, k: Array, v: Array, first: Array, end: Array, dy: Array) -> Any:
        y, back = jax.vjp(lambda q, k, v: attend(q, k, v, first, end), q, k, v)
        return y, back(dy)

    return run


def operands(case: Case, dtype: str) -> tuple[Array, ...]:
    """q, k, v, first, end and the gradient of the result, random."""
    rng, lead = np.random.default_rng(0), (case.rows, case.positions)
    heads = case.heads, case.kv_heads, case.kv_heads, case.heads
    drawn = [
        jnp.asarray(rng.normal(size=(*lead, n, case.head_dim)), dtype) for n in heads
    ]
    at = np.arange(case.positions, dtype=np.int32)
    first = np.broadcast_to(at // case.line * case.line, lead)
    end = np.broadcast_to(at + 1, lead)
    return *drawn[:3], jnp.asarray(first), jnp.asarray(end), drawn[3]


def measure(case: Case, names: Sequence[str], args: argparse.Namespace) -> dict:
    """Milliseconds by implementation, taken in turn."""
    given = operands(case, args.dtype)
    runs = {}
    for name in names:
        attend = whole
        if name != WHOLE:
            attend = lambda *qkv, name=name: api.attention(*qkv, implementation=name)
        runs[name] = both_passes(attend)
        jax.block_until_ready(runs[name](*given))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.repeats):
        for name, run in runs.items():
            once = lambda run=run: jax.block_until_ready(run(*given))
            seconds[name] += common.time_repeats(once, repeats=1)
    found = {name: 1e3 * statistics.median(taken) for name, taken in seconds.items()}
    pairs = case.rows * (case.positions // case.line) * math.comb(case.line + 1, 2)
    used = pairs / (case.rows * case.positions**2)
    made = {name: run(*given) for name, run in runs.items()}
    errors = {name: worst_error(made[name], made[WHOLE]) for name in names}
    return {
        **dataclasses.asdict(case),
        "milliseconds": found,
        "errors": errors,
        "scores_used": used,
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures all."""
    device = jax.devices()[0]
    names = [WHOLE, *args.implementations]
    return {
        "benchmark": "attention",
        "dtype": args.dtype,
        "repeats": args.repeats,
        "cases": {name: measure(CASES[name], names, args) for name in args.cases},
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def table(result: dict[str, Any]) -> str:
    """The result for reading."""
    lines = []
    for name, case in result["cases"].items():
        times = case["milliseconds"]
        against = times[WHOLE]
        rest = ", ".join(
            f"{what} {ms:.4g} ms ({against / ms:.2f}x)"
            for what, ms in times.items()
            if what != WHOLE
        )
        lines.append(f"{name}: all scores {against:.4g} ms, {rest}")
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.Parser(
        prog="benchmarks/attention.py", description="Times attention over key ranges."
    )
    add = parser.add_argument
    add("--cases", nargs="+", choices=CASES, default=list(CASES))
    add("--implementations", nargs="+", choices=api.IMPLEMENTATIONS, default=["auto"])
    add("--dtype", default="float32", choices=("bfloat16", "float32"))
    add("--repeats", type=command_line.FEW, default=5)
    common.add_out(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    return common.finish(lambda: run(args), args.out, name="attention", table=table)


if __name__ == "__main__":
    raise SystemExit(main())
