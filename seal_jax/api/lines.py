"""From what a caller gives to train on, to lines of token ids; no jax.

One adapter learns one text: a text as a whole, a (prompt, completion) pair, of which
the completion carries loss, or a list of such lines.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from seal_jax.runtime.config_rules import shown
from seal_jax.tasks.base import Encoder

type Line = str | tuple[str, str]
type Text = Line | Sequence[Line]


class Lines(NamedTuple):
    """Lines as token ids, and how many leading tokens of each carry no loss."""

    ids: tuple[tuple[int, ...], ...]
    given: tuple[int, ...]

    def words(self) -> tuple[int, int]:
        """64 bits of what is trained on, as two numbers of 32.

        Random numbers are drawn by these, so that an adapter depends on its own text
        and not on its place among others.
        """
        digest = hashlib.sha256(repr((self.ids, self.given)).encode()).digest()
        return int.from_bytes(digest[:4]), int.from_bytes(digest[4:8])


def encode(encoder: Encoder, texts: Sequence[Text]) -> list[Lines]:
    """The lines of each text.

    Raises:
      ValueError: no list, nothing in it, or a text that is blank, longer than the model
        takes, or none of what a text may be; which one, and what to do.
    """
    check_list("texts", texts, "text")
    if not texts:
        raise ValueError("texts=[] must hold a text for each adapter; give one or more")
    return [_lines(encoder, text, f"texts[{i}]") for i, text in enumerate(texts)]


def check_list(name: str, items: Any, one: str) -> None:
    """Refuses what is no list, such as a single text; `one` of it is called so.

    Raises:
      ValueError: see above.
    """
    if isinstance(items, Sequence) and not isinstance(items, str | bytes):
        return
    many = hasattr(items, "__iter__") and not isinstance(items, str | bytes)
    fix = f"give list({name})" if many else f"put it into one: [{one}]"
    raise ValueError(f"{name}={shown(items)} must be a list of {one}s; {fix}")


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Says of a text that no tokenizer reads which one it is.

    Raises:
      ValueError: what the block raised, with `name` before it.
    """
    try:
        yield
    except ValueError as error:
        said = str(error).removeprefix("text=")
        raise ValueError(f"{name}: {said}") from None


def _lines(encoder: Encoder, text: Any, name: str) -> Lines:
    if isinstance(text, list):
        if not text:
            raise ValueError(f"{name}=[] must hold a line or more; leave it out")
        laid = [_line(encoder, line, f"{name}[{i}]") for i, line in enumerate(text)]
    else:
        laid = [_line(encoder, text, name)]
    ids, given = zip(*laid, strict=True)
    return Lines(ids, given)


def _line(encoder: Encoder, line: Any, name: str) -> tuple[tuple[int, ...], int]:
    head: list[int] = []
    match line:
        case str(text):
            with named(name):
                tail = encoder.sequence(text) if text.strip() else []
        case (str(prompt), str(completion)) if isinstance(line, tuple):
            with named(name):
                head, tail = encoder.sequence(prompt), encoder.encode(completion)
        case _:
            raise ValueError(
                f"{name}={shown(line)} must be a text or a tuple (prompt, completion), "
                "or, for several lines of one adapter, a list of these; correct it"
            )
    if not tail:
        raise ValueError(
            f"{name}={shown(line)} holds nothing to learn; fill it in or leave it out"
        )
    ids = (*head, *tail)
    if len(ids) > encoder.context:
        raise ValueError(
            f"{name} has {len(ids)} tokens, the model takes {encoder.context}; split "
            "it into a list of lines, such as text.splitlines()"
        )
    # The first token is never predicted.
    return ids, max(1, len(head))
