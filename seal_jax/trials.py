"""Steps 2 and 3 of a round, in units that survive a kill: adapt and answer.

An *item* is what self-edits are written about: a passage, or a few-shot task. A *trial*
is one adapter: one self-edit, one seed. Trials are trained and questioned in chunks of
`inner.pool`; each finished chunk is one journal entry, so a run that is killed loses at
most the chunk it was in.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

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
)

# First column of every PRNG key, so that no two uses draw the same numbers.
PROPOSE, ADAPT, ANSWER, IMITATE, CONTROL, QUIZ = range(6)

FAILED = "weights, loss or log-likelihoods became non-finite"


@dataclasses.dataclass(frozen=True)
class Edit:
    """One self-edit: `item` is an index into the phase's items.

    `fixed`: no policy wrote it. `redrawn`: why each text that was drawn before it was
    thrown away. `refused`: why it cannot be trained, or None.
    """

    item: int
    edit: int
    prompt: str
    text: str
    fixed: bool = False
    redrawn: tuple[str, ...] = ()
    refused: str | None = None


class Reading(NamedTuple):
    """What a text is worth as a self-edit.

    `refused`: why it cannot be trained, or None; `again`: whether to draw another.
    """

    refused: str | None = None
    again: bool = False


@dataclasses.dataclass(frozen=True)
class Trial:
    """One adapter's outcome. `failed` says why there are no answers, or is None.

    `also`: its answers about what it was asked beside its item.
    """

    edit: int
    seed: int
    answers: tuple[str, ...]
    also: tuple[str, ...]
    log_likelihoods: tuple[float, ...]
    loss: float
    failed: str | None


class Task(Protocol):
    """What the round has to know of a kind of task (`knowledge`, `few_shot`).

    `attempts`: texts drawn for one edit, at most. `max_missing`: share of a phase's
    scores that may be missing.
    """

    @property
    def attempts(self) -> int: ...

    @property
    def max_missing(self) -> float: ...

    def name(self, item: Any) -> str:
        """The item, for people."""
        ...

    def text(self, item: Any) -> str | None:
        """What self-edits are compared with, for their novelty; None: nothing."""
        ...

    def propose_prompt(self, item: Any) -> str:
        """What the policy continues with a self-edit."""
        ...

    def read(self, item: Any, text: str) -> Reading:
        """Whether a self-edit can be trained."""
        ...

    def job(self, item: Any, edit: Edit, seed: tuple[int, ...]) -> plan.Job:
        """The training that a self-edit asks for."""
        ...

    def fixed(self, arm: str, item: Any) -> list[str] | None:
        """Edits that no policy wrote; None: those of `arm` a policy does."""
        ...

    def prompts(self, item: Any) -> list[str]:
        """What an adapter is asked about an item."""
        ...

    def gold(self, item: Any) -> list[str]:
        """The right answer to each of the prompts."""
        ...

    def scores_of(self, item: Any) -> int:
        """How many scores an adapter gets for its answers about an item."""
        ...

    def score(
        self, answered: Sequence[tuple[Any, Sequence[str]]]
    ) -> list[float | None]:
        """The scores of each item's answers, in one list; None: could not be had."""
        ...

    def rubric(self, written: Sequence[tuple[Any, "Edit"]]) -> list[float | None]:
        """What each edit's text is worth by itself, 0..1; None: could not be had."""
        ...

    def item_row(self, item: Any) -> dict[str, Any] | None:
        """The item by itself, for items.jsonl; None: `row` holds all of it."""
        ...

    def row(self, item: Any, edit: Edit) -> dict[str, Any]:
        """The item and the edit, for edits.jsonl."""
        ...

    def answers_row(
        self, item: Any, answers: Sequence[str], scores: Sequence[float | None]
    ) -> list[dict[str, Any]]:
        """One adapter's answers, for edits.jsonl."""
        ...


@dataclasses.dataclass(frozen=True)
class Run:
    """What every phase needs: the experiment, and where finished work is kept."""

    exp: Any  # One of `experiment.KINDS`.
    inner: inner.EngineConfig
    mesh: Mesh | None
    journal: records.Journal
    metrics: metrics.Metrics
    task: Task
    say: Callable[[str], None]

    @property
    def shards(self) -> int:
        """Devices, or groups of them, that train adapters side by side."""
        return mesh.shards(self.mesh)

    @property
    def key(self) -> jax.Array:
        return jax.random.key(self.exp.seed)


def adapt_and_answer(
    run: Run,
    learner: policy.Policy,
    items: Sequence[Any],
    edits: Sequence[Edit],
    *,
    phase: str,
    round_index: int,
    seeds: Sequence[int],
    among: Collection[int] | None = None,
    also: Sequence[Any] | None = None,
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
                step = sum("/adapt/" in key for key in run.journal.keys())  # noqa: SIM118
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


def _chunk(
    run: Run,
    learner: policy.Policy,
    items: Sequence[Any],
    edits: Sequence[Edit],
    jobs: Mapping[int, plan.Job],
    chunk: Sequence[tuple[int, int]],
    round_index: int,
    also: Sequence[Any] | None,
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


def _answer(
    run: Run,
    learner: policy.Policy,
    adapters: lora.Tree | None,
    asked: Sequence[Any],
    ids: Sequence[tuple[int, ...]],
    also: Sequence[Any],
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


def base_answers(
    run: Run, learner: policy.Policy, items: Sequence[Any], *, phase: str
) -> list[list[str]]:
    """Answers without any adapter, once per item."""

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        ids = [(p,) for p in range(len(items))]
        answers, *_ = _answer(run, learner, None, items, ids, [None] * len(items))
        return {"answers": answers, "seconds": time.monotonic() - begin}

    run.say(f"{phase}: ask {sum(len(run.task.prompts(i)) for i in items)} prompts")
    return run.journal.cached(f"{phase}/base", unit)["answers"]
