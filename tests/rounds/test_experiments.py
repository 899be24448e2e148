"""Whole experiments: many seeds over a mesh, and a seed's ladder as the host has it."""

import dataclasses
import itertools
import json
import subprocess
import sys

import device_round
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model

from seal_jax.generation import policies
from seal_jax.rounds import loop, over_seeds
from seal_jax.tasks import knowledge_setup

pytestmark = pytest.mark.slow

CHILD = """
import dataclasses, itertools, json, sys
import jax, numpy as np
import test_experiments as t
from seal_jax.rounds import on_device, over_seeds
from seal_jax.runtime import meshes

exp, policy, task, train, heldout = t.opened(sys.argv[1], count=4)
passages = [*itertools.chain(*train), *heldout]
tables, cfg = over_seeds.prepare(exp, task, policy, passages)
plans = [
    over_seeds.plan_of(exp, i, train, heldout, task, tables, cfg) for i in range(4)
]
alone = over_seeds.call(exp, policy, plans, cfg, mesh=None)
mesh = meshes.make_mesh(data=4)
placed = dataclasses.replace(
    policy, params=jax.device_put(policy.params, meshes.replicated(mesh))
)
shared = over_seeds.call(exp, placed, plans, cfg, mesh=mesh)

# One round, whose chunks of adapters are shared.
of_round = dataclasses.replace(cfg.round, mesh=meshes.make_mesh(data=8), chunk=8)
first = jax.tree.map(lambda leaf: leaf[0], plans[1].rounds)
step = jax.jit(on_device.round_step, static_argnames="cfg")
params = jax.device_put(policy.params, meshes.replicated(of_round.mesh))
_, done = step(on_device.State(params), first, cfg=of_round)
print(json.dumps({
    "seeds": t.differences(alone, shared),
    "round": t.differences(
        jax.tree.map(lambda leaf: leaf[1, 0], alone.rounds.trials), done.trials
    ),
    "right": int(alone.rows.trials.right.sum()),
}))
"""


def opened(path, *, count):
    """The experiment, its policy and task, and passages whose answers come easily."""
    exp = device_round.experiment(path, over_seeds={"count": count, "chunk": count})
    policy = policies.load(exp.model, policies.describe(exp.model), seed=exp.seed)
    train, heldout = over_seeds.load(exp)
    train, heldout = list(map(device_round.easy, train)), device_round.easy(heldout)
    task = knowledge_setup.make(exp, policy, [*itertools.chain(*train)], heldout)
    return exp, policy, task, train, heldout


def differences(a, b):
    """How far floats are apart, and how many of the rest are not equal."""
    far, other = 0.0, 0
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if np.issubdtype(x.dtype, np.floating):
            far = max(far, float(np.nanmax(np.abs(x - y), initial=0.0)))
        else:
            other += int((x != y).sum())
    return {"far": far, "other": other}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


def test_a_mesh_gives_what_one_device_does(root, child_env, path):
    env = child_env | {"JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in ("seeds", "round"):
        assert found[name]["far"] < 1e-3 and found[name]["other"] == 0, found
    assert found["right"] > 0


def test_a_seeds_ladder_is_that_of_the_host(path, tmp_path):
    exp, policy, task, train, heldout = opened(path, count=2)
    own, rounds = exp.at(1), exp.scale.rounds
    items, held = train[rounds:], heldout[exp.scale.heldout_passages :]
    tables, cfg = over_seeds.prepare(
        exp, task, policy, [*itertools.chain(*train), *heldout]
    )
    plan = over_seeds.plan_of(exp, 1, train, heldout, task, tables, cfg)
    outcome = over_seeds.call(exp, policy, [plan], cfg, mesh=None)
    told = over_seeds.one_seed(own, policy, plan, outcome, 0)

    copied = jax.tree.map(jnp.copy, policy.params)
    base = dataclasses.replace(policy, params=copied)
    passages = [*itertools.chain(*items), *held]
    with device_round.hosted(own, policy, passages, tmp_path) as run:
        summary = loop.walk(run, base, items, held, tmp_path)
    for row in summary["ladder"]:
        mine = told["rows"][row["name"]]
        values = [line[row["name"]] for line in summary["items"]]
        assert mine["values"] == pytest.approx(values), row["name"]
        assert mine["empty_rate"] == pytest.approx(row["empty_rate"])
    assert len(summary["ladder"]) == len(told["rows"]) == 8
    for mine, line in zip(told["rounds"], summary["rounds"], strict=True):
        # Of float32 sums in two orders.
        assert mine.pop("entropy") == pytest.approx(line["entropy"], rel=1e-5)
        assert mine.keys() >= {"diversity", "sampled_mean"}
        assert {key: pytest.approx(line[key]) for key in mine} == mine
