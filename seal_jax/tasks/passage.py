"""What tasks share: passages with questions, and the form of a pretraining corpus."""

import dataclasses
import hashlib
import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self


@dataclasses.dataclass(frozen=True)
class Question:
    """One question and its gold answer."""

    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Passage:
    """A titled text, and the questions that are asked about it without it.

    `oracle` is an ideal self-edit where a task can write one (a generated world can, a
    corpus cannot). Only the ladder's `oracle` row reads it. `rephrased` asks the same,
    one question for each of `questions`, in a form that no training has seen; empty
    where a task cannot write one.
    """

    id: str
    title: str
    text: str
    questions: tuple[Question, ...]
    oracle: str | None = None
    rephrased: tuple[Question, ...] = ()

    @classmethod
    def of(
        cls, title: str, text: str, questions: Sequence[tuple[str, str]] = ()
    ) -> Self:
        """A passage with pairs of question and answer; title and text give its id."""
        asked = tuple(Question(*pair) for pair in questions)
        return cls(passage_id(title, text), title, text, asked)


def passage_id(title: str, text: str) -> str:
    """12 hex digits that name a passage in records and seeds, wherever it came from."""
    return hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:12]


def part(
    texts: Sequence[Passage], source: str, *, start: int, count: int, asked: bool = True
) -> list[Passage]:
    """`count` passages from number `start` on, 0 being the first.

    Raises:
      ValueError: there are fewer; or they are to be `asked` about, and one has no
        questions.
    """
    if start < 0 or count < 1:
        raise ValueError(
            f"start={start}, count={count}: must be at least 0 and at least 1"
        )
    if start + count > len(texts):
        raise ValueError(
            f"start={start} + count={count} passages must be at most the {len(texts)} "
            f"of {source}; ask for fewer or give more data"
        )
    chosen = list(texts[start : start + count])
    for passage in chosen if asked else ():
        if not passage.questions:
            raise ValueError(
                f"{source}: passage {passage.text[:40]!r} of {passage.title!r} must "
                "have a question to be scored by; add one or remove the record"
            )
    return chosen


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
