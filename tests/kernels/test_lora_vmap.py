"""The low-rank matmul under JAX's transformations: each result is as if alone."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import lora_oracle as oracle
import numpy as np
import pytest
from lora_oracle import D, F, R, S

from seal_kernels.lora_matmul import api

# (axes of vmap from the outermost in, each as in_axes of x, w, a, b)
MAPS = [
    [(0, None, 0, 0)],
    [(1, None, 2, 1)],
    [(0, None, None, None)],
    [(None, None, 0, 0)],
    [(0, None, 0, None)],
    [(None, None, None, 0)],
    [(0, 0, 0, 0)],
    [(None, 0, None, None)],
    [(0, None, 0, 0), (0, None, None, None)],
    [(0, None, None, None), (0, None, 0, 0)],
    [(0, None, 0, 0), (0, None, 0, 0)],
    [(0, None, None, None), (0, None, None, None)],
    [(0, 0, 0, 0), (0, None, 0, 0)],
    [(0, None, 0, 0), (0, 0, 0, 0)],
]


def batched_operands(axes):
    """x, w, a, b with the axes that vmap takes off, sizes 2 and 3 from outside in."""
    shapes = [(4, D), (D, F), (R, D), (R, F)]
    for size, in_axes in reversed(list(zip((2, 3), axes, strict=False))):
        for i, axis in enumerate(in_axes):
            if axis is not None:
                shapes[i] = (*shapes[i][:axis], size, *shapes[i][axis:])
    return oracle.drawn(11, *shapes)


@pytest.mark.parametrize("axes", MAPS, ids=str)
def test_vmap_in_any_nesting(axes):
    operands = batched_operands(axes)
    many, expected = api.lora_matmul, oracle.plain
    for in_axes in reversed(axes):
        many, expected = jax.vmap(many, in_axes), jax.vmap(expected, in_axes)
    (weights,) = oracle.drawn(3, jax.eval_shape(expected, *operands).shape)
    want = oracle.in_float64(
        lambda *args: oracle.value_and_grads(expected, args[-1])(*args[:-1]),
        *(*operands, weights),
    )
    oracle.assert_near(jax.jit(oracle.value_and_grads(many, weights))(*operands), want)


@pytest.mark.parametrize("axes", MAPS, ids=str)
def test_gradients_of_each_under_vmap(axes):
    operands = batched_operands(axes)
    weights = oracle.drawn(3, (4, F))[0]

    def many(op, weights):
        run = oracle.value_and_grads(op, weights)
        for in_axes in reversed(axes):
            run = jax.vmap(run, in_axes)
        return run

    want = oracle.in_float64(
        lambda *args: many(oracle.plain, args[-1])(*args[:-1]), *operands, weights
    )
    oracle.assert_near(jax.jit(many(api.lora_matmul, weights))(*operands), want)


@pytest.mark.parametrize("remat", [False, True])
def test_scan_over_stacked_layers_with_and_without_remat(remat):
    layers, adapters = 3, 2
    x, w, a, b = oracle.drawn(
        *(5, (adapters, 4, D), (layers, D, D)),
        *((adapters, layers, R, D), (adapters, layers, R, D)),
    )

    def model(op, x, w, a, b):
        layer = lambda x, wab: (jnp.tanh(op(x, *wab)), None)
        step = jax.checkpoint(layer) if remat else layer
        return jax.lax.scan(step, x, (w, a, b))[0]

    def run(op):
        loss = lambda x, w, a, b: jnp.sum(model(op, x, w, a, b) ** 2)
        grad = jax.value_and_grad(loss, (0, 2, 3))
        return jax.vmap(grad, (0, None, 0, 0))

    value, grads = jax.jit(run(api.lora_matmul))(x, w, a, b)
    want_value, want_grads = oracle.in_float64(run(oracle.plain), x, w, a, b)
    oracle.assert_near([value, *grads], [want_value, *want_grads], rtol=1e-5)


def test_packed_under_vmap_is_each_packed():
    x, w, a, b, weights = oracle.drawn(
        4, (2, 6, D), (D, F), (2, S, R, D), (S, R, F), (6, F)
    )
    slots = jnp.array([[0, 4, 7], [2, 2, 1]])
    run = oracle.value_and_grads(api.lora_matmul_packed, weights)
    got = jax.vmap(run, (0, None, 0, None, 0))(x, w, a, b, slots)
    want = [run(x[i], w, a[i], b, slots[i]) for i in range(2)]
    oracle.assert_near(got, [np.stack(z) for z in zip(*want, strict=True)])


CHILD = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from seal_kernels.lora_matmul import api

mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
draw = np.random.default_rng(0).normal
x, w, a, b = (
    jnp.asarray(draw(size=size), jnp.float32)
    for size in [(16, 12), (12, 20), (4, 3, 12), (4, 3, 20)]
)
slots = jnp.array([0, 1, 1, 9, 1, 0, 0, -1])
kinds = ["all-reduce", "all-gather", "all-to-all", "collective-permute"]

def packed(x, a, b, slots):
    return jax.grad(
        lambda x, a, b: jnp.sum(api.lora_matmul_packed(x, w, a, b, slots) ** 2),
        (0, 1, 2),
    )(x, a, b)

def dense(x, a, b, slots):
    many = jax.vmap(api.lora_matmul, (0, None, 0, 0))
    loss = lambda x, a, b: jnp.sum(many(x.reshape(len(a), -1, 12), w, a, b) ** 2)
    return jax.grad(loss, (0, 1, 2))(x, a, b)

out = {}
for op in (packed, dense):
    split = jax.jit(jax.shard_map(
        op, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False
    ))
    text = split.lower(x, a, b, slots).compile().as_text()
    halves = [op(x[i:i + 8], a[j:j + 2], b[j:j + 2], slots[k:k + 4])
              for i, j, k in ((0, 0, 0), (8, 2, 4))]
    whole = jax.tree.map(lambda *z: np.concatenate(z), *halves)
    gap = lambda p, q: float(np.abs(p - q).max() / np.abs(q).max())
    out[op.__name__] = {
        "gap": max(jax.tree.map(gap, split(x, a, b, slots), whole)),
        "collectives": [kind for kind in kinds if kind in text],
    }
print(json.dumps({"devices": jax.device_count(), **out}))
"""


def test_shard_map_gives_each_device_its_own_adapters(child_env):
    env = {**child_env, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-W", "error", "-c", CHILD]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["devices"] == 2
    for op in ("packed", "dense"):
        assert seen[op]["gap"] < 3e-6
        assert seen[op]["collectives"] == []
