"""One contract for every implementation of attention over key ranges."""

import functools
import re
import types

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_kernels.attention import (
    api,
    dispatch,
    guard,
    reference,
    splash_tpu,
    triton_gpu,
    xla,
)

# Lines of a few tokens and of many, with pads behind them and without; what is left of
# a row sees nothing. 150 is a multiple of no block.
ROWS = [[(70, 3), (1, 0), (9, 2), (40, 0)], [(2, 0), (130, 8)], []]
WIDTH = 150
N, K, H = 4, 2, 8


def in_sizes(direct, block):
    sizes = xla.Sizes(direct, block)
    return types.SimpleNamespace(
        forward=functools.partial(xla.forward, sizes=sizes),
        backward=functools.partial(xla.backward, sizes=sizes),
    )


def interpreted(module):
    return types.SimpleNamespace(
        forward=functools.partial(module.forward, interpret=True),
        backward=functools.partial(module.backward, interpret=True),
    )


IMPLEMENTATIONS = {
    "reference": reference,
    "direct": in_sizes(direct=WIDTH, block=0),
    "blocks": in_sizes(direct=0, block=32),
    "splash": interpreted(splash_tpu),
    "triton": interpreted(triton_gpu),
}
XLA = ("direct", "blocks")


@pytest.fixture
def through(monkeypatch):
    """The door, with the implementation of that name behind it."""

    def choose(name):
        def run(implementation, what, operands, *, causal):
            return getattr(IMPLEMENTATIONS[name], what)(*operands)

        monkeypatch.setattr(dispatch, "run", run)
        return api.attention

    return choose


def operands(dtype=jnp.float32, rows=ROWS):
    q, k, v, weights = oracle.drawn(3, (len(rows), WIDTH), N, K, H, dtype)
    return q, k, v, *oracle.ranges(rows, WIDTH), weights


def wanted(*args):
    return oracle.in_float64(oracle.value_and_grads(oracle.plain), *args)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_values_gradients_and_isolation(name, through):
    """One program: the formula; and then with what is not finite in one line."""
    run = jax.jit(oracle.value_and_grads(through(name)))
    q, k, v, first, end, weights = args = operands()
    clean = run(*args)
    assert [z.dtype for z in clean] == [jnp.float32] * 4
    oracle.assert_near(clean, wanted(*args))
    # A query of nothing is zero and moves nothing, and nothing moves what none sees.
    empty = np.asarray(end <= first)
    assert empty.sum() > WIDTH
    assert not np.asarray(clean[0])[empty].any()
    assert not any(np.asarray(dz)[empty].any() for dz in clean[1:])

    # Line 2 of row 0, and line 0 of row 1: a query, a key and a value, all of them too
    # large, and a gradient that is not finite.
    line = oracle.line_of(ROWS, WIDTH)
    sick = np.zeros((len(ROWS), WIDTH), bool)
    sick[0], sick[1] = line[0] == 2, line[1] == 0
    at = np.flatnonzero(sick[0])
    q = q.at[0, at[0]].set(jnp.nan)
    k = k.at[0, at[1], 0].set(-jnp.inf)
    v = v.at[0, at[2], 1, 3].set(jnp.nan)
    q, k, v = (x.at[1, :2].set(3e38) for x in (q, k, v))
    weights = weights.at[0, at[4]].set(jnp.inf)
    marked = np.zeros_like(sick)
    marked[0, at[:3]] = marked[1, :2] = True
    dirty = run(q, k, v, first, end, weights)
    for before, after in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(np.asarray(before)[~sick], after[~sick])
    is_nan = np.isnan(dirty[0]).all((-2, -1))
    np.testing.assert_array_equal(is_nan, marked)
    assert all(np.isfinite(dz).all() for dz in dirty[1:])


# Two roundings to bfloat16, of the weights and of the result.
@pytest.mark.parametrize("name", [*XLA, "triton"])
def test_bfloat16(name, through):
    args = operands(jnp.bfloat16)
    got = jax.jit(oracle.value_and_grads(through(name)))(*args)
    assert [z.dtype for z in got] == [jnp.bfloat16] * 4
    oracle.assert_near(got, wanted(*args), rtol=2 * 2.0**-8)


@pytest.mark.parametrize("name", XLA)
def test_float64(name, through):
    args = operands()
    got = oracle.in_float64(oracle.value_and_grads(through(name)), *args)
    assert [z.dtype for z in got] == [np.float64] * 4
    oracle.assert_near(got, wanted(*args), rtol=1e-12)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_causal_is_a_range_that_ends_at_its_query(name, through):
    q, k, v, first, end, weights = operands()
    later = np.minimum(end + 5, WIDTH)
    own = np.broadcast_to(np.arange(WIDTH), first.shape)
    causal = functools.partial(through(name), causal=True)
    got = jax.jit(oracle.value_and_grads(causal))(q, k, v, first, later, weights)
    want = wanted(q, k, v, first, np.minimum(later, own + 1), weights)
    oracle.assert_near(got, want)


def test_ranges_need_not_be_lines(through):
    """A window, a range that looks ahead, ends beyond the row."""
    q, k, v, first, end, weights = operands()
    at = np.arange(WIDTH, dtype=np.int32)
    first[0], end[0] = at - 20, at + 1
    first[1], end[1] = 60, 100
    first[2], end[2] = -5, WIDTH + 7
    args = q, k, v, first, end, weights
    got = jax.jit(oracle.value_and_grads(through("blocks")))(*args)
    oracle.assert_near(got, wanted(*args))


@pytest.mark.parametrize("name", XLA)
def test_vmap_nested_and_not_of_everything(name, through):
    q, k, v, first, end, weights = operands()
    qs = jnp.stack([q, 2 * q, -q]).reshape(3, 1, *q.shape)
    run = oracle.value_and_grads(through(name))
    axes = 0, None, None, None, None, None
    got = jax.jit(jax.vmap(jax.vmap(run, axes), axes))(qs, k, v, first, end, weights)
    for i in range(3):
        want = wanted(qs[i, 0], k, v, first, end, weights)
        oracle.assert_near([z[i, 0] for z in got], want)


@pytest.mark.parametrize("name", XLA)
def test_grad_under_scan_remat_and_vmap_of_rows(name, through):
    """The shapes of use: a checkpointed layer in a loop, rows as elements of vmap."""
    attend = through(name)
    q, k, v, first, end, weights = operands()

    def loss(q, k, v):
        layer = jax.checkpoint(lambda x, _: (attend(x, k, v, first, end), None))
        y, _ = jax.lax.scan(layer, q, None, length=2)
        return jnp.sum(y * weights)

    def row_loss(q, k, v, first, end, weights):
        y = q[None]
        for _ in range(2):
            y = attend(y, k[None], v[None], first[None], end[None])
        return jnp.sum(y[0] * weights)

    got = jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)
    rows = jax.vmap(jax.grad(row_loss, (0, 1, 2)))
    oracle.assert_near(jax.jit(rows)(q, k, v, first, end, weights), got)


SKIPPING = {
    "blocks": in_sizes(direct=0, block=32),
    "triton": interpreted(triton_gpu),
}


@pytest.mark.parametrize("name", SKIPPING)
def test_blocks_that_nobody_sees_are_not_looked_at(name):
    """What lies in them is NaN, without the guard that takes it out."""
    block = {"blocks": 32, "triton": triton_gpu.BLOCK}[name]
    rows = [[(block - 2, 2), (block, 0), (2 * block, 0)]]
    first, end = map(jnp.asarray, oracle.ranges(rows, 4 * block))
    q, k, v, _ = oracle.drawn(5, (1, 4 * block), N, K, H)
    seen, hidden = slice(block, 2 * block), np.r_[:block, 2 * block : 4 * block]
    run, back = (jax.jit(f) for f in vars(SKIPPING[name]).values())
    dy = jnp.zeros_like(q).at[:, seen].set(1)
    clean, lse = run(q, k, v, first, end)
    grads = back(dy, q, k, v, clean, lse, first, end)
    q, k, v = (x.at[:, hidden].set(jnp.nan) for x in (q, k, v))
    dirty, lse_of_dirty = run(q, k, v, first, end)
    np.testing.assert_array_equal(clean[:, seen], dirty[:, seen])
    dirty_grads = back(dy, q, k, v, dirty, lse_of_dirty, first, end)
    for before, after in zip(grads, dirty_grads, strict=True):
        np.testing.assert_array_equal(before[:, seen], after[:, seen])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_seven_heads_share_a_key_head_and_ranges_look_ahead(dtype):
    """By Triton's kernels; a head of 24 numbers is padded, and so is the row."""
    q, k, v, weights = oracle.drawn(3, (2, 150), 7, 1, 24, dtype)
    draw = np.random.default_rng(0)
    first = jnp.asarray(draw.integers(0, 150, (2, 150)), jnp.int32)
    end = first + jnp.asarray(draw.integers(0, 90, (2, 150)), jnp.int32)
    first, end = guard.ranges(first, end)
    kernels = interpreted(triton_gpu)
    y, lse = kernels.forward(q, k, v, first, end)
    got = y, *kernels.backward(weights, q, k, v, y, lse, first, end)
    y, lse = reference.forward(q, k, v, first, end)
    want = y, *reference.backward(weights, q, k, v, y, lse, first, end)
    assert [z.dtype for z in got] == [dtype] * 4
    rtol = 3e-6 if dtype == jnp.float32 else 4 * 2.0**-11
    oracle.assert_near(got, [np.asarray(z, np.float64) for z in want], rtol=rtol)


def test_a_block_of_keys_goes_through_the_queries_that_see_it():
    """From the first block of queries to the last, nothing where there is none."""
    block = triton_gpu.BLOCK
    lines = [(block // 2, 0), (3 * block, 0), (5, 2)]
    first, end = oracle.ranges([lines, []], 5 * block)
    low, high = triton_gpu._seen_by(*guard.ranges(jnp.asarray(first), jnp.asarray(end)))
    seen = (np.arange(5 * block) >= first[..., None]) & (
        np.arange(5 * block) < end[..., None]
    )
    for row in range(2):
        for j in range(5):
            by = seen[row][:, j * block : (j + 1) * block].any(1).reshape(5, block)
            wanted = np.flatnonzero(by.any(1))
            looked_at = range(int(low[row, j]), int(high[row, j]))
            assert set(wanted) <= set(looked_at)
            if row == 0 and len(wanted):
                assert list(looked_at) == list(range(wanted[0], wanted[-1] + 1))


def test_scores_of_long_rows_are_never_whole():
    """Neither pass holds an array with the row's length twice; the formula does."""
    t, sizes = 1024, (N, K, K)
    qkv = [jax.ShapeDtypeStruct((2, t, n, H), jnp.float32) for n in sizes]
    bound = jax.ShapeDtypeStruct((2, t), jnp.int32)

    def has_scores(op):
        run = jax.jit(oracle.value_and_grads(op))
        text = run.lower(*qkv, bound, bound, qkv[0]).compile().as_text()
        shapes = re.findall(r"[a-z]+\d*\[([\d,]+)\]", text)
        return any(
            sum(int(size) >= t for size in shape.split(",")) > 1 for shape in shapes
        )

    assert not has_scores(api.attention)
    assert has_scores(oracle.plain)
