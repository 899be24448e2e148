"""Step 3 of a round: what each self-edit was worth, by the answers of its adapters."""

import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from seal_jax import judge, policy, trials
from seal_jax.trials import Edit, Run, Trial


@dataclasses.dataclass(frozen=True)
class Graded:
    """One edit with what its adapters scored.

    `scores[seed][i]` (a question each, or one for a few-shot task) is None where no
    judgement could be had; `rewards[seed]` and `reward` are means over what there is.
    An edit that was refused has no trials and no reward: it was not tried.
    """

    edit: Edit
    trials: tuple[Trial, ...]
    scores: tuple[tuple[float | None, ...], ...]
    rewards: tuple[float | None, ...]
    reward: float | None


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None if none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def empty_rate(answers: Sequence[str]) -> float | None:
    """Share of answers that are blank."""
    return sum(not a.strip() for a in answers) / len(answers) if answers else None


def reward(
    run: Run,
    items: Sequence[Any],
    edits: Sequence[Edit],
    outcomes: Sequence[Sequence[Trial]],
    *,
    phase: str,
    final: bool,
) -> list[Graded]:
    """Scores every trial; an adapter that failed scores 0.

    The reward of an edit is the mean over its seeds of the mean over its scores (or of
    the gold answers' log-likelihood, if the config says so).
    """
    answered = [
        (items[edit.item], trial.answers)
        for edit, own in zip(edits, outcomes, strict=True)
        for trial in own
        if not trial.failed
    ]
    scored = iter(grade(run, answered, phase=phase, final=final))
    graded = []
    for edit, own in zip(edits, outcomes, strict=True):
        count = run.task.scores_of(items[edit.item])
        scores = tuple(
            (0.0,) * count if t.failed else tuple(next(scored) for _ in range(count))
            for t in own
        )
        rewards = tuple(_reward(run, t, s) for t, s in zip(own, scores, strict=True))
        graded.append(Graded(edit, tuple(own), scores, rewards, mean(rewards)))
    return graded


def _reward(run: Run, trial: Trial, scores: tuple[float | None, ...]) -> float | None:
    if run.exp.select.reward == "grade":
        return mean(scores)
    return FLOOR if trial.failed else mean(trial.log_likelihoods)


# Log-likelihood reward of an adapter that failed: below any that was measured.
FLOOR = -1e6


class MissingJudgementsError(judge.JudgeError):
    """Too many judgements could not be had to go on."""


def grade(
    run: Run, answered: Sequence[tuple[Any, Sequence[str]]], *, phase: str, final: bool
) -> list[float | None]:
    """Scores of (item, answers); None where no judgement could be had.

    What is `final` (later work depends on it) is kept as decided, its gaps included, if
    they are few; anything else is asked again by a later run until it is complete.

    Raises:
      MissingJudgementsError: more than `grade.max_missing` of them are missing.
    """
    name = f"{phase}/grade"
    if name in run.journal:
        return run.journal.get(name)["scores"]
    begin = time.monotonic()
    scores = run.task.score(answered)
    missing = sum(score is None for score in scores)
    if missing > run.task.max_missing * len(scores):
        raise MissingJudgementsError(
            f"{phase}: {missing} of {len(scores)} judgements could not be had, "
            f"grade.max_missing={run.task.max_missing}; run the same command "
            "again to ask for them only"
        )
    if final or not missing:
        seconds = time.monotonic() - begin
        run.journal.put(name, {"scores": scores, "seconds": seconds})
    return scores


def baselines(
    run: Run, pupil: policy.Policy, items: Sequence[Any], *, phase: str
) -> list[float | None]:
    """Mean score per item of the policy without any adapter."""
    answers = trials.base_answers(run, pupil, items, phase=phase)
    scores = score_answers(run, items, answers, phase=f"{phase}/base", final=True)
    return [mean(own) for own in scores]


def score_answers(
    run: Run,
    items: Sequence[Any],
    answers: Sequence[Sequence[str]],
    *,
    phase: str,
    final: bool,
) -> list[list[float | None]]:
    """Scores of each item's answers; see `grade`."""
    answered = list(zip(items, answers, strict=True))
    scored = iter(grade(run, answered, phase=phase, final=final))
    return [[next(scored) for _ in range(run.task.scores_of(i))] for i in items]


def counts(graded: Sequence[Graded]) -> dict[str, Any]:
    """How many edits, texts drawn, edits trained; their mean score; refusals."""
    edits = [g.edit for g in graded]
    reasons = collections.Counter(
        reason
        for e in edits
        for reason in (*e.redrawn, *([e.refused] if e.refused else ()))
    )
    return {
        "edits": len(edits),
        "drawn": sum(len(e.redrawn) + 1 for e in edits),
        "trained": sum(e.refused is None for e in edits),
        "trained_mean": mean([mean(own) for g in graded for own in g.scores]),
        "refused": dict(sorted(reasons.items())),
    }


def edit_row(run: Run, graded: Graded, items: Sequence[Any], **extra: Any) -> dict:
    """One edit as a row of edits.jsonl."""
    edit, item = graded.edit, items[graded.edit.item]
    answers = [
        [] if t.failed else run.task.answers_row(item, t.answers, scores)
        for t, scores in zip(graded.trials, graded.scores, strict=True)
    ]
    failed = [t.failed for t in graded.trials if t.failed]
    return {
        **extra,
        **run.task.row(item, edit),
        "rewards": list(graded.rewards),
        "reward": graded.reward,
        "answers": answers,
        "losses": [t.loss for t in graded.trials],
        "failed": failed[0] if failed else None,
    }
