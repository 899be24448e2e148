"""What tasks share: passages with questions, and the form of a pretraining corpus."""

import dataclasses
import random
import re
from collections.abc import Callable
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Question:
    """One question and its gold answer."""

    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Passage:
    """A titled text, and the questions that are asked about it without it.

    `oracle` is an ideal self-edit where a task can write one (a generated world can, a
    corpus cannot). Only the ladder's `oracle` row reads it.
    """

    id: str
    title: str
    text: str
    questions: tuple[Question, ...]
    oracle: str | None = None


# (text, loss weight of its tokens); None as text is the end-of-text token.
type Pieces = list[tuple[str | None, float]]


class Corpus(NamedTuple):
    """What `pretrain` needs of a generated world.

    `words` are all words, as `pattern` finds them; `document` draws one at a point of
    the run in 0..1; `probes` are kinds of documents by name, judged by the tokens of
    loss weight `value`.
    """

    words: list[str]
    pattern: re.Pattern[str]
    document: Callable[[random.Random, float], Pieces]
    probes: Callable[[random.Random], dict[str, Callable[[], Pieces]]]
    value: float
