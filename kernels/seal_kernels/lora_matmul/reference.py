"""The low-rank matmul in plain jnp, one tile after the other: what every other path is
tested on, and nothing else. Read this first; it is slow on purpose.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seal_kernels import float8


def forward(
    x_MD: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
) -> tuple[Array, Array]:
    """`y = x w + (x a^T) b`, every tile of rows with the adapter of its slot.

    Args:
      x_MD: activations, `M / G` rows to a tile.
      w_DF: frozen base weight, or the same in eight bits.
      a_SRD: down projections.
      b_SRF: up projections with each adapter's scale folded in.
      slots_G: the adapter of each tile; outside `0..S-1` means none.

    Returns:
      `y_MF` and `u_MR = x a^T`, both in the dtype of `x`; `u` is zero without adapter.
    """

    base = w_DF if isinstance(w_DF, float8.Weights) else _wide(w_DF)

    def tile(x_TD_and_slot: tuple[Array, Array]) -> tuple[Array, Array]:
        x_TD, slot = x_TD_and_slot
        u_TR = _wide(x_TD) @ _adapter(a_SRD, slot).T
        y_TF = float8.forward(_wide(x_TD), base) + u_TR @ _adapter(b_SRF, slot)
        return y_TF.astype(x_TD.dtype), u_TR.astype(x_TD.dtype)

    x_GTD = _tiles(x_MD, slots_G)
    y_GTF, u_GTR = lax.map(tile, (x_GTD, jnp.asarray(slots_G)))
    return _rows(y_GTF, x_MD), _rows(u_GTR, x_MD)


def backward(
    dy_MF: Array,
    x_MD: Array,
    u_MR: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
) -> tuple[Array, Array, Array]:
    """The gradients of `forward`; the frozen `w` gets none.

    With `v = dy b^T` of a tile: `dx = dy w^T + v a`, `da = v^T x`, `db = u^T dy`, the
    last two summed over the tiles of an adapter.

    Returns:
      `dx_MD` in the dtype of `x`; `da_SRD` and `db_SRF` in float32, or in float64 if
      that is the dtype of `x`.
    """

    base = w_DF if isinstance(w_DF, float8.Weights) else _wide(w_DF)

    def tile(
        sums: tuple[Array, Array], rows: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], Array]:
        da_SRD, db_SRF = sums
        dy_TF, x_TD, u_TR, slot = rows
        v_TR = _wide(dy_TF) @ _adapter(b_SRF, slot).T
        dx_TD = float8.slope(_wide(dy_TF), base) + v_TR @ _adapter(a_SRD, slot)
        # A slot below zero would count from the end: send it past the end, and drop it.
        at = jnp.where(slot < 0, len(a_SRD), slot)
        da_SRD = da_SRD.at[at].add(v_TR.T @ _wide(x_TD), mode="drop")
        db_SRF = db_SRF.at[at].add(_wide(u_TR).T @ _wide(dy_TF), mode="drop")
        return (da_SRD, db_SRF), dx_TD.astype(x_TD.dtype)

    rows = [_tiles(rows_M, slots_G) for rows_M in (dy_MF, x_MD, u_MR)]
    wide = _wide(x_MD).dtype
    sums = jnp.zeros(a_SRD.shape, wide), jnp.zeros(b_SRF.shape, wide)
    sums, dx_GTD = lax.scan(tile, sums, (*rows, jnp.asarray(slots_G)))
    return _rows(dx_GTD, x_MD), *sums


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _tiles(rows_M: Array, slots_G: Array | np.ndarray) -> Array:
    rows, width = rows_M.shape
    return rows_M.reshape(len(slots_G), rows // len(slots_G), width)


def _rows(tiles_GT: Array, like_M: Array) -> Array:
    return tiles_GT.reshape(len(like_M), tiles_GT.shape[-1])


def _adapter(stack_S: Array, slot: Array) -> Array:
    """The slot's matrix, or zeros if the slot is none of the stack's."""
    valid = (slot >= 0) & (slot < len(stack_S))
    picked = stack_S[jnp.clip(slot, 0, len(stack_S) - 1)]
    return jnp.where(valid, _wide(picked), 0)
