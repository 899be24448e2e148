"""A self-edit's worth by the model that wrote it: a prompt, and how its reply is read.

The policy adds up points, one for each thing that notes should be, and says the sum
(additive points: Yuan et al. 2024, "Self-Rewarding Language Models", arXiv 2401.10020).
Strings in, strings and numbers out. Whether such a score is worth anything, and for how
many rounds, is a question for `agreement`.
"""

import re

from seal_jax.rewards import replies

MOST = 5  # points

# It ends in the cue for the number: a model that continues documents begins with it.
PROMPT = """\
The notes below are to be learned by heart by someone who is then asked about the \
passage without having it at hand. Give the notes one point for each of these that is \
true of them:

1. They state something that the passage says.
2. They cover most of what the passage says.
3. Nothing in them contradicts the passage or is made up.
4. Each statement can be understood alone: it names what it is about.
5. They put facts in words of their own, or draw conclusions, and do not only copy.

Title: {title}

Passage:
{passage}

Notes:
{edit}

How many of the five are true? Reply with the sum of the points, a number from 0 to 5, \
and nothing else.
Points:"""

_NUMBER = r"(\d+(?:\.\d+)?)(?:\s*(?:/|out of|of)\s*5(?:\.0)?)?(?![\w%]|[.,/]\d)"
_MARKS = r"[\s*_#>\"'`]*"
# What makes a number that of a list's line, not a sum: "1. Yes".
_LISTED = r"\d+[*_]*[.):][*_]*[^\S\n]+\S"
_BEGINS = re.compile(rf"{_MARKS}(?!{_LISTED}){_NUMBER}")
_ALONE = re.compile(rf"{_MARKS}{_NUMBER}[*_\"'`]*\.?[^\S\n]*(?:\n|\Z)")
_SAID = re.compile(
    rf"points{_MARKS}[:=](?!{_MARKS}\n\s*{_LISTED}){_MARKS}{_NUMBER}", re.I
)


def prompt(title: str, passage: str, edit: str) -> str:
    """The prompt whose completion is the points of `edit`."""
    values = {"title": title, "passage": passage, "edit": edit}
    # One pass, so that braces in a text stay what they are.
    names = "|".join(values)
    return re.sub(rf"\{{({names})\}}", lambda match: values[match[1]], PROMPT)


def parse(reply: str) -> float | None:
    """The points of a reply, as a share of all: 0..1; None: there is no number to read.

    The first line is a number ("4", "**4**/5", "3.5 out of 5"), or the reply names its
    points ("... Points: 4"; the first time counts, as a model may go on to other
    notes), or begins with them ("4/5, well done"). The number of a list's line ("1.
    Yes") is none, and what a reasoning model thinks aloud is not its reply.
    """
    said = replies.answer(reply) or ""
    found = _ALONE.match(said) or _SAID.search(said) or _BEGINS.match(said)
    points = float(found[1]) if found else None
    return None if points is None or points > MOST else points / MOST
