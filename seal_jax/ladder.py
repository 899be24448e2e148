"""The ladder: what each way of writing self-edits is worth on held-out passages.

base            the policy as it is, without any adapter
passage_only    adapters trained on the passage alone
sentence_split  ... on its sentences as well, the edit that costs nothing
self_edits      ... on what the base policy writes
random_kept     ... on what a policy writes after the same rounds with a random edit
                kept: what imitation does without a reward
round_1, ...    ... on what the policy writes after each round
oracle          ... on an ideal edit, where the task can write one
"""

import itertools
from collections.abc import Sequence
from typing import Any

from seal_jax import policy, reward, self_edit, stats, trials
from seal_jax.reward import Graded, mean
from seal_jax.tasks.common import Passage
from seal_jax.trials import Run


def arm(
    run: Run,
    learner: policy.Policy,
    passages: Sequence[Passage],
    *,
    name: str,
) -> list[Graded]:
    """Evaluates one way of writing self-edits (any row but `base`) on the passages."""
    phase, scale = f"ladder/{name}", run.exp.scale
    written = {
        "passage_only": lambda passage: "",
        "sentence_split": lambda passage: "\n".join(self_edit.sentences(passage.text)),
        "oracle": lambda passage: passage.oracle,
    }
    if name in written:
        edits = trials.fixed_edits(run, passages, written[name])
    else:
        edits = trials.propose(
            run,
            learner,
            passages,
            phase=phase,
            round_index=0,
            count=scale.heldout_edits,
        )
    outcomes = trials.adapt_and_answer(
        run,
        learner,
        passages,
        edits,
        phase=phase,
        round_index=0,
        seeds=scale.heldout_seeds,
    )
    return reward.reward(run, passages, edits, outcomes, phase=phase, final=False)


def row(
    run: Run,
    learner: policy.Policy,
    passages: Sequence[Passage],
    *,
    name: str,
) -> dict[str, Any]:
    """One arm as a row: accuracy per passage, empty answers, the edits for reading."""
    graded: list[Graded] = []
    if name == "base":
        phase = f"ladder/{name}"
        answers = trials.base_answers(run, learner, passages, phase=phase)
        scores = reward.score_answers(run, passages, answers, phase=phase, final=False)
        values = [mean(own) for own in scores]
        texts = [a for own in answers for a in own]
    else:
        graded = arm(run, learner, passages, name=name)
        scores = [own for g in graded for own in g.scores]
        accuracy: list[list[float | None]] = [[] for _ in passages]
        for g in graded:
            accuracy[g.edit.passage] += [mean(own) for own in g.scores]
        values = [mean(own) for own in accuracy]
        texts = [a for g in graded for t in g.trials for a in t.answers]
    return {
        "name": name,
        "values": values,
        "empty_rate": reward.empty_rate(texts),
        "missing": sum(s is None for own in scores for s in own),
        "failed": sum(bool(t.failed) for g in graded for t in g.trials),
        "edits": [reward.edit_row(g, passages, arm=name) for g in graded],
    }


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ladder: mean over passages of the accuracy, with its standard error."""
    made = []
    for r in rows:
        average, se = stats.mean_se(r["values"])
        made.append(
            {
                "name": r["name"],
                "mean": average,
                "se": se,
                "n": sum(v is not None for v in r["values"]),
                "empty_rate": r["empty_rate"],
                "missing": r["missing"],
                "failed": r["failed"],
            }
        )
    return made


def pairs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences over the passages: every later row minus every earlier one."""
    made = []
    for low, high in itertools.combinations(rows, 2):
        diff, se, z = stats.paired(high["values"], low["values"])
        made.append(
            {"a": high["name"], "b": low["name"], "diff": diff, "se": se, "z": z}
        )
    return made
