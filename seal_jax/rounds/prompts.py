"""The row `prompts`: self-edits by whichever of several prompts earns most, no RL.

The base policy writes about the first round's training items by each prompt of
`propose.search`; adapters of those edits earn the reward that rounds are decided by,
and the prompt with the highest mean over the items writes about the held-out ones. An
edit that was refused counts as nothing learned (`earned`), and all prompts are held
against each other over the same items. The figure there is honest, that by which a
prompt was chosen flatters. SEAL's own `rewrite` without a round beats its two rounds on
`implications` (arXiv 2506.10943 v2, the table of prompts).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from seal_jax.analysis import stats
from seal_jax.generation import policies
from seal_jax.rewards import names as reward_names
from seal_jax.rewards import own
from seal_jax.rounds import evaluate, ladder, proposals, trials
from seal_jax.rounds.graded import OBJECTIVES, Decides, Graded, by_item, mean, refusals
from seal_jax.rounds.ladder_rows import LadderRow
from seal_jax.rounds.settings import PassageRounds
from seal_jax.rounds.trials import Run
from seal_jax.runtime import formatting
from seal_jax.tasks.knowledge import PROMPTS, Knowledge


def row[Item](
    run: Run[Any, Item],
    policy: policies.Policy,
    train: Sequence[Item],
    heldout: Sequence[Item],
) -> LadderRow:
    """The row; its counts have `prompt`, the one chosen, and all that were `searched`.

    Of prompts with equal rewards the first is chosen, as where none has any.

    Args:
      run: the experiment, of passages.
      policy: the base.
      train: the items that prompts are tried on.
      heldout: those that the row is measured on.
    """
    names = _search(run)
    tried = [_tried(run, policy, train, i) for i in range(len(names))]
    values = earned(tried, len(train), run.exp.select)
    searched = [
        {"prompt": name, "refused": refusals([g.edit for g in one.graded])}
        | _figures(own_values)
        for name, one, own_values in zip(names, tried, values, strict=True)
    ]
    best = max(searched, key=lambda line: _least_if_none(line["reward"]))
    for line in searched:
        shown = formatting.plus_minus(line["reward"], line["se"])
        run.say(f"ladder/{PROMPTS}: {line['prompt']}: mean reward {shown}")
    run.say(f"ladder/{PROMPTS}: chosen: {best['prompt']}")
    found = ladder.row(_asking(run, best["prompt"]), policy, heldout, name=PROMPTS)
    more = {"prompt": best["prompt"], "searched": searched}
    return dataclasses.replace(found, counts=found.counts | more)


def _search(run: Run[Any, Any]) -> tuple[str, ...]:
    assert isinstance(run.exp, PassageRounds)  # Its rows alone have this one.
    return run.exp.propose.search


def _asking[Item](run: Run[Any, Item], prompt: str) -> Run[Any, Item]:
    assert isinstance(run.task, Knowledge)
    return dataclasses.replace(run, task=run.task.asking(prompt))


class Tried(NamedTuple):
    """The edits that one prompt has written, and each item's grade without them."""

    graded: Sequence[Graded]
    baseline: Sequence[float | None]


def _tried[Item](
    run: Run[Any, Item], policy: policies.Policy, items: Sequence[Item], index: int
) -> Tried:
    """What the edits by one prompt earn.

    The random numbers are those of round 1, the same for every prompt; what no edit
    changes is asked once for all.
    """
    prompt, phase = _search(run)[index], f"ladder/{PROMPTS}/{index}"
    run = _asking(run, prompt)
    edits = proposals.propose(
        run, policy, items, phase=phase, round_index=1, count=run.exp.scale.edits
    )
    adapt = functools.partial(
        trials.adapt_and_answer, run, policy, edits, round_index=1
    )
    graded, baseline = evaluate.evaluate(
        *(run, policy, items, edits, adapt),
        phase=phase,
        round_index=1,
        shared=f"ladder/{PROMPTS}",
    )
    return Tried(graded, baseline)


def earned(tried: Sequence[Tried], items: int, by: Decides) -> list[list[float | None]]:
    """The mean reward of each prompt's edits, [prompt][item].

    An edit that was refused, and a seed whose adapter failed, counts as nothing
    learned: the item's grade without an adapter where that is the reward, else 0; where
    0 says nothing, the least that any prompt's edit earned on the item. None where a
    prompt has no value (a judgement that is missing): of that item nothing counts.
    """
    places = [by_item(g.edit.item for g in one.graded) for one in tried]
    found: list[list[float | None]] = [[None] * items for _ in tried]
    for p in range(items):
        groups = [
            [one.graded[i] for i in own_places[p]]
            for one, own_places in zip(tried, places, strict=True)
        ]
        real = [
            value
            for group in groups
            for g in group
            for value in map(reward_names.measured, g.rewards)
            if value is not None
        ]
        values = [
            mean([_worth(g, nothing, by) for g in group])
            for group, one in zip(groups, tried, strict=True)
            for nothing in [_nothing(by.reward, one.baseline[p], real)]
        ]
        if None not in values:
            for row, value in zip(found, values, strict=True):
                row[p] = value
    return found


def _nothing(
    reward: str, baseline: float | None, real: Sequence[float]
) -> float | None:
    """What the reward is of an item about which nothing was learned."""
    if reward == reward_names.GRADE:
        return baseline
    if reward in reward_names.REWARDS and not own.without_zero(reward):
        return 0.0
    return min(real, default=None)


def _worth(g: Graded, nothing: float | None, by: Decides) -> float | None:
    if g.edit.refused:
        return nothing
    values = [nothing if v == reward_names.WORST else v for v in g.rewards]
    return OBJECTIVES[by.objective](values)


def _figures(values: Sequence[float | None]) -> dict[str, Any]:
    """The mean over items, its standard error, and how many of them have a value."""
    average, se = stats.mean_se_of_any(values)
    count = sum(value is not None for value in values)
    return {"reward": average, "se": se, "n": count}


def _least_if_none(value: float | None) -> float:
    return float("-inf") if value is None else value
