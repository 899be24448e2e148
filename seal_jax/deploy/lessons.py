"""What a night trains on: jobs of sessions, joined to one for each stream."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from seal_jax.deploy.entries import TeachEntry, WriteEntry
from seal_jax.deploy.sessions import Session
from seal_jax.deploy.settings import EDIT, LOG, Arm
from seal_jax.tasks import knowledge
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage
from seal_jax.training import plan
from seal_jax.training.inner_rules import QUIZ

type Pairs = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Noted:
    """One session, with what was written and asked about it in the night.

    `text`: the self-edit, None where none was wanted; `pairs`: of the log; `dreams`: of
    the model's own.
    """

    session: Session
    text: str | None
    pairs: Pairs
    dreams: Pairs


def of_night(
    sessions: Sequence[Session], written: WriteEntry, taught: TeachEntry, s: int
) -> list[Noted]:
    """The lessons of stream s."""
    texts = written["texts"][s] or [None] * len(sessions)
    return [
        Noted(session, text, [(q, a) for q, a in pairs], [(q, a) for q, a in dreams])
        for session, text, pairs, dreams in zip(
            sessions, texts, taught["logged"][s], taught["dreams"][s], strict=True
        )
    ]


def is_refused(task: knowledge.Knowledge, lesson: Noted) -> bool:
    """Whether its text is no self-edit: nothing is trained on it."""
    if lesson.text is None:
        return False
    return task.read(lesson.session.context, lesson.text).refused is not None


def job(
    task: knowledge.Knowledge,
    arm: Arm,
    context: str,
    lessons: Sequence[Noted],
    seed: tuple[int, ...],
) -> plan.Job | None:
    """A stream's training of one night; None: there is nothing to train on.

    Args:
      task: the task.
      arm: whose rule it is.
      context: what statements are made from (`settings.CONTEXTS`).
      lessons: of the day's sessions; refused ones are passed over.
      seed: of the shuffles.
    """
    jobs: list[plan.Job] = []
    for lesson in lessons:
        if is_refused(task, lesson):
            continue
        about, own = lesson.session.context, task.under(arm.rule)
        if arm.asks:
            jobs += _answers(own, about, [*lesson.pairs, *lesson.dreams], seed)
        else:
            jobs += _statements(own, about, lesson.text, context, seed)
            # Without the passage's own line, which is a statement already.
            jobs += [
                part(job, range(len(lesson.dreams)))
                for job in _answers(task.under(QUIZ), about, lesson.dreams, seed)
            ]
    return joined(jobs, seed) if jobs else None


def asked(
    task: knowledge.Knowledge, arm: Arm, lessons: Sequence[Noted]
) -> list[str | None]:
    """What adapters that practise are asked, by line of `job`; None: no question.

    `arm`: of a rule whose adapters practise.
    """
    found: list[str | None] = []
    for lesson, edit in zip(lessons, map(_quiz, lessons), strict=True):
        prompts = task.under(arm.rule).practice(lesson.session.context, edit)
        found += [*prompts, *[None] * (_lines(task, arm, lesson) - len(prompts))]
    return found


def unanswered(lessons: Sequence[Noted]) -> list[Noted]:
    """The lessons with questions alone."""
    return [
        dataclasses.replace(
            lesson,
            pairs=[(question, "") for question, _ in lesson.pairs],
            dreams=[(question, "") for question, _ in lesson.dreams],
        )
        for lesson in lessons
    ]


def answered(
    task: knowledge.Knowledge,
    arm: Arm,
    lessons: Sequence[Noted],
    answers: Mapping[int, str | None],
) -> list[Noted]:
    """The lessons with other answers, by the places of the lines of `job`.

    Questions that have none there keep their own.
    """
    made, first = [], 0
    for lesson, edit in zip(lessons, map(_quiz, lessons), strict=True):
        said = [answers.get(first + i) for i in range(len(edit.pairs))]
        new = task.under(arm.rule).answered(edit, [a or "" for a in said]).pairs
        pairs = [
            old if a is None else pair
            for old, pair, a in zip(edit.pairs, new, said, strict=True)
        ]
        count = len(lesson.pairs)
        made.append(
            dataclasses.replace(lesson, pairs=pairs[:count], dreams=pairs[count:])
        )
        first += _lines(task, arm, lesson)
    return made


def _lines(task: knowledge.Knowledge, arm: Arm, lesson: Noted) -> int:
    """How many lines of `job` are of one session, by a rule that asks."""
    edit = _quiz(lesson)
    told = task.under(arm.rule).lines(lesson.session.context, edit)
    return len(told) if edit.pairs else 0


def _quiz(lesson: Noted) -> Edit:
    return Edit(0, 0, "", "", pairs=(*lesson.pairs, *lesson.dreams))


def told(
    task: knowledge.Knowledge, arm: Arm, context: str, lessons: Sequence[Noted]
) -> list[str]:
    """What a stream's model was told in a night, as texts, to route questions by.

    Of one that practised the answers are those of the day, which is what its teacher
    says.
    """
    texts: list[str] = []
    for lesson in lessons:
        if is_refused(task, lesson):
            continue
        about, pairs = lesson.session.context, [*lesson.pairs, *lesson.dreams]
        if not arm.asks:
            texts += _kept(task.lines(about, _edit(lesson.text)), context)
            pairs = [*lesson.dreams]
        texts += [f"{about.title}\n{question} {answer}" for question, answer in pairs]
        lined = task.teach is not None and task.teach.passage_line
        if arm.asks and pairs and lined:
            texts.append(f"{about.title}\n{about.text}")
    return texts


def _edit(text: str | None) -> Edit:
    return Edit(0, 0, "", text or "")


def _kept[T](lines: Sequence[T], context: str) -> Sequence[T]:
    """Of a self-edit's lines, the passage last, those that `context` makes."""
    if context == LOG:
        return lines[-1:]
    return lines[:-1] if context == EDIT else lines


def _statements(
    task: knowledge.Knowledge,
    about: Passage,
    text: str | None,
    context: str,
    seed: tuple[int, ...],
) -> list[plan.Job]:
    whole = task.job(about, _edit(text), seed)
    places = _kept(range(len(whole.lines)), context)
    return [part(whole, places)] if places else []


def _answers(
    task: knowledge.Knowledge, about: Passage, pairs: Pairs, seed: tuple[int, ...]
) -> list[plan.Job]:
    if not pairs:
        return []
    return [task.job(about, Edit(0, 0, "", "", pairs=tuple(pairs)), seed)]


# Jobs


def joined(jobs: Sequence[plan.Job], seed: tuple[int, ...]) -> plan.Job:
    """One job on the lines of all, trained as the first."""
    starts = [0, *itertools.accumulate(len(job.lines) for job in jobs)]
    given = tuple(n for job in jobs for n in job.given or (1,) * len(job.lines))
    taught = tuple(t for job in jobs for t in job.taught or (None,) * len(job.lines))
    return dataclasses.replace(
        jobs[0],
        lines=tuple(line for job in jobs for line in job.lines),
        given=given if any(job.given for job in jobs) else (),
        cut=tuple(
            start + i for start, job in zip(starts, jobs, strict=False) for i in job.cut
        ),
        taught=taught if any(taught) else (),
        seed=seed,
    )


def part(whole: plan.Job, places: Sequence[int]) -> plan.Job:
    """The job on the lines at these places alone, in this order."""
    return dataclasses.replace(
        whole,
        lines=tuple(whole.lines[i] for i in places),
        given=tuple(whole.given[i] for i in places) if whole.given else (),
        cut=tuple(at for at, i in enumerate(places) if i in whole.cut),
        taught=tuple(whole.taught[i] for i in places) if whole.taught else (),
    )
