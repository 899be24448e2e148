"""Steps 2 and 3 of a round together: train and ask until the edits are told apart.

Usually every edit gets the same seeds. With `select.halving` all edits of an item get a
few, the better ones get more, and so on: seeds go where they can still decide.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from seal_jax import halving, label_free, policy, reward, trials
from seal_jax.reward import Graded
from seal_jax.trials import Edit, Run


def evaluate(
    run: Run,
    pupil: policy.Policy,
    items: Sequence[Any],
    edits: Sequence[Edit],
    *,
    phase: str,
    round_index: int,
) -> list[Graded]:
    """What each of a round's edits is worth, by every reward the config names.

    Without a reward that takes an adapter none is trained, and no edit has scores.
    """
    select = run.exp.select
    values, graded = None, [Graded(edit, (), (), (), None) for edit in edits]
    if "rubric" in select.measured:
        # First: a judge that does not answer should not cost a phase of training.
        values = label_free.rubric(run, items, edits, phase=phase)
    if select.trains:
        graded = _race(run, pupil, items, edits, phase=phase, round_index=round_index)
    if values is not None:
        graded = [
            reward.with_measured(g, "rubric", (value,), decides=select.reward)
            for g, value in zip(graded, values, strict=True)
        ]
    return graded


def _race(
    run: Run,
    pupil: policy.Policy,
    items: Sequence[Any],
    edits: Sequence[Edit],
    *,
    phase: str,
    round_index: int,
) -> list[Graded]:
    exp = run.exp
    also = None
    if "self_asked" in exp.select.measured:
        also = label_free.quizzes(
            run, pupil, items, phase=phase, round_index=round_index
        )
    plan = halving.uniform(exp.scale.seeds, picks=exp.scale.edits)
    if exp.select.halving:
        plan = halving.from_pairs(exp.select.halving)
    graded: list[Graded] = []
    left, spent = list(range(len(edits))), 0
    for rung, step in enumerate(plan):
        name = f"{phase}/rung_{rung}" if len(plan) > 1 else phase
        outcomes = trials.adapt_and_answer(
            run,
            pupil,
            items,
            edits,
            phase=name,
            round_index=round_index,
            seeds=range(spent, step.seeds),
            among=left,
            also=also,
        )
        graded = reward.reward(
            run,
            items,
            edits,
            outcomes,
            phase=name,
            final=True,
            before=graded,
            also=also,
        )
        left, spent = _better(graded, left, step.keep), step.seeds
        graded = [
            dataclasses.replace(g, out=i not in left) for i, g in enumerate(graded)
        ]
    return graded


def _better(graded: Sequence[Graded], left: Sequence[int], keep: int) -> list[int]:
    """The best `keep` edits of each item, of those that are left."""
    going = []
    for item in sorted({graded[i].edit.item for i in left}):
        own = [i for i in left if graded[i].edit.item == item]
        chosen = halving.survivors(
            [graded[i].rewards for i in own], min(keep, len(own))
        )
        going += sorted(own[i] for i in chosen)
    return going
