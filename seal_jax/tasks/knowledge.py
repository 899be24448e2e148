"""Knowledge incorporation as a task of the round: learn a passage, answer without it.

An item is a passage; every line of a self-edit is a training line, the passage the last
(SEAL, arXiv 2506.10943, section 3.2); questions are answered closed-book and graded.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

from seal_jax.generation.settings import Decoding
from seal_jax.runtime import config_rules
from seal_jax.tasks import lessons, quiz, self_edit
from seal_jax.tasks.base import Again, Edit, Encoder, Lines, Reading
from seal_jax.tasks.passage import Passage, Question
from seal_jax.tasks.settings import EditConfig, TaskConfig
from seal_jax.training import plan
from seal_jax.training.inner_rules import DISTILL_EDITS, EDITS, RULES, TeachConfig
from seal_jax.training.settings import MASKED, InnerConfig

# The row of the ladder, or the arm, that is asked with the passage in view.
IN_CONTEXT = "in_context"
# The row of the ladder whose prompt is looked for.
PROMPTS = "prompts"
# Rows whose edits no policy writes; see `Knowledge.fixed`.
FIXED = frozenset({"passage_only", "sentence_split", "oracle"})

# (question, gold, answer) triples to scores.
type Scorer = Callable[[Sequence[tuple[str, str, str]]], list[float | None]]
# (passage, lines of a self-edit) pairs to what the edits are worth by themselves.
type Rubric = Callable[[Sequence[tuple[str, Sequence[str]]]], list[float | None]]


class Gaps(Protocol):
    """How many judgements may be missing."""

    @property
    def max_missing(self) -> float: ...


class Quizzes(Protocol):
    """How the policy asks itself, and how many questions of a quiz count."""

    @property
    def quiz(self) -> Decoding: ...
    @property
    def questions(self) -> int: ...


class Settings(Protocol):
    """The groups of an experiment that the task reads.

    `label_free` is needed by inner rules that ask.
    """

    @property
    def task(self) -> TaskConfig: ...
    @property
    def propose(self) -> Decoding: ...
    @property
    def edit(self) -> EditConfig: ...
    @property
    def inner(self) -> InnerConfig: ...
    @property
    def answer(self) -> Decoding: ...
    @property
    def grade(self) -> Gaps: ...
    @property
    def label_free(self) -> Quizzes | None: ...


def unconnected(items: Sequence[object]) -> list[float | None]:
    """Stands where a task has no grader, or no rubric, yet."""
    raise RuntimeError(f"{len(items)} answers and no grader: see `grading.connect`")


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What the round asks of the task; see `base.Task`.

    `viewed`: whether questions are asked with their passage in view. `room`: see
    `base.Questions`; `rule`: see `base.Lessons`. `rubric` is beside what a task is
    asked: what an edit of a passage is worth as a text.
    """

    exp: Settings
    blank: Encoder
    propose_template: str
    answer_template: str
    grader: Scorer
    judged: Rubric
    viewed: bool = False
    room: int = 0
    rule: str = EDITS

    attempts = 1
    called = "self-edits"
    untried = None

    @property
    def max_missing(self) -> float:
        return self.exp.grade.max_missing

    def name(self, item: Passage) -> str:
        return f"passage {item.id} ({item.title})"

    def text(self, item: Passage) -> str:
        return item.text

    @property
    def teach(self) -> TeachConfig | None:
        return self.exp.inner.teach

    def under(self, rule: str) -> Self:
        return dataclasses.replace(self, rule=rule)

    @property
    def quizzes(self) -> Quizzes:
        """How quizzes are written.

        Raises:
          ValueError: the config does not say.
        """
        why = f"inner.rule={self.rule!r}"
        return config_rules.needs_group(self.exp.label_free, "label_free", why)

    @property
    def writing(self) -> Decoding:
        return self.quizzes.quiz if RULES[self.rule].asks else self.exp.propose

    def propose_prompt(self, item: Passage) -> str:
        if RULES[self.rule].asks:
            prompt = quiz.prompt(quiz.PROMPTS[self.writing.prompt], item)
        else:
            prompt = self_edit.propose_prompt(self.propose_template, item)
        return self.blank.turn(prompt)

    def asking(self, prompt: str) -> Self:
        """The task with another prompt for self-edits, a name or a file.

        Raises:
          ValueError, FileNotFoundError: see `self_edit.load_template`.
        """
        template = self_edit.load_template(prompt, "propose")
        return dataclasses.replace(self, propose_template=template)

    def listing(self, item: Passage) -> str | None:
        if RULES[self.rule].asks:
            return None
        prompt = self_edit.listing_prompt(self.propose_template, item)
        return None if prompt is None else self.blank.turn(prompt)

    def by_strategy(self, item: Passage, strategy: str) -> str | None:
        made = self_edit.propose_prompt(self.propose_template, item, strategy)
        prompt = self.blank.turn(made)
        room = self.blank.context - self.writing.max_tokens
        return prompt if len(self.blank.sequence(prompt)) <= room else None

    def read(self, item: Passage, text: str) -> Reading:
        """Every text is an edit that says something (`self_edit.refusal`), or asks."""
        del item
        if RULES[self.rule].asks:
            return Reading(None if self._asked(text) else quiz.NONE)
        rule, quirks = self.exp.edit.split, self.exp.edit.quirks
        return Reading(self_edit.refusal(text, rule=rule, quirks=quirks))

    def _asked(self, text: str) -> list[Question]:
        return quiz.parse(text, self.quizzes.questions)

    def again(self, item: Passage, edit: Edit) -> list[Again]:
        """The questions of a quiz, which is what the teacher is asked as well."""
        if not RULES[self.rule].asks or edit.fixed or edit.refused:
            return []
        return [self._question(item, q.question) for q in self._fitting(item, edit)]

    def _fitting(self, item: Passage, edit: Edit) -> list[Question]:
        """The questions of a quiz that fit the model and a training line."""
        room = self.blank.context - self.exp.answer.max_tokens
        limit = longest_line(self.exp, self.blank)

        def fits(question: Question) -> bool:
            seen, closed = self._question(item, question.question)
            sizes = [len(self.blank.sequence(prompt)) for prompt in (seen, closed)]
            return sizes[0] <= room and sizes[1] < min(limit, room)

        return list(filter(fits, self._asked(edit.text)))

    def _question(self, item: Passage, question: str) -> Again:
        return Again(
            *(
                self.blank.turn(prompt(self.answer_template, item, question))
                for prompt in (self_edit.in_view_prompt, self_edit.answer_prompt)
            )
        )

    def settled(self, item: Passage, edit: Edit, answers: Sequence[str]) -> Edit:
        """A quiz with those of its questions that are answered alike twice.

        The answer that counts is the second one, which is the teacher's.
        """
        if not RULES[self.rule].asks or edit.fixed or edit.refused:
            return edit
        asked = self._fitting(item, edit)
        sure = set(quiz.consistent(asked, answers))
        pairs = tuple(
            (q.question, quiz.first_line(text))
            for q, text in zip(asked, answers, strict=True)
            if q in sure
        )
        why = quiz.NONE_SURE if asked else quiz.NONE_FITS
        why = None if pairs else why
        return dataclasses.replace(edit, pairs=pairs, refused=why)

    def mixed(self, item: Passage, edit: Edit) -> list[Again]:
        if not RULES[self.rule].mixes:
            return []
        return [self._question(item, question) for question, _ in edit.pairs]

    def practice(self, item: Passage, edit: Edit) -> list[str]:
        if not RULES[self.rule].practises:
            return []
        return [self._question(item, question).closed for question, _ in edit.pairs]

    def answered(self, edit: Edit, answers: Sequence[str]) -> Edit:
        asked = (question for question, _ in edit.pairs)
        lines = map(quiz.first_line, answers)
        return dataclasses.replace(edit, pairs=tuple(zip(asked, lines, strict=True)))

    def lines(self, item: Passage, edit: Edit) -> tuple[str, ...]:
        """Training lines of a self-edit, the passage last; none if it was refused.

        Of a quiz a line is a question as it is asked, and its answer, unless an adapter
        learns of its own.

        Of what no policy wrote, every line is a text: what a policy's text has to be
        cleaned of is not there, so it is not parsed. An empty edit goes the usual way,
        for the quirk of the reference that concerns it.
        """
        if edit.refused:
            return ()
        if RULES[self.rule].asks and not edit.fixed:
            asked = tuple(
                self_edit.answer_prompt(self.answer_template, item, question)
                + answer * (not RULES[self.rule].practises)
                for question, answer in edit.pairs
            )
            return (*asked, *self._passage_line(item))
        if edit.fixed and edit.text:
            texts = (*edit.text.splitlines(), item.text)
            return tuple(f"{item.title}\n{text}" for text in texts)
        rule, quirks = self.exp.edit.split, self.exp.edit.quirks
        return tuple(self_edit.train_lines(edit.text, item, rule=rule, quirks=quirks))

    def _passage_line(self, item: Passage) -> tuple[str, ...]:
        told = self.teach is not None and self.teach.passage_line
        return (f"{item.title}\n{item.text}",) * told

    def job(self, item: Passage, edit: Edit, seed: tuple[int, ...]) -> plan.Job:
        """The training of an edit by the task's rule.

        What no policy wrote is statements, and trained as such.
        """
        inner, rule = self.exp.inner, EDITS if edit.fixed else self.rule
        learned = self.lessons(item, edit)
        taught = tuple(lesson.taught for lesson in learned)
        plain = rule == EDITS
        return plan.Job(
            tuple(lesson.ids for lesson in learned),
            seed,
            epochs=inner.epochs,
            learning_rate=inner.rate(rule),
            clip=inner.clip,
            loss=inner.loss,
            given=() if plain else tuple(lesson.given for lesson in learned),
            cut=tuple(i for i, lesson in enumerate(learned) if lesson.cut),
            taught=taught if any(taught) else (),
        )

    def lessons(self, item: Passage, edit: Edit) -> list[lessons.Lesson]:
        """The training lines of an edit as tokens, each with what it is learned by."""
        limit = longest_line(self.exp, self.blank)
        lines = self.lines(item, edit)
        taught = RULES[self.rule].taught
        if RULES[self.rule].asks and not edit.fixed:
            skip = self.teach.skip if self.teach is not None else 0
            learned = [
                lessons.answer(
                    self.blank,
                    self._question(item, question),
                    answer,
                    limit=limit,
                    most=self.exp.answer.max_tokens,
                    taught=taught,
                    skip=skip,
                )
                for question, answer in edit.pairs
            ]
            lines = self._passage_line(item)
        elif self.rule == DISTILL_EDITS and not edit.fixed:
            *told, last = lines
            learned = lessons.statements(
                self.blank, self.propose_prompt(item), told, limit=limit
            )
            lines = (last,)
        else:
            learned = []
        return [*learned, *(lessons.line(self.blank, text, limit) for text in lines)]

    def exam(self, item: Passage) -> plan.Job | None:
        """The item's questions as lines whose answers are learned, closed-book.

        Not to be trained: the loss of this job says how well an adapter answers. None:
        there is no question, or none that fits a training line.
        """
        limit, most = longest_line(self.exp, self.blank), self.exp.answer.max_tokens
        asked = (
            lessons.answer(
                self.blank,
                self._question(item, q.question),
                q.answer,
                limit=limit,
                most=most,
                taught=False,
                skip=0,
            )
            for q in item.questions
        )
        # One without room for a token of its answer asks for nothing.
        asked = [one for one in asked if len(one.ids) > one.given or not one.cut]
        asked = [one for one in asked if len(one.ids) <= limit]
        if not asked:
            return None
        inner = self.exp.inner
        return plan.Job(
            tuple(one.ids for one in asked),
            (),
            epochs=1,
            learning_rate=inner.learning_rate,
            clip=inner.clip,
            loss=dataclasses.replace(inner.loss, mode=MASKED, pad_samples=0),
            given=tuple(one.given for one in asked),
            cut=tuple(i for i, one in enumerate(asked) if one.cut),
        )

    def count_lines(self, item: Passage, edit: Edit) -> Lines:
        learned = self.lessons(item, edit)
        return Lines(len(learned), sum(lesson.cut for lesson in learned))

    def fixed(self, arm: str, item: Passage) -> list[str] | None:
        if arm == "passage_only":
            return [""]
        if arm == "sentence_split":
            return ["\n".join(self_edit.sentences(item.text))]
        return [item.oracle or ""] if arm == "oracle" else None

    def prompts(self, item: Passage) -> list[str]:
        """The prompts of the questions, closed-book unless the task is `in_view`."""
        prompt = self_edit.in_view_prompt if self.viewed else self_edit.answer_prompt
        return [
            self.blank.turn(prompt(self.answer_template, item, q.question))
            for q in item.questions
        ]

    def in_view(self) -> "Knowledge":
        return dataclasses.replace(self, viewed=True)

    def gold(self, item: Passage) -> list[str]:
        return [q.answer for q in item.questions]

    def scores_of(self, item: Passage) -> int:
        return len(item.questions)

    def score(
        self, answered: Sequence[tuple[Passage, Sequence[str]]]
    ) -> list[float | None]:
        return self.grader(
            [
                (q.question, q.answer, answer)
                for item, answers in answered
                for q, answer in zip(item.questions, answers, strict=True)
            ]
        )

    def rubric(self, written: Sequence[tuple[Passage, Edit]]) -> list[float | None]:
        """What each edit's text is worth by itself, 0..1; None: could not be had."""
        rule, quirks = self.exp.edit.split, self.exp.edit.quirks
        return self.judged(
            [
                (
                    item.text,
                    [" ".join(pair) for pair in edit.pairs]
                    or self_edit.split(edit.text, rule=rule, quirks=quirks),
                )
                for item, edit in written
            ]
        )

    def item_row(self, item: Passage) -> None:
        del item

    def row(self, item: Passage, edit: Edit) -> dict[str, Any]:
        return {
            "passage_id": item.id,
            "title": item.title,
            "passage": item.text,
            "edit": edit.edit,
            "prompt": edit.prompt,
            "text": edit.text,
            "refused": edit.refused,
            "lines": list(self.lines(item, edit)),
        } | (
            ({"pairs": [list(pair) for pair in edit.pairs]} if edit.pairs else {})
            | ({"strategy": edit.strategy} if edit.strategy else {})
        )

    def answers_row(
        self, item: Passage, answers: Sequence[str], scores: Sequence[float | None]
    ) -> list[dict[str, Any]]:
        return [
            {"question": q.question, "gold": q.answer, "answer": a, "score": s}
            for q, a, s in zip(item.questions, answers, scores, strict=True)
        ]


class Encoded(NamedTuple):
    """Training lines as token ids; `cut`: places of those that were longer."""

    lines: tuple[tuple[int, ...], ...]
    cut: tuple[int, ...]


def encode_lines(exp: Settings, policy: Encoder, lines: Sequence[str]) -> Encoded:
    """Training lines as the model reads them, cut where they are longer than fits."""
    limit = longest_line(exp, policy)
    whole = [policy.line(line) for line in lines]
    return Encoded(
        tuple(tuple(ids[:limit]) for ids in whole),
        tuple(i for i, ids in enumerate(whole) if len(ids) > limit),
    )


def longest_line(exp: Settings, policy: Encoder) -> int:
    """Tokens of the longest training line the model and the packed rows can take."""
    longest = exp.inner.loss.longest(exp.inner.row_tokens)
    return min(policy.context, longest)
