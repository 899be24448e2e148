import dataclasses
import math

import compilations
import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.models import decoder, key_ranges, lora

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Both batch rows and adapters, so that a mixed-up axis shows.
CFG, PARAMS = golden_models.load("llama")


def drawn(seed, targets, rank=3):
    """An adapter with B drawn too, so that it does something."""
    delta = lora.init(jax.random.key(seed), CFG, targets=targets, rank=rank)
    rng = np.random.default_rng(seed)

    def of(ab):
        b = jnp.asarray(rng.normal(0, 0.2, ab["b"].shape), jnp.float32)
        return {"a": ab["a"], "b": b}

    return lora.per_linear(delta, of)


def layers_of(tree, name):
    """One linear's leaves in every layer, stacked."""
    parts = [tree[f"layers_{i}"][name] for i in range(CFG.layers)]
    return {side: np.stack([part[side] for part in parts]) for side in parts[0]}


def logits(params, delta=None, cfg=CFG):
    return golden_models.forward(cfg, params, *golden_models.batch("llama"), delta)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",), ALL])
def test_init_has_the_leaves_of_its_targets(targets):
    delta = lora.init(jax.random.key(0), CFG, targets=targets, rank=3)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), delta)
    layer = {
        name: {"a": ((3, d), "float32"), "b": ((3, f), "float32")}
        for name, (d, f) in CFG.linears().items()
        if name in targets
    }
    assert shapes == {f"layers_{i}": layer for i in range(CFG.layers)}


def test_init_draws_a_as_kaiming_uniform_and_b_as_zero():
    wide = dataclasses.replace(CFG, width=512, layers=4, kv_heads=4)
    delta = lora.init(jax.random.key(3), wide, targets=ALL, rank=64)
    for name in ALL:
        layers = [delta[f"layers_{i}"][name] for i in range(4)]
        ab = {side: np.stack([layer[side] for layer in layers]) for side in "ab"}
        d, _ = wide.linears()[name]
        # kaiming_uniform(a=sqrt(5)): bound = sqrt(6 / ((1 + 5) d)) = sqrt(1 / d)
        bound = 1 / math.sqrt(d)
        a = np.asarray(ab["a"])
        assert np.abs(a).max() <= bound
        assert np.abs(a).max() > 0.99 * bound
        # Mean 0 and variance bound^2 / 3, each within five standard errors.
        assert abs(a.mean()) < 5 * bound / math.sqrt(3 * a.size)
        assert abs(a.var() / (bound**2 / 3) - 1) < 5 * math.sqrt(0.8 / a.size)
        assert not np.array_equal(a[0], a[1])
        assert not np.asarray(ab["b"]).any()


def test_a_target_draws_the_same_whatever_the_others():
    key = jax.random.key(1)
    pair = lora.init(key, CFG, targets=("q_proj", "v_proj"), rank=4)["layers_1"]
    every = lora.init(key, CFG, targets=ALL, rank=4)["layers_1"]
    for name in pair:
        np.testing.assert_array_equal(pair[name]["a"], every[name]["a"])
    assert not np.array_equal(every["gate_proj"]["a"], every["up_proj"]["a"])


@pytest.mark.parametrize(
    ("targets", "rank", "parts"),
    [
        (("q_proj", "qkv"), 4, ["qkv", "q_proj", "lora.targets"]),
        ((), 4, ["lora.targets", "q_proj"]),
        (("q_proj",), 0, ["lora.rank=0", "1..64"]),
        (("q_proj",), 65, ["lora.rank=65", "1..64"]),
        (("q_proj", "v_proj"), 17, ["lora.rank=17", "1..16", "narrowest"]),
    ],
)
def test_init_refuses(targets, rank, parts):
    with pytest.raises(ValueError) as caught:
        lora.init(jax.random.key(0), CFG, targets=targets, rank=rank)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts)


def test_a_fresh_adapter_changes_nothing():
    fresh = lora.init(jax.random.key(0), CFG, targets=ALL, rank=4)
    np.testing.assert_array_equal(logits(PARAMS, fresh), logits(PARAMS))


@pytest.mark.parametrize("targets", [*((name,) for name in ALL), ALL])
def test_adapter_equals_merged_weights(targets):
    delta = lora.scaled(drawn(0, targets), 2.0)
    under = logits(PARAMS, delta)
    merged = lora.merge(PARAMS, delta)
    assert np.abs(under - logits(PARAMS)).max() > 1e-2
    np.testing.assert_allclose(under, logits(merged), rtol=0, atol=1e-4)


def test_merge_is_the_base_plus_the_scaled_product():
    delta = drawn(1, ("o_proj",))
    merged = lora.merge(PARAMS, lora.scaled(delta, 1.5))
    for layer in (f"layers_{i}" for i in range(CFG.layers)):
        ab = delta[layer]["o_proj"]
        want = np.float64(PARAMS[layer]["o_proj"]["kernel"]) + 1.5 * (
            np.float64(ab["a"]).T @ np.float64(ab["b"])
        )
        got = merged[layer]["o_proj"]["kernel"]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
        assert merged[layer]["q_proj"] is PARAMS[layer]["q_proj"]
    assert merged["embed"] is PARAMS["embed"]


def test_a_bfloat16_base_keeps_its_dtype_and_a_small_update():
    base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    half = dataclasses.replace(CFG, dtype="bfloat16")
    delta = drawn(2, ("q_proj", "v_proj"))
    merged = lora.merge(base, delta)
    assert {x.dtype.name for x in jax.tree.leaves(merged)} == {"bfloat16"}
    # Summed in float32 and rounded once, to one of the two neighbours.
    kernel = np.float32(base["layers_0"]["q_proj"]["kernel"])
    ab = delta["layers_0"]["q_proj"]
    want = kernel + np.asarray(ab["a"]).T @ np.asarray(ab["b"])
    got = np.float32(merged["layers_0"]["q_proj"]["kernel"])
    assert np.all(np.abs(got - want) < 2.0**-7 * np.abs(want))
    under = logits(base, delta, half)
    assert np.isfinite(under).all()
    # 8 bits of mantissa through two layers: a few per cent of the logits' spread.
    gap = np.abs(under - logits(PARAMS, delta)).mean()
    assert gap < 0.05 * np.asarray(under).std()


def test_rounds_of_small_deltas_add_up_in_bfloat16():
    """Eight merges of deltas far below a unit in the last place of the weights."""
    rng = np.random.default_rng(0)
    shape, rank = (2, 96, 160), 8
    w = rng.normal(0, 0.02, shape).astype(np.float32)
    first = jnp.asarray(w, jnp.bfloat16)
    names = ["layers_0", "layers_1"]
    params = {"embed": jnp.zeros(3)}
    for name, w_DF in zip(names, first, strict=True):
        params[name] = {"q_proj": {"kernel": w_DF}}
    total = np.zeros(shape)
    for _ in range(8):
        a = rng.normal(size=(shape[0], rank, shape[1]))
        b = rng.normal(size=(shape[0], rank, shape[2])) * 1e-5 / rank**0.5
        delta = {
            name: {"q_proj": {"a": jnp.float32(a[i]), "b": jnp.float32(b[i])}}
            for i, name in enumerate(names)
        }
        params = lora.merge(params, delta)
        total += np.einsum("lrd,lrf->ldf", a, b)
    last = np.stack([np.float64(params[name]["q_proj"]["kernel"]) for name in names])
    change = last - np.float64(first)
    slope = (change * total).sum() / (total**2).sum()
    error = change.std() / (total.std() * total.size**0.5)
    assert error < 0.02 and abs(slope - 1) < 4 * error
    nearest = np.float64(jnp.asarray(np.float64(first) + total / 8, jnp.bfloat16))
    lost = ((nearest - np.float64(first)) * total / 8).sum() / (total**2 / 64).sum()
    assert lost < 0.6, "the deltas are too large to show what rounding loses"


def test_a_merge_is_the_same_whenever_it_is_done_and_holds_what_it_can():
    base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    delta = drawn(2, ALL)
    first, again = (jax.jit(lora.merge)(base, delta) for _ in range(2))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first, again)))
    # Another draw with another delta, though it differs in a bit that does not show.
    other = jax.tree.map(lambda x: x * (1 + 2**-23), delta)
    other = jax.jit(lora.merge)(base, other)
    assert not np.array_equal(
        first["layers_0"]["q_proj"]["kernel"], other["layers_0"]["q_proj"]["kernel"]
    )
    nothing = jax.tree.map(jnp.zeros_like, drawn(2, ALL))
    same = jax.tree.map(np.array_equal, lora.merge(base, nothing), base)
    assert all(jax.tree.leaves(same))


def test_a_merge_is_one_program_for_all_layers_and_the_bits_of_the_whole():
    """More than ten layers: by their names they are in another order."""
    rng = np.random.default_rng(5)

    def drawn_layers(*leaves):
        return {
            f"layers_{i}": {
                "q_proj": {k: np.float32(rng.normal(0, 0.1, s)) for k, s in leaves}
            }
            for i in range(12)
        }

    base = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.bfloat16), drawn_layers(("kernel", (5, 7)))
    )
    delta = drawn_layers(("a", (2, 5)), ("b", (2, 7)))
    whole = jax.jit(lora.merge)(base, delta)
    with compilations.recorded() as programs:
        merged = lora.merge(base, delta, consume=True)
    same = jax.tree.map(np.array_equal, merged, whole)
    assert all(jax.tree.leaves(same))
    assert all(x.is_deleted() for x in jax.tree.leaves(base))
    assert [p.name for p in programs].count("add_to_layer") == 1
    assert len(programs) <= 2  # And the delta's digest, unless it was there before.


def test_values_round_to_their_neighbours_in_proportion_and_nan_stays():
    key, ulp = jax.random.key(3), 2.0**-7
    values = np.float32([1 + 0.25 * ulp, -1 - 0.75 * ulp, 1.5, 0.0, -0.0])
    got = np.float64(
        lora._rounded(jnp.tile(values, (20_000, 1)), jnp.dtype(jnp.bfloat16), key)
    )
    assert set(got[:, 0]) == {1.0, 1.0 + ulp}
    assert set(got[:, 1]) == {-1.0, -1.0 - ulp}
    assert set(got[:, 2]) == {1.5} and set(got[:, 3]) == {0.0}
    spread = 4 * ulp * (0.25 * 0.75 / 20_000) ** 0.5
    assert np.all(abs(got.mean(0) - values) <= spread)
    # A NaN of all ones would wrap around to -0.
    odd = np.uint32([0x7FFFFFFF, 0x7F800000, 0xFF800000]).view(np.float32)
    kept = np.float32(lora._rounded(jnp.asarray(odd), jnp.dtype(jnp.bfloat16), key))
    assert np.isnan(kept[0]) and kept[1] == np.inf and kept[2] == -np.inf


def test_many_adapters_under_vmap_are_each_on_their_own():
    deltas = [drawn(seed, ("q_proj", "down_proj")) for seed in range(3)]
    stacked = lora.stack(deltas)
    together = jax.vmap(lambda delta: logits(PARAMS, delta))(stacked)
    for i, delta in enumerate(deltas):
        np.testing.assert_allclose(together[i], logits(PARAMS, delta), atol=2e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_a_delta_of_other_layers_is_refused():
    delta, tokens = drawn(0, ("q_proj",)), jnp.zeros((1, 2), jnp.int32)
    ranges = key_ranges.KeyRanges(tokens, tokens)
    for odd in ({"layers": delta}, {"layers_0": delta["layers_0"]}, {}):
        with pytest.raises(ValueError, match=r"delta: layers .* must be \['layers_0'"):
            decoder.hidden(PARAMS, odd, CFG, tokens, tokens, ranges)


def test_stack_and_select_are_inverse():
    deltas = [drawn(seed, ("q_proj",)) for seed in range(4)]
    stacked = lora.stack(deltas)
    same = jax.tree.map(np.array_equal, lora.select(stacked, 2), deltas[2])
    assert all(jax.tree.leaves(same))
    some = lora.select(stacked, jnp.array([3, 1]))
    same = jax.tree.map(np.array_equal, some, lora.stack([deltas[3], deltas[1]]))
    assert all(jax.tree.leaves(same))


def test_the_gradient_equals_that_of_the_merged_weights():
    """dL/dA = B (dL/dW)^T and dL/dB = A dL/dW, from an adapter-free backward pass."""
    delta = drawn(6, ALL)
    loss = lambda out: jnp.mean(out**2)
    got = jax.grad(lambda d: loss(logits(PARAMS, d)))(delta)
    merged = lora.merge(PARAMS, delta)
    full = jax.grad(lambda p: loss(logits(p)))(merged)
    for name in ALL:
        ab, gradient = layers_of(delta, name), layers_of(got, name)
        dw_LDF = np.float64(layers_of(full, name)["kernel"])
        da = np.einsum("lrf,ldf->lrd", np.float64(ab["b"]), dw_LDF)
        db = np.einsum("lrd,ldf->lrf", np.float64(ab["a"]), dw_LDF)
        # It reaches every layer.
        assert np.abs(da).max(axis=(1, 2)).min() > 1e-6
        assert np.abs(db).max(axis=(1, 2)).min() > 1e-6
        np.testing.assert_allclose(gradient["a"], da, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(gradient["b"], db, rtol=1e-3, atol=1e-6)
