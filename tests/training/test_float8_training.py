"""Adapters trained on a base in eight bits."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import test_inner as t

from seal_jax.models import decoder, float8_base, lora
from seal_jax.training import capacity, packed, plan

ARCH = dataclasses.replace(t.ARCH, base_dtype=float8_base.FLOAT8)
PARAMS = decoder.init_params(jax.random.key(0), ARCH)
COUNT = 4


def train(jobs, params=PARAMS, arch=ARCH):
    keys = jax.random.split(jax.random.key(1), len(jobs))
    return packed.train(params, jobs, keys, arch=arch, cfg=t.config(), eos=t.EOS)


def gap(one, other):
    """Of two stacks of adapters: how far apart, of how far the second one lies."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    off, size = np.transpose(
        [
            (np.sum((np.asarray(x) - y) ** 2), np.sum(np.asarray(y) ** 2))
            for x, y in pairs
        ]
    )
    return np.sqrt(off.sum() / size.sum())


@pytest.fixture(scope="module")
def jobs():
    return t.workload(0, COUNT)


@pytest.fixture(scope="module")
def trained(jobs):
    return train(jobs)


def test_training_goes_as_on_the_plain_base(jobs, trained):
    plain = train(jobs, float8_base.master(PARAMS), ARCH.plain())
    assert trained.finite_A.all()
    assert trained.tokens == plain.tokens and trained.steps == plain.steps
    np.testing.assert_allclose(trained.loss_A, plain.loss_A, rtol=0.02)
    assert np.any(trained.loss_A != plain.loss_A)


def test_packed_adapters_are_those_of_the_definition(jobs, trained):
    """But for numbers that fall to the other side of a rounding."""
    cfg, keys = t.config(), jax.random.split(jax.random.key(1), COUNT)
    for i, (job, key) in enumerate(zip(jobs, keys, strict=True)):
        want = t.solo(PARAMS, job, key, cfg).adapter
        assert gap(lora.select(trained.adapters, i), want) < 0.02


def test_a_neighbour_that_diverges_changes_no_bit(jobs, trained):
    """Its numbers grow without bound; scales are of rows, so nobody sees them."""
    wild = dataclasses.replace(jobs[1], learning_rate=1e30)
    got = train([wild if i == 1 else job for i, job in enumerate(jobs)])
    assert not got.finite_A[1] and trained.finite_A[1]
    others = np.array([i for i in range(COUNT) if i != 1])
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(x[others], y[others]),
        *(jax.tree.map(np.asarray, x.adapters) for x in (got, trained)),
    )


def test_sizes_count_the_smaller_base_and_what_lies_beside():
    cfg, linears = t.config(), sum(d * f for d, f in ARCH.linears().values())
    outputs = sum(f for _, f in ARCH.linears().values())
    eight, plain = (capacity.measure(arch, cfg).base for arch in (ARCH, ARCH.plain()))
    assert plain - eight == ARCH.layers * (3 * linears - 4 * outputs)
    assert capacity.master_bytes(ARCH) == ARCH.layers * 4 * linears
    assert capacity.base_bytes(ARCH) == eight + capacity.master_bytes(ARCH)
    assert capacity.master_bytes(ARCH.plain()) == 0
    assert capacity.base_bytes(ARCH.plain()) == plain


CHILD = """
import json
import jax, numpy as np
import test_float8_training as f8
import test_inner as t
from seal_jax.models import lora, placement
from seal_jax.runtime import meshes
from seal_jax.training import packed

jobs = t.workload(0, f8.COUNT)
keys = jax.random.split(jax.random.key(1), f8.COUNT)
want = f8.train(jobs).adapters
out = []
for data, model in ((1, 2), (2, 1)):
    on = meshes.make_mesh(data=data, model=model)
    placed = jax.device_put(f8.PARAMS, placement.param_shardings(f8.ARCH, on))
    got = packed.train(
        placed, jobs, keys, arch=f8.ARCH, cfg=t.config(), eos=t.EOS, mesh=on
    )
    first = np.arange(f8.COUNT)
    own, theirs = (lora.select(x, first) for x in (got.adapters, want))
    out.append(float(f8.gap(own, theirs)))
print(json.dumps(out))
"""


@pytest.mark.slow
def test_a_mesh_trains_what_one_device_does(root, child_env):
    env = child_env | {"JAX_NUM_CPU_DEVICES": "2"}
    env["PYTHONPATH"] += f":{root / 'tests/training'}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)) < 0.02


def test_teachers_are_the_same_base_in_eight_bits(jobs):
    """One that reads what its line does teaches nothing: not a bit is learned."""
    lines = [tuple(range(1 + n)) for n in range(2, 6)]
    cfg = dataclasses.replace(t.config(), teach="reverse", bank=16)
    own = dataclasses.replace(
        jobs[0],
        lines=tuple(lines),
        given=(2,) * 4,
        taught=tuple(plan.Taught(ids, 2, len(ids) - 1) for ids in lines),
    )
    key = jax.random.split(jax.random.key(1), 1)
    got = packed.train(PARAMS, [own], key, arch=ARCH, cfg=cfg, eos=t.EOS)
    assert got.loss_A[0] == 0
    for linears in got.adapters.values():
        assert not any(np.any(ab["b"][0]) for ab in linears.values())
