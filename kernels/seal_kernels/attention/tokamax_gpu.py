"""Attention over key ranges by tokamax's Mosaic GPU kernels (Hopper and Blackwell).

A range for each query is exactly tokamax's `Mask(k_start, k_end)`; blocks of keys that
no query of a block sees are skipped in the forward pass. Its operations bring a
derivative of their own, which is not used: the door's goes around them.
"""

import dataclasses
import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import backend

# Keys of a block; tokamax fills up what is not whole ones by a copy.
LEAST_BLOCK = 64


def forward(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    first_BT: Array,
    end_BT: Array,
    causal: bool = False,
) -> tuple[Array, Array]:
    """Arguments and results as of `reference.forward`; `causal` as of the door.

    Raises:
      NotImplementedError: tokamax is not installed, or does not do this shape, dtype or
        device.
    """
    _check(q_BTNH)
    y_BTNH, (top_BNT, total_BNT) = _run(
        _module("pallas_mosaic_gpu").PallasMosaicGpuFlashAttention(),
        q_BTNH,
        k_BTKH,
        v_BTKH,
        mask=_mask(first_BT, end_BT, causal),
        return_residuals=True,
    )
    some_BT = end_BT > first_BT
    lse_BNT = jnp.where(some_BT[:, None], top_BNT + jnp.log(total_BNT), 0)
    return jnp.where(some_BT[:, :, None, None], y_BTNH, 0), lse_BNT


def backward(
    dy_BTNH: Array,
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    y_BTNH: Array,
    lse_BNT: Array,
    first_BT: Array,
    end_BT: Array,
    causal: bool = False,
) -> tuple[Array, Array, Array]:
    """Arguments and results as of `reference.backward`; raises as `forward` does.

    Its kernels skip no block by ranges, but those that `causal` leaves out: half.
    """
    _check(q_BTNH)
    softmax = lse_BNT, jnp.ones_like(lse_BNT)  # exp(s - lse) / 1: the weights
    default = (jax.lax.Precision.DEFAULT,) * 2
    grads = _run(
        _module("pallas_mosaic_gpu_vjp").PallasMosaicGpuFlashAttentionVjp(),
        softmax,
        y_BTNH,
        dy_BTNH,
        q_BTNH,
        k_BTKH,
        v_BTKH,
        precision=(default, default),
        logits_dtype=jnp.dtype(jnp.float32),
        logits_scale=q_BTNH.shape[-1] ** -0.5,
        bias=None,
        logits_soft_cap=None,
        mask=_mask(first_BT, end_BT, causal),
        dropout_mask=None,
        dropout_rate=0.0,
        paging_info=None,
        q_indices=None,
        k_indices=None,
        normalize_output=True,
    )
    return grads["q"], grads["k"], grads["v"]


def decode(q_BNH: Array, k_BKSH: Array, v_BKSH: Array, length_B: Array) -> Array:
    """Arguments and results as of `reference.decode`; raises as `forward` does.

    Rows and key heads are the batch, the query heads that share keys are the queries.
    The cache is not moved, and each row's blocks end with what it has filled.
    """
    _check(q_BNH)
    b, heads, slots, h = k_BKSH.shape
    if slots % LEAST_BLOCK:
        raise NotImplementedError(
            f"a cache of {slots} slots, no multiple of {LEAST_BLOCK}, would be copied"
        )
    q_BKn1H = q_BNH.reshape(b, heads, -1, 1, h)
    end_BK1 = jnp.broadcast_to(length_B[:, None, None], (b, heads, 1))
    y_BKn1H = _run(
        _module("pallas_mosaic_gpu").PallasMosaicGpuFlashAttention(),
        q_BKn1H,
        k_BKSH[:, :, :, None],
        v_BKSH[:, :, :, None],
        mask=_mask(None, end_BK1, False),
        not_padded=True,
    )
    y_BNH = y_BKn1H.reshape(q_BNH.shape)
    return jnp.where(length_B[:, None, None] > 0, y_BNH, 0)


def _check(q: Array) -> None:
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise NotImplementedError(f"{q.dtype} is neither bfloat16 nor float16")
    # Its kernels for Ampere do not go with the jax that is locked here.
    capability = getattr(backend.get_default_device(), "compute_capability", "9.0")
    if float(capability) < 9:
        raise NotImplementedError(f"compute capability {capability} is before Hopper's")


@functools.cache
def _module(name: str) -> Any:
    """Of tokamax's attention; Any: it need not be there to be checked against."""
    try:
        return importlib.import_module(f"tokamax._src.ops.attention.{name}")
    except ImportError as error:
        raise NotImplementedError(
            f"tokamax cannot be imported ({error}); it comes with seal-jax[cuda13]"
        ) from None


def _mask(first_BT: Array | None, end_BT: Array, causal: bool) -> Any:
    # The axis that is added is the heads'.
    return _module("base").Mask(
        is_causal=causal,
        k_start=None if first_BT is None else first_BT[..., None, :],
        k_end=end_BT[..., None, :],
    )


def _run(
    operation: Any, *operands: Any, not_padded: bool = False, **settings: Any
) -> Any:
    """With the sizes of tiles that tokamax holds for good, whatever its cache has.

    `not_padded`: so small a block of keys that no whole number of them is missing.
    """
    # A causal mask's bounds are of another rank than a row's, and tokamax leaves it to
    # jax to bring them together, also where a user has forbidden that.
    with jax.numpy_rank_promotion("allow"):
        config = operation.bind(*operands, **settings).heuristics_config
        if not_padded and operands[1].shape[-3] % config.block_kv:
            config = dataclasses.replace(config, block_kv=LEAST_BLOCK)
        return operation.replace(config=config)(*operands, **settings)
