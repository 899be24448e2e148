"""One step of all sequences at once: each learns its next passage."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seal_jax.continual import ask as continual_ask
from seal_jax.continual import controls
from seal_jax.continual import stack as continual_stack
from seal_jax.continual.entries import Scores
from seal_jax.continual.stack import Setting, SteppedRun
from seal_jax.generation import generate, policies, sample
from seal_jax.generation.settings import Decoding
from seal_jax.models import hf, lora
from seal_jax.rounds import pools, trials
from seal_jax.rounds.graded import mean
from seal_jax.runtime import prng
from seal_jax.tasks import knowledge
from seal_jax.tasks.base import Edit
from seal_jax.training import plan

# First columns of the keys of texts that the base writes without a prompt; apart from
# those of `trials`. Where drift is measured, the texts of "kl" are others.
GENERIC, APART = 64, 65

# Writing


def generic_texts(
    run: SteppedRun, base: policies.Policy, *, stage: int = GENERIC
) -> list[list[int]]:
    """Token ids of texts that the base writes of itself: its own idea of any text.

    They start from what begins every text of the model alone, or from end-of-text if
    nothing does, so they are about nothing that is asked here. `stage`: first column of
    the random keys; another one draws other texts.
    """
    exp = run.exp
    count = exp.retain.kl_texts
    keys = prng.fold(run.key, np.full(count, stage), range(count))
    generated = generate.run(
        base.params,
        None,
        [generate.Request(base.begin or (base.eos,))] * count,
        keys,
        arch=base.arch,
        cfg=sample.SampleConfig(
            # A text is read again with its beginning, in the same row.
            max_tokens=max(1, exp.retain.kl_tokens - len(base.begin)),
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            min_tokens=1,
            stop_ids=base.stop_ids,
        ),
        batch=exp.propose.batch,
        per_page=1,
        prompt_multiple=1,
    )
    return [[*base.begin, *ids] for ids in generated.tokens]


def propose(setting: Setting, stack: lora.Tree, t: int) -> list[list[str]]:
    """Each sequence's self-edits of its passage t, by its current model."""
    count = setting.candidates
    prompts = [setting.task.propose_prompt(s[t - 1]) for s in setting.sequences]
    return written(
        setting,
        stack,
        [[prompt] * count for prompt in prompts],
        (trials.PROPOSE, t),
        setting.exp.propose,
    )


def written(
    setting: Setting,
    stack: lora.Tree,
    prompts: Sequence[Sequence[str]],
    stage: tuple[int, int],
    decoding: Decoding,
) -> list[list[str]]:
    """What each sequence's current model makes of prompts that have a passage in view.

    Kept adapters are for questions: there the base writes, as it reads the passage.

    Args:
      setting: the arm.
      stack: what each sequence has learned.
      prompts: of each sequence, perhaps none.
      stage: first columns of the random keys; the sequence and the prompt follow.
      decoding: how to write.
    """
    index = [(s, e) for s, own in enumerate(prompts) for e in range(len(own))]
    if not index:
        return [[] for _ in prompts]
    rows = np.array(index)
    fixed = [np.full(len(rows), v) for v in stage]
    keys = prng.fold(setting.run.key, *fixed, rows[:, 0], rows[:, 1])
    base = setting.base
    apart = "keep" in setting.controls
    generated = generate.run(
        base.params,
        None if apart else stack,
        [
            generate.Request(
                tuple(base.sequence(prompts[s][e])), generate.NO_ADAPTER if apart else s
            )
            for s, e in index
        ],
        keys,
        arch=base.arch,
        cfg=policies.sample_config(decoding, base),
        batch=decoding.batch,
        per_page=max(map(len, prompts)),
        prompt_multiple=decoding.prompt_multiple,
    )
    texts = iter(hf.decode(base.tokenizer, ids).strip() for ids in generated.tokens)
    return [[next(texts) for _ in own] for own in prompts]


# Training


class Candidates(NamedTuple):
    """Trained adapters: that of sequence s and self-edit e is row s E + e.

    `refused`: those of texts that are no self-edit, which are never committed. `lines`
    are the training lines of each, without replayed ones; `cut`: how many of all that
    were trained, replayed ones too, were longer than a row takes.
    """

    adapters: lora.Tree
    finite: np.ndarray
    refused: np.ndarray
    losses: np.ndarray
    lines: list[list[tuple[str, ...]]]
    cut: int
    tokens: int

    @property
    def usable(self) -> np.ndarray:
        return self.finite & ~self.refused

    def first(self, s: int) -> int:
        """The first self-edit of a sequence that can be committed, if any can."""
        return int(np.argmax(self.usable.reshape(len(self.lines), -1)[s]))

    def rows(self, chosen: Sequence[int]) -> np.ndarray:
        """Where the adapters of each sequence's chosen self-edit are."""
        tries = len(self.finite) // len(chosen)
        return np.arange(len(chosen)) * tries + np.array(chosen)


def train(
    setting: Setting,
    stack: lora.Tree,
    texts: Sequence[Sequence[str]],
    t: int,
    earlier: Sequence[Sequence[str]],
) -> Candidates:
    """An adapter for every self-edit, each on top of what its sequence has learned.

    Args:
      setting: the arm.
      stack: what each sequence has learned.
      texts: each sequence's self-edits of its passage t.
      t: which passage.
      earlier: each sequence's training lines so far, for replay.
    """
    index = [(s, e) for s, edits in enumerate(texts) for e in range(len(edits))]
    edits = {(s, e): Edit(s, e, "", texts[s][e]) for s, e in index}
    jobs = [job(setting, edits[i], t, earlier[i[0]]) for i in index]
    trained = adapted(setting, stack, jobs, index, t)
    return Candidates(
        trained.adapters,
        trained.finite,
        np.array([refused(setting, texts[s][e], s, t) for s, e in index]),
        trained.losses,
        [
            [
                setting.task.lines(sequence[t - 1], edits[s, e])
                for e in range(len(texts[s]))
            ]
            for s, sequence in enumerate(setting.sequences)
        ],
        sum(len(job.cut) for job in jobs),
        trained.tokens,
    )


class Adapted(NamedTuple):
    """Trained adapters, one for each job, and the tokens that this took.

    `teacher_tokens`: those that were read for teachers.
    """

    adapters: lora.Tree
    finite: np.ndarray
    losses: np.ndarray
    tokens: int
    teacher_tokens: int


def adapted(
    setting: Setting,
    stack: lora.Tree,
    jobs: Sequence[plan.Job],
    index: Sequence[tuple[int, int]],
    t: int,
    *,
    what: str = "passage",
    teacher_on_frozen: bool = False,
    waves: pools.Waves | None = None,
) -> Adapted:
    """Trains jobs of step t, each on top of what its sequence has learned.

    Args:
      setting: the arm.
      stack: what each sequence has learned.
      jobs: what to train.
      index: the sequence of each job, and its number there.
      t: which step.
      what: a step's name, for people.
      teacher_on_frozen: see `packed.train`; without stacks the teacher is the base.
      waves: see `pools.Work`.
    """
    run, cfg = setting.run, setting.engine
    frozen = None
    if cfg.frozen_rank:
        frozen = jax.tree.map(lambda leaf: leaf[:, : cfg.frozen_rank], stack)
    trained = pools.train(
        setting.base,
        pools.Work(
            jobs,
            [(trials.ADAPT, t, *row) for row in index],
            frozen,
            [s for s, _ in index] if frozen else None,
            teacher_on_frozen=teacher_on_frozen and frozen is not None,
            waves=waves,
        ),
        pools.Held(),
        key=run.key,
        cfg=cfg,
        mesh=run.mesh,
        phase=f"{setting.arm}: {what} {t}",
        say=run.say,
        whole=run.whole,
    )
    parts = [pool.trained for pool in trained]
    return Adapted(
        jax.tree.map(
            lambda *leaves: jnp.concatenate(leaves), *(p.adapters for p in parts)
        ),
        np.concatenate([p.finite_A for p in parts]),
        np.concatenate([p.loss_A for p in parts]),
        sum(p.tokens for p in parts),
        sum(p.teacher_tokens for p in parts),
    )


def refused(setting: Setting, text: str, s: int, t: int) -> bool:
    """Whether a text about passage t of sequence s is no self-edit."""
    return setting.task.read(setting.sequences[s][t - 1], text).refused is not None


def job(setting: Setting, edit: Edit, t: int, earlier: Sequence[str]) -> plan.Job:
    """The training of one self-edit, with what the arm's controls put beside it."""
    exp, s = setting.exp, edit.item
    seed = (exp.seed, trials.ADAPT, t, s, edit.edit)
    planned = setting.task.job(setting.sequences[s][t - 1], edit, seed)
    if "replay" in setting.controls:
        again = controls.replayed(earlier, exp.retain.replay, (*seed, 3))
        more = knowledge.encode_lines(setting.task.exp, setting.base, again)
        first = len(planned.lines)
        planned = dataclasses.replace(
            planned,
            lines=planned.lines + more.lines,
            cut=(*planned.cut, *(first + i for i in more.cut)),
        )
    return with_generic(setting, planned)


def with_generic(setting: Setting, planned: plan.Job) -> plan.Job:
    """The job with the texts on which the arm's model shall not change, if any."""
    if "kl" not in setting.controls:
        return planned
    weight = setting.exp.retain.kl
    return dataclasses.replace(planned, beside=setting.generic, beside_weight=weight)


# Committing


class Commit(NamedTuple):
    """What each sequence does with its passage.

    `chosen`: which self-edit; `rewards`: of each of them, where it was chosen by them;
    `scales`: 0.0 rejects; `gates`: (scale, forgetting) of those the gate tried.
    """

    chosen: list[int]
    rewards: list[list[float | None]]
    scales: list[float]
    gates: list[list[tuple[float, float | None]]]


def decide(
    setting: Setting,
    stack: lora.Tree,
    candidates: Candidates,
    t: int,
    before: Sequence[Scores],
) -> Commit:
    """Which self-edit each sequence commits, and at what scale.

    Args:
      setting: the arm.
      stack: what each sequence has learned.
      candidates: the adapters of passage t.
      t: which passage.
      before: the scores of each sequence's earlier passages before this edit, on the
        questions that choose.
    """
    count = len(setting.sequences)
    rewards: list[list[float | None]] = [[] for _ in range(count)]
    if setting.candidates > 1:
        rewards = candidates_rewards(setting, stack, candidates, t, before)
    chosen = [
        controls.best(values)
        if any(value is not None for value in values)
        else candidates.first(s)
        for s, values in enumerate(rewards)
    ]
    usable = candidates.usable[candidates.rows(chosen)]
    gates: list[list[tuple[float, float | None]]] = [[] for _ in range(count)]
    if "gate" not in setting.controls:
        return Commit(chosen, rewards, usable.astype(float).tolist(), gates)
    cfg = setting.exp.retain
    choose = functools.partial(
        controls.gate, cfg.gate_budget, least=cfg.gate_least, steps=cfg.gate_steps
    )
    while True:
        verdicts = [
            choose(history=tried) if ok else controls.GateStep(0.0, done=True)
            for tried, ok in zip(gates, usable, strict=True)
        ]
        open_ = [s for s, verdict in enumerate(verdicts) if not verdict.done]
        scales = [verdict.scale for verdict in verdicts]
        if not open_:
            return Commit(chosen, rewards, scales, gates)
        after = setting.written(stack, block(candidates, chosen, scales), t)
        lost = continual_ask.forgotten(setting, after, t, before, open_)
        for s in open_:
            gates[s].append((scales[s], lost[s]))


def candidates_rewards(
    setting: Setting,
    stack: lora.Tree,
    candidates: Candidates,
    t: int,
    before: Sequence[Scores],
) -> list[list[float | None]]:
    """What each sequence's self-edits are worth: one after the other, all sequences."""
    weight = setting.exp.penalty_of(setting.arm)
    count = len(setting.sequences)
    rewards: list[list[float | None]] = [[] for _ in range(count)]
    for e in range(setting.candidates):
        usable = candidates.usable[candidates.rows([e] * count)]
        tried = block(candidates, [e] * count, usable.astype(float))
        if "keep" not in setting.controls:
            tried = setting.written(stack, tried, t)
        groups = [
            [*(sequence[: t - 1] if weight else ()), sequence[t - 1]]
            for sequence in setting.choosing
        ]
        _, scores = continual_ask.ask(setting, tried, groups, t)
        for s, (*earlier, new) in enumerate(scores):
            lost = continual_ask.lost(before[s], earlier) if weight else 0.0
            value = controls.penalized(mean(new), lost, weight)
            rewards[s].append(value if usable[s] else None)
    return rewards


def block(
    candidates: Candidates, chosen: Sequence[int], scales: Sequence[float] | np.ndarray
) -> lora.Tree:
    """What each sequence adds to its stack: one of its adapters, at its scale."""
    adapters = continual_stack.select(candidates.adapters, candidates.rows(chosen))
    return continual_stack.weakened(adapters, jnp.asarray(scales, jnp.float32))
