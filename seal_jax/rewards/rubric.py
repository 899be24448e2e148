"""Rewards of a self-edit from its text alone: no adapter is trained, no answer graded.

Four categories, each in 0..1, and their mean: is it long enough, is it diverse, are its
statements good, are they true to the passage. The paper lets an LLM give 1 to 5 points
in each (SEAL, arXiv 2506.10943v2, section "proxy reward"), which costs minutes where
inner loops cost hours and trains a policy nearly as good; so does `by_judge`.

`by_rules` needs no LLM. It is a proxy of a proxy: it measures what such a rubric names,
not what a judge sees, and knows neither good sense nor good style. How far either
agrees with the true reward is a question for `agreement`.
"""

import dataclasses
import hashlib
import itertools
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from seal_jax.analysis import ngrams
from seal_jax.rewards import judge, replies
from seal_jax.runtime import files
from seal_jax.tasks import self_edit, wordwise

type Item = tuple[str, Sequence[str]]  # (passage's text, the self-edit's lines)

CATEGORIES = ("length", "diversity", "quality", "correctness")
_POINTS = 5

PROMPT = """\
A student wrote the notes below to learn a passage by heart. Grade the notes, not the \
passage. Give each of these a whole number of points from 1 (worst) to 5 (best):

length: is there enough of it to cover what the passage says, without padding?
diversity: do the statements differ from each other in content and in wording?
quality: is each statement clear, complete and understandable on its own?
correctness: does the passage support every statement?

Passage:
{passage}

Notes:
{edit}

Reply with one line and nothing else, with your points in place of the letters:
length: a, diversity: b, quality: c, correctness: d"""


@dataclasses.dataclass(frozen=True)
class Scores:
    """One self-edit's categories, each in 0..1."""

    length: float
    diversity: float
    quality: float
    correctness: float

    @property
    def value(self) -> float:
        """The reward: the mean of the four."""
        return statistics.fmean(dataclasses.astuple(self))


# Rules

_LIST_MARK = re.compile(r"^(?:[-*•]|\d+[.)])(?:\s+|$)")
_END = re.compile(r"[.!?][\"'”’)\]]*$")

# Function words, and words of notes about a text: no passage has to support them.
_FREE = frozenset(
    "a about after all also although an and another any are as at be because been "
    "before being both but by can could did do does during each either few for from "
    "had has have he her hers him his how i if in into is it its itself may might "
    "more most much must no nor not of on one only or other our out over own same "
    "she should since so some such than that the their them then there these they "
    "this those though through thus to too under until up upon very was we were what "
    "when where whether which while who whom whose why will with within without would "
    "you your answer implies passage question suggests text".split()
)
_LEAST_WORDS = 3


def by_rules(passage_text: str, lines: Sequence[str]) -> float:
    """The reward of a self-edit by `measure`, in 0..1."""
    return measure(passage_text, lines).value


def measure(passage_text: str, lines: Sequence[str]) -> Scores:
    """Four measures of a self-edit's lines, as `self_edit.split` gives them.

    List marks are dropped, and blank lines with them.

      length: different lines over sentences of the passage, at most 1.
      diversity: 1 - the mean over pairs of lines of the share of words they have in
        common (Jaccard index of their sets of words); 0 for a single line.
      quality: share of lines that are statements of their own: at least three words,
        closed by . ! or ?, and not words of the passage in a row, nor a line that was
        there before. (A question with an answer in note form counts as unfinished.)
      correctness: share of the lines' content words and numbers, repeats included, that
        the passage has too, endings aside ("cooks", "cooked"). Words of true inferences
        are missing as invented ones are.

    No lines, or a blank passage, give 0 in whatever has nothing to be measured by.
    """
    stripped = [_LIST_MARK.sub("", line.strip()).strip() for line in lines]
    texts = [line for line in stripped if ngrams.words(line)]
    runs = [tuple(ngrams.words(line)) for line in texts]
    return Scores(
        _length(passage_text, runs),
        _diversity(runs),
        _quality(passage_text, texts, runs),
        _correctness(passage_text, runs),
    )


def _length(passage: str, runs: Sequence[tuple[str, ...]]) -> float:
    sentences = len(self_edit.sentences(passage))
    return min(1.0, len(set(runs)) / sentences) if sentences else 0.0


def _diversity(runs: Sequence[tuple[str, ...]]) -> float:
    pairs = itertools.combinations(map(frozenset, runs), 2)
    common = [len(a & b) / len(a | b) for a, b in pairs]
    return 1.0 - statistics.fmean(common) if common else 0.0


def _quality(
    passage: str, texts: Sequence[str], runs: Sequence[tuple[str, ...]]
) -> float:
    if not texts:
        return 0.0
    # Spaces around, so that no run begins or ends within a word.
    source = f" {' '.join(ngrams.words(passage))} "
    good, seen = 0, set()
    for text, run in zip(texts, runs, strict=True):
        copied = f" {' '.join(run)} " in source or run in seen
        good += len(run) >= _LEAST_WORDS and bool(_END.search(text)) and not copied
        seen.add(run)
    return good / len(texts)


def _correctness(passage: str, runs: Sequence[tuple[str, ...]]) -> float:
    stems = {_stem(word) for word in ngrams.words(passage)}
    said = [_stem(word) for run in runs for word in run if word not in _FREE]
    return sum(word in stems for word in said) / len(said) if said else 0.0


def _stem(word: str) -> str:
    """A word without a common English ending; numbers and short words as they are."""
    for ending in ("ing", "ed", "es", "s"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3 and not stem.isdigit():
            return stem.removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word


# Judge


def by_judge(
    items: Sequence[Item], *, cfg: judge.JudgeConfig, cache_path: str | Path
) -> list[float | None]:
    """An LLM's mean points for each (passage, lines): all 1 is 0.0, all 5 is 1.0.

    Equal items are asked once, and what is in the cache not again; requests, retries
    and outages are as in `judge.grade`. A blank self-edit is worth 0 without asking.

    Args:
      cache_path: a JSONL file of its own that gains a line per reply, and is made if
        missing. An entry holds for one prompt, model, temperature, passage and edit.

    Returns:
      rewards, or None for those that could not be had.

    Raises:
      judge.JudgeError: the key in the environment cannot be sent.
      ValueError: the cache holds a line that is no entry.
      DiskFullError: no room for the cache.
    """
    keys = [_key(item, cfg) for item in items]
    with files.Lines(cache_path) as cache:
        points = _cached(cache)
        pending = {
            key: _content(item)
            for key, item in zip(keys, items, strict=True)
            if key not in points and not _is_blank(item)
        }
        if pending:

            def keep(key: str, scores: tuple[int, ...]) -> None:
                points[key] = scores
                cache.append_row({"key": key, "points": scores})

            wanted = "give four points of 1 to 5"
            judge.ask_all(pending, cfg, parse=parse, wanted=wanted, keep=keep)
    return [
        0.0 if _is_blank(item) else _value(points.get(key))
        for key, item in zip(keys, items, strict=True)
    ]


def parse(reply: str) -> tuple[int, ...] | None:
    """The four points of a reply, in the order of CATEGORIES; None for anything else.

    There must be four numbers, all of 1..5, and the categories may be named, each once
    and in order. What a reasoning model thinks aloud is not its reply.
    """
    said = (replies.answer(reply) or "").lower()
    numbers = re.findall(r"[-+]?\d+(?:[.,]\d+)*", said)
    names = re.findall("|".join(CATEGORIES), said)
    if names and names != list(CATEGORIES):
        return None
    if len(numbers) != len(CATEGORIES) or not all(map(_is_point, numbers)):
        return None
    return tuple(map(int, numbers))


def _is_point(number: str) -> bool:
    return number in {str(n) for n in range(1, _POINTS + 1)}


def _is_blank(item: Item) -> bool:
    return all(map(wordwise.is_empty, item[1]))


def _value(points: Sequence[int] | None) -> float | None:
    if points is None:
        return None
    return Scores(*((p - 1) / (_POINTS - 1) for p in points)).value


def _content(item: Item) -> str:
    values = {"passage": item[0], "edit": "\n".join(item[1])}
    # One pass, so that braces in a text stay what they are.
    return re.sub(r"\{(passage|edit)\}", lambda match: values[match[1]], PROMPT)


def _key(item: Item, cfg: judge.JudgeConfig) -> str:
    parts = [PROMPT, cfg.model, cfg.temperature, item[0], *item[1]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _cached(cache: files.Lines) -> dict[str, tuple[int, ...]]:
    points = {}
    for number, row in enumerate(cache.rows, start=1):
        match row:
            case {"key": str(key), "points": [*found]} if len(found) == len(
                CATEGORIES
            ) and all(type(p) is int and 1 <= p <= _POINTS for p in found):
                points[key] = tuple(found)
            case _:
                raise files.bad_line(
                    cache.path, number, 'not {"key": ..., "points": ...}'
                )
    return points
