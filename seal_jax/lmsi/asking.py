"""Questions as a task of the rounds: a policy's edits are its chains of thought."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

from seal_jax.generation.settings import Decoding
from seal_jax.lmsi.settings import Lmsi
from seal_jax.tasks import chains, questions
from seal_jax.tasks.base import AsWritten, Edit, Encoder, Lines, Reading
from seal_jax.tasks.chains import Chain, Exemplar, Question
from seal_jax.training import plan

UNREADABLE = "no answer"


@dataclasses.dataclass(frozen=True)
class Asking(AsWritten):
    """Prompts of questions, and rows that are learned from chains (`base.Task`).

    No adapter is trained on a question: what that would take is not there.
    """

    exp: Lmsi
    exemplars: tuple[Exemplar, ...]

    attempts = 1
    called = "chains"
    max_missing = 0.0
    untried = None
    room = 0

    @property
    def writing(self) -> Decoding:
        return self.exp.propose

    def prompt(self, question: Question, form: str, *, name: str = "") -> str:
        """A question in one of `chains.FORMATS`; `name`: the template, else propose's.

        It reads no answer.
        """
        template = chains.TEMPLATES[name or self.exp.propose.prompt]
        return chains.prompt(template, self.exemplars, question.question, form)

    def name(self, item: Question) -> str:
        return item.question

    def text(self, item: Question) -> None:
        del item

    def propose_prompt(self, item: Question) -> str:
        return self.prompt(item, self.exp.chains.chained)

    def read(self, item: Question, text: str) -> Reading:
        del item
        return Reading(None if chains.read(text) else UNREADABLE)

    def rows(self, place: int, item: Question, kept: Sequence[Chain]) -> list[Edit]:
        """What is learned of a question: every chain in every format.

        A chain without steps is none, and is learned as an answer alone.
        """
        if not kept:
            return []
        prompts = {form: self.prompt(item, form) for form in self.exp.chains.formats}
        found = []
        for i, chain in enumerate(kept):
            for form, prompt in prompts.items():
                if form in chains.CHAINED and not chain.steps:
                    continue
                text = chains.completion(chain.steps, chain.answer, form)
                found.append(Edit(place, i, prompt, text))
        return found

    def prompts(self, item: Question) -> list[str]:
        cfg, name = self.exp.chains, self.exp.answer.prompt
        return [
            self.prompt(item, form, name=name) for form in (cfg.direct, cfg.chained)
        ]

    def in_view(self) -> Self:
        return self

    def gold(self, item: Question) -> list[str]:
        return [item.answer or ""] * 2

    def scores_of(self, item: Question) -> int:
        del item
        return 2

    def score(
        self, answered: Sequence[tuple[Question, Sequence[str]]]
    ) -> list[float | None]:
        """1 or 0 of each answer; None where there is no gold answer."""
        return [self.worth(item, text) for item, texts in answered for text in texts]

    @staticmethod
    def worth(item: Question, text: str) -> float | None:
        """What a completion scores: an unreadable one nothing."""
        if item.answer is None:
            return None
        chain = chains.read(text)
        return float(chains.right(chain and chain.answer, item.answer))

    def item_row(self, item: Question) -> None:
        del item

    def row(self, item: Question, edit: Edit) -> dict[str, Any]:
        return {"question": item.question, "text": edit.text}

    def answers_row(
        self, item: Question, answers: Sequence[str], scores: Sequence[float | None]
    ) -> list[dict[str, Any]]:
        del item
        pairs = zip(answers, scores, strict=True)
        return [{"answer": answer, "score": score} for answer, score in pairs]

    def count_lines(self, item: Question, edit: Edit) -> Lines:
        del item, edit
        return Lines(0, 0)

    def job(self, item: Question, edit: Edit, seed: tuple[int, ...]) -> plan.Job:
        raise NotImplementedError("no adapter is trained on a question")

    def fixed(self, arm: str, item: Question) -> None:
        del arm, item


def make(exp: Lmsi) -> Asking:
    """The task, with the examples that its prompts show.

    Raises:
      ValueError, FileNotFoundError: see `questions.exemplars`.
    """
    return Asking(exp, tuple(questions.exemplars(exp.task, exp.chains.shots)))


def check_fit(task: Asking, encoder: Encoder, asked: Sequence[Question]) -> None:
    """Refuses prompts that leave no room for what is to be written after them.

    Raises:
      ValueError: see above; the longest is told.
    """
    exp = task.exp
    for key, decoding in (("propose", exp.propose), ("answer", exp.answer)):
        room = encoder.context - decoding.max_tokens
        forms = (exp.chains.chained, exp.chains.direct, *exp.chains.formats)
        longest = max(
            len(encoder.sequence(task.prompt(item, form, name=decoding.prompt)))
            for item in asked
            for form in dict.fromkeys(forms)
        )
        if longest > room:
            raise ValueError(
                f"{key}.max_tokens={decoding.max_tokens}: the longest prompt takes "
                f"{longest} of the model's {encoder.context} tokens, and {room} are "
                f"left beside it; lower {key}.max_tokens, or chains.shots="
                f"{exp.chains.shots}"
            )
