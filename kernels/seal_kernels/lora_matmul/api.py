"""The door to the low-rank matmul: two signatures, whatever runs behind them.

    y = lora_matmul(x, w, a, b)                   one adapter; many under vmap
    y = lora_matmul_packed(x, w, a, b, slots)     an adapter for every tile of rows

The base weight `w` is frozen: no gradient for it is ever computed, and no adapter axis
ever reaches it. Reverse mode only (`jax.grad`, `jax.vjp`), through a derivative by
hand.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seal_kernels import float8
from seal_kernels.lora_matmul import batching, dispatch

IMPLEMENTATIONS = dispatch.IMPLEMENTATIONS
reads_in_place = dispatch.reads_in_place


def lora_matmul(
    x: Array, w: float8.Base, a: Array, b: Array, *, implementation: str = "auto"
) -> Array:
    """A frozen linear layer with a low-rank delta (LoRA, Hu et al. 2021, eq. 3).

    Under `vmap` with an unbatched `w`, nested or not, the base product stays one matmul
    over all adapters' rows; only the rank-R side work carries the adapter axis.

    Args:
      x: activations, `[..., D]`, any float dtype.
      w: frozen base weight, `[D, F]`, in the dtype of `x`; its gradient is zero. Or
        the same in eight bits (`float8.weights`), with which the base product alone is
        rounded: the low-rank one takes `x` as it is.
      a: down projection, `[R, D]`, any float dtype (cast to that of `x`).
      b: up projection, `[R, F]`, with alpha / R folded in.
      implementation: one of `IMPLEMENTATIONS`. `auto` takes the one that a committed
        measurement has ahead of XLA on this device for the nearest shape; else `triton`
        for packed rows on CUDA where it runs; else `plain`. That is XLA's own
        operations, all that can be cut over a mesh: `dense` for packed rows on an
        accelerator where it `pays`, and `xla` for all others.

    Returns:
      `[..., F]` in the dtype of `x`. Gradients: of `x` in its dtype; of `a` and `b`
      summed in float32, in their dtypes.

    Raises:
      ValueError: the call is wrong: shapes, dtypes or the name do not fit.
      NotImplementedError: the named implementation does not do this shape, or not on
        the platform that the program is compiled for (raised when it is compiled).
    """
    _check("lora_matmul", "", x, w, a, b, implementation)
    rows = math.prod(x.shape[:-1])
    x_1TD = x.reshape(1, rows, x.shape[-1])
    y_1TF = _dense(implementation, x_1TD, w, a[None], b[None])
    return y_1TF.reshape(*x.shape[:-1], w.shape[-1])


def lora_matmul_packed(
    x: Array,
    w: float8.Base,
    a: Array,
    b: Array,
    slots: Array,
    *,
    chunks: int = 1,
    sound: Array | None = None,
    implementation: str = "auto",
) -> Array:
    """A frozen linear layer for packed rows of many adapters.

    Row m belongs to tile `m // (M / G)`, and so to adapter `slots[m // (M / G)]`.

    Where rows of many adapters are multiplied with all of them at once (`dense`), the
    cost grows with the adapters. So rows and adapters may come in `chunks` equal parts,
    of which the rows of one are under the adapters of the same alone.

    Args:
      x: activations, `[M, D]`, any float dtype.
      w: frozen base weight, `[D, F]`, in the dtype of `x`; its gradient is zero. Or
        the same in eight bits (`float8.weights`), with which the base product alone is
        rounded: the low-rank one takes `x` as it is.
      a: down projections, `[S, R, D]`, any float dtype (cast to that of `x`).
      b: up projections, `[S, R, F]`, with each adapter's alpha / R folded in.
      slots: the adapter of each tile, integers `[G]` where G divides M. A slot outside
        0..S-1 means none: those rows are `x w`, and count in no adapter's gradient.
      chunks: the parts, a divisor of G and of S. A tile of part c has its adapter among
        `c S / chunks .. (c + 1) S / chunks - 1`; any other slot means none as well.
      sound: which adapters are finite, bool `[S]`, where that is known; else `dense`
        reads all of them once more to see. Rows of one that is said not to be may come
        out as NaN; what is not finite in one that is said to be counts as zero there.
      implementation: as in `lora_matmul`.

    Returns:
      `[M, F]` in the dtype of `x`; gradients as in `lora_matmul`.

    Raises:
      ValueError, NotImplementedError: as in `lora_matmul`.
    """
    _check("lora_matmul_packed", "S, ", x, w, a, b, implementation)
    if x.ndim != 2:
        raise ValueError(
            f"lora_matmul_packed: x {x.shape} must be [M, D]; reshape it to rows"
        )
    if slots.ndim != 1 or not jnp.issubdtype(slots.dtype, jnp.integer):
        raise ValueError(
            f"lora_matmul_packed: slots {slots.dtype}{list(slots.shape)} must be "
            "integers [G], one for each tile of rows"
        )
    if not slots.shape[0] or x.shape[0] % slots.shape[0]:
        raise ValueError(
            f"lora_matmul_packed: the {x.shape[0]} rows of x must be a multiple of the "
            f"{slots.shape[0]} slots (one for each tile of rows); pad x to whole tiles"
        )
    if chunks < 1 or len(slots) % chunks or len(a) % chunks:
        raise ValueError(
            f"lora_matmul_packed: chunks={chunks} must divide the {len(slots)} slots "
            f"(one for each tile of rows) and the {len(a)} adapters; use 1"
        )
    if sound is not None and (sound.shape != a.shape[:1] or sound.dtype != bool):
        raise ValueError(
            f"lora_matmul_packed: sound {sound.dtype}{list(sound.shape)} must be bool "
            f"[{len(a)}], one for each adapter; leave it out if it is not known"
        )
    slots = _of_own_chunk(slots.astype(jnp.int32), len(a), chunks)
    return _packed(implementation, chunks, x, w, a, b, slots, sound)


def _of_own_chunk(slots_G: Array, adapters: int, chunks: int) -> Array:
    """The slots, those of another chunk's adapters none."""
    if chunks == 1:
        return slots_G
    chunk_G = np.repeat(np.arange(chunks), len(slots_G) // chunks)
    return jnp.where(slots_G // (adapters // chunks) == chunk_G, slots_G, -1)


def _check(
    op: str,
    lead: str,
    x: Array,
    w: float8.Base,
    a: Array,
    b: Array,
    implementation: str,
) -> None:
    """Raises ValueError unless the operands fit; `lead` names the axis of a stack."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"{op}: implementation={implementation!r} must be one of "
            f"{', '.join(IMPLEMENTATIONS)}"
        )
    if w.ndim != 2 or x.shape[-1:] != w.shape[:1]:
        raise ValueError(
            f"{op}: x {x.shape} and w {w.shape} must be [..., D] and [D, F] with one "
            "D; reshape or transpose one of them"
        )
    if a.ndim != (3 if lead else 2) or a.shape[-1] != w.shape[0]:
        raise ValueError(
            f"{op}: a {a.shape} must be [{lead}R, D] with the D={w.shape[0]} of w; "
            "transpose it if it is stored [D, R]"
        )
    if b.shape != (*a.shape[:-1], w.shape[1]):
        raise ValueError(
            f"{op}: b {b.shape} must be [{lead}R, F] = "
            f"{(*a.shape[:-1], w.shape[1])}, after a {a.shape} and w {w.shape}"
        )
    floats = {"x": x.dtype, "a": a.dtype, "b": b.dtype}
    for name, dtype in floats.items():
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"{op}: {name} is {dtype} and must be a float; cast it")
    if not isinstance(w, float8.Weights) and w.dtype != x.dtype:
        raise ValueError(
            f"{op}: w is {w.dtype} and must have the {x.dtype} of x; cast one of them"
        )


def _packed_only(implementation, chunks, *operands) -> Array:
    return _packed_forward(implementation, chunks, *operands)[0]


def _packed_forward(implementation, chunks, x_MD, w_DF, a_SRD, b_SRF, slots_G, sound_S):
    operands = w_DF, a_SRD, b_SRF, slots_G
    of_dense = {"chunks": chunks, "sound_S": sound_S}
    y_MF, u_MR = dispatch.forward(implementation, x_MD, *operands, **of_dense)
    return y_MF, (x_MD, u_MR, *operands, sound_S)


def _packed_backward(implementation, chunks, kept, dy_MF):
    *operands, sound_S = kept
    of_dense = {"chunks": chunks, "sound_S": sound_S}
    grads = dispatch.backward(implementation, dy_MF, *operands, **of_dense)
    dx_MD, da_SRD, db_SRF = grads
    return dx_MD, None, da_SRD, db_SRF, None, None


_packed = jax.custom_vjp(_packed_only, nondiff_argnums=(0, 1))
_packed.defvjp(_packed_forward, _packed_backward)


# The batching rule is inside the derivative's two halves, not around the derivative:
# vmap then meets the forward and the backward pass each as one operation on the rows
# of all adapters. Tile g of such rows is adapter g's, which XLA should know: a numpy
# array of slots is known while tracing, and spares the gathers.
def _dense_only(implementation, x_ATD, w_DF, a_ARD, b_ARF) -> Array:
    return _dense_forward(implementation, x_ATD, w_DF, a_ARD, b_ARF)[0]


def _dense_forward(implementation, x_ATD, w_DF, a_ARD, b_ARF):
    def run(implementation, w_DF, rows, adapters):
        (x_ATD,) = rows
        a_ARD, b_ARF = adapters
        y_MF, u_MR = dispatch.forward(
            implementation, _flat(x_ATD), w_DF, a_ARD, b_ARF, np.arange(len(x_ATD))
        )
        return _stacked(y_MF, x_ATD), _stacked(u_MR, x_ATD)

    forward = _with_rule(run, implementation, rows_alone=True)
    y_ATF, u_ATR = forward(w_DF, (x_ATD,), (a_ARD, b_ARF))
    return y_ATF, (x_ATD, u_ATR, w_DF, a_ARD, b_ARF)


def _dense_backward(implementation, kept, dy_ATF):
    x_ATD, u_ATR, w_DF, a_ARD, b_ARF = kept

    def run(implementation, w_DF, rows, adapters):
        dy_MF, x_MD, u_MR = map(_flat, rows)
        a_ARD, b_ARF = adapters
        dx_MD, da_ARD, db_ARF = dispatch.backward(
            implementation, dy_MF, x_MD, u_MR, w_DF, a_ARD, b_ARF, np.arange(len(a_ARD))
        )
        return _stacked(dx_MD, rows[1]), da_ARD, db_ARF

    backward = _with_rule(run, implementation, rows_alone=False)
    dx_ATD, da_ARD, db_ARF = backward(w_DF, (dy_ATF, x_ATD, u_ATR), (a_ARD, b_ARF))
    return dx_ATD, None, da_ARD, db_ARF


_dense = jax.custom_vjp(_dense_only, nondiff_argnums=(0,))
_dense.defvjp(_dense_forward, _dense_backward)


def _with_rule(run, implementation: str, *, rows_alone: bool):
    # Many bases take batched matmuls of XLA, as no tuned kernel has an axis for them.
    batched = {"auto": "xla", "plain": "xla", "xla": "xla", "reference": "reference"}
    batched = batched.get(implementation)
    return batching.with_rule(
        functools.partial(run, implementation),
        rows_alone=rows_alone,
        many_bases=None if batched is None else functools.partial(run, batched),
    )


def _flat(rows_AT: Array) -> Array:
    adapters, rows, width = rows_AT.shape
    return rows_AT.reshape(adapters * rows, width)


def _stacked(rows_M: Array, like_AT: Array) -> Array:
    return rows_M.reshape(*like_AT.shape[:2], rows_M.shape[-1])
