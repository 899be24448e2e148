"""The ladder: what each way of writing self-edits is worth on held-out items.

Of passages:

base            the policy as it is, without any adapter
in_context      ... with the passage in view: the ceiling of what puts it into weights
passage_only    adapters trained on the passage alone
sentence_split  ... on its sentences as well, the edit that costs nothing
self_edits      ... on what the base policy writes
prompts         ... asked by the prompt that earns most on training passages (`prompts`)
edits, distill_edits, quiz, distill, on_policy, mix
                ... on what it writes, learned by that rule (`inner_rules`)
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

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from seal_jax.analysis import stats
from seal_jax.generation import policies
from seal_jax.rounds import proposals, scoring, trials
from seal_jax.rounds.experiment import Experiment, Rounds
from seal_jax.rounds.graded import Exam, Graded, counts, empty_rate, mean
from seal_jax.rounds.ladder_rows import IN_CONTEXT, LadderRow, RowKind, kind_of
from seal_jax.rounds.trials import Run
from seal_jax.runtime import formatting
from seal_jax.training.inner_rules import RULES


def arm[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
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
            policy,
            items,
            phase=phase,
            round_index=0,
            count=scale.heldout_edits,
        )
    exams = [Exam(item) for item in items]
    outcomes = trials.adapt_and_answer(
        run,
        policy,
        edits,
        exams,
        phase=phase,
        round_index=0,
        seeds=range(scale.heldout_seeds),
    )
    return scoring.reward(run, exams, edits, outcomes, phase=phase, final=False)


def row[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    *,
    name: str,
) -> LadderRow:
    """One arm as a row: mean score per item, empty answers, the edits for reading."""
    if kind_of(name) is RowKind.NO_ADAPTER:
        return _base_row(run, policy, items, name=name)
    if name in RULES:
        run = dataclasses.replace(run, task=run.task.under(name))
    graded = arm(run, policy, items, name=name)
    by_item: list[list[float | None]] = [[] for _ in items]
    for g in graded:
        nothing = [run.task.untried] * run.exp.scale.heldout_seeds
        by_item[g.edit.item] += [mean(scores) for scores in g.scores] or nothing
    lines = scoring.lines_trained(run, items, graded)
    return LadderRow(
        name,
        values=tuple(mean(values) for values in by_item),
        empty_rate=empty_rate([a for g in graded for t in g.trials for a in t.answers]),
        missing=sum(s is None for g in graded for scores in g.scores for s in scores),
        failed=sum(bool(t.failed) for g in graded for t in g.trials),
        counts=counts(graded) | scoring.total(lines),
        edits=[
            scoring.edit_row(
                run,
                g,
                items,
                arm=name,
                cut=trained.cut,
            )
            for g, trained in zip(graded, lines, strict=True)
        ],
    )


def _base_row[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    *,
    name: str,
) -> LadderRow:
    """The row of the policy as it is, without any adapter, or with items in view."""
    if name == IN_CONTEXT:
        run = dataclasses.replace(run, task=run.task.in_view())
    phase = f"ladder/{name}"
    answers = trials.base_answers(run, policy, items, phase=phase)
    scores = scoring.score_answers(run, items, answers, phase=phase, final=False)
    shown = [
        {
            "arm": name,
            "task_id": item_row["task_id"],
            "answers": [run.task.answers_row(item, texts, score)],
        }
        for item, texts, score in zip(items, answers, scores, strict=True)
        if (item_row := run.task.item_row(item))
    ]
    return LadderRow(
        name,
        values=tuple(mean(score) for score in scores),
        empty_rate=empty_rate([text for texts in answers for text in texts]),
        missing=sum(s is None for score in scores for s in score),
        failed=0,
        counts=counts([]),
        edits=shown,
    )


def line(row: LadderRow) -> str:
    """What came out of a row, for people."""
    mean, se = stats.mean_se_of_any(row.values)
    count = sum(value is not None for value in row.values)
    shown = formatting.plus_minus(mean, se)
    return f"ladder/{row.name}: mean score {shown} over {count} held-out items"


def table(rows: Sequence[LadderRow]) -> list[dict[str, Any]]:
    """The ladder: mean over items, its standard error, a bootstrap interval of 95 %.

    Both are over items, so that what was tried on one item several times counts once.
    """
    lines = []
    for r in rows:
        average, se = stats.mean_se_of_any(r.values)
        low, high = stats.interval(r.values)
        lines.append(
            {
                "name": r.name,
                "mean": average,
                "se": se,
                "low": low,
                "high": high,
                "n": sum(v is not None for v in r.values),
                "empty_rate": r.empty_rate,
                "missing": r.missing,
                "failed": r.failed,
                **r.counts,
            }
        )
    return lines


def by_item[Item](
    run: Run[Experiment, Item], rows: Sequence[LadderRow], items: Sequence[Item]
) -> list[dict[str, Any]]:
    """For each item its name and its mean score in every row."""
    return [
        {"item": run.task.name(item), **{r.name: r.values[i] for r in rows}}
        for i, item in enumerate(items)
    ]


def pairs(rows: Sequence[LadderRow]) -> list[dict[str, Any]]:
    """Paired differences over the items: each later row minus each earlier one.

    Rows that no item is measured in both of have none.
    """
    lines = []
    for low, high in itertools.combinations(rows, 2):
        both = zip(low.values, high.values, strict=True)
        if not any(a is not None and b is not None for a, b in both):
            continue
        diff, se, z = stats.paired(high.values, low.values)
        lines.append({"a": high.name, "b": low.name, "diff": diff, "se": se, "z": z})
    return lines
