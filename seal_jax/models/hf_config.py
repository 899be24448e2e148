"""What a Hugging Face config.json says about a decoder, both ways.

transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 one
`rope_parameters`; both are read, and the older spelling, which both read, is written.
"""

from collections.abc import Mapping
from typing import Any

from seal_jax.models.decoder import FAMILIES, Arch, RopeScaling

ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
DTYPES = ("float32", "bfloat16", "float16")
ROPE_TYPES = ("default", "llama3")


# Far beyond any model: a larger number is a slip, and would be waited for.
_MOST = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_hidden_layers": 1 << 12,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "head_dim": 1 << 14,
    "max_position_embeddings": 1 << 28,
    "max_window_layers": 1 << 12,
    "sliding_window": 1 << 28,
    "original_max_position_embeddings": 1 << 28,
}


class Fields:
    """Typed access to the fields of a JSON object; an error names field and value.

    A field that is null is one that is not there, as for transformers.
    """

    def __init__(self, raw: Mapping[str, Any]):
        self._raw = raw

    def has(self, key: str) -> bool:
        return self._raw.get(key) is not None

    def named(self, key: str) -> bool:
        """Whether the field is there, be it null."""
        return key in self._raw

    def whole(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        """A whole number of `low` to `_MOST`.

        Raises:
          ValueError: it is none, or is absent and has no default.
        """
        value = self._raw.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or value < low:
            kind = "a positive integer" if low == 1 else f"an integer from {low} on"
            raise ValueError(f"{key}={value!r:.40} must be {kind}; add it")
        if value > _MOST[key]:
            raise ValueError(
                f"{key}={value} must be at most {_MOST[key]}; download the model again"
            )
        return value

    def number(self, key: str, default: float, *, high: float) -> float:
        """A number above 0, `high` at most.

        Raises:
          ValueError: it is none, or null.
        """
        value = self._raw.get(key, default)
        number = type(value) in (int, float)
        if not number or not 0 < value <= high:
            raise ValueError(
                f"{key}={value!r:.40} must be a number above 0, at most {high:g}; "
                "correct it or download the model again"
            )
        return float(value)

    def flag(self, key: str) -> bool:
        """true or false; false without it.

        Raises:
          ValueError: it is something else.
        """
        value = self._raw.get(key)
        if value is None or type(value) is bool:
            return value is True
        raise ValueError(f"{key}={value!r:.40} must be true or false; correct it")

    def text(self, key: str, default: str | None = None) -> str | None:
        """A string.

        Raises:
          ValueError: it is something else.
        """
        value = self._raw.get(key)
        if value is None or isinstance(value, str):
            return default if value is None else value
        raise ValueError(f"{key}={value!r:.40} must be a string; correct it")

    def texts(self, key: str) -> list[str] | None:
        """A list of strings; None without it.

        Raises:
          ValueError: it is something else.
        """
        value = self._raw.get(key)
        strings = isinstance(value, list) and all(isinstance(v, str) for v in value)
        if value is None or strings:
            return value
        raise ValueError(f"{key}={value!r:.40} must be a list of strings; correct it")

    def group(self, key: str) -> dict[str, Any]:
        """A JSON object; an empty one without it.

        Raises:
          ValueError: it is something else.
        """
        value = self._raw.get(key)
        if value is None or isinstance(value, dict):
            return value or {}
        raise ValueError(f"{key}={value!r:.40} must be a JSON object; correct it")


def parse(raw: Mapping[str, Any], *, dtype: str) -> Arch:
    """The model that the fields of a config.json describe.

    Args:
      raw: the parsed config.json.
      dtype: of the parameters as they are to be loaded, not as they were saved.

    Raises:
      ValueError: a field is missing or mistyped, or asks for what the decoder does not
        do.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {list(DTYPES)}")
    fields = Fields(raw)
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(
            f"model_type={family!r:.40} must be one of {list(FAMILIES)}; use a Qwen2, "
            "Qwen2.5, Qwen3 or Llama 3 model"
        )
    _check_supported(fields, family)
    width, heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
    kv_heads = fields.whole("num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(
            f"num_attention_heads={heads} must be a multiple of "
            f"num_key_value_heads={kv_heads}; correct them or download the model again"
        )
    max_position = fields.whole("max_position_embeddings")
    theta, scaling = _rope(fields, max_position)
    return Arch(
        family=family,
        vocab=fields.whole("vocab_size"),
        width=width,
        layers=fields.whole("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_head_dim(fields, family, width, heads),
        ff=fields.whole("intermediate_size"),
        max_position=max_position,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=fields.number("rms_norm_eps", 1e-6, high=1.0),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tied=fields.flag("tie_word_embeddings"),
        dtype=dtype,
    )


def _head_dim(fields: Fields, family: str, width: int, heads: int) -> int:
    if fields.has("head_dim"):
        size = fields.whole("head_dim")
    elif family == "qwen3":
        size = 128  # transformers' default for this family, whatever the width
    elif width % heads:
        raise ValueError(
            f"hidden_size={width} must be a multiple of num_attention_heads={heads} "
            "where head_dim is not given; add it or download the model again"
        )
    else:
        size = width // heads
    if size % 2:
        raise ValueError(
            f"head_dim={size} must be even, as rotary positions turn pairs; correct it "
            "or download the model again"
        )
    return size


def _check_supported(fields: Fields, family: str) -> None:
    architectures = fields.texts("architectures") or [ARCHITECTURES[family]]
    if ARCHITECTURES[family] not in architectures:
        raise ValueError(
            f"architectures={architectures!r:.90} must hold "
            f"{ARCHITECTURES[family]}; use the causal language model of this family"
        )
    if fields.has("quantization_config"):
        raise ValueError(
            "quantization_config is set, and weights must be float32, bfloat16 or "
            "float16; use the unquantized release of the model"
        )
    for key in ("torch_dtype", "dtype"):
        fields.text(key)  # Not used here; transformers stumbles over another type.
    activation = fields.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ValueError(
            f"hidden_act={activation!r:.40} must be 'silu'; use another model"
        )
    for key in ("attention_bias", "mlp_bias"):
        # Qwen2 has no such switch: its q, k, v biases are always there.
        if fields.flag(key) and family != "qwen2":
            raise ValueError(
                f"{key}=true, and a {family} decoder here has no such bias (only "
                "Qwen2's q, k, v have one); use a model without it"
            )
    kinds = fields.texts("layer_types")
    if kinds is not None:
        sliding = any(kind != "full_attention" for kind in kinds)
    else:
        layers = fields.whole("num_hidden_layers")
        # transformers' own defaults; a window that is null is none.
        full = fields.whole("max_window_layers", 28, low=0)
        absent = 0 if fields.named("sliding_window") else 4096
        windowed = fields.whole("sliding_window", absent, low=0) > 0
        sliding = fields.flag("use_sliding_window") and windowed and full < layers
    if sliding:
        raise ValueError(
            "sliding window attention is in use, and every layer must be "
            "full_attention; set use_sliding_window=false if contexts stay short"
        )


def _rope(fields: Fields, max_position: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from `rope_parameters` or `rope_theta` + `rope_scaling`."""
    group = fields.group("rope_parameters") or fields.group("rope_scaling")
    rope = Fields(group)
    theta = rope if "rope_theta" in group else fields
    partial = rope if "partial_rotary_factor" in group else fields
    kind = rope.text("rope_type") or rope.text("type", "default")
    if kind not in ROPE_TYPES or any(isinstance(v, dict) for v in group.values()):
        raise ValueError(
            f"rope type {kind!r:.40} must be one of {list(ROPE_TYPES)}, the same "
            "for every layer; remove rope_scaling if contexts stay within the trained "
            "length"
        )
    if (share := partial.number("partial_rotary_factor", 1.0, high=1.0)) != 1.0:
        raise ValueError(f"partial_rotary_factor={share} must be 1; use another model")
    base = theta.number("rope_theta", 10_000.0, high=1e15)
    if kind == "default":
        return base, None
    names = ("factor", "low_freq_factor", "high_freq_factor")
    if any(name not in group for name in names):
        raise ValueError(
            f"rope type 'llama3' needs {list(names)}; got "
            f"{sorted(group)!r:.90}; add them"
        )
    factor, low, high = (rope.number(name, 1.0, high=1e6) for name in names)
    if low >= high:
        raise ValueError(
            f"low_freq_factor={low} must be below high_freq_factor={high}; correct them"
        )
    original = rope.whole("original_max_position_embeddings", max_position)
    return base, RopeScaling(factor, low, high, original)


def to_json(cfg: Arch) -> dict[str, Any]:
    """The config.json of a model; `parse` of it gives `cfg` again."""
    scaling, s = None, cfg.rope_scaling
    if s is not None:
        scaling = {
            "rope_type": "llama3",
            "factor": s.factor,
            "low_freq_factor": s.low_freq_factor,
            "high_freq_factor": s.high_freq_factor,
            "original_max_position_embeddings": s.original_max_position,
        }
    out = {
        "architectures": [ARCHITECTURES[cfg.family]],
        "model_type": cfg.family,
        "vocab_size": cfg.vocab,
        "hidden_size": cfg.width,
        "intermediate_size": cfg.ff,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": cfg.max_position,
        "rms_norm_eps": cfg.norm_eps,
        "rope_theta": cfg.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": cfg.tied,
        "torch_dtype": cfg.dtype,
        "use_cache": True,
    }
    if cfg.family == "llama":
        return out | {"attention_bias": False, "mlp_bias": False}
    return out | {"use_sliding_window": False}
