"""A prompt as the user's turn of a tokenizer's own chat, and what ends an answer."""

import chat_models
import pytest

from seal_jax.models import chat

SAID = "\n Where is Karsk? {{ 7 * 6 }}\n\n"
SYSTEM = "<|im_start|>system\nYou are"
ANSWERS = "<|im_start|>assistant\n"
ASKED = f"<|im_start|>user\n{SAID.strip()}<|im_end|>\n{ANSWERS}"

TURNS = {
    "smollm2": f"{SYSTEM} a helpful AI assistant named Smol<|im_end|>\n{ASKED}",
    "qwen2.5": f"{SYSTEM} Qwen. You are a helpful assistant.<|im_end|>\n{ASKED}",
    "qwen3": f"{ASKED}<think>\n\n</think>\n\n",
    "llama3": "<|begin_of_text|><|start|>system<|end|>Today: 26 Jul 2024<|eot_id|>"
    f"<|start|>user<|end|>{SAID.strip()}<|eot_id|><|start|>assistant<|end|>",
    "bare": f"user: {SAID.strip()}\nassistant: ",
}


@pytest.mark.parametrize("name", chat_models.TEMPLATES)
def test_a_turn_is_what_the_template_makes_of_it(name):
    tokenizer = chat_models.tokenizer(chat_models.TEMPLATES[name])
    assert chat.has_template(tokenizer)
    assert chat.turn(tokenizer, SAID) == TURNS[name]


def test_a_tokenizer_may_have_none():
    assert not chat.has_template(chat_models.tokenizer(None))


ENDS = {
    "smollm2": "<|im_end|>",
    "qwen2.5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "bare": None,
}


@pytest.mark.parametrize(("name", "end"), ENDS.items())
def test_what_ends_an_answer(name, end):
    tokenizer = chat_models.tokenizer(chat_models.TEMPLATES[name])
    want = None if end is None else tokenizer.convert_tokens_to_ids(end)
    assert chat.end_id(tokenizer) == want


REFUSED = {
    "cannot be read": "{% for %}",
    "takes no user": "{{ raise_exception('system messages only') }}",
    "has no such filter": "{{ messages | shout }}",
    "goes on for ever": "{{ messages.append(messages) }}",
}


@pytest.mark.parametrize("template", REFUSED.values(), ids=REFUSED)
def test_a_template_that_fails_is_told_in_one_line(template):
    with pytest.raises(ValueError, match=r"model\.chat='none'") as error:
        chat.turn(chat_models.tokenizer(template), "x")
    assert "\n" not in str(error.value) and "model.path" in str(error.value)
