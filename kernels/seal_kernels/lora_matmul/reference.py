"""`y = x W + (x A^T) B` in plain jnp: the definition every other path is tested on."""

import jax.numpy as jnp
from jax import Array


def lora_matmul(x: Array, w: Array, a: Array, b: Array) -> Array:
    """Returns `x @ w + (x @ a.T) @ b` in the dtype of `x`.

    Args:
      x: activations, `[..., D]`.
      w: frozen base weight, `[D, F]`.
      a: down projection, `[R, D]`.
      b: up projection with the adapter's scale folded in, `[R, F]`.
    """
    u = jnp.einsum("...d,rd->...r", x, a.astype(x.dtype))
    return x @ w + jnp.einsum("...r,rf->...f", u, b.astype(x.dtype))
