"""Tile sizes of the Hopper kernels, and how they lie in shared memory."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu

# Warpgroups that multiply; one more copies.
CONSUMERS = 2

# Shared memory of a block of threads, in bytes, less what barriers take.
SHARED_BYTES = 232_448 - 1024


@dataclasses.dataclass(frozen=True)
class Config:
    """Tile sizes of `mosaic_gpu_core`, for one shape.

    Attributes:
      tile_m: rows of a block.
      tile_n: output columns of one of the two multiplying warpgroups.
      tile_k: depth of one stage; not less than the rank.
      steps: stages of the ring.
      store_m: rows that are written at once.
      width: blocks of rows that go through the same columns of `w` side by side.
      cluster: thread blocks, 1 or 2, that copy each part of `w` once for all of them.
    """

    tile_m: int = 128
    tile_n: int = 128
    tile_k: int = 64
    steps: int = 4
    store_m: int = 32
    width: int = 16
    cluster: int = 1

    def block_n(self) -> int:
        """Output columns of a block."""
        return CONSUMERS * self.tile_n

    def shared_bytes(self) -> int:
        """Shared memory of a block, in bytes, for operands of two bytes."""
        stage = (self.tile_m + self.block_n()) * self.tile_k
        return 2 * (self.steps * stage + 2 * self.store_m * self.block_n())

    def fits(self) -> bool:
        """Whether shared memory and the registers of an accumulator suffice."""
        accumulator = self.tile_m * self.tile_n // 128
        return self.shared_bytes() <= SHARED_BYTES and accumulator <= 128


def shared(*shape: int, minor: int, dtype: Any = jnp.bfloat16) -> Any:
    """A buffer in shared memory.

    Args:
      shape: its sizes.
      minor: elements of a row, or of the part of a row that is multiplied at once. Both
        operands of a multiplication need the same layout, which this decides.
      dtype: its elements.
    """
    size = jnp.dtype(dtype).itemsize
    swizzle = plgpu.find_swizzle(minor * size * 8)
    transforms: Any = (
        plgpu.TilingTransform((8, swizzle // size)),  # pyright: ignore
        plgpu.SwizzleTransform(swizzle),  # pyright: ignore
    )
    return plgpu.SMEM(shape, dtype, transforms=transforms)
