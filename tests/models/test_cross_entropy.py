"""Chunked cross-entropy against optax, and what its programs may not contain."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seal_jax.models import cross_entropy

# No two alike, so that an array's shape tells what it is.
TOKENS, WIDTH, VOCAB = 23, 6, 101
# Tokens in a chunk. 23 of them are one chunk, five chunks and a remainder, 23 chunks.
ROWS = (23, 4, 1)


@pytest.fixture(scope="module", params=ROWS)
def rows(request):
    """Tokens whose logits are held at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "CHUNK", request.param * VOCAB)
        # What was traced before holds the former number.
        jax.clear_caches()
        yield request.param
    jax.clear_caches()


def made(dtype="float32", *, batch=(), seed=0):
    """Hidden states, head, targets and loss weights, some of them zero."""
    rng = np.random.default_rng(seed)
    hidden_MD = rng.normal(size=(*batch, TOKENS, WIDTH))
    head_DV = rng.normal(size=(WIDTH, VOCAB))
    targets_M = rng.integers(0, VOCAB, (*batch, TOKENS), np.int32)
    weights_M = rng.uniform(size=(*batch, TOKENS)).astype(np.float32)
    weights_M[..., 3:6] = 0.0
    hidden_MD, head_DV = jnp.asarray(hidden_MD, dtype), jnp.asarray(head_DV, dtype)
    return hidden_MD, head_DV, jnp.asarray(targets_M), jnp.asarray(weights_M)


def oracle(hidden_MD, head_DV, targets_M):
    logits_MV = jnp.matmul(
        hidden_MD.astype("float32"), head_DV.astype("float32"), precision="highest"
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits_MV, targets_M)


def weighted(fn):
    """The gradient of the hidden states under a weighted sum of `fn`, and that sum."""

    def loss(hidden_MD, head_DV, targets_M, weights_M):
        return jnp.sum(fn(hidden_MD, head_DV, targets_M) * weights_M)

    return jax.jit(jax.value_and_grad(loss))


ours, theirs = weighted(cross_entropy.cross_entropy), weighted(oracle)


def close(a, b):
    """Equal up to the rounding of float32 sums over the vocabulary."""
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def both_close(got, want):
    for a, b in zip(got, want, strict=True):
        close(a, b)


# Values


def test_it_is_optax_cross_entropy(rows):
    args = made()
    want_M = jax.jit(oracle)(*args[:3])
    for run in (cross_entropy.cross_entropy, jax.jit(cross_entropy.cross_entropy)):
        ce_M = run(*args[:3])
        assert (ce_M.shape, ce_M.dtype) == ((TOKENS,), jnp.float32)
        close(ce_M, want_M)
    both_close(ours(*args), theirs(*args))


def test_a_vector_jacobian_product_weighs_each_token(rows):
    hidden_MD, head_DV, targets_M, _ = made()

    def pullback(fn):
        return jax.jit(jax.vjp(lambda h: fn(h, head_DV, targets_M), hidden_MD)[1])

    got, want = pullback(cross_entropy.cross_entropy), pullback(oracle)
    for m in (0, 7, TOKENS - 1):
        one_M = jnp.zeros(TOKENS).at[m].set(-2.5)
        (got_MD,) = got(one_M)
        close(got_MD, want(one_M)[0])
        assert np.flatnonzero(np.any(got_MD, axis=1)).tolist() == [m]


@pytest.mark.parametrize("skipped", [3, 5, 100])
def test_tokens_that_are_not_needed_come_out_as_zero(skipped, monkeypatch):
    monkeypatch.setattr(cross_entropy, "SKIPPED", skipped)
    hidden_MD, head_DV, targets_M, weights_M = made()
    plain, untrained = jax.jit(oracle), jax.jit(cross_entropy.cross_entropy)

    def loss(hidden_MD, needed_M):
        ce_M = cross_entropy.cross_entropy(hidden_MD, head_DV, targets_M, needed_M)
        return jnp.sum(ce_M * weights_M), ce_M

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for needed in (0, 1, 9, TOKENS):
        chosen = np.random.default_rng(needed).permutation(TOKENS)[:needed]
        needed_M = np.isin(np.arange(TOKENS), chosen)
        known_MD = np.where(needed_M[:, None], hidden_MD, np.float32(0))
        # What is not needed may be anything.
        spoilt_MD = np.where(needed_M[:, None], hidden_MD, np.float32(np.nan))
        (_, ce_M), grad_MD = gradient(spoilt_MD, needed_M)
        want_M = np.where(needed_M, plain(known_MD, head_DV, targets_M), 0)
        close(ce_M, want_M)
        close(untrained(spoilt_MD, head_DV, targets_M, needed_M), want_M)
        _, want_MD = theirs(known_MD, head_DV, targets_M, weights_M * needed_M)
        close(grad_MD, want_MD)


def test_chunks_without_a_needed_token_are_not_computed(monkeypatch):
    """The loop's trip count is that of the chunks needed, which is what costs."""
    monkeypatch.setattr(cross_entropy, "SKIPPED", 4)
    monkeypatch.setattr(cross_entropy, "CHUNK", 2**27)
    seen = []

    def fn(hidden_D, target):
        seen.append(hidden_D)
        return jnp.float32(0), hidden_D

    hidden_MD, head_DV, targets_M, _ = made()
    needed_M = jnp.arange(TOKENS) % 4 == 2  # 6 of 23: two chunks of 4
    with jax.disable_jit():
        cross_entropy._of_needed(fn, head_DV, hidden_MD, targets_M, needed_M)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("tokens", "most", "chunk"), [(2048, 882, 512), (23, 7, 7), (24, 7, 6), (9, 99, 9)]
)
def test_chunks_are_even_where_that_is_near(tokens, most, chunk):
    assert cross_entropy._chunk(tokens, most) == chunk


def test_it_batches_over_adapters_that_share_the_head(rows):
    hidden_BMD, head_DV, targets_BM, weights_BM = made(batch=(3,))
    axes = (0, None, 0, 0)
    got = jax.jit(jax.vmap(ours, in_axes=axes))(
        hidden_BMD, head_DV, targets_BM, weights_BM
    )
    for b in range(3):
        alone = theirs(hidden_BMD[b], head_DV, targets_BM[b], weights_BM[b])
        both_close([leaf[b] for leaf in got], alone)


def test_it_differentiates_inside_a_scan(rows):
    hidden_MD, head_DV, _, _ = made()
    _, _, targets_SM, weights_SM = made(batch=(4,), seed=1)

    def descend(gradient):
        def body(hidden_MD, at):
            loss, grad_MD = gradient(hidden_MD, head_DV, *at)
            return hidden_MD - 0.3 * grad_MD, loss

        return jax.jit(lambda: jax.lax.scan(body, hidden_MD, (targets_SM, weights_SM)))

    both_close(descend(ours)(), descend(theirs)())


def test_it_differentiates_through_a_scan(rows):
    hidden_MD, head_DV, targets_M, weights_M = made()

    def loss(fn):
        def body(hidden_MD, _):
            ce_M = fn(hidden_MD, head_DV, targets_M)
            return jnp.tanh(hidden_MD), jnp.sum(ce_M * weights_M)

        return lambda h: jnp.sum(jax.lax.scan(body, h, length=3)[1])

    close(
        jax.jit(jax.grad(loss(cross_entropy.cross_entropy)))(hidden_MD),
        jax.jit(jax.grad(loss(oracle)))(hidden_MD),
    )


def test_bfloat16_loses_no_more_than_its_roundings(rows):
    hidden_MD, head_DV, targets_M, weights_M = args = made("bfloat16")
    ce_M = jax.jit(cross_entropy.cross_entropy)(hidden_MD, head_DV, targets_M)
    # Logits are summed in float32: the loss loses nothing.
    assert ce_M.dtype == jnp.float32
    close(ce_M, jax.jit(oracle)(hidden_MD, head_DV, targets_M))

    _, got_MD = ours(*args)
    assert got_MD.dtype == jnp.bfloat16
    wide = (hidden_MD.astype("float32"), head_DV.astype("float32"))
    _, want_MD = theirs(*wide, targets_M, weights_M)
    # Three roundings to bfloat16, by 2^-8 at most: of the slope of every logit, of the
    # sum of slopes over the vocabulary, and of its product with the weight.
    slope_MV = jax.nn.softmax(wide[0] @ wide[1]) - jax.nn.one_hot(targets_M, VOCAB)
    size_MD = jnp.abs(slope_MV) @ jnp.abs(wide[1].T) * weights_M[:, None]
    error_MD = jnp.abs(got_MD.astype("float32") - want_MD)
    assert bool(jnp.all(error_MD <= 3.02 * 2.0**-8 * size_MD))
    # Roundings of both signs add up to far less than the bound.
    assert jnp.linalg.norm(error_MD) < 2.0**-8 * jnp.linalg.norm(want_MD)


def test_the_head_and_so_its_gradient_is_frozen(rows):
    hidden_MD, head_DV, targets_M, _ = made()

    def loss(head_DV):
        return jnp.sum(cross_entropy.cross_entropy(hidden_MD, head_DV, targets_M))

    grad_DV = jax.jit(jax.grad(loss))(head_DV)
    np.testing.assert_array_equal(grad_DV, np.zeros_like(head_DV))


def test_large_logits_do_not_overflow(rows):
    hidden_MD, head_DV, targets_M, weights_M = made()
    args = (1e4 * hidden_MD, head_DV, targets_M, weights_M)
    loss, grad_MD = ours(*args)
    assert np.isfinite(loss) and np.isfinite(grad_MD).all()
    both_close((loss, grad_MD), theirs(*args))


def test_a_token_that_is_not_a_number_changes_no_bit_of_the_others(rows):
    hidden_MD, head_DV, targets_M, _ = made()

    @jax.jit
    def run(hidden_MD):
        ce_M, pullback = jax.vjp(
            lambda h: cross_entropy.cross_entropy(h, head_DV, targets_M), hidden_MD
        )
        return ce_M, pullback(jnp.ones(TOKENS))[0]

    others = np.arange(TOKENS) != 9
    spoilt = run(hidden_MD.at[9].set(jnp.nan))
    for bad, good in zip(spoilt, run(hidden_MD), strict=True):
        assert np.isnan(bad[9]).all()
        np.testing.assert_array_equal(bad[others], good[others])


# Programs


def equations(jaxpr):
    """All equations of a jaxpr, those of the jaxprs inside them too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def made_by(fn, *args):
    """Every array that a program makes, and how many products of matrices it has."""
    arrays, products = [], 0
    for eqn in equations(jax.make_jaxpr(fn)(*args).jaxpr):
        arrays += [v.aval for v in eqn.outvars if hasattr(v.aval, "shape")]
        products += eqn.primitive.name == "dot_general"
    return arrays, products


def test_the_walk_sees_what_must_not_be_there():
    arrays, products = made_by(theirs, *made("bfloat16"))
    assert (TOKENS, VOCAB) in [a.shape for a in arrays]
    assert ((WIDTH, VOCAB), jnp.float32) in [(a.shape, a.dtype) for a in arrays]
    assert products == 2
    both = jax.grad(lambda *args: jnp.sum(oracle(*args)), argnums=(0, 1))
    arrays, products = made_by(both, *made()[:3])
    assert (WIDTH, VOCAB) in [a.shape for a in arrays]
    assert products == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_more_logits_than_a_chunk_and_nothing_the_size_of_the_head(rows, dtype):
    arrays, products = made_by(ours, *made(dtype))
    with_vocab = [a.shape for a in arrays if VOCAB in a.shape]
    assert (rows, VOCAB) in with_vocab
    # No copy of the head in another dtype or layout, no gradient of it.
    assert not [shape for shape in with_vocab if WIDTH in shape]
    assert max(map(math.prod, with_vocab)) == rows * VOCAB
    rest = [a.size for a in arrays if VOCAB not in a.shape]
    assert max(rest) <= TOKENS * WIDTH
    # Logits and slopes, once for the chunks and once for a remainder.
    assert products == (4 if TOKENS % rows else 2)


def test_without_a_gradient_there_is_one_product(rows):
    _, products = made_by(cross_entropy.cross_entropy, *made()[:3])
    assert products == (2 if TOKENS % rows else 1)


def test_what_waits_for_the_backward_pass_is_the_size_of_the_hidden_states(rows):
    hidden_MD, head_DV, targets_M, _ = made()

    def forward(hidden_MD):
        return jax.vjp(
            lambda h: cross_entropy.cross_entropy(h, head_DV, targets_M), hidden_MD
        )[1]

    kept = jax.tree.leaves(jax.eval_shape(forward, hidden_MD))
    assert [leaf.shape for leaf in kept] == [hidden_MD.shape]


def compiled(gradient, tokens, vocab):
    like = jax.ShapeDtypeStruct
    args = (
        like((tokens, WIDTH), "float32"),
        like((WIDTH, vocab), "float32"),
        like((tokens,), "int32"),
        like((tokens,), "float32"),
    )
    return jax.jit(gradient).lower(*args).compile()


def test_the_compiled_program_holds_chunks_only(monkeypatch):
    tokens, vocab, chunk = 257, 1009, 8
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk * vocab)

    def largest(program):
        shapes = re.findall(r"f32\[([\d,]+)\]", program.as_text())
        return max(math.prod(map(int, shape.split(","))) for shape in shapes)

    def temporary(program):
        return program.memory_analysis().temp_size_in_bytes

    whole, chunked = (compiled(fn, tokens, vocab) for fn in (theirs, ours))
    assert largest(whole) == tokens * vocab
    assert temporary(whole) >= 4 * tokens * vocab
    assert largest(chunked) == max(chunk * vocab, WIDTH * vocab)
    # Logits and slopes of the chunks and of the remainder, the head's other layout.
    assert temporary(chunked) < 4 * vocab * (4 * chunk + WIDTH)


# Rows

# Columns in a chunk: one chunk, five and a remainder, one for each column.
COLUMNS = (TOKENS, 4, 1)
LINES = 3


@pytest.fixture(scope="module", params=COLUMNS)
def columns(request):
    """Columns of `LINES` rows whose logits are held at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "CHUNK", LINES * request.param * VOCAB)
        jax.clear_caches()
        yield request.param
    jax.clear_caches()


def of_rows(fn):
    """A weighted sum of `fn`, and its gradients of hidden states and head."""

    def loss(hidden_BTD, head_DV, targets_BT, weights_BT):
        return jnp.sum(fn(hidden_BTD, head_DV, targets_BT) * weights_BT)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


ROW_FUNCTIONS = (cross_entropy.frozen_rows, cross_entropy.trained_rows)
optax_rows = of_rows(oracle)


@pytest.mark.parametrize("fn", ROW_FUNCTIONS)
def test_rows_have_optax_values_and_slopes(columns, fn):
    args = made(batch=(LINES,))
    ce_BT = jax.jit(fn)(*args[:3])
    assert (ce_BT.shape, ce_BT.dtype) == ((LINES, TOKENS), jnp.float32)
    close(ce_BT, jax.jit(oracle)(*args[:3]))
    loss, (dhidden_BTD, dhead_DV) = of_rows(fn)(*args)
    want_loss, (want_BTD, want_DV) = optax_rows(*args)
    both_close((loss, dhidden_BTD), (want_loss, want_BTD))
    if fn is cross_entropy.trained_rows:
        close(dhead_DV, want_DV)
        assert np.abs(want_DV).max() > 0.1
    else:
        np.testing.assert_array_equal(dhead_DV, np.zeros_like(want_DV))


def test_a_trained_head_in_bfloat16_loses_no_more_than_its_roundings(columns):
    hidden_BTD, head_DV, targets_BT, weights_BT = args = made(
        "bfloat16", batch=(LINES,)
    )
    loss, (dhidden_BTD, dhead_DV) = of_rows(cross_entropy.trained_rows)(*args)
    assert dhidden_BTD.dtype == dhead_DV.dtype == jnp.bfloat16
    wide = (hidden_BTD.astype("float32"), head_DV.astype("float32"))
    want_loss, (_, want_DV) = optax_rows(*wide, targets_BT, weights_BT)
    close(loss, want_loss)
    # Two roundings to bfloat16, by 2^-8 at most: of each slope, and of their sum over
    # all chunks, which is float32 until its end.
    slope_BTV = jax.nn.softmax(wide[0] @ wide[1]) - jax.nn.one_hot(targets_BT, VOCAB)
    size_BTV = jnp.abs(slope_BTV) * weights_BT[..., None]
    size_DV = jnp.einsum("btd,btv->dv", jnp.abs(wide[0]), size_BTV)
    error_DV = jnp.abs(dhead_DV.astype("float32") - want_DV)
    assert bool(jnp.all(error_DV <= 2.02 * 2.0**-8 * size_DV))


@pytest.mark.parametrize("fn", ROW_FUNCTIONS)
def test_rows_hold_a_chunk_of_logits(columns, fn):
    arrays, _ = made_by(of_rows(fn), *made(batch=(LINES,)))
    held = [a.shape for a in arrays if VOCAB in a.shape and WIDTH not in a.shape]
    assert max(map(math.prod, held)) == LINES * columns * VOCAB
