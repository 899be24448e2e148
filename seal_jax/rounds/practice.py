"""Adapters that practise: training in waves on answers that they give themselves.

Before each wave every adapter answers, as it is by then; what it said is what the wave
trains on (`inner_rules.ON_POLICY`). Whoever trains says what is asked, what lies
beneath the adapters, and how answers become a job.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from seal_jax.generation import policies
from seal_jax.generation.settings import Decoding
from seal_jax.models import lora
from seal_jax.rounds import pools
from seal_jax.runtime import prng
from seal_jax.training import plan
from seal_jax.training.inner_rules import TeachConfig

# What a model applies for the adapters of a work's rows, which may be none yet.
type Applied = Callable[[range, lora.Tree | None], lora.Tree | None]


class Practice(NamedTuple):
    """The answers that a pool's adapters are about to learn of, in one wave.

    `tokens`: of an answer, on average; `empty`: share of blank ones; `distinct`: share
    of different ones, where answers that grow alike show. `surprise`: mean -log p per
    token by those who gave them, nats; at temperature 1 that estimates their entropy.
    None: an adapter's is not finite. `drawn`: tokens in all, end-of-text included;
    `cut`: training lines with these answers that were longer than a row takes.
    """

    answers: int
    tokens: float
    empty: float
    distinct: float
    surprise: float | None
    drawn: int = 0
    cut: int = 0

    def line(self, wave: int) -> str:
        """For people."""
        nats = "-" if self.surprise is None else f"{self.surprise:.2f}"
        return (
            f"wave {wave}: {self.answers} answers of {self.tokens:.1f} tokens, "
            f"{self.empty:.0%} empty, {self.distinct:.0%} distinct, "
            f"{nats} nats a token"
        )


class Notes:
    """What each pool's waves are like, as `waves` tells of them.

    `say` is told of each in a line.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self.pools: list[list[Practice]] = []

    def __call__(self, wave: int, told: Practice) -> None:
        if wave == 0:
            self.pools.append([])
        self.pools[-1].append(told)
        self._say(told.line(wave + 1))

    @property
    def last(self) -> list[Practice]:
        """Those of the pool that was trained last, wave by wave."""
        return self.pools[-1]


def alone(rows: range, adapters: lora.Tree | None) -> lora.Tree | None:
    """Adapters on the base alone."""
    del rows
    return adapters


def waves(
    policy: policies.Policy,
    teach: TeachConfig,
    answer: Decoding,
    *,
    key: jax.Array,
    stage: int,
    prompts: Sequence[Sequence[str]],
    ids: Sequence[tuple[int, ...]],
    job: Callable[[int, Sequence[str]], plan.Job],
    note: Callable[[int, Practice], None] = lambda wave, told: None,
    applied: Applied = alone,
) -> pools.Waves:
    """Training on answers that adapters give, drawn anew before each wave.

    The first wave's answers are those of what lies beneath the adapters, as a fresh one
    changes nothing. With `teach.waves=1` that is training on these answers, no more.

    Args:
      policy: the model that is adapted.
      teach: how many waves, and how answers are drawn.
      answer: decoding; its temperature is not read.
      key: the run's.
      stage: first column of the random keys; the wave and the ids follow.
      prompts: of each adapter, perhaps none.
      ids: of each adapter, which tell its random numbers apart.
      job: the whole training of an adapter, by its place, on these answers.
      note: is told of each wave of each pool, from 0 on, what its answers are like.
      applied: what a model applies when adapters answer: of a range of places, in their
        order, with rows to spare where the adapters have them.
    """
    drawn = dataclasses.replace(answer, temperature=teach.temperature)

    def jobs(wave: int, rows: range, adapters: lora.Tree | None) -> list[plan.Job]:
        here = slice(rows.start, rows.stop)
        fixed = [np.full(len(rows), v) for v in (stage, wave)]
        keys_A = prng.fold(key, *fixed, *np.array(ids[here]).T)
        now = applied(rows, adapters)
        texts = policies.answer(policy, now, prompts[here], keys_A, drawn)
        told = measured(policy, now, prompts[here], texts, drawn)
        made = []
        for a, given in zip(rows, texts, strict=True):
            whole = job(a, given)
            first, last = (whole.epochs * at // teach.waves for at in (wave, wave + 1))
            made.append(dataclasses.replace(whole, span=(first, last)))
        note(wave, told._replace(cut=sum(len(each.cut) for each in made)))
        return made

    # End-of-text is taught, too.
    return pools.Waves(teach.waves, jobs, targets=answer.max_tokens + 1)


def measured(
    policy: policies.Policy,
    adapters: lora.Tree | None,
    prompts: Sequence[Sequence[str]],
    texts: Sequence[Sequence[str]],
    decoding: Decoding,
) -> Practice:
    """What adapters answered to `prompts[a]`, of which there is at least one."""
    pairs = [
        list(zip(*group, strict=True)) for group in zip(prompts, texts, strict=True)
    ]
    flat = [text for group in texts for text in group]
    # Rows for so many answers, to a factor of two: a batch is meant for all of a round,
    # and where adapters are few its empty rows would cost more than a wave's training.
    batch = min(decoding.batch, 1 << (len(flat) - 1).bit_length())
    few = dataclasses.replace(decoding, batch=batch)
    values = policies.log_likelihood(policy, adapters, pairs, few)
    surprise = -float(np.mean([value for group in values for value in group]))
    return Practice(
        len(flat),
        float(np.mean([len(policy.encode(text)) for text in flat])),
        float(np.mean([not text.strip() for text in flat])),
        len(set(flat)) / len(flat),
        surprise if np.isfinite(surprise) else None,
        policies.drawn(policy, flat, decoding),
    )


def on_top(stack: lora.Tree, of: Sequence[int], at: int) -> Applied:
    """Adapters on top of their rows of `stack`, in its ranks from `at` on.

    Args:
      stack: deltas with room for the adapters; what they have from `at` on is not read.
      of: the row of each adapter.
      at: the first rank of the adapters; those behind them are taken as they are.
    """

    def applied(rows: range, adapters: lora.Tree | None) -> lora.Tree:
        own = [of[a] for a in rows]
        if adapters is None:
            return _rows(stack, np.array(own, np.int32))
        spare = len(jax.tree.leaves(adapters)[0]) - len(own)
        # As long as the pool, so that one program serves any number of adapters.
        below = _rows(stack, np.array(own + own[:1] * spare, np.int32))
        return _write(below, adapters, at)

    return applied


_rows = jax.jit(lora.select)
_write = jax.jit(lora.write)
