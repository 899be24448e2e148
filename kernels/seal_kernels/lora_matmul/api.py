"""The door to the low-rank matmul: one signature, whatever runs behind it."""

from jax import Array

from seal_kernels.lora_matmul import reference


def lora_matmul(x: Array, w: Array, a: Array, b: Array) -> Array:
    """A frozen linear layer with a low-rank delta (LoRA, Hu et al. 2021, eq. 3).

    Under `vmap` with an unbatched `w`, the base product stays one matmul over all
    adapters' tokens; only the rank-R side work carries the adapter axis.

    Args:
      x: activations, `[..., D]`.
      w: frozen base weight, `[D, F]`; receives a gradient only if one is asked for.
      a: down projection, `[R, D]`, any float dtype (cast to that of `x`).
      b: up projection, `[R, F]`, with alpha / R folded in.

    Returns:
      `[..., F]` in the dtype of `x`.

    Raises:
      ValueError: the inner dimensions do not match.
    """
    if x.shape[-1] != w.shape[0] or a.shape[-1] != w.shape[0]:
        raise ValueError(
            f"lora_matmul: x {x.shape}, w {w.shape}, a {a.shape} must share D"
        )
    if a.shape[0] != b.shape[0] or b.shape[-1] != w.shape[-1]:
        raise ValueError(
            f"lora_matmul: a {a.shape} and b {b.shape} must share R, "
            f"b and w {w.shape} must share F"
        )
    return reference.lora_matmul(x, w, a, b)
