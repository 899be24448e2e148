"""Real shapes of the low-rank matmul, by name: for tests, the tuner and benchmarks.

    qwen2.5-7b/gate/packed      model / linear layer / workload

Widths are those of the models' config.json. Workloads are those of one round: `packed`
is a training step of short lines, `dense` one of equal long ones, `decode` a step of
generation with an adapter for every row, `imitate` a batch for one adapter.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

# Input and output width of each linear layer that differs; v is as k, up as gate.
LINEARS = {
    "qwen2.5-7b": {
        "q": (3584, 3584),
        "k": (3584, 512),
        "gate": (3584, 18944),
        "down": (18944, 3584),
    },
    "qwen2.5-0.5b": {
        "q": (896, 896),
        "k": (896, 128),
        "gate": (896, 4864),
        "down": (4864, 896),
    },
    "llama-3.2-1b": {
        "q": (2048, 2048),
        "k": (2048, 512),
        "gate": (2048, 8192),
        "down": (8192, 2048),
    },
}

# Rows, rank, adapters, and rows of a tile.
WORKLOADS = {
    "packed": (2048, 32, 64, 16),
    "dense": (8192, 32, 64, 128),
    "decode": (256, 32, 64, 1),
    "imitate": (4096, 64, 1, 4096),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """`M` rows in tiles of `tile`, each with one of `S` adapters of rank `R`."""

    name: str
    M: int
    D: int
    F: int
    R: int
    S: int
    tile: int
    dtype: str = "bfloat16"

    def base_flops(self) -> int:
        """Floating-point operations of `x w` alone, the bare matmul."""
        return 2 * self.M * self.D * self.F

    def forward_flops(self) -> int:
        """Of the forward pass: the base and the two low-rank products."""
        return self.base_flops() + 2 * self.M * self.R * (self.D + self.F)

    def backward_flops(self) -> int:
        """Of the backward pass, with gradients of x, a and b and none of w."""
        return self.base_flops() + 4 * self.M * self.R * (self.D + self.F)


CASES = {
    case.name: case
    for model, linears in LINEARS.items()
    for linear, (width, features) in linears.items()
    for workload, (rows, rank, adapters, tile) in WORKLOADS.items()
    for case in [
        Case(
            name=f"{model}/{linear}/{workload}",
            M=rows,
            D=width,
            F=features,
            R=rank,
            S=adapters,
            tile=tile,
        )
    ]
}


def operands(case: Case, key: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Random operands of `lora_matmul_packed`, of the size that a model has them.

    Slots are runs of consecutive tiles, in no order, as a plan of lines lays them out.

    Returns:
      `x_MD` and `w_DF` in the case's dtype, `a_SRD` and `b_SRF` in float32 and the
      int32 `slots_G`.
    """
    keys = jax.random.split(key, 5)
    tiles = case.M // case.tile

    def normal(key: Array, shape: tuple[int, ...], scale: float) -> Array:
        return scale * jax.random.normal(key, shape, jnp.float32)

    # Whole adapters first, then cut or repeated to the number of tiles.
    order_S = jax.random.permutation(keys[4], case.S).astype(jnp.int32)
    slots_G = order_S[jnp.arange(tiles) * case.S // tiles]
    return (
        normal(keys[0], (case.M, case.D), 1.0).astype(case.dtype),
        normal(keys[1], (case.D, case.F), case.D**-0.5).astype(case.dtype),
        normal(keys[2], (case.S, case.R, case.D), case.D**-0.5),
        normal(keys[3], (case.S, case.R, case.F), case.R**-0.5),
        slots_G,
    )
