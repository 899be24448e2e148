"""Training lines as tokens, and what each of them is learned by.

A prompt and what follows it are encoded apart and joined, for student and teacher
alike: a word that straddled the seam would otherwise be other tokens on one side.
"""

from collections.abc import Sequence
from typing import NamedTuple

from seal_jax.tasks.base import Again, Encoder
from seal_jax.training.plan import Taught


class Lesson(NamedTuple):
    """One training line.

    `given`: leading tokens that are no targets. `taught`: what a teacher reads whose
    distribution is learned in place of the tokens, or None. `cut`: whether the line is
    longer than a row takes and ends there.
    """

    ids: tuple[int, ...]
    given: int = 1
    taught: Taught | None = None
    cut: bool = False


def line(encoder: Encoder, text: str, limit: int) -> Lesson:
    """A title, and what is told under it, by cross-entropy.

    `limit`: tokens of the longest line.
    """
    ids = encoder.line(text)
    return Lesson(tuple(ids[:limit]), cut=len(ids) > limit)


def answer(
    encoder: Encoder,
    question: Again,
    text: str,
    *,
    limit: int,
    most: int,
    taught: bool,
    skip: int,
) -> Lesson:
    """The answer to a question without its passage, end-of-text included.

    `limit`: tokens of the longest line; `most`: of an answer. `taught`: by the model
    that has the passage in view, in place of the tokens; the first `skip` of them are
    not learned then.
    """
    prompt, tail = encoder.sequence(question.closed), encoder.encode(text)
    room = min(most, max(0, limit - len(prompt)))
    cut, tail = len(tail) > room, tail[:room]
    teacher = None
    if taught:
        seen = encoder.sequence(question.in_view)
        # Cut, the line has no end-of-text.
        count = len(tail) + (not cut)
        teacher = Taught((*seen, *tail), len(seen), count, min(skip, count - 1))
    return Lesson((*prompt, *tail), len(prompt), teacher, cut)


def statements(
    encoder: Encoder, prompt: str, lines: Sequence[str], *, limit: int
) -> list[Lesson]:
    """Lines of a self-edit, taught by the model as it wrote them.

    The teacher has read the prompt for self-edits and the lines before. Its
    distribution is that of a line's tokens; that it ends there is learned by
    cross-entropy, since the teacher goes on to the next line. A line before which there
    is more than the model can take has no teacher, and is learned by cross-entropy.

    Args:
      encoder: the model's.
      prompt: what the self-edit was written after.
      lines: title, line break, text.
      limit: tokens of the longest line.
    """
    made, before = [], ""
    for text in lines:
        title, _, told = text.partition("\n")
        # What the student reads before the line, and the line.
        whole = encoder.line(f"{title}\n")
        tail = encoder.encode(told)
        room = max(0, limit - len(whole))
        cut, tail = len(tail) > room, tail[:room]
        seen = [*encoder.sequence(prompt), *encoder.encode(before)]
        fits = bool(tail) and len(seen) + len(tail) <= encoder.context
        teacher = Taught((*seen, *tail), len(seen), len(tail)) if fits else None
        made.append(Lesson((*whole, *tail), len(whole), teacher, cut))
        before += f"{told}\n"
    return made
