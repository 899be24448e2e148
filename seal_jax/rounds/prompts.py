"""The row `prompts`: self-edits by whichever of several prompts earns most, no RL.

The base policy writes about the first round's training items by each prompt of
`propose.search`; adapters of those edits earn the reward that rounds are decided by,
and the prompt with the highest mean over the items writes about the held-out ones. The
figure there is honest, that by which a prompt was chosen flatters. SEAL's own `rewrite`
without a round beats its two rounds on `implications` (arXiv 2506.10943 v2, the table
of prompts).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from seal_jax.analysis import stats
from seal_jax.generation import policies
from seal_jax.rounds import evaluate, ladder, proposals, trials
from seal_jax.rounds.graded import by_item, mean, refusals
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
    searched = [_tried(run, policy, train, i) for i in range(len(_search(run)))]
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


def _tried[Item](
    run: Run[Any, Item], policy: policies.Policy, items: Sequence[Item], index: int
) -> dict[str, Any]:
    """What the edits by one prompt earn: the mean over items, and its standard error.

    The random numbers are those of round 1, the same for every prompt.
    """
    prompt, phase = _search(run)[index], f"ladder/{PROMPTS}/{index}"
    run = _asking(run, prompt)
    edits = proposals.propose(
        run, policy, items, phase=phase, round_index=1, count=run.exp.scale.edits
    )
    adapt = functools.partial(
        trials.adapt_and_answer, run, policy, edits, round_index=1
    )
    graded, _ = evaluate.evaluate(
        run, policy, items, edits, adapt, phase=phase, round_index=1
    )
    places = by_item(g.edit.item for g in graded)
    values = [mean([graded[i].reward for i in places[p]]) for p in range(len(items))]
    average, se = stats.mean_se_of_any(values)
    return {
        "prompt": prompt,
        "reward": average,
        "se": se,
        "n": sum(value is not None for value in values),
        "refused": refusals(edits),
    }


def _least_if_none(value: float | None) -> float:
    return float("-inf") if value is None else value
