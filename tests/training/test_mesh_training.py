"""Adapters and rows spread over devices, simulated in a child process."""

import json
import subprocess
import sys

import pytest

CHILD = """
import dataclasses, json, sys
import jax, numpy as np
import test_inner as t
import trainings
from seal_jax.generation import (generate, sample)
from seal_jax.models import (lora, decoder, placement)
from seal_jax.runtime import meshes
from seal_jax.training import (inner, packed)

COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter",
    "collective-broadcast",
)
# A layer is sharded like another.
ARCH = dataclasses.replace(t.ARCH, layers=1)
params = decoder.init_params(jax.random.key(0), ARCH)
cfg = t.config()

def train(jobs, keys, params, on=None):
    return packed.train(params, jobs, keys, arch=ARCH, cfg=cfg, eos=t.EOS, mesh=on)

def write(params, adapters, count):
    rng = np.random.default_rng(0)
    requests = [
        generate.Request(tuple(rng.integers(0, 60, rng.integers(1, 9)).tolist()), a)
        for a in range(count)
        for _ in range(1 + a % 3)
    ]
    keys = jax.random.split(jax.random.key(3), len(requests))
    cfg = sample.SampleConfig(9, 1.0, 1.0, 0, 0, (t.EOS, 3, 4))
    return generate.run(
        params, adapters, requests, keys, arch=ARCH, cfg=cfg, batch=8, per_page=2,
        prompt_multiple=8,
    ).tokens

def compare(data, model_axis, count):
    # Jobs of one pool each, trained on one device, are what the shards must give.
    jobs = t.workload(count, count, losses=(t.MASKED, t.SAMPLED))
    keys = jax.random.split(jax.random.key(1), count)
    on = meshes.make_mesh(data=data, model=model_axis)
    placed = jax.device_put(params, placement.param_shardings(ARCH, on))
    got = train(jobs, keys, placed, on)
    want = [
        train(jobs[i : i + cfg.pool], keys[i : i + cfg.pool], params)
        for i in range(0, count, cfg.pool)
    ]
    stacks = [
        lora.select(w.adapters, np.arange(min(cfg.pool, count - i * cfg.pool)))
        for i, w in enumerate(want)
    ]
    together = jax.tree.map(lambda *x: np.concatenate(x), *stacks)
    program = packed.program(ARCH, cfg, on).as_text()
    return {
        "rows": jax.tree.leaves(got.adapters)[0].shape[0] - cfg.pool * data,
        "gap": trainings.stack_gap(
            lora.select(got.adapters, np.arange(count)), together
        ),
        "loss": trainings.gap(got.loss_A, np.concatenate([w.loss_A for w in want])),
        "finite": bool(got.finite_A.all()),
        "tokens": got.tokens - sum(w.tokens for w in want),
        "adapter_steps": got.adapter_steps - sum(job.total for job in jobs),
        "replicated": len(jax.tree.leaves(got.adapters)[0].devices()) == on.size,
        "texts": write(placed, got.adapters, count)
        == write(params, jax.tree.map(np.asarray, got.adapters), count),
        "collectives": [c for c in COLLECTIVES if c in program],
    }

print(json.dumps([compare(*case) for case in json.loads(sys.argv[1])]))
"""

# Shards of adapters, devices that share the base, jobs (a pool holds six).
CASES = [(8, 1, 11), (2, 4, 8), (1, 2, 4)]


@pytest.fixture(scope="module")
def compared(root, child_env):
    env = child_env | {"JAX_NUM_CPU_DEVICES": "8"}
    env["PYTHONPATH"] += f":{root / 'tests/training'}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, json.dumps(CASES)],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_mesh_trains_and_writes_what_one_device_does(case, compared):
    found = dict(compared[CASES.index(case)])
    assert found.pop("gap") < 2e-4
    assert found.pop("loss") < 1e-4
    collectives = found.pop("collectives")
    assert found == {
        "rows": 0,
        "finite": True,
        "tokens": 0,
        "adapter_steps": 0,
        "replicated": True,
        "texts": True,
    }
    # Shards of adapters never wait for each other; a base that is cut must.
    assert bool(collectives) == (case[1] > 1)
