"""Chains of thought: prompts in four formats, and how an answer is read.

A completion is lines of reasoning and a last line `Answer: ...`, or that line alone.
Which of the two is asked for by examples, or without any in words: the four formats of
Huang et al. 2022 (arXiv 2210.11610, section 3.2).
"""

import dataclasses
import decimal
import re
from collections.abc import Sequence
from typing import NamedTuple

from seal_jax.tasks import wordwise

FEW_CHAIN, FEW_DIRECT = "few_chain", "few_direct"
ZERO_CHAIN, ZERO_DIRECT = "zero_chain", "zero_direct"
FORMATS = (FEW_CHAIN, FEW_DIRECT, ZERO_CHAIN, ZERO_DIRECT)
CHAINED = (FEW_CHAIN, ZERO_CHAIN)
SHOWN = (FEW_CHAIN, FEW_DIRECT)


@dataclasses.dataclass(frozen=True)
class Question:
    """A question; `answer` is its gold answer, None where nobody knows it."""

    question: str
    answer: str | None = None


@dataclasses.dataclass(frozen=True)
class Exemplar:
    """A question answered in steps: what a prompt shows, or what a chain says."""

    question: str
    steps: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Template:
    """How questions are put: the words before a chain, and before a bare answer."""

    question: str
    chain: str
    direct: str


# How every question begins.
HEAD = "Question:"

# `plain` has few words: the embedded model knows no others.
TEMPLATES = {
    "plain": Template(
        question=HEAD + " {question}\n",
        chain="Think step by step.\n",
        direct="Answer at once.\n",
    ),
    "instruct": Template(
        question=HEAD + " {question}\n",
        chain=(
            "Think step by step. Write a step per line, and then a last line that "
            'begins with "Answer:" and gives the answer alone.\n'
        ),
        direct=(
            'Give no steps. Write one line that begins with "Answer:" and gives the '
            "answer alone.\n"
        ),
    ),
}


def prompt(
    template: Template, exemplars: Sequence[Exemplar], question: str, form: str
) -> str:
    """The prompt of one of the `FORMATS`; its completion begins on a new line."""
    asked = template.question.replace("{question}", question)
    if form not in SHOWN:
        return asked + (template.chain if form in CHAINED else template.direct)
    shown = [
        template.question.replace("{question}", exemplar.question)
        + completion(exemplar.steps, exemplar.answer, form)
        for exemplar in exemplars
    ]
    return "\n\n".join([*shown, asked])


def completion(steps: str, answer: str, form: str) -> str:
    """What is to be written after a prompt of that format."""
    last = f"Answer: {answer}"
    return f"{steps}\n{last}" if form in CHAINED and steps else last


# Reading

_SO = r"(?:(?:so|thus|therefore|hence)\b\W*)?(?:the\s+)?(?:final\s+)?answer"
_MONEY = "$€£¥"
_PLAIN = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_COUNT = rf"[-+]?[{_MONEY}]?[-+]?{_PLAIN}%?"
# "Answer: 7", "**Answer:** 7", "3 + 4 = 7. Answer: 7"; after the colon all counts.
_LABEL = re.compile(
    rf"(?P<before>.*[.!?]\s+)?\W*{_SO}(?:\s+is)?[\s*_]*:[\s*_]*(?P<said>.*)",
    re.IGNORECASE,
)
# "The answer is 7.", also at a sentence's end; what is said must be short.
_IS = re.compile(rf"(?P<before>.*?)\b{_SO}\s+is\b[\s*_]*(?P<said>.*)", re.IGNORECASE)
# GSM8K's "#### 7"; with other words it is a heading.
_MARK = re.compile(
    rf"\s*#{{4}}\s*(?P<said>[-+.{_MONEY}]*[0-9](?:[0-9.,/]*[0-9])?%?(?:\s+[a-z]+)?\.?)\s*",
    re.IGNORECASE,
)
_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_WRAPS = tuple(
    re.compile(wrap)
    for wrap in (
        r"\\boxed\s*\{(.*)\}",
        r"\\text\s*\{(.*)\}",
        r"\$\$?(.+?)\$\$?",
        r"\\\((.*)\\\)",
        r"\\\[(.*)\\\]",
    )
)
_SHORT = 3  # Words of an answer that only follows "is".


class Chain(NamedTuple):
    """What was written: lines of reasoning, perhaps none, and the answer."""

    steps: str
    answer: str


class _Said(NamedTuple):
    """A line that gives an answer: what precedes it there, and whether it is sure.

    One that is not sure may be a sentence about the answer ("The answer is simple").
    """

    before: str
    answer: str
    sure: bool


def read(text: str) -> Chain | None:
    """A completion up to its first line that gives an answer; None: there is none.

    What comes after that line is dropped, and nothing is read from the first line on
    that puts a question: a model that has seen examples mostly goes on with a question
    of its own, whose answer is none to this one. A line "Answer:" with nothing behind
    it means the next line that is not blank. Words behind "the answer is" count if
    they are few and end the text.
    """
    steps: list[str] = []
    unsure, opened = None, False
    for line in text.split("\n"):
        if line.lstrip("*#> ").startswith(HEAD):
            break
        if not line.strip():
            steps.append(line)
            continue
        found, unsure = _said(line), None
        if found is None and opened:
            found = _Said("", _bare(line), True)
        if found is None:
            steps.append(line)
        elif not found.answer:
            opened = True
        else:
            chain = Chain("\n".join([*steps, found.before]).strip(), found.answer)
            if found.sure:
                return chain
            steps.append(line)
            unsure = chain
    return unsure


def _said(line: str) -> _Said | None:
    if found := _MARK.fullmatch(line):
        return _Said("", _bare(found["said"]), True)
    if found := _LABEL.fullmatch(line):
        return _Said((found["before"] or "").strip(" *_"), _bare(found["said"]), True)
    found = _IS.fullmatch(line)
    if found is None:
        return None
    before, answer = found["before"].strip(" *_,;"), _bare(found["said"])
    number = _value(answer) is not None and not answer[:1].isalpha()
    few = len(answer.split()) <= _SHORT + number
    if not answer or not few:
        return None
    return _Said(before if re.search(r"\w", before) else "", answer, number)


def _bare(said: str) -> str:
    """An answer without its emphasis, its full stop and its TeX."""
    was = None
    while said != was:
        was = said
        said = said.strip().strip("*_").removesuffix(".").strip()
        for wrap in _WRAPS:
            if inside := wrap.fullmatch(said):
                said = inside[1]
    return said.replace("\\$", "$")


# Counting

_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}


def ballot(answer: str) -> str:
    """What an answer counts as in a vote: a number by its value, else by its words.

    Of one number among words the number alone counts ("7 apples"). Other texts with
    digits ("9:40", "1/2") count as they are written, but for case, spaces, currency and
    commas of thousands; texts without digits as SQuAD counts them.
    """
    text = " ".join(_bare(answer).lower().replace("\N{MINUS SIGN}", "-").split())
    if letter := re.fullmatch(r"[(\[{]?([a-z])[)\]}:.]?", text):
        return letter[1]
    if not re.search("[0-9]", text):
        return wordwise.normalize(text) or text
    value = _value(text)
    if value is not None:
        return value
    return _COMMA.sub("", re.sub(f"[{_MONEY}]", "", text))


def _value(text: str) -> str | None:
    """The value of the only number of a text of words, as digits; else None."""
    words = _COMMA.sub("", text.lower()).replace("\N{MINUS SIGN}", "-").split()
    counts = [i for i, word in enumerate(words) if re.search("[0-9]", word)]
    if len(counts) != 1:
        return None
    place = counts[0]
    word = words[place].rstrip(",;:!.")
    if not re.fullmatch(_COUNT, word):
        return None
    value = decimal.Decimal(re.sub(f"[{_MONEY}%+]", "", word).replace("--", ""))
    if words[place - 1 : place] in (["minus"], ["negative"]):
        value = -value
    scale = "".join(words[place + 1 : place + 2]).rstrip("s,;:!.")
    if scale in _SCALES:
        with decimal.localcontext(prec=len(word) + 20):
            value *= _SCALES[scale]
    shown = format(value, "f")
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return "0" if shown in ("-0", "") else shown


def right(answer: str | None, gold: str) -> bool:
    """Whether an answer counts as the gold one does; none is wrong."""
    return answer is not None and ballot(answer) == ballot(gold)
