"""One decoder for Qwen2, Qwen2.5, Qwen3 and Llama 3, with functional LoRA deltas.

    hidden_BTD, _ = model.hidden(base, delta, cfg, tokens_BT, positions_BT, ranges)
    logits_BTV = model.logits(base, cfg, hidden_BTD)

`delta` is data (see `lora.py`); without it the base model runs. Every layer has weights
of its own, `params["layers_0"]` and so on, and the layers are a loop in Python: a scan
over stacked ones would copy each layer's weights out of the stack, twice in a training
step (53 GB at 7B), to save compile time.

Dimension key, used as a suffix of array names throughout the project:

    A adapters   B rows          T tokens of a row (queries)   S keys
    D width      F feed-forward or output width                L layers
    N query heads                K key/value heads             H head dim
    R LoRA rank  V vocabulary    P passages   E edits per passage   Q questions
    M packed tokens              G tiles of packed tokens, one adapter each
"""

import dataclasses
import functools
import math
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from seal_jax.models import embedding, float8_base, row_pages
from seal_jax.models.key_ranges import KeyRanges
from seal_kernels import float8
from seal_kernels.attention import api as attention_op
from seal_kernels.cpu_loops import computed_once
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
class Arch:
    """What distinguishes one decoder from another; built from a config.json by `hf`.

    `dtype`, `kernel` and `attention` (the implementations of the low-rank matmul and of
    attention, names of `lora_matmul.api` and `attention.api`) are how it runs, not what
    it is; so is `base_dtype`, in which frozen linears are multiplied (`float8_base`).
    """

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
    kernel: str = "auto"
    attention: str = "auto"
    base_dtype: str = float8_base.SAME

    def plain(self) -> "Arch":
        """The same model with its weights in `dtype` alone."""
        return dataclasses.replace(self, base_dtype=float8_base.SAME)

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
    """`x W (+ bias)`, plus the low-rank delta if the `lora` collection holds one.

    It may hold a stack of adapters, for equal runs of consecutive tokens: with `slots`
    each run names its own (`lora.assign`), without it there is one for each run. With
    `pages` there is one for each page of rows that lie anywhere (`lora.shared`).
    """

    features: int
    bias: bool
    dtype: jnp.dtype
    kernel: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        w_DF = float8_base.weights(lambda name: self.get_variable("params", name))
        if w_DF is None:
            shape = (x.shape[-1], self.features)
            init = nn.initializers.normal(0.02)
            w_DF = self.param(float8_base.KERNEL, init, shape, self.dtype)
        delta = [self.get_variable("lora", name) for name in ("a", "b", "slots")]
        pages = self.get_variable("lora", "pages")
        if delta[0] is None:
            y = float8.matmul(x, w_DF)
        elif pages is not None:
            x_MD = x.reshape(-1, x.shape[-1])
            low_MF = row_pages.low_rank(x_MD, delta[0], delta[1], pages)
            y_MF = float8.forward(x_MD, w_DF) + low_MF
            y = y_MF.reshape(*x.shape[:-1], self.features)
        elif delta[2] is None and delta[0].ndim == 3:
            op = functools.partial(lora_op.lora_matmul, implementation=self.kernel)
            x_ATD = x.reshape(len(delta[0]), -1, x.shape[-1])
            y_ATF = jax.vmap(op, in_axes=(0, None, 0, 0))(x_ATD, w_DF, *delta[:2])
            y = y_ATF.reshape(*x.shape[:-1], self.features)
        elif delta[2] is None:
            y = lora_op.lora_matmul(x, w_DF, *delta[:2], implementation=self.kernel)
        else:
            a, b, slots_CG = delta
            y = lora_op.lora_matmul_packed(
                x.reshape(-1, x.shape[-1]),
                *(w_DF, a, b, slots_CG.reshape(-1)),
                chunks=len(slots_CG),
                sound=self.get_variable("lora", "sound"),
                implementation=self.kernel,
            ).reshape(*x.shape[:-1], self.features)
        if self.bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (self.features,), self.dtype)
            y = y + jnp.broadcast_to(bias, y.shape)
        return y


# Elementwise work is cheap to do again in the backward pass and dear to keep: at 7B,
# float32 norms of all layers would take more memory than every matmul input together.
recomputed = jax.checkpoint


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, statistics in float32."""

    eps: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.dtype)

        @recomputed
        def norm(x: Array, scale: Array) -> Array:
            x_f32 = x.astype(jnp.float32)
            mean_square = jnp.mean(x_f32 * x_f32, axis=-1, keepdims=True)
            normed = (x_f32 * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype)
            return normed * jnp.broadcast_to(scale, normed.shape)

        return norm(x, scale)


def rope_frequencies(cfg: Arch) -> Array:
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
    x_BTNH = computed_once(x_BTNH)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos_BTH[:, :, None, :], sin_BTH[:, :, None, :]
    out = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    return computed_once(out.astype(x_BTNH.dtype))


# A function that is compiled is traced once for all layers.
@functools.partial(jax.jit, static_argnums=5)
def attend(q, k, v, first_BT, end_BT, implementation: str) -> Array:
    """`attention` of the keys up to each query's own."""
    return attention_op.attention(
        q, k, v, first_BT, end_BT, implementation, causal=True
    )


def attend_cached(
    q_B1NH: Array,
    kv: dict[str, Array],
    cache: dict[str, Array],
    slots_B: Array,
    implementation: str,
) -> tuple[Array, dict[str, Array]]:
    """One token a row attends to its slot of the cache and all before it.

    It is written there first: nothing else then reads the old cache, and XLA updates a
    donated one in place. `kv` holds the token's `{"k", "v"}`, `[B, 1, K, H]`.
    """
    k_BKSH, v_BKSH = (
        # A slot in each row: in whatever order they are written.
        cache[name]
        .at[jnp.arange(len(slots_B)), :, slots_B]
        .set(kv[name][:, 0], unique_indices=True)
        for name in ("k", "v")
    )
    length_B = slots_B + 1
    y_BNH = attention_op.decode(q_B1NH[:, 0], k_BKSH, v_BKSH, length_B, implementation)
    return y_BNH[:, None], {"k": k_BKSH, "v": v_BKSH}


@recomputed
def swiglu(gate: Array, up: Array) -> Array:
    """`silu(gate) * up`, elementwise."""
    return nn.silu(gate) * up


class Block(nn.Module):
    """Pre-norm transformer block: one layer."""

    cfg: Arch

    @nn.compact
    def __call__(self, x_BTD, rope, ranges, cache, slots_B: Any = None):
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)

        def linear(name: str, bias: bool = False) -> Linear:
            return Linear(cfg.linears()[name][1], bias, dtype, cfg.kernel, name=name)

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
        kv = {"k": k_BTKH, "v": v_BTKH}
        if cache:
            y_BTNH, cache = attend_cached(q_BTNH, kv, cache, slots_B, cfg.attention)
        else:
            first_BT, end_BT = ranges
            y_BTNH = attend(q_BTNH, k_BTKH, v_BTKH, first_BT, end_BT, cfg.attention)
            if cache is not None:
                cache = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2), kv)
        y_BTF = einops.rearrange(y_BTNH, "B T N H -> B T (N H)")
        x_BTD = x_BTD + linear("o_proj")(y_BTF)
        h_BTD = RMSNorm(cfg.norm_eps, dtype, name="post_norm")(x_BTD)
        h_BTF = swiglu(linear("gate_proj")(h_BTD), linear("up_proj")(h_BTD))
        return x_BTD + linear("down_proj")(h_BTF), cache


class Decoder(nn.Module):
    """The stack: embedding, blocks, final norm; `unembed` gives logits."""

    cfg: Arch

    def setup(self):
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        init = nn.initializers.normal(0.02)
        self.embed = self.param("embed", init, (cfg.vocab, cfg.width), dtype)
        if not cfg.tied:
            self.lm_head = self.param("lm_head", init, (cfg.width, cfg.vocab), dtype)
        self.layers = [Block(cfg) for _ in range(cfg.layers)]
        self.final_norm = RMSNorm(cfg.norm_eps, dtype)

    def __call__(self, tokens_BT, positions_BT, ranges, cache=None):
        """Runs the stack.

        Args:
          tokens_BT: int32 token ids.
          positions_BT: int32 rotary positions.
          ranges: which keys each query sees (`key_ranges`).
          cache: None, or `()` to be given the keys and values of these tokens.

        Returns:
          `(hidden_BTD, cache)`: hidden states after the final norm, and None or
          each layer's `{"k", "v"}`, `[B, K, T, H]` (see `kv_cache`).
        """
        x_BTD, rope = self.embedded(tokens_BT, positions_BT)
        kept = []
        for layer in self.layers:
            x_BTD, kv = layer(x_BTD, rope, ranges, cache)
            kept.append(kv)
        return self.normed(x_BTD), None if cache is None else tuple(kept)

    def normed(self, x: Array) -> Array:
        return self.final_norm(x)

    def embedded(self, tokens_BT, positions_BT):
        """What the first layer takes: `x_BTD`, and the rotary cosines and sines."""
        flat_MD = embedding.lookup(self.embed, tokens_BT.reshape(-1))
        x_BTD = flat_MD.reshape(*tokens_BT.shape, -1)
        angles = positions_BT[..., None].astype(jnp.float32) * rope_frequencies(
            self.cfg
        ).reshape(1, 1, -1)
        return x_BTD, (jnp.cos(angles), jnp.sin(angles))

    def unembed(self, hidden_BTD: Array) -> Array:
        """Vocabulary logits of hidden states, float32, `[..., V]`."""
        head_DV = self.embed.T if self.cfg.tied else self.lm_head
        return jnp.einsum(
            "...d,dv->...v", hidden_BTD, head_DV, preferred_element_type=jnp.float32
        )


def layer_name(index: int) -> str:
    """A layer's name in the tree of parameters, and in a delta's."""
    return f"layers_{index}"


def init_params(key: Array, cfg: Arch) -> dict:
    """Random parameters, normal(0.02), in `cfg.dtype`; eight bits beside if it has."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    ranges = KeyRanges(tokens, tokens)
    params = dict(Decoder(cfg).init(key, tokens, tokens, ranges)["params"])
    eight = cfg.base_dtype == float8_base.FLOAT8
    return float8_base.added(params) if eight else params


def hidden(
    params: dict,
    delta: dict | None,
    cfg: Arch,
    tokens_BT: Array,
    positions_BT: Array,
    ranges: KeyRanges,
    cache: tuple[()] | None = None,
) -> tuple[Array, tuple[dict[str, Array], ...] | None]:
    """Hidden states after the final norm, `[B, T, D]`, and keys and values if asked.

    Args:
      params: base parameters.
      delta: one adapter as applied (`lora.scaled`), many that runs of tokens name
        (`lora.assign`), or None for the base alone.
      cfg: the decoder.
      tokens_BT, positions_BT, ranges, cache: see `Decoder.__call__`.

    Raises:
      ValueError: a delta of other layers, which flax would pass over in silence.
    """
    layers = {layer_name(i) for i in range(cfg.layers)}
    if delta is not None and set(delta) != layers:
        raise ValueError(
            f"delta: layers {sorted(delta)} must be {sorted(layers)}, as lora.init has "
            "them"
        )
    x_BTD, rope = embedded(params, cfg, tokens_BT, positions_BT)
    kept = []
    for name in map(layer_name, range(cfg.layers)):
        own = None if delta is None else delta[name]
        x_BTD, kv = layer(params[name], own, x_BTD, rope, ranges, cache, None, cfg=cfg)
        kept.append(kv)
    return normed(params, cfg, x_BTD), None if cache is None else tuple(kept)


# A function that is compiled is traced once for all layers, and differentiated once.
@functools.partial(jax.jit, static_argnames="cfg")
def layer(params, delta, x_BTD, rope, ranges, cache, slots_B, *, cfg: Arch):
    """One layer of the stack, by its own parameters and delta; see `Block`."""
    variables = {"params": params} | ({} if delta is None else {"lora": delta})
    applied: Any = Block(cfg).apply(variables, x_BTD, rope, ranges, cache, slots_B)
    return applied


def embedded(
    params: dict, cfg: Arch, tokens: Array, positions: Array
) -> tuple[Array, tuple[Array, Array]]:
    """What the first layer takes: see `Decoder.embedded`."""
    out: Any = Decoder(cfg).apply(
        {"params": params}, tokens, positions, method="embedded"
    )
    return out


def normed(params: dict, cfg: Arch, x: Array) -> Array:
    """The final norm of what the last layer gives."""
    out: Any = Decoder(cfg).apply({"params": params}, x, method="normed")
    return out


def logits(params: dict, cfg: Arch, hidden: Array) -> Array:
    """Vocabulary logits of hidden states `[..., D]`, float32, `[..., V]`."""
    out: Any = Decoder(cfg).apply({"params": params}, hidden, method="unembed")
    return out


def head(params: dict, cfg: Arch) -> Array:
    """The output head `[D, V]`, for `cross_entropy`."""
    return params["embed"].T if cfg.tied else params["lm_head"]
