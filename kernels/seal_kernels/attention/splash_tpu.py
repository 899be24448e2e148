"""Attention over key ranges by jax's splash attention (Mosaic TPU).

Its masks are static, or whole arrays, or lines told apart by segment ids. None of these
is a range for each query: a sampled pad sees the line before it, and neither itself nor
the pads between. But a mask may also be computed in the kernel, from a number for each
query and the index of the key; the number that it is given here holds both ends of the
query's range. Which blocks are looked at is computed from the same ranges.

The backward pass runs the forward pass again: what it needs of that, the kernel gives
only to its own derivative.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask_info as mask_info,
)

from seal_kernels.attention import xla

# Two numbers of so many bits in one of 32.
_BITS = 15
LANES, LARGEST_BLOCK = 128, 512


def forward(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    first_BT: Array,
    end_BT: Array,
    interpret: bool = False,
) -> tuple[Array, Array]:
    """As `reference.forward`, but that the second result is zeros: nothing reads it.

    Raises:
      NotImplementedError: it does not do this shape or dtype.
    """
    _check(q_BTNH)
    y_BTNH = _rows(q_BTNH, k_BTKH, v_BTKH, first_BT, end_BT, interpret)
    b, t, n, _ = q_BTNH.shape
    return y_BTNH, jnp.zeros((b, n, t), jnp.float32)


def backward(
    dy_BTNH: Array,
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    y_BTNH: Array,
    lse_BNT: Array,
    first_BT: Array,
    end_BT: Array,
    interpret: bool = False,
) -> tuple[Array, Array, Array]:
    """Arguments and results as of `reference.backward`; raises as `forward` does."""
    del y_BTNH, lse_BNT
    _check(q_BTNH)
    run = lambda q, k, v: _rows(q, k, v, first_BT, end_BT, interpret)
    return jax.vjp(run, q_BTNH, k_BTKH, v_BTKH)[1](dy_BTNH)


def decode(q_BNH: Array, k_BKSH: Array, v_BKSH: Array, length_B: Array) -> Array:
    """By XLA: in splash attention a block of queries would hold a single one."""
    return xla.decode(q_BNH, k_BKSH, v_BKSH, length_B)


def _check(q_BTNH: Array) -> None:
    if q_BTNH.dtype not in (jnp.bfloat16, jnp.float32):
        raise NotImplementedError(f"{q_BTNH.dtype} is neither bfloat16 nor float32")
    if q_BTNH.shape[1] >= 2**_BITS:
        raise NotImplementedError(
            f"rows of {q_BTNH.shape[1]} positions are longer than {2**_BITS - 1}"
        )


def _rows(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    first_BT: Array,
    end_BT: Array,
    interpret: bool,
) -> Array:
    t = q_BTNH.shape[1]
    block = min(LARGEST_BLOCK, -(-t // LANES) * LANES)
    room = -t % block
    some_BT = end_BT > first_BT
    # Nobody's query sees itself: a mean over nothing would not be finite.
    own_BT = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32)[None], end_BT.shape)
    first_BT = jnp.where(some_BT, first_BT, own_BT)
    end_BT = jnp.where(some_BT, end_BT, own_BT + 1)
    own_R = t + jnp.arange(room, dtype=jnp.int32)

    def row(of_row: tuple[Array, ...]) -> Array:
        q_TNH, k_TKH, v_TKH, first_T, end_T = of_row
        first_T = jnp.concatenate([first_T, own_R])
        end_T = jnp.concatenate([end_T, own_R + 1])
        q, k, v = (
            jnp.pad(x, ((0, room), (0, 0), (0, 0))).swapaxes(0, 1)
            for x in (q_TNH, k_TKH, v_TKH)
        )
        kernel = _kernel(first_T, end_T, block, interpret)
        scaled = q * jnp.asarray(1 / math.sqrt(q.shape[-1]), q.dtype)
        return kernel(scaled, k, v).swapaxes(0, 1)[:t]

    y_BTNH = lax.map(row, (q_BTNH, k_BTKH, v_BTKH, first_BT, end_BT))
    return jnp.where(some_BT[:, :, None, None], y_BTNH, 0)


def _kernel(first_T: Array, end_T: Array, block: int, interpret: bool) -> Any:
    """Splash attention within the ranges of one row."""
    low_Q = first_T.reshape(-1, block).min(1)[:, None]
    high_Q = end_T.reshape(-1, block).max(1)[:, None]
    at_S = jnp.arange(len(low_Q), dtype=jnp.int32)[None]
    runs_QS = (at_S * block < high_Q) & ((at_S + 1) * block > low_Q)
    queries: Any = (first_T << _BITS) | end_T  # it is said to be numpy's

    def info(index: Array) -> mask_info.MaskInfo:
        # An index for each pair of blocks, of the one to fetch; not to be run, it is 0.
        fetched_QS = jnp.where(runs_QS, jnp.broadcast_to(index, runs_QS.shape), 0)
        return mask_info.MaskInfo(
            data_next=fetched_QS[None],
            mask_next=None,
            block_mask=runs_QS.astype(jnp.int32)[None],
            partial_mask_blocks=None,
            q_sequence=queries,
        )

    sizes = splash_attention_kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return splash_attention_kernel.SplashAttentionKernel(
        info(at_S),
        info(at_S),
        info(at_S.T),
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=splash_attention_kernel.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=None,
        mask_function=_in_range,
        interpret=interpret,
    )


def _in_range(queries: Array, keys: Array) -> Array:
    return (keys >= queries >> _BITS) & (keys < (queries & (2**_BITS - 1)))
