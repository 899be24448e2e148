"""Influences on a mesh of devices, simulated in a child process."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CHILD = """
import json, sys
import jax, numpy as np
import test_influence as t, test_taught as taught
from seal_jax.models import placement
from seal_jax.runtime import meshes
from seal_jax.training import influence

def placed(on):
    if on is None:
        return t.PARAMS
    return jax.device_put(t.PARAMS, placement.param_shardings(t.ARCH, on))

def compare(data, model):
    on = meshes.make_mesh(data=data, model=model)
    jobs = [t.dataclasses.replace(j, epochs=1, batch=1) for j in taught.workload(4)]
    own = [influence.Text(j, e) for e, j in enumerate(jobs)]
    gaps = []
    for texts, cfg in ((t.TEXTS, t.CFG), (own, taught.FORWARD)):
        got = t.measure(texts=texts, cfg=cfg, params=placed(on), mesh=on)
        want = t.measure(texts=texts, cfg=cfg)
        gaps.append(float(np.abs(got.values - want.values).max()))
    return {"gaps": gaps, "tokens": [got.tokens, want.tokens]}

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
def test_a_mesh_finds_what_one_device_does(case, compared):
    found = compared[CASES.index(case)]
    assert max(found["gaps"]) < 2e-3
    assert found["tokens"][0] == found["tokens"][1]
