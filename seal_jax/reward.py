"""Step 3 of a round: what each self-edit was worth, by the answers of its adapters."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from seal_jax import judge, policy, trials
from seal_jax.tasks.common import Passage
from seal_jax.trials import Edit, Run, Trial


@dataclasses.dataclass(frozen=True)
class Graded:
    """One edit with what its adapters scored.

    `scores[seed][question]` is None where no judgement could be had; `rewards[seed]`
    and `reward` are means over what there is.
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
    passages: Sequence[Passage],
    edits: Sequence[Edit],
    outcomes: Sequence[Trial],
    *,
    phase: str,
    final: bool,
) -> list[Graded]:
    """Scores every trial; an adapter that failed scores 0 on all questions.

    The reward of an edit is the mean over its seeds of the mean over the questions (or
    of the gold answers' log-likelihood, if the config says so).
    """
    seeds = len(outcomes) // len(edits)
    items = [
        (q.question, q.answer, answer)
        for trial in outcomes
        if not trial.failed
        for q, answer in zip(
            passages[edits[trial.edit].passage].questions, trial.answers, strict=True
        )
    ]
    scored = iter(grade_items(run, items, phase=phase, final=final))
    graded = []
    for i, edit in enumerate(edits):
        own = tuple(outcomes[i * seeds : (i + 1) * seeds])
        asked = len(passages[edit.passage].questions)
        scores = tuple(
            (0.0,) * asked if t.failed else tuple(next(scored) for _ in range(asked))
            for t in own
        )
        rewards = tuple(_reward(run, t, s) for t, s in zip(own, scores, strict=True))
        graded.append(Graded(edit, own, scores, rewards, mean(rewards)))
    return graded


def _reward(run: Run, trial: Trial, scores: tuple[float | None, ...]) -> float | None:
    if run.exp.select.reward == "grade":
        return mean(scores)
    return FLOOR if trial.failed else mean(trial.log_likelihoods)


# Log-likelihood reward of an adapter that failed: below any that was measured.
FLOOR = -1e6


class MissingJudgementsError(judge.JudgeError):
    """Too many judgements could not be had to go on."""


def grade_items(
    run: Run, items: list[tuple[str, str, str]], *, phase: str, final: bool
) -> list[float | None]:
    """Scores of (question, gold, answer); None where no judgement could be had.

    What is `final` (later work depends on it) is kept as decided, its gaps included, if
    they are few; anything else is asked again by a later run until it is complete.

    Raises:
      MissingJudgementsError: more than `grade.max_missing` of them are missing.
    """
    name = f"{phase}/grade"
    if name in run.journal:
        return run.journal.get(name)["scores"]
    begin = time.monotonic()
    scores = run.score(items)
    missing = sum(score is None for score in scores)
    if missing > run.exp.grade.max_missing * len(items):
        raise MissingJudgementsError(
            f"{phase}: {missing} of {len(items)} judgements could not be had, "
            f"grade.max_missing={run.exp.grade.max_missing}; run the same command "
            "again to ask for them only"
        )
    if final or not missing:
        seconds = time.monotonic() - begin
        run.journal.put(name, {"scores": scores, "seconds": seconds})
    return scores


def baselines(
    run: Run, pupil: policy.Policy, passages: Sequence[Passage], *, phase: str
) -> list[float | None]:
    """Accuracy per passage of the policy without any adapter."""
    answers = trials.base_answers(run, pupil, passages, phase=phase)
    scores = score_answers(run, passages, answers, phase=f"{phase}/base", final=True)
    return [mean(own) for own in scores]


def score_answers(
    run: Run,
    passages: Sequence[Passage],
    answers: Sequence[Sequence[str]],
    *,
    phase: str,
    final: bool,
) -> list[list[float | None]]:
    """Scores `[passage][question]` of an answer to each question; see `grade_items`."""
    items = [
        (q.question, q.answer, a)
        for passage, own in zip(passages, answers, strict=True)
        for q, a in zip(passage.questions, own, strict=True)
    ]
    scored = iter(grade_items(run, items, phase=phase, final=final))
    return [[next(scored) for _ in p.questions] for p in passages]


def edit_row(graded: Graded, passages: Sequence[Passage], **extra: Any) -> dict:
    """One edit as a row of edits.jsonl."""
    edit, passage = graded.edit, passages[graded.edit.passage]
    answers = [
        [
            {"question": q.question, "gold": q.answer, "answer": a, "score": s}
            for q, a, s in zip(passage.questions, t.answers, scores, strict=True)
        ]
        if not t.failed
        else []
        for t, scores in zip(graded.trials, graded.scores, strict=True)
    ]
    failed = [t.failed for t in graded.trials if t.failed]
    return {
        **extra,
        "passage_id": passage.id,
        "title": passage.title,
        "passage": passage.text,
        "edit": edit.edit,
        "prompt": edit.prompt,
        "text": edit.text,
        "lines": list(edit.lines),
        "rewards": list(graded.rewards),
        "reward": graded.reward,
        "answers": answers,
        "losses": [t.loss for t in graded.trials],
        "failed": failed[0] if failed else None,
    }
