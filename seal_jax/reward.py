"""Step 3 of a round: what each self-edit was worth, by the answers of its adapters."""

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from seal_jax import judge, policy, run_view, trials, vote
from seal_jax.trials import Edit, Run, Trial


@dataclasses.dataclass(frozen=True)
class Graded:
    """One edit with what its adapters scored.

    `scores[seed][i]` (a question each, or one for a few-shot task) is None where no
    judgement could be had. `measured` holds every reward that was taken, by name: a
    value per seed, or a single one where no adapter is asked. `rewards` are those of
    the one that decides, `reward` their mean over what there is. `out`: a race over the
    edits went on without it.

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
    before: Sequence[Graded] = (),
    also: Sequence[Any] | None = None,
) -> list[Graded]:
    """Scores every trial; an adapter that failed scores 0.

    An edit's reward is the mean over its seeds of what the config chose, of these:

    grade            share of the item's questions that are answered right
    log_likelihood   of the gold answers, mean per token (nats)
    majority         share of questions answered like most adapters of the same item
                     (Huang et al. 2022; TTRL, Zuo et al. 2025); no gold answers
    self_asked       share of the right answers to the questions that the policy asked
                     and answered with the passage before it; no gold answers

    Args:
      run: the experiment.
      items: the phase's items.
      edits: of the items.
      outcomes: trials of each edit.
      phase: where finished work is kept.
      final: see `grade`.
      before: the edits with the trials of earlier rungs of a race.
      also: for each item what its adapters were asked beside it, or None.
    """
    scored = iter(_graded(run, items, edits, outcomes, phase=phase, final=final))
    quizzed = None
    if also is not None:
        others = _quizzed(run, also, edits, outcomes, phase=phase, final=final)
        quizzed = iter(others)
    made = []
    for i, (edit, own) in enumerate(zip(edits, outcomes, strict=True)):
        old = before[i] if before else Graded(edit, (), (), (), None)
        trials_, scores = (*old.trials, *own), (*old.scores, *next(scored))
        measured = {"grade": tuple(mean(s) for s in scores)}
        if "log_likelihood" in run.exp.select.measured:
            measured["log_likelihood"] = tuple(
                run_view.FLOOR if t.failed else mean(t.log_likelihoods) for t in trials_
            )
        if quizzed is not None:
            known = old.measured.get("self_asked", ())
            measured["self_asked"] = (*known, *next(quizzed))
        made.append(Graded(edit, trials_, scores, (), None, measured, old.out))
    if "majority" in run.exp.select.measured:
        made = _with_majority(made)
    return [decided(g, run.exp.select.reward) for g in made]


def with_measured(
    graded: Graded, name: str, values: tuple[float | None, ...], *, decides: str
) -> Graded:
    """With one more reward; `decides` names the one that counts."""
    measured = {**graded.measured, name: values}
    return decided(dataclasses.replace(graded, measured=measured), decides)


def decided(graded: Graded, name: str) -> Graded:
    """With the reward of that name as what counts; the grade, where it is not taken."""
    rewards = graded.measured.get(name, graded.measured.get("grade", ()))
    return dataclasses.replace(graded, rewards=rewards, reward=mean(rewards))


def _graded(
    run: Run, items: Sequence[Any], edits: Sequence[Edit], outcomes, *, phase, final
) -> list[list[tuple[float | None, ...]]]:
    """The scores of each edit's trials."""
    answered = [
        (items[edit.item], trial.answers)
        for edit, own in zip(edits, outcomes, strict=True)
        for trial in own
        if not trial.failed
    ]
    scored = iter(grade(run, answered, phase=phase, final=final))
    made = []
    for edit, own in zip(edits, outcomes, strict=True):
        count = run.task.scores_of(items[edit.item])
        made.append(
            [
                (0.0,) * count
                if t.failed
                else tuple(next(scored) for _ in range(count))
                for t in own
            ]
        )
    return made


def _quizzed(
    run: Run, also: Sequence[Any], edits: Sequence[Edit], outcomes, *, phase, final
) -> list[list[float | None]]:
    """Each trial's share of right answers to what it was asked beside its item."""
    asked = [
        (also[edit.item], trial.also)
        for edit, own in zip(edits, outcomes, strict=True)
        for trial in own
        if also[edit.item] is not None and not trial.failed
    ]
    scored = iter(grade(run, asked, phase=f"{phase}/self_asked", final=final))
    made: list[list[float | None]] = []
    for edit, own in zip(edits, outcomes, strict=True):
        item = also[edit.item]
        values: list[float | None] = []
        for trial in own:
            if item is None or trial.failed:
                values.append(None if item is None else 0.0)
            else:
                count = run.task.scores_of(item)
                values.append(mean([next(scored) for _ in range(count)]))
        made.append(values)
    return made


def _with_majority(graded: Sequence[Graded]) -> list[Graded]:
    """Each trial's agreement with the majority of its item's trials."""
    made = list(graded)
    for item in {g.edit.item for g in graded}:
        own = [i for i, g in enumerate(graded) if g.edit.item == item]
        # An adapter that failed has no answers: it agrees with nobody.
        votes = [list(t.answers) for i in own for t in graded[i].trials]
        count = max(map(len, votes), default=0)
        # Seeds of one edit make the same errors: they do not vote for each other, and
        # one edit alone has no majority.
        blocs = [i for i in own for _ in graded[i].trials]
        values = iter([None] * len(blocs))
        if len(set(blocs)) > 1:
            filled = [v or [""] * count for v in votes]
            values = iter(vote.rewards(filled, leave_own_out=True, blocs=blocs))
        for i in own:
            taken = tuple(next(values) for _ in graded[i].trials)
            made[i] = dataclasses.replace(
                graded[i], measured={**graded[i].measured, "majority": taken}
            )
    return made


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
        "measured": {name: list(own) for name, own in graded.measured.items()},
        "out": graded.out,
        "answers": answers,
        "losses": [t.loss for t in graded.trials],
        "failed": failed[0] if failed else None,
    }
