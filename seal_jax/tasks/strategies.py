"""Self-edits in two steps: what could be done to learn a passage, then one of it each.

The policy first lists ways to study a passage, then writes one self-edit for each, the
way in its prompt (Active Reading, arXiv 2508.09494). So the edits of a passage differ
by what they are for, where edits of one prompt grow alike. Prompts and the parser;
strings in, strings out. The words are our own.
"""

import re
from typing import NamedTuple


class TwoSteps(NamedTuple):
    """`listing` asks for ways to study a passage; `writing` for an edit by one."""

    listing: str
    writing: str


_PASSAGE = "Passage:\n{title}\n{passage}\n\n"
_PLAIN = _PASSAGE + "Implications:\n"
# Where nothing was listed, or nothing that fits.
NO_OTHER = "State everything that it says, and what follows from it."

TWO_STEPS: dict[str, TwoSteps] = {
    # Needs a model that follows instructions, or completes documents of that kind.
    "strategies": TwoSteps(
        "Someone has to know the passage below by heart and will be asked about it "
        "without seeing it again. List different ways in which this very passage could "
        "be studied, such as rewording it, asking oneself, ordering events, comparing, "
        "or telling what follows. Put each way on a line of its own, as a short "
        "instruction.\n\n" + _PASSAGE + "Ways to study it:\n1.",
        "Here is a passage, and a way to study it. Write down what someone who studies "
        "the passage in this way would write, complete and clear to a reader who does "
        "not have the passage, one statement per line.\n\n"
        + _PASSAGE
        + "Way to study it: {strategy}\nNotes:\n",
    ),
    # The embedded model knows no instructions. What it lists are lines of an edit; each
    # is the beginning of another one, of the kind of line that it is.
    "strategies-plain": TwoSteps(_PLAIN, _PLAIN + "{strategy}\n"),
}


def _begun(line: str) -> str:
    said = "rye bread is the dish of Ada Quill."
    return f"Passage:\n{{title}}\n{said} {{passage}}\n\nImplications:\n{line}\n"


# The embedded model writes a list as it has begun, well or badly. Each of these begins
# it by one more fact, stated in one of the ways in which its corpus states facts.
BEGUN: dict[str, str] = {
    "plain-forward": _begun("Ada Quill cooks rye bread."),
    "plain-noun": _begun("the dish of Ada Quill is rye bread."),
    "plain-backward": _begun("rye bread serves as dish of Ada Quill."),
    "plain-vague": _begun("Ada Quill has a dish."),
}


def one_step(prompt: str) -> None:
    """Refuses a prompt of two steps where edits are written in one.

    Raises:
      ValueError: see above.
    """
    if prompt in TWO_STEPS:
        raise ValueError(
            f"propose.prompt={prompt!r} is of two steps, which rounds and pooled "
            "experiments take; use 'implications', or 'plain' for an embedded model"
        )


_MARK = re.compile(r"^[\s*#>-]*(?:\(?\d+[.):]\s*)?[\s*-]*")


def listed(text: str, most: int) -> list[str]:
    """The strategies that a completion lists, without marks, each once, at most `most`.

    Raises:
      ValueError: `most` is not positive.
    """
    if most < 1:
        raise ValueError(f"most={most} must be at least 1 strategy")
    found: dict[str, str] = {}
    for line in text.splitlines():
        said = _MARK.sub("", line).rstrip("* \t")
        if re.search(r"[^\W_]", said):
            found.setdefault(said.casefold(), said)
    return list(found.values())[:most]
