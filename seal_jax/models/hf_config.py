"""What a Hugging Face config.json says about a decoder, both ways.

transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 one
`rope_parameters`; both are read, and the older spelling, which both read, is written.
"""

from typing import Any

from seal_jax.models.decoder import FAMILIES, Arch, RopeScaling

ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
DTYPES = ("float32", "bfloat16", "float16")
ROPE_TYPES = ("default", "llama3")


def parse(raw: dict[str, Any], *, dtype: str) -> Arch:
    """The model that the fields of a config.json describe.

    Args:
      raw: the parsed config.json.
      dtype: of the parameters as they are to be loaded, not as they were saved.

    Raises:
      ValueError: a field is missing, or asks for what the decoder does not do.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {list(DTYPES)}")
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"model_type={family!r} must be one of {list(FAMILIES)}; use a Qwen2, "
            "Qwen2.5, Qwen3 or Llama 3 model"
        )
    _check_supported(raw, family)

    def number(key: str) -> int:
        value = raw.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key}={value!r} must be a positive integer; add it")
        return value

    width, heads = number("hidden_size"), number("num_attention_heads")
    kv_heads = heads
    if raw.get("num_key_value_heads") is not None:
        kv_heads = number("num_key_value_heads")
    if heads % kv_heads:
        raise ValueError(
            f"num_attention_heads={heads} must be a multiple of "
            f"num_key_value_heads={kv_heads}"
        )
    if raw.get("head_dim") is not None:
        head_dim = number("head_dim")
    elif family == "qwen3":
        head_dim = 128  # transformers' default for this family, whatever the width
    elif width % heads:
        raise ValueError(
            f"hidden_size={width} must be a multiple of num_attention_heads={heads} "
            "where head_dim is not given"
        )
    else:
        head_dim = width // heads
    max_position = number("max_position_embeddings")
    theta, scaling = _rope(raw, max_position)
    return Arch(
        family=family,
        vocab=number("vocab_size"),
        width=width,
        layers=number("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ff=number("intermediate_size"),
        max_position=max_position,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tied=bool(raw.get("tie_word_embeddings", False)),
        dtype=dtype,
    )


def _check_supported(raw: dict[str, Any], family: str) -> None:
    architectures = raw.get("architectures") or [ARCHITECTURES[family]]
    if ARCHITECTURES[family] not in architectures:
        raise ValueError(
            f"architectures={architectures} must hold {ARCHITECTURES[family]}; use the "
            "causal language model of this family"
        )
    if raw.get("quantization_config") is not None:
        raise ValueError(
            "quantization_config is set, and weights must be float32, bfloat16 or "
            "float16; use the unquantized release of the model"
        )
    activation = raw.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ValueError(f"hidden_act={activation!r} must be 'silu'; use another model")
    for key in ("attention_bias", "mlp_bias"):
        # Qwen2 has no such switch: its q, k, v biases are always there.
        if raw.get(key) and family != "qwen2":
            raise ValueError(
                f"{key}=true, and a {family} decoder here has no such bias (only "
                "Qwen2's q, k, v have one); use a model without it"
            )
    kinds = raw.get("layer_types")
    if kinds is not None:
        sliding = any(kind != "full_attention" for kind in kinds)
    else:
        full = raw.get("max_window_layers", raw.get("num_hidden_layers", 0))
        sliding = (
            bool(raw.get("use_sliding_window"))
            and raw.get("sliding_window") is not None
            and full < raw.get("num_hidden_layers", 0)
        )
    if sliding:
        raise ValueError(
            "sliding window attention is in use, and every layer must be "
            "full_attention; set use_sliding_window=false if contexts stay short"
        )


def _rope(raw: dict[str, Any], max_position: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from `rope_parameters` or `rope_theta` + `rope_scaling`."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = rope.get("rope_theta", raw.get("rope_theta", 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    partial = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    if kind not in ROPE_TYPES or any(isinstance(v, dict) for v in rope.values()):
        raise ValueError(
            f"rope type {kind!r} must be one of {list(ROPE_TYPES)}, the same for every "
            "layer; remove rope_scaling if contexts stay within the trained length"
        )
    if partial != 1.0:
        raise ValueError(
            f"partial_rotary_factor={partial} must be 1; use another model"
        )
    if kind == "default":
        return float(theta), None
    names = ("factor", "low_freq_factor", "high_freq_factor")
    if any(name not in rope for name in names):
        raise ValueError(f"rope type 'llama3' needs {list(names)}; got {sorted(rope)}")
    scaling = RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_max_position=rope.get(
            "original_max_position_embeddings", max_position
        ),
    )
    return float(theta), scaling


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
