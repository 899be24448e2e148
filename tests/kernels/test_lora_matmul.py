"""The low-rank matmul against autodiff of the plain formula, in float64."""

import re

import jax
import jax.numpy as jnp
import lora_oracle as oracle
import numpy as np
import pytest
from lora_oracle import D, F, R, S

from seal_kernels.lora_matmul import api, dispatch, xla

RUNS_ANYWHERE = ("reference", "xla", "dense")
OUTSIDE = [3, -1, 0, 0, S, -S, 1, 4, 2**31 - 1, 3]


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
@pytest.mark.parametrize("tile", [1, 4])
@pytest.mark.parametrize(
    "slots",
    [[2, 0, 1, 4, 3], [1, 1, 1], [4, 0, 4, 4, 1, 0], OUTSIDE, [-1, S], [3]],
    ids=["each", "one", "repeated", "outside", "none", "single"],
)
def test_packed_is_the_formula_of_each_row(implementation, tile, slots):
    rows = tile * len(slots)
    x, w, a, b, weights = oracle.drawn(
        tile, (rows, D), (D, F), (S, R, D), (S, R, F), (rows, F)
    )
    slots = np.array(slots, np.int32)
    op = lambda *args: api.lora_matmul_packed(*args, implementation=implementation)
    want = oracle.in_float64(
        lambda *args: oracle.value_and_grads(oracle.plain_packed, args[-1])(*args[:-1]),
        *(x, w, a, b, slots, weights),
    )
    got = jax.jit(oracle.value_and_grads(op, weights))(x, w, a, b, slots)
    assert [z.dtype for z in got] == [jnp.float32] * 4
    oracle.assert_near(got, want)
    unused = ~np.isin(np.arange(S), slots)
    assert not np.asarray(got[2])[unused].any()
    assert not np.asarray(got[3])[unused].any()


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
@pytest.mark.parametrize(
    ("chunks", "slots"),
    [(1, [2, 0, 5, 4, 3, -1]), (2, [2, 0, 2, 4, 9, 3]), (3, [1, -1, 2, 3, 5, 5])],
)
def test_chunks_of_rows_are_under_their_own_adapters(implementation, chunks, slots):
    count, tile = 6, 2
    rows = tile * len(slots)
    x, w, a, b, weights = oracle.drawn(
        chunks, (rows, D), (D, F), (count, R, D), (count, R, F), (rows, F)
    )
    slots = np.array(slots, np.int32)

    def op(*args):
        return api.lora_matmul_packed(
            *args, chunks=chunks, implementation=implementation
        )

    want = oracle.in_float64(
        lambda *args: oracle.value_and_grads(oracle.plain_packed, args[-1])(*args[:-1]),
        *(x, w, a, b, slots, weights),
    )
    got = jax.jit(oracle.value_and_grads(op, weights))(x, w, a, b, slots)
    oracle.assert_near(got, want)
    # What belongs to another chunk is none, and so is what is no adapter at all.
    foreign = np.array([(c + 1) * count // chunks % count for c in range(chunks)])
    foreign = np.repeat(foreign if chunks > 1 else [-1], len(slots) // chunks)
    y = op(x, w, a, b, foreign.astype(np.int32))
    oracle.assert_near([y], [np.float64(x) @ np.float64(w)])


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
@pytest.mark.parametrize("broken", [0, 3, 5])
def test_nan_in_one_adapter_stays_in_its_rows_of_its_chunk(implementation, broken):
    slots = np.array([0, 2, 1, 0, 3, 5, 5, 4], np.int32)
    x, w, a, b, weights = oracle.drawn(
        6, (16, D), (D, F), (6, R, D), (6, R, F), (16, F)
    )

    def op(*args):
        return api.lora_matmul_packed(*args, chunks=2, implementation=implementation)

    run = jax.jit(oracle.value_and_grads(op, weights))
    sound = run(x, w, a, b, slots)
    theirs, keep = np.repeat(slots == broken, 2), np.arange(6) != broken
    nan_in_stack = run(x, w, a.at[broken].set(np.nan), b.at[broken].set(np.inf), slots)
    nan_in_rows = run(jnp.where(theirs[:, None], np.nan, x), w, a, b, slots)
    for got in (nan_in_stack, nan_in_rows):
        for one, other in zip(got[:2], sound[:2], strict=True):
            np.testing.assert_array_equal(one[~theirs], other[~theirs])
        for one, other in zip(got[2:], sound[2:], strict=True):
            np.testing.assert_array_equal(one[keep], other[keep])
        assert not np.isfinite(np.asarray(got[0])[theirs]).any()


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
def test_told_which_adapters_are_sound_they_are_not_looked_at(implementation):
    """The rest stays as it was, and what was not told of reaches no other adapter."""
    slots = np.array([0, 2, 1, 3, 3, 2], np.int32)
    x, w, a, b, weights = oracle.drawn(
        4, (12, D), (D, F), (4, R, D), (4, R, F), (12, F)
    )

    def run(a, b, sound):
        def op(*args):
            return api.lora_matmul_packed(
                *args, sound=sound, implementation=implementation
            )

        return jax.jit(oracle.value_and_grads(op, weights))(x, w, a, b, slots)

    clean, sound = run(a, b, None), np.arange(4) != 3
    bad_a, bad_b = a.at[3].set(np.nan), b.at[3].set(np.nan)
    theirs = np.repeat(slots == 3, 2)
    got = run(bad_a, bad_b, sound)
    for one, other in zip(got[:2], clean[:2], strict=True):
        np.testing.assert_array_equal(one[~theirs], other[~theirs])
    for one, other in zip(got[2:], clean[2:], strict=True):
        np.testing.assert_array_equal(one[:3], other[:3])
        assert not np.isfinite(np.asarray(one[3])).any()
    assert np.isnan(np.asarray(got[0])[theirs]).all()
    # One that nobody told of: a single number.
    got = run(a.at[3, 0, 0].set(np.nan), b, np.ones(4, bool))
    for one, other in zip(got[:2], clean[:2], strict=True):
        np.testing.assert_array_equal(one[~theirs], other[~theirs])
    for one, other in zip(got[2:], clean[2:], strict=True):
        np.testing.assert_array_equal(one[:3], other[:3])


@pytest.mark.parametrize("wrong", [np.ones(3, bool), np.ones(4, np.int32)])
def test_soundness_is_told_of_each_adapter(wrong):
    x, w, a, b = oracle.drawn(0, (4, D), (D, F), (4, R, D), (4, R, F))
    with pytest.raises(ValueError, match=r"sound .* must be bool \[4\]"):
        api.lora_matmul_packed(x, w, a, b, jnp.zeros(4, jnp.int32), sound=wrong)


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
def test_gradients_are_in_the_dtypes_of_the_adapters(implementation):
    """Also within the passes: in narrower ones nothing wider is written."""
    x, w, a, b = oracle.drawn(
        3, (8, D), (D, F), (S, R, D), (S, R, F), dtype=jnp.bfloat16
    )
    slots = jnp.array([1, 4], jnp.int32)
    y, u = dispatch.forward(implementation, x, w, a, b, slots)
    made = dispatch.backward(implementation, y, x, u, w, a, b, slots)
    assert [z.dtype for z in made] == [jnp.bfloat16] * 3
    wide = dispatch.backward(
        implementation, y, x, u, w, a.astype("float32"), b.astype("float32"), slots
    )
    assert [z.dtype for z in wide[1:]] == [jnp.float32] * 2
    oracle.assert_near(made[1:], wide[1:], rtol=2.0**-8)


@pytest.mark.parametrize(("chunks", "what"), [(0, "1"), (2, "5 adapters"), (4, "6")])
def test_chunks_that_divide_nothing_are_refused(chunks, what):
    x, w, a, b = oracle.drawn(0, (6, D), (D, F), (S, R, D), (S, R, F))
    with pytest.raises(ValueError, match=f"chunks={chunks} must divide the .*{what}"):
        api.lora_matmul_packed(x, w, a, b, jnp.zeros(6, jnp.int32), chunks=chunks)


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
def test_rows_without_adapter_are_the_base(implementation):
    x, w, a, b = oracle.drawn(2, (8, D), (D, F), (S, R, D), (S, R, F))
    slots = jnp.array([-1, S])
    y = api.lora_matmul_packed(x, w, a, b, slots, implementation=implementation)
    oracle.assert_near([y], [np.float64(x) @ np.float64(w)])


def test_jit_changes_nothing():
    x, w, a, b, weights = oracle.drawn(5, (6, D), (D, F), (S, R, D), (S, R, F), (6, F))
    run = oracle.value_and_grads(api.lora_matmul_packed, weights)
    slots = jnp.array([1, 9, 1])
    oracle.assert_near(run(x, w, a, b, slots), jax.jit(run)(x, w, a, b, slots))
    dense = oracle.value_and_grads(api.lora_matmul, weights)
    oracle.assert_near(dense(x, w, a[0], b[0]), jax.jit(dense)(x, w, a[0], b[0]))


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
@pytest.mark.parametrize("lead", [(), (6,), (2, 1, 3)])
def test_dense_is_the_formula_for_any_leading_axes(implementation, lead):
    x, w, a, b, weights = oracle.drawn(
        7, (*lead, D), (D, F), (R, D), (R, F), (*lead, F)
    )
    op = lambda *args: api.lora_matmul(*args, implementation=implementation)
    got = jax.jit(oracle.value_and_grads(op, weights))(x, w, a, b)
    want = oracle.in_float64(
        lambda *args: oracle.value_and_grads(oracle.plain, args[-1])(*args[:-1]),
        x,
        w,
        a,
        b,
        weights,
    )
    assert got[0].shape == (*lead, F)
    oracle.assert_near(got, want)


def test_no_rows_are_no_result():
    x, w, a, b = oracle.drawn(0, (0, 4, D), (D, F), (R, D), (R, F))
    y, dx, da, _ = oracle.value_and_grads(api.lora_matmul, jnp.zeros((0, 4, F)))(
        x, w, a, b
    )
    assert y.shape == (0, 4, F) and dx.shape == x.shape and not np.asarray(da).any()


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("adapter_dtype", ["float32", "bfloat16"])
def test_half_precision_keeps_its_dtypes_and_its_digits(
    implementation, dtype, adapter_dtype
):
    x, w, weights = oracle.drawn(1, (24, D), (D, F), (24, F), dtype=dtype)
    a, b = oracle.drawn(2, (S, R, D), (S, R, F), dtype=adapter_dtype)
    slots = jnp.array([0, 3, 3, 1, 9, 2])
    op = lambda *args: api.lora_matmul_packed(*args, implementation=implementation)
    got = jax.jit(oracle.value_and_grads(op, weights))(x, w, a, b, slots)
    assert [z.dtype for z in got] == [dtype, dtype, adapter_dtype, adapter_dtype]
    want = oracle.in_float64(
        lambda *args: oracle.value_and_grads(oracle.plain_packed, args[-1])(*args[:-1]),
        *(x, w, a, b, slots, weights),
    )
    # Three roundings in a row (u or v, the low-rank product, the sum).
    oracle.assert_near(got, want, rtol=3 * 2.0**-8)


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
def test_gradients_of_adapters_are_summed_in_float32(implementation):
    # 300 tiles add 1 each: a sum in bfloat16 would stop at 256.
    ones = lambda *shape: jnp.ones(shape, jnp.bfloat16)
    tiles = 300
    op = lambda *args: api.lora_matmul_packed(*args, implementation=implementation)
    run = jax.jit(oracle.value_and_grads(op, ones(tiles, 1)))
    a, b = jnp.ones((1, 1, 2)), jnp.ones((1, 1, 1))
    _, _, da, db = run(ones(tiles, 2), ones(2, 1), a, b, jnp.zeros(tiles, jnp.int32))
    assert da.dtype == db.dtype == jnp.float32
    np.testing.assert_array_equal(da, np.full((1, 1, 2), 300.0))
    np.testing.assert_array_equal(db, np.full((1, 1, 1), 600.0))


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
@pytest.mark.parametrize("ranks", [16, 17])
def test_sums_over_ranks_are_in_float32(implementation, ranks):
    # The first rank gives 256, each other one 1: a sum in bfloat16 would stop at 256.
    ones = lambda *shape: jnp.ones(shape, jnp.bfloat16)
    large = jnp.ones((1, ranks, 1)).at[0, 0].set(256)
    op = lambda *args: api.lora_matmul_packed(*args, implementation=implementation)
    run = jax.jit(oracle.value_and_grads(op, ones(2, 1)))
    want = np.full((2, 1), 256.0 + 16)  # 271 or 272, in eight bits of significand
    for a, b, result in [(large, jnp.ones_like(large), 0), (large * 0 + 1, large, 1)]:
        got = run(ones(2, 1), 0 * ones(1, 1), a, b, jnp.zeros(2, jnp.int32))
        np.testing.assert_array_equal(np.asarray(got[result], np.float32), want)


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
def test_a_wide_x_is_not_narrowed(implementation):
    op = lambda *args: api.lora_matmul_packed(*args, implementation=implementation)
    with jax.enable_x64(True):
        shapes = (6, D), (D, F), (S, R, D), (S, R, F), (6, F)
        *args, weights = oracle.drawn(8, *shapes, dtype=jnp.float64)
        slots = jnp.array([1, 9, 1], jnp.int32)
        got = jax.jit(oracle.value_and_grads(op, weights))(*args, slots)
        want = oracle.value_and_grads(oracle.plain_packed, weights)
        oracle.assert_near(got, jax.jit(want)(*args, slots), rtol=1e-14)


@pytest.mark.parametrize("implementation", RUNS_ANYWHERE)
@pytest.mark.parametrize("broken", [0, 2, S - 1])
def test_nan_in_one_adapter_changes_no_bit_of_the_others(implementation, broken):
    # Slots outside the stack are next to the first and the last adapter.
    slots = np.array([0, 2, -1, 1, S, 4, 2, 0, 3, 4], np.int32)
    x, w, a, b, weights = oracle.drawn(
        6, (40, D), (D, F), (S, R, D), (S, R, F), (40, F)
    )
    op = lambda *args: api.lora_matmul_packed(*args, implementation=implementation)
    run = jax.jit(oracle.value_and_grads(op, weights))
    sound = run(x, w, a, b, slots)
    theirs = np.repeat(slots == broken, 4)
    nan_in_stack = run(x, w, a.at[broken].set(np.nan), b.at[broken].set(np.inf), slots)
    nan_in_rows = run(jnp.where(theirs[:, None], np.nan, x), w, a, b, slots)
    for got in (nan_in_stack, nan_in_rows):
        for one, other in zip(got[:2], sound[:2], strict=True):
            np.testing.assert_array_equal(one[~theirs], other[~theirs])
        for one, other in zip(got[2:], sound[2:], strict=True):
            keep = np.arange(S) != broken
            np.testing.assert_array_equal(one[keep], other[keep])
        assert not np.isfinite(np.asarray(got[0])[theirs]).any()


def test_a_result_does_not_depend_on_the_slot_it_got():
    slots = np.array([0, 2, 1, 7, 2, 0, 3, 4], np.int32)
    order = np.array([3, 0, 4, 1, 2])
    x, w, a, b, weights = oracle.drawn(
        9, (32, D), (D, F), (S, R, D), (S, R, F), (32, F)
    )
    run = jax.jit(oracle.value_and_grads(api.lora_matmul_packed, weights))
    here = run(x, w, a, b, slots)
    moved = np.where(slots < S, np.argsort(order)[slots % S], slots)
    there = run(x, w, a[order], b[order], moved)
    for one, other in zip(there[:2], here[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(there[2:], here[2:], strict=True):
        np.testing.assert_array_equal(one, other[order])


def test_frozen_and_integer_operands_have_empty_gradients():
    x, w, a, b = oracle.drawn(0, (6, D), (D, F), (S, R, D), (S, R, F))
    slots = jnp.array([0, 1, 2])
    loss = lambda *args: jnp.sum(api.lora_matmul_packed(*args) ** 2)
    dw, dslots = jax.grad(loss, (1, 4), allow_int=True)(x, w, a, b, slots)
    assert dslots.dtype == jax.dtypes.float0
    np.testing.assert_array_equal(dw, np.zeros((D, F)))
    dense = lambda x, w, a, b: jnp.sum(api.lora_matmul(x, w, a, b) ** 2)
    np.testing.assert_array_equal(
        jax.grad(dense, 1)(x, w, a[0], b[0]), np.zeros_like(w)
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint32, np.int64])
def test_slots_may_be_any_integers(dtype):
    x, w, a, b = oracle.drawn(0, (8, D), (D, F), (S, R, D), (S, R, F))
    got = api.lora_matmul_packed(x, w, a, b, np.array([4, 0, 100, 1], dtype))
    want = api.lora_matmul_packed(x, w, a, b, jnp.array([4, 0, S, 1]))
    np.testing.assert_array_equal(got, want)


def test_known_slots_spare_the_gather():
    x, w, a, b = oracle.drawn(0, (10, D), (D, F), (S, R, D), (S, R, F))
    known = jax.make_jaxpr(xla.forward)(x, w, a, b, np.arange(S))
    assert "gather" in str(known)  # as an operand, the array is not known
    close = lambda slots: jax.make_jaxpr(lambda *z: xla.forward(*z, slots))(x, w, a, b)
    assert "gather" not in str(close(np.arange(S)))
    assert "gather" in str(close(np.arange(S)[::-1]))


SHAPES = {"x": (6, D), "w": (D, F), "a": (R, D), "b": (R, F)}
STACKED = {**SHAPES, "a": (S, R, D), "b": (S, R, F), "slots": (3,)}


@pytest.mark.parametrize(
    "packed, changed, parts",
    [
        (False, {"x": (6, D + 1)}, ["x (6, 14)", "w (13, 17)", "[..., D]"]),
        (False, {"x": ()}, ["x ()", "[..., D]"]),
        (False, {"w": (2, D, F)}, ["w (2, 13, 17)", "[D, F]"]),
        (False, {"a": (D, R)}, ["a (13, 3)", "[R, D]", "D=13", "transpose"]),
        (False, {"a": (S, R, D)}, ["a (5, 3, 13)", "[R, D]"]),
        (False, {"b": (F, R)}, ["b (17, 3)", "[R, F] = (3, 17)"]),
        (True, {"a": (R, D)}, ["lora_matmul_packed", "a (3, 13)", "[S, R, D]"]),
        (True, {"a": ()}, ["a ()", "[S, R, D]"]),
        (True, {"b": (S + 1, R, F)}, ["b (6, 3, 17)", "[S, R, F] = (5, 3, 17)"]),
        (True, {"x": (2, 3, D)}, ["x (2, 3, 13)", "[M, D]", "reshape"]),
        (True, {"slots": (4,)}, ["6 rows", "multiple of the 4 slots", "pad x"]),
        (True, {"slots": (0,)}, ["multiple of the 0 slots"]),
        (True, {"slots": (3, 1)}, ["slots int32[3, 1]", "integers [G]"]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(packed, changed, parts):
    shapes = {**(STACKED if packed else SHAPES), **changed}
    dtypes = {"slots": jnp.int32}
    operands = {k: jnp.zeros(v, dtypes.get(k, jnp.float32)) for k, v in shapes.items()}
    op = api.lora_matmul_packed if packed else api.lora_matmul
    with pytest.raises(ValueError) as caught:
        op(**operands)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{op.__name__}: ")
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    "changed, parts",
    [
        ({"x": "int32"}, ["x is int32", "float"]),
        ({"a": "int8"}, ["a is int8", "float"]),
        ({"b": "bool"}, ["b is bool", "float"]),
        ({"w": "bfloat16"}, ["w is bfloat16", "float32 of x", "cast"]),
        ({"slots": "float32"}, ["slots float32[3]", "integers [G]"]),
    ],
)
def test_dtypes_that_do_not_fit_are_refused(changed, parts):
    dtypes = {"slots": "int32", **changed}
    operands = {k: jnp.zeros(v, dtypes.get(k, "float32")) for k, v in STACKED.items()}
    with pytest.raises(ValueError) as caught:
        api.lora_matmul_packed(**operands)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


@pytest.mark.parametrize("broken", [False, True])
def test_a_sum_of_tiles_is_the_same_on_every_platform(broken):
    """What a CPU scatters, others multiply with zeros and ones."""
    (grads_G,) = oracle.drawn(3, (10, R, D))
    slots_G = jnp.array([0, 2, -1, 1, S, 4, 2, 0, 3, 4], jnp.int32)
    if broken:
        grads_G = grads_G.at[6, 0, 1].set(jnp.nan)
    got, want = (
        np.asarray(sum_of(grads_G, slots_G, slots=S))
        for sum_of in (xla._matmul_sum, xla._scattered)
    )
    sound = [s for s in range(S) if not (broken and s == 2)]
    np.testing.assert_allclose(got[sound], want[sound], rtol=1e-6, atol=1e-6)
    assert np.isnan(got[2]).all() == np.isnan(want[2]).any() == broken


@pytest.mark.parametrize("held", [1, 300, 2**28])
def test_adapters_are_gathered_for_a_part_of_the_tiles_at_a_time(held, monkeypatch):
    x, w, a, b, weights = oracle.drawn(
        4, (48, D), (D, F), (S, R, D), (S, R, F), (48, F)
    )
    slots = jnp.array([0, 2, -1, 1, S, 4, 2, 0, 3, 4, 1, 1], jnp.int32)
    run = oracle.value_and_grads(api.lora_matmul_packed, weights)
    want = run(x, w, a, b, slots)
    monkeypatch.setattr(xla, "HELD", held)
    each = 4 * R * (D + F)
    parts = xla._parts(a, b, slots, x.dtype)
    assert 12 % parts == 0 and (parts == 12 or 12 // parts * each <= held)
    oracle.assert_near(run(x, w, a, b, slots), want)
    program = jax.jit(lambda *args: xla.forward(*args)[0]).lower(x, w, a, b, slots)
    shapes = re.findall(r"f32\[(\d+),\d+,\d+\]", program.compile().as_text())
    assert max(map(int, shapes)) <= max(12 // parts, S) or parts == 1
