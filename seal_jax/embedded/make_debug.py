"""Writes the debug model's description: a Qwen3 of 2 layers that reads plain bytes.

    python -m seal_jax.embedded.make_debug [--out DIR]

It has no weights: whoever loads it draws random ones. Its tokenizer knows the 256 bytes
and one end-of-text token and merges nothing, so token i < 256 *is* byte i, every UTF-8
text survives encoding and decoding, and no vocabulary needs a licence or a download.

Qwen3 rather than Qwen2, because transformers 5 gives every Qwen2 model the original
Qwen2 normalizer and splitting rules, whatever its tokenizer.json says, and that
normalizer rewrites composed characters.
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

import json
import pathlib

from absl import app, flags

END = "<|endoftext|>"
END_ID = 256

_OUT = flags.DEFINE_string(
    "out", str(pathlib.Path(__file__).parent / "assets" / "debug"), "folder to write to"
)


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a byte-level BPE (GPT-2).

    Bytes with a visible Latin-1 character stand for themselves; the others, in order,
    take the code points from 256 on.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [b for b in range(256) if b not in visible]
    return [chr(b if b in visible else 256 + hidden.index(b)) for b in range(256)]


def model_config() -> dict:
    """The `json`: one of everything a real Qwen3 has, as small as it goes."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": END_ID + 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-06,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "use_sliding_window": False,
        "bos_token_id": END_ID,
        "eos_token_id": END_ID,
        "pad_token_id": END_ID,
        "torch_dtype": "float32",
    }


def tokenizer() -> dict:
    """The `tokenizer.json`: byte-level BPE without merges, normalizer or splitting."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": END_ID,
                "content": END,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {symbol: i for i, symbol in enumerate(byte_symbols())},
            "merges": [],
        },
    }


def tokenizer_config() -> dict:
    """The `tokenizer_config.json`; no clean-up of spaces, which would change texts."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
        "bos_token": None,
        "eos_token": END,
        "pad_token": END,
    }


def write(out: pathlib.Path) -> None:
    """Writes the three files to `out`, the same bytes every time."""
    out.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": model_config(),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": tokenizer_config(),
    }
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (out / name).write_text(text, encoding="utf-8")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; the only flag is --out")
    write(pathlib.Path(_OUT.value))
    print(f"wrote {_OUT.value}")


if __name__ == "__main__":
    app.run(main)
