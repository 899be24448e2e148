"""Staying near the base on texts beside the lines: formula, plan and training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_frozen as frozen

from seal_jax.models import cross_entropy, lora
from seal_jax.training import inner, plan, plan_arrays
from seal_jax.training.settings import LossConfig, PlanConfig

# No two alike, so that an array's shape tells what it is.
TOKENS, WIDTH, VOCAB = 11, 6, 37


def made(dtype="float32"):
    """Hidden states, a teacher's, and a head."""
    rng = np.random.default_rng(0)
    shapes = (TOKENS, WIDTH), (TOKENS, WIDTH), (WIDTH, VOCAB)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def dense(hidden_MD, teacher_MD, head_DV):
    def log_softmax(x_MD):
        x_MD, w_DV = x_MD.astype("float32"), head_DV.astype("float32")
        return jax.nn.log_softmax(jnp.matmul(x_MD, w_DV, precision="highest"))

    log_p_MV, log_q_MV = log_softmax(hidden_MD), log_softmax(teacher_MD)
    return jnp.sum(jnp.exp(log_p_MV) * (log_p_MV - log_q_MV), axis=-1)


def weighted(fn):
    def loss(*args):
        return jnp.sum(fn(*args) * jnp.arange(TOKENS, dtype="float32"))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))


# All tokens in one chunk, three chunks and a remainder, a chunk each.
@pytest.mark.parametrize("rows", [TOKENS, 3, 1])
def test_it_is_the_dense_formula_and_so_is_its_gradient(rows, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK", 2 * rows * VOCAB)
    args = made()
    kl_M = cross_entropy.divergence(*args)
    assert (kl_M.shape, kl_M.dtype) == ((TOKENS,), jnp.float32)
    np.testing.assert_allclose(kl_M, dense(*args), rtol=1e-5, atol=1e-6)
    value, grads = weighted(cross_entropy.divergence)(*args)
    want, slopes = weighted(dense)(*args)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(grads[0], slopes[0], rtol=1e-4, atol=1e-5)
    # Teacher and head are frozen.
    assert not grads[1].any() and not grads[2].any()
    program = str(jax.make_jaxpr(weighted(cross_entropy.divergence))(*args))
    assert (f"[{TOKENS},{VOCAB}]" in program) == (rows == TOKENS)


def test_of_half_precision_it_is_float32_and_its_gradient_is_not():
    args = made("bfloat16")
    kl_M, pull = jax.vjp(cross_entropy.divergence, *args)
    assert kl_M.dtype == jnp.float32
    np.testing.assert_allclose(kl_M, dense(*args), rtol=1e-4, atol=1e-4)
    slope_MD = pull(jnp.ones(TOKENS))[0]
    want_MD = jax.grad(lambda *a: dense(*a).sum())(*args)
    assert slope_MD.dtype == want_MD.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        *(np.float32(x) for x in (slope_MD, want_MD)), rtol=0.03, atol=0.03
    )


def test_at_equality_it_is_zero_and_flat():
    hidden_MD, _, head_DV = made()
    value, grads = weighted(cross_entropy.divergence)(hidden_MD, hidden_MD, head_DV)
    assert value == 0
    assert not grads[0].any()


# Texts beside the lines

LINES = tuple((1,) * n for n in (3, 5, 2, 4, 6))
TEXTS = ((7, 8, 9), (11,), (12, 13, 14, 15, 16))


def job(**changes) -> plan.Job:
    base = dict(
        lines=LINES,
        seed=(0, 1),
        epochs=3,
        learning_rate=1e-2,
        clip=1.0,
        loss=frozen.MASKED,
        beside=TEXTS,
        beside_weight=0.5,
    )
    return plan.Job(**(base | changes))


def test_every_step_reads_a_text_and_the_order_of_lines_stays():
    own = job(batch=2)
    order = own.beside_order()
    assert len(order) == own.total == 9
    turns = [order[i : i + 3] for i in (0, 3, 6)]
    assert all(sorted(turn) == [0, 1, 2] for turn in turns)
    assert len(set(map(tuple, turns))) > 1
    plain = job(batch=2, beside=(), beside_weight=0.0)
    assert plain.beside_order() == []
    assert own.batches() == plain.batches()
    assert own.positions() == plain.positions()
    assert order == job(batch=2, beside_weight=9.0).beside_order()
    assert order != job(batch=2, seed=(0, 2)).beside_order()


def test_the_rows_of_a_step_are_its_lines_and_then_its_text():
    own, multiple = job(batch=2), 4
    plain = plan_arrays.rows(
        job(batch=2, beside=(), beside_weight=0.0), eos=46, multiple=multiple
    )
    rows = plan_arrays.rows(own, eos=46, multiple=multiple)
    for text, (*lines, last), want in zip(own.beside_order(), rows, plain, strict=True):
        for row, like in zip(lines, want, strict=True):
            assert not row.pop("anchors").any()
            for name, leaf in like.items():
                np.testing.assert_array_equal(row[name], leaf)
        n = len(TEXTS[text])
        assert len(last["tokens"]) == -(-n // multiple) * multiple
        assert last["tokens"][:n].tolist() == list(TEXTS[text])
        assert last["positions"][:n].tolist() == list(range(n))
        assert last["is_key"].sum() == n and not last["weights"].any()
        np.testing.assert_allclose(last["anchors"][:n], 0.5 / n)
        assert not last["anchors"][n:].any()
        assert last["anchors"].dtype == last["weights"].dtype == np.float32


def test_the_plan_has_room_for_the_texts_and_counts_them():
    cfg = PlanConfig(tile=2, row_tokens=6, step_tokens=12, slots=2, active=2)
    own, plain = job(), job(beside=(), beside_weight=0.0, seed=(9,))
    need = plan.needs(own, cfg)
    tiles = [cfg.tiles(len(TEXTS[text])) for text in own.beside_order()]
    assert [step[1:] for step in need] == [(count,) for count in tiles]
    blocks = list(plan_arrays.blocks([own, plain], cfg, eos=46, anchored=True))
    anchors = sum(block.extras.anchors.sum() for block in blocks)
    np.testing.assert_allclose(anchors, 0.5 * own.total, rtol=1e-5)
    read = sum(len(TEXTS[text]) for text in own.beside_order())
    lines = 2 * 3 * sum(map(len, LINES))
    assert sum(block.tokens for block in blocks) == lines + read
    # The job with texts is the larger, by them alone.
    assert plan.share([plain, own, plain], 2, most=2) == [[1], [0, 2]]


def test_active_adapters_name_their_row_of_the_stacks():
    cfg = PlanConfig(tile=2, row_tokens=6, step_tokens=12, slots=2, active=2)
    jobs, of = (
        [job(seed=(s,), beside=(), beside_weight=0.0) for s in range(3)],
        (5, 3, 4),
    )
    (block,) = plan_arrays.blocks(jobs, cfg, eos=46, frozen_of=of)
    assert block.extras.anchors is None
    in_slot, seen = {}, []
    for i in range(block.length):
        step = block.steps
        starts = step.starts[i][: step.start_count[i]]
        in_slot |= {slot: own for slot, own in starts.tolist()}
        for k, slot in enumerate(step.slots[i].tolist()):
            if slot < cfg.slots:
                assert block.extras.frozen[i, k] == of[in_slot[slot]]
                seen.append(in_slot[slot])
    assert sorted(set(seen)) == [0, 1, 2] and len(seen) == 3 * 15


BAD = [
    ({"beside_weight": 0.0}, r"beside_weight=0\.0 must be positive, with 3 texts"),
    ({"beside_weight": -1.0}, r"beside_weight=-1\.0 must be positive"),
    ({"beside": ()}, r"beside_weight=0\.5 must be positive, with 0 texts"),
    ({"beside": ((1,), ())}, "text 1 beside has no tokens"),
    (
        {"loss": LossConfig("reference", 64, 0)},
        r"inner\.loss\.mode='reference' must be 'masked' with texts beside",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_texts_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        job(**changes)
    assert "\n" not in str(caught.value)


def test_texts_that_the_plan_cannot_take_are_refused():
    cfg = PlanConfig(tile=2, row_tokens=6, step_tokens=6, slots=2, active=2)
    with pytest.raises(ValueError, match="or a text beside it takes 8 positions"):
        plan.needs(job(beside=((1,) * 8,)), cfg)
    with pytest.raises(ValueError, match=r"lines of \[\d, 5\] positions, which one"):
        plan.needs(job(beside=TEXTS[2:]), cfg)
    with pytest.raises(ValueError, match="divergence=True"):
        next(plan_arrays.blocks([job()], frozen.PLAIN.plan, eos=46))


# Training


def divergence_on(text, delta):
    """Mean divergence of the adapted model from the base on a text, by hand."""
    log_p, log_q = (
        jax.nn.log_softmax(frozen.predict(np.array(text), frozen.PARAMS, d))
        for d in (delta, None)
    )
    return float(jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)))


def test_training_with_texts_beside_stays_nearer_to_the_base_on_them():
    """As far as one can with the stack beneath, which has left the base already."""
    lines, texts = LINES[1:2], (tuple(range(20, 20 + frozen.TEXT)),)
    stack, key = lora.select(frozen.STACKS, 0), jax.random.key(2)
    near = job(lines=lines, beside=texts, beside_weight=30.0, epochs=6, clip=9.0)
    far = dataclasses.replace(near, beside=(), beside_weight=0.0)
    found = []
    for own in (near, far):
        slot = frozen.solo(own, key, frozen.WHOLE, frozen=stack)
        delta = inner.applied(slot.adapter, frozen.WHOLE, stack)
        found.append(divergence_on(texts[0], delta))
    start = divergence_on(texts[0], stack)
    assert found[0] < 0.9 * start
    assert found[0] < 0.9 * found[1]


def test_the_divergence_of_the_definition_is_weighted_by_its_anchors():
    text = tuple(range(20, 20 + frozen.TEXT))
    own = job(lines=((1, 2),), beside=(text,), beside_weight=2.0, epochs=1)
    (rows,) = plan_arrays.rows(own, eos=46, multiple=frozen.WIDTH)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    delta = lora.select(frozen.STACKS, 1)
    run = jax.jit(inner.batch_divergence, static_argnums=3)
    got = run(frozen.PARAMS, delta, stacked, frozen.ARCH)
    np.testing.assert_allclose(got, 2.0 * divergence_on(text, delta), rtol=1e-4)
