"""A frozen weight in eight bits, and its two products: `x w`, and the slope by `x`.

    w = float8.weights(w_DF)        float8_e4m3fn, a scale for each output
    y = float8.matmul(x, w)         differentiable by x
    y = float8.forward(x, w)        its two halves, which take a plain array as well:
    dx = float8.slope(dy, w)        what the low-rank matmul is built on

Of `x` and of `dy` each row has a scale of its own, taken from that row alone: what one
row holds changes no bit of another, and a row that is not finite gives NaN in its own
results and nowhere else. The scales of `w` belong to the outputs, over which the slope
sums, so there they are multiplied into `dy` before that is rounded; one set of eight
bits serves both products.

Scales are powers of two. To scale is then exact, in bfloat16 too, and rounding is the
same on every device, whatever it makes of a division. A floating-point type loses
nothing by that but the last binade of its range.

XLA makes cuBLASLt's matmul in eight bits of a bare product of two float8 arrays
(Hopper and later). Scales of rows and columns it does not take there, so they are
multiplied afterwards. cuBLASLt wants both operands to lie along what is summed over:
`w_FD` does forward, and for the slope `turned` adds the transposed copy, which else XLA
would make in every step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

WEIGHTS = jnp.float8_e4m3fn
ROWS = jnp.float8_e4m3fn
# Of `dy`. float8_e5m2 has the wider range, for which a scale of each row leaves no use,
# and one bit less: gradients of adapters are further off (`benchmarks/float8.py`).
SLOPES = jnp.float8_e4m3fn


class Weights(NamedTuple):
    """`w_DF = (w_FD * scale_F[:, None]).T`; `w_DF` is the transposed copy, or None."""

    w_FD: Array
    scale_F: Array
    w_DF: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """`(D, F)`, as of the weight that it stands for."""
        return self.w_FD.shape[1], self.w_FD.shape[0]

    @property
    def ndim(self) -> int:
        return 2


type Base = Array | Weights


def weights(w_DF: Array) -> Weights:
    """A weight in eight bits, to the nearest; what is not finite is NaN."""
    w_FD, scale_F1 = quantised(w_DF.T, WEIGHTS)
    return Weights(w_FD, scale_F1[:, 0])


def wide(w: Weights) -> Array:
    """What the eight bits stand for, float32 `[D, F]`."""
    return (w.w_FD.astype(jnp.float32) * w.scale_F[:, None]).T


def turned(w: Weights) -> Weights:
    """With the transposed copy."""
    return w._replace(w_DF=w.w_FD.T)


def quantised(x: Array, dtype: jnp.dtype | type) -> tuple[Array, Array]:
    """Rows in eight bits and their scales: `x` is nearly `x8 * scale`.

    Args:
      x: `[..., D]`.
      dtype: of `x8`.

    Returns:
      `x8`, and a power of two for each row, float32 `[..., 1]`, with which the largest
      number of the row is in the last binade but one of `dtype`.
    """
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    # Exponents as float32 stores them. A scale and its inverse are both normal numbers;
    # infinity and NaN have the exponent 255 and give some scale or other.
    bits = jax.lax.bitcast_convert_type(largest, jnp.uint32)
    top = int(jnp.finfo(dtype).maxexp) - 2
    exponent = jnp.clip((bits >> 23).astype(jnp.int32) - top, 1, 253)
    # Hardware may saturate where the type has no infinity.
    sound = jnp.where(jnp.isfinite(x), x * _power(254 - exponent), jnp.nan)
    return sound.astype(dtype), _power(exponent)


def _power(exponent: Array) -> Array:
    """2 to the power of `exponent - 127`."""
    return jax.lax.bitcast_convert_type(exponent.astype(jnp.uint32) << 23, jnp.float32)


def forward(x: Array, w: Base) -> Array:
    """`x w`, `[..., F]` in the dtype of `x`."""
    if not isinstance(w, Weights):
        return x @ w
    x8, scale = quantised(x, ROWS)
    # In the dtype of x: the scales move no bit of the significand.
    y = _product(x8, w.w_FD, x.dtype)
    # First those of the weights: the other order could overflow on its way.
    scale_F = w.scale_F.reshape(*(1,) * (y.ndim - 1), -1)
    return (y.astype(jnp.float32) * scale_F * scale).astype(x.dtype)


def slope(dy: Array, w: Base) -> Array:
    """`dy w^T`, `[M, D]` in the dtype of `dy`; more leading axes with eight bits."""
    if not isinstance(w, Weights):
        return jnp.einsum("mf,df->md", dy, w)
    scale_F = w.scale_F.reshape(*(1,) * (dy.ndim - 1), -1)
    dy8, scale = quantised(dy.astype(jnp.float32) * scale_F, SLOPES)
    w_DF = w.w_FD.T if w.w_DF is None else w.w_DF
    dx = _product(dy8, w_DF, dy.dtype)
    return (dx.astype(jnp.float32) * scale).astype(dy.dtype)


def _product(x8: Array, w_FD: Array, dtype: jnp.dtype) -> Array:
    """Sums over the last axes of both."""
    axes = ((x8.ndim - 1,), (1,)), ((), ())
    return jax.lax.dot_general(x8, w_FD, axes, preferred_element_type=dtype)


@jax.custom_vjp
def _matmul(x: Array, w: Weights) -> Array:
    return forward(x, w)


_matmul.defvjp(
    lambda x, w: (forward(x, w), w),
    lambda w, dy: (slope(dy, w), None),
)


def matmul(x: Array, w: Base) -> Array:
    """`x w`, differentiable; by `x` alone if `w` is of eight bits.

    The gradient is that of a product without rounding, and is itself rounded.
    """
    return _matmul(x, w) if isinstance(w, Weights) else x @ w
