"""Steps 2 and 3 of a round, in units that survive a kill: adapt and answer.

An *item* is what self-edits are written about: a passage, or a few-shot task. A *trial*
is one adapter: one self-edit, one seed. Trials are trained and questioned in chunks of
`inner.pool`; each finished chunk is one journal entry, so a run that is killed loses at
most the chunk it was in.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from seal_jax import (
    distributed,
    inner,
    lora,
    mesh,
    metrics,
    packed,
    plan,
    policy,
    rates,
    records,
    unit_key,
)
from seal_jax.experiment_base import Experiment, Rounds
from seal_jax.graded import Trial
from seal_jax.tasks.base import Edit, Task

# First column of every PRNG key, so that no two uses draw the same numbers.
PROPOSE, ADAPT, ANSWER, IMITATE, CONTROL, QUIZ = range(6)

FAILED = "weights, loss or log-likelihoods became non-finite"


@dataclasses.dataclass(frozen=True)
class Run[Exp: Experiment, Item]:
    """What every phase needs: the experiment, and where finished work is kept.

    It is generic in the experiment and in the task's items.
    """

    exp: Exp
    inner: inner.InnerConfig
    mesh: Mesh | None
    journal: records.Journal
    metrics: metrics.Metrics
    task: Task[Item]
    say: Callable[[str], None]

    @property
    def shards(self) -> int:
        """Devices, or groups of them, that train adapters side by side."""
        return mesh.shards(self.mesh)

    @property
    def key(self) -> jax.Array:
        return jax.random.key(self.exp.seed)


def adapt_and_answer[Item](
    run: Run[Rounds, Item],
    learner: policy.Policy,
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
      learner: the model that is adapted.
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
    every = [(i, s) for i in jobs for s in seeds]
    # Adapters of similar length share a chunk; the longest go first.
    every.sort(key=lambda trial: -jobs[trial[0]].total)
    pool = run.inner.pool * run.shards
    chunks = [every[i : i + pool] for i in range(0, len(every), pool)]
    trials: dict[tuple[int, int], Trial] = {}
    names = [f"{phase}/adapt/{i}" for i in range(len(chunks))]
    done = sum(len(c) for c, n in zip(chunks, names, strict=True) if n in run.journal)
    with metrics.progress(
        len(every),
        f"{phase}: adapt",
        "adapters",
        done=done,
        visible=distributed.leads(),
    ) as tick:
        for name, chunk in zip(names, chunks, strict=True):
            if name not in run.journal:
                unit = _chunk(
                    run, learner, items, edits, jobs, chunk, round_index, also
                )
                run.journal.put(name, unit)
                tick(len(chunk))
                # A position among all chunks of the run, the same when it resumes.
                step = unit_key.count(run.journal.keys(), unit_key.ADAPT)
                measured = rates.throughput(
                    unit, len(chunk), arch=learner.arch, cfg=run.inner, on=run.mesh
                )
                run.metrics.log(step, {f"adapt/{k}": v for k, v in measured.items()})
                run.say(f"{phase}: {rates.line(measured, unit, len(chunk))}")
            for row in run.journal.get(name)["trials"]:
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


def _chunk[Item](
    run: Run[Rounds, Item],
    learner: policy.Policy,
    items: Sequence[Item],
    edits: Sequence[Edit],
    jobs: Mapping[int, plan.Job],
    chunk: Sequence[tuple[int, int]],
    round_index: int,
    also: Sequence[Item | None] | None,
) -> dict[str, Any]:
    begin = time.monotonic()
    ids = [(edits[i].item, edits[i].edit, s) for i, s in chunk]
    seeded = [
        dataclasses.replace(jobs[i], seed=(run.exp.seed, ADAPT, round_index, *row))
        for (i, _), row in zip(chunk, ids, strict=True)
    ]
    fixed = [np.full(len(ids), v) for v in (ADAPT, round_index)]
    keys = policy.fold(run.key, *fixed, *np.array(ids).T)
    trained = packed.train(
        learner.params,
        seeded,
        keys,
        arch=learner.arch,
        cfg=run.inner,
        eos=learner.eos,
        on=run.mesh,
    )
    train_seconds = time.monotonic() - begin
    asked = [items[p] for p, _, _ in ids]
    beside = [also[p] if also else None for p, _, _ in ids]
    answers, others, scores = _answer(
        run,
        learner,
        trained.adapters,
        asked,
        [(round_index, *row) for row in ids],
        beside,
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
        "tokens": trained.tokens,
        "computed": trained.computed_tokens,
        "steps": trained.steps,
        "train_seconds": train_seconds,
        "seconds": time.monotonic() - begin,
    }


def _answer[Item](
    run: Run[Rounds, Item],
    learner: policy.Policy,
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
    keys_A = policy.fold(run.key, np.full(len(ids), ANSWER), *np.array(ids).T)
    every = [a + b for a, b in zip(prompts, more, strict=True)]
    answers = policy.answer(learner, adapters, every, keys_A, run.exp.answer)
    own = [a[: len(p)] for a, p in zip(answers, prompts, strict=True)]
    others = [a[len(p) :] for a, p in zip(answers, prompts, strict=True)]
    if "log_likelihood" not in run.exp.select.measured:
        return own, others, [[] for _ in asked]
    gold = [
        list(zip(group, run.task.gold(item), strict=True))
        for group, item in zip(prompts, asked, strict=True)
    ]
    scores = policy.log_likelihood(learner, adapters, gold, run.exp.answer)
    return own, others, scores


def base_answers[Item](
    run: Run[Rounds, Item], learner: policy.Policy, items: Sequence[Item], *, phase: str
) -> list[list[str]]:
    """Answers without any adapter, once per item."""

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        ids = [(p,) for p in range(len(items))]
        answers, *_ = _answer(run, learner, None, items, ids, [None] * len(items))
        return {"answers": answers, "seconds": time.monotonic() - begin}

    run.say(f"{phase}: ask {sum(len(run.task.prompts(i)) for i in items)} prompts")
    return run.journal.cached(f"{phase}/base", unit)["answers"]
