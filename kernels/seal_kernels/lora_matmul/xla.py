"""The low-rank matmul in XLA's own operations: the path that works on every device.

Each tile gathers its adapter; the low-rank products are batched over tiles, and the
tiles' gradients are summed in their order, so that nearly all cost grows with tiles and
not with slots times rows. The alternatives, and why not:

* one product with all adapters, masked: no gather, but its cost grows with the slots
  (on two CPU cores at 60 slots, two to five times this one's whole forward pass).
  `dense` is that, for accelerators;
* the product by `a^T` as a sum of broadcast factors, as the others are on a CPU: a sum
  over the width is no faster than XLA:CPU's batched dot;
* sums over a slot's tiles by differences of a cumulative sum: a NaN in one adapter
  would reach the others;
* `lax.ragged_dot`: on a GPU XLA expands it to the masked product.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seal_kernels import float8
from seal_kernels.cpu_loops import computed_once


def forward(
    x_MD: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
) -> tuple[Array, Array]:
    """`y = x w + (x a^T) b`, every tile of rows with the adapter of its slot.

    Arguments and results as in `reference.forward`.
    """
    tiles = len(slots_G)
    x_MD = computed_once(x_MD)

    def low_rank(x_GTD: Array, slots_G: Array | np.ndarray) -> tuple[Array, Array]:
        a_GRD = _gather(a_SRD, slots_G, x_MD.dtype)
        b_GRF = _gather(b_SRF, slots_G, x_MD.dtype)
        u_GTR = jnp.einsum("gtd,grd->gtr", x_GTD, a_GRD)
        return _inner(u_GTR, b_GRF), u_GTR

    x_GTD, parts = _split(x_MD, tiles), _parts(a_SRD, b_SRF, slots_G, x_MD.dtype)
    if parts == 1:
        low_GTF, u_GTR = low_rank(x_GTD, slots_G)
    else:
        cut = [z.reshape(parts, -1, *z.shape[1:]) for z in (x_GTD, slots_G)]
        made = lax.map(lambda part: low_rank(*part), tuple(cut))
        low_GTF, u_GTR = (z.reshape(tiles, *z.shape[2:]) for z in made)
    # Both products in the dtype of x: a GPU's GEMM then takes the low-rank term as its
    # accumulator's start (beta = 1) instead of adding it in a pass of its own.
    y_MF = computed_once(float8.forward(x_MD, w_DF) + _join(low_GTF))
    return y_MF, _join(u_GTR)


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
    tiles = len(slots_G)
    dy_MF, x_MD, u_MR = computed_once((dy_MF, x_MD, u_MR))
    a_GRD = _gather(a_SRD, slots_G, x_MD.dtype)
    b_GRF = _gather(b_SRF, slots_G, x_MD.dtype)
    dy_GTF = _split(dy_MF, tiles)
    v_GTR = jnp.einsum("gtf,grf->gtr", dy_GTF, b_GRF)
    low_GTD = _inner(v_GTR, a_GRD)
    dx_MD = computed_once(float8.slope(dy_MF, w_DF) + _join(low_GTD))
    da_GRD = _outer(v_GTR, _split(x_MD, tiles))
    db_GRF = _outer(_split(u_MR, tiles), dy_GTF)
    slots = len(a_SRD)
    return dx_MD, _sum(da_GRD, slots_G, slots), _sum(db_GRF, slots_G, slots)


# On a CPU the sums over few ranks and few rows are written out, so that LLVM makes one
# vectorised loop of each: a batched dot of such small matrices is slower.
MOST_TERMS = 16


def _inner(u_GTR: Array, b_GRF: Array) -> Array:
    """`u b` of each tile, `[G, T, F]`: a sum over ranks, in float32 at least."""
    ranks = u_GTR.shape[2]
    wide = jnp.promote_types(u_GTR.dtype, jnp.float32)

    def product(u: Array, b: Array) -> Array:
        return jnp.einsum("gtr,grf->gtf", u, b)

    def unrolled(u: Array, b: Array) -> Array:
        dtype, u, b = u.dtype, u.astype(wide), b.astype(wide)
        terms = (u[:, :, r, None] * b[:, None, r] for r in range(ranks))
        return functools.reduce(jnp.add, terms).astype(dtype)

    if not 0 < ranks <= MOST_TERMS:
        return product(u_GTR, b_GRF)
    return lax.platform_dependent(u_GTR, b_GRF, cpu=unrolled, default=product)


def _outer(v_GTR: Array, x_GTD: Array) -> Array:
    """`v^T x` of each tile, `[G, R, D]`, at least float32: a sum over its rows."""
    rows = x_GTD.shape[1]
    wide = jnp.promote_types(x_GTD.dtype, jnp.float32)

    def product(v: Array, x: Array) -> Array:
        return jnp.einsum("gtr,gtd->grd", v, x, preferred_element_type=wide)

    def unrolled(v: Array, x: Array) -> Array:
        v, x = v.astype(wide), x.astype(wide)
        terms = (v[:, t, :, None] * x[:, t, None] for t in range(rows))
        return lax.optimization_barrier(functools.reduce(jnp.add, terms))

    if not 0 < rows <= MOST_TERMS:
        return product(v_GTR, x_GTD)
    return lax.platform_dependent(v_GTR, x_GTD, cpu=unrolled, default=product)


# Bytes of gathered adapters held at a time in a forward pass. To read 10,000 tokens of
# prompts in tiles of 8, each with an adapter of rank 128 and 8192 wide, takes 20 GB.
HELD = 2**28


def _parts(
    a_SRD: Array, b_SRF: Array, slots_G: Array | np.ndarray, dtype: jnp.dtype
) -> int:
    """In how many equal parts the tiles go, the fewest that hold no more than HELD."""
    tiles = len(slots_G)
    if _is_identity(slots_G, len(a_SRD)):
        return 1
    each = (a_SRD[0].size + b_SRF[0].size) * jnp.dtype(dtype).itemsize
    least = max(1, -(-tiles * each // HELD))
    return next((n for n in range(least, tiles) if tiles % n == 0), tiles)


def _gather(stack_S: Array, slots_G: Array | np.ndarray, dtype: jnp.dtype) -> Array:
    """The adapter of each tile, in `dtype`; zeros for a slot that is none."""
    if _is_identity(slots_G, len(stack_S)):
        return stack_S.astype(dtype)
    indices_G = _past_the_end(slots_G, len(stack_S))
    # Picked first and cast then: the cast is of the tiles' adapters, not of all slots'.
    picked_G = stack_S.at[indices_G].get(mode="fill", fill_value=0).astype(dtype)
    return computed_once(picked_G)


def _sum(grads_G: Array, slots_G: Array | np.ndarray, slots: int) -> Array:
    """The sum over each adapter's tiles, in the dtype of `grads_G` and in their order.

    A CPU scatters one tile after the other. A GPU's tiles would add by atomics as they
    come, so that everywhere else the sum is a matmul (three times a scatter's time on a
    CPU).
    """
    if _is_identity(slots_G, slots):
        return grads_G
    scattered = functools.partial(_scattered, slots=slots)
    summed = functools.partial(_matmul_sum, slots=slots)
    return lax.platform_dependent(grads_G, slots_G, cpu=scattered, default=summed)


def _scattered(grads_G: Array, slots_G: Array, *, slots: int) -> Array:
    zeros_S = jnp.zeros((slots, *grads_G.shape[1:]), grads_G.dtype)
    return zeros_S.at[_past_the_end(slots_G, slots)].add(grads_G, mode="drop")


def _matmul_sum(grads_G: Array, slots_G: Array, *, slots: int) -> Array:
    """A matmul with zeros and ones.

    Zero times NaN is NaN, so a tile that is not finite counts as zero, and its
    adapter's sum is NaN.
    """
    own_SG = jnp.arange(slots)[:, None] == slots_G[None, :]
    sound_G = jnp.isfinite(grads_G).all((1, 2))
    flat_GX = jnp.where(sound_G[:, None, None], grads_G, 0).reshape(len(grads_G), -1)
    sum_SX = jnp.einsum(
        "sg,gx->sx", own_SG.astype(grads_G.dtype), flat_GX, precision="highest"
    )
    sum_S = sum_SX.reshape(slots, *grads_G.shape[1:])
    spoilt_S = jnp.any(own_SG & ~sound_G[None, :], axis=1)
    return jnp.where(spoilt_S[:, None, None], jnp.nan, sum_S)


def _is_identity(slots_G: Array | np.ndarray, slots: int) -> bool:
    """Whether tile g is known, while tracing, to belong to adapter g."""
    return isinstance(slots_G, np.ndarray) and np.array_equal(slots_G, np.arange(slots))


def _past_the_end(slots_G: Array | np.ndarray, slots: int) -> Array:
    """Indices whose "none" is past the end; one below zero counts from the end."""
    return jnp.where(slots_G < 0, slots, slots_G)


def _split(rows_M: Array, tiles: int) -> Array:
    rows, width = rows_M.shape
    return rows_M.reshape(tiles, rows // tiles, width)


def _join(rows_GT: Array) -> Array:
    tiles, rows, width = rows_GT.shape
    return rows_GT.reshape(tiles * rows, width)
