"""What turns SmolLM2's packaged file into a directory: its parts, without the file."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import smollm2
from safetensors import safe_open
from tokenizers import Tokenizer

from seal_jax.models import decoder, hf_config


def test_rows_of_heads_are_put_as_transformers_turns_them():
    """Neighbours turned by llama.cpp's rule are halves turned by ours."""
    heads, size, rng = 3, 8, np.random.default_rng(0)
    weight, x = rng.normal(size=(heads * size, 5)), rng.normal(size=5)
    angle = rng.normal(size=size // 2)
    cos, sin = np.cos(angle), np.sin(angle)

    pairs = (weight @ x).reshape(heads, size // 2, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    turned = np.stack([first * cos - second * sin, second * cos + first * sin], -1)

    ours = (smollm2.halves(weight, heads) @ x).reshape(1, 1, heads, size)
    rotated = decoder.rotate(jnp.array(ours), cos[None, None], sin[None, None])
    again = np.asarray(rotated).reshape(heads, 2, size // 2).swapaxes(1, 2)
    np.testing.assert_allclose(again, turned, rtol=1e-5, atol=1e-6)
    # It only moves rows, and each head's stay its own.
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        moved = smollm2.halves(weight, heads)[own]
        assert sorted(map(tuple, moved)) == sorted(map(tuple, weight[own]))


def test_weights_are_rounded_as_jax_rounds_them(tmp_path):
    halfway = np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32)
    x = np.array([0, -0.0, 1, 1e-30, -3.14159, 65504, *halfway], np.float32)
    data = smollm2.safetensors_bytes({"w": x.reshape(2, 4), "v": x[:3]})
    (tmp_path / "x.safetensors").write_bytes(data)
    with safe_open(tmp_path / "x.safetensors", framework="flax") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {name: t.shape for name, t in read.items()} == {"w": (2, 4), "v": (3,)}
    want = np.asarray(jnp.array(x).astype(jnp.bfloat16))
    for name, tensor in read.items():
        bits = np.asarray(tensor).ravel().view("u2")
        np.testing.assert_array_equal(bits, want[: len(bits)].view("u2"), name)


def test_tensors_have_the_names_of_transformers():
    assert smollm2.tensor_name("blk.12.attn_q.weight") == (
        "model.layers.12.self_attn.q_proj.weight"
    )
    assert smollm2.tensor_name("token_embd.weight") == "model.embed_tokens.weight"
    for name in ("output.weight", "blk.0.attn_q_norm.weight", "rope_freqs.weight"):
        with pytest.raises(ValueError, match="no tensor of this model"):
            smollm2.tensor_name(name)


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
FIELDS = {
    "llama.vocab_size": 49152,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.block_count": 30,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.context_length": 8192,
    "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
    "llama.rope.freq_base": 100000.0,
    "tokenizer.ggml.tokens": SPECIAL,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.chat_template": "{{ messages }}",
}


def test_the_config_is_read_as_the_models_own():
    arch = hf_config.parse(smollm2.config_json(FIELDS), dtype="bfloat16")
    assert arch == decoder.Arch(
        "llama", 49152, 576, 30, 9, 3, 64, 1536, 8192, 1e5, None, 1e-5, tied=True,
        dtype="bfloat16",
    )  # fmt: skip
    config = smollm2.tokenizer_config(FIELDS)
    assert (config["eos_token"], config["bos_token"]) == ("<|im_end|>", "<|im_start|>")
    assert config["chat_template"] == "{{ messages }}"


def test_words_are_cut_at_every_digit_and_special_tokens_are_whole():
    letters = [*"abcdefg'", "Ġ", *"0123456789", "Ċ"]
    merges = ["a b", "ab c", "Ġ abc", "1 2", "Ġ Ġ"]
    tokens = [*SPECIAL, *letters, *("".join(m.split()) for m in merges)]
    types = [smollm2.CONTROL] * 3 + [smollm2.NORMAL] * (len(tokens) - 3)
    read = smollm2.tokenizer_json(tokens, types, merges)
    tokenizer = Tokenizer.from_str(json.dumps(read))

    def pieces(text: str) -> list[str]:
        return tokenizer.encode(text, add_special_tokens=False).tokens

    # 1 and 2 are never one token, though there is one; nor is a space drawn to a word.
    assert pieces("abc abc12  abc\n") == "abc Ġabc 1 2 Ġ Ġabc Ċ".split()
    assert pieces("<|im_start|>ab<|im_end|>") == ["<|im_start|>", "ab", "<|im_end|>"]
    text = "abc 12  abc\n\nab"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    with pytest.raises(ValueError, match=r"token types \[6\]"):
        smollm2.tokenizer_json(["a"], [6], [])
