"""Continual self-edits: many sequences of passages, learned one after the other.

For each arm (a way of not forgetting, `CONTROLS`):

    for t in 1 .. n, all sequences side by side:
        edits    = propose(current models, passage t)   with the passage in context
        adapters = train(edits)                         on top of what was learned
        commit   = decide(adapters)                     choose, gate
        stack    = stack with the committed block       what was learned
        scores   = ask(passages 1 .. t, probes)         without the passages

Where an arm chooses, half of each passage's questions decide, and the other half is
what all arms report (`halves`).

Row 0 of a sequence's matrix is the un-edited model on all its passages, row t the model
after t of them (SEAL, arXiv 2506.10943, the forgetting experiment). The probes are
about what no edit touches; no control ever sees them.

What the kept adapters of "keep" cost: all of them are held, a block for each passage of
each sequence, as many bytes as the stacks of the other arms; and a question has to be
sent to one of them (`controls.route`).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seal_jax.analysis.forgetting import Matrix
from seal_jax.continual import ask as continual_ask
from seal_jax.continual import files as continual_files
from seal_jax.continual import halves
from seal_jax.continual import step as continual_step
from seal_jax.continual import table as continual_table
from seal_jax.continual import unedited as continual_unedited
from seal_jax.continual.entries import AskedEntry, BaseEntry, LearnedEntry, StepEntry
from seal_jax.continual.settings import IN_CONTEXT, MERGE, Continual
from seal_jax.continual.stack import Setting
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import trials
from seal_jax.runtime import checkpoint, distributed, meshes
from seal_jax.tasks import knowledge, knowledge_setup, sources
from seal_jax.tasks.passage import Passage

type ContinualRun = trials.Run[Continual, Passage]


def load(
    exp: Continual,
) -> tuple[list[list[Passage]], list[Passage]]:
    """The sequences, and the passages whose questions probe the general ability.

    Of the world: sequences of the residents on whom the ladder of `configs/tiny.py` is
    walked, so that a policy trained there has met none of them; probes about residents
    that the base knows from pretraining. Of SQuAD: sequences from `task.train`, which
    share no passage, and probes from `task.heldout`.

    Raises:
      ValueError: too few passages, one in both sets, or one without questions.
    """
    task, size = exp.task, exp.sequence
    of_world = task.name == "world"
    by = f"sequence.passages={size.passages}"
    if not of_world:
        by = f"task.train, for sequence.count={size.count} of {by}"
    with sources.wanted_by(by):
        sequences = sources.sequences(
            task, group="heldout", count=size.count, length=size.passages
        )
    by = f"sequence.probes={size.probes}"
    with sources.wanted_by(by if of_world else f"task.heldout, for {by}"):
        probes = sources.probes(task, count=size.probes)
    if not of_world:  # There they have no text, and tell of others.
        train = [passage for sequence in sequences for passage in sequence]
        sources.check_apart(train, probes, "probes are in a sequence too")
    return sequences, probes


def make(
    exp: Continual,
    blank: policies.Policy,
    train: Sequence[Passage],
    heldout: Sequence[Passage],
) -> knowledge.Knowledge:
    """The task, which reads no more of an experiment than this one has.

    Raises:
      ValueError, FileNotFoundError: see `knowledge_setup.make`.
    """
    viewed = train if IN_CONTEXT in exp.arms else ()
    return knowledge_setup.make(exp, blank, train, heldout, viewed=viewed)


def walk(
    run: ContinualRun,
    base: policies.Policy,
    sequences: Sequence[Sequence[Passage]],
    probes: Sequence[Passage],
    workdir: Path,
) -> dict[str, Any]:
    """All arms over the same sequences; returns the summary.

    Each arm's matrices go to `continual/ARM` of the workdir, a run for each sequence,
    so that what is averaged over runs is averaged over sequences.
    """
    exp = run.exp

    def setting(arm: str, generic: Sequence[Sequence[int]] = ()) -> Setting:
        return Setting(run, base, arm, sequences, probes, tuple(map(tuple, generic)))

    before: BaseEntry = run.journal.cached(
        "continual/base", lambda: continual_unedited.ask(setting(MERGE))
    )
    generic = []
    if "kl" in exp.controls:
        generic = run.journal.cached(
            "continual/generic", lambda: continual_step.generic_texts(run, base)
        )
    divided = setting(MERGE).halves
    base_row = halves.reported_base(before, divided)
    rows = []
    for arm in exp.arms:
        if arm == IN_CONTEXT:
            steps = continual_unedited.in_context(setting(MERGE), before)
        else:
            steps = walk_arm(setting(arm, generic), before, workdir)
        steps = [halves.reported_step(step, divided) for step in steps]
        rows.append(continual_table.arm_row(arm, base_row, steps))
        matrices = [
            Matrix(
                tuple(map(tuple, cells)),
                dataset=exp.task.name,
                base_model=exp.model.path,
            )
            for cells in rows[-1].cells
        ]
        if distributed.leads():
            continual_files.write(workdir / "continual" / arm, matrices)
    return {
        "kind": "continual",
        "questions": {
            "choosing": sum(len(h.choosing) for parts in divided for h in parts),
            "reporting": sum(len(h.reporting) for parts in divided for h in parts),
        },
        "arms": [continual_table.table_row(r, base_row) for r in rows],
        "paired": continual_table.pairs(rows, base_row),
    }


def walk_arm(setting: Setting, before: BaseEntry, workdir: Path) -> list[StepEntry]:
    """One arm's steps, as they are in the journal; goes on where a killed run ended."""
    run, arm = setting.run, setting.arm
    folder = workdir / "checkpoints" / "continual" / arm
    stack = setting.empty
    done: list[StepEntry] = []
    for t in range(1, setting.exp.steps + 1):
        name = f"continual/{arm}/{t}"
        block, learned = learn(setting, stack, t, done, folder)
        stack = setting.written(stack, block, t)
        if name not in run.journal:
            answered = ask_all(setting, stack, t, done, learned)
            run.journal.put(name, {**learned, **answered})
            line = continual_table.report(
                halves.reported_step(run.journal.get(name), setting.halves),
                halves.reported_base(before, setting.halves),
            )
            run.metrics.log(t, {f"{arm}/{k}": v for k, v in line.items()})
            words = ", ".join(f"{k} {v:.3f}" for k, v in line.items())
            run.say(f"{arm}: passage {t}: {words}")
        done.append(run.journal.get(name))
    return done


def learn(
    setting: Setting,
    stack: lora.Tree,
    t: int,
    done: Sequence[StepEntry],
    folder: Path,
) -> tuple[lora.Tree, LearnedEntry]:
    """The block that each sequence adds for its passage t, and how it came about.

    The block is checkpointed with its story: a later run reads it instead.
    """
    run = setting.run
    if distributed.share(lambda: checkpoint.latest(folder) or 0) < t:
        begin = time.monotonic()
        scores = [entry["scores"] for entry in done[-1:]]
        before = [
            halves.of_scores(rows, parts, "choosing")
            for rows, parts in zip(
                scores[0] if scores else [[] for _ in setting.sequences],
                setting.halves,
                strict=True,
            )
        ]
        earlier = [
            [line for lines in passages for line in lines]
            for passages in learned_lines(setting, done)
        ]
        texts = continual_step.propose(setting, stack, t)
        candidates = continual_step.train(setting, stack, texts, t, earlier)
        commit = continual_step.decide(setting, stack, candidates, t, before)
        block = continual_step.block(candidates, commit.chosen, commit.scales)
        losses, finite = candidates.losses.tolist(), candidates.finite.tolist()
        learned = LearnedEntry(
            texts=texts,
            lines=[
                list(lines[e]) if scale else []
                for lines, e, scale in zip(
                    candidates.lines, commit.chosen, commit.scales, strict=True
                )
            ],
            chosen=commit.chosen,
            rewards=commit.rewards,
            scales=commit.scales,
            gates=commit.gates,
            losses=[x if ok else None for x, ok in zip(losses, finite, strict=True)],
            failed=finite.count(False),
            refused=int(candidates.refused.sum()),
            cut=candidates.cut,
            adapters=len(finite),
            tokens=candidates.tokens,
            learn_seconds=time.monotonic() - begin,
        )
        block = distributed.readable(block)
        if distributed.leads():
            checkpoint.save(folder, t, block, dict(learned))
    # Read back even if it was just written: both ways must give the same bits.
    block, meta = distributed.share_arrays(
        lambda: checkpoint.restore(folder, t, setting.block), setting.block
    )
    # Off the device where it was put: with arrays that are bound to one, all programs
    # would be compiled again.
    return meshes.put(jax.tree.map(np.asarray, block), run.mesh), LearnedEntry(**meta)


def learned_lines(
    setting: Setting, done: Sequence[LearnedEntry]
) -> list[list[list[str]]]:
    """Each sequence's training lines of each passage so far; none of one rejected."""
    return [
        [entry["lines"][s] for entry in done] for s in range(len(setting.sequences))
    ]


def ask_all(
    setting: Setting,
    stack: lora.Tree,
    t: int,
    done: Sequence[LearnedEntry],
    learned: LearnedEntry,
) -> AskedEntry:
    """What each sequence's model answers after passage t, `learned` in its stack."""
    begin = time.monotonic()
    groups = [[*sequence[:t], *setting.probes] for sequence in setting.sequences]
    if "keep" in setting.controls:
        each = learned_lines(setting, [*done, learned])
        lines = [dict(enumerate(passages)) for passages in each]
        answers, scores = continual_ask.ask_routed(setting, stack, groups, lines, t)
    else:
        answers, scores = continual_ask.ask(setting, stack, groups, t)
    seconds = time.monotonic() - begin
    return {
        "answers": answers,
        "scores": [group[:t] for group in scores],
        "general": [group[t:] for group in scores],
        "asked": sum(len(passage) for group in answers for passage in group),
        "ask_seconds": seconds,
        "seconds": seconds + learned["learn_seconds"],
    }
