"""The tree of a base in eight bits, and what a decoder makes of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from seal_jax.models import decoder, float8_base, key_ranges, lora, placement
from seal_jax.models.parameters import leaf_shapes, nested
from seal_kernels import float8

ARCH = decoder.Arch("qwen2", 64, 32, 2, 4, 2, 8, 48, 256, qkv_bias=True)
EIGHT = dataclasses.replace(ARCH, base_dtype=float8_base.FLOAT8)
ALL = tuple(ARCH.linears())


def drawn(arch=EIGHT):
    """Parameters large enough that a layer adds to what it reads."""
    plain = decoder.init_params(jax.random.key(0), arch.plain())
    large = jax.tree.map(lambda x: x * 8 if x.ndim > 1 else x, plain)
    return float8_base.added(large)


def adapter(arch=EIGHT, rank=3):
    delta = lora.init(jax.random.key(1), arch, targets=ALL, rank=rank)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    noise = lambda x: x + 0.02 * jax.random.normal(next(keys), x.shape)
    return jax.tree.map(noise, delta)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_linear_and_nothing_else_has_eight_bits(dtype):
    arch = dataclasses.replace(EIGHT, dtype=dtype)
    leaves, plain = leaf_shapes(arch), leaf_shapes(arch.plain())
    added = {path: leaf for path, leaf in leaves.items() if path not in plain}
    assert {path: leaves[path] for path in plain} == plain
    want = {}
    for layer in ("layers_0", "layers_1"):
        for name, (d, f) in ARCH.linears().items():
            want[layer, name, "float8"] = ((f, d), jnp.float8_e4m3fn)
            want[layer, name, "float8_scale"] = ((f,), jnp.float32)
    assert {path: (x.shape, x.dtype) for path, x in added.items()} == want


def test_what_runs_and_what_is_merged_into():
    params = drawn()
    running, master = float8_base.running(params), float8_base.master(params)
    assert jax.tree.map(jnp.shape, master) == jax.tree.map(
        lambda x: x.shape, nested(leaf_shapes(ARCH))
    )
    for name in ("embed", "lm_head"):
        assert running[name] is params[name] and master[name] is params[name]
    assert "kernel" not in running["layers_1"]["o_proj"]
    biases = [x["layers_0"]["q_proj"]["bias"] for x in (running, params)]
    assert biases[0] is biases[1]
    turned = float8_base.turned(running)["layers_0"]["up_proj"]
    np.testing.assert_array_equal(turned["float8_turned"], turned["float8"].T)
    # A plain base is left alone by all of it.
    for change in (float8_base.running, float8_base.master, float8_base.turned):
        assert jax.tree.leaves(change(master)) == jax.tree.leaves(master)


def run(params, delta, arch):
    tokens = jax.random.randint(jax.random.key(3), (2, 16), 0, ARCH.vocab)
    at = jnp.broadcast_to(jnp.arange(16), tokens.shape)
    ranges = key_ranges.causal(jnp.ones(tokens.shape, bool))
    hidden, _ = decoder.hidden(params, delta, arch, tokens, at, ranges)
    logits = decoder.logits(params, arch, hidden)
    log_p = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_p, tokens[..., None], 2))


def off(got, want):
    """How far two trees are apart, of the second one's norm."""
    one, other = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
        for tree in (got, want)
    )
    return np.linalg.norm(one - other) / np.linalg.norm(other)


LOSS = jax.jit(jax.value_and_grad(run, 1), static_argnums=2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_gradients_are_near_those_of_the_plain_base(dtype):
    arch = dataclasses.replace(EIGHT, dtype=dtype)
    delta, params = adapter(), drawn(arch)
    eight, got = LOSS(float8_base.running(params), delta, arch)
    plain, want = LOSS(float8_base.master(params), delta, arch.plain())
    assert 0 < abs(float(eight - plain)) < 0.02 * float(plain)
    # Each product is some 4 % off; seven lie one after the other in a layer.
    assert 0.001 < off(got, want) < 0.2
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        # Keys' and queries' gradients are differences, and small.
        assert off(one, other) < 0.4
    # The transposed copy is for speed alone.
    _, turned = LOSS(float8_base.turned(float8_base.running(params)), delta, arch)
    assert off(turned, got) < 0.02


def test_what_is_kept_beside_does_not_run():
    """Only eight bits are read: the kernels may be anything."""
    params, delta = drawn(), adapter()
    for name in ("layers_0", "layers_1"):
        for leaves in params[name].values():
            if "kernel" in leaves:
                leaves["kernel"] = jnp.full_like(leaves["kernel"], jnp.nan)
    loss, grads = LOSS(params, delta, EIGHT)
    want, _ = LOSS(float8_base.running(params), delta, EIGHT)
    assert float(loss) == float(want)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merge_goes_into_the_weights_and_is_rounded_anew(dtype):
    arch = dataclasses.replace(EIGHT, dtype=dtype)
    params, delta = drawn(arch), adapter()
    merge = jax.jit(lora.merge)
    again = merge(merge(params, delta), delta)
    want = merge(merge(float8_base.master(params), delta), delta)
    atol = 1e-6 if dtype == "float32" else 0  # The product and sum of two programs.
    near = functools.partial(np.testing.assert_allclose, rtol=0, atol=atol)
    as_float = lambda tree: jax.tree.map(np.float32, tree)
    jax.tree.map(near, as_float(float8_base.master(again)), as_float(want))
    for name, leaves in again["layers_1"].items():
        if name in ALL:
            eight = float8.weights(leaves["kernel"])
            np.testing.assert_array_equal(leaves["float8"], eight.w_FD)
            np.testing.assert_array_equal(leaves["float8_scale"], eight.scale_F)
    first, last = (x["layers_1"]["q_proj"]["float8"] for x in (params, again))
    assert np.any(np.float32(first) != np.float32(last))


def test_the_cuts_are_those_of_the_weights_turned():
    devices = jax.sharding.AbstractMesh((1, 2), ("data", "model"))
    cut = placement.param_shardings(EIGHT, devices)["layers_0"]
    specs = {
        (name, leaf): sharding.spec
        for name in ("q_proj", "o_proj", "gate_proj", "down_proj")
        for leaf, sharding in cut[name].items()
    }
    assert specs["q_proj", "bias"] == P("model")
    for name in ("q_proj", "gate_proj"):
        assert specs[name, "kernel"] == P(None, "model")
        assert specs[name, "float8"] == P("model", None)
        assert specs[name, "float8_scale"] == P("model")
    for name in ("o_proj", "down_proj"):
        assert specs[name, "kernel"] == P("model", None)
        assert specs[name, "float8"] == P(None, "model")
        assert specs[name, "float8_scale"] == P(None)
