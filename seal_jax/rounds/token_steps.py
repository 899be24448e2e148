"""What a round does with texts, on token ids, inside jit: one text at a time.

Each function is `self_edit`'s, `graders`' or `knowledge`'s of the same purpose, for
texts of a tokenizer that `token_forms.words` takes; call them under `vmap` for many.
Their agreement with the functions on strings is tested, token by token.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from seal_jax.rounds.token_forms import NOTHING, Words


class Text(NamedTuple):
    """Token ids `[N]` of which the first `size` are the text."""

    ids_N: Any
    size: Any


class Lines(NamedTuple):
    """Training lines: ids `[L, T]`, tokens of each before it was cut, their number."""

    ids_LT: Any
    size_L: Any
    number: Any


def read(ids_N: Array, count: Array, tables: Words) -> Text:
    """What was written as a text shows it: `decode`, `strip`, `encode`.

    Ids without a text are left out, and line breaks at both ends.
    """
    at_N = jnp.arange(ids_N.size)
    kept_N = (at_N < count) & ~tables.dropped[ids_N]
    inner_N = kept_N & (ids_N != tables.of_break)
    first = jnp.argmax(inner_N)
    last = ids_N.size - 1 - jnp.argmax(inner_N[::-1])
    kept_N &= inner_N.any() & (at_N >= first) & (at_N <= last)
    order_N = jnp.argsort(~kept_N, stable=True)
    size = jnp.sum(kept_N, dtype=jnp.int32)
    return Text(jnp.where(at_N < size, ids_N[order_N], 0), size)


def is_blank(text: Text, tables: Words) -> Array:
    """Whether a text says nothing (`self_edit.refusal`): marks and labels alone."""
    present_N = jnp.arange(text.ids_N.size) < text.size
    label_N = _labels(text, tables)
    return ~jnp.any(present_N & tables.said[text.ids_N] & ~label_N)


def _labels(text: Text, tables: Words) -> Array:
    """Words that are "Question:" or "Answer:" with the mark behind them."""
    ids_N = text.ids_N
    asks_N = (ids_N == tables.of_question) | (ids_N == tables.of_answer)
    following_N = jnp.append(ids_N[1:], 0)
    at_N = jnp.arange(ids_N.size)
    colon_N = (following_N == tables.of_colon) & (at_N + 1 < text.size)
    return asks_N & colon_N


def split(text: Text, tables: Words, *, lines: int, width: int) -> Lines:
    """The texts that an edit consists of, by `self_edit.split`'s rule "lines".

    Args:
      text: the edit, from `read`.
      tables: of the tokenizer.
      lines: the most that there can be; a text of N tokens has at most (N + 1) // 2.
      width: tokens of a line that are kept.
    """
    ids_N = text.ids_N
    at_N = jnp.arange(ids_N.size)
    word_N = (at_N < text.size) & (ids_N != tables.of_break)
    before_N = jnp.append(False, word_N[:-1])
    begins_N = word_N & ~before_N
    line_N = jnp.cumsum(begins_N) - 1
    start_L = jnp.nonzero(begins_N, size=lines, fill_value=ids_N.size)[0]
    column_N = at_N - start_L[jnp.clip(line_N, 0, lines - 1)]
    plain = _put(jnp.where(word_N, line_N, lines), column_N, ids_N, lines, width)
    count = jnp.sum(begins_N, dtype=jnp.int32)
    sizes_L = jnp.bincount(jnp.where(word_N, line_N, lines), length=lines)
    plain = Lines(plain, sizes_L.astype(jnp.int32), count)
    # A second line that begins with "Answer:" makes all of it one question's text,
    # whose label was in the prompt.
    second = start_L[1] if lines > 1 else ids_N.size
    named = _labels(text, tables) & (ids_N == tables.of_answer)
    asked = jnp.append(named, False)[jnp.minimum(second, ids_N.size)]
    return jax.tree.map(
        lambda a, b: jnp.where(asked, a, b), _question(text, tables, plain), plain
    )


def _question(text: Text, tables: Words, like: Lines) -> Lines:
    lines, width = like.ids_LT.shape
    room = tables.label.size
    ids = jnp.concatenate([tables.label, text.ids_N])
    at = jnp.arange(ids.size)
    row = jnp.where(at < room + text.size, 0, lines)
    size_L = jnp.zeros(lines, jnp.int32).at[0].set(room + text.size)
    return Lines(_put(row, at, ids, lines, width), size_L, jnp.int32(1))


def _put(row: Array, column: Array, ids: Array, lines: int, width: int) -> Array:
    """Ids written to their places; those outside `[lines, width]` are left out."""
    out_LT = jnp.zeros((lines, width), jnp.int32)
    return out_LT.at[row, column].set(ids, mode="drop")


def training_lines(texts: Lines, head: Text, passage: Text, *, width: int) -> Lines:
    """An edit's training lines: each text under the title, the passage the last.

    Args:
      texts: of the edit, from `split`; their ids are at least `width` wide.
      head: the title and its line break.
      passage: its training line; `size` is that before it was cut.
      width: T, where lines are cut.
    """
    lines = texts.ids_LT.shape[0] + 1
    at_T = jnp.arange(width)
    in_head_T = at_T < head.size
    head_T = head.ids_N[jnp.minimum(at_T, head.ids_N.size - 1)]
    behind_T = jnp.clip(at_T - head.size, 0, texts.ids_LT.shape[1] - 1)
    text_LT = jnp.where(in_head_T[None], head_T[None], texts.ids_LT[:, behind_T])
    size_L = texts.size_L + head.size
    is_passage_L = jnp.arange(lines) == texts.number
    passage_T = passage.ids_N[:width]
    return Lines(
        jnp.where(
            is_passage_L[:, None], passage_T[None], jnp.pad(text_LT, ((0, 1), (0, 0)))
        ),
        jnp.where(is_passage_L, passage.size, jnp.pad(size_L, (0, 1))),
        texts.number + 1,
    )


def is_right(answer: Text, gold_N: Array, needed: Array, tables: Words) -> Array:
    """Whether an answer has `needed` words of the gold one (`graders.by_recall`).

    Args:
      answer: from `read`.
      gold_N: numbers of the gold answer's words, NOTHING behind them.
      needed: from `token_forms.needed`.
      tables: of the tokenizer.
    """
    present_N = jnp.arange(answer.ids_N.size) < answer.size
    given_N = jnp.where(present_N, tables.word[answer.ids_N], NOTHING)
    same_NM = gold_N[:, None] == given_N[None, :]
    earlier_NN = jnp.tril(gold_N[:, None] == gold_N[None, :], -1)
    # The n-th of equal words is there if the answer has more than n - 1 of them.
    found_N = (same_NM.sum(1) > earlier_NN.sum(1)) & (gold_N != NOTHING)
    return (found_N.sum() >= needed) & (answer.size > 0)


def characters(text: Text, tables: Words) -> Array:
    """Length of a text as a string: marks stand beside words, breaks beside all."""
    ids_N = text.ids_N
    at_N = jnp.arange(ids_N.size)
    size_N = jnp.where(at_N < text.size, tables.size[ids_N], 0)
    # No space before a word that begins a line.
    begins_N = jnp.append(True, ids_N[:-1] == tables.of_break) & tables.said[ids_N]
    return jnp.sum(size_N) - jnp.sum(begins_N & (at_N < text.size))
