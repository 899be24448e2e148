"""The ladder: what each way of writing self-edits is worth on held-out items.

Of passages:

base            the policy as it is, without any adapter
passage_only    adapters trained on the passage alone
sentence_split  ... on its sentences as well, the edit that costs nothing
self_edits      ... on what the base policy writes
random_kept     ... on what a policy writes after the same rounds with a random edit
                kept: what imitation does without a reward
round_1, ...    ... on what the policy writes after each round
oracle          ... on an ideal edit, where the task can write one

Of few-shot tasks:

in_context      the policy as it is, without any adapter
random          adapters trained by a valid configuration drawn at random
self_edits      ... by what the base policy writes
round_1, ...    ... by what the policy writes after each round
constant        ... of the last policy, by the oracle's configuration for every task
oracle          ... of the base, by one configuration that a person chose
"""

import itertools
from collections.abc import Sequence
from typing import Any

from seal_jax import policy, proposals, reward, stats, trials
from seal_jax.reward import Graded, mean
from seal_jax.trials import Run

# Rows without an adapter.
NO_ADAPTER = ("base", "in_context")


def arm(
    run: Run,
    learner: policy.Policy,
    items: Sequence[Any],
    *,
    name: str,
) -> list[Graded]:
    """Evaluates one way of writing self-edits (any row with adapters) on the items."""
    phase, scale = f"ladder/{name}", run.exp.scale
    if run.task.fixed(name, items[0]) is not None:
        edits = proposals.fixed_edits(run, items, name)
    else:
        edits = proposals.propose(
            run,
            learner,
            items,
            phase=phase,
            round_index=0,
            count=scale.heldout_edits,
        )
    outcomes = trials.adapt_and_answer(
        run,
        learner,
        items,
        edits,
        phase=phase,
        round_index=0,
        seeds=range(scale.heldout_seeds),
    )
    return reward.reward(run, items, edits, outcomes, phase=phase, final=False)


def row(
    run: Run,
    learner: policy.Policy,
    items: Sequence[Any],
    *,
    name: str,
) -> dict[str, Any]:
    """One arm as a row: mean score per item, empty answers, the edits for reading."""
    graded: list[Graded] = []
    if name in NO_ADAPTER:
        phase = f"ladder/{name}"
        answers = trials.base_answers(run, learner, items, phase=phase)
        scores = reward.score_answers(run, items, answers, phase=phase, final=False)
        values = [mean(own) for own in scores]
        texts = [a for own in answers for a in own]
        shown = [
            {
                "arm": name,
                "task_id": row["task_id"],
                "answers": [run.task.answers_row(item, own, score)],
            }
            for item, own, score in zip(items, answers, scores, strict=True)
            if (row := run.task.item_row(item))
        ]
    else:
        graded = arm(run, learner, items, name=name)
        scores = [own for g in graded for own in g.scores]
        by_item: list[list[float | None]] = [[] for _ in items]
        for g in graded:
            # A policy that writes what cannot be trained has solved nothing with it.
            nothing = [0.0] * run.exp.scale.heldout_seeds
            by_item[g.edit.item] += [mean(own) for own in g.scores] or nothing
        values = [mean(own) for own in by_item]
        texts = [a for g in graded for t in g.trials for a in t.answers]
        shown = [reward.edit_row(run, g, items, arm=name) for g in graded]
    return {
        "name": name,
        "values": values,
        "empty_rate": reward.empty_rate(texts),
        "missing": sum(s is None for own in scores for s in own),
        "failed": sum(bool(t.failed) for g in graded for t in g.trials),
        "counts": reward.counts(graded),
        "edits": shown,
    }


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ladder: mean over items, its standard error, a bootstrap interval of 95 %.

    Both are over items, so that what was tried on one item several times counts once.
    """
    made = []
    for r in rows:
        average, se = stats.mean_se(r["values"])
        low, high = stats.interval(r["values"])
        made.append(
            {
                "name": r["name"],
                "mean": average,
                "se": se,
                "low": low,
                "high": high,
                "n": sum(v is not None for v in r["values"]),
                "empty_rate": r["empty_rate"],
                "missing": r["missing"],
                "failed": r["failed"],
                **r["counts"],
            }
        )
    return made


def by_item(
    run: Run, rows: Sequence[dict[str, Any]], items: Sequence[Any]
) -> list[dict[str, Any]]:
    """For each item its name and its mean score in every row."""
    return [
        {"item": run.task.name(item), **{r["name"]: r["values"][i] for r in rows}}
        for i, item in enumerate(items)
    ]


def pairs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences over the items: every later row minus every earlier one."""
    made = []
    for low, high in itertools.combinations(rows, 2):
        diff, se, z = stats.paired(high["values"], low["values"])
        made.append(
            {"a": high["name"], "b": low["name"], "diff": diff, "se": se, "z": z}
        )
    return made
