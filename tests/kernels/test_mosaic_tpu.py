"""The TPU kernels of the low-rank matmul, interpreted on the CPU, in small blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from seal_kernels.lora_matmul import api, cases, mosaic_tpu
from seal_kernels.lora_matmul import mosaic_tpu_blocks as blocks

S = 5
OUTSIDE = [3, -1, 0, 0, S, -S, 1, 4, 2**31 - 1, 3]
# Half a unit of its 8 bits, for u or v on the way and for the result.
BFLOAT16 = 2 * 2**-9
NAMES = ("y", "u", "dx", "da", "db")


def drawn(tile, slots, rank, *, width=256, features=384, dtype=jnp.float32, S=S):
    """`(x, w, a, b, slots)` and dy, with adapters in float32."""
    rows = tile * len(slots)
    rng = np.random.default_rng(rank)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    x, w = normal(rows, width), normal(width, features)
    a, b, dy = normal(S, rank, width), normal(S, rank, features), normal(rows, features)
    # Rounded first, so that only what the kernels round can differ from the formula.
    x, w, a, b, dy = (jnp.asarray(z, dtype) for z in (x, w, a, b, dy))
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return (x, w, a, b, np.array(slots, np.int32)), dy


def compiled(interpret=True):
    """All results by name, the backward pass after the forward pass's u."""

    def both(args, dy):
        x, w, a, b, slots = args
        y, u = mosaic_tpu.forward(*args, interpret=interpret)
        gradients = mosaic_tpu.backward(dy, x, u, w, a, b, slots, interpret=interpret)
        return dict(zip(NAMES, (y, u, *gradients), strict=True))

    return jax.jit(both)


def formula(args, dy):
    """The same in float64, row by row."""
    x, w, a, b, dy = (np.asarray(z, np.float64) for z in (*args[:4], dy))
    slots = np.repeat(args[4], len(x) // len(args[4]))
    y, dx = x @ w, dy @ w.T
    u, da, db = np.zeros((len(x), a.shape[1])), np.zeros(a.shape), np.zeros(b.shape)
    for m, s in enumerate(slots):
        if 0 <= s < len(a):
            u[m] = a[s] @ x[m]
            y[m] += u[m] @ b[s]
            dx[m] += (b[s] @ dy[m]) @ a[s]
            da[s] += np.outer(b[s] @ dy[m], x[m])
            db[s] += np.outer(u[m], dy[m])
    return dict(zip(NAMES, (y, u, dx, da, db), strict=True))


def assert_near(got, want, rtol):
    """Within `rtol` of the largest entry, for each array."""
    assert got.keys() == want.keys()
    for name, other in want.items():
        one = np.asarray(got[name], np.float64)
        atol = rtol * np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=name)


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks along every axis, and of the rows a ragged last one."""
    monkeypatch.setattr(blocks, "of_core", lambda *_, **__: (64, 128, 128))
    monkeypatch.setattr(blocks, "of_side", lambda *_, **__: (64, 128))
    monkeypatch.setattr(blocks, "CHUNK_ROWS", 32)
    monkeypatch.setattr(mosaic_tpu, "UNROLL_ROWS", 32)


@pytest.mark.parametrize(
    ("tile", "slots", "rank", "dtype"),
    [
        (16, OUTSIDE, 8, "float32"),
        (16, OUTSIDE, 16, "bfloat16"),
        (32, [4, 0, 4, 4, 1], 32, "float32"),
        (8, [2, 2, 2, 0, 1, 1, 3, 3, 3, 3, 2], 8, "float32"),
    ],
    ids=["float32", "bfloat16", "revisited", "tile8"],
)
def test_packed_is_the_formula_of_each_row(small_blocks, tile, slots, rank, dtype):
    args, dy = drawn(tile, slots, rank, dtype=dtype)
    got = compiled()(args, dy)
    assert {name: z.dtype.name for name, z in got.items()} == {
        **dict.fromkeys(("y", "u", "dx"), dtype),
        **dict.fromkeys(("da", "db"), "float32"),
    }
    assert_near(got, formula(args, dy), 3e-6 if dtype == "float32" else BFLOAT16)


def test_dense_rows_in_the_blocks_that_are_chosen():
    args, dy = drawn(64, range(S), 16, dtype=jnp.bfloat16)
    assert_near(compiled()(args, dy), formula(args, dy), BFLOAT16)


def test_a_long_tile_is_cut_into_pieces(small_blocks, monkeypatch):
    monkeypatch.setattr(blocks, "PIECE_ROWS", 32)
    args, dy = drawn(96, [1, 0], 8, S=2)
    assert_near(compiled()(args, dy), formula(args, dy), 3e-6)


def test_nothing_is_read_that_was_not_written(small_blocks):
    """Memory starts as NaN here, and a read past the end of an array raises."""
    args, dy = drawn(16, OUTSIDE, 8, width=128, features=256)
    interpret = pltpu.InterpretParams(
        uninitialized_memory="nan", out_of_bounds_reads="raise"
    )
    assert_near(compiled(interpret)(args, dy), formula(args, dy), 3e-6)


def test_rows_without_adapter_are_the_base_alone(small_blocks):
    (x, w, a, b, slots), dy = drawn(16, [-1, S, 2**31 - 1, -(2**31)], 8)
    got = compiled()((x, w, jnp.nan * a, jnp.nan * b, slots), dy)
    assert_near(got, formula((x, w, a, b, slots), dy), 3e-6)
    for name in ("u", "da", "db"):
        np.testing.assert_array_equal(got[name], 0)


def test_a_nan_stays_in_its_adapter(small_blocks):
    (x, w, a, b, slots), dy = drawn(16, OUTSIDE, 8)
    both = compiled()
    clean = both((x, w, a, b, slots), dy)
    ill = both((x, w, a.at[3].set(jnp.nan), b.at[3].set(jnp.inf), slots), dy)
    of_rows = np.repeat(slots, 16) == 3
    for name, value in ill.items():
        its = np.arange(S) == 3 if name in ("da", "db") else of_rows
        np.testing.assert_array_equal(
            np.asarray(value)[~its], np.asarray(clean[name])[~its], err_msg=name
        )
        # db is u^T dy, and u is NaN; dx is finite plus inf or NaN.
        assert not np.isfinite(np.asarray(value)[its]).any(), name


def test_the_api_lowers_to_the_kernels_for_a_tpu():
    (x, w, a, b, slots), dy = drawn(16, [0, 1, 1, 4], 8)

    def vjp(x, a, b, dy):
        op = lambda x, a, b: api.lora_matmul_packed(
            x, w, a, b, jnp.asarray(slots), implementation="mosaic_tpu"
        )
        y, back = jax.vjp(op, x, a, b)
        return y, back(dy)

    lowered = jax.jit(vjp).trace(x, a, b, dy).lower(lowering_platforms=("tpu",))
    text = lowered.as_text()
    assert text.count('kernel_name = "lora_matmul_core"') == 2
    assert text.count('kernel_name = "lora_matmul_side"') == 3
    assert "dot_general" not in text


SHAPES = {"tile": 16, "slots": [0, 1], "rank": 8, "width": 128, "features": 128}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"width": 100}, "D=100 and F=128 must be multiples of 128"),
        ({"features": 64}, "D=128 and F=64 must be multiples of 128"),
        ({"rank": 12}, "R=12 must be a multiple of 8"),
        ({"tile": 12}, "a tile of 12 rows must be a multiple of 8 for float32"),
        ({"tile": 8, "dtype": "bfloat16"}, "8 rows must be a multiple of 16 for bf"),
        ({"tile": 1}, "a tile of 1 rows"),
        ({"dtype": "float16"}, "x is float16, not bfloat16 or float32"),
        ({"S": 4000}, "4000 slots of rank 8 .* do not fit .* use fewer slots"),
    ],
    ids=["width", "features", "rank", "tile", "bf16_tile", "decode", "dtype", "slots"],
)
def test_refusals(change, reason):
    args, dy = drawn(**{**SHAPES, **change})
    x, w, a, b, slots = args
    u = jnp.zeros((len(x), a.shape[1]), x.dtype)
    for function, operands in [
        (mosaic_tpu.forward, (x, w, a, b, slots)),
        (mosaic_tpu.backward, (dy, x, u, w, a, b, slots)),
    ]:
        with pytest.raises(NotImplementedError, match=reason) as error:
            jax.eval_shape(function, *operands)
        assert "\n" not in str(error.value)


def test_of_the_named_cases_only_decoding_is_refused():
    names = {name for name in cases.CASES if "7b/" in name or "0.5b/k/" in name}
    refused = set()
    for name in names:
        case = cases.CASES[name]
        shape = lambda *sizes, dtype=case.dtype: jax.ShapeDtypeStruct(sizes, dtype)
        x, w = shape(case.M, case.D), shape(case.D, case.F)
        a = shape(case.S, case.R, case.D, dtype="float32")
        b = shape(case.S, case.R, case.F, dtype="float32")
        slots = shape(case.M // case.tile, dtype="int32")
        dy, u = shape(case.M, case.F), shape(case.M, case.R)
        try:
            y, _ = jax.eval_shape(mosaic_tpu.forward, x, w, a, b, slots)
            outs = jax.eval_shape(mosaic_tpu.backward, dy, x, u, w, a, b, slots)
        except NotImplementedError:
            refused.add(name)
            continue
        assert y.shape == dy.shape
        assert [z.shape for z in outs] == [x.shape, a.shape, b.shape]
    assert refused == {name for name in names if name.endswith("/decode")}
