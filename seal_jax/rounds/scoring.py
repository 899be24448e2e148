"""Step 3 of a round: what each self-edit was worth, by the answers of its adapters."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from seal_jax.generation import policies
from seal_jax.rewards import judge, vote
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import trials
from seal_jax.rounds.experiment import Experiment, Rounds
from seal_jax.rounds.graded import Exam, Graded, Trial, by_item, decided, mean
from seal_jax.rounds.trials import Run
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import distributed
from seal_jax.tasks.base import Edit, Lines, Questions


def reward[Item](
    run: Run[Rounds, Item],
    exams: Sequence[Exam[Item]],
    edits: Sequence[Edit],
    outcomes: Sequence[Sequence[Trial]],
    *,
    phase: str,
    final: bool,
    before: Sequence[Graded] = (),
) -> list[Graded]:
    """Scores every trial; an adapter that failed scores 0.

    An edit's reward is the mean over its seeds (or the best of them, by
    `select.objective`) of what the config chose, of these:

    grade            share of the item's questions that are answered right
    log_likelihood   of the gold answers, mean per token (nats)
    majority         share of questions answered like most adapters of the same item
                     (Huang et al. 2022; TTRL, Zuo et al. 2025); no gold answers
    self_asked       share of the right answers to the questions that the policy asked
                     and answered with the passage before it; no gold answers

    Args:
      run: the experiment.
      exams: the phase's items, with what their adapters were asked.
      edits: of the items.
      outcomes: trials of each edit.
      phase: where finished work is kept.
      final: see `grade`.
      before: the edits with the trials of earlier rungs of a race.

    Raises:
      MissingJudgementsError: see `grade`.
    """
    items = [exam.item for exam in exams]
    scored = iter(_graded(run, items, edits, outcomes, phase=phase, final=final))
    quizzed = None
    if any(exam.quiz is not None for exam in exams):
        quizzed = iter(_quizzed(run, exams, edits, outcomes, phase=phase, final=final))
    graded = []
    for i, (edit, new) in enumerate(zip(edits, outcomes, strict=True)):
        old = before[i] if before else Graded(edit, (), (), (), None)
        all_trials, scores = (*old.trials, *new), (*old.scores, *next(scored))
        measured = {reward_names.GRADE: tuple(mean(s) for s in scores)}
        if reward_names.LOG_LIKELIHOOD in run.exp.select.measured:
            measured[reward_names.LOG_LIKELIHOOD] = tuple(
                None if t.failed else mean(t.log_likelihoods) for t in all_trials
            )
        if quizzed is not None:
            earlier = old.measured.get(reward_names.SELF_ASKED, ())
            measured[reward_names.SELF_ASKED] = (*earlier, *next(quizzed))
        graded.append(Graded(edit, all_trials, scores, (), None, measured, old.out))
    if reward_names.MAJORITY in run.exp.select.measured:
        graded = with_majority(graded)
    return [decided(g, run.exp.select) for g in graded]


def _graded[Item](
    run: Run[Rounds, Item],
    items: Sequence[Item],
    edits: Sequence[Edit],
    outcomes: Sequence[Sequence[Trial]],
    *,
    phase: str,
    final: bool,
) -> list[list[tuple[float | None, ...]]]:
    """The scores of each edit's trials."""
    answered = [
        (items[edit.item], trial.answers)
        for edit, edit_trials in zip(edits, outcomes, strict=True)
        for trial in edit_trials
        if not trial.failed
    ]
    scored = iter(grade(run, answered, phase=phase, final=final))
    edit_scores = []
    for edit, edit_trials in zip(edits, outcomes, strict=True):
        count = run.task.scores_of(items[edit.item])
        edit_scores.append(
            [
                (0.0,) * count
                if t.failed
                else tuple(next(scored) for _ in range(count))
                for t in edit_trials
            ]
        )
    return edit_scores


def _quizzed[Item](
    run: Run[Rounds, Item],
    exams: Sequence[Exam[Item]],
    edits: Sequence[Edit],
    outcomes: Sequence[Sequence[Trial]],
    *,
    phase: str,
    final: bool,
) -> list[list[float | None]]:
    """Each trial's share of right answers to the quiz; None: it has no question."""
    answered = [
        (quiz, trial.quiz_answers)
        for edit, edit_trials in zip(edits, outcomes, strict=True)
        for trial in edit_trials
        if (quiz := exams[edit.item].quiz) is not None and not trial.failed
    ]
    scored = iter(grade(run, answered, phase=f"{phase}/self_asked", final=final))
    shares: list[list[float | None]] = []
    for edit, edit_trials in zip(edits, outcomes, strict=True):
        quiz = exams[edit.item].quiz
        count = 0 if quiz is None else run.task.scores_of(quiz)
        shares.append(
            [
                0.0
                if t.failed and count
                else mean([next(scored) for _ in range(count)])
                for t in edit_trials
            ]
        )
    return shares


def with_majority(graded: Sequence[Graded]) -> list[Graded]:
    """Each trial's agreement with the majority of its item's trials."""
    voted = list(graded)
    for places in by_item(g.edit.item for g in graded).values():
        # An adapter that failed has no answers: it agrees with nobody.
        votes = [list(t.answers) for i in places for t in graded[i].trials]
        count = max(map(len, votes), default=0)
        # Seeds of one edit make the same errors: they do not vote for each other, and
        # one edit alone has no majority.
        blocs = [i for i in places for _ in graded[i].trials]
        values = iter([None] * len(blocs))
        if len(set(blocs)) > 1:
            filled = [v or [""] * count for v in votes]
            values = iter(vote.rewards(filled, leave_own_out=True, blocs=blocs))
        for i in places:
            taken = tuple(next(values) for _ in graded[i].trials)
            voted[i] = dataclasses.replace(
                graded[i], measured={**graded[i].measured, reward_names.MAJORITY: taken}
            )
    return voted


class MissingJudgementsError(judge.JudgeError):
    """Too many judgements could not be had to go on."""


def grade[Item](
    run: Run[Experiment, Item],
    answered: Sequence[tuple[Item, Sequence[str]]],
    *,
    phase: str,
    final: bool,
) -> list[float | None]:
    """Scores of (item, answers); None where no judgement could be had.

    What is `final` (later work depends on it) is kept as decided, its gaps included, if
    they are few; anything else is asked again by a later run until it is complete.

    Raises:
      MissingJudgementsError: more than `grade.max_missing` of them are missing.
    """
    name = str(UnitKey(phase, "grade"))
    if name in run.journal:
        return run.journal.get(name)["scores"]
    begin = time.monotonic()
    scores = one_for_all(run.task, answered)
    missing = sum(score is None for score in scores)
    if missing > run.task.max_missing * len(scores):
        raise MissingJudgementsError(
            f"{phase}: {missing} of {len(scores)} judgements could not be had, "
            f"grade.max_missing={run.task.max_missing}; run the same command "
            "again to ask for them only, or, if a grader of your own gave None, have "
            "it give a number, or raise grade.max_missing in a new workdir"
        )
    if final or not missing:
        seconds = time.monotonic() - begin
        run.journal.put(name, {"scores": scores, "seconds": seconds})
    return scores


def one_for_all[Item](
    task: Questions[Item], answered: Sequence[tuple[Item, Sequence[str]]]
) -> list[float | None]:
    """What the first process's task scores, on all of them.

    All must come here. A grader may ask an endpoint, and a task of the user's own may
    draw or look at a clock: each process would go on with scores of its own.
    """
    return distributed.share(lambda: task.score(answered))


def baselines[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    *,
    phase: str,
) -> list[float | None]:
    """Mean score per item of the policy without any adapter."""
    answers = trials.base_answers(run, policy, items, phase=phase)
    scores = score_answers(run, items, answers, phase=f"{phase}/base", final=True)
    return [mean(item_scores) for item_scores in scores]


def score_answers[Item](
    run: Run[Experiment, Item],
    items: Sequence[Item],
    answers: Sequence[Sequence[str]],
    *,
    phase: str,
    final: bool,
) -> list[list[float | None]]:
    """Scores of each item's answers; see `grade`."""
    answered = list(zip(items, answers, strict=True))
    scored = iter(grade(run, answered, phase=phase, final=final))
    return [[next(scored) for _ in range(run.task.scores_of(i))] for i in items]


def lines_trained[Item](
    run: Run[Experiment, Item], items: Sequence[Item], graded: Sequence[Graded]
) -> list[Lines]:
    """Training lines of each edit, each once; none of one that was not trained."""
    return [
        run.task.count_lines(items[g.edit.item], g.edit) if g.trials else Lines(0, 0)
        for g in graded
    ]


def total(counts: Sequence[Lines]) -> dict[str, int]:
    """All lines, and how many of them are cut."""
    return {
        "lines": sum(count.lines for count in counts),
        "cut": sum(count.cut for count in counts),
    }


def edit_row[Item](
    run: Run[Experiment, Item], graded: Graded, items: Sequence[Item], **extra: Any
) -> dict[str, Any]:
    """One edit as a row of edits.jsonl; `extra` is more about it."""
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
        "measured": {name: list(values) for name, values in graded.measured.items()},
        "out": graded.out,
        "answers": answers,
        "losses": [t.loss for t in graded.trials],
        "failed": failed[0] if failed else None,
    }
