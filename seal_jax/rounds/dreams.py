"""Many more self-edits than are trained, ranked by one gradient each.

    score(e) = <grad_B L_e, grad_B L_answers>

at the adapters' start (`training.influence`): how fast a small step on the edit's
lines, as the inner rule makes them, would lower the loss of answers to questions about
its item. The answers are those that the policy gives itself ("gradient", no labels; of
the questions of `label_free.quizzes`), or the gold ones ("gradient_gold", to measure
what the questions cost). `L_e` is the sum over the edit's lines, of a quiz over its
answers, `L_answers` the mean over the questions. One forward and backward pass of the
edit's tokens, and no adapter.

Scores are rewards like others (`select.reward`, `select.compare`), and choose what is
trained (`select.prefilter`, `sieves`).
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from seal_jax.generation import policies
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import label_free, sieves, trials
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.graded import Graded, by_item, with_measured
from seal_jax.rounds.trials import Run
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import prng
from seal_jax.tasks.base import Edit
from seal_jax.tasks.knowledge import Knowledge
from seal_jax.training import influence

type Scores = list[float | None]


class Sifted(NamedTuple):
    """What goes on to be trained, and what was only written.

    `scores`: of those that go on, by the names of rewards that are known already.
    """

    edits: list[Edit]
    scores: Mapping[str, Scores]
    aside: list[Graded]


def sifted[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    edits: Sequence[Edit],
    *,
    phase: str,
    round_index: int,
) -> Sifted:
    """Which of a round's edits go on, by `select.prefilter`; without it, all.

    Arguments are those of `scores`.
    """
    rule = run.exp.select.sieve
    if rule is None:
        return Sifted(list(edits), {}, [])
    values: Scores = [None] * len(edits)
    known = rule.by in reward_names.GRADIENTS
    if known:
        values = scores(
            *(run, policy, items, edits),
            name=rule.by,
            phase=phase,
            round_index=round_index,
        )
    drawn = _drawn(run, edits, round_index)
    going: list[int] = []
    for places in by_item(e.item for e in edits).values():
        picked = sieves.going_on(
            rule,
            [values[i] for i in places],
            [drawn[i] for i in places],
            [edits[i].refused is None for i in places],
        )
        going += [places[e] for e in picked]
    run.say(
        f"{phase}: {len(going)} of {len(edits)} self-edits go on to be trained "
        f"(select.prefilter, {rule.by})"
    )
    on = set(going)
    aside = [
        Graded(edit, (), (), (), None, {rule.by: (values[i],)} if known else {})
        for i, edit in enumerate(edits)
        if i not in on
    ]
    own = {rule.by: [values[i] for i in going]} if known else {}
    return Sifted([edits[i] for i in going], own, aside)


def _drawn[Item](
    run: Run[Rounds, Item], edits: Sequence[Edit], round_index: int
) -> list[tuple[int, ...]]:
    """Each edit's own random numbers: the words of its key."""
    ids = np.array([(e.item, e.edit) for e in edits]).reshape(-1, 2)
    stage = [np.full(len(edits), v) for v in (trials.DREAM, round_index)]
    keys = prng.fold(run.key, *stage, *ids.T)
    return [tuple(words) for words in np.asarray(jax.random.key_data(keys)).tolist()]


def scores[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    edits: Sequence[Edit],
    *,
    name: str,
    phase: str,
    round_index: int,
    quiz: str | None = None,
) -> Scores:
    """The score of each edit, as a unit of the journal.

    None: it was refused, its item has no question, or its gradient is not finite.

    Args:
      run: the experiment.
      policy: the policy that is adapted.
      items: of the round, which must be passages.
      edits: of the items.
      name: of `reward_names.GRADIENTS`.
      phase: where finished work is kept.
      round_index: from 1 on; part of the key of the adapters' one A.
      quiz: where the policy's questions are kept; None: `phase`.

    Raises:
      ValueError: items that are no passages, or no group `label_free`.
    """
    asked = list(items)
    if name == reward_names.GRADIENT:
        asked = label_free.quizzes(
            run, policy, items, phase=quiz or phase, round_index=round_index
        )

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        found = _measured(run, policy, items, asked, edits, round_index)
        return {**found, "seconds": time.monotonic() - begin}

    run.say(f"{phase}: {name} of {len(edits)} self-edits")
    values = run.journal.cached(str(UnitKey(phase, name)), unit)["values"]
    if odd := sum(
        v is None and not e.refused for v, e in zip(values, edits, strict=True)
    ):
        run.say(
            f"{phase}: {odd} self-edits have no {name}: nothing is asked about their "
            "item, or it is not finite"
        )
    return values


def _measured[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    asked: Sequence[Item],
    edits: Sequence[Edit],
    round_index: int,
) -> dict[str, Any]:
    """`values` of the edits, and how many tokens were read and computed for them."""
    task = run.task
    if not isinstance(task, Knowledge):
        raise ValueError("a gradient as a reward is for edits that are texts")
    exams = [task.exam(item) for item in label_free.passages(asked)]
    # Items of which something is asked, each with its place among these.
    place = {p: i for i, p in enumerate(p for p, job in enumerate(exams) if job)}
    targets = [job for job in exams if job is not None]
    rows = [i for i, e in enumerate(edits) if e.item in place and not e.refused]
    texts = []
    for i in rows:
        edit = edits[i]
        seed = (run.exp.seed, trials.DREAM, round_index, edit.item, edit.edit)
        job = task.job(label_free.passages(items)[edit.item], edit, ())
        job = dataclasses.replace(job, seed=seed, epochs=1, batch=1)
        texts.append(influence.Text(job, place[edit.item]))
    values: Scores = [None] * len(edits)
    if not texts:
        return {"values": values}
    found = influence.measure(
        policy.params,
        targets,
        texts,
        prng.take(prng.fold(run.key, [trials.DREAM], [round_index]), 0),
        most=run.exp.select.written(run.exp.scale.edits),
        arch=policy.arch,
        cfg=run.inner,
        eos=policy.eos,
        mesh=run.mesh,
    )
    for i, value in zip(rows, found.values.tolist(), strict=True):
        # Of a mean over the questions.
        own = len(targets[place[edits[i].item]].lines)
        values[i] = value / own if np.isfinite(value) else None
    return {
        "values": values,
        "scored_tokens": found.tokens,
        "computed": found.computed_tokens,
    }


def with_scores[Item](
    run: Run[Rounds, Item], graded: Sequence[Graded], name: str, values: Scores
) -> list[Graded]:
    """The edits with their scores as one more reward; refused ones have none."""
    decides = run.exp.select
    return [
        g if g.edit.refused else with_measured(g, name, (value,), decides=decides)
        for g, value in zip(graded, values, strict=True)
    ]
