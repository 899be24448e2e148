"""The Hopper kernels, interpreted on the CPU, against the formula in float64."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from seal_kernels.lora_matmul import api, cases, mosaic_gpu
from seal_kernels.lora_matmul.mosaic_gpu_config import SHARED_BYTES, Config
from seal_kernels.lora_matmul.mosaic_gpu_core import core
from seal_kernels.lora_matmul.mosaic_gpu_side import products, products_and_sums, sums

S = 3
SMALL = Config(tile_m=64, tile_n=64, steps=3)

# Relative error of one rounding to bfloat16, which has 8 significant bits.
ROUNDING = 2.0**-8

INTERPRET = plgpu.InterpretGPUParams(detect_races=True)

# Tile, slots: runs, a tile alone, none; the last block of 64 rows is not full.
PACKED = {
    "tile16": (16, [0, 0, 2, 1, 1, S]),
    "tile8": (8, [0, 1, 1, 1, S, 2, 0, 0, 0]),
    "tile24": (24, [1, 1, 0, S]),
    "dense": (64, [0, 1, 2]),
    "none": (32, [S, S]),
}


def drawn(seed, *shapes, dtype=jnp.bfloat16):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def wide(*arrays):
    return [np.asarray(z).astype(np.float64) for z in arrays]


def of_rows(stack, slots, tile):
    """The adapter of each row, zeros for none."""
    valid = (np.asarray(slots) >= 0) & (np.asarray(slots) < len(stack))
    picked = stack[np.clip(slots, 0, len(stack) - 1)] * valid[:, None, None]
    return np.repeat(picked, tile, axis=0)


def summed(s, z, slots, tile, count=S):
    slot_M = np.repeat(slots, tile)
    return np.stack([s[slot_M == k].T @ z[slot_M == k] for k in range(count)])


def assert_rounded(got, want):
    """Equal but for one rounding to bfloat16, and float32's in the sum before it."""
    assert got.dtype == jnp.bfloat16
    (got,) = wide(got)
    assert (np.abs(got - want) <= ROUNDING * np.abs(want) + 1e-5).all()


@pytest.mark.parametrize(
    ("name", "rank", "transposed"),
    [
        ("tile16", 16, False),
        ("tile16", 32, True),
        ("tile8", 64, False),
        ("tile24", 16, True),
        ("dense", 32, False),
    ],
)
def test_core_is_the_formula(name, rank, transposed):
    tile, slots = PACKED[name]
    rows, depth, columns = tile * len(slots), 256, 128
    w_shape = (columns, depth) if transposed else (depth, columns)
    shapes = (rows, depth), w_shape, (rows, rank), (S, rank, columns)
    x, w, u, b = drawn(rank, *shapes)
    got = core(
        *(x, w, u, b, jnp.array(slots)),
        transposed=transposed,
        config=SMALL,
        sms=2,
        interpret=INTERPRET,
    )
    x, w, u, b = wide(x, w, u, b)
    low = np.einsum("mr,mrf->mf", u, of_rows(b, slots, tile))
    assert_rounded(got, x @ (w.T if transposed else w) + low)


CLUSTER = """
import dataclasses, test_mosaic_gpu as tests
tests.SMALL = dataclasses.replace(tests.SMALL, cluster=2)
tests.test_core_is_the_formula("tile8", 16, False)
"""


def test_clusters(root, child_env):
    """Two blocks share w. The interpreter blocks a thread for each warpgroup, of which
    a cluster has six; XLA has as many threads as cores, or as NPROC says."""
    env = {**child_env, "NPROC": "16"}
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER],
        env=env,
        cwd=root / "tests",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", PACKED)
def test_side_is_the_formula(name):
    assert_side(*PACKED[name], rank=16, columns=128)


def test_side_adds_up_long_adapters():
    """More groups of rows than there are copies under way, and blocks of columns."""
    assert_side(16, [0] * 11 + [2] + [0] * 3, rank=32, columns=384)


def assert_side(tile, slots, rank, columns):
    rows, slots = tile * len(slots), jnp.array(slots)
    z, stack, s = drawn(5, (rows, columns), (S, rank, columns), (rows, rank))
    p, total = products_and_sums(z, slots, stack, s, interpret=INTERPRET)
    z, stack, s = wide(z, stack, s)
    assert_rounded(p, np.einsum("mc,mrc->mr", z, of_rows(stack, slots, tile)))
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, summed(s, z, slots, tile), atol=1e-4)


def test_side_gives_one_of_both():
    tile, slots = PACKED["tile16"]
    rows, slots = tile * len(slots), jnp.array(slots)
    z, stack, s = drawn(5, (rows, 128), (S, 16, 128), (rows, 16))
    p, total = products_and_sums(z, slots, stack, s, interpret=INTERPRET)
    np.testing.assert_array_equal(products(z, slots, stack, interpret=INTERPRET), p)
    only = sums(z, slots, s, slots=S, interpret=INTERPRET)
    np.testing.assert_array_equal(only, total)


@jax.jit
def run_both(dy, x, w, a, b, slots):
    y, u = mosaic_gpu.forward(x, w, a, b, slots, interpret=True)
    return y, u, *mosaic_gpu.backward(dy, x, u, w, a, b, slots, interpret=True)


def operands():
    """Of one shape, so that both tests with them compile once."""
    slots, D, F, rank = [1, 1, -1, 2, S, 0], 128, 256, 8
    dy, x = drawn(10, (96, F), (96, D))
    (w,) = drawn(11, (D, F))
    a, b = drawn(12, (S, rank, D), (S, rank, F), dtype=jnp.float32)
    return dy, x, w, a, b, jnp.array(slots)


def test_forward_and_backward_are_the_formula():
    dy, x, w, a, b, slots = operands()
    results = run_both(dy, x, w, a, b, slots)
    types = [z.dtype for z in results]
    assert types == [jnp.bfloat16] * 3 + [jnp.float32] * 2
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    dy, x, w, a, b = wide(dy, x, w, a, b)
    a_M, b_M = of_rows(a, slots, 16), of_rows(b, slots, 16)
    u = np.einsum("md,mrd->mr", x, a_M)
    v = np.einsum("mf,mrf->mr", dy, b_M)
    wanted = (
        x @ w + np.einsum("mr,mrf->mf", u, b_M),
        u,
        dy @ w.T + np.einsum("mr,mrd->md", v, a_M),
        summed(v, x, slots, 16),
        summed(u, dy, slots, 16),
    )
    for got, want in zip(wide(*results), wanted, strict=True):
        # u or v, and then the result, are rounded to bfloat16; the formula rounds none.
        atol = 2 * ROUNDING * np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=atol)


def test_nan_stays_in_its_adapter():
    dy, x, w, a, b, slots = operands()
    clean = run_both(dy, x, w, a, b, slots)
    a, b = a.at[1].set(jnp.nan), b.at[1].set(jnp.nan)
    dirty = run_both(dy, x, w, a, b, slots)
    others_M, others_S = np.repeat(slots != 1, 16), np.arange(S) != 1
    for one, other in zip(clean, dirty, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        keep = others_M if len(one) == len(others_M) else others_S
        assert np.isnan(other[~keep].astype(np.float32)).any()
        np.testing.assert_array_equal(one[keep], other[keep])


REFUSED = {
    "x is float32": {"dtype": jnp.float32},
    "a tile of 4 rows": {"tile": 4},
    "48 rows": {"rows": 48},
    "D=192 and F=128": {"D": 192},
    "D=128 and F=64": {"F": 64},
    "rank 65": {"rank": 65},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses(message):
    sizes = {"rows": 64, "tile": 16, "D": 128, "F": 128, "rank": 8} | REFUSED[message]
    dtype = sizes.pop("dtype", jnp.bfloat16)
    rows, tile, D, F, rank = sizes.values()
    x, w = drawn(0, (rows, D), (D, F), dtype=dtype)
    a, b = drawn(0, (S, rank, D), (S, rank, F))
    slots = np.zeros(rows // tile, np.int32)
    with pytest.raises(NotImplementedError, match=message) as caught:
        mosaic_gpu.forward(x, w, a, b, slots)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", cases.CASES)
def test_candidates_fit(name):
    case = cases.CASES[name]
    if case.tile == 1:
        with pytest.raises(NotImplementedError, match="a tile of 1 rows"):
            mosaic_gpu.candidates(case)
        return
    found = mosaic_gpu.candidates(case)
    assert len(found) == len(set(found)) >= 2
    for config in found:
        assert config.shared_bytes() <= SHARED_BYTES
        assert case.D % config.block_n() == case.F % config.block_n() == 0
        assert case.D % config.tile_k == case.F % config.tile_k == 0
        assert config.tile_k >= case.R


def test_default_fills_the_machine():
    """Narrow results get small tiles, wide ones large."""
    wide = mosaic_gpu.default_config(2048, 18944, 32)
    narrow = mosaic_gpu.default_config(2048, 512, 32)
    assert (wide.tile_m, wide.block_n()) == (128, 256)
    assert -(-2048 // narrow.tile_m) * (512 // narrow.block_n()) > 64
    assert not dataclasses.replace(wide, tile_m=256).fits()


@pytest.mark.parametrize("packed", [False, True])
def test_api_reaches_the_kernels(packed):
    """Lowered for a GPU: five kernels in forward and backward, and no matmul of XLA."""
    x, w = drawn(0, (2, 64, 128), (128, 256))
    a, b = drawn(0, (2, 32, 128), (2, 32, 256), dtype=jnp.float32)
    slots = jnp.arange(2).repeat(4)

    def loss(x, a, b):
        if packed:
            rows = x.reshape(128, 128)
            name = {"implementation": "mosaic_gpu"}
            y = api.lora_matmul_packed(rows, w, a, b, slots, **name)
        else:
            one = lambda x, a, b: api.lora_matmul(
                x, w, a, b, implementation="mosaic_gpu"
            )
            y = jax.vmap(one)(x, a, b)
        return y.astype(jnp.float32).sum()

    traced = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).trace(x, a, b)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@mosaic_gpu_v2") == 5
    assert "dot_general" not in text
