"""Lines that learn from teachers: the plan, the bank, and training against `adapt`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_frozen as frozen

from seal_jax.models import decoder, key_ranges, lora
from seal_jax.training import packed, plan, plan_arrays
from seal_jax.training.plan import Taught

ARCH, EOS, WIDTH, PARAMS = frozen.ARCH, frozen.EOS, frozen.WIDTH, frozen.PARAMS

FORWARD = frozen.settings(teach="forward", bank=16)
# All that an inner loop can have.
WHOLE = dataclasses.replace(frozen.WHOLE, teach="jsd", beta=0.3, bank=16, resumes=True)


@jax.jit
def hidden(ids_T, delta=None):
    """Hidden states of one text, alone in its row."""
    t = len(ids_T)
    ranges = key_ranges.causal(jnp.ones((1, t), bool))
    at = jnp.arange(t)[None]
    return decoder.hidden(PARAMS, delta, ARCH, ids_T[None], at, ranges)[0][0]


def line(rng, *, prompt: int, tail: int, more: int, skip=0, eos=True):
    """A line, how much of it is given, and its teacher, who has `more` before it."""
    ids = rng.integers(0, 46, prompt + tail).tolist()
    context = rng.integers(0, 46, more).tolist()
    count = tail + eos
    taught = Taught((*context, *ids), more + prompt, count, min(skip, count - 1))
    return tuple(ids), prompt, taught


def workload(count: int, **changes) -> list[plan.Job]:
    """Jobs of taught lines, partly taught lines, and lines without a teacher."""
    rng, jobs = np.random.default_rng(count), []
    for j in range(count):
        lines = [
            line(rng, prompt=1 + i, tail=2 + (i + j) % 3, more=3 + 11 * i, skip=j % 2)
            for i in range(1 + j % 3)
        ]
        lines.append(line(rng, prompt=2, tail=3, more=7, eos=False))
        texts, given, taught = zip(*lines, strict=True)
        if j == 1:
            taught = (None, *taught[1:])
        if j == 3:
            taught = ()
        own = dict(epochs=2 - j % 2, batch=1 + (j == 2), clip=(0.05, 1.0)[j % 2])
        jobs.append(
            plan.Job(
                texts,
                (count, j),
                learning_rate=1e-2,
                loss=frozen.MASKED,
                given=given,
                taught=taught,
                **(own | changes),
            )
        )
    return jobs


# Steps and lines of a step that the definition is compiled for.
STEPS, LINES = 8, 3


def solo(job, key, cfg, *, stack=None, teacher_on=None, start=None):
    """The definition, from hidden states that each teacher's text gives by itself."""
    laid = list(plan_arrays.rows(job, eos=EOS, multiple=WIDTH))
    for batch, rows in zip(job.batches(), laid, strict=True):
        for at, row in enumerate(rows):
            row = rows[at] = dict(row)
            if cfg.divergence:
                row.setdefault("anchors", np.zeros(WIDTH, np.float32))
            row.setdefault("distill", np.zeros(WIDTH, np.float32))
            row["teacher"] = np.zeros((WIDTH, ARCH.width), np.float32)
            i = batch[at] if at < len(batch) else None
            if i is None or not job.taught or job.taught[i] is None:
                continue
            one, own = job.taught[i], job.given[i] - 1
            states = hidden(np.array(one.ids), teacher_on)[one.given - 1 :]
            for t in range(one.skip, one.count):
                row["teacher"][own + t] = states[t]
        rows += [jax.tree.map(np.zeros_like, rows[0])] * (LINES - len(rows))
    laid += laid[:1] * (STEPS - len(laid))
    rows = jax.tree.map(lambda *x: np.stack(x), *(stacked(step) for step in laid))
    rates = np.pad(job.rates(), (0, STEPS - job.total))
    fresh = lora.init(key, ARCH, targets=cfg.targets, rank=cfg.rank)
    clip, total = jnp.float32(job.clip), jnp.int32(job.total)
    args = PARAMS, fresh, rows, rates, clip, total, ARCH, cfg, stack, start
    return frozen.ADAPT(*args)


def stacked(rows):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def train(jobs, cfg, **changes):
    keys = jax.random.split(jax.random.key(1), len(jobs))
    if cfg.frozen_rank:
        of = np.arange(len(jobs))[::-1] % 3
        changes = {"frozen": frozen.STACKS, "frozen_of": of} | changes
    run = functools.partial(packed.train, arch=ARCH, cfg=cfg, eos=EOS)
    return keys, run(PARAMS, jobs, keys, **changes)


def equal(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
def test_every_packed_adapter_equals_its_solo_run(kind):
    cfg = dataclasses.replace(FORWARD, teach=kind)
    jobs = workload(4)
    keys, trained = train(jobs, cfg)
    assert trained.finite_A.all()
    for j, job in enumerate(jobs):
        alone = solo(job, keys[j], cfg)
        frozen.close(lora.select(trained.adapters, j), frozen.scaled(alone, cfg))
        np.testing.assert_allclose(
            trained.loss_A[j], alone.loss_sum / job.total, rtol=1e-4
        )


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
def test_an_adapter_whose_teacher_is_itself_stays_where_it_began(kind):
    cfg = dataclasses.replace(FORWARD, teach=kind)
    rng = np.random.default_rng(0)
    lines = [line(rng, prompt=2, tail=t, more=0) for t in (3, 7, 5)]
    texts, given, taught = zip(*lines, strict=True)
    own = dataclasses.replace(
        workload(1)[0], lines=texts, given=given, taught=taught, epochs=2
    )
    keys, trained = train([own] * 2, cfg)
    print(trained.loss_A)
    fresh = lora.init(keys[0], ARCH, targets=cfg.targets, rank=cfg.rank)
    print(frozen.gap(lora.select(trained.adapters, 0), lora.scaled(fresh, 2.0)))
    equal(lora.select(trained.adapters, 0), lora.scaled(fresh, cfg.alpha / cfg.rank))
    assert not trained.loss_A.any()
