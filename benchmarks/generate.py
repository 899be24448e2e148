"""Decoding under no adapter, one and many, against the memory bandwidth.

    python benchmarks/generate.py --shape qwen2.5-7b --dtype bfloat16 [--out]

A step of decoding reads every weight once, whatever the rows, and each row's keys and
values: few operations on many bytes. The bound is the bytes that a step cannot do
without, over the rate at which this device copies an array, measured in the same run:

    weights   the projections and the output head
    cache     keys and values up to each row's length
    adapters  A and B of the different adapters in use

Weights, adapters, keys and tokens are random, no text ends early, and prompts are not
read: rows begin with a filled cache. On a CPU the bound says little: many rows take
longer to compute than to read, and weights that stay in its caches need not be read.
"""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np

from seal_jax.generation import policies, sample
from seal_jax.models import decoder, hf_config, lora, row_pages
from seal_jax.runtime import command_line, formatting

TARGETS = ("q_proj", "v_proj")


@dataclasses.dataclass(frozen=True)
class Work:
    """`rows` in pages of `per_page` go from `prompt` tokens on by `tokens`."""

    rows: int
    per_page: int
    prompt: int
    tokens: int
    rank: int

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                flag = field.name.replace("_", "-")
                raise ValueError(f"--{flag}={value} must be at least 1")
        if self.rows % self.per_page:
            raise ValueError(
                f"--rows={self.rows} must be a multiple of --per-page={self.per_page}"
            )


def step_bytes(arch: decoder.Arch, work: Work, adapters: int) -> dict[str, float]:
    """Bytes that a step must read, the mean over the steps.

    Args:
      arch: the decoder.
      work: what decodes.
      adapters: how many there are; each page is under one.
    """
    width = jnp.dtype(arch.dtype).itemsize
    # The first step has the prompt behind it, the last all but the token it makes.
    length = work.prompt + (work.tokens - 1) / 2
    kept = 2 * arch.layers * arch.kv_heads * arch.head_dim
    each = arch.layers * work.rank * sum(sum(arch.linears()[t]) for t in TARGETS)
    used = min(adapters, work.rows // work.per_page)
    return {
        "weights": float(width * arch.matmul_params()),
        "cache": width * kept * work.rows * length,
        "adapters": float(width * each * used),
    }


def copy_rate(size: int, *, repeats: int) -> float:
    """Bytes that an elementwise copy of `size` bytes reads and writes in a second."""
    copy = jax.jit(lambda x: x + 1)
    x = jnp.zeros(size // 4, jnp.int32)
    jax.block_until_ready(copy(x))
    seconds = common.time_repeats(
        lambda: jax.block_until_ready(copy(x)), repeats=max(3, repeats)
    )
    return 2 * x.nbytes / min(seconds)


def settings(work: Work) -> sample.SampleConfig:
    """Greedy, and no text ends before its time."""
    return sample.SampleConfig(
        max_tokens=work.tokens,
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        min_tokens=0,
        stop_ids=(),
    )


def begin(
    arch: decoder.Arch, cfg: sample.SampleConfig, work: Work, adapters: int
) -> sample.Rows:
    """Rows in the middle of their texts; page g is under adapter `g % adapters`."""
    key = jax.random.key(1)
    pages = work.rows // work.per_page
    stack = None
    if adapters:
        fresh = functools.partial(lora.init, targets=TARGETS, rank=work.rank)
        stack = jax.vmap(lambda key: fresh(key, arch))(jax.random.split(key, adapters))
    rows = sample.empty_rows(
        stack,
        arch=arch,
        cfg=cfg,
        rows=work.rows,
        slots=work.prompt + work.tokens,
        pages=(1, pages, work.per_page),
    )
    if stack is None:
        return rows
    slots_G = jnp.arange(pages) % adapters
    members_CGQ = np.arange(work.rows).reshape(1, pages, work.per_page)
    return rows._replace(
        delta=sample.pick(stack, slots_G, arch.dtype),
        pages=row_pages.pages(members_CGQ, work.rows),
    )


def restarted(rows: sample.Rows, work: Work) -> sample.Rows:
    """The same rows with all but the prompt ahead of them."""
    shape = rows.done_B.shape
    return rows._replace(
        length_B=jnp.full(shape, work.prompt, jnp.int32),
        count_B=jnp.zeros(shape, jnp.int32),
        done_B=jnp.zeros(shape, bool),
    )


def case(
    params: dict,
    arch: decoder.Arch,
    work: Work,
    adapters: int,
    *,
    repeats: int,
    bandwidth: float,
) -> dict[str, Any]:
    """Decodes, once more than `repeats`; the figures of one number of adapters."""
    cfg = settings(work)
    rows = begin(arch, cfg, work, adapters)

    def decode() -> None:
        nonlocal rows
        rows, steps = sample.decode(
            params, restarted(rows, work), work.rows, work.tokens, arch=arch, cfg=cfg
        )
        taken = int(steps)  # waits for the device
        if taken != work.tokens:
            raise ValueError(f"steps={taken} must be --tokens={work.tokens}")

    compiling = common.time_repeats(decode, repeats=1)[0]
    seconds = common.time_repeats(decode, repeats=repeats)
    made = common.rates(seconds, tokens=work.rows * work.tokens, steps=work.tokens)
    read = step_bytes(arch, work, adapters)
    bound = work.rows * bandwidth / sum(read.values())
    return {
        "adapters": adapters,
        **made,
        "bytes_per_step": read,
        "bound_tokens_per_s": bound,
        "share_of_bound": made["tokens_per_s"] / bound,
        "seconds_first": compiling,
    }


def table(result: dict[str, Any]) -> str:
    """The result for reading."""
    rows = [
        (
            str(one["adapters"]),
            formatting.number(one["tokens_per_s"], digits=0),
            formatting.number(one["bound_tokens_per_s"], digits=0),
            formatting.percent(one["share_of_bound"]),
            formatting.number(1000 / one["steps_per_s"], digits=2),
        )
        for one in result["cases"]
    ]
    head = ("adapters", "tokens/s", "bound", "share", "ms/step")
    rate = formatting.number(result["copy_bytes_per_s"] / 1e9, digits=1)
    return f"{formatting.ruled(head, rows)}\n\ncopies at {rate} GB/s"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="benchmarks/generate.py",
        description="Measures decoding against the memory bandwidth.",
    )
    add = parser.add_argument
    add("--shape", default="small", help="a name of common.SHAPES, and changes to it")
    add("--dtype", default="float32", choices=("float32", "bfloat16"))
    add("--kernel", default="auto", help="implementation of the low-rank matmul")
    add(
        "--adapters",
        type=command_line.whole(0, 1_000_000),
        nargs="+",
        default=[0, 1, 64],
    )
    add("--rank", type=command_line.FEW, default=32)
    add("--rows", type=command_line.COUNT, default=384, help="that decode together")
    add(
        "--per-page",
        type=command_line.COUNT,
        default=policies.PER_PAGE,
        help="rows under one adapter",
    )
    add(
        "--prompt", type=command_line.COUNT, default=128, help="tokens before the first"
    )
    add(
        "--tokens",
        type=command_line.COUNT,
        default=64,
        help="that are made in each row",
    )
    add("--repeats", type=command_line.FEW, default=5)
    add(
        "--copy-mib",
        type=command_line.COUNT,
        default=512,
        help="array that is copied, MiB",
    )
    common.add_out(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures all cases."""
    work = Work(args.rows, args.per_page, args.prompt, args.tokens, args.rank)
    arch = hf_config.parse(common.shape(args.shape).config(), dtype=args.dtype)
    arch = dataclasses.replace(arch, kernel=args.kernel)
    lora.check(arch, targets=TARGETS, rank=args.rank, name="lora")
    make = jax.jit(lambda key: decoder.init_params(key, arch))
    params = make(jax.random.key(0))
    bandwidth = copy_rate(args.copy_mib << 20, repeats=args.repeats)
    cases = [
        case(params, arch, work, count, repeats=args.repeats, bandwidth=bandwidth)
        for count in args.adapters
    ]
    device = jax.devices()[0]
    return {
        "benchmark": "generate",
        "cases": cases,
        "copy_bytes_per_s": bandwidth,
        "shape": args.shape,
        "dtype": args.dtype,
        "kernel": args.kernel,
        "targets": list(TARGETS),
        **dataclasses.asdict(work),
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    name = common.slug(f"generate-{args.shape}")
    return common.finish(lambda: run(args), args.out, name=name, table=table)


if __name__ == "__main__":
    raise SystemExit(main())
