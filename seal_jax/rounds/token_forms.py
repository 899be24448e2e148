"""The text steps of a knowledge task as tables over token ids: what a device can do.

The round in one program (`rounds.on_device`) sees no text. It can split an edit into
lines, refuse it and grade an answer on token ids alone where each token is one word or
one mark, a line break is a token, and the text of ids, encoded again, gives the same
ids. `words` finds out whether a tokenizer is of that kind, and says what each of its
tokens is; `sheet` has the passages as arrays. No jax.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from seal_jax.tasks import wordwise
from seal_jax.tasks.knowledge import Knowledge
from seal_jax.tasks.passage import Passage

BREAK, QUESTION, ANSWER, COLON = "\n", "Question", "Answer", ":"
NOTHING = -1

# One token's text: a word without digits, or a mark that no rule of `self_edit` reads.
_WORD = re.compile(r"[^\W\d_]+")
_MARK = re.compile(r"[^\w\s-]")


# The leaves of tables are numpy arrays on the host, and jax arrays in a program.
class Words(NamedTuple):
    """What the tokens of a vocabulary are; arrays `[V]` unless said otherwise.

    `dropped`: those that no text shows. `said`: words, not marks. `word`: the same
    number for tokens that a grader takes as the same word, NOTHING for those that it
    does not see. `size`: characters, the space before a word included. `of_break`,
    `of_question`, `of_answer` and `of_colon` are ids, `[]`; NOTHING: there is no such
    token. `label`: ids `[N]` of the "Question 1:" that a first question is given.
    """

    dropped: Any
    said: Any
    word: Any
    size: Any
    of_break: Any
    of_question: Any
    of_answer: Any
    of_colon: Any
    label: Any


def words(
    encode: Callable[[str], list[int]], decode: Callable[[list[int]], str], size: int
) -> Words:
    """The tables of a tokenizer of `size` ids.

    Raises:
      ValueError: its texts have no form on tokens.
    """
    texts = [decode([i]) for i in range(size)]
    ids = [i for i, text in enumerate(texts) if text]
    for i in ids:
        whole = texts[i] == BREAK or _WORD.fullmatch(texts[i]) or _MARK.match(texts[i])
        labelled = any(x in texts[i] for x in (QUESTION, ANSWER)) and texts[i] not in (
            QUESTION,
            ANSWER,
        )
        if not whole or labelled or encode(texts[i]) != [i]:
            raise _formless(f"its token {texts[i]!r} is no word, mark or line break")
    spoken = [i for i in ids if _WORD.fullmatch(texts[i])]
    marks = [i for i in ids if i not in set(spoken)]
    # Every word beside another, and every token beside every mark on either side.
    chain = [*spoken, *(j for i in ids for mark in marks for j in (mark, i, mark))]
    if BREAK not in texts or not spoken or encode(decode(chain)) != chain:
        raise _formless("a text, taken apart again, gives other tokens")
    normal = {i: wordwise.normalize(texts[i]) for i in ids}
    numbers = {word: n for n, word in enumerate(sorted({*normal.values()} - {""}))}

    def of(text: str) -> np.ndarray:
        return np.array(texts.index(text) if text in texts else NOTHING, np.int32)

    return Words(
        dropped=np.array([not text for text in texts]),
        said=np.isin(np.arange(size), spoken),
        word=np.array(
            [numbers.get(normal.get(i, ""), NOTHING) for i in range(size)], np.int32
        ),
        size=np.array(
            [len(text) + (i in set(spoken)) for i, text in enumerate(texts)], np.int32
        ),
        of_break=of(BREAK),
        of_question=of(QUESTION),
        of_answer=of(ANSWER),
        of_colon=of(COLON),
        label=np.array(encode("Question 1: "), np.int32),
    )


def _formless(why: str) -> ValueError:
    return ValueError(
        f"model.path: {why}, so a round has no form on its tokens; use a word-level "
        "tokenizer such as that of embedded:tiny, or leave the group over_seeds out"
    )


class Sizes(NamedTuple):
    """The widths of a sheet's arrays: what a program is compiled for.

    `line` is the longest line that is trained (`knowledge.longest_line`); `gold` counts
    words of an answer, `fixed` tokens of an edit that no policy wrote.
    """

    prompt: int
    head: int
    line: int
    questions: int
    question: int
    gold: int
    fixed: int

    def joined(self, other: "Sizes") -> "Sizes":
        """Sizes for the passages of both."""
        return Sizes(*map(max, self, other))


class Sheet(NamedTuple):
    """P passages as token ids, each list padded with zeros to the right.

    `prompt`: what a self-edit continues; `head`: the title and the line break that
    begin a training line; `passage`: the training line of the passage itself. `prompts`
    and `gold` have a row for each of Q questions, the latter in numbers of `Words.word`
    and padded with NOTHING; `needed` counts the words that make an answer right. Fields
    in `_size` count tokens; a question that is not there has none.
    """

    prompt: Any
    prompt_size: Any
    head: Any
    head_size: Any
    passage: Any
    passage_size: Any
    prompts: Any
    prompts_size: Any
    gold: Any
    needed: Any


def sizes(
    task: Knowledge, passages: Sequence[Passage], arms: Sequence[str], *, line: int
) -> Sizes:
    """The least widths that these passages, and the fixed edits of `arms`, fit."""

    def longest(texts: Sequence[str]) -> int:
        return max((len(task.blank.encode(text)) for text in texts), default=0)

    fixed = [
        text for arm in arms for p in passages for text in task.fixed(arm, p) or ()
    ]
    return Sizes(
        prompt=longest([task.propose_prompt(p) for p in passages]),
        head=longest([f"{p.title}\n" for p in passages]),
        line=line,
        questions=max(len(p.questions) for p in passages),
        question=longest([prompt for p in passages for prompt in task.prompts(p)]),
        gold=longest([gold for p in passages for gold in task.gold(p)]),
        fixed=longest(fixed),
    )


def sheet(
    task: Knowledge,
    passages: Sequence[Passage],
    tables: Words,
    sizes: Sizes,
    *,
    threshold: float,
) -> Sheet:
    """The passages as arrays.

    Args:
      task: of the passages.
      passages: P of them.
      tables: of the model's tokenizer.
      sizes: widths; the longest of a kind fits.
      threshold: share of a gold answer's words that makes an answer right.

    Raises:
      ValueError: a text with words that the model does not know, or a gold answer
        without any that a grader sees.
    """
    encode = task.blank.encode
    golds = [[_gold(encode(g), tables, p) for g in task.gold(p)] for p in passages]
    missing = [[()] * (sizes.questions - len(p.questions)) for p in passages]
    prompts = [
        [*map(encode, task.prompts(p)), *none]
        for p, none in zip(passages, missing, strict=True)
    ]
    padded = [[*g, *none] for g, none in zip(golds, missing, strict=True)]
    prompt = [encode(task.propose_prompt(p)) for p in passages]
    head = [encode(f"{p.title}\n") for p in passages]
    line = [encode(f"{p.title}\n{p.text}") for p in passages]
    shape = (len(passages), sizes.questions)
    flat = [row for rows in prompts for row in rows]
    flat_gold = [row for rows in padded for row in rows]
    return Sheet(
        *laid(prompt, sizes.prompt),
        *laid(head, sizes.head),
        *laid(line, sizes.line),
        laid(flat, sizes.question)[0].reshape(*shape, -1),
        laid(flat, sizes.question)[1].reshape(shape),
        laid(flat_gold, sizes.gold, NOTHING)[0].reshape(*shape, -1),
        np.array([needed(len(g), threshold) for g in flat_gold], np.int32).reshape(
            shape
        ),
    )


def fixed(
    task: Knowledge, passages: Sequence[Passage], arm: str, *, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each passage's edit of an arm that no policy writes: ids `[P, width]`, sizes."""
    texts = [(task.fixed(arm, p) or [""])[0] for p in passages]
    return laid([task.blank.encode(text) for text in texts], width)


def laid(
    rows: Sequence[Sequence[int]], width: int, blank: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows cut or padded to `width`, int32, and the lengths that they have."""
    out = np.full((len(rows), width), blank, np.int32)
    for to, row in zip(out, rows, strict=True):
        to[: len(row)] = row[:width]
    return out, np.array([len(row) for row in rows], np.int32)


def needed(count: int, threshold: float) -> int:
    """The least number of `count` words whose share reaches the threshold."""
    return next((n for n in range(count + 1) if n / max(count, 1) >= threshold), 0)


def _gold(ids: Sequence[int], tables: Words, passage: Passage) -> list[int]:
    seen = [n for i in ids if (n := int(tables.word[i])) != NOTHING]
    if not seen or tables.dropped[list(ids)].any():
        raise ValueError(
            f"passage {passage.id}: a gold answer of articles and marks alone, or of "
            "words that the model does not know, has no form on tokens; leave the "
            "passage out"
        )
    return seen
