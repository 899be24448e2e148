"""What programs that are compiled ahead of time have in common."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import common
import hlo_cost
import jax

from seal_jax.models import decoder, float8_base, hf_config
from seal_jax.training import inner
from seal_kernels.attention import triton_gpu as triton_attention
from seal_kernels.lora_matmul import triton_gpu as triton_products


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to compile, and what is known of it beforehand.

    Attributes:
      run: the function, before it is jitted.
      args: shapes and dtypes of what it takes.
      donated: places of the arguments that it may overwrite.
      per: what one run of it is: its loops run once, or as `told` says.
      flop: the matmul FLOP of that.
      arch: the decoder.
      tokens: positions of the rows.
      told: loops and kernels whose cost the text does not hold.
      base_flop: of `flop`, that of products with the base's linears; 0: not said.
      options: the compiler's.
    """

    run: Callable[..., Any]
    args: tuple[Any, ...]
    donated: tuple[int, ...]
    per: str
    flop: float
    arch: decoder.Arch
    tokens: int
    told: hlo_cost.Told = hlo_cost.NOTHING
    base_flop: float = 0.0
    options: Mapping[str, bool | int] = dataclasses.field(default_factory=dict)


@functools.cache
def arch_of(name: str) -> decoder.Arch:
    """A shape of `common.SHAPES` in bfloat16."""
    return hf_config.parse(common.SHAPES[name].config(), dtype="bfloat16")


def in_float8(
    build: Callable[[decoder.Arch], Program],
) -> Callable[[decoder.Arch], Program]:
    """The same program on a base in float8 (`model.base_dtype`).

    On a device XLA times cuBLASLt against its own kernels. Without one it takes its own
    for every product, unless it is told not to.
    """

    def built(arch: decoder.Arch) -> Program:
        program = build(dataclasses.replace(arch, base_dtype=float8_base.FLOAT8))
        options = {**program.options, "xla_gpu_enable_triton_gemm": False}
        return dataclasses.replace(program, options=options)

    return built


def like(make: Callable[[], Any]) -> Any:
    """Shapes and dtypes of what `make` returns."""
    return jax.eval_shape(make)


# On an H200 attention is tokamax's forward and Triton's backward, whose FLOP a text
# does not hold. Keys and queries meet in tiles of these sizes.
FORWARD_TILE, BACKWARD_TILE = 128, triton_attention.BLOCK


def attending(arch: decoder.Arch, rows: int, width: int, span: float) -> hlo_cost.Told:
    """What attention's kernels do in a layer, `span` keys before a query on the mean.

    Forward two products, for the slope of the queries three, and for those of keys and
    values four; all past the tiles that no query sees. A query is computed with some
    keys that it does not see: backwards one and a half tiles of them on the mean, half
    a tile at either end of its block's range and half where a line ends inside.
    """

    def flop(products: int, unseen: float) -> hlo_cost.Foreign:
        pairs = rows * width * min(span + unseen, (width + unseen) / 2)
        return hlo_cost.Foreign(2.0 * products * pairs * arch.heads * arch.head_dim)

    return hlo_cost.Told(
        foreign={
            r"flash_attention": flop(2, FORWARD_TILE),
            r"range_attention_queries": flop(3, 1.5 * BACKWARD_TILE),
            r"range_attention_keys": flop(4, 1.5 * BACKWARD_TILE),
        }
    )


def low_rank(
    arch: decoder.Arch,
    targets: Sequence[str],
    rank: int,
    *,
    rows: int,
    adapters: float,
    held: int,
    lines: float = 1.0,
) -> hlo_cost.Told:
    """What Triton's low-rank products do with so many rows of so many `adapters`.

    A product of a block of rows is formed with each adapter that some row of it is
    under; an adapter's gradient of whole blocks. Each has so many `lines` of rows side
    by side, and for each one block more than they fill; were its lines far apart, its
    gradient would go through what lies between, which is not counted. Of the adapters
    that are `held`, others are not read.
    """
    multiplied = rows + triton_products.BLOCK * (lines * adapters - 1)
    summed = rows + triton_products.SUMMED * lines * adapters
    foreign = {}
    for target in targets:
        inputs, features = arch.linears()[target]
        widths = {"u": inputs, "x": inputs, "y": features, "v": features}
        for name, width in widths.items():
            flop, share = 2.0 * multiplied * rank * width, adapters / held
            kernel = rf"\b{target}\b.*low_rank_{name}\b"
            foreign[kernel] = hlo_cost.Foreign(flop, read={1: share})
        for name, width in (("a", inputs), ("b", features)):
            kernel = rf"\b{target}\b.*low_rank_{name}\b"
            foreign[kernel] = hlo_cost.Foreign(2.0 * summed * rank * width)
    return hlo_cost.Told(foreign=foreign)


def stepping(adapters: float, held: int) -> hlo_cost.Told:
    """What the optimizer's kernel does where so many of those `held` take a step."""
    share = adapters / held
    # Weight, moments and gradient; the copy that is multiplied with is only written.
    read = dict.fromkeys(range(5), share) | {3: 0.0}
    return hlo_cost.Told(foreign={"adam_step": hlo_cost.Foreign(0.0, read, share)})


def trained(
    arch: decoder.Arch, cfg: inner.EngineConfig, adapters: float, lines: float = 1.0
) -> hlo_cost.Told:
    """Both, in a global step in which so many adapters have `lines` each."""
    sizes = cfg.plan
    products = low_rank(
        arch,
        cfg.targets,
        cfg.rank + cfg.frozen_rank,
        rows=sizes.step_tokens,
        adapters=adapters,
        held=sizes.slots,
        lines=lines,
    )
    step = stepping(adapters, sizes.slots)
    return hlo_cost.Told(foreign={**products.foreign, **step.foreign})
