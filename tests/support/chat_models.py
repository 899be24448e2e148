"""Tokenizers of bytes with chat templates in the manner of released models.

The templates are written for the tests: what a family's does to one question and one
answer, and no more.
"""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TURNS = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def opening(words: str) -> str:
    """A system message, where the messages have none of their own."""
    return (
        "{% if messages[0]['role'] != 'system' %}"
        f"{{{{ '<|im_start|>system\n{words}<|im_end|>\n' }}}}"
        "{% endif %}"
    )


TEMPLATES = {
    "smollm2": opening("You are a helpful AI assistant named Smol") + TURNS + OPEN,
    "qwen2.5": opening("You are Qwen. You are a helpful assistant.") + TURNS + OPEN,
    # Without thinking, its answers begin with an empty thought.
    "qwen3": TURNS + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
    # It begins a text itself, and tells the day.
    "llama3": "{{ '<|begin_of_text|>' }}"
    "{% if not date_string is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start|>system<|end|>Today: ' + date_string + '<|eot_id|>' }}"
    "{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '<|end|>' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>' }}{% endif %}",
    # Ends no turn: what ends a text does.
    "bare": "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
}
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot_id|>")


def tokenizer(template: str | None, *, begins: bool = False) -> PreTrainedTokenizerFast:
    """One that reads bytes; `begins`: it puts a token before every text by itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    reads = Tokenizer(models.BPE(vocab, []))
    reads.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reads.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=reads,
        eos_token="<|endoftext|>",
        bos_token="<|begin_of_text|>",
        chat_template=template,
    )
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    if begins:
        bos = (fast.bos_token, fast.bos_token_id)
        fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos[0]} $A", pair=f"{bos[0]} $A $B:1", special_tokens=[bos]
        )
    return fast
