"""SQuAD v1.1 as knowledge incorporation: learn a passage, answer without it.

Origin: Rajpurkar et al. 2016, https://rajpurkar.github.io/SQuAD-explorer/, paragraphs
of English Wikipedia articles with questions by crowd workers; licence CC BY-SA 4.0,
which also covers every file that holds its passages. The hub calls it
"rajpurkar/squad". A local file is JSON in SEAL's format, a list of records like this
one (made up):

    {"title": "Karsk", "context": "Karsk has had a harbour since 1204. ...",
     "questions": [{"question": "Since when has Karsk had a harbour?",
                    "answer": "1204"}]}

Each question has one gold answer. Other keys are left alone, so SEAL's files of
self-edits can be given as well. The same records, or rows like the hub's, may be in a
file of another kind that `rows` reads. Data with columns of its own is `columns`'.
"""

import logging
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seal_jax.runtime import files, reading
from seal_jax.tasks import hub, rows
from seal_jax.tasks.passage import Passage, Question, passage_id

log = logging.getLogger(__name__)

# The seed whose shuffle the SEAL authors took their passages from.
SEAL_SEED = 42

FIX = (
    "give a JSON file in SEAL's format or a hub name such as rajpurkar/squad (see the "
    "head of seal_jax/tasks/squad.py), or use --config=tiny, which needs no data"
)


def load(source: str | Path, *, split: str, seed: int | None) -> list[Passage]:
    """Every passage of `source`, shuffled.

    Args:
      source: a local file, or a hub name of the form owner/name whose rows look
        like SQuAD's. A passage is then all rows of one context, in order of first
        appearance; a question's gold answer is its first one that is not blank, and
        questions without an answer (SQuAD v2 has them) are left out.
      split: the hub's split, such as "train" or "validation"; unused for a file.
      seed: of Python's own shuffle, which with `SEAL_SEED` gives the order of the SEAL
        authors' experiments; None keeps the order of the source.

    Returns:
      passages with distinct ids, which depend on title and text alone. One without
      questions is among them, so that leaving it out moves no other.

    Raises:
      FileNotFoundError: no such file; or the hub cannot be reached or lacks the name.
      ValueError: not in the format (record and key are named), or nothing in it.
    """
    path = Path(source)
    with reading.boundary(source, wrong="must be passages", fix=FIX):
        if files.is_file(path) and rows.kind_of(path) not in rows.TABLES[1:]:
            records = files.read_data(path)
        elif files.is_file(path):
            table = [row.values for row in rows.read(path, fix=FIX).rows]
            # Records of SEAL's, a row each; or rows as the hub has them.
            nested = any("questions" in row for row in table)
            records = table if nested else group(table, str(source))
        else:
            records = group(hub.rows(str(source), split, fix=FIX), f"data={source}")
        texts = parse(records, str(source))
    if seed is not None:
        random.Random(seed).shuffle(texts)
    return texts


def parse(records: Any, name: str) -> list[Passage]:
    """Passages of records in SEAL's format; `name` is the source in messages.

    Raises:
      ValueError: as `load`.
    """
    if not isinstance(records, list) or not records:
        what = "an empty list" if records == [] else f"a {type(records).__name__}"
        raise ValueError(
            f"{name}: must be a list of at least one passage, not {what}; each is "
            '{"title", "context", "questions"}'
        )
    passages, seen = [], {}
    for index, record in enumerate(records):
        where = f"{name}: record {index}"
        passage = _parse_record(record, where)
        if passage.id in seen:
            raise ValueError(
                f"{where} must not repeat the passage of record {seen[passage.id]}; "
                "remove one of them"
            )
        seen[passage.id] = index
        passages.append(passage)
    return passages


def group(
    rows: Iterable[Mapping[str, Any]], name: str = "rows"
) -> list[dict[str, Any]]:
    """Records in SEAL's format from rows in the hub's, one question each.

    A question that is blank, or whose answers all are, is left out; how many were is
    logged under `name`. Those that have no answer at all are not counted.

    Raises:
      ValueError: a row lacks one of SQuAD's columns, or has one of another type.
    """
    records: dict[tuple[str, str], dict[str, Any]] = {}
    blank = 0
    for index, row in enumerate(rows):
        match row:
            case {
                "title": str(title),
                "context": str(context),
                "question": str(question),
                "answers": {"text": list(answers)},
            } if all(isinstance(answer, str) for answer in answers):
                pass
            case _:
                raise ValueError(
                    f"{name}: row {index}: must have title, context, question and "
                    "answers.text, texts and a list of texts, as SQuAD's rows, not "
                    f"{row!r:.80}; "
                    "name its columns (task.name='passages' and task.columns, or "
                    "evaluate --column), or give data of that form"
                )
        # The hub's titles are those of Wikipedia's addresses.
        title = title.replace("_", " ")
        record = records.setdefault(
            (title, context), {"title": title, "context": context, "questions": []}
        )
        answer = next((answer for answer in answers if answer.strip()), None)
        if answer is not None and question.strip():
            record["questions"].append({"question": question, "answer": answer})
        elif answers:
            blank += 1
    if blank:
        log.warning(
            "%s: %d questions left out, blank or with blank answers", name, blank
        )
    return list(records.values())


def _parse_record(record: Any, where: str) -> Passage:
    title, context = _text(record, "title", where), _text(record, "context", where)
    entries = record.get("questions")
    if not isinstance(entries, list):
        raise ValueError(
            f"{where}: questions={entries!r:.40} must be a list of "
            '{"question", "answer"}; correct it'
        )
    questions = tuple(
        Question(
            _text(entry, "question", f"{where}, question {i}"),
            _text(entry, "answer", f"{where}, question {i}"),
        )
        for i, entry in enumerate(entries)
    )
    return Passage(passage_id(title, context), title, context, questions)


def _text(entry: Any, key: str, where: str) -> str:
    if not isinstance(entry, dict):
        raise ValueError(
            f"{where}: {entry!r:.40} must be a JSON object with a {key}; see the head "
            "of seal_jax/tasks/squad.py"
        )
    if key not in entry:
        raise ValueError(
            f"{where}: {key} is missing; add it (keys there: {', '.join(entry)})"
        )
    value = entry[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key}={value!r:.40} must be text; fill it in")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(
            f"{where}: {key}={value!r:.40} must be text without lone surrogates; "
            "write it again as UTF-8"
        )
    return value
