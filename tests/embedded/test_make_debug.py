"""The debug model's files: what the script writes, read by transformers."""

import itertools
import pathlib

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from seal_jax.embedded import make_debug

END = b"<|endoftext|>"
DEBUG = pathlib.Path(make_debug.__file__).parent / "assets" / "debug"
TEXTS = {
    "empty": "",
    "spaces": "  a   b \n\n\tc  ",
    "contraction": "don't , say 'it' . OK ?",
    "accents": "Košice Łódź Zürich",
    "decomposed": "cafe\u0301 A\u030a",
    "compatibility": "\ufb01ne \u212b ngstr\u00f6m",
    "scripts": "漢字 עברית العربية हिन्दी",
    "emoji": "🙂👩‍🔬🏳️‍🌈",
    "control": "".join(map(chr, range(32))) + "\x7f\u200b\ufeff",
    "special": "a<|endoftext|>b [CLS] <s> <unk>",
}


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(DEBUG)


def test_committed_files_are_what_the_script_writes(tmp_path):
    make_debug.write(tmp_path)
    written = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert written == {p.name: p.read_bytes() for p in DEBUG.iterdir()}
    assert set(written) == {"config.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_texts_survive_exactly(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_a_token_is_a_byte(tokenizer):
    for text in TEXTS.values():
        if END not in text.encode():
            assert tokenizer(text).input_ids == list(text.encode())
    assert len(tokenizer) == 257
    assert tokenizer("a<|endoftext|>b").input_ids == [97, 256, 98]


# Surrogates (Cs) are no text: UTF-8 cannot carry them.
@settings(max_examples=200)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(tokenizer, text):
    ids = tokenizer(text).input_ids
    as_bytes = b"".join(END if i == 256 else bytes([i]) for i in ids)
    assert as_bytes == text.encode()
    assert tokenizer.decode(ids) == text


def test_encoding_is_additive(tokenizer):
    # Nothing merges across a boundary, so prompt and completion can be joined as ids.
    for a, b in itertools.product(TEXTS.values(), repeat=2):
        joined = tokenizer(a).input_ids + tokenizer(b).input_ids
        assert tokenizer(a + b).input_ids == joined


def test_survives_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(DEBUG)
    config.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS.values():
        assert again(text).input_ids == tokenizer(text).input_ids
        assert again.decode(again(text).input_ids) == text


def test_config_and_tokenizer_agree(tokenizer):
    config = transformers.AutoConfig.from_pretrained(DEBUG)
    assert config.vocab_size == len(tokenizer)
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == config.eos_token_id
    assert config.tie_word_embeddings
    assert config.num_attention_heads % config.num_key_value_heads == 0
