"""Many passages in one training: continued pretraining on pooled self-edits.

Knowledge incorporation has an adapter for every passage and asks it about that one.
Here the self-edits of n passages are one training set, one model is trained on it, and
it answers the questions of all n without the passages (SEAL, arXiv 2506.10943, section
4.2, "continued pretraining"; n was 200, later also 2067). Rows:

base            the model as it is
passage_only    trained on the passages alone
sentence_split  ... and on their sentences
self_edits      ... and on what the writer wrote about them
oracle          ... and on ideal edits, where the task can write them

Adapters of different rows do not interact and train side by side; full fine-tuning has
one at a time.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from seal_jax.generation import policies
from seal_jax.pooled import steps as pooled_steps
from seal_jax.pooled import texts as pooled_texts
from seal_jax.pooled.settings import ARMS, IN_CONTEXT, Pooled
from seal_jax.pooled.steps import Outcome, PooledRun
from seal_jax.rounds import ladder, ladder_rows, proposals, scoring, trials
from seal_jax.rounds.graded import by_item, empty_rate, mean, refusals
from seal_jax.rounds.ladder_rows import LadderRow
from seal_jax.runtime import backend, distributed, meshes, records
from seal_jax.tasks import knowledge, knowledge_setup, sources
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage
from seal_jax.training import finetune

# What the experiment is about


def load(exp: Pooled) -> tuple[list[list[Passage]], list[Passage]]:
    """The passages, as the only list of training lists; none are held out.

    Those of the world tell of different residents: nothing that one model is to learn
    contradicts another.

    Raises:
      ValueError: too few passages, residents or questions, or a passage without any.
      FileNotFoundError: no such source.
    """
    task, count = exp.task, exp.pool.passages
    by = f"pool.passages={count}"
    with sources.wanted_by(by if task.name == "world" else f"task.train, for {by}"):
        (passages,) = sources.sequences(task, group="train", count=1, length=count)
    questions = sum(len(p.questions) for p in passages)
    if exp.pool.questions > questions:
        raise ValueError(
            f"pool.questions={exp.pool.questions} must be at most the {questions} "
            f"about pool.passages={count} passages; use 0 for all"
        )
    if "oracle" in exp.arms:
        sources.check_oracle(task, passages[0], "arms")
    return [passages], []


def make(
    exp: Pooled,
    blank: policies.Policy,
    train: Sequence[Passage],
    heldout: Sequence[Passage],
) -> knowledge.Knowledge:
    """The task for these passages, without a grader; all that can be checked is.

    Raises:
      ValueError: full fine-tuning that does not fit a device, a file of self-edits that
        lacks some, a writer whose context is too short, or see `knowledge_setup.make`.
      FileNotFoundError: a file is not there.
    """
    written = "self_edits" in exp.arms and not exp.pool.edits_file
    by_base = written and not exp.writer.path
    viewed = train if IN_CONTEXT in exp.arms else ()
    task = knowledge_setup.make(
        exp, blank, train, heldout, writes=by_base, viewed=viewed
    )
    if exp.pool.how == "full" and exp.trained_arms:
        mesh = meshes.of_devices(data=exp.mesh.data, model=exp.mesh.model)
        limit = backend.memory_limit(jax.local_devices()[0])
        finetune.check(blank.arch, mesh, limit=min(distributed.everyone(limit)))
        finetune.check_rows(exp.full.micro_batch, mesh)
    if "self_edits" not in exp.arms:
        return task
    if exp.pool.edits_file:
        pooled_texts.read_edits(
            exp.pool.edits_file,
            train,
            count=exp.pool.edits,
            rule=exp.edit.split,
            quirks=exp.edit.quirks,
        )
    elif exp.writer.path:
        writer = policies.describe(pooled_steps.writer_source(exp))
        room = writer.arch.max_position - exp.propose.max_tokens
        longest = max(len(writer.sequence(task.propose_prompt(p))) for p in train)
        if longest > room:
            raise ValueError(
                f"writer.path={exp.writer.path!r}: a self-edit prompt takes {longest} "
                f"tokens, {room} fit; lower propose.max_tokens={exp.propose.max_tokens}"
            )
    return task


# The run


def knowledge_of(run: PooledRun) -> knowledge.Knowledge:
    """The run's task, which knows how edits become texts."""
    assert isinstance(run.task, knowledge.Knowledge)
    return run.task


@dataclasses.dataclass(frozen=True)
class Material:
    """A row's training set: its edits, and the texts about each passage."""

    edits: list[Edit]
    texts: list[list[str]]


def material(
    run: PooledRun, base: policies.Policy, passages: Sequence[Passage], arm: str
) -> Material:
    """What a row is trained on."""
    task = knowledge_of(run)
    if arm == "self_edits":
        edits = pooled_steps.self_edits(run, base, passages)
    else:
        edits = proposals.fixed_edits(run, passages, arm)
    return Material(
        edits, pooled_texts.texts(task, passages, edits, copies=run.exp.pool.copies)
    )


def row(
    run: PooledRun,
    passages: Sequence[Passage],
    asked: Sequence[Passage],
    outcomes: Sequence[Outcome],
    learned: Material,
    *,
    name: str,
) -> LadderRow:
    """One arm as a row of the ladder (`ladder.row`), with all answers to read.

    A passage's value is the mean over trainings of the share of its questions that were
    answered; a training that failed answered none.
    """
    task = knowledge_of(run)
    # By training, then by passage, then by question.
    scores: list[list[list[float | None]]] = []
    for s, outcome in enumerate(outcomes):
        phase = f"ladder/{name}/{s}"
        if outcome.answers is None:
            run.say(f"{phase}: training failed: {trials.FAILED}; scored 0")
            scores.append([[0.0] * run.task.scores_of(passage) for passage in asked])
        else:
            scores.append(
                scoring.score_answers(
                    run, asked, outcome.answers, phase=phase, final=False
                )
            )
    place = {passage.id: p for p, passage in enumerate(passages)}
    edits_of = by_item(e.item for e in learned.edits)
    values, shown = [], []
    for p, passage in enumerate(asked):
        rewards = [mean(by_passage[p]) for by_passage in scores]
        values.append(mean(rewards))
        at = place[passage.id]
        shown.append(
            {
                "arm": name,
                "passage_id": passage.id,
                "title": passage.title,
                "passage": passage.text,
                "edit": 0,
                "text": "\n\n".join(learned.edits[i].text for i in edits_of[at]),
                "lines": learned.texts[at],
                "rewards": rewards,
                "reward": values[-1],
                "answers": [
                    run.task.answers_row(passage, o.answers[p], by_passage[p])
                    for o, by_passage in zip(outcomes, scores, strict=True)
                    if o.answers is not None
                ],
                "losses": [o.loss for o in outcomes],
            }
        )
    answers = [a for o in outcomes for group in o.answers or [] for a in group]
    flat = [v for by_passage in scores for group in by_passage for v in group]
    return LadderRow(
        name,
        values=tuple(values),
        empty_rate=empty_rate(answers),
        missing=sum(v is None for v in flat),
        failed=sum(o.answers is None for o in outcomes),
        counts={
            "edits": len(learned.edits),
            "refused": refusals(learned.edits),
            "texts": sum(map(len, learned.texts)),
            "cut": pooled_texts.count_too_long(task, learned.texts),
            "questions": len(flat) // max(1, len(outcomes)),
            "by_question": mean(flat),
            "loss": mean([o.loss for o in outcomes]),
        },
        edits=shown,
    )


def walk(
    run: PooledRun,
    base: policies.Policy,
    train: Sequence[Sequence[Passage]],
    heldout: Sequence[Passage],
    workdir: Path,
) -> dict[str, Any]:
    """The experiment proper: writes, trains, asks; returns the summary.

    Where all weights are trained it consumes `base`: each training loads its own.
    """
    del heldout
    exp = run.exp
    (passages,) = train
    asked = pooled_texts.ask_some(passages, exp.pool.questions, seed=exp.seed)
    blank = dataclasses.replace(base, params={})
    outcomes: dict[str, list[Outcome]] = {}
    sets = {arm: material(run, base, passages, arm) for arm in exp.trained_arms}
    for arm in exp.untrained_arms:
        sets[arm] = Material([], [[] for _ in passages])
        asking = run
        if arm == IN_CONTEXT:
            asking = dataclasses.replace(run, task=run.task.in_view())
        answers = pooled_steps.answers(asking, base, None, asked, name=f"ladder/{arm}")
        outcomes[arm] = [Outcome(answers, None)]
    pairs = [(arm, seed) for arm in exp.trained_arms for seed in range(exp.pool.seeds)]
    task = knowledge_of(run)
    jobs = [pooled_texts.job(exp, task, sets[arm].texts, seed) for arm, seed in pairs]
    if exp.pool.how == "full":
        base.freed()  # Each training loads the weights anew.
        for (arm, seed), job in zip(pairs, jobs, strict=True):
            name = f"ladder/{arm}/{seed}"
            outcome = pooled_steps.finetuned(
                run, blank, job, asked, name=name, seed=seed
            )
            outcomes.setdefault(arm, []).append(outcome)
    elif jobs:
        trained = pooled_steps.train_adapters(
            run, base, jobs, [seed for _, seed in pairs], workdir
        )
        for (arm, seed), (adapter, fit) in zip(pairs, trained, strict=True):
            answers = None
            if fit.finite:
                name = f"ladder/{arm}/{seed}"
                answers = pooled_steps.answers(run, base, adapter, asked, name=name)
            outcomes.setdefault(arm, []).append(Outcome(answers, fit.loss))
    rows = [
        row(run, passages, asked, outcomes[arm], sets[arm], name=arm)
        for arm in ARMS
        if arm in exp.arms
    ]
    if distributed.leads():
        shown = [line for r in rows for line in r.edits]
        records.write_jsonl(workdir / "heldout.jsonl", shown)
    table = ladder.table(rows)
    ladder_rows.log_means(run.metrics, table)
    return {
        "kind": "pooled",
        "ladder": table,
        "paired": ladder.pairs(rows),
        "items": [],
        "rounds": [],
    }
