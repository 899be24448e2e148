"""Self-asked questions: a reward for self-edits without labels.

The policy asks and answers questions with the passage in view; adapters then answer
them without it, and a self-edit earns the share that comes out the same. Questions
whose answer does not come out again when they are asked a second time, still with the
passage in view, may be dropped first (Huang et al. 2022, arXiv 2210.11610, filter
self-made training data likewise).

Here the prompts, the parser and the filter: strings in, strings out. `plain` is the
form the embedded model has read (`world_corpus.read_document`); `ask` is for models
that follow instructions or continue documents.
"""

import re
from collections.abc import Sequence

from seal_jax.tasks import wordwise
from seal_jax.tasks.passage import Passage, Question

_ASK_HEAD = "Passage:\n{title}\n{passage}\n\n"

# Why a quiz is no self-edit.
NONE, NONE_FITS = "no question", "no question that fits"
NONE_SURE = "no question answered alike twice"
# Each ends in the cue that opens the first question: a completion begins inside it.
PROMPTS: dict[str, str] = {
    "ask": (
        "Write an exam about the passage below. Every question must be clear to "
        "someone who does not have the passage at hand, so name what you ask about, "
        "and must have one short answer that the passage gives. Put each question on "
        'a line that starts with "Question:" and its answer on the next line, which '
        'starts with "Answer:".\n\n' + _ASK_HEAD + "Question:"
    ),
    "plain": _ASK_HEAD + "Question:",
}

# The same question once more. The answer is the first line of the completion.
RECHECK_PROMPTS: dict[str, str] = {
    "ask": (
        "Answer the question from the passage below, in a few words.\n\n"
        + _ASK_HEAD
        + "Question: {question}\nAnswer:"
    ),
    "plain": _ASK_HEAD + "Question: {question}\nAnswer:\n",
}

# Also as models decorate them: "**Question 2:**", "## Question 2:", "Answer 2:".
_NEXT = re.compile(r"(?:^|\n)[ \t*#>-]*Question(?:[ \t]*\d+)?[ \t]*:[ \t*]*")
_ANSWER = re.compile(r"\n[ \t*#>-]*Answer(?:[ \t]*\d+)?[ \t]*:[ \t*]*")


def prompt(template: str, passage: Passage) -> str:
    """The prompt whose completion is questions and answers about `passage`.

    Args:
      template: a text of `PROMPTS`, or one with {title} and {passage} that ends in
        "Question:".

    Raises:
      ValueError: a placeholder is missing.
    """
    values = {"title": passage.title, "passage": passage.text}
    return _render("quiz", template, values)


def recheck_prompt(template: str, passage: Passage, question: str) -> str:
    """The prompt that asks `question` again with the passage in view.

    Args:
      template: a text of `RECHECK_PROMPTS`, or one with {title}, {passage} and
        {question}.

    Raises:
      ValueError: a placeholder is missing.
    """
    values = {"title": passage.title, "passage": passage.text, "question": question}
    return _render("recheck", template, values)


def _render(kind: str, template: str, values: dict[str, str]) -> str:
    missing = [f"{{{name}}}" for name in values if f"{{{name}}}" not in template]
    if missing:
        raise ValueError(
            f"a {kind} template must contain {' and '.join(missing)}; add it"
        )
    # One pass: braces and placeholders inside a value stay what they are.
    names = "|".join(values)
    return re.sub(rf"\{{({names})\}}", lambda match: values[match[1]], template)


def parse(text: str, most: int) -> list[Question]:
    """The questions in a completion, in order, at most `most`.

    The prompt ends in "Question:", so the text starts inside the first question; it may
    repeat the cue. A question ends at "Answer:" and its answer with the line. One
    without answer, a blank one, and one that was asked before (by the graders'
    comparison of words) is dropped.

    Raises:
      ValueError: `most` is not positive.
    """
    if most < 1:
        raise ValueError(f"most={most} must be at least 1 question")
    questions: dict[str, Question] = {}
    for piece in _NEXT.split(text):
        parts = _ANSWER.split(piece, maxsplit=1)
        if len(parts) < 2:
            continue
        asked, answer = " ".join(parts[0].split()).strip("* "), first_line(parts[1])
        key = wordwise.normalize(asked)
        if key and answer and key not in questions:
            questions[key] = Question(asked, answer)
    return list(questions.values())[:most]


def first_line(text: str) -> str:
    """The first line of a text that is not blank, "" if there is none.

    The whole of an answer: models go on to ask the next question.
    """
    lines = (line.strip("* \t") for line in text.splitlines())
    return next((line for line in lines if line), "")


def consistent(
    questions: Sequence[Question], again: Sequence[str | None]
) -> list[Question]:
    """The questions whose answer came out again, by the graders' comparison of words.

    Args:
      again: what the model wrote to each `recheck_prompt`; its first line counts. None
        (could not be had) and blank ones drop the question.

    Raises:
      ValueError: not one text per question.
    """
    if len(questions) != len(again):
        raise ValueError(
            f"{len(again)} answers to {len(questions)} questions; give one to each, in "
            "the same order"
        )
    return [
        question
        for question, text in zip(questions, again, strict=True)
        if text is not None and wordwise.exact(first_line(text), question.answer)
    ]
