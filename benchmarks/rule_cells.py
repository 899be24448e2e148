"""Cells of `inner_rules.py`: adapters of one rule at one rate, trained and asked.

A cell is one entry of its seed's journal, so a command that was killed goes on where it
was. Single cells train an adapter for each passage on the base alone; cells of streams
train passage after passage, each adapter on the frozen stack of those before it.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rule_seeds
from rule_seeds import LENGTH, SINGLE, STREAMS, Arm, Json, Seed

from seal_jax.continual import stack as continual_stack
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import pools, practice, trials
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import prng
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage
from seal_jax.training import inner
from seal_jax.training.inner_rules import RULES

type Scores = list[float | None]


# What is learned


class Learned(NamedTuple):
    """A row of `adapters` for each of the `items`, with what training them cost."""

    items: list[int]
    adapters: lora.Tree
    finite: np.ndarray
    cost: Json


def learn(
    seed: Seed,
    arm: Arm,
    items: Sequence[Passage],
    edits: Sequence[Edit],
    ids: Sequence[tuple[int, int, int, int]],
    *,
    stack: lora.Tree | None = None,
) -> Learned | None:
    """An adapter for each edit that was not refused, packed; None if all were.

    `stack`: row i lies beneath the adapter of edit i, which practises on top of it.
    Teachers are the base.
    """
    run = seed.under(arm)
    rows = [i for i, edit in enumerate(edits) if not edit.refused]
    if not rows:
        return None
    own = [ids[i] for i in rows]
    jobs = [run.task.job(items[i], edits[i], ()) for i in rows]
    practise = [(items[i], edits[i]) for i in rows]
    exp, cfg, frozen, applied = run.exp, run.inner, None, practice.alone
    if stack is not None:
        # Rows cost the same whether they are used, and few adapters practise here.
        batch = min(exp.answer.batch, len(edits) * policies.PER_PAGE)
        answer = dataclasses.replace(exp.answer, batch=batch)
        exp = dataclasses.replace(exp, answer=answer)
        cfg = _on_stack(run.exp, adapters=len(edits))
        frozen = jax.tree.map(lambda leaf: leaf[:, : cfg.frozen_rank], stack)
        # The last block is the room of the last passage, and empty until then.
        applied = practice.on_top(stack, rows, cfg.frozen_rank)
    drawn: list[int] = []
    waves = trials.waves_of(
        *(exp, run.task, seed.base, practise, own),
        note=lambda wave, told: drawn.append(told.drawn),
        applied=applied,
    )
    work = dataclasses.replace(
        trials.work_of(run.exp.seed, jobs, own),
        waves=waves,
        frozen=frozen,
        frozen_of=None if frozen is None else rows,
    )
    begin = time.process_time(), time.monotonic()
    (pool,) = pools.train(
        seed.base,
        work,
        pools.Held(),
        key=run.key,
        cfg=cfg,
        mesh=None,
        phase=arm.name,
        say=run.say,
    )
    jax.block_until_ready(pool.trained.adapters)
    sampled = sum(len(edits[i].pairs) for i in rows)
    practises, mixes = RULES[arm.rule].practises, RULES[arm.rule].mixes
    cost = {
        "tokens": pool.trained.tokens,
        "teacher_tokens": pool.trained.teacher_tokens,
        "optimizer_steps": sum(job.total for job in jobs),
        "sampled": sampled * (arm.waves * practises + mixes),
        "practised_tokens": sum(drawn),
        "train_cpu_seconds": time.process_time() - begin[0],
        "train_seconds": time.monotonic() - begin[1],
    }
    return Learned(rows, pool.adapters, np.asarray(pool.trained.finite_A), cost)


def _on_stack(exp: PassageRounds, *, adapters: int) -> inner.EngineConfig:
    """The engine of adapters that lie on the stacks of all passages but the last."""
    return dataclasses.replace(
        rule_seeds.engine(exp, adapters=adapters),
        frozen_rank=(LENGTH - 1) * exp.inner.lora.rank,
        frozen_rows=adapters,
    )


# What is asked


def ask(
    seed: Seed, adapters: lora.Tree | None, groups: Sequence[Sequence[Passage]]
) -> list[list[Scores]]:
    """The score of each question of the passages of `groups[a]` under adapter a."""
    task = seed.run.task
    prompts = [[text for p in group for text in task.prompts(p)] for group in groups]
    keys_A = prng.fold(seed.run.key, np.arange(len(groups)))  # Not used: it is greedy.
    answers = policies.answer(
        seed.base, adapters, prompts, keys_A, seed.run.exp.answer, room=task.room
    )
    made = []
    for group, texts in zip(groups, answers, strict=True):
        rest = iter(texts)
        pairs = [(p, [next(rest) for _ in p.questions]) for p in group]
        flat = iter(task.score(pairs))
        made.append([[next(flat) for _ in p.questions] for p in group])
    return made


def exam(seed: Seed, passages: Sequence[Passage]) -> list[Passage]:
    """What a model is asked that has learned these passages.

    Their own questions, the same in other words, and the probes.
    """
    other = [dataclasses.replace(p, questions=p.rephrased) for p in passages]
    return [*passages, *other, *seed.probes]


def split(scores: Sequence[Scores], count: int) -> Json:
    """The scores of an `exam` about `count` passages."""
    return {
        "own": list(scores[:count]),
        "rephrased": list(scores[count : 2 * count]),
        "general": list(scores[2 * count :]),
    }


def unedited(seed: Seed) -> Json:
    """The base: closed-book, and with each passage in view; by passage."""
    (scores,) = ask(seed, None, [exam(seed, seed.passages)])
    shown = dataclasses.replace(
        seed, run=dataclasses.replace(seed.run, task=seed.run.task.in_view()), probes=[]
    )
    (seen,) = ask(shown, None, [exam(shown, seed.passages)])
    count = len(seed.passages)
    return {"base": split(scores, count), "in_context": split(seen, count)}


def _zeros(scores: Sequence[Scores]) -> list[Scores]:
    """What an adapter answers that is not finite: nothing."""
    return [[0.0] * len(own) for own in scores]


def single(seed: Seed, arm: Arm) -> Json:
    """The cell of an adapter for each passage: the `split` of each.

    A passage whose edit was refused is asked of the base.
    """
    edits = rule_seeds.drawn(seed, arm)
    ids = [(SINGLE, p, 0, 0) for p in range(len(edits))]
    learned = learn(seed, arm, seed.passages, edits, ids)
    before = cell_base(seed)["base"]
    made = [
        {part: before[part][p : p + 1] for part in ("own", "rephrased")}
        | {"general": before["general"]}
        for p in range(len(edits))
    ]
    if learned is None:
        return {"passages": made, "refused": len(edits), "failed": 0, "cost": {}}
    begin = time.process_time(), time.monotonic()
    groups = [exam(seed, [seed.passages[p]]) for p in learned.items]
    asked = ask(seed, learned.adapters, groups)
    cost = learned.cost | {
        "ask_cpu_seconds": time.process_time() - begin[0],
        "ask_seconds": time.monotonic() - begin[1],
    }
    for p, scores, finite in zip(learned.items, asked, learned.finite, strict=True):
        made[p] = split(scores if finite else _zeros(scores), 1)
    return {
        "passages": made,
        "refused": len(edits) - len(learned.items),
        "failed": int((~learned.finite).sum()),
        "cost": cost,
    }


def streams(seed: Seed, arm: Arm) -> Json:
    """The cell of all streams: each learns its passages one after the other.

    `after`: of each stream and passage the scores right after it was learned; `end`:
    the `split` of each stream after the last one.
    """
    edits = rule_seeds.drawn(seed, arm, streams=True)
    count, cfg = len(seed.streams), seed.run.inner
    stack = lora.empty(
        seed.base.arch,
        targets=cfg.targets,
        rank=LENGTH * cfg.rank,
        adapters=count,
        dtype=seed.base.arch.dtype,
    )
    stacks = []  # After each passage.
    failed = refused = 0
    for t in range(LENGTH):
        places = [s * LENGTH + t for s in range(count)]
        items = [stream[t] for stream in seed.streams]
        own = [edits[place] for place in places]
        ids = [(STREAMS, place, 0, 0) for place in places]
        learned = learn(seed, arm, items, own, ids, stack=stack)
        refused += count - (len(learned.items) if learned else 0)
        if learned is not None:
            failed += int((~learned.finite).sum())
            stack = _written(stack, learned, t * cfg.rank)
        stacks.append(stack)
    # All at once: rows that decode together cost the same whether they are used.
    groups = [[stream[t]] for t in range(LENGTH) for stream in seed.streams]
    groups += [exam(seed, stream) for stream in seed.streams]
    together = jax.tree.map(lambda *x: jnp.concatenate(x), *stacks, stack)
    asked = ask(seed, together, groups)
    ends = asked[LENGTH * count :]
    after = [[asked[t * count + s][0] for t in range(LENGTH)] for s in range(count)]
    return {
        "after": after,
        "end": [split(scores, LENGTH) for scores in ends],
        "refused": refused,
        "failed": failed,
    }


def _written(stack: lora.Tree, learned: Learned, at: int) -> lora.Tree:
    """The stacks with what was learned in its place; what is not finite is left out."""
    finite = jnp.asarray(learned.finite, jnp.float32)
    block = continual_stack.weakened(learned.adapters, finite)
    rows = np.array(learned.items)

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[rows, at : at + new.shape[1]].set(new.astype(old.dtype))

    return jax.tree.map(put, stack, block)


# Cells


def cell_base(seed: Seed) -> Json:
    return seed.cached("base", functools.partial(unedited, seed))


def cell_quizzes(seed: Seed, arm: Arm) -> Json:
    """`quizzes`, by any arm that asks."""
    return seed.cached(
        "quizzes", lambda: rule_seeds.quizzes(seed, rule_seeds.drawn(seed, arm))
    )


def cell_single(seed: Seed, arm: Arm) -> Json:
    return seed.cached(f"cells/{arm.name}", functools.partial(single, seed, arm))


def costed(seed: Seed, arm: Arm) -> Json:
    """`cell_single`, its cost with what was written for it.

    `written_tokens` are not there where a cell of an older run has not counted those of
    the answers between waves.
    """
    cell = cell_single(seed, arm)
    cost = cell["cost"] | rule_seeds.writing(seed, arm)
    between = cost.pop("practised_tokens", None)
    if RULES[arm.rule].practises and cell["cost"]:
        written = cost.pop("written_tokens")
        if between is not None:
            cost["written_tokens"] = written + between
    return cell | {"cost": cost}


def cell_streams(seed: Seed, arm: Arm) -> Json:
    return seed.cached(f"in_streams/{arm.name}", functools.partial(streams, seed, arm))
