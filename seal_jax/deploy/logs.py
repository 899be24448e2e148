"""Sessions as files: what a run writes down by day, and logs from elsewhere.

One JSON object a line, in either of two forms:

    {"context": "...", "turns": [{"q": "...", "a": "..."}], "title": "..."}
    {"messages": [{"role": "system", "content": "..."}, {"role": "user", ...}, ...]}

The first is what a run writes (`sessions.jsonl`). Of the second, chat messages, the
context is what system, developer and tool messages say, in their order. Where they say
nothing it is in the first message of the user: if that ends in a question, all before
its last sentence; otherwise the whole of it, and the reply to it is no turn. A turn is
what the user says and the reply; a message's content is a text, or a list of parts of
which those of type "text" count.

Both may have `stream` or `user` (whose model learns from it), `day` (a whole number) or
`date` (2026-11-30, perhaps with more after it), and `title`, what the session is about;
else the first words of the context are.

Sessions without a context, or without a question that has an answer, are nothing to
learn from: they are left out and counted. Lines that cannot be read are refused.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seal_jax.runtime import files, reading
from seal_jax.tasks import self_edit

NAME = "sessions.jsonl"

_CONTEXT_ROLES = ("system", "developer", "tool", "function")
_ROLES = (*_CONTEXT_ROLES, "user", "assistant")
_LONGEST_TITLE = 60
# Days between the first and the last of a log, at most.
_MOST_DAYS = 10_000
# Of lines that cannot be read, those that an error names beside the first.
_NAMED = 5


class Logged(NamedTuple):
    """One session: whose, when (None: it was not told), about what, and its turns."""

    where: str
    stream: str
    day: int | str | None
    title: str
    context: str
    turns: tuple[tuple[str, str], ...]


class Log(NamedTuple):
    """A file's sessions by stream, then by day.

    `bare`: how many more it has that are nothing to learn from.
    """

    streams: list[list[list[Logged]]]
    bare: int


def read(path: str | Path) -> list[list[list[Logged]]]:
    """The sessions of a file by stream, then by day: see `load`."""
    return load(path).streams


def load(path: str | Path) -> Log:
    """The sessions of a file that are something to learn from; streams as they occur.

    Whole numbers of days are counted from the first of the file on, and a stream may
    have days without sessions; of dates each that occurs is a day. Days that are told
    nowhere: one list, in the order of the file, is all of a stream.

    Raises:
      ValueError: no session, or lines that are none; file and lines are named.
      OSError: it cannot be read.
    """
    refused: dict[int, str] = {}
    found: list[Logged] = []
    for number, row in files.read_numbered(path, refused):
        try:
            found.append(_session(f"{path} line {number}", row))
        except ValueError as error:
            refused[number] = str(error)
    if refused:
        raise ValueError(_refusal(refused))
    sessions = [session for session in found if session.context and session.turns]
    if not sessions:
        raise ValueError(
            f"{path}: must hold a session with a context and a question that has an "
            f"answer, of {len(found)} none has; give a file with some"
        )
    days = _days(sessions)
    count = max(days.values()) + 1
    streams: dict[str, list[list[Logged]]] = {}
    for session in sessions:
        own = streams.setdefault(session.stream, [[] for _ in range(count)])
        own[days[session.day]].append(session)
    return Log(list(streams.values()), len(found) - len(sessions))


def _refusal(refused: Mapping[int, str]) -> str:
    """What is wrong with the first line that cannot be read, and where others are."""
    first, *others = sorted(refused)
    if not others:
        return refused[first]
    named = ", ".join(map(str, others[:_NAMED]))
    more = len(others) - _NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"{refused[first]}; nor can be read: line {named}{rest}"


def _days(sessions: Sequence[Logged]) -> dict[int | str | None, int]:
    """The place of each day that is told."""
    first = sessions[0]
    kind = type(first.day)
    for session in sessions:
        if type(session.day) is not kind:
            raise ValueError(
                f"{session.where}: must tell its day as {first.where} does, as a whole "
                "number (day), a text (date) or not at all; use one of them throughout"
            )
    told = [session.day for session in sessions]
    dates = sorted({day for day in told if isinstance(day, str)})
    numbers = sorted({day for day in told if isinstance(day, int)})
    if not numbers:
        return {None: 0, **{day: i for i, day in enumerate(dates)}}
    low, high = numbers[0], numbers[-1]
    if high - low >= _MOST_DAYS:
        raise ValueError(
            f"{first.where}: days run from {low} to {high} in this file and must be "
            f"fewer than {_MOST_DAYS} apart; number them from 1 on"
        )
    return {day: day - low for day in numbers}


def rows(sessions: Sequence[Logged], **more: Any) -> list[dict[str, Any]]:
    """Lines of `sessions.jsonl`; `more` stands before what each says itself."""
    return [
        {
            **more,
            "stream": s.stream,
            "day": s.day,
            "title": s.title,
            "context": s.context,
            "turns": [{"q": q, "a": a} for q, a in s.turns],
        }
        for s in sessions
    ]


# One line


def _session(where: str, row: Any) -> Logged:
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}: must be an object with messages, or with context and turns; "
            "correct it"
        )
    if (odd := reading.surrogate(row)) is not None:
        raise ValueError(
            f"{where}: {reading.shorten(odd)[:40]!r} must be text without lone "
            "surrogates; write it again as UTF-8"
        )
    if "arm" in row and not isinstance(row["arm"], str):
        raise ValueError(f"{where}: arm must be text; correct it")
    chat = row.get("messages") is not None
    context, turns = _chat(where, row) if chat else _plain(where, row)
    turns = [(q, a) for q, a in turns if q and a]
    title = row.get("title") or ""
    if not isinstance(title, str):
        raise ValueError(f"{where}: title must be text; correct it")
    return Logged(
        where,
        _name(where, row),
        _day(where, row),
        title.strip() or _first_words(context),
        context,
        tuple(turns),
    )


def _name(where: str, row: Mapping[str, Any]) -> str:
    """Whose session it is, of its own arm's in what a run of several wrote."""
    for key in ("stream", "user"):
        value = row.get(key)
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(
                f"{where}: {key}={reading.shorten(repr(value))[:40]} must be a name or "
                "a whole number; correct it"
            )
        return f"{row['arm']}/{value}" if "arm" in row else str(value)
    return row.get("arm", "")


def _day(where: str, row: Mapping[str, Any]) -> int | str | None:
    day, date = row.get("day"), row.get("date")
    if day is not None and (isinstance(day, bool) or not isinstance(day, int)):
        raise ValueError(
            f"{where}: day={reading.shorten(repr(day))[:40]} must be a whole number; "
            "correct it, or use date"
        )
    if date is not None and not isinstance(date, str):
        raise ValueError(
            f"{where}: date={reading.shorten(repr(date))[:40]} must be text such as "
            "'2026-11-30'; correct it"
        )
    if day is not None or date is None or not date.strip():
        return day
    # Of a moment the day. Written otherwise, texts do not sort by time.
    match = _DATE.match(date.strip())
    try:
        numbers = map(int, match.groups()) if match else ()
        return datetime.date(*numbers).isoformat()
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: date={reading.shorten(repr(date))[:40]} must begin with year, "
            "month and day, as in '2026-11-30'; write it so, or number days (day)"
        ) from None


_DATE = re.compile(r"([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})(?![0-9])")


def _first_words(context: str) -> str:
    """The first line, or as many words of it as a title has room for."""
    if not context:
        return ""
    first = context.splitlines()[0].strip()
    if len(first) <= _LONGEST_TITLE:
        return first
    cut = first[: _LONGEST_TITLE + 1].rsplit(None, 1)[0]
    return cut[:_LONGEST_TITLE]


def _plain(where: str, row: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    context, turns = row.get("context"), row.get("turns")
    if not isinstance(context, str) or not isinstance(turns, list):
        raise ValueError(
            f"{where}: must have messages, or context (text) and turns (a list); "
            "correct it"
        )
    pairs = []
    for turn in turns:
        asked, answer = (
            (turn.get("q"), turn.get("a")) if isinstance(turn, dict) else (None, None)
        )
        if not isinstance(asked, str) or not isinstance(answer, str):
            raise ValueError(
                f"{where}: a turn must be an object with the texts q and a; correct it"
            )
        pairs.append((asked.strip(), answer.strip()))
    return context.strip(), pairs


def _chat(where: str, row: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    messages = row["messages"]
    if not isinstance(messages, list):
        raise ValueError(f"{where}: messages must be a list; correct it")
    told: list[str] = []
    # Neighbours that say something by turns: what several messages say is one saying.
    spoken: list[tuple[str, list[str]]] = []
    for i, message in enumerate(messages):
        given = message.get("role") if isinstance(message, dict) else None
        role = given.strip().lower() if isinstance(given, str) else None
        if role not in _ROLES:
            raise ValueError(
                f"{where}: message {i}: role={reading.shorten(repr(given))[:40]} must "
                f"be one of {', '.join(_ROLES)}; correct it"
            )
        text = _content(f"{where}: message {i}", message.get("content"))
        if not text:
            continue
        if role in _CONTEXT_ROLES:
            told.append(text)
        elif spoken and spoken[-1][0] == role:
            spoken[-1][1].append(text)
        else:
            spoken.append((role, [text]))
    if spoken and spoken[0][0] == "assistant":
        spoken = spoken[1:]  # A greeting answers nothing.
    said = ["\n".join(texts) for _, texts in spoken]
    turns = list(zip(said[::2], said[1::2], strict=False))
    if told or not said:
        return "\n\n".join(told), turns
    context, question = _divided(said[0])
    rest = turns[1:]
    return context, [(question, turns[0][1]), *rest] if question and turns else rest


def _content(where: str, content: Any) -> str:
    """A message's text; of parts those that are text, and nothing of none."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, list):
        raise ValueError(
            f"{where}: content must be text or a list of parts; correct it"
        )
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part.strip())
        elif isinstance(part, dict) and part.get("type") == "text":
            if not isinstance(part.get("text"), str):
                raise ValueError(f"{where}: a part of type text must have one; add it")
            texts.append(part["text"].strip())
        elif not isinstance(part, dict):
            raise ValueError(
                f"{where}: a part must be text or an object with a type; correct it"
            )
    return "\n".join(filter(None, texts))


# Where a question may begin on a new line.
_BEFORE_QUESTION = re.compile(
    r"\n[ \t]*\n\s*|\n\s*(?=(?:Who|Whom|Whose|What|When|Where|Which|Why|How|Is|Are|Was|"
    r"Were|Do|Does|Did|Can|Could|Will|Would|Should|Has|Have|Had)\b)"
)
_QUESTION = re.compile(r"[?？][\"'”’)\]」』）]*$")


def _divided(text: str) -> tuple[str, str]:
    """A message as context and question; no question if it does not end in one.

    A question begins after the end of a sentence, after an empty line, or with a line
    whose first word asks: at other line breaks it may only be wrapped.
    """
    if not _QUESTION.search(text):
        return text, ""
    starts = [0, *(match.end() for match in _BEFORE_QUESTION.finditer(text))]
    # As sentences are told elsewhere, where an abbreviation ends none.
    flat = " ".join(text[starts[-1] :].split())
    words = len(self_edit.sentences(flat)[-1].split())
    start = list(re.finditer(r"\S+", text))[-words].start()
    return text[:start].strip(), text[start:]
