"""One process sees one CPU device; the eight of a mesh live in a child process."""

import json
import subprocess
import sys

import golden_models
import jax
import pytest
from jax.sharding import PartitionSpec as P

from seal_jax.models import hf_config, placement
from seal_jax.runtime import meshes

CHILD = """
import json, sys
import jax, numpy as np
import golden_models
from seal_jax.models import (hf, hf_weights, lora, placement)
from seal_jax.runtime import meshes

read = []
plain_read = hf_weights._read
def recorded(rule, slices, bounds, dtype):
    out = plain_read(rule, slices, bounds, dtype)
    read.append(out.size)
    return out

hf_weights._read = recorded

def compare(name, data, model):
    cfg, params = golden_models.load(name)
    tokens, is_key = golden_models.batch(name)
    tokens, is_key = (np.resize(x, (8, x.shape[1])) for x in (tokens, is_key))
    delta = lora.init(jax.random.key(0), cfg, targets=tuple(cfg.linears()), rank=2)
    delta = jax.tree.map(lambda x: x + 0.03, delta)
    one = golden_models.forward(cfg, params, tokens, is_key, delta)

    read.clear()
    m = meshes.make_mesh(data=data, model=model)
    shardings = placement.param_shardings(cfg, m)
    path = golden_models.GOLDEN / name / "model"
    sharded = hf.load_params(path, cfg, sharding=shardings)
    whole = hf.load_params(path, cfg, sharding=meshes.replicated(m))
    rows = meshes.batch_sharding(m)
    out = golden_models.forward(
        cfg,
        sharded,
        jax.device_put(tokens, rows),
        jax.device_put(is_key, rows),
        jax.device_put(delta, meshes.replicated(m)),
    )
    leaves = jax.tree.leaves
    equal = lambda a, b: all(map(np.array_equal, leaves(a), leaves(b)))
    placed = jax.tree.map(lambda x: x.sharding, sharded)
    sizes = [max(s.data.size for s in x.addressable_shards) for x in leaves(sharded)]
    return {
        "devices": jax.device_count(),
        "used": len(out.devices()),
        "gap": float(np.abs(one - out).max()),
        "same": equal(params, sharded),
        "whole": equal(params, whole),
        "placed": leaves(placed) == leaves(shardings),
        "largest_block": max(sizes) / max(x.size for x in leaves(params)),
        "read": sum(read) / sum(x.size for x in leaves(params)),
    }

print(json.dumps([compare(*case) for case in json.loads(sys.argv[1])]))
"""


# Model, sizes of the axes, share of the largest leaf that a device holds. qwen2 has 4
# heads and 2 key/value heads; the embedding, of 264 tokens, is the largest leaf.
CASES = [("qwen2", 8, 1, 1.0), ("qwen2", 2, 4, 0.25), ("llama", 4, 2, 0.5)]


@pytest.fixture(scope="module")
def compared(child_env):
    env = child_env | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    env["PYTHONPATH"] += f":{golden_models.GOLDEN.parent}"
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            CHILD,
            json.dumps([c[:3] for c in CASES]),
        ],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_mesh_gives_what_one_device_gives(case, compared):
    found = dict(compared[CASES.index(case)])
    assert found.pop("gap") < 1e-4
    # Both loads read every element once, however many devices hold it.
    assert found == {
        "devices": 8,
        "used": 8,
        "same": True,
        "whole": True,
        "placed": True,
        "largest_block": case[3],
        "read": 2.0,
    }


def test_the_cuts_of_a_real_model():
    raw = hf_config.to_json(golden_models.load("qwen25")[0]) | {
        "hidden_size": 3584,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 18944,
        "vocab_size": 152064,
    }
    cfg = hf_config.parse(raw, dtype="bfloat16")

    def specs(data, model):
        devices = jax.sharding.AbstractMesh((data, model), ("data", "model"))
        tree = placement.param_shardings(cfg, devices)
        flat = jax.tree.leaves_with_path(tree)
        return {"/".join(k.key for k in path): s.spec for path, s in flat}

    cut = specs(2, 4)
    layer = {
        "input_norm/scale": P(None),
        "post_norm/scale": P(None),
        "q_proj/kernel": P(None, "model"),
        "q_proj/bias": P("model"),
        "k_proj/kernel": P(None, "model"),
        "k_proj/bias": P("model"),
        "v_proj/kernel": P(None, "model"),
        "v_proj/bias": P("model"),
        "o_proj/kernel": P("model", None),
        "gate_proj/kernel": P(None, "model"),
        "up_proj/kernel": P(None, "model"),
        "down_proj/kernel": P("model", None),
    }
    layers = [f"layers_{i}" for i in range(cfg.layers)]
    assert cut == {
        "embed": P("model", None),
        "lm_head": P(None, "model"),
        "final_norm/scale": P(None),
        **{f"{name}/{stem}": spec for name in layers for stem, spec in layer.items()},
    }
    # 28 heads and 4 key/value heads do not divide by 8: those linears stay whole.
    eight = specs(1, 8)
    whole = {k for k in cut if cut[k] != eight[k]}
    stems = ("q_proj/kernel", "q_proj/bias", "k_proj/kernel", "k_proj/bias")
    stems += ("v_proj/kernel", "v_proj/bias", "o_proj/kernel")
    assert whole == {f"{name}/{stem}" for name in layers for stem in stems}
    assert all(set(eight[k]) == {None} for k in whole)


def test_make_mesh_on_the_devices_there_are():
    m = meshes.make_mesh()
    assert dict(m.shape) == {"data": 1, "model": 1}
    assert meshes.replicated(m).spec == P()
    assert meshes.batch_sharding(m).spec == P("data")


@pytest.mark.parametrize(("data", "model"), [(0, 1), (1, -1), (10_000, 1), (64, 64)])
def test_make_mesh_refuses(data, model):
    with pytest.raises(ValueError) as caught:
        meshes.make_mesh(data=data, model=model)
    assert f"data={data} x model={model}" in str(caught.value)
    assert "devices" in str(caught.value)
