"""Chains of thought: prompts in four formats, and how an answer is read.

A completion is lines of reasoning and a last line `Answer: ...`, or that line alone.
Which of the two is asked for by examples, or without any in words: the four formats of
Huang et al. 2022 (arXiv 2210.11610, section 3.2).
"""

import dataclasses
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


# `plain` has few words: the embedded model knows no others.
TEMPLATES = {
    "plain": Template(
        question="Question: {question}\n",
        chain="Think step by step.\n",
        direct="Answer at once.\n",
    ),
    "instruct": Template(
        question="Question: {question}\n",
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

# A line that gives the answer: "Answer: 7", "**Answer:** 7", "The answer is 7.", and
# GSM8K's "#### 7".
_ANSWER = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence)\b\W*)?(?:the\s+)?(?:final\s+)?answer"
    r"(?:(?:\s+is)?[\s*_]*:|\s+is\b)[\s*_]*(?P<said>.*)"
    r"|\s*#{4}\s*(?P<marked>.*)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[-+]?\$?(?:\d[\d,]*)?\.?\d+%?")


class Chain(NamedTuple):
    """What was written: lines of reasoning, perhaps none, and the answer."""

    steps: str
    answer: str


def read(text: str) -> Chain | None:
    """A completion up to its first line that gives an answer; None: there is none.

    What comes after that line is dropped: a model that has seen examples mostly goes on
    with a question of its own.
    """
    steps = []
    for line in text.split("\n"):
        found = _ANSWER.fullmatch(line)
        if found is None:
            steps.append(line)
            continue
        said = found["said"] if found["marked"] is None else found["marked"]
        answer = said.strip().strip("*_").removesuffix(".").strip()
        return Chain("\n".join(steps).strip(), answer) if answer else None
    return None


def ballot(answer: str) -> str:
    """What an answer counts as in a vote: a number by its value, else by its words."""
    text = answer.strip().removesuffix(".")
    if _NUMBER.fullmatch(text):
        plain = text.replace(",", "").replace("$", "").removesuffix("%")
        return f"{float(plain):.12g}"
    return wordwise.normalize(answer) or " ".join(answer.lower().split())


def right(answer: str | None, gold: str) -> bool:
    """Whether an answer counts as the gold one does; none is wrong."""
    return answer is not None and ballot(answer) == ballot(gold)
