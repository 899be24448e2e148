"""What training gave for each self-edit: trials, their scores, and the rewards.

Plain values, without a device or a file; `trials` makes the trials and `scoring` the
scores.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self

from seal_jax.rewards import names as reward_names
from seal_jax.rewards import own
from seal_jax.tasks.base import Edit


@dataclasses.dataclass(frozen=True)
class Exam[Item]:
    """What adapters of an item's edits are asked: the item, and perhaps a quiz.

    `quiz`: the item with the questions that the policy asked itself, of which none may
    be left; None: there is no quiz.
    """

    item: Item
    quiz: Item | None = None


@dataclasses.dataclass(frozen=True)
class Trial:
    """One adapter's outcome. `failed` says why there are no answers, or is None.

    `answers` are those to its item, `quiz_answers` those to the quiz.
    `log_likelihoods`: of the gold answers, mean per token (nats), if they are measured.
    """

    edit: int
    seed: int
    answers: tuple[str, ...]
    quiz_answers: tuple[str, ...]
    log_likelihoods: tuple[float, ...]
    loss: float
    failed: str | None

    def to_json(self) -> dict[str, Any]:
        """The trial in its unit of the journal."""
        return {
            "edit": self.edit,
            "seed": self.seed,
            "answers": list(self.answers),
            "also": list(self.quiz_answers),
            "log_likelihoods": list(self.log_likelihoods),
            "loss": self.loss,
            "failed": self.failed,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The trial that `to_json` wrote."""
        return cls(
            value["edit"],
            value["seed"],
            tuple(value["answers"]),
            tuple(value["also"]),
            tuple(value["log_likelihoods"]),
            value["loss"],
            value["failed"],
        )


@dataclasses.dataclass(frozen=True)
class Graded:
    """One edit with what its adapters scored.

    `scores[seed][i]` (a question each, or one for a few-shot task) is None where no
    judgement could be had. `measured` holds every reward that was taken, by name: a
    value per seed, or a single one where no adapter is asked; None: not had, or no
    log-likelihood since the adapter failed. `rewards` are those of the one that
    decides, `reward` their mean (or best) over what there is: there a failed adapter's
    log-likelihood, or reward of the user's own, counts as `reward_names.WORST`. `out`:
    a race over the edits went on without it.

    An edit that was refused has no trials and no reward: it was not tried.
    """

    edit: Edit
    trials: tuple[Trial, ...]
    scores: tuple[tuple[float | None, ...], ...]
    rewards: tuple[float | None, ...]
    reward: float | None
    measured: Mapping[str, tuple[float | None, ...]] = dataclasses.field(
        default_factory=dict
    )
    out: bool = False


def by_item(items: Iterable[int]) -> Mapping[int, list[int]]:
    """The places of each item's edits, in their order; none for an item without any.

    `items`: of each edit its item. One pass: who looks for the edits of one item among
    those of all, for each item, takes four times as long for twice the items.
    """
    places: Mapping[int, list[int]] = collections.defaultdict(list)
    for i, item in enumerate(items):
        places[item].append(i)
    return places


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None if none is."""
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None


def empty_rate(answers: Sequence[str]) -> float | None:
    """Share of answers that are blank."""
    return sum(not a.strip() for a in answers) / len(answers) if answers else None


def best(values: Sequence[float | None]) -> float | None:
    """The largest of the values that are there; None if none is."""
    return max((v for v in values if v is not None), default=None)


# What an edit is worth of what its seeds earned: on average, or at best, the optimist's
# objective (TTT-Discover, arXiv 2601.16175).
MEAN = "mean"
OBJECTIVES = {MEAN: mean, "max": best}


class Decides(Protocol):
    """Which reward counts, and what its seeds come to: one of `OBJECTIVES`."""

    @property
    def reward(self) -> str: ...
    @property
    def objective(self) -> str: ...


def with_measured(
    graded: Graded, name: str, values: tuple[float | None, ...], *, decides: Decides
) -> Graded:
    """With one more reward; `decides` says which one counts."""
    measured = {**graded.measured, name: values}
    return decided(dataclasses.replace(graded, measured=measured), decides)


def decided(graded: Graded, by: Decides) -> Graded:
    """With the reward that counts; the grade, where that is not taken."""
    name = by.reward
    rewards = graded.measured.get(name, graded.measured.get(reward_names.GRADE, ()))
    if name in graded.measured and own.without_zero(name):
        rewards = tuple(
            reward_names.WORST if trial.failed else value
            for trial, value in zip(graded.trials, rewards, strict=True)
        )
    whole = OBJECTIVES[by.objective](rewards)
    return dataclasses.replace(graded, rewards=rewards, reward=whole)


def counts(graded: Sequence[Graded]) -> dict[str, Any]:
    """How many edits, texts drawn, edits trained; their mean score; refusals."""
    edits = [g.edit for g in graded]
    return {
        "edits": len(edits),
        "drawn": sum(len(e.redrawn) + 1 for e in edits),
        "trained": sum(e.refused is None for e in edits),
        "trained_mean": mean([mean(scores) for g in graded for scores in g.scores]),
        "refused": refusals(edits),
    }


def refusals(edits: Sequence[Edit]) -> dict[str, int]:
    """How many texts were refused, by the reason; those drawn again count too."""
    reasons = collections.Counter(
        reason
        for e in edits
        for reason in (*e.redrawn, *([e.refused] if e.refused else ()))
    )
    return dict(sorted(reasons.items()))
