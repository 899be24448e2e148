"""The low-rank matmul as plain matmuls with many adapters at once, for accelerators.

    u = x [a_0 .. a_P]^T        of every adapter, and then zero but for the row's own
    y = x w + u [b_0 .. b_P]

for each chunk of rows, with the P adapters that rows of it may be under. No adapter is
gathered and no gradient scattered, whatever the tile, and every sum has a fixed order.
It costs `P R` low-rank columns instead of `R`, at the speed of a matmul. With a gather,
each tile moves its adapter's `R (D + F)` numbers some six times through memory; so this
form is ahead where a tile's rows times the adapters of a chunk are fewer than the FLOP
that a device computes for each byte (`pays`).

A row's zeros meet the other adapters' numbers in these products, and zero times NaN is
NaN. So what is not finite is taken as zero in them, and marked in the row's own `u`, or
`v`: the row, and with it its adapter's gradients, come out as NaN and no others.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seal_kernels import float8

# Beside the project's letters: C chunks of rows, M rows of a chunk, P adapters of one,
# K their ranks side by side.


def pays(adapters: int, tile: int) -> bool:
    """Whether an accelerator is likely to be faster with this form than with tiles.

    Both work on `R (D + F)` numbers: `2 M P` FLOP for each here, `P` the adapters of a
    chunk, some 12 bytes a tile there. An H200 computes 170 FLOP in the time of a byte,
    a TPU v5e 240.
    """
    return adapters * tile <= 6 * 128


def forward(
    x_MD: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    chunks: int = 1,
    sound_S: Array | None = None,
) -> tuple[Array, Array]:
    """`y = x w + (x a^T) b`; arguments and results as in `reference.forward`.

    Rows and adapters come in `chunks` equal parts, and a row of a part is under none
    but the part's own adapters. `sound_S` is as of `api.lora_matmul_packed`.
    """
    own_CMP = _own(slots_G, len(a_SRD), len(x_MD), chunks)
    a_CKD, b_CKF = (_clean(stack, x_MD.dtype, chunks) for stack in (a_SRD, b_SRF))
    if sound_S is None:
        stacks = [stack.astype(x_MD.dtype) for stack in (a_SRD, b_SRF)]
        a_sound_S, b_sound_S = (jnp.isfinite(stack).all((1, 2)) for stack in stacks)
        sound_S = a_sound_S & b_sound_S
    u_CMK = jnp.einsum("cmd,ckd->cmk", _cut(x_MD, chunks), a_CKD)
    spoilt_C1P = ~sound_S.reshape(chunks, 1, -1)
    spoilt_CM1 = jnp.any(own_CMP & spoilt_C1P, axis=2, keepdims=True)
    u_CMR = jnp.where(spoilt_CM1, jnp.nan, _pick(u_CMK, own_CMP))
    # By einsum, whose label tells this product from the base's in a compiled program.
    low_CMF = jnp.einsum("cmk,ckf->cmf", _spread(u_CMR, own_CMP), b_CKF)
    return float8.forward(_alone(x_MD), w_DF) + _joined(low_CMF), _joined(u_CMR)


def backward(
    dy_MF: Array,
    x_MD: Array,
    u_MR: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    chunks: int = 1,
    sound_S: Array | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of `forward` by x, a and b, as in `reference.backward`."""
    del sound_S  # An adapter that is not has made `u` so.
    own_CMP = _own(slots_G, len(a_SRD), len(x_MD), chunks)
    a_CKD, b_CKF = (_clean(stack, x_MD.dtype, chunks) for stack in (a_SRD, b_SRF))
    dy_CMF, x_CMD, u_CMR = (_cut(z, chunks) for z in (dy_MF, x_MD, u_MR))
    v_CMR = _pick(jnp.einsum("cmf,ckf->cmk", dy_CMF, b_CKF), own_CMP)
    # A row of `x` or `dy`, or an adapter, that is not finite has made `u` or `v` so.
    sound_CM1 = (jnp.isfinite(u_CMR) & jnp.isfinite(v_CMR)).all(-1, keepdims=True)
    u_CMK, v_CMK = (
        _spread(jnp.where(sound_CM1, small_CMR, jnp.nan), own_CMP)
        for small_CMR in (u_CMR, v_CMR)
    )
    low_CMD = jnp.einsum("cmk,ckd->cmd", v_CMK, a_CKD)
    dx_MD = float8.slope(_alone(dy_MF), w_DF) + _joined(low_CMD)

    def gradient(small_CMK: Array, rows_CMX: Array, like_SRX: Array) -> Array:
        sum_CKX = jnp.einsum(
            "cmk,cmx->ckx",
            small_CMK,
            _alone(_finite(rows_CMX)),
            # XLA sums in float32 and rounds what it writes.
            preferred_element_type=jnp.promote_types(x_MD.dtype, like_SRX.dtype),
        )
        return sum_CKX.reshape(like_SRX.shape)

    return dx_MD, gradient(v_CMK, x_CMD, a_SRD), gradient(u_CMK, dy_CMF, b_SRF)


def _alone(rows_MX: Array) -> Array:
    """Rows that XLA does not know to be those of another product.

    Else it makes one product of several, such as those of q, k and v, for which it
    copies the base's weights side by side in every step, and takes gradients apart.
    """
    return jax.lax.optimization_barrier(rows_MX)


def _own(slots_G: Array | np.ndarray, slots: int, rows: int, chunks: int) -> Array:
    """Which of its chunk's adapters is each row's, bool; at most one of them."""
    slots_CG1 = jnp.asarray(slots_G).reshape(chunks, -1, 1)
    own_CGP = slots_CG1 == jnp.arange(slots).reshape(chunks, 1, -1)
    tile = rows // len(slots_G)
    return jnp.repeat(own_CGP, tile, axis=1, total_repeat_length=rows // chunks)


def _cut(rows: Array, chunks: int) -> Array:
    return rows.reshape(chunks, -1, *rows.shape[1:])


def _joined(rows_CM: Array) -> Array:
    return rows_CM.reshape(-1, rows_CM.shape[-1])


def _pick(of_all_CMK: Array, own_CMP: Array) -> Array:
    """The row's own low-rank row; zeros where there is no adapter."""
    of_all_CMPR = of_all_CMK.reshape(*own_CMP.shape, -1)
    own = jnp.where(own_CMP[..., None], of_all_CMPR, 0)
    return own.sum(2, dtype=of_all_CMK.dtype)


def _spread(small_CMR: Array, own_CMP: Array) -> Array:
    """The row's low-rank row in its adapter's columns, `[C, M, K]`; else zeros."""
    spread_CMPR = jnp.where(own_CMP[..., None], small_CMR[:, :, None, :], 0)
    return spread_CMPR.reshape(*spread_CMPR.shape[:2], -1)


def _clean(stack_SRX: Array, dtype: jnp.dtype, chunks: int) -> Array:
    """Adapters as they are multiplied with, `[C, K, X]`.

    Forward and backward ask for the same, so that one copy serves both.
    """
    clean_CPRX = _finite(_cut(stack_SRX.astype(dtype), chunks))
    return clean_CPRX.reshape(chunks, -1, stack_SRX.shape[-1])


def _finite(x: Array) -> Array:
    return jnp.where(jnp.isfinite(x), x, jnp.zeros((), x.dtype))
