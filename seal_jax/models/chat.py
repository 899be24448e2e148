"""A tokenizer's own chat template: a prompt as the user's turn, and an answer's end.

Templates are the model's and may do anything with a message; this program asks for one
shape alone: what the user says, then the assistant's turn, left open. Whatever system
message a template puts before that by itself is part of the prompt.
"""

from typing import Any

from seal_jax.models import hf
from seal_jax.runtime import reading

# Llama 3.2's tells the date of today unless it is given one: the same run would read
# other prompts tomorrow.
_DAY = "26 Jul 2024"
# What no template holds and none has a reason to change.
_MARK = "answer4321"


def has_template(tokenizer: Any) -> bool:
    """Whether the tokenizer came with a chat template."""
    return bool(tokenizer.chat_template)


def turn(tokenizer: Any, text: str) -> str:
    """`text` as the user's turn, up to where the assistant's answer begins.

    White space at its ends is dropped: a cue's line break has no place in a message.

    Raises:
      ValueError: the template cannot say it.
    """
    return _rendered(tokenizer, [("user", text.strip())], answer_opens=True)


def end_id(tokenizer: Any) -> int | None:
    """The special token that ends the assistant's turn; None: the template has none.

    Raises:
      ValueError: the template cannot say it.
    """
    said = [("user", "question"), ("assistant", _MARK)]
    text = _rendered(tokenizer, said, answer_opens=False)
    ids = hf.encode(tokenizer, text.rpartition(_MARK)[2].strip())
    return ids[0] if ids and ids[0] in tokenizer.all_special_ids else None


def _rendered(
    tokenizer: Any, said: list[tuple[str, str]], *, answer_opens: bool
) -> str:
    with reading.boundary(
        "model.path",
        wrong="its chat template does not take a user's turn",
        fix="set model.chat='none', or correct chat_template.jinja",
        foreign=True,
    ):
        return tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in said],
            tokenize=False,
            add_generation_prompt=answer_opens,
            # Read by the templates that know them; an answer is trained as it is
            # given, without a thought before it.
            enable_thinking=False,
            date_string=_DAY,
        )
