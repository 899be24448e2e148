"""Teachers and waves on a mesh of two devices, simulated in a child process."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CHILD = """
import dataclasses, json, sys
import jax, numpy as np
import test_frozen as frozen, test_taught as taught, trainings
from seal_jax.models import lora, placement
from seal_jax.runtime import meshes
from seal_jax.training import capacity, packed

CFG = dataclasses.replace(taught.WHOLE, divergence=False)

def train(jobs, start=None, on=None):
    params = frozen.PARAMS
    if on is not None:
        params = jax.device_put(params, placement.param_shardings(frozen.ARCH, on))
    # Drawn anew, so that a mesh of one run does not hold them for the next.
    stacks = frozen.drawn(5, rank=3, rows=3)
    return packed.train(
        params, jobs, jax.random.split(jax.random.key(1), len(jobs)),
        arch=frozen.ARCH, cfg=CFG, eos=taught.EOS, mesh=on, frozen=stacks,
        frozen_of=[j % 3 for j in range(len(jobs))], teacher_on_frozen=True,
        start=start, consume=start is not None,
    )

def both(on, count=4):
    jobs = taught.workload(count, epochs=2)
    begin = [dataclasses.replace(job, span=(0, 1)) for job in jobs]
    # The longest are the shortest in the second wave, so that shards swap them.
    end = [
        dataclasses.replace(job, span=(1, 2), lines=new.lines, given=new.given,
                            taught=new.taught)
        for job, new in zip(jobs, reversed(jobs), strict=True)
    ]
    first = train(begin, on=on)
    return first, train(end, start=first.slots, on=on)

def gap(a, b, rows):
    return trainings.stack_gap(lora.select(a, rows), lora.select(b, rows))

def compare(data, model):
    on = meshes.make_mesh(data=data, model=model)
    got, want = both(on), both(None)
    memory = capacity.measure(frozen.ARCH, CFG, on)
    rows = np.arange(4)
    return {
        "gap": max(gap(a.adapters, b.adapters, rows) for a, b in zip(got, want)),
        "loss": max(gap(a.loss_A, b.loss_A, rows) for a, b in zip(got, want)),
        "slots": gap(got[1].slots.adapter, want[1].slots.adapter, rows),
        "tokens": [a.tokens - b.tokens for a, b in zip(got, want)],
        "shared": [a.teacher_tokens >= b.teacher_tokens for a, b in zip(got, want)],
        "bank": memory.bank,
        "saved": memory.saved,
        "cut": jax.tree.leaves(got[0].slots)[0].sharding.spec[0] if data > 1 else "",
    }

print(json.dumps([compare(*case) for case in json.loads(sys.argv[1])]))
"""

CASES = [(2, 1), (1, 2)]


@pytest.fixture(scope="module")
def compared(root, child_env):
    env = child_env | {"JAX_NUM_CPU_DEVICES": "2"}
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
def test_two_waves_on_a_mesh_learn_what_one_device_does(case, compared):
    found = compared[CASES.index(case)]
    assert found["gap"] < 2e-4 and found["slots"] < 2e-4
    assert found["loss"] < 1e-4
    assert found["tokens"] == [0, 0] and all(found["shared"])
    # Each shard has a bank and slots of its own, as large as on one device.
    assert found["bank"] == 4 * 16 * (1 + 16 * 4)
    assert found["saved"] > 0
    assert found["cut"] == ("data" if case[0] > 1 else "")
