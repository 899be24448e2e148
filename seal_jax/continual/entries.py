"""Units of a continual run, as the journal holds them."""

from typing import TypedDict

# By passage, then by question.
type Answers = list[list[str]]
type Scores = list[list[float | None]]


class BaseEntry(TypedDict):
    """What the un-edited base answers, all sequences' passages in one list.

    `scores`: of each sequence; `general`: of the probes; `asked`: questions.
    """

    answers: Answers
    scores: list[Scores]
    general: Scores
    asked: int
    seconds: float


class LearnedEntry(TypedDict):
    """How the blocks of one step came about; kept with their checkpoint.

    `texts`: each sequence's self-edits; `lines`: the training lines of that which was
    committed, none where it was rejected; `chosen` to `gates`: see `step.Commit`.
    `losses`: of all adapters, None of those that failed; `failed`: how many did, and
    `refused`: how many texts were no self-edits; `cut`: training lines, of all
    adapters, that were longer than a row takes.
    """

    texts: list[list[str]]
    lines: list[list[str]]
    chosen: list[int]
    rewards: list[list[float | None]]
    scales: list[float]
    gates: list[list[tuple[float, float | None]]]
    losses: list[float | None]
    failed: int
    refused: int
    cut: int
    adapters: int
    tokens: int
    learn_seconds: float


class AskedEntry(TypedDict):
    """What each sequence's model answers after a step.

    `scores`: of the passages so far; `general`: of the probes; `asked`: questions.
    """

    answers: list[Answers]
    scores: list[Scores]
    general: list[Scores]
    asked: int
    ask_seconds: float
    seconds: float


class StepEntry(LearnedEntry, AskedEntry):
    """One step of an arm: what was learned, and what it is worth."""
