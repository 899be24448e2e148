"""One decoder for Qwen2, Qwen2.5, Qwen3 and Llama 3, with functional LoRA deltas.

    hidden_BTD, _ = model.hidden(base, delta, cfg, tokens_BT, positions_BT, mask_BTS)
    logits_BTV = model.logits(base, cfg, hidden_BTD)

`delta` is data (see `lora.py`); without it the base model runs. Layers are stacked on
a leading axis and scanned, so compile time does not grow with depth.

Dimension key, used as a suffix of array names throughout the project:

    A adapters   B rows          T tokens of a row (queries)   S keys
    D width      F feed-forward or output width                L layers
    N query heads                K key/value heads             H head dim
    R LoRA rank  V vocabulary    P passages   E edits per passage   Q questions
"""

import dataclasses
import math
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from seal_kernels.lora_matmul import api as lora_op

FAMILIES = ("qwen2", "qwen3", "llama")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency rescaling (`rope_type: llama3` of a config.json)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What distinguishes one decoder from another; built from a config.json by `hf`."""

    family: str
    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    max_position: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    dtype: str = "float32"

    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output width of every linear layer that can carry a LoRA delta."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.width, q),
            "k_proj": (self.width, kv),
            "v_proj": (self.width, kv),
            "o_proj": (q, self.width),
            "gate_proj": (self.width, self.ff),
            "up_proj": (self.width, self.ff),
            "down_proj": (self.ff, self.width),
        }

    def matmul_params(self) -> int:
        """Weights that multiply every token (linears and head, without the embedding).

        A forward pass costs twice this many FLOP a token; so does a backward pass
        through a frozen base.
        """
        per_layer = sum(d * f for d, f in self.linears().values())
        return self.layers * per_layer + self.width * self.vocab


class Linear(nn.Module):
    """`x W (+ bias)`, plus the low-rank delta if the `lora` collection holds one."""

    features: int
    bias: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param(
            "kernel",
            nn.initializers.normal(0.02),
            (x.shape[-1], self.features),
            self.dtype,
        )
        if self.has_variable("lora", "a"):
            a_RD = self.get_variable("lora", "a")
            b_RF = self.get_variable("lora", "b")
            y = lora_op.lora_matmul(x, kernel, a_RD, b_RF)
        else:
            y = x @ kernel
        if self.bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (self.features,), self.dtype)
            y = y + jnp.broadcast_to(bias, y.shape)
        return y


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, statistics in float32."""

    eps: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.dtype)
        x_f32 = x.astype(jnp.float32)
        mean_square = jnp.mean(x_f32 * x_f32, axis=-1, keepdims=True)
        normed = (x_f32 * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype)
        return normed * jnp.broadcast_to(scale, normed.shape)


def rope_frequencies(cfg: ModelConfig) -> Array:
    """Angular frequency of each rotary pair, `[H/2]`, rescaled for Llama 3.

    Llama 3's rule: wavelengths beyond `original_max_position / low_freq_factor` are
    stretched by `factor`, those below `.../high_freq_factor` are kept, and those
    between are interpolated linearly in the inverse wavelength.
    """
    half = cfg.head_dim // 2
    freq = 1.0 / cfg.rope_theta ** (jnp.arange(half, dtype=jnp.float32) / half)
    s = cfg.rope_scaling
    if s is None:
        return freq
    turns = s.original_max_position * freq / (2 * math.pi)
    keep = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
    keep = jnp.clip(keep, 0.0, 1.0)
    return keep * freq + (1.0 - keep) * freq / s.factor


def rotate(x_BTNH: Array, cos_BTH: Array, sin_BTH: Array) -> Array:
    """Applies rotary position embedding, first half paired with second half."""
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos_BTH[:, :, None, :], sin_BTH[:, :, None, :]
    out = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    return out.astype(x_BTNH.dtype)


class Block(nn.Module):
    """Pre-norm transformer block; the unit that `nn.scan` repeats."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, rope, mask_BTS, cache, cache_index):
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)

        def linear(name: str, bias: bool = False) -> Linear:
            return Linear(cfg.linears()[name][1], bias, dtype, name=name)

        def heads(x: Array, n: int) -> Array:
            return einops.rearrange(x, "B T (n H) -> B T n H", n=n)

        h_BTD = RMSNorm(cfg.norm_eps, dtype, name="input_norm")(x_BTD)
        q_BTNH = heads(linear("q_proj", cfg.qkv_bias)(h_BTD), cfg.heads)
        k_BTKH = heads(linear("k_proj", cfg.qkv_bias)(h_BTD), cfg.kv_heads)
        v_BTKH = heads(linear("v_proj", cfg.qkv_bias)(h_BTD), cfg.kv_heads)
        if cfg.qk_norm:
            q_BTNH = RMSNorm(cfg.norm_eps, dtype, name="q_norm")(q_BTNH)
            k_BTKH = RMSNorm(cfg.norm_eps, dtype, name="k_norm")(k_BTKH)
        q_BTNH, k_BTKH = rotate(q_BTNH, *rope), rotate(k_BTKH, *rope)
        if cache is not None:
            at = (0, cache_index, 0, 0)
            k_BTKH = jax.lax.dynamic_update_slice(cache["k"], k_BTKH, at)
            v_BTKH = jax.lax.dynamic_update_slice(cache["v"], v_BTKH, at)
            cache = {"k": k_BTKH, "v": v_BTKH}
        y_BTNH = jax.nn.dot_product_attention(
            q_BTNH, k_BTKH, v_BTKH, mask=mask_BTS[:, None, :, :]
        )
        y_BTF = einops.rearrange(y_BTNH, "B T N H -> B T (N H)")
        x_BTD = x_BTD + linear("o_proj")(y_BTF)
        h_BTD = RMSNorm(cfg.norm_eps, dtype, name="post_norm")(x_BTD)
        h_BTF = nn.silu(linear("gate_proj")(h_BTD)) * linear("up_proj")(h_BTD)
        return x_BTD + linear("down_proj")(h_BTF), cache


class Decoder(nn.Module):
    """The stack: embedding, scanned blocks, final norm; `unembed` gives logits."""

    cfg: ModelConfig

    def setup(self):
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        init = nn.initializers.normal(0.02)
        self.embed = self.param("embed", init, (cfg.vocab, cfg.width), dtype)
        if not cfg.tied:
            self.lm_head = self.param("lm_head", init, (cfg.width, cfg.vocab), dtype)
        # Any: the annotation flax infers from its default, int, is too narrow.
        in_axes: Any = (nn.broadcast, nn.broadcast, 0, nn.broadcast)
        self.layers = nn.scan(
            Block,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True},
            in_axes=in_axes,
            length=cfg.layers,
        )(cfg)
        self.final_norm = RMSNorm(cfg.norm_eps, dtype)

    def __call__(self, tokens_BT, positions_BT, mask_BTS, cache=None, cache_index=0):
        """Runs the stack.

        Args:
          tokens_BT: int32 token ids.
          positions_BT: int32 rotary positions.
          mask_BTS: bool, which keys each query may see. Without a cache `S == T`.
          cache: None, or `{"k", "v"}` of `[L, B, S, K, H]` (see `init_cache`); the new
            keys and values are written at `cache_index` before attention reads them.
          cache_index: first cache slot written, the same for all rows.

        Returns:
          `(hidden_BTD, cache)`, hidden states after the final norm.
        """
        x_BTD = jnp.take(self.embed, tokens_BT, axis=0)
        angles = positions_BT[..., None].astype(jnp.float32) * rope_frequencies(
            self.cfg
        ).reshape(1, 1, -1)
        rope = (jnp.cos(angles), jnp.sin(angles))
        x_BTD, cache = self.layers(x_BTD, rope, mask_BTS, cache, cache_index)
        return self.final_norm(x_BTD), cache

    def unembed(self, hidden_BTD: Array) -> Array:
        """Vocabulary logits of hidden states, float32, `[..., V]`."""
        head_DV = self.embed.T if self.cfg.tied else self.lm_head
        return jnp.einsum(
            "...d,dv->...v", hidden_BTD, head_DV, preferred_element_type=jnp.float32
        )


def init_cache(cfg: ModelConfig, rows: int, slots: int) -> dict[str, Array]:
    """An empty key/value cache for `rows` rows and `slots` positions."""
    shape = (cfg.layers, rows, slots, cfg.kv_heads, cfg.head_dim)
    return {
        "k": jnp.zeros(shape, jnp.dtype(cfg.dtype)),
        "v": jnp.zeros(shape, jnp.dtype(cfg.dtype)),
    }


def init_params(key: Array, cfg: ModelConfig) -> dict:
    """Random parameters, normal(0.02), in `cfg.dtype`."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    mask = jnp.ones((1, 2, 2), bool)
    return dict(Decoder(cfg).init(key, tokens, tokens, mask)["params"])


def hidden(
    params: dict,
    delta: dict | None,
    cfg: ModelConfig,
    tokens_BT: Array,
    positions_BT: Array,
    mask_BTS: Array,
    cache: dict[str, Array] | None = None,
    cache_index: int | Array = 0,
) -> tuple[Array, dict[str, Array] | None]:
    """Hidden states after the final norm, `[B, T, D]`, and the cache with the new keys.

    Args:
      params: base parameters.
      delta: one adapter as applied (`lora.scaled`), or None for the base alone.
      cfg: the decoder.
      tokens_BT, positions_BT, mask_BTS, cache, cache_index: see `Decoder.__call__`.
    """
    variables = {"params": params} | ({} if delta is None else {"lora": delta})
    out: Any = Decoder(cfg).apply(
        variables, tokens_BT, positions_BT, mask_BTS, cache, cache_index
    )
    return out


def logits(params: dict, cfg: ModelConfig, hidden: Array) -> Array:
    """Vocabulary logits of hidden states `[..., D]`, float32, `[..., V]`."""
    out: Any = Decoder(cfg).apply({"params": params}, hidden, method="unembed")
    return out


def causal_mask(is_key_BT: Array) -> Array:
    """Causal mask among the positions marked as keys, bool `[B, T, T]`.

    A query always sees itself only if it is a key; positions that are not keys may
    still query (the sampled pads of `inner.py` do).
    """
    t = is_key_BT.shape[-1]
    causal_TT = jnp.tril(jnp.ones((t, t), bool))
    return causal_TT[None, :, :] & is_key_BT[:, None, :]
