"""The low-rank matmul for NVIDIA Hopper (H100, H200) in Pallas Mosaic GPU, bfloat16.

    forward    u = products(x, a)                    y = core(x, w, u, b)
    backward   v, db = products_and_sums(dy, b, u)   dx = core(dy, w^T, v, a)
               da = sums(x, v)

`mosaic_gpu_core` adds the low-rank product to the base product before it is written;
`mosaic_gpu_side`, the others, reads the rows once for what is of rank R. Stacks that
are bfloat16 already are used as they are; others are cast whole first, which for many
float32 adapters is a pass over memory that the caller can spare itself.

Compiled and checked for an H200 (`tests/aot`) and interpreted on a CPU; not yet run or
timed on a device, so nothing takes them unless it asks for them by name.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.pallas import mosaic_gpu as plgpu

from seal_kernels.lora_matmul.cases import Case
from seal_kernels.lora_matmul.mosaic_gpu_config import CONSUMERS, Config
from seal_kernels.lora_matmul.mosaic_gpu_core import core
from seal_kernels.lora_matmul.mosaic_gpu_side import products, products_and_sums, sums

# The ranks that the kernels are written for; others are filled up with zeros.
RANKS = (16, 32, 64)

# Rows of a block, and output columns of one of its two multiplying warpgroups.
TILES = ((128, 128), (128, 64), (64, 128), (256, 64), (192, 64), (64, 64))

# Output columns of the smallest block.
COLUMNS = CONSUMERS * min(tile_n for _, tile_n in TILES)

# Hopper by the names of its devices, where there is none to ask.
HOPPERS = ("H20", "H100", "H200", "H800", "GH200")

# Multiprocessors of an H100 or H200, where there is none to ask.
SMS = 132


def forward(
    x_MD: Array,
    w_DF: Array,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    *,
    config: Config | None = None,
    interpret: Any = False,
) -> tuple[Array, Array]:
    """`y = x w + (x a^T) b`, every tile of rows with the adapter of its slot.

    Arguments and results as in `reference.forward`.

    Args:
      config: tile sizes of the core; by default a guess from the shape.
      interpret: run on the CPU: True, or `plgpu.InterpretGPUParams`.

    Raises:
      NotImplementedError: a shape, dtype or device that these kernels do not take.
    """
    _check(x_MD, w_DF, a_SRD, b_SRF, slots_G)
    slots, rank, _ = a_SRD.shape
    slots_G = _none_is_last(slots_G, slots)
    interpret, sms = _machine(interpret)
    a_SRD, b_SRF = _ready(a_SRD, x_MD), _ready(b_SRF, x_MD)
    config = config or default_config(len(x_MD), w_DF.shape[1], rank, sms)
    u_MR = products(x_MD, slots_G, a_SRD, interpret=interpret)
    run = {"config": config, "sms": sms, "interpret": interpret}
    y_MF = core(x_MD, w_DF, u_MR, b_SRF, slots_G, transposed=False, **run)
    return y_MF, u_MR[:, :rank]


def backward(
    dy_MF: Array,
    x_MD: Array,
    u_MR: Array,
    w_DF: Array,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    *,
    config: Config | None = None,
    interpret: Any = False,
) -> tuple[Array, Array, Array]:
    """The gradients of `forward` by x, a and b, as in `reference.backward`."""
    _check(x_MD, w_DF, a_SRD, b_SRF, slots_G)
    slots, rank, _ = a_SRD.shape
    slots_G = _none_is_last(slots_G, slots)
    interpret, sms = _machine(interpret)
    a_SRD, b_SRF = _ready(a_SRD, x_MD), _ready(b_SRF, x_MD)
    config = config or default_config(len(x_MD), w_DF.shape[0], rank, sms)
    u_MR = jnp.pad(u_MR, ((0, 0), (0, a_SRD.shape[1] - rank)))
    v_MR, db_SRF = products_and_sums(dy_MF, slots_G, b_SRF, u_MR, interpret=interpret)
    run = {"config": config, "sms": sms, "interpret": interpret}
    dx_MD = core(dy_MF, w_DF, v_MR, a_SRD, slots_G, transposed=True, **run)
    da_SRD = sums(x_MD, slots_G, v_MR, slots=slots, interpret=interpret)
    return dx_MD, da_SRD[:, :rank], db_SRF[:, :rank]


def candidates(case: Case) -> list[Config]:
    """Tile sizes worth timing for a case, in both directions: all that fit.

    Raises:
      NotImplementedError: a shape that these kernels do not take.
    """
    _check_sizes(case.M, case.D, case.F, case.R, case.tile)
    both = math.gcd(case.D, case.F)
    return [
        dataclasses.replace(config, cluster=cluster)
        for config in _candidates(case.M, both, _rank(case.R))
        for cluster in (1, 2)
    ]


def default_config(rows: int, columns: int, rank: int, sms: int = SMS) -> Config:
    """A guess for a result of `[rows, columns]`: few and full waves of large tiles.

    The time of a wave is taken as that of the larger of multiplying a tile and of
    bringing its operands from the second-level cache; no more than a guess, as it was
    made without a device to measure on.
    """

    def seconds(config: Config) -> float:
        m, n = config.tile_m, config.block_n()
        blocks = math.ceil(rows / m) * (columns // n)
        # Cycles of a multiprocessor for one step of the contraction, at 2048 products
        # and 32 elements (64 bytes) a cycle.
        step = max(m * n / 2048, (m + n) / 32)
        return math.ceil(blocks / sms) * step

    return min(_candidates(rows, columns, _rank(rank)), key=seconds)


def _candidates(rows: int, columns: int, rank: int) -> list[Config]:
    """Tile sizes that fit a result, each with as many stages as there is room for."""
    configs = []
    for tile_m, tile_n in TILES:
        fitting = [
            config
            for steps in (6, 5, 4, 3)
            if (config := Config(tile_m=tile_m, tile_n=tile_n, steps=steps)).fits()
        ]
        if columns % fitting[0].block_n() == 0 and tile_m <= rows:
            configs.append(fitting[0])
    return [config for config in configs if rank <= config.tile_k]


def _check(
    x_MD: Array, w_DF: Array, a_SRD: Array, b_SRF: Array, slots_G: Array | np.ndarray
) -> None:
    """Raises NotImplementedError, with one line on why, for what is not taken."""
    for name, array in {"x": x_MD, "w": w_DF}.items():
        if array.dtype != jnp.bfloat16:
            raise NotImplementedError(f"{name} is {array.dtype}, not bfloat16")
    rows, width = x_MD.shape
    _check_sizes(rows, width, w_DF.shape[1], a_SRD.shape[1], rows // len(slots_G))


def _check_sizes(rows: int, width: int, features: int, rank: int, tile: int) -> None:
    least = min(tile_m for tile_m, _ in TILES)
    if rows < least:
        raise NotImplementedError(f"{rows} rows are less than a block of {least}")
    if tile % 8:
        raise NotImplementedError(f"a tile of {tile} rows must be a multiple of 8")
    if width % COLUMNS or features % COLUMNS:
        raise NotImplementedError(
            f"D={width} and F={features} must be multiples of {COLUMNS}"
        )
    if not 1 <= rank <= RANKS[-1]:
        raise NotImplementedError(f"rank {rank} is more than {RANKS[-1]}")


def _machine(interpret: Any) -> tuple[Any, int]:
    """How to interpret, None for not at all, and the number of multiprocessors.

    Raises:
      NotImplementedError: the device is known not to be a Hopper.
    """
    if interpret:
        # Two, so that each goes through several blocks even of a small shape.
        return plgpu.InterpretGPUParams() if interpret is True else interpret, 2
    # Ahead of time, for a machine that this one is not, the mesh knows the device.
    described = jax.sharding.get_abstract_mesh().abstract_device
    if described is not None:
        kind, sms = described.device_kind, described.num_cores
        if not any(name in kind for name in HOPPERS):
            raise NotImplementedError(f"{kind} is not one of {', '.join(HOPPERS)}")
        return None, sms or SMS
    device = jax.devices()[0]
    if device.platform != "gpu":
        return None, SMS
    if not device.compute_capability.startswith("9."):
        raise NotImplementedError(
            f"{device.device_kind} has compute capability "
            f"{device.compute_capability}, and the kernels are for 9.0 (Hopper)"
        )
    return None, device.core_count


def _none_is_last(slots_G: Array | np.ndarray, slots: int) -> Array:
    """The slots, with S for every one that is none."""
    slots_G = jnp.asarray(slots_G, jnp.int32)
    return jnp.where((slots_G >= 0) & (slots_G < slots), slots_G, slots)


def _rank(rank: int) -> int:
    return next(full for full in RANKS if rank <= full)


def _ready(stack_SRC: Array, x_MD: Array) -> Array:
    """A stack in the dtype of x, its rank filled up with zeros."""
    rank = stack_SRC.shape[1]
    padding = ((0, 0), (0, _rank(rank) - rank), (0, 0))
    return jnp.pad(stack_SRC.astype(x_MD.dtype), padding)
