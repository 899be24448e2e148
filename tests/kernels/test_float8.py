"""A base in eight bits against numpy and ml_dtypes."""

import jax
import jax.numpy as jnp
import lora_oracle
import ml_dtypes
import numpy as np
import pytest

from seal_kernels import float8
from seal_kernels.lora_matmul import api

M, D, F = 24, 48, 32
TYPES = {float8.WEIGHTS: 7, jnp.float8_e5m2: 14}


def oracle_rows(x, dtype=ml_dtypes.float8_e4m3fn, top=7):
    """Rows in eight bits, as float64, and their scales: by logarithms."""
    x = np.asarray(x, np.float64)
    largest = np.abs(x).max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        scale = 2.0 ** np.maximum(np.floor(np.log2(largest)) - top, -126)
    eight = (x / scale).astype(np.float32).astype(dtype)
    return eight.astype(np.float64), scale


def drawn(seed, *shape, spread=2.0, dtype=jnp.float32):
    """Numbers of many sizes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * np.exp(spread * rng.normal(size=shape))
    return jnp.asarray(x, dtype)


def oracle_forward(x, w_DF):
    x8, scale = oracle_rows(x)
    w8, scale_w = oracle_rows(np.asarray(w_DF, np.float64).T)
    return scale * (x8 @ w8.T) * scale_w.T


def oracle_slope(dy, w_DF):
    w8, scale_w = oracle_rows(np.asarray(w_DF, np.float64).T)
    g8, scale = oracle_rows(np.asarray(dy, np.float64) * scale_w.T)
    return scale * (g8 @ w8)


@pytest.mark.parametrize("of", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", TYPES)
def test_rows_are_rounded_as_ml_dtypes_rounds_them(dtype, of):
    x = drawn(0, 300, 64, spread=4.0, dtype=of)
    got, scale = jax.jit(float8.quantised, static_argnums=1)(x, dtype)
    want, scale_want = oracle_rows(x, np.dtype(dtype), TYPES[dtype])
    assert got.dtype == dtype
    np.testing.assert_array_equal(np.asarray(scale), scale_want)
    np.testing.assert_array_equal(np.asarray(got, np.float64), want)
    # The largest of a row lies in one binade, below the largest number of the type.
    largest, lowest = np.abs(want).max(1), 2 ** TYPES[dtype]
    assert lowest <= largest.min() and largest.max() <= 2 * lowest


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 2e-6), ("bfloat16", 2.0**-8)])
@pytest.mark.parametrize("lead", [(M,), (2, 3, 4)])
def test_both_products_are_those_of_the_rounded_numbers(dtype, rtol, lead):
    x, w = drawn(1, *lead, D, dtype=dtype), drawn(2, D, F, dtype=dtype)
    dy, w8 = drawn(3, *lead, F, dtype=dtype), float8.weights(w)
    y, dx = jax.jit(float8.forward)(x, w8), jax.jit(float8.slope)(dy, w8)
    assert y.dtype == dx.dtype == dtype
    for got, want in [(y, oracle_forward(x, w)), (dx, oracle_slope(dy, w))]:
        got = np.asarray(got, np.float64)
        # Of a row's own largest: rows have scales of their own.
        largest = np.abs(want).max(-1, keepdims=True)
        np.testing.assert_allclose(got / largest, want / largest, atol=rtol, rtol=0)


def test_the_rounding_is_that_of_three_bits():
    w = drawn(4, D, F, spread=1.0)
    off = np.abs(np.asarray(float8.wide(float8.weights(w))) - w)
    largest = np.abs(w).max(0, keepdims=True)
    assert np.all(off <= 2.0**-4 * np.abs(w) + 2.0**-16 * largest)
    assert off.max() > 0
    x = drawn(5, M, D, spread=1.0)
    y, plain = float8.forward(x, float8.weights(w)), np.asarray(x @ w)
    off = np.linalg.norm(y - plain) / np.linalg.norm(plain)
    assert 0.01 < off < 0.06


def test_the_derivative_by_hand_is_the_slope():
    x, w, dy = drawn(6, M, D), float8.weights(drawn(7, D, F)), drawn(8, M, F)
    y, back = jax.vjp(lambda x: float8.matmul(x, w), x)
    np.testing.assert_array_equal(y, float8.forward(x, w))
    np.testing.assert_array_equal(back(dy)[0], float8.slope(dy, w))
    whole = jax.jit(jax.grad(lambda x, w: jnp.sum(float8.matmul(x, w) * dy)))(x, w)
    np.testing.assert_array_equal(whole, jax.jit(float8.slope)(dy, w))


def test_a_transposed_copy_changes_no_bit():
    dy, w = drawn(9, M, F), float8.weights(drawn(10, D, F))
    turned = float8.turned(w)
    assert turned.w_DF is not None and turned.w_DF.shape == (D, F) == turned.shape
    np.testing.assert_array_equal(float8.slope(dy, turned), float8.slope(dy, w))


def test_a_plain_weight_is_multiplied_as_ever():
    x, w = drawn(11, M, D), drawn(12, D, F)
    np.testing.assert_array_equal(float8.matmul(x, w), x @ w)
    _, dw = jax.grad(lambda x, w: jnp.sum(float8.matmul(x, w)), (0, 1))(x, w)
    np.testing.assert_allclose(dw, np.outer(x.sum(0), np.ones(F)), rtol=1e-5, atol=1e-5)


PRODUCTS = {
    "forward": (jax.jit(float8.forward), D, oracle_forward),
    "slope": (jax.jit(float8.slope), F, oracle_slope),
}


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, 0.0])
def test_a_row_changes_no_bit_of_another(product, bad):
    run, width, _ = PRODUCTS[product]
    w, x = float8.weights(drawn(13, D, F)), drawn(14, M, width)
    sound = np.asarray(run(x, w))
    for at in (x.at[5, 3].set(bad), x.at[5].set(bad)):
        got = np.asarray(run(at, w))
        np.testing.assert_array_equal(np.delete(got, 5, 0), np.delete(sound, 5, 0))
        if not np.isfinite(bad):
            assert np.isnan(got[5]).all()


@pytest.mark.parametrize("product", PRODUCTS)
def test_rows_of_zeros_and_rows_of_any_size(product):
    run, width, want = PRODUCTS[product]
    w_DF = drawn(15, D, F, spread=0.5)
    w, x = float8.weights(w_DF), drawn(16, M, width, spread=0.5)
    assert not np.asarray(run(jnp.zeros((2, width)), w)).any()
    for size in (1e-30, 1e-5, 1e30):
        got = np.asarray(run(x * size, w), np.float64)
        expected = want(np.asarray(x * size), w_DF)
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, expected, atol=3e-6 * np.abs(expected).max())
    # A column of zeros, and one that is far smaller than the rest.
    w_DF = w_DF.at[:, 0].set(0.0).at[:, 1].multiply(1e-12)
    got = np.asarray(float8.wide(float8.weights(w_DF)))
    assert not got[:, 0].any()
    np.testing.assert_allclose(got[:, 1], w_DF[:, 1], rtol=2.0**-4, atol=1e-16)


# Under adapters

S, R = 3, 2
ADAPTED = [(S, R, D), (S, R, F)]


@pytest.mark.parametrize("implementation", ["auto", "xla", "dense", "reference"])
def test_the_low_rank_term_takes_the_rows_as_they_are(implementation):
    """What it adds, and its adapters' gradients, are those on a plain base."""
    x, w_DF, weights = drawn(17, M, D), drawn(18, D, F), drawn(19, M, F, spread=0.5)
    a, b = lora_oracle.drawn(20, *ADAPTED)
    slots = jnp.array([2, 0, -1, 1], jnp.int32)
    op = lambda *args: api.lora_matmul_packed(*args, implementation=implementation)
    run = jax.jit(lora_oracle.value_and_grads(op, weights))
    eight = float8.weights(w_DF)
    y, dx, da, db = run(x, eight, a, b, slots)
    zero, low_dx, low_da, low_db = run(x, jnp.zeros_like(w_DF), a, b, slots)
    base, slope = oracle_forward(x, w_DF), oracle_slope(weights, w_DF)
    lora_oracle.assert_near([y, dx], [base + zero, slope + low_dx], rtol=3e-6)
    lora_oracle.assert_near([da, db], [low_da, low_db])


@pytest.mark.parametrize("bad", [np.nan, 1e30])
def test_an_adapter_changes_no_bit_of_another(bad):
    x, w = drawn(21, M, D), float8.weights(drawn(22, D, F))
    a, b = lora_oracle.drawn(23, *ADAPTED)
    slots = np.array([0, 1, 2, 0], np.int32)
    run = jax.jit(lora_oracle.value_and_grads(api.lora_matmul_packed, drawn(24, M, F)))
    sound = run(x, w, a, b, slots)
    got = run(x, w, a.at[1].set(bad), b.at[1].set(bad), slots)
    theirs = np.repeat(slots == 1, M // 4)
    for one, other in zip(got[:2], sound[:2], strict=True):
        np.testing.assert_array_equal(one[~theirs], other[~theirs])
    for one, other in zip(got[2:], sound[2:], strict=True):
        np.testing.assert_array_equal(one[np.array([0, 2])], other[np.array([0, 2])])


def test_many_under_vmap_are_each_alone():
    x, w = drawn(25, S, 4, D), float8.weights(drawn(26, D, F))
    a, b = lora_oracle.drawn(27, *ADAPTED)
    weights = drawn(28, 4, F)
    run = lora_oracle.value_and_grads(api.lora_matmul, weights)
    got = jax.jit(jax.vmap(run, (0, None, 0, 0)))(x, w, a, b)
    alone = [jax.jit(run)(x[i], w, a[i], b[i]) for i in range(S)]
    want = [np.stack(z) for z in zip(*alone, strict=True)]
    lora_oracle.assert_near(got, want)
    # Bases that differ as well.
    two = jax.tree.map(lambda z: jnp.stack([z, z]), w)
    both = jax.jit(jax.vmap(jax.vmap(run, (0, None, 0, 0)), (None, 0, None, None)))
    for one in (jax.tree.map(lambda z, i=i: z[i], both(x, two, a, b)) for i in (0, 1)):
        lora_oracle.assert_near(one, want)


def test_a_kernel_that_knows_no_eight_bits_is_refused_by_name():
    x, w = drawn(29, M, D), float8.weights(drawn(30, D, F))
    a, b = lora_oracle.drawn(31, *ADAPTED)
    slots = jnp.zeros(1, jnp.int32)
    op = lambda *args: api.lora_matmul_packed(*args, implementation="mosaic_gpu")
    with pytest.raises(NotImplementedError, match="float8"):
        jax.jit(op).trace(x, w, a, b, slots).lower(lowering_platforms=("cuda",))
    with pytest.raises(ValueError, match="with one D"):
        api.lora_matmul_packed(x[:, 1:], w, a, b, slots)
