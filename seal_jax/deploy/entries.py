"""Units of a run on the job, as the journal holds them."""

from typing import Any, NotRequired, TypedDict

from seal_jax.continual.entries import Answers, Scores

# Of each session questions with answers.
type Pairs = list[list[tuple[str, str]]]


class BaseEntry(TypedDict):
    """What the un-edited model answers about all sessions, stream by stream.

    `viewed`: the users' questions with the context in view; `asked`: the same
    closed-book; `rephrased` and `unasked`: the others; `general`: the probes, once.
    """

    answers: list[Answers]
    viewed: list[Scores]
    asked: list[Scores]
    rephrased: list[Scores]
    unasked: list[Scores]
    general: Scores
    questions: int
    seconds: float


class DayEntry(TypedDict):
    """One day: the model's answers with the context in view, by stream and session."""

    answers: list[Answers]
    viewed: list[Scores]
    questions: int
    seconds: float


class WriteEntry(TypedDict):
    """What each stream's model writes in a night about the day's sessions.

    `texts`: self-edits, none where statements are made without; `dreams`: quizzes that
    it sets itself, none where the arm does not dream. `written_tokens`: drawn for
    both; units of older runs have none, or call them `tokens`.
    """

    texts: list[list[str]]
    dreams: list[list[str]]
    written_tokens: NotRequired[int]
    seconds: float


class TeachEntry(TypedDict):
    """Pairs that each stream trains on, by session: those of the log, and dreams.

    `dropped`: dreams whose answer did not come out again, or that had been asked, and
    pairs of either kind whose answer was blank. `written_tokens`: drawn for answers to
    dreams, and for mixed ones; units of older runs have none, or call them `tokens`.
    """

    logged: list[Pairs]
    dreams: list[Pairs]
    dropped: int
    written_tokens: NotRequired[int]
    seconds: float


class NightEntry(TypedDict):
    """How the blocks of one night came about; kept with their checkpoint.

    `scales`: of each stream, 0.0 where nothing was added; `gates`: (scale, forgetting)
    of those the gate tried; `losses`: of the adapters, None of those that failed.
    `tokens`: trained; `teacher_tokens`: that were read for teachers. `practice`: where
    adapters practise, what they answered, by pool and wave (`practice.Practice`).
    """

    scales: list[float]
    gates: list[list[tuple[float, float | None]]]
    losses: list[float | None]
    failed: int
    refused: int
    cut: int
    adapters: int
    tokens: int
    teacher_tokens: int
    practice: NotRequired[list[list[dict[str, Any]]]]
    seconds: float


class MorningEntry(TypedDict):
    """What each stream's model answers after a night, without any context.

    `asked`: the users' questions of all days so far, by session; `rephrased` and
    `unasked`: of the last day's sessions; `general`: of the probes. `drift`: nats a
    token by which texts of the base became less likely.
    """

    answers: list[Answers]
    asked: list[Scores]
    rephrased: list[Scores]
    unasked: list[Scores]
    general: list[Scores]
    drift: list[float]
    questions: int
    seconds: float


class Learned(TypedDict):
    """What was written and taught in a night: what its training lines are made of."""

    write: WriteEntry
    teach: TeachEntry


class Step(Learned):
    """All of one day, night and morning of an arm that learns."""

    day: DayEntry
    night: NightEntry
    morning: MorningEntry
