"""Cross-entropy and divergence without ever holding all logits.

Where the head is not trained, the only gradient is that of the hidden states, and each
token's depends on that token alone. It is formed in the forward pass, while a chunk's
logits exist: two matmuls with the head, no recomputation, and at most `CHUNK` logits
at a time instead of tokens x vocabulary in float32 (1.2 GB for 2048 tokens of Qwen2.5).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

# Logits held at a time, half a gigabyte in float32.
CHUNK = 2**27


# Tokens whose logits are formed at a time where some tokens need none: a chunk without
# any is left out.
SKIPPED = 512


@jax.custom_vjp
def cross_entropy(
    hidden_MD: Array, head_DV: Array, targets_M: Array, needed_M: Array | None = None
) -> Array:
    """`-log softmax(hidden head)[target]` of each token, float32 `[M]`.

    Args:
      hidden_MD: hidden states after the final norm.
      head_DV: the output head, frozen: its gradient is zero by definition.
      targets_M: int32 token ids.
      needed_M: bool, or None for all. The rest come out as 0 without gradient, and in
        training no logits are formed for them, but for some beside the last needed.
    """

    def of_token(hidden_D: Array, target: Array) -> Array:
        logits_V = _logits(hidden_D, head_DV)
        return jax.nn.logsumexp(logits_V) - logits_V[target]

    ce_M = _map(of_token, head_DV, hidden_MD, targets_M)
    return ce_M if needed_M is None else jnp.where(needed_M, ce_M, 0)


def _logits(hidden_D: Array, head_DV: Array) -> Array:
    return jnp.einsum("d,dv->v", hidden_D, head_DV, preferred_element_type=jnp.float32)


def _map(fn, head_DV: Array, *tokens_M: Array, held: int = 1):
    """`fn` of each token, which holds `held` logits of the vocabulary at a time."""
    rows = _chunk(len(tokens_M[0]), CHUNK // (held * head_DV.shape[1]))
    if rows >= len(tokens_M[0]):
        return jax.vmap(fn)(*tokens_M)
    return jax.lax.map(lambda args: fn(*args), tokens_M, batch_size=rows)


def _chunk(tokens: int, most: int) -> int:
    """Tokens of a chunk: the most that divide them evenly, if that is not far below."""
    most = max(1, min(most, tokens))
    even = next(n for n in range(most, 0, -1) if tokens % n == 0)
    return even if 2 * even > most else most


def _forward(
    hidden_MD: Array, head_DV: Array, targets_M: Array, needed_M: Array | None
):
    def with_slope(hidden_D: Array, target: Array) -> tuple[Array, Array]:
        logits_V = _logits(hidden_D, head_DV)
        log_z = jax.nn.logsumexp(logits_V)
        hit_V = jnp.arange(len(logits_V)) == target
        # In the head's dtype: a float32 operand would turn the head into one too.
        slope_V = (jnp.exp(logits_V - log_z) - hit_V).astype(head_DV.dtype)
        return log_z - logits_V[target], jnp.einsum("v,dv->d", slope_V, head_DV)

    return _with_slopes(with_slope, head_DV, hidden_MD, targets_M, needed_M)


def _with_slopes(
    fn,
    head_DV: Array,
    hidden_MD: Array,
    other_M: Array,
    needed_M: Array | None,
    held: int = 1,
) -> tuple[Array, Array]:
    """Value and slope, `fn`, of each token's hidden state and what it is held to."""
    if needed_M is None or len(hidden_MD) < 2 * SKIPPED:
        value_M, slope_MD = _map(fn, head_DV, hidden_MD, other_M, held=held)
        if needed_M is not None:
            value_M = jnp.where(needed_M, value_M, 0)
            slope_MD = jnp.where(needed_M[:, None], slope_MD, 0)
        return value_M, slope_MD
    return _of_needed(fn, head_DV, hidden_MD, other_M, needed_M, held)


def _of_needed(
    fn,
    head_DV: Array,
    hidden_MD: Array,
    other_M: Array,
    needed_M: Array,
    held: int = 1,
) -> tuple[Array, Array]:
    """`fn` of the tokens that are needed, brought together; zeros of the rest."""
    tokens = len(hidden_MD)
    rows = _chunk(tokens, min(SKIPPED, CHUNK // (held * head_DV.shape[1])))
    order_M = jnp.argsort(~needed_M, stable=True)
    room = (0, -tokens % rows)  # The last chunk is whole too.
    order_C = jnp.pad(order_M, room, constant_values=0)
    value_C = jnp.zeros(len(order_C), jnp.float32)
    slope_CD = jnp.zeros((len(order_C), hidden_MD.shape[1]), head_DV.dtype)

    def chunk(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        at_R = jax.lax.dynamic_slice_in_dim(order_C, i * rows, rows)
        made = jax.vmap(fn)(hidden_MD[at_R], other_M[at_R])
        put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(
            old, new.astype(old.dtype), i * rows, axis=0
        )
        return jax.tree.map(put, carry, made)

    count = -(-jnp.sum(needed_M) // rows)
    value_C, slope_CD = jax.lax.fori_loop(0, count, chunk, (value_C, slope_CD))
    back_M = jnp.argsort(order_M)
    value_M = jnp.where(needed_M, value_C[back_M], 0)
    return value_M, jnp.where(needed_M[:, None], slope_CD[back_M], 0)


def _backward(slopes_MD: Array, dce_M: Array):
    # A position without weight has none of the loss, whatever it is.
    d_MD = (dce_M[:, None] * slopes_MD).astype(slopes_MD.dtype)
    return d_MD, None, None, None


cross_entropy.defvjp(_forward, _backward)


# Rows: chunks are taken along T, so that rows cut over a mesh's devices stay cut.


def frozen_rows(hidden_BTD: Array, head_DV: Array, targets_BT: Array) -> Array:
    """`cross_entropy` of rows, float32 `[B, T]`; the head's gradient is zero."""

    def of_chunk(chunk: tuple[Array, Array]) -> Array:
        hidden, targets = chunk
        flat = hidden.reshape(-1, hidden.shape[-1])
        return cross_entropy(flat, head_DV, targets.reshape(-1)).reshape(targets.shape)

    width = _width(targets_BT, head_DV)
    chunks = _chunked((hidden_BTD, targets_BT), width)
    return _joined(jax.lax.map(of_chunk, chunks), targets_BT.shape[1])


@jax.custom_vjp
def trained_rows(hidden_BTD: Array, head_DV: Array, targets_BT: Array) -> Array:
    """Cross-entropy of rows, float32 `[B, T]`, with a gradient of the head too.

    The logits are formed once more for it, and it is summed in float32.

    Args:
      hidden_BTD: hidden states after the final norm.
      head_DV: the output head.
      targets_BT: int32 token ids.
    """

    def of_chunk(chunk: tuple[Array, Array]) -> Array:
        logits_BTV, log_z_BT = _row_logits(chunk[0], head_DV)
        target_logit = jnp.take_along_axis(logits_BTV, chunk[1][..., None], axis=-1)
        return log_z_BT - target_logit[..., 0]

    width = _width(targets_BT, head_DV)
    chunks = _chunked((hidden_BTD, targets_BT), width)
    return _joined(jax.lax.map(of_chunk, chunks), targets_BT.shape[1])


def _row_logits(hidden_BTD: Array, head_DV: Array) -> tuple[Array, Array]:
    logits_BTV = jnp.einsum(
        "btd,dv->btv", hidden_BTD, head_DV, preferred_element_type=jnp.float32
    )
    return logits_BTV, jax.nn.logsumexp(logits_BTV, axis=-1)


def _trained_forward(hidden_BTD: Array, head_DV: Array, targets_BT: Array):
    return trained_rows(hidden_BTD, head_DV, targets_BT), (
        hidden_BTD,
        head_DV,
        targets_BT,
    )


def _trained_backward(saved: tuple[Array, Array, Array], dce_BT: Array):
    hidden_BTD, head_DV, targets_BT = saved

    def add_chunk(dhead_DV: Array, chunk: tuple[Array, Array, Array]):
        hidden, targets, dce = chunk
        logits_BTV, log_z_BT = _row_logits(hidden, head_DV)
        probability_BTV = jnp.exp(logits_BTV - log_z_BT[..., None])
        hit_BTV = jax.nn.one_hot(targets, head_DV.shape[1])
        slope_BTV = dce[..., None] * (probability_BTV - hit_BTV)
        slope_BTV = slope_BTV.astype(head_DV.dtype)
        dhidden = jnp.einsum("btv,dv->btd", slope_BTV, head_DV)
        dhead_DV += jnp.einsum(
            "btd,btv->dv", hidden, slope_BTV, preferred_element_type=jnp.float32
        )
        return dhead_DV, dhidden.astype(hidden.dtype)

    chunks = _chunked((hidden_BTD, targets_BT, dce_BT), _width(targets_BT, head_DV))
    zero = jnp.zeros(head_DV.shape, jnp.float32)
    dhead_DV, dhidden = jax.lax.scan(add_chunk, zero, chunks)
    dhidden_BTD = _joined(dhidden, targets_BT.shape[1])
    return dhidden_BTD, dhead_DV.astype(head_DV.dtype), None


trained_rows.defvjp(_trained_forward, _trained_backward)


def _width(targets_BT: Array, head_DV: Array) -> int:
    """Columns of a chunk of rows."""
    b, t = targets_BT.shape
    chunks = -(-t // max(1, CHUNK // (b * head_DV.shape[1])))
    # As even as they can be: what a last one falls short of is computed all the same.
    return -(-t // chunks)


def _chunked[T: tuple[Array, ...]](rows: T, width: int) -> T:
    """Each `[B, T, ...]` as chunks of columns `[N, B, width, ...]`, zeros behind."""

    def chunks(x: Array) -> Array:
        short = -x.shape[1] % width
        x = jnp.pad(x, [(0, 0), (0, short)] + [(0, 0)] * (x.ndim - 2))
        shape = (x.shape[0], -1, width, *x.shape[2:])
        return jnp.moveaxis(x.reshape(shape), 1, 0)

    return jax.tree.map(chunks, rows)


def _joined(chunks: Array, columns: int) -> Array:
    """Undoes `_chunked`."""
    n, b, width = chunks.shape[:3]
    x = jnp.moveaxis(chunks, 0, 1).reshape(b, n * width, *chunks.shape[3:])
    return x[:, :columns]


def divergence(
    hidden_MD: Array,
    teacher_MD: Array,
    head_DV: Array,
    needed_M: Array | None = None,
    *,
    kind: str = "reverse",
    beta: float = 0.5,
) -> Array:
    """How far each token's prediction is from a teacher's, nats, float32 `[M]`.

    With p the prediction, `softmax(hidden head)`, and q the teacher's, over the whole
    vocabulary: "reverse" is `KL(p || q)`, "forward" `KL(q || p)`, and "jsd", with
    m = beta q + (1 - beta) p, `beta KL(q || m) + (1 - beta) KL(p || m)`. Each is
    exactly zero, and of zero gradient, at equality (Agarwal et al. 2023, arXiv
    2306.13649, section 3.1).

    Args:
      hidden_MD: hidden states after the final norm.
      teacher_MD: those of the teacher; its gradient is zero by definition.
      head_DV: the output head of both, frozen: its gradient is zero by definition.
      needed_M: bool, or None for all; see `cross_entropy`.
      kind: "reverse", "forward" or "jsd".
      beta: of "jsd", between 0 and 1.

    Raises:
      ValueError: another kind, or a beta outside.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r} must be one of {sorted(_KINDS)}")
    if not 0 < beta < 1:
        raise ValueError(f"beta={beta} must lie between 0 and 1; use 0.5")
    return _divergence(hidden_MD, teacher_MD, head_DV, needed_M, kind, beta)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _divergence(
    hidden_MD: Array,
    teacher_MD: Array,
    head_DV: Array,
    needed_M: Array | None,
    kind: str,
    beta: float,
) -> Array:
    def of_token(hidden_D: Array, teacher_D: Array) -> Array:
        return _apart(hidden_D, teacher_D, head_DV, kind, beta)[0]

    apart_M = _map(of_token, head_DV, hidden_MD, teacher_MD, held=2)
    return apart_M if needed_M is None else jnp.where(needed_M, apart_M, 0)


def _apart(
    hidden_D: Array, teacher_D: Array, head_DV: Array, kind: str, beta: float
) -> tuple[Array, Array]:
    """The divergence of one token, and its slope by the token's logits."""
    log_p_V = jax.nn.log_softmax(_logits(hidden_D, head_DV))
    log_q_V = jax.nn.log_softmax(_logits(teacher_D, head_DV))
    return _KINDS[kind](log_p_V, log_q_V, beta)


def _reverse_kl(log_p_V: Array, log_q_V: Array, beta: float) -> tuple[Array, Array]:
    del beta
    p_V, ratio_V = jnp.exp(log_p_V), log_p_V - log_q_V
    kl = jnp.sum(p_V * ratio_V)
    return kl, p_V * (ratio_V - kl)


def _forward_kl(log_p_V: Array, log_q_V: Array, beta: float) -> tuple[Array, Array]:
    del beta
    q_V = jnp.exp(log_q_V)
    return jnp.sum(q_V * (log_q_V - log_p_V)), jnp.exp(log_p_V) - q_V


def _jsd(log_p_V: Array, log_q_V: Array, beta: float) -> tuple[Array, Array]:
    p_V, q_V, ratio_V = jnp.exp(log_p_V), jnp.exp(log_q_V), log_q_V - log_p_V
    # log(m / p) and log(m / q), exactly 0 where p = q.
    over_p_V, over_q_V = _mixed(ratio_V, beta), _mixed(-ratio_V, 1 - beta)
    of_p, of_q = -jnp.sum(p_V * over_p_V), -jnp.sum(q_V * over_q_V)
    slope_V = (1 - beta) * p_V * (-over_p_V - of_p)
    return beta * of_q + (1 - beta) * of_p, slope_V


def _mixed(ratio: Array, share: float) -> Array:
    """`log(1 - share + share exp(ratio))`, without overflow or cancellation."""
    near = jnp.log1p(share * jnp.expm1(jnp.minimum(ratio, 30.0)))
    return jnp.where(ratio > 30, ratio + math.log(share), near)


_KINDS = {"reverse": _reverse_kl, "forward": _forward_kl, "jsd": _jsd}


def _divergence_forward(
    hidden_MD: Array,
    teacher_MD: Array,
    head_DV: Array,
    needed_M: Array | None,
    kind: str,
    beta: float,
):
    def with_slope(hidden_D: Array, teacher_D: Array) -> tuple[Array, Array]:
        apart, slope_V = _apart(hidden_D, teacher_D, head_DV, kind, beta)
        slope_V = slope_V.astype(head_DV.dtype)
        return apart, jnp.einsum("v,dv->d", slope_V, head_DV)

    return _with_slopes(with_slope, head_DV, hidden_MD, teacher_MD, needed_M, held=2)


def _divergence_backward(kind: str, beta: float, slopes_MD: Array, dkl_M: Array):
    del kind, beta
    return _backward(slopes_MD, dkl_M)


_divergence.defvjp(_divergence_forward, _divergence_backward)
