"""What a judge said: a chat completion's text without its thoughts, and yes or no.

Endpoints differ in where they put a model's thoughts: into a field of their own, into
parts of the content, or into the text, between tags of which a chat template may have
swallowed the first. A thought is never a verdict. Whatever is not plainly a verdict is
none: a judgement that is missing is asked for again, a wrong one is kept for good.
"""

import json
import re
from typing import Any

# What ends a thought that stands in the text, and what begins one. The words are those
# of DeepSeek, Qwen and most others, of Claude-like prompts, Seed, MiniMax, Mistral,
# Kimi, Cohere and Gemma.
_TAG = r"(?:\w+:)?(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad)"
_CLOSED = re.compile(
    rf"<\s*/\s*{_TAG}\s*>|\[/THINK\]|◁/think▷|<\|end_thinking\|>|<channel\|>", re.I
)
_OPENED = re.compile(
    rf"<\s*{_TAG}(?:\s[^>]*)?>|\[THINK\]|◁think▷|<\|start_thinking\|>|<\|channel>", re.I
)
# gpt-oss labels what it writes by channels; decoded without its special tokens, the
# labels run into the text.
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^\n]{0,80}?<\|message\|>")
_BARE_CHANNEL = re.compile(r"\s*analysis(?=[A-Z]|.*assistantfinal)", re.S)

# Fields of a message, and types of parts, in which a model thinks.
_THOUGHT_FIELDS = ("reasoning", "reasoning_content", "reasoning_details", "thinking")
_TEXT_PARTS = ("text", "output_text")
# More characters than this at the limit of tokens may be a thought without its end.
_LONGEST_CUT = 60


class NoAnswerError(Exception):
    """A chat completion that holds no answer; one line says why, and what to change."""


# The completion


def text(data: bytes | str) -> str:
    """The text of a chat completion, its thoughts in other places left out.

    Content that is a list of parts is the texts among them, joined.

    Raises:
      NoAnswerError: it thought, refused, or was cut, and said nothing.
      ValueError: this is no chat completion.
    """
    try:
        choice: dict[str, Any] = json.loads(data)["choices"][0]
        message = {**choice["message"]}  # a TypeError for what is no object
        content, ended = message.get("content"), choice.get("finish_reason")
        said = _joined(content)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} in {data[:60]!r}") from None
    if not said.strip():
        _raise_if_explained(message, content, ended)
    if content is None:
        raise ValueError("content=None")
    if ended == "length" and len(said.strip()) > _LONGEST_CUT:
        raise NoAnswerError(
            f"a reply cut at the limit of tokens, {said[:_LONGEST_CUT]!r}; raise the "
            "limit at the server, or turn the model's thinking off there"
        )
    return said


def _joined(content: Any) -> str:
    """The text of a message's content; TypeError for what is none."""
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "".join(map(_part, content))
    raise TypeError(f"content={content!r:.60}")


def _part(part: Any) -> str:
    match part:
        case str():
            return part
        case {"text": str(said)} if not _is_thought(part):
            return said
        case {"type": str()}:
            return ""
    raise TypeError(f"part={part!r:.60}")


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type", "text") not in _TEXT_PARTS


def _raise_if_explained(message: dict[str, Any], content: Any, ended: Any) -> None:
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        raise NoAnswerError(
            f"a refusal, {refusal[:_LONGEST_CUT]!r}; use another judge for these items"
        )
    if ended == "content_filter":
        raise NoAnswerError(
            "a reply withheld by the endpoint's content filter; change the filter, or "
            "use another judge for these items"
        )
    thought = any(message.get(field) for field in _THOUGHT_FIELDS)
    parts = content if isinstance(content, list) else []
    thought = thought or any(_is_thought(part) for part in parts)
    if thought or ended == "length":
        raise NoAnswerError(
            f"reasoning without an answer (finish_reason={ended!r:.20}); raise the "
            "limit of tokens at the server, turn the model's thinking off there, or "
            "correct the server's reasoning parser"
        )


def answer(reply: str) -> str | None:
    """A reply without what a reasoning model thought aloud in it.

    It is what follows the last end of a thought, whether or not its beginning is there
    (many chat templates write that themselves). None: a thought has no end.
    """
    if "<|channel|>" in reply:
        channels = list(_CHANNEL.finditer(reply))
        if not channels or channels[-1][1].lower() != "final":
            return None
        reply = reply[channels[-1].end() :]
    elif _BARE_CHANNEL.match(reply):
        _, found, reply = reply.rpartition("assistantfinal")
        if not found:
            return None
    said = _CLOSED.split(reply)[-1]
    return None if _OPENED.search(said) else said


# Yes or no

# "yes or no", as the question has it, is nobody's verdict; nor are "No. 5", "no-one".
_ECHO = re.compile(r"\b(?:yes\s*(?:/|,?\s+or\s)\s*no|no\s*(?:/|,?\s+or\s)\s*yes)\b")
_MARKUP = re.compile(r"<[^<>]{0,40}>|\\(?:boxed|text|textbf|mathrm)\b|[*_`~#\"“”{}$\\]")
_NUMBER = re.compile(r"\bno\.\s*(?=\d)")
_BREAK = re.compile(r"[.,;!?()\[\]\n\r|>→⇒✓✔✅❌✗]+|\s[-–]+\s|[—–]|^[ \t]*[-•]\s", re.M)
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")

# Words that may stand before a verdict and leave it one: "so the final answer is yes".
_BEFORE = frozenset(
    "a absolutely actually and answer be believe but certainly clearly conclusion "
    "decision definitely evaluation final finally grade hence hm hmm i i'd is it it's "
    "judgement judgment label me must my of course ok okay one-word output overall "
    "rating reply response result say score should simply so surely that that's the "
    "then therefore think this thus to verdict well word would".split()
)
# Words that follow "no" where it is a verdict: "no contradiction" is none.
_AFTER_NO = frozenset(
    "as because he her his it it's its she since that the their they this".split()
)
# Words that follow "yes" where it is only spoken of, or half a verdict.
_AFTER_YES = frozenset("and but can cannot is means no or should was would".split())
# "The reference says: no" reports an answer; "Student's answer correct: no" judges one.
_REPORTED = re.compile(r"student|reference|gold|expected|question|\bsa(?:ys|id)\b")
_JUDGED = re.compile(r"correct|right|match|verdict|accept")
# "Correct answer: no" repeats the reference, though it speaks of what is correct.
_REPEATED = re.compile(
    r"\W*(?:the )?(?:(?:correct|right|true|actual) answer|expected|got)(?: is| was)?\W*"
)


def verdict(reply: str) -> bool | None:
    """True for a reply that says yes, False for no; None for neither or both.

    A verdict is a "yes" or "no" with a clause, line or field to itself, but for words
    that lead to it, or one that begins a clause. The "no" of "no contradiction" is
    none, nor is one that the reply reports ("the student says no").
    """
    said = answer(reply)
    if said is None:
        return None
    said = _MARKUP.sub(" ", said.lower().replace("’", "'"))
    said = _NUMBER.sub(" ", _ECHO.sub(" ", said))
    found = set()
    for clause in _BREAK.split(said):
        label = ""
        for part in re.split("[:=]", clause):
            told = _REPORTED.search(label) and not _JUDGED.search(label)
            if not told and not _REPEATED.fullmatch(label):
                found.add(_of_clause(part))
            label = part
    found -= {None}
    return found.pop() if len(found) == 1 else None


def _of_clause(clause: str) -> bool | None:
    words = _WORD.findall(clause)
    while words and words[0] in _BEFORE:
        del words[0]
    match words:
        case [("yes" | "no") as only, *others] if set(others) <= {only}:
            return only == "yes"
        case ["yes", after, *_] if after not in _AFTER_YES:
            return True
        case ["no", after, *_] if after in _AFTER_NO:
            return False
    return None
