"""The packed engine's cost against one thing at a time.

    python benchmarks/scaling.py --shape small --most-adapters 64 [--out]

Axes, each from the same point (`--base-adapters` adapters of `--lines` lines of
`--line-tokens` tokens):

    adapters   1, 2, 4, ... --most-adapters: flat per adapter once steps are full
    length     tokens of a line, 16, 32, ... --row-tokens: attention, and tiles
    rank       1, 4, 16, ... --most-rank
    devices    1, 2, 4, ... all there are; adapters as many for each device

Along the first two axes and the last one program runs everything, as a real run's does;
its budget of tokens stays what it is, so few adapters leave it unfilled. Programs are
compiled before the clock starts; medians over `--repeats`.
"""

import argparse
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import common
import jax
import training
import workload

from seal_jax.models import decoder
from seal_jax.runtime import backend, command_line, meshes
from seal_jax.training import packed

AXES = ("adapters", "length", "rank", "devices")


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement: so many adapters of equal lines, at a rank, on devices.

    `pool` is what the program is compiled for, on each device.
    """

    adapters: int
    lines: int
    length: int
    rank: int
    devices: int
    pool: int


def powers(most: int, *, first: int = 1, factor: int = 2) -> list[int]:
    """first, first * factor, ... and at last `most`."""
    made = [first]
    while made[-1] * factor < most:
        made.append(made[-1] * factor)
    return made if made[-1] >= most else [*made, most]


def points(
    base: Point, axis: str, *, most_adapters: int, longest: int, most_rank: int
) -> list[tuple[int, Point]]:
    """(value, measurement) along an axis."""
    change = functools.partial(dataclasses.replace, base)
    match axis:
        case "adapters":
            counts = powers(most_adapters)
            return [(n, change(adapters=n, pool=most_adapters)) for n in counts]
        case "length":
            return [(n, change(length=n)) for n in powers(longest, first=16)]
        case "rank":
            return [(n, change(rank=n)) for n in powers(most_rank, factor=4)]
        case _:
            return [
                (n, change(adapters=base.adapters * n, devices=n))
                for n in powers(len(jax.devices()))
            ]


def measure(
    point: Point, sizes: training.Sizes, arch: decoder.Arch, *, repeats: int
) -> dict[str, Any]:
    """The rates at a point."""
    sizes = dataclasses.replace(sizes, rank=point.rank)
    mesh = meshes.of_devices(data=point.devices, model=1)
    params = jax.jit(decoder.init_params, static_argnums=1)(
        jax.random.key(training.SEED), arch
    )
    if mesh is not None:
        params = jax.device_put(params, meshes.replicated(mesh))
    jobs = sizes.jobs([[point.length] * point.lines] * point.adapters, vocab=arch.vocab)
    keys = jax.random.split(jax.random.key(training.SEED + 1), len(jobs))
    train = functools.partial(
        packed.train,
        params,
        arch=arch,
        cfg=sizes.inner(pool=point.pool),
        eos=workload.EOS,
        mesh=mesh,
    )
    with backend.compile_times() as times:
        train(jobs[:1], keys[:1])
        trained = train(jobs, keys)
    seconds = common.time_repeats(functools.partial(train, jobs, keys), repeats=repeats)
    tokens = sizes.epochs * point.adapters * point.lines * point.length
    return {
        **dataclasses.asdict(point),
        **common.rates(
            seconds, adapters=len(jobs), tokens=tokens, steps=trained.adapter_steps
        ),
        "token_efficiency": trained.tokens / trained.computed_tokens,
        "compile_seconds": times.cold + times.warm,
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All rows as one result.

    Raises:
      ValueError: an unknown axis, or a line that is longer than a row.
    """
    axes = args.axes.split(",")
    if not set(axes) <= set(AXES):
        raise ValueError(f"--axes={args.axes} must be of {', '.join(AXES)}")
    sizes, arch = training.sizes_of(args), training.arch_from(args)
    many = args.base_adapters
    base = Point(many, args.lines, args.line_tokens, sizes.rank, devices=1, pool=many)
    longest = sizes.row_tokens - sizes.loss.extra(sizes.row_tokens)
    rows = []
    for axis in axes:
        along = points(
            base,
            axis,
            most_adapters=args.most_adapters,
            longest=longest,
            most_rank=args.most_rank,
        )
        if axis == "devices" and len(along) == 1:
            continue
        for value, point in along:
            measured = measure(point, sizes, arch, repeats=args.repeats)
            rows.append({"axis": axis, "value": value, **measured})
            print(row_line(rows[-1]), flush=True)
    device = jax.devices()[0]
    given = ("shape", "dtype", "kernel", "axes", "repeats")
    return {
        "benchmark": "scaling",
        "rows": rows,
        **dataclasses.asdict(sizes),
        **{name: getattr(args, name) for name in given},
        "model": dataclasses.asdict(common.shape(args.shape)),
        **common.stamp(device=common.device_name(device.platform, device.device_kind)),
    }


def row_line(row: Mapping[str, Any]) -> str:
    """A row for reading."""
    return (
        f"{row['axis']:>9} {row['value']:>5}: {row['seconds']:8.3f} s, "
        f"{row['adapters_per_s']:8.2f} adapters/s, {row['tokens_per_s']:9.0f} tokens/s,"
        f" {row['token_efficiency']:6.1%} of positions used, compiled in "
        f"{row['compile_seconds']:.1f} s"
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.Parser(
        prog="benchmarks/scaling.py",
        description="The packed engine against adapters, length, rank and devices.",
    )
    add = parser.add_argument
    training.add_flags(parser)
    parser.set_defaults(epochs=1)
    add("--axes", default=",".join(AXES), help="which, separated by commas")
    add(
        "--most-adapters",
        type=command_line.COUNT,
        default=64,
        help="4096 for the whole range",
    )
    add(
        "--base-adapters",
        type=command_line.COUNT,
        default=32,
        help="along the other axes",
    )
    add("--lines", type=command_line.FEW, default=4, help="of each adapter")
    add("--line-tokens", type=command_line.COUNT, default=48)
    add("--most-rank", type=command_line.FEW, default=64)
    add(
        "--repeats", type=command_line.FEW, default=3, help="of each row; medians count"
    )
    common.add_out(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    name = common.slug(f"scaling-{args.shape}")
    return common.finish(lambda: run(args), args.out, name=name)


if __name__ == "__main__":
    raise SystemExit(main())
