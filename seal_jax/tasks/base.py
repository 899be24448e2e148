"""What a task is to the round: its edits, and the five things a task can do.

A task says how its items are told and written about (`Texts`), what edits become by the
inner rule (`Lessons`), how they are trained (`Training`), what an adapter is asked and
what its answers are worth (`Questions`), and what is written down about it (`Rows`).
`Task` is all of them. An item is what self-edits are written about: a passage
(`knowledge`), or a few-shot task (`few_shot`); a task is generic in its items' type.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

from seal_jax.generation.settings import Decoding
from seal_jax.training import plan
from seal_jax.training.inner_rules import EDITS, TeachConfig


@dataclasses.dataclass(frozen=True)
class Edit:
    """One self-edit: `item` is an index into the phase's items.

    `fixed`: no policy wrote it. `redrawn`: why each text that was drawn before it was
    thrown away. `refused`: why it cannot be trained, or None. `pairs`: questions and
    answers that adapters learn of an edit that is a quiz. `strategy`: by which it was
    written, where the policy first lists some.
    """

    item: int
    edit: int
    prompt: str
    text: str
    fixed: bool = False
    redrawn: tuple[str, ...] = ()
    refused: str | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    strategy: str = ""

    @property
    def imitable(self) -> bool:
        """Whether a policy may learn to write it."""
        return self.refused is None and bool(self.text.strip())


class Reading(NamedTuple):
    """What a text is worth as a self-edit.

    `refused`: why it cannot be trained, or None; `again`: whether to draw another.
    """

    refused: str | None = None
    again: bool = False


class Again(NamedTuple):
    """A question about an edit: with its item in view, and without it."""

    in_view: str
    closed: str


class Encoder(Protocol):
    """What a task has to know of the model: its tokens, and how many fit."""

    @property
    def context(self) -> int:
        """Tokens that the model can take."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids, nothing added: of what goes on in a sequence."""
        ...

    def sequence(self, text: str) -> list[int]:
        """Token ids of a whole sequence, begun as the model's tokenizer does."""
        ...

    def turn(self, text: str) -> str:
        """A prompt as this model is asked it: as it is, or as a turn of its chat."""
        ...

    def line(self, text: str) -> list[int]:
        """Token ids of a training line: title, line break, what is told under it."""
        ...


class Texts[Item](Protocol):
    """Items as texts, and what a policy writes about them.

    `attempts`: texts drawn for one edit, at most. `writing`: how they are drawn.
    `called`: what they are called in what a run says.
    """

    @property
    def called(self) -> str: ...

    @property
    def attempts(self) -> int: ...

    @property
    def writing(self) -> Decoding: ...

    def name(self, item: Item) -> str:
        """The item, for people."""
        ...

    def text(self, item: Item) -> str | None:
        """What self-edits are compared with, for their novelty; None: nothing."""
        ...

    def propose_prompt(self, item: Item) -> str:
        """What the policy continues with a self-edit."""
        ...

    def listing(self, item: Item) -> str | None:
        """What the policy continues with strategies; None: it writes in one step."""
        ...

    def by_strategy(self, item: Item, strategy: str) -> str | None:
        """`propose_prompt` of the second step; None: it does not fit the model."""
        ...

    def read(self, item: Item, text: str) -> Reading:
        """Whether a self-edit can be trained."""
        ...


class Lines(NamedTuple):
    """Training lines, and how many of them are cut since a row takes no more."""

    lines: int
    cut: int


class Training[Item](Protocol):
    """From an edit to an adapter's training."""

    def count_lines(self, item: Item, edit: Edit) -> Lines:
        """How many lines a self-edit is trained on, and how many of them are cut."""
        ...

    def job(self, item: Item, edit: Edit, seed: tuple[int, ...]) -> plan.Job:
        """The training that a self-edit asks for."""
        ...

    def fixed(self, arm: str, item: Item) -> list[str] | None:
        """Edits that no policy wrote; None: those of `arm` a policy does."""
        ...


class Lessons[Item](Protocol):
    """What edits become before they are trained, by the inner rule.

    `rule`: one of `inner_rules.RULES`; `teach`: what rules other than "edits" need.
    """

    @property
    def rule(self) -> str: ...

    @property
    def teach(self) -> TeachConfig | None: ...

    def under(self, rule: str) -> Self:
        """The task under another inner rule."""
        ...

    def again(self, item: Item, edit: Edit) -> list[Again]:
        """What an edit's writer is asked before the edit is trained; mostly nothing."""
        ...

    def settled(self, item: Item, edit: Edit, answers: Sequence[str]) -> Edit:
        """The edit after the answers to `again`, refused if nothing of it is left."""
        ...

    def mixed(self, item: Item, edit: Edit) -> list[Again]:
        """Questions whose answers are mixed of the base's two ways; or nothing."""
        ...

    def practice(self, item: Item, edit: Edit) -> list[str]:
        """What an adapter is asked in order to learn of its own answers; or nothing."""
        ...

    def answered(self, edit: Edit, answers: Sequence[str]) -> Edit:
        """The edit with other answers, those to `mixed` or to `practice`."""
        ...


class AsWritten:
    """`Lessons` of a task whose edits are trained as they were written, in one step."""

    rule = EDITS
    teach = None
    called = "self-edits"

    def listing(self, item: object) -> str | None:
        """Nothing."""
        del item

    def by_strategy(self, item: object, strategy: str) -> str | None:
        """Nothing."""
        del item, strategy

    def under(self, rule: str) -> Self:
        """Itself.

        Raises:
          ValueError: another rule than "edits".
        """
        if rule != EDITS:
            raise ValueError(f"rule={rule!r} is for passages; use {EDITS!r}")
        return self

    def again(self, item: object, edit: Edit) -> list[Again]:
        """Nothing."""
        del item, edit
        return []

    def settled(self, item: object, edit: Edit, answers: Sequence[str]) -> Edit:
        """The edit."""
        del item, answers
        return edit

    def mixed(self, item: object, edit: Edit) -> list[Again]:
        """Nothing."""
        del item, edit
        return []

    def practice(self, item: object, edit: Edit) -> list[str]:
        """Nothing."""
        del item, edit
        return []

    def answered(self, edit: Edit, answers: Sequence[str]) -> Edit:
        """The edit."""
        del answers
        return edit


class Questions[Item](Protocol):
    """What adapters are asked, and what their answers are worth.

    `max_missing`: share of a phase's scores that may be missing. `untried`: what an
    edit that was refused scores on held-out items; None: it is left out. `room`: tokens
    of the longest prompt that is put to a model without an adapter, in view or not, or
    0: all that have none are asked by the same programs.
    """

    @property
    def max_missing(self) -> float: ...

    @property
    def untried(self) -> float | None: ...

    @property
    def room(self) -> int: ...

    def prompts(self, item: Item) -> list[str]:
        """What an adapter is asked about an item."""
        ...

    def in_view(self) -> Self:
        """The task whose prompts show the item; itself, if they always do."""
        ...

    def gold(self, item: Item) -> list[str]:
        """The right answer to each of the prompts."""
        ...

    def scores_of(self, item: Item) -> int:
        """How many scores an adapter gets for its answers about an item."""
        ...

    def score(
        self, answered: Sequence[tuple[Item, Sequence[str]]]
    ) -> list[float | None]:
        """The scores of each item's answers, in one list; None: could not be had."""
        ...


class Rows[Item](Protocol):
    """What is written down, as rows of JSON files."""

    def item_row(self, item: Item) -> dict[str, Any] | None:
        """The item by itself, for items.jsonl; None: `row` holds all of it."""
        ...

    def row(self, item: Item, edit: Edit) -> dict[str, Any]:
        """The item and the edit, for edits.jsonl."""
        ...

    def answers_row(
        self, item: Item, answers: Sequence[str], scores: Sequence[float | None]
    ) -> list[dict[str, Any]]:
        """One adapter's answers, for edits.jsonl."""
        ...


class Task[Item](
    Texts[Item],
    Lessons[Item],
    Training[Item],
    Questions[Item],
    Rows[Item],
    Protocol,
):
    """Everything that the round asks of a task."""
