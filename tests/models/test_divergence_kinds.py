"""Each kind of divergence against float64, its slopes, and its limits."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.models import cross_entropy

TOKENS, WIDTH, VOCAB = 23, 6, 50
KINDS = ("reverse", "forward", "jsd")
BETAS = {"reverse": (0.5,), "forward": (0.5,), "jsd": (0.5, 0.2, 0.9)}
CASES = [(kind, beta) for kind in KINDS for beta in BETAS[kind]]


def made(scale=1.0, dtype="float32"):
    """Hidden states, a teacher's, and a head."""
    rng = np.random.default_rng(1)
    shapes = (TOKENS, WIDTH), (TOKENS, WIDTH), (WIDTH, VOCAB)
    return [jnp.asarray(scale * rng.normal(size=shape), dtype) for shape in shapes]


def log_softmax(logits):
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def exact(hidden, teacher, head, kind, beta):
    """The definition in float64, `[M]`."""
    hidden, teacher, head = (np.asarray(x, np.float64) for x in (hidden, teacher, head))
    log_p, log_q = log_softmax(hidden @ head), log_softmax(teacher @ head)

    def kl(log_a, log_b):
        return np.sum(np.exp(log_a) * (log_a - log_b), axis=-1)

    if kind == "reverse":
        return kl(log_p, log_q)
    if kind == "forward":
        return kl(log_q, log_p)
    log_m = np.logaddexp(np.log(beta) + log_q, np.log1p(-beta) + log_p)
    return beta * kl(log_q, log_m) + (1 - beta) * kl(log_p, log_m)


@functools.cache
def compiled(kind, beta, needed=False):
    def loss(hidden, teacher, head, weights, *needed_M):
        apart = cross_entropy.divergence(
            hidden, teacher, head, *needed_M, kind=kind, beta=beta
        )
        return jnp.sum(apart * weights), apart

    del needed  # Another program.
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


@pytest.mark.parametrize(("kind", "beta"), CASES)
def test_values_and_slopes_are_those_of_the_definition(kind, beta):
    hidden, teacher, head = made(0.6)
    weights = np.linspace(-1, 2, TOKENS).astype(np.float32)
    (_, apart), grads = compiled(kind, beta)(hidden, teacher, head, weights)
    assert (apart.shape, apart.dtype) == ((TOKENS,), jnp.float32)
    whole = functools.partial(exact, teacher=teacher, head=head, kind=kind, beta=beta)
    np.testing.assert_allclose(apart, whole(hidden), rtol=2e-5, atol=1e-6)
    # Finite differences in float64; a token's divergence depends on it alone.
    slopes, step = np.zeros((TOKENS, WIDTH)), 1e-5
    for d in range(WIDTH):
        ahead, behind = (
            np.float64(hidden) + sign * step * np.eye(WIDTH)[d] for sign in (1, -1)
        )
        slopes[:, d] = (whole(ahead) - whole(behind)) / (2 * step)
    np.testing.assert_allclose(
        grads[0], slopes * weights[:, None], rtol=1e-4, atol=1e-6
    )
    # Teacher and head are frozen.
    assert not grads[1].any() and not grads[2].any()


@pytest.mark.parametrize(("kind", "beta"), CASES)
def test_at_equality_each_is_exactly_zero_and_flat(kind, beta):
    hidden, _, head = made(2.0)
    (_, apart), grads = compiled(kind, beta)(hidden, hidden, head, np.ones(TOKENS))
    assert not apart.any() and not grads[0].any()


@pytest.mark.parametrize(("kind", "beta"), CASES)
def test_predictions_as_far_apart_as_can_be_are_finite(kind, beta):
    """Probabilities of 0 on either side, in logits of some thousands."""
    hidden, teacher, head = made(40.0)
    (_, apart), grads = compiled(kind, beta)(hidden, teacher, head, np.ones(TOKENS))
    want = exact(hidden, teacher, head, kind, beta)
    assert np.isfinite(grads[0]).all()
    np.testing.assert_allclose(apart, want, rtol=1e-4, atol=1e-30)


def test_forward_with_a_certain_teacher_is_cross_entropy():
    hidden, teacher, head = made()
    targets = jnp.argmax(teacher @ head, axis=-1)
    ones = np.ones(TOKENS, np.float32)
    (_, apart), grads = compiled("forward", 0.5)(hidden, teacher * 1e4, head, ones)

    def loss(hidden):
        ce = cross_entropy.cross_entropy(hidden, head, targets)
        return ce.sum(), ce

    (_, ce), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(hidden)
    np.testing.assert_allclose(apart, ce, rtol=1e-5)
    np.testing.assert_allclose(grads[0], grad, rtol=1e-4, atol=1e-5)


def test_jsd_is_symmetric_at_a_half_and_one_kl_or_the_other_at_its_ends():
    hidden, teacher, head = made()
    run = functools.partial(cross_entropy.divergence, head_DV=head)
    there, back = (
        run(a, b, kind="jsd") for a, b in ((hidden, teacher), (teacher, hidden))
    )
    np.testing.assert_allclose(there, back, rtol=1e-5)
    apart = run(hidden, teacher, kind="jsd", beta=0.2)
    mirrored = run(teacher, hidden, kind="jsd", beta=0.8)
    np.testing.assert_allclose(apart, mirrored, rtol=1e-5)
    # Near enough to each other that the next term of the limit is small.
    hidden, teacher, head = made(0.6)
    ones = np.ones(TOKENS, np.float32)
    for share, kind, beta in (
        (2**-12, "reverse", 1 - 2**-12),
        (2**-14, "forward", 2**-14),
    ):
        (_, near), grads = compiled("jsd", beta)(hidden, teacher, head, ones)
        (_, limit), slopes = compiled(kind, 0.5)(hidden, teacher, head, ones)
        np.testing.assert_allclose(near / share, limit, rtol=0.02, atol=1e-3)
        np.testing.assert_allclose(grads[0] / share, slopes[0], rtol=0.02, atol=0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [4, 1])
def test_chunks_change_nothing(kind, rows, monkeypatch):
    args = *made(), np.linspace(1, 2, TOKENS).astype(np.float32)
    whole = compiled(kind, 0.5)(*args)
    monkeypatch.setattr(cross_entropy, "CHUNK", 2 * rows * VOCAB)
    # Another function, since what was traced holds the former number.
    chunked = compiled.__wrapped__(kind, 0.5)
    program = str(jax.make_jaxpr(chunked)(*args))
    held = {int(n) for n in re.findall(rf"f32\[(\d+),{VOCAB}\]", program)}
    assert TOKENS not in held
    for a, b in zip(
        jax.tree.leaves(chunked(*args)), jax.tree.leaves(whole), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("skipped", [3, 100])
@pytest.mark.parametrize("needed", [0, 7, TOKENS])
def test_tokens_that_are_not_needed_are_left_out(skipped, needed, monkeypatch):
    monkeypatch.setattr(cross_entropy, "SKIPPED", skipped)
    hidden, teacher, head = made()
    chosen = np.random.default_rng(needed).permutation(TOKENS)[:needed]
    needed_M = np.isin(np.arange(TOKENS), chosen)
    weights = np.linspace(1, 2, TOKENS).astype(np.float32)
    # What is not needed may be anything, on both sides.
    spoilt = (jnp.where(needed_M[:, None], x, jnp.nan) for x in (hidden, teacher))
    run = compiled.__wrapped__("jsd", 0.3, True)
    (_, apart), grads = run(*spoilt, head, weights, needed_M)
    (_, want), slopes = compiled("jsd", 0.3)(hidden, teacher, head, weights)
    np.testing.assert_allclose(apart, want * needed_M, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        grads[0], slopes[0] * needed_M[:, None], rtol=1e-5, atol=1e-6
    )
    alone = cross_entropy.divergence(*made(), needed_M, kind="jsd", beta=0.3)
    np.testing.assert_allclose(alone, apart, rtol=1e-5, atol=1e-6)


BAD = [
    ({"kind": "sideways"}, r"kind='sideways' must be one of"),
    ({"kind": "jsd", "beta": 1.0}, r"beta=1\.0 must lie between"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_what_is_no_divergence_is_refused(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        cross_entropy.divergence(*made(), **changes)
    assert "\n" not in str(caught.value)
