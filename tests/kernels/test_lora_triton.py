"""The low-rank products that Triton compiles, interpreted, against the formula."""

import functools

import jax
import jax.numpy as jnp
import lora_oracle as oracle
import numpy as np
import pytest

from seal_kernels.lora_matmul import api, dispatch, triton_gpu

# Adapters, rank, input and output width: small ones; several blocks of each; a sum over
# columns that several programs share.
SMALL, BLOCKS, SHARED = (5, 16, 48, 80), (3, 192, 160, 384), (4, 16, 1024, 64)
OUTSIDE = [3, -1, 0, 0, 5, -5, 1, 4, 2**31 - 1, 3]


@pytest.fixture
def interpreted(monkeypatch):
    """`implementation="xla"`, which runs anywhere, is Triton's."""
    forward, backward = (
        functools.partial(run, interpret=True)
        for run in (triton_gpu.forward, triton_gpu.backward)
    )
    monkeypatch.setattr(dispatch.xla, "forward", forward)
    monkeypatch.setattr(dispatch.xla, "backward", backward)
    return functools.partial(api.lora_matmul_packed, implementation="xla")


def runs(count, rows, seed):
    """Adapters of rows in runs of any length, as a plan lays lines; some are none's."""
    rng, slots = np.random.default_rng(seed), []
    while len(slots) < rows:
        slots += [int(rng.integers(-1, count))] * int(rng.integers(1, 40))
    return slots[:rows]


CASES = [
    (SMALL, 1, [2, 0, 1, 4, 3] * 30),  # A block has all adapters.
    (SMALL, 4, OUTSIDE * 10),
    (SMALL, 1, [-1, 5]),
    (SMALL, 7, [3]),
    (BLOCKS, 1, runs(3, 150, seed=1)),
    (BLOCKS, 8, runs(3, 20, seed=2)),
    (SHARED, 2, runs(4, 96, seed=3)),
]


@pytest.mark.parametrize(("sizes", "tile", "slots"), CASES)
def test_packed_is_the_formula_of_each_row(interpreted, sizes, tile, slots):
    s, r, d, f = sizes
    rows = tile * len(slots)
    x, w, a, b, weights = oracle.drawn(
        tile, (rows, d), (d, f), (s, r, d), (s, r, f), (rows, f)
    )
    slots = np.array(slots, np.int32)
    want = oracle.in_float64(
        lambda *args: oracle.value_and_grads(oracle.plain_packed, args[-1])(*args[:-1]),
        *(x, w, a, b, slots, weights),
    )
    got = jax.jit(oracle.value_and_grads(interpreted, weights))(x, w, a, b, slots)
    assert [z.dtype for z in got] == [jnp.float32] * 4
    oracle.assert_near(got, want, rtol=1e-5)
    unused = ~np.isin(np.arange(s), slots)
    assert not np.asarray(got[2])[unused].any()
    assert not np.asarray(got[3])[unused].any()


def test_a_sum_over_columns_is_shared_among_programs():
    assert triton_gpu._shares(16, 2) == 16
    assert triton_gpu._shares(7, 64) == 7
    assert triton_gpu._shares(56, 32) == 8
    assert triton_gpu._shares(56, 1000) == 1


@pytest.mark.parametrize("broken", [0, 2, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_with_its_adapter(interpreted, broken, bad):
    s, r, d, f = SMALL
    # Rows of all adapters in one block.
    slots = np.array([0, 2, 1, 0, 3, 4, 4, -1] * 4, np.int32)
    rows = 2 * len(slots)
    x, w, a, b, weights = oracle.drawn(
        6, (rows, d), (d, f), (s, r, d), (s, r, f), (rows, f)
    )
    run = jax.jit(oracle.value_and_grads(interpreted, weights))
    sound = run(x, w, a, b, slots)
    theirs, keep = np.repeat(slots == broken, 2), np.arange(s) != broken
    for got in (
        run(x, w, a.at[broken].set(bad), b, slots),
        run(x, w, a, b.at[broken, 1].set(bad), slots),
        run(jnp.where(theirs[:, None], bad, x), w, a, b, slots),
    ):
        for one, other in zip(got[:2], sound[:2], strict=True):
            np.testing.assert_array_equal(one[~theirs], other[~theirs])
        for one, other in zip(got[2:], sound[2:], strict=True):
            np.testing.assert_array_equal(one[keep], other[keep])
        assert not np.isfinite(np.asarray(got[0])[theirs]).any()
        slopes = [np.asarray(slope)[broken] for slope in got[2:]]
        assert not all(np.isfinite(slope).all() for slope in slopes)


def test_in_bfloat16_sums_are_in_float32(interpreted):
    """Within rounding of each operand and result, and of what lies between them."""
    s, r, d, f = SHARED
    slots = np.array(runs(s, 128, seed=4), np.int32)
    x, w, a, b, weights = oracle.drawn(
        *(5, (128, d), (d, f), (s, r, d), (s, r, f), (128, f)), dtype=jnp.bfloat16
    )
    want = oracle.in_float64(
        lambda *args: oracle.value_and_grads(oracle.plain_packed, args[-1])(*args[:-1]),
        *(x, w, a, b, slots, weights),
    )
    got = jax.jit(oracle.value_and_grads(interpreted, weights))(x, w, a, b, slots)
    assert [z.dtype for z in got] == [jnp.bfloat16] * 4
    oracle.assert_near(got, want, rtol=0.01)
    # Adapters in float32 are read as they lie, and have slopes in float32.
    wide = jax.jit(oracle.value_and_grads(interpreted, weights))(
        x, w, a.astype(jnp.float32), b.astype(jnp.float32), slots
    )
    assert [z.dtype.name for z in wide] == ["bfloat16"] * 2 + ["float32"] * 2
    for one, other in zip(wide, got, strict=True):
        np.testing.assert_array_equal(one.astype(jnp.bfloat16), other)


def test_numbers_that_no_kernel_adds_are_refused():
    shapes = (4, 16), (16, 16), (2, 16, 16), (2, 16, 16)
    x, w, a, b = map(jnp.zeros, shapes)
    with jax.enable_x64(True), pytest.raises(NotImplementedError, match="float64"):
        wide = [jnp.zeros(z.shape, jnp.float64) for z in (x, w, a, b)]
        triton_gpu.forward(*wide, jnp.zeros(4, jnp.int32), interpret=True)
    with pytest.raises(NotImplementedError, match="names no GPU"):
        triton_gpu.forward(x, w, a, b, jnp.zeros(4, jnp.int32))


@pytest.mark.parametrize(
    ("rows", "sizes", "message"),
    [
        (4, (2, 8, 16, 16), r"\(8, 16, 16\) must be multiples of 16"),
        (4, (2, 16, 24, 16), r"\(16, 24, 16\) must be multiples of 16"),
        (4, (2, 16, 16, 40), r"\(16, 16, 40\) must be multiples of 16"),
        (0, (2, 16, 16, 16), "no rows or no adapters"),
        (4, (0, 16, 16, 16), "no rows or no adapters"),
        (4, (2, 0, 16, 16), "no rows or no adapters"),
    ],
)
def test_sizes_that_would_have_adapters_copied_are_refused(rows, sizes, message):
    s, r, d, f = sizes
    x, w, a, b = (
        jnp.zeros(shape) for shape in ((rows, d), (d, f), (s, r, d), (s, r, f))
    )
    slots = jnp.zeros(4, jnp.int32)
    u, dy = jnp.zeros((rows, r)), jnp.zeros((rows, f))
    with pytest.raises(NotImplementedError, match=message):
        triton_gpu.forward(x, w, a, b, slots, interpret=True)
    with pytest.raises(NotImplementedError, match=message):
        triton_gpu.backward(dy, x, u, w, a, b, slots, interpret=True)
