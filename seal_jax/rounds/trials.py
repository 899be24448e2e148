"""Steps 2 and 3 of a round, in units that survive a kill: adapt and answer.

An *item* is what self-edits are written about: a passage, or a few-shot task. A *trial*
is one adapter: one self-edit, one seed. Trials are trained and questioned in pools of
`inner.pool`; each finished pool is one journal entry, so a run that is killed loses at
most the pool it was in (`pools`).
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import pools, unit_key
from seal_jax.rounds.experiment import Experiment, Rounds
from seal_jax.rounds.graded import Trial
from seal_jax.runtime import meshes, metrics
from seal_jax.runtime.journal import Journal
from seal_jax.tasks.base import Edit, Task
from seal_jax.training import inner

# First column of every PRNG key, so that no two uses draw the same numbers.
PROPOSE, ADAPT, ANSWER, IMITATE, CONTROL, QUIZ = range(6)

FAILED = "weights, loss or log-likelihoods became non-finite"


@dataclasses.dataclass(frozen=True)
class Run[Exp: Experiment, Item]:
    """What every phase needs: the experiment, and where finished work is kept.

    It is generic in the experiment and in the task's items.
    """

    exp: Exp
    inner: inner.EngineConfig
    mesh: Mesh | None
    journal: Journal
    metrics: metrics.Log
    task: Task[Item]
    say: Callable[[str], None]

    @property
    def shards(self) -> int:
        """Devices, or groups of them, that train adapters side by side."""
        return meshes.shards(self.mesh)

    @property
    def key(self) -> jax.Array:
        return jax.random.key(self.exp.seed)


def adapt_and_answer[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    edits: Sequence[Edit],
    *,
    phase: str,
    round_index: int,
    seeds: Sequence[int],
    among: Collection[int] | None = None,
    also: Sequence[Item | None] | None = None,
) -> list[list[Trial]]:
    """Trains an adapter per edit and seed, and has each answer about its item.

    Args:
      run: the experiment.
      policy: the model that is adapted.
      items: the phase's items.
      edits: of the items.
      phase: where finished work is kept.
      round_index: part of every random key.
      seeds: of each edit.
      among: indices of the edits to train; None: all of them.
      also: for each item another one, or None, that its adapters are asked about too.

    Returns each edit's trials in order of seeds; none for an edit that was refused, or
    is not `among` those to train.
    """
    jobs = {
        i: run.task.job(items[e.item], e, ())
        for i, e in enumerate(edits)
        if not e.refused and (among is None or i in among)
    }
    # Adapters of similar length share a pool; the longest go first.
    every = [(i, s) for i in jobs for s in seeds]
    order = pools.longest_first([jobs[i].total for i, _ in every])
    every = [every[place] for place in order]
    ids = [(round_index, edits[i].item, edits[i].edit, s) for i, s in every]
    work = pools.Work(
        [
            dataclasses.replace(jobs[i], seed=(run.exp.seed, ADAPT, *row))
            for (i, _), row in zip(every, ids, strict=True)
        ],
        [(ADAPT, *row) for row in ids],
    )

    def finish(pool: pools.Pool) -> dict[str, Any]:
        here = slice(pool.rows.start, pool.rows.stop)
        return _asked(run, policy, items, pool, every[here], ids[here], also)

    def log(measured: dict[str, float]) -> None:
        # A position among all pools of the run, the same when it resumes.
        step = unit_key.count(run.journal.keys(), unit_key.ADAPT)
        run.metrics.log(step, {f"adapt/{k}": v for k, v in measured.items()})

    units = pools.train(
        policy,
        work,
        pools.Journaled(run.journal, f"{phase}/adapt", finish),
        key=run.key,
        cfg=run.inner,
        mesh=run.mesh,
        phase=phase,
        say=run.say,
        log=log,
    )
    trials: dict[tuple[int, int], Trial] = {}
    for row in (row for unit in units for row in unit["trials"]):
        trial = Trial(**{k: _tuple(v) for k, v in row.items()})
        trials[trial.edit, trial.seed] = trial
    for i, s in sorted(trials):
        if trials[i, s].failed:
            about = run.task.name(items[edits[i].item])
            run.say(
                f"{phase}: adapter failed: {about}, edit {edits[i].edit}, seed {s}: "
                f"{FAILED}; scored 0"
            )
    return [
        [trials[i, s] for s in seeds] if i in jobs else [] for i in range(len(edits))
    ]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _asked[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    pool: pools.Pool,
    chunk: Sequence[tuple[int, int]],
    ids: Sequence[tuple[int, ...]],
    also: Sequence[Item | None] | None,
) -> dict[str, Any]:
    """A trained pool as a unit of the journal: what each of its adapters answers.

    `chunk` has each one's edit and seed, `ids` its round, item, edit and seed.
    """
    trained = pool.trained
    answers, others, scores = _answer(
        run,
        policy,
        trained.adapters,
        [items[p] for _, p, _, _ in ids],
        ids,
        [also[p] if also else None for _, p, _, _ in ids],
    )
    rows = []
    for a, (i, s) in enumerate(chunk):
        ok = bool(trained.finite_A[a] and np.isfinite(scores[a]).all())
        rows.append(
            {
                "edit": i,
                "seed": s,
                "answers": answers[a] if ok else [],
                "also": others[a] if ok else [],
                "log_likelihoods": scores[a] if ok else [],
                "loss": float(trained.loss_A[a]),
                "failed": None if ok else FAILED,
            }
        )
    return {
        "trials": rows,
        **pool.cost(),
        "train_seconds": pool.seconds,
        "seconds": time.monotonic() - pool.begin,
    }


def _answer[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    adapters: lora.Tree | None,
    asked: Sequence[Item],
    ids: Sequence[tuple[int, ...]],
    also: Sequence[Item | None],
) -> tuple[list[list[str]], list[list[str]], list[list[float]]]:
    """Answers about each item and about the one beside it, log-likelihoods of gold.

    `ids` tell the adapters apart, for the random numbers of sampled answers.
    """
    prompts = [run.task.prompts(item) for item in asked]
    more = [[] if item is None else run.task.prompts(item) for item in also]
    keys_A = policies.fold(run.key, np.full(len(ids), ANSWER), *np.array(ids).T)
    every = [a + b for a, b in zip(prompts, more, strict=True)]
    answers = policies.answer(policy, adapters, every, keys_A, run.exp.answer)
    own = [a[: len(p)] for a, p in zip(answers, prompts, strict=True)]
    others = [a[len(p) :] for a, p in zip(answers, prompts, strict=True)]
    if "log_likelihood" not in run.exp.select.measured:
        return own, others, [[] for _ in asked]
    gold = [
        list(zip(group, run.task.gold(item), strict=True))
        for group, item in zip(prompts, asked, strict=True)
    ]
    scores = policies.log_likelihood(policy, adapters, gold, run.exp.answer)
    return own, others, scores


def base_answers[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    *,
    phase: str,
) -> list[list[str]]:
    """Answers without any adapter, once per item."""

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        ids = [(p,) for p in range(len(items))]
        answers, *_ = _answer(run, policy, None, items, ids, [None] * len(items))
        return {"answers": answers, "seconds": time.monotonic() - begin}

    run.say(f"{phase}: ask {sum(len(run.task.prompts(i)) for i in items)} prompts")
    return run.journal.cached(f"{phase}/base", unit)["answers"]
