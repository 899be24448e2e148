"""The low-rank matmul for NVIDIA Hopper (H100, H200) in Pallas Mosaic GPU, bfloat16.

    forward    u = side(x, a)         y = core(x, w, u, b)
    backward   v, db = side(dy, b, u)    dx = core(dy, w^T, v, a)    da = side(x, v)

`mosaic_gpu_core` adds the low-rank product to the base product before it is written;
`mosaic_gpu_side` reads the rows once for what is of rank R. Stacks that are bfloat16
already are used as they are; others are cast whole first, which for many float32
adapters is a pass over memory that the caller can spare itself.
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
from seal_kernels.lora_matmul.mosaic_gpu_core import CONSUMERS, Config, core
from seal_kernels.lora_matmul.mosaic_gpu_side import side

# The ranks that the kernels are written for; others are filled up with zeros.
RANKS = (16, 32, 64)

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
    config = _config(config, x_MD, w_DF.shape[1], a_SRD)
    u_MR, _ = side(x_MD, slots_G, slots=slots, stack_SRC=a_SRD, interpret=interpret)
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
    config = _config(config, dy_MF, w_DF.shape[0], a_SRD)
    u_MR = jnp.pad(u_MR, ((0, 0), (0, a_SRD.shape[1] - rank)))
    once = {"slots": slots, "interpret": interpret}
    v_MR, db_SRF = side(dy_MF, slots_G, stack_SRC=b_SRF, s_MR=u_MR, **once)
    run = {"config": config, "sms": sms, "interpret": interpret}
    dx_MD = core(dy_MF, w_DF, v_MR, a_SRD, slots_G, transposed=True, **run)
    _, da_SRD = side(x_MD, slots_G, s_MR=v_MR, **once)
    return dx_MD, da_SRD[:, :rank], db_SRF[:, :rank]


def candidates(case: Case) -> list[Config]:
    """Tile sizes worth timing for a case, forward or backward: all that fit.

    Raises:
      NotImplementedError: a shape that these kernels do not take.
    """
    _check_sizes(case.M, case.D, case.F, case.R, case.tile)
    rank = _rank(case.R)
    return [
        config
        for columns in (case.F, case.D)
        for config in _candidates(case.M, columns, rank)
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
        # In cycles of one multiprocessor, for one step of the contraction: 2048 products
        # and 32 elements (64 bytes) a cycle.
        step = max(m * n / 2048, (m + n) / 32)
        return math.ceil(blocks / sms) * step

    return min(_candidates(rows, columns, _rank(rank)), key=seconds)


def _candidates(rows: int, columns: int, rank: int) -> list[Config]:
    sizes = [
        (tile_m, tile_n)
        for tile_n in (128, 64)
        for tile_m in (128, 64, 256, 192)
        if columns % (CONSUMERS * tile_n) == 0 and tile_m <= rows
    ]
    configs = [
        Config(tile_m=tile_m, tile_n=tile_n, steps=steps)
        for tile_m, tile_n in sizes
        for steps in (5, 4, 3)
    ]
    return [config for config in configs if config.fits() and rank <= config.tile_k]
