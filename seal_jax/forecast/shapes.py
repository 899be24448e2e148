"""The shape of a model without its weights: of a directory here, or of a known name."""

import dataclasses
from typing import Any

import huggingface_hub

from seal_jax.generation.settings import ModelSource
from seal_jax.models import decoder, hf, hf_config
from seal_jax.runtime import files

# Of the models that the configs name: the fields of their config.json.
KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-7B": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    "meta-llama/Llama-3.2-1B-Instruct": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """`arch`: None where nothing here tells it; `basis`: where it was read, or why."""

    arch: decoder.Arch | None
    basis: str


def of(source: ModelSource) -> Shape:
    """The shape of a config's model.

    Raises:
      ValueError, FileNotFoundError: a directory, or a model of the package, that
        describes none.
    """
    name = source.path
    if name.startswith("embedded:") or files.is_folder(name):
        return Shape(
            _as_run(hf.read_config(hf.resolve(name), dtype=source.dtype), source),
            "its config.json",
        )
    cached = (
        huggingface_hub.try_to_load_from_cache(name, "config.json")
        if files.is_hub_name(name, owner=False)
        else None
    )
    if isinstance(cached, str):
        raw, basis = files.read_json(cached), "its config.json in the hub's cache"
    elif name in KNOWN:
        raw, basis = KNOWN[name], "the table of known models; it is not on this machine"
    else:
        return Shape(None, "it is not on this machine and not a known one")
    return Shape(_as_run(hf_config.parse(raw, dtype=source.dtype), source), basis)


def _as_run(arch: decoder.Arch, source: ModelSource) -> decoder.Arch:
    return dataclasses.replace(
        arch,
        kernel=source.kernel,
        attention=source.attention,
        base_dtype=source.base_dtype,
    )
