"""The low-rank matmul as plain matmuls with all adapters at once, for accelerators.

    u = x [a_0 .. a_S]^T        of every adapter, and then zero but for the row's own
    y = x w + u [b_0 .. b_S]

No adapter is gathered and no gradient scattered, whatever the tile, and every sum has a
fixed order. It costs `S R` low-rank columns instead of `R`, at the speed of a matmul.
With a gather, each tile moves its adapter's `R (D + F)` numbers some six times through
memory; so this form is ahead where a tile's rows times the adapters are fewer than the
FLOP that a device computes for each byte (`pays`).

A row's zeros meet the other adapters' numbers in these products, and zero times NaN is
NaN. So what is not finite is taken as zero in them, and marked in the row's own `u`, or
`v`: the row, and with it its adapter's gradients, come out as NaN and no others.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from seal_kernels import float8


def pays(adapters: int, tile: int) -> bool:
    """Whether an accelerator is likely to be faster with this form than with tiles.

    Both work on `R (D + F)` numbers: `2 M S` FLOP for each here, some 12 bytes a tile
    there. An H200 computes 170 FLOP in the time of a byte, a TPU v5e 240.
    """
    return adapters * tile <= 6 * 128


def forward(
    x_MD: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
) -> tuple[Array, Array]:
    """`y = x w + (x a^T) b`; arguments and results as in `reference.forward`."""
    own_MS = _own(slots_G, len(a_SRD), len(x_MD))
    a_SRD, b_SRF = a_SRD.astype(x_MD.dtype), b_SRF.astype(x_MD.dtype)
    u_MR = _pick(jnp.einsum("md,srd->msr", x_MD, a_SRD), own_MS)
    marked_MR = _mark(u_MR, own_MS, _sound(b_SRF))
    low_MF = _of_own(marked_MR, own_MS, b_SRF)
    return float8.forward(x_MD, w_DF) + low_MF, u_MR


def backward(
    dy_MF: Array,
    x_MD: Array,
    u_MR: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
) -> tuple[Array, Array, Array]:
    """The gradients of `forward` by x, a and b, as in `reference.backward`."""
    slots, rank, _ = a_SRD.shape
    own_MS = _own(slots_G, slots, len(x_MD))
    wide = jnp.promote_types(x_MD.dtype, jnp.float32)
    a_SRD, b_SRF = a_SRD.astype(x_MD.dtype), b_SRF.astype(x_MD.dtype)
    v_MR = _pick(jnp.einsum("mf,srf->msr", dy_MF, b_SRF), own_MS)
    low_MD = _of_own(_mark(v_MR, own_MS, _sound(a_SRD)), own_MS, a_SRD)
    dx_MD = float8.slope(dy_MF, w_DF) + low_MD

    # A row of `x` or `dy` that is not finite has made its row of `u` or `v` so.
    sound_M1 = (jnp.isfinite(u_MR) & jnp.isfinite(v_MR)).all(-1, keepdims=True)
    spoilt_S11 = jnp.any(own_MS & ~sound_M1, axis=0)[:, None, None]

    def gradient(small_MR: Array, rows_MX: Array) -> Array:
        sum_KX = jnp.einsum(
            "mk,mx->kx",
            _spread(jnp.where(sound_M1, small_MR, 0), own_MS),
            _finite(rows_MX),
            preferred_element_type=wide,
        )
        return jnp.where(spoilt_S11, jnp.nan, sum_KX.reshape(slots, rank, -1))

    return dx_MD, gradient(v_MR, x_MD), gradient(u_MR, dy_MF)


def _own(slots_G: Array | np.ndarray, slots: int, rows: int) -> Array:
    """Which adapter is each row's, bool `[M, S]`; no row has two, some have none."""
    own_GS = jnp.asarray(slots_G)[:, None] == jnp.arange(slots)[None, :]
    return jnp.repeat(own_GS, rows // len(slots_G), axis=0, total_repeat_length=rows)


def _pick(of_all_MSR: Array, own_MS: Array) -> Array:
    """The row's own low-rank row; zeros where there is no adapter."""
    return jnp.where(own_MS[:, :, None], of_all_MSR, 0).sum(1, dtype=of_all_MSR.dtype)


def _of_own(small_MR: Array, own_MS: Array, stack_SRX: Array) -> Array:
    """The row's low-rank row times its adapter's numbers, `[M, X]`."""
    # By einsum, whose label tells this product from the base's in a compiled program.
    return jnp.einsum("mk,kx->mx", _spread(small_MR, own_MS), _flat(_finite(stack_SRX)))


def _spread(small_MR: Array, own_MS: Array) -> Array:
    """The row's low-rank row in its adapter's columns, `[M, S R]`; else zeros."""
    spread_MSR = jnp.where(own_MS[:, :, None], small_MR[:, None, :], 0)
    return spread_MSR.reshape(len(small_MR), -1)


def _mark(small_MR: Array, own_MS: Array, sound_S: Array) -> Array:
    """NaN for rows whose adapter is not finite."""
    spoilt_M1 = jnp.any(own_MS & ~sound_S[None, :], axis=1, keepdims=True)
    return jnp.where(spoilt_M1, jnp.nan, small_MR)


def _sound(stack_S: Array) -> Array:
    return jnp.isfinite(stack_S).all((1, 2))


def _finite(x: Array) -> Array:
    return jnp.where(jnp.isfinite(x), x, jnp.zeros((), x.dtype))


def _flat(stack_SRX: Array) -> Array:
    return stack_SRX.reshape(-1, stack_SRX.shape[-1])
