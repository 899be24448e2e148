"""Passages of any table: rows by `rows`, columns as the config names them.

A passage is a row, or all rows that share its id, or else its title and text; each may
bring a question. There need be none: such passages are written about, trained on and
judged without labels.
"""

import logging
import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from seal_jax.runtime import reading
from seal_jax.tasks import rows
from seal_jax.tasks.passage import Passage, Question, passage_id
from seal_jax.tasks.settings import ColumnsConfig

log = logging.getLogger(__name__)

FIX = (
    "give a .json, .jsonl, .csv, .tsv, .parquet, .txt or .md file, a folder of them, "
    "or a hub name such as rajpurkar/squad; see docs/own_data.md"
)
# Of whole files, whose title is their name.
_TEXTS = ColumnsConfig(rows.TEXT, rows.TITLE, "", "", "", "")
_LONGEST_NAME = 200
# Whole floats below it are the number that was meant.
_EXACT = 2**53


def load(
    source: str, *, columns: ColumnsConfig | None, split: str, seed: int | None
) -> list[Passage]:
    """Every passage of `source`, shuffled as by `squad.load`; None keeps the order.

    Raises:
      ValueError: not in its format, a column that is not there, a row without text, or
        two rows of one id that differ; file and row are named.
      FileNotFoundError: no such source.
    """
    if not source:
        raise ValueError(
            "task.train and task.heldout must name your data, and one is ''; give a "
            "file, a folder or a hub name, such as --config.task.train=notes/"
        )
    table = rows.read(source, split=split, fix=FIX)
    if table.texts:
        columns = _TEXTS
    if columns is None:
        raise ValueError(
            f"{source}: has columns, and task.columns must say which holds the text; "
            "add that group to the config, see configs/own.py"
        )
    texts = _grouped(table, columns)
    if seed is not None:
        random.Random(seed).shuffle(texts)
    return texts


class _Cell(NamedTuple):
    """A row as it was read: what passage it is of, and its questions."""

    where: str
    id: str
    title: str
    text: str
    questions: list[Question]
    blank: int


def _grouped(table: rows.Table, columns: ColumnsConfig) -> list[Passage]:
    inside = columns.questions != ""
    rows.check_columns(
        table,
        {
            f"task.columns.{name}": column
            for name in ("text", "title", "id", "question", "answer", "questions")
            if (column := getattr(columns, name))
            # Beside `questions` these two are keys of what is in it.
            and not (inside and name in ("question", "answer"))
        },
    )
    read = [_read(table, row, columns) for row in table.rows]
    if bare := [cell.where for cell in read if not cell.text.strip()]:
        raise ValueError(
            f"{bare[0]}{f' and {len(bare) - 1} more' * (len(bare) > 1)} must have text"
            f"{f' in {columns.text!r}' * (not table.texts)}; fill it in, or remove it"
        )
    first: dict[str, _Cell] = {}
    asked: dict[str, list[Question]] = {}
    for cell in read:
        before = first.setdefault(cell.id, cell)
        if (before.title, before.text) != (cell.title, cell.text):
            raise ValueError(
                f"{cell.where}: has the id {reading.shorten(cell.id)!r} of "
                f"{before.where}, and another title or text; give each its own"
            )
        asked.setdefault(cell.id, []).extend(cell.questions)
    if blank := sum(cell.blank for cell in read):
        log.warning(
            "%s: %d questions left out, blank or with blank answers", table.name, blank
        )
    return [
        Passage(cell.id, cell.title, cell.text, tuple(asked[cell.id]))
        for cell in first.values()
    ]


def _read(table: rows.Table, row: rows.Row, columns: ColumnsConfig) -> _Cell:
    text = rows.value(row, columns.text)
    text = None if _is_nan(text) else text
    if text is not None and not isinstance(text, str):
        raise ValueError(
            f"{row.where}: {columns.text}={reading.shorten(repr(text))[:40]} must be "
            "text; correct it, or name another column in task.columns.text"
        )
    title = _word(row, columns.title).strip() or table.title
    name = _word(row, columns.id).strip()
    if columns.id and not (0 < len(name) <= _LONGEST_NAME and name.isprintable()):
        raise ValueError(
            f"{row.where}: {columns.id}={reading.shorten(name)[:40]!r} must be a name "
            f"of at most {_LONGEST_NAME} printable characters; correct it"
        )
    pairs = list(_pairs(row, columns))
    good = [Question(q, a) for q, a in pairs if q.strip() and a.strip()]
    # Without either there was no question; with one of them it is not whole.
    blank = sum(bool(q.strip() or a.strip()) for q, a in pairs) - len(good)
    text = text or ""
    return _Cell(row.where, name or passage_id(title, text), title, text, good, blank)


def _pairs(row: rows.Row, columns: ColumnsConfig) -> Iterator[tuple[str, str]]:
    """Questions and answers of a row, blank ones among them."""
    keys = columns.question or "question", columns.answer or "answer"
    if not columns.questions:
        if columns.question:
            yield _word(row, keys[0]), _word(row, keys[1])
        return
    entries = rows.value(row, columns.questions)
    if entries is None:
        return
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise ValueError(
            f"{row.where}: {columns.questions}={reading.shorten(repr(entries))[:40]} "
            f"must be a list of objects with {keys[0]} and {keys[1]}; correct it"
        )
    for i, entry in enumerate(entries):
        inner = rows.Row(f"{row.where}, question {i}", entry)
        for key in keys:
            if rows.value(inner, key) is None:
                raise ValueError(
                    f"{inner.where}: {key} is missing; add it (keys there: "
                    f"{reading.shorten(', '.join(map(str, entry)))})"
                )
        yield _word(inner, keys[0]), _word(inner, keys[1])


def _word(row: rows.Row, column: str) -> str:
    """A text of a row; a number as it is written, of a list the first that is no blank.

    A column of whole numbers with gaps is one of floats to most tools, nan in the gaps:
    nan is nothing here, and 7.0 is "7".

    Raises:
      ValueError: something else.
    """
    given: Any = rows.value(row, column) if column else None
    if isinstance(given, list):
        told = (g for g in given if not isinstance(g, str) or g.strip())
        given = next((g for g in told if not _is_nan(g)), None)
    if given is None or _is_nan(given):
        return ""
    if isinstance(given, str):
        return given
    if isinstance(given, float) and given.is_integer() and abs(given) < _EXACT:
        given = int(given)
    if isinstance(given, int | float) and not isinstance(given, bool):
        return str(given)
    raise ValueError(
        f"{row.where}: {column}={reading.shorten(repr(given))[:40]} must be text; "
        "correct it, or name another column"
    )


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
