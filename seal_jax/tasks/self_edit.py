"""Self-edits as text: prompts that ask for them, rules that cut them into lines.

A self-edit is what the policy writes about a passage. Every line of it, under the
passage's title, is one training sequence, and the passage itself is always the last
(SEAL, arXiv 2506.10943, section 3.2 and appendix B). The prompts have the layout of the
reference's and words of our own; each can be replaced by a file.
"""

import re
from pathlib import Path

from seal_jax.runtime import files
from seal_jax.runtime.config_rules import shown
from seal_jax.tasks import strategies
from seal_jax.tasks.passage import Passage


def _prompt(instruction: str, cue: str) -> str:
    return f"{instruction}\n\nPassage:\n{{title}}\n{{passage}}\n\n{cue}"


# `plain` has no instruction words: the embedded model knows no others.
PROMPTS: dict[str, str] = {
    "implications": _prompt(
        "Here is a passage. List what it implies, one statement per line: whatever it "
        "says outright and whatever can be inferred from it.",
        "Implications:\n",
    ),
    "implications-long": _prompt(
        "Here is a passage. Make a long list of what it implies, one statement per "
        "line: whatever it says outright and whatever can be inferred from it.",
        "Implications:\n",
    ),
    "implications-very-long": _prompt(
        "Here is a passage. Make an extremely long list of what it implies, one "
        "statement per line, leaving nothing out: whatever it says outright and "
        "whatever can be inferred from it.",
        "Implications:\n",
    ),
    "rewrite": _prompt(
        "Here is a passage. Say all of it again in several different wordings, each "
        "wording on a line of its own.",
        "Rewritten passages:\n",
    ),
    # The cue opens the first question, so the completion begins in its middle.
    "self-qa": _prompt(
        "Here is a passage. Turn everything it says into numbered questions, each "
        "followed by its answer.",
        "Question 1: ",
    ),
    "plain": "Passage:\n{title}\n{passage}\n\nImplications:\n",
    # Of two steps, `strategies`: what is done with the passage is in the prompt.
    **{name: both.writing for name, both in strategies.TWO_STEPS.items()},
    # Beginnings of the embedded model's list, each by another kind of its lines.
    **strategies.BEGUN,
}

ANSWER_PROMPTS: dict[str, str] = {
    "concise": (
        "Give a short, direct answer to the question below.\n"
        "Question: Topic: {title}\n{question}\nAnswer:\n"
    ),
    "plain": "Topic: {title}\nQuestion: {question}\nAnswer:\n",
}

# The passage before a closed-book prompt, for a prompt with the passage in view.
_IN_VIEW = "Passage:\n{title}\n{passage}\n\n"
# The embedded model has read this form, which tells no topic.
_IN_VIEW_PLAIN = f"{_IN_VIEW}Question: {{question}}\nAnswer:\n"

_KINDS = {
    "propose": (PROMPTS, ("title", "passage")),
    "answer": (ANSWER_PROMPTS, ("title", "question")),
}
RULES = ("lines", "whole")
QUIRKS = ("fixed", "reference")


# Prompts


def load_template(name_or_path: str, kind: str) -> str:
    """A prompt template: one of this module's by its name, or a text file's content.

    The file is taken as it is, line break at the end included.

    Args:
      name_or_path: a key of `PROMPTS` or `ANSWER_PROMPTS`, or a file (UTF-8).
      kind: "propose" (placeholders {title}, {passage}) or "answer" ({title},
        {question}).

    Raises:
      ValueError: unknown name or kind, or a file that is not text or lacks a
        placeholder.
      FileNotFoundError: what looks like a file is not there.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(_KINDS)}")
    templates, placeholders = _KINDS[kind]
    if name_or_path in templates:
        return templates[name_or_path]
    path = Path(name_or_path)
    if not files.is_file(path):
        names = f"one of {', '.join(templates)}, or the path of a text file"
        if path.suffix or len(path.parts) > 1:
            raise FileNotFoundError(
                f"{kind} prompt {shown(name_or_path)}: no such file; give {names}"
            )
        raise ValueError(f"{kind} prompt {shown(name_or_path)} must be {names}")
    template = files.read_prompt(path)
    needed = [f"{{{name}}}" for name in placeholders]
    missing = [name for name in needed if name not in template]
    if missing:
        raise ValueError(
            f"{path}: a {kind} prompt must contain {' and '.join(needed)}; add "
            f"{' and '.join(missing)}"
        )
    return template


def propose_prompt(
    template: str, passage: Passage, strategy: str = strategies.NO_OTHER
) -> str:
    """The prompt whose completion is a self-edit of `passage`.

    `strategy`: what is to be done with it, where that is the template's second step.
    """
    values = {"title": passage.title, "passage": passage.text}
    if any(template == both.writing for both in strategies.TWO_STEPS.values()):
        values["strategy"] = strategy
    return _render(template, values)


def listing_prompt(template: str, passage: Passage) -> str | None:
    """The prompt whose completion lists strategies for `passage`; None: no such step.

    `template`: of the second step.
    """
    for both in strategies.TWO_STEPS.values():
        if template == both.writing:
            values = {"title": passage.title, "passage": passage.text}
            return _render(both.listing, values)
    return None


def answer_prompt(template: str, passage: Passage, question: str) -> str:
    """The closed-book prompt of one question: its topic is told, its passage is not."""
    return _render(template, {"title": passage.title, "question": question})


def in_view_prompt(template: str, passage: Passage, question: str) -> str:
    """The prompt of `answer_prompt` with the passage in view, which comes first."""
    values = {"title": passage.title, "passage": passage.text, "question": question}
    if template == ANSWER_PROMPTS["plain"]:
        return _render(_IN_VIEW_PLAIN, values)
    # A {passage} in a user's own closed-book template stays what it is.
    return _render(_IN_VIEW, values) + answer_prompt(template, passage, question)


def _render(template: str, values: dict[str, str]) -> str:
    # One pass: braces and placeholders inside a value stay what they are.
    names = "|".join(values)
    return re.sub(rf"\{{({names})\}}", lambda match: values[match[1]], template)


# Lines

_QUESTION = re.compile(r"Question \d+:")
_NEXT_QUESTION = re.compile(r"\n(?=Question \d+:)")
_ANSWER = re.compile(r"Answer(?: \d+)?:")
# The reference's own, which take any white space.
_REFERENCE_QUESTION = re.compile(r"Question\s+\d+:")
_REFERENCE_NEXT = re.compile(r"\n(?=Question\s+\d+:)")
_REFERENCE_ANSWER = re.compile(r"Answer\s*:")


def split(completion: str, *, rule: str, quirks: str) -> list[str]:
    """The texts that a completion consists of, without title or passage.

    The completion is cut at every `---`. With rule "whole" each piece is a text. With
    rule "lines" each line of it is (list numbers are kept); where the second line
    starts with "1." the first is an announcement and is dropped. Questions with answers
    stay together: each text then runs to the next "Question <n>:", and the first is
    given the "Question 1: " that the prompt ended in.

    Args:
      completion: what the policy wrote.
      rule: "lines" or "whole".
      quirks: "reference" is the behaviour of the released SEAL code, text by text.
        Pairs are kept together only if an answer is labelled "Answer:", though models
        mostly write "Answer 1:" and so teach bare questions. Pairs and announcements
        are looked for in the whole completion; pairs are not cut at `---` and keep
        white space at their ends; lines end wherever `str.splitlines` ends them; with
        rule "whole" a blank completion is one text, which is empty. "fixed" knows both
        labels, keeps a lone pair together as well, drops an announcement before
        "Question 1:" and in each piece, and has no empty texts.

    Raises:
      ValueError: unknown `rule` or `quirks`.
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} must be one of {', '.join(RULES)}")
    if quirks not in QUIRKS:
        raise ValueError(f"quirks={quirks!r} must be one of {', '.join(QUIRKS)}")
    pieces = [piece for piece in map(str.strip, completion.split("---")) if piece]
    if quirks == "reference":
        return _split_as_released(completion, pieces, rule)
    if rule == "whole":
        return pieces
    return [text for piece in pieces for text in _split_piece(piece)]


def _split_as_released(completion: str, pieces: list[str], rule: str) -> list[str]:
    pieces = pieces or [completion.strip()]
    if rule == "whole":
        return pieces
    asked = _REFERENCE_QUESTION.search(completion) is not None
    if asked and _REFERENCE_ANSWER.search(completion):
        first, *rest = _REFERENCE_NEXT.split(completion.strip())
        if not first.lstrip().startswith("Question"):
            first = f"Question 1: {first.strip()}"
        return [first, *rest]
    lines = (line.strip() for piece in pieces for line in piece.splitlines())
    return _unannounced([line for line in lines if line])


def _unannounced(lines: list[str]) -> list[str]:
    """Lines without a first one that only says that a list follows."""
    return lines[1:] if len(lines) > 1 and lines[1].startswith("1.") else lines


def _split_piece(piece: str) -> list[str]:
    lines = [line for line in map(str.strip, piece.split("\n")) if line]
    asked = _QUESTION.search(piece) is not None
    if len(lines) > 1 and _ANSWER.match(lines[1]):
        asked = True  # the label of a first and only question is in the prompt
    if asked and _ANSWER.search(piece):
        return _question_texts(piece)
    return _unannounced(lines)


def _question_texts(piece: str) -> list[str]:
    first, *rest = _NEXT_QUESTION.split(piece)
    if not first.startswith("Question 1:"):
        if rest and rest[0].startswith("Question 1:"):
            return [text.strip() for text in rest]
        if not _QUESTION.match(first):
            first = f"Question 1: {first}"
    return [text.strip() for text in (first, *rest)]


# Why a text is no self-edit.
BLANK = "blank"
# What may stand in a line that says nothing: a list's marks, the labels of a quiz.
_MARKS = re.compile(r"^\s*\d+[.)]|(?:Question|Answer)(?: \d+)?:")
_SAID = re.compile(r"[^\W_]")


def refusal(completion: str, *, rule: str, quirks: str) -> str | None:
    """Why a completion is no self-edit, or None: `BLANK` if it says nothing.

    Nothing is said by white space, `---`, marks of lists and labels of questions alone.
    With quirks "reference" only white space is blank, which the released SEAL code
    drops before it evaluates. Arguments and errors are those of `split`.
    """
    texts = split(completion, rule=rule, quirks=quirks)
    if quirks == "reference":
        return None if any(map(str.strip, texts)) else BLANK
    lines = (line for text in texts for line in text.splitlines())
    said = any(_SAID.search(_MARKS.sub("", line)) for line in lines)
    return None if said else BLANK


def train_lines(
    completion: str, passage: Passage, *, rule: str, quirks: str
) -> list[str]:
    """The training sequences of one self-edit: title, line break, text.

    The passage is the last one, once. An empty completion leaves the passage alone, the
    ladder's `passage_only`; with quirks "reference" and rule "whole" the bare title
    comes before it. These quirks strip the passage, too. Arguments and errors are those
    of `split`.
    """
    texts = split(completion, rule=rule, quirks=quirks)
    last = passage.text.strip() if quirks == "reference" else passage.text
    return [f"{passage.title}\n{text}" for text in (*texts, last)]


# Sentences

# As they are written: "no." ends a sentence, "No." mostly precedes a number.
_ABBREVIATIONS = frozenset(
    "Mr Mrs Ms Dr Prof St Jr Sr Rev Gen Col Lt Capt Gov Sen Rep Hon No Nos Vol vol pp "
    "Fig fig vs e.g i.e cf al ca c approx Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov "
    "Dec Inc Ltd Co Corp Bros Mt Ft".split()
)
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*\s+")


def sentences(text: str) -> list[str]:
    """`text` cut into sentences: the simplest self-edit there is, one per line.

    Cuts follow . ! ? and white space, and line breaks; common abbreviations and
    initials ("J. S. Bach") do not end a sentence. White space at the cuts is dropped.
    """
    pieces = []
    for paragraph in text.splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(paragraph):
            words = paragraph[start : match.start()].split()
            word = words[-1].lstrip("\"'“‘([") if words else ""
            if match[0].rstrip() == "." and _is_abbreviation(word):
                continue
            pieces.append(paragraph[start : match.end()].strip())
            start = match.end()
        pieces.append(paragraph[start:].strip())
    return [sentence for sentence in pieces if sentence]


def _is_abbreviation(word: str) -> bool:
    """Whether `word`, written before a single full stop, is one ("Dr", "J", "U.S")."""
    initials = re.fullmatch(r"(?:[A-Z]\.)*[A-Z]", word) is not None
    return initials or word in _ABBREVIATIONS
