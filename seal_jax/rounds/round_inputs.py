"""From a config and passages to what the round's program reads: sizes, arrays, draws.

Everything here is numpy on the host, before the program starts.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from seal_jax.generation import policies
from seal_jax.models import hf
from seal_jax.rounds import draws, lessons, token_forms, trials
from seal_jax.rounds.on_device import Inputs, RoundConfig
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.token_forms import Sizes, Words
from seal_jax.runtime import prng
from seal_jax.tasks import knowledge
from seal_jax.tasks.knowledge import Knowledge
from seal_jax.tasks.passage import Passage
from seal_jax.training import capacity


def words(policy: policies.Policy) -> Words:
    """The tables of a policy's tokenizer.

    Raises:
      ValueError: its texts have no form on tokens.
    """
    if policy.begin:
        raise ValueError(
            f"model.path: its tokenizer begins texts with {policy.begin}, so a round "
            "has no form on its tokens; leave the group over_seeds out"
        )
    return token_forms.words(
        policy.encode,
        lambda ids: hf.decode(policy.tokenizer, ids),
        policy.arch.vocab,
    )


def sizes(
    exp: OverSeeds,
    task: Knowledge,
    passages: Sequence[Passage],
    arms: Sequence[str],
) -> Sizes:
    """Widths for all of these passages, and for what may be written about them."""
    longest = knowledge.longest_line(exp, task.blank)
    found = token_forms.sizes(task, passages, arms, line=longest)
    written = found.head + max(exp.propose.max_tokens, found.fixed)
    told = max(len(task.blank.encode(f"{p.title}\n{p.text}")) for p in passages)
    return found._replace(line=min(longest, max(written, told)))


def config(
    exp: OverSeeds,
    policy: policies.Policy,
    sizes: Sizes,
    *,
    edits: int,
    seeds: int,
    mesh: Mesh | None = None,
) -> RoundConfig:
    """What the program is compiled for."""
    least = exp.inner.step_tokens or exp.inner.row_tokens
    return RoundConfig(
        arch=policy.arch,
        inner=capacity.build(exp.inner, step_tokens=least, adapters=1),
        clip=exp.inner.clip,
        propose=policies.sample_config(exp.propose, policy),
        answer=policies.sample_config(exp.answer, policy),
        imitate=exp.imitate,
        rule=lessons.select_rule(exp.imitate, exp.select.rule, edits=edits),
        sizes=sizes,
        edits=edits,
        seeds=seeds,
        eos=policy.eos,
        chunk=exp.over_seeds.march,
        mesh=mesh,
    )


def most_lines(exp: OverSeeds, sizes: Sizes) -> int:
    """Lines of an edit that has a break at every other token, and the passage."""
    return (max(exp.propose.max_tokens, sizes.fixed) + 1) // 2 + 1


def inputs(
    exp: OverSeeds,
    task: Knowledge,
    passages: Sequence[Passage],
    tables: Words,
    cfg: RoundConfig,
    *,
    index: int,
    stage: int = trials.IMITATE,
) -> Inputs:
    """What round `index` of one seed reads; 0 is that of the held-out passages.

    `stage`: whose imitation it is, the policy's or the control's.

    Raises:
      ValueError: see `token_forms.sheet`.
    """
    lines, count = most_lines(exp, cfg.sizes), len(passages)
    seeds = [
        (exp.seed, trials.ADAPT, index, p, e, s)
        for p in range(count)
        for e in range(cfg.edits)
        for s in range(cfg.seeds)
    ]
    key = prng.fold(jax.random.key(exp.seed), [stage], [index])[0]
    k_best = cfg.rule.k_best
    most = count * k_best
    orders = draws.orders(exp.inner, seeds, lines=lines)
    batches = draws.batches(exp.imitate, jax.random.key_data(key).tolist(), most=most)
    drawn = draws.Draws(
        orders=orders.reshape(count, cfg.edits, cfg.seeds, *orders.shape[1:]),
        ranks=draws.ranks(
            cfg.rule.ties,
            [f"ties {exp.seed} {index} {p}" for p in range(count)],
            edits=cfg.edits,
        ),
        batches=batches,
        chosen=draws.chosen(
            [f"control {exp.seed} {index} {p}" for p in range(count)],
            edits=cfg.edits,
            k_best=k_best,
        ),
    )
    return Inputs(
        seed=np.uint32(exp.seed),
        index=np.uint32(index),
        sheet=token_forms.sheet(
            task, passages, tables, cfg.sizes, threshold=exp.grade.threshold
        ),
        draws=drawn,
        least_P=_least(exp, cfg.rule.threshold, passages),
        rates=draws.rates(exp.inner, lines=lines),
        words=tables,
    )


def _least(
    exp: OverSeeds, bound: float | str | None, passages: Sequence[Passage]
) -> np.ndarray:
    """Right answers, over all seeds, that reach a threshold that is a number."""
    if not isinstance(bound, float):
        return np.zeros(len(passages), np.int32)
    asked = [len(p.questions) * exp.scale.seeds for p in passages]
    # One more than there are: no edit is good enough.
    counts = [token_forms.needed(n, bound) if bound <= 1 else n + 1 for n in asked]
    return np.array(counts, np.int32)
