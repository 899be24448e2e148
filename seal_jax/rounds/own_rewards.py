"""Rewards of the user's own, measured in a round: of edits' texts, and of adapters.

What they are is in `rewards.own`. Each is a unit of the journal, so that a run that is
continued does not ask for it again.
"""

import time
from collections.abc import Sequence
from typing import Any

from seal_jax.rewards import own
from seal_jax.rounds import label_free
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.graded import Graded, Trial, with_measured
from seal_jax.rounds.trials import Run
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import distributed, plugins
from seal_jax.tasks.passage import Passage


def of_trials[Item](
    run: Run[Rounds, Item],
    items: Sequence[Item],
    graded: Sequence[Graded],
    before: Sequence[Graded],
    *,
    phase: str,
) -> list[Graded]:
    """The edits with the rewards that take an adapter, a value for each seed.

    Args:
      run: the experiment.
      items: of the round, which must be passages.
      graded: the edits with their trials.
      before: the same with the trials of earlier rungs of a race, or nothing.
      phase: where finished work is kept.

    Raises:
      ValueError: the user's function raises, or gives no number.
    """
    found = list(graded)
    for reward in _named(run, trains=True):
        old = [g.measured.get(reward.text, ()) for g in before or graded]
        left = [g.trials[len(o) :] for g, o in zip(found, old, strict=True)]
        new = _kept(run, items, found, left, reward, phase)
        for i, values in enumerate(new):
            found[i] = _with(run, found[i], reward, (*old[i], *values))
    return found


def of_texts[Item](
    run: Run[Rounds, Item],
    items: Sequence[Item],
    graded: Sequence[Graded],
    *,
    phase: str,
) -> list[Graded]:
    """The edits with the rewards that no adapter is asked for; refused ones have none.

    Arguments and errors are those of `of_trials`.
    """
    found = list(graded)
    for reward in _named(run, trains=False):
        once = [() if g.edit.refused else (None,) for g in found]
        for i, values in enumerate(_kept(run, items, found, once, reward, phase)):
            if values:
                found[i] = _with(run, found[i], reward, tuple(values))
    return found


def _with[Item](
    run: Run[Rounds, Item],
    graded: Graded,
    reward: own.Reward,
    values: tuple[float | None, ...],
) -> Graded:
    return with_measured(graded, reward.text, values, decides=run.exp.select)


def _named[Item](run: Run[Rounds, Item], *, trains: bool) -> list[own.Reward]:
    chosen = run.exp.select
    keys = {name: "select.compare" for name in chosen.measured}
    keys[chosen.reward] = "select.reward"
    named = [own.reward(n, keys[n]) for n in chosen.measured if plugins.is_named(n)]
    return [reward for reward in named if reward.trains == trains]


def _kept[Item](
    run: Run[Rounds, Item],
    items: Sequence[Item],
    graded: Sequence[Graded],
    trials: Sequence[Sequence[Trial | None]],
    reward: own.Reward,
    phase: str,
) -> list[list[float | None]]:
    """The values of each edit's `trials`, as a unit of the journal.

    None if an adapter failed, or if the reward asks for questions and there are none
    about the passage: `gold.left_out` says so.

    Raises:
      ValueError: see `of_trials`; or the items are no passages.
    """
    texts = label_free.passages(items)

    def value(graded: Graded, trial: Trial | None) -> float | None:
        passage = texts[graded.edit.item]
        if (trial and trial.failed) or (reward.asks and not passage.questions):
            return None
        return reward.of(_given(passage, graded, trial))

    def measure() -> list[list[float | None]]:
        return [
            [value(g, trial) for trial in own_trials]
            for g, own_trials in zip(graded, trials, strict=True)
        ]

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        values = distributed.share(measure)
        return {"values": values, "seconds": time.monotonic() - begin}

    return run.journal.cached(str(UnitKey(phase, reward.text)), unit)["values"]


def _given(passage: Passage, graded: Graded, trial: Trial | None) -> dict[str, Any]:
    """What a reward may ask for, by the names of `own.GIVEN`."""
    return {
        "title": passage.title,
        "passage": passage.text,
        "questions": [q.question for q in passage.questions],
        "gold": [q.answer for q in passage.questions],
        "edit": graded.edit.text,
        "answers": [] if trial is None else list(trial.answers),
        "loss": None if trial is None else trial.loss,
    }
