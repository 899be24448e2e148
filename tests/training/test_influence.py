"""Influences of texts on targets, held to gradients that `jax.grad` gives singly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_frozen as frozen
import test_taught as taught

from seal_jax.models import decoder, float8_base, lora
from seal_jax.training import influence, inner, packed, plan, plan_arrays
from seal_jax.training.settings import LossConfig

ARCH, EOS, WIDTH, PARAMS = frozen.ARCH, frozen.EOS, frozen.WIDTH, frozen.PARAMS
CFG = frozen.settings()
CHUNKED = dataclasses.replace(
    CFG, plan=dataclasses.replace(CFG.plan, tile=2, chunk_tokens=8, slots=4)
)
KEY = jax.random.key(3)
SAMPLED = LossConfig(mode="reference", pad_to=24, pad_samples=2)


def job(seed: int, lines: int, *, loss=frozen.MASKED, given=False) -> plan.Job:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, WIDTH - 3, lines)
    return plan.Job(
        tuple(tuple(rng.integers(0, 46, n).tolist()) for n in sizes),
        (seed,),
        epochs=1,
        learning_rate=1e-2,
        clip=1.0,
        loss=loss,
        given=tuple(int(n) // 2 for n in sizes) if given else (),
    )


TARGETS = [job(100 + p, 2 + p, given=True) for p in range(4)]
TEXTS = [
    influence.Text(job(e, 1 + e % 4, loss=(frozen.MASKED, SAMPLED)[e % 2]), e % 4)
    for e in range(10)
]


def measure(targets=TARGETS, texts=TEXTS, cfg=CFG, params=PARAMS, **changes):
    run = functools.partial(influence.measure, most=3, arch=ARCH, cfg=cfg, eos=EOS)
    return run(params, targets, texts, KEY, **changes)


# The definition


@functools.partial(jax.jit, static_argnums=4)
def line_loss(params, b, fresh, row, cfg):
    joined = jax.tree.map(
        lambda ab, own: {"a": ab["a"], "b": own}, fresh, b, is_leaf=lambda x: "a" in x
    )
    delta = inner.applied(joined, cfg)
    value = inner.batch_loss(params, delta, row, ARCH)
    return value + (
        inner.batch_taught(params, delta, row, ARCH, cfg) if cfg.teach else 0
    )


GRADIENT = jax.jit(jax.grad(line_loss, argnums=1), static_argnums=4)


def start(cfg=CFG):
    fresh = lora.init(KEY, ARCH, targets=cfg.targets, rank=cfg.rank)
    return fresh, lora.per_linear(fresh, lambda ab: ab["b"])


def rows_of(job):
    for step in plan_arrays.rows(job, eos=EOS, multiple=WIDTH):
        yield jax.tree.map(lambda leaf: leaf[None], step[0])


def total(function, job, b, cfg=CFG, params=PARAMS):
    """Of all lines of a job, the sum of what a function gives."""
    fresh, _ = start(cfg)
    made = [function(params, b, fresh, row, cfg) for row in rows_of(job)]
    return functools.reduce(lambda x, y: jax.tree.map(jnp.add, x, y), made)


def dot(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return float(sum(jnp.vdot(x, y) for x, y in pairs))


@functools.cache
def defined():
    slopes = [total(GRADIENT, target, start()[1]) for target in TARGETS]
    return [dot(total(GRADIENT, t.job, start()[1]), slopes[t.target]) for t in TEXTS]


# Held to it


def test_influences_are_those_of_the_definition():
    found = measure()
    np.testing.assert_allclose(found.values, defined(), rtol=2e-4, atol=1e-6)
    assert np.std(found.values) > 0.01
    lines = [*TARGETS, *(text.job for text in TEXTS)]
    assert found.tokens == sum(map(influence._positions, lines))
    assert found.computed_tokens % CFG.plan.step_tokens == 0


def test_lines_that_lie_in_two_chunks_count_once():
    found = measure(cfg=CHUNKED)
    np.testing.assert_allclose(found.values, defined(), rtol=2e-4, atol=1e-6)


def test_so_it_is_where_every_slot_has_a_place_of_its_own():
    sizes = dataclasses.replace(CFG.plan, slots=4, active=4, by_slot=True)
    found = measure(cfg=dataclasses.replace(CFG, plan=sizes))
    np.testing.assert_allclose(found.values, defined(), rtol=2e-4, atol=1e-6)


def test_a_text_that_is_its_own_target_helps_it():
    """<g, g> is the squared norm of the target's gradient."""
    texts = [influence.Text(target, p) for p, target in enumerate(TARGETS)]
    values = measure(texts=texts).values
    slopes = [total(GRADIENT, target, start()[1]) for target in TARGETS]
    assert (values > 0).all()
    np.testing.assert_allclose(values, [dot(s, s) for s in slopes], rtol=2e-4)


def test_it_is_how_fast_a_small_step_on_the_text_lowers_the_loss_of_the_target():
    values, rate = measure().values, 3e-4
    for text, value in zip(TEXTS[:4], values, strict=False):
        slope = total(GRADIENT, text.job, start()[1])

        def after(sign, slope=slope, target=TARGETS[text.target]):
            b = jax.tree.map(lambda g: -sign * rate * g, slope)
            return float(total(line_loss, target, b))

        falls = (after(-1) - after(1)) / (2 * rate)
        np.testing.assert_allclose(value, falls, rtol=0.02)


def test_it_is_the_same_in_any_order_and_company():
    values = measure().values
    order = np.random.default_rng(0).permutation(len(TEXTS))
    again = measure(texts=[TEXTS[e] for e in order]).values
    np.testing.assert_allclose(again, values[order], rtol=1e-5, atol=1e-7)
    # More targets than are held at a time; here a target, its texts, and no other.
    assert influence.sizes(CFG, targets=4, most=3).targets == 3
    alone = measure([TARGETS[3]], [influence.Text(TEXTS[3].job, 0)]).values
    np.testing.assert_allclose(alone, values[[3]], rtol=1e-5, atol=1e-7)


def test_what_is_not_finite_stays_with_its_text():
    arch = dataclasses.replace(ARCH, tied=False)
    params = decoder.init_params(jax.random.key(0), arch)
    broken = {**params, "embed": params["embed"].at[46].set(jnp.nan)}
    bad = dataclasses.replace(TEXTS[5].job, lines=((3, 46, 5, 6),))
    texts = [*TEXTS[:5], influence.Text(bad, 1), *TEXTS[6:]]
    run = functools.partial(
        influence.measure, most=3, arch=arch, cfg=CFG, eos=EOS, key=KEY
    )
    whole = run(params, TARGETS, texts).values
    values = run(broken, TARGETS, texts).values
    assert np.isnan(values[5]) and np.isfinite(whole).all()
    keep = np.arange(len(texts)) != 5
    np.testing.assert_array_equal(values[keep], whole[keep])
    # Nor does a target: its own texts have no value, the others theirs.
    worse = [dataclasses.replace(TARGETS[0], lines=((46, 2, 3),), given=())]
    values = run(broken, worse + TARGETS[1:], texts).values
    own = np.array([text.target == 0 for text in texts])
    assert np.isnan(values[own]).all()
    np.testing.assert_array_equal(values[keep & ~own], whole[keep & ~own])


def test_lines_learned_of_a_teacher_count_by_their_divergence():
    cfg = taught.FORWARD
    jobs = [dataclasses.replace(j, epochs=1, batch=1) for j in taught.workload(4)]
    texts = [influence.Text(j, e) for e, j in enumerate(jobs)]
    values = measure(texts=texts, cfg=cfg).values

    def with_teacher(job):
        laid = plan_arrays.rows(job, eos=EOS, multiple=WIDTH)
        for (i,), step in zip(job.batches(), laid, strict=True):
            row = dict(step[0])
            row.setdefault("distill", np.zeros(WIDTH, np.float32))
            row["teacher"] = np.zeros((WIDTH, ARCH.width), np.float32)
            if job.taught and job.taught[i] is not None:
                one, own = job.taught[i], job.given[i] - 1
                states = taught.hidden(one.ids)[one.given - 1 :]
                at = np.arange(one.skip, one.count)
                row["teacher"][own + at] = states[at]
            yield jax.tree.map(lambda leaf: leaf[None], row)

    fresh, b = start(cfg)
    for text, value in zip(texts, values, strict=True):
        made = [GRADIENT(PARAMS, b, fresh, row, cfg) for row in with_teacher(text.job)]
        slope = functools.reduce(lambda x, y: jax.tree.map(jnp.add, x, y), made)
        target = total(GRADIENT, TARGETS[text.target], b)
        np.testing.assert_allclose(value, dot(slope, target), rtol=2e-4, atol=1e-6)


def test_more_texts_than_there_is_room_for_are_refused():
    with pytest.raises(ValueError, match="3 texts of a target must be at most most=2"):
        measure(most=2)


def test_a_base_in_eight_bits_tells_nearly_the_same():
    arch = dataclasses.replace(ARCH, base_dtype=float8_base.FLOAT8)
    drawn = decoder.init_params(jax.random.key(0), arch)
    run = functools.partial(influence.measure, most=3, cfg=CFG, eos=EOS, key=KEY)
    eight = run(drawn, TARGETS, TEXTS, arch=arch).values
    plain = run(float8_base.master(drawn), TARGETS, TEXTS, arch=arch.plain()).values
    assert np.isfinite(eight).all() and np.any(eight != plain)
    # Slopes are rounded to three bits: a sixth of an adapter's gradient is that.
    assert np.corrcoef(eight, plain)[0, 1] > 0.9


def test_it_takes_no_more_memory_than_training_does():
    """Beside the base: what is held is less than the slots' moments and adapters."""
    size = influence.sizes(CFG, targets=50, most=15)
    assert size == influence.Sizes(CFG.plan.slots, 15 * CFG.plan.slots)
    own = influence.program(ARCH, CFG, None, size).memory_analysis()
    trained = packed.program(ARCH, CFG, None).memory_analysis()
    assert own is not None and trained is not None
    used = [m.argument_size_in_bytes + m.temp_size_in_bytes for m in (own, trained)]
    assert used[0] <= used[1]
