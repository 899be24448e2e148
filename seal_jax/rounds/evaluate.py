"""Step 3 of a round: what each edit is worth, by the adapters that it needs trained.

Usually every edit gets the same seeds. With `select.halving` all edits of an item get a
few, the better ones get more, and so on: seeds go where they can still decide.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from seal_jax.analysis import halving
from seal_jax.generation import policies
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import dreams, label_free, own_rewards, scoring
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.graded import Exam, Graded, Trial, by_item
from seal_jax.rounds.trials import Run
from seal_jax.tasks.base import Edit


class Adapt[Item](Protocol):
    """Step 2: trains and asks adapters of the edits (`trials.adapt_and_answer`)."""

    def __call__(
        self,
        exams: Sequence[Exam[Item]],
        *,
        phase: str,
        seeds: Sequence[int],
        among: Collection[int] | None = None,
    ) -> list[list[Trial]]: ...


def evaluate[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    edits: Sequence[Edit],
    adapt: Adapt[Item],
    *,
    phase: str,
    round_index: int,
    known: Mapping[str, dreams.Scores] | None = None,
    shared: str | None = None,
) -> tuple[list[Graded], list[float | None]]:
    """What each of a round's edits is worth, by every reward the config names.

    Without a reward that takes an adapter none is trained, and no edit has scores.

    Args:
      run: the experiment.
      policy: the policy that is adapted.
      items: of the round.
      edits: of the items.
      adapt: trains adapters of these edits, and asks them about their items.
      phase: where finished work is kept.
      round_index: from 1 on.
      known: rewards of the edits that were measured already, by name.
      shared: where finished work is kept that is the same whatever the edits: quizzes
        and the items without an adapter. None: `phase`.

    Returns:
      the edits with their rewards, and the mean score of each item without an adapter.

    Raises:
      scoring.MissingJudgementsError: too many judgements could not be had.
    """
    select, shared = run.exp.select, shared or phase
    texts, graded = (
        dict(known or {}),
        [Graded(edit, (), (), (), None) for edit in edits],
    )
    if reward_names.RUBRIC in select.measured:
        # First: a judge that does not answer should not cost a phase of training.
        texts[reward_names.RUBRIC] = label_free.verdicts(
            run, policy, items, edits, phase=phase, round_index=round_index
        )
    for name in reward_names.GRADIENTS:
        if name in select.measured and name not in texts:
            texts[name] = dreams.scores(
                *(run, policy, items, edits),
                name=name,
                phase=phase,
                round_index=round_index,
                quiz=shared,
            )
    if select.trains:
        exams = [Exam(item) for item in items]
        if reward_names.SELF_ASKED in select.measured:
            quizzes = label_free.quizzes(
                run, policy, items, phase=shared, round_index=round_index
            )
            exams = list(map(Exam, items, quizzes))
        graded = _race(run, exams, edits, adapt, phase=phase)
    for name, values in texts.items():
        graded = dreams.with_scores(run, graded, name, values)
    graded = own_rewards.of_texts(run, items, graded, phase=phase)
    return graded, scoring.baselines(run, policy, items, phase=shared)


def _race[Item](
    run: Run[Rounds, Item],
    exams: Sequence[Exam[Item]],
    edits: Sequence[Edit],
    adapt: Adapt[Item],
    *,
    phase: str,
) -> list[Graded]:
    """The edits with the rewards of their adapters, after all rungs of the race."""
    exp = run.exp
    plan = halving.uniform(exp.scale.seeds, picks=exp.scale.edits)
    if exp.select.halving:
        plan = halving.from_pairs(exp.select.halving)
    graded: list[Graded] = []
    left, spent = set(range(len(edits))), 0
    for rung, step in enumerate(plan):
        name = f"{phase}/rung_{rung}" if len(plan) > 1 else phase
        seeds = range(spent, step.seeds)
        outcomes = adapt(exams, phase=name, seeds=seeds, among=left)
        before = graded
        graded = scoring.reward(
            run, exams, edits, outcomes, phase=name, final=True, before=before
        )
        items = [exam.item for exam in exams]
        graded = own_rewards.of_trials(run, items, graded, before, phase=name)
        left = _better(graded, left, step.keep, exp.select.objective)
        spent = step.seeds
        graded = [
            dataclasses.replace(g, out=i not in left) for i, g in enumerate(graded)
        ]
    return graded


def _better(
    graded: Sequence[Graded], left: Collection[int], keep: int, objective: str
) -> set[int]:
    """The best `keep` edits of each item, of those that are left."""
    in_order, better = sorted(left), set()
    for group in by_item(graded[i].edit.item for i in in_order).values():
        places = [in_order[k] for k in group]
        chosen = halving.survivors(
            [graded[i].rewards for i in places],
            min(keep, len(places)),
            objective=objective,
        )
        better |= {places[i] for i in chosen}
    return better
