"""Cross-entropy under a frozen head, without ever holding all logits.

The head is not trained, so the only gradient is that of the hidden states, and each
token's depends on that token alone. It is formed in the forward pass, while a chunk's
logits exist: two matmuls with the head, no recomputation, and at most `CHUNK` logits
at a time instead of tokens x vocabulary in float32 (1.2 GB for 2048 tokens of Qwen2.5).
"""

import jax
import jax.numpy as jnp
from jax import Array

# Logits held at a time, half a gigabyte in float32.
CHUNK = 2**27


@jax.custom_vjp
def cross_entropy(hidden_MD: Array, head_DV: Array, targets_M: Array) -> Array:
    """`-log softmax(hidden head)[target]` of each token, float32 `[M]`.

    Args:
      hidden_MD: hidden states after the final norm.
      head_DV: the output head, frozen: its gradient is zero by definition.
      targets_M: int32 token ids.
    """
    return _map(lambda h, t: _one(h, head_DV, t)[0], hidden_MD, head_DV, targets_M)


def _one(hidden_D: Array, head_DV: Array, target: Array) -> tuple[Array, Array, Array]:
    logits_V = jnp.einsum(
        "d,dv->v", hidden_D, head_DV, preferred_element_type=jnp.float32
    )
    log_z = jax.nn.logsumexp(logits_V)
    return log_z - logits_V[target], logits_V, log_z


def _map(fn, hidden_MD: Array, head_DV: Array, targets_M: Array):
    rows = max(1, CHUNK // head_DV.shape[1])
    if rows >= len(hidden_MD):
        return jax.vmap(fn)(hidden_MD, targets_M)
    return jax.lax.map(lambda args: fn(*args), (hidden_MD, targets_M), batch_size=rows)


def _forward(hidden_MD: Array, head_DV: Array, targets_M: Array):
    def one(hidden_D: Array, target: Array) -> tuple[Array, Array]:
        ce, logits_V, log_z = _one(hidden_D, head_DV, target)
        # In the head's dtype: a float32 operand would turn the head into one too.
        slope_V = jnp.exp(logits_V - log_z).at[target].add(-1.0).astype(head_DV.dtype)
        return ce, jnp.einsum("v,dv->d", slope_V, head_DV)

    return _map(one, hidden_MD, head_DV, targets_M)


def _backward(slopes_MD: Array, dce_M: Array):
    return (dce_M[:, None] * slopes_MD).astype(slopes_MD.dtype), None, None


cross_entropy.defvjp(_forward, _backward)
