"""What every knowledge task hands to the round: passages with questions."""

import dataclasses


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
