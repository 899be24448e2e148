"""Steps 2 and 3 of a round, in units that survive a kill: adapt and answer.

An *item* is what self-edits are written about: a passage, or a few-shot task. A *trial*
is one adapter: one self-edit, one seed. Trials are trained and questioned in pools of
`inner.pool`; each finished pool is one journal entry, so a run that is killed loses at
most the pool it was in (`pools`).
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import pools, practice, unit_key
from seal_jax.rounds.experiment import Experiment, Rounds
from seal_jax.rounds.graded import Exam, Trial
from seal_jax.rounds.practice import Practice
from seal_jax.runtime import distributed, meshes, metrics, prng, progress
from seal_jax.runtime.journal import Journal
from seal_jax.tasks.base import Edit, Task
from seal_jax.training import inner, plan

# First column of every PRNG key, so that no two uses draw the same numbers.
PROPOSE, ADAPT, ANSWER, IMITATE, CONTROL, QUIZ, PRACTICE = range(7)
DREAM, STRATEGY, SCORE = range(7, 10)

FAILED = "weights, loss or log-likelihoods became non-finite"


@dataclasses.dataclass(frozen=True)
class Run[Exp: Experiment, Item]:
    """What every phase needs: the experiment, and where finished work is kept.

    It is generic in the experiment and in the task's items. `whole`: how far it is.
    """

    exp: Exp
    inner: inner.EngineConfig
    mesh: Mesh | None
    journal: Journal
    metrics: metrics.Log
    task: Task[Item]
    say: Callable[[str], None]
    whole: progress.Whole | None = None

    @property
    def shards(self) -> int:
        """Devices, or groups of them, that train adapters side by side."""
        return meshes.shards(self.mesh)

    @property
    def key(self) -> jax.Array:
        return prng.root(self.exp.seed)


def adapt_and_answer[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    edits: Sequence[Edit],
    exams: Sequence[Exam[Item]],
    *,
    phase: str,
    round_index: int,
    seeds: Sequence[int],
    among: Collection[int] | None = None,
) -> list[list[Trial]]:
    """Trains an adapter per edit and seed, and has each answer about its item.

    Args:
      run: the experiment.
      policy: the model that is adapted.
      edits: of the phase's items.
      exams: each item, with what its adapters are asked.
      phase: where finished work is kept.
      round_index: part of every random key.
      seeds: of each edit.
      among: indices of the edits to train, best as a set; None: all of them.

    Returns:
      each edit's trials in order of seeds; none for an edit that was refused, or is not
      `among` those to train.
    """
    jobs = {
        i: run.task.job(exams[e.item].item, e, ())
        for i, e in enumerate(edits)
        if not e.refused and (among is None or i in among)
    }
    # Adapters of similar length share a pool; the longest go first.
    rows = [(i, s) for i in jobs for s in seeds]
    order = pools.longest_first([jobs[i].total for i, _ in rows])
    rows = [rows[place] for place in order]
    ids = [(round_index, edits[i].item, edits[i].edit, s) for i, s in rows]
    notes = practice.Notes(lambda line: run.say(f"{phase}: {line}"))
    work = dataclasses.replace(
        work_of(run.exp.seed, [jobs[i] for i, _ in rows], ids),
        waves=waves_of(
            run.exp,
            run.task,
            policy,
            [(exams[edits[i].item].item, edits[i]) for i, _ in rows],
            ids,
            notes,
        ),
    )

    def finish(pool: pools.Pool) -> dict[str, Any]:
        here = slice(pool.rows.start, pool.rows.stop)
        unit = _unit(run, policy, exams, pool, rows[here], ids[here])
        if work.waves is not None:
            unit["practice"] = [told._asdict() for told in notes.last]
        return unit

    # A position among all pools of the run, the same when it resumes.
    steps = itertools.count(1 + unit_key.count(run.journal.keys(), unit_key.ADAPT))

    def log(measured: dict[str, float]) -> None:
        line = {f"adapt/{k}": v for k, v in measured.items()}
        run.metrics.log(next(steps), line)

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
        whole=run.whole,
    )
    trials: dict[tuple[int, int], Trial] = {}
    for value in (value for unit in units for value in unit["trials"]):
        trial = Trial.from_json(value)
        trials[trial.edit, trial.seed] = trial
    for i, s in sorted(trials):
        if trials[i, s].failed:
            about = run.task.name(exams[edits[i].item].item)
            run.say(
                f"{phase}: adapter failed: {about}, edit {edits[i].edit}, seed {s}: "
                f"{FAILED}; scored 0"
            )
    return [
        [trials[i, s] for s in seeds] if i in jobs else [] for i in range(len(edits))
    ]


def work_of(
    seed: int, jobs: Sequence[plan.Job], ids: Sequence[tuple[int, int, int, int]]
) -> pools.Work:
    """Jobs with their random numbers: by the run's seed, and each one's id.

    `ids` have the round, the item, the edit and the seed of each.
    """
    return pools.Work(
        [
            dataclasses.replace(job, seed=(seed, ADAPT, *name))
            for job, name in zip(jobs, ids, strict=True)
        ],
        [(ADAPT, *name) for name in ids],
    )


def waves_of[Item](
    exp: Experiment,
    task: Task[Item],
    policy: policies.Policy,
    written: Sequence[tuple[Item, Edit]],
    ids: Sequence[tuple[int, int, int, int]],
    note: Callable[[int, Practice], None] = lambda wave, told: None,
    applied: practice.Applied = practice.alone,
) -> pools.Waves | None:
    """Training on answers that adapters give, drawn anew before each wave; or None.

    Args:
      exp: the experiment.
      task: the task, whose rule may have adapters practise.
      policy: the model that is adapted.
      written: of each adapter its item and its edit.
      ids: as of `work_of`.
      note, applied: as of `practice.waves`.
    """
    prompts = [task.practice(item, edit) for item, edit in written]
    if task.teach is None or not any(prompts):
        return None

    def job(a: int, given: Sequence[str]) -> plan.Job:
        item, edit = written[a]
        made = task.job(item, task.answered(edit, given) if given else edit, ())
        return dataclasses.replace(made, seed=(exp.seed, ADAPT, *ids[a]))

    return practice.waves(
        *(policy, task.teach, exp.answer),
        key=prng.root(exp.seed),
        stage=PRACTICE,
        prompts=prompts,
        ids=ids,
        job=job,
        note=note,
        applied=applied,
    )


def _unit[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    exams: Sequence[Exam[Item]],
    pool: pools.Pool,
    rows: Sequence[tuple[int, int]],
    ids: Sequence[tuple[int, ...]],
) -> dict[str, Any]:
    """A trained pool as a unit of the journal: what each of its adapters answers.

    `rows` has the edit and the seed of each, `ids` its round, item, edit and seed.
    """
    trained = pool.trained
    exams_A = [exams[p] for _, p, _, _ in ids]
    answers = _answer(run, policy, trained.adapters, exams_A, ids)
    trials = []
    for a, ((i, s), given) in enumerate(zip(rows, answers, strict=True)):
        finite = trained.finite_A[a] and np.isfinite(given.log_likelihoods).all()
        given, failed = (given, None) if finite else (Answers(), FAILED)
        trials.append(
            Trial(
                i,
                s,
                given.item,
                given.quiz,
                given.log_likelihoods,
                float(trained.loss_A[a]),
                failed,
            )
        )
    return {
        "trials": [trial.to_json() for trial in trials],
        **pool.cost(),
        "train_seconds": pool.seconds,
        "seconds": time.monotonic() - pool.begin,
    }


class Answers(NamedTuple):
    """What an adapter answers about its item and to the quiz; see `Trial`."""

    item: tuple[str, ...] = ()
    quiz: tuple[str, ...] = ()
    log_likelihoods: tuple[float, ...] = ()


def _answer[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    adapters: lora.Tree | None,
    exams: Sequence[Exam[Item]],
    ids: Sequence[tuple[int, ...]],
    *,
    room: int = 0,
    tick: Callable[[int], None] = lambda count: None,
) -> list[Answers]:
    """What each adapter answers in its exam; `exams[a]` is for adapter a.

    `ids` tell the adapters apart, for the random numbers of sampled answers; `room` is
    as of `generate.run`; `tick` is told how many are given.
    """
    task = run.task
    prompts = [task.prompts(exam.item) for exam in exams]
    quizzes = [[] if e.quiz is None else task.prompts(e.quiz) for e in exams]
    keys_A = prng.fold(run.key, np.full(len(ids), ANSWER), *np.array(ids).T)
    together = [p + q for p, q in zip(prompts, quizzes, strict=True)]
    answer = run.exp.answer
    texts = policies.answer(
        policy, adapters, together, keys_A, answer, room=room, tick=tick
    )
    scores: Sequence[Sequence[float]] = [()] * len(exams)
    if reward_names.LOG_LIKELIHOOD in run.exp.select.measured:
        gold = [
            list(zip(group, task.gold(exam.item), strict=True))
            for group, exam in zip(prompts, exams, strict=True)
        ]
        scores = policies.log_likelihood(policy, adapters, gold, run.exp.answer)
    return [
        Answers(tuple(text[: len(group)]), tuple(text[len(group) :]), tuple(score))
        for text, group, score in zip(texts, prompts, scores, strict=True)
    ]


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
        exams = list(map(Exam, items))
        with progress.progress(
            prompts, f"{phase}: ask", "prompts", visible=distributed.leads()
        ) as tick:
            answers = _answer(
                run, policy, None, exams, ids, room=run.task.room, tick=tick
            )
        seconds = time.monotonic() - begin
        return {"answers": [list(given.item) for given in answers], "seconds": seconds}

    prompts = sum(len(run.task.prompts(i)) for i in items)
    return run.journal.cached(f"{phase}/base", unit)["answers"]
