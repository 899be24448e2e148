"""Compiles what trains and scores for a device that is not here; prints its scatters.

    python tests/aot/compile_order.py h200      or v5e

One target per process. The last line is JSON: for each program the floating-point
scatters whose result depends on the order in which threads arrive. The model is small:
what is looked at does not depend on sizes.
"""

import dataclasses
import functools
import json
import os
import pathlib
import runpy
import sys
from collections.abc import Callable, Iterator

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-4"
sys.path.append(os.path.join(os.path.dirname(__file__), "../../benchmarks"))

import jax
import jax.numpy as jnp
from hlo_order import unordered_scatters
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from seal_jax.models import decoder, lora
from seal_jax.runtime import config_rules
from seal_jax.training import (
    finetune,
    influence,
    inner,
    packed,
    prefer,
    sft_rows,
    teacher,
)
from seal_jax.training.settings import ImitateConfig, PlanConfig

HERE = pathlib.Path(__file__).parent
ARCH = decoder.Arch("llama", 512, 128, 2, 4, 2, 32, 256, 256, dtype="bfloat16")
TARGETS = ("q_proj", "down_proj")
SIZES = PlanConfig(tile=8, row_tokens=128, step_tokens=256, slots=6, active=4)


def programs() -> Iterator[tuple[str, Callable, tuple]]:
    """Name, function and arguments of each."""
    plain = inner.EngineConfig(TARGETS, 8, 16.0, SIZES, pool=6)
    chunks = dataclasses.replace(SIZES, active=2, chunk_tokens=64)
    taught = dataclasses.replace(plain, teach="jsd", bank=32, resumes=True)
    for name, arch, cfg in (
        ("packed", ARCH, plain),
        ("packed_chunks", ARCH, dataclasses.replace(plain, plan=chunks)),
        ("packed_float8", dataclasses.replace(ARCH, base_dtype="float8"), plain),
        ("packed_taught", ARCH, taught),
        ("packed_tiles", dataclasses.replace(ARCH, kernel="xla"), plain),
        (
            "packed_extended",
            ARCH,
            dataclasses.replace(
                plain, frozen_rank=8, frozen_rows=3, orthogonal=1.0, divergence=True
            ),
        ),
    ):
        run = functools.partial(packed.run_block, arch=arch, cfg=cfg)
        yield name, run, packed.arguments(arch, cfg)
    read = functools.partial(teacher.read, arch=ARCH)
    yield "teacher", read, teacher.arguments(ARCH, taught, None, SIZES.row_tokens)
    run = functools.partial(influence.run_block, arch=ARCH, cfg=plain)
    size = influence.sizes(plain, targets=3, most=4)
    yield "influence", run, influence.arguments(ARCH, plain, None, size)
    params = jax.eval_shape(lambda: decoder.init_params(jax.random.key(0), ARCH))
    rows = sft_rows.lay([], [], shape=(2, 128), eos=0)
    rows = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, rows))
    zeros = jax.eval_shape(lambda: jax.tree.map(jnp.zeros_like, params))
    total = jax.ShapeDtypeStruct((), jnp.float32), zeros
    accumulate = functools.partial(finetune._accumulate, arch=ARCH, mesh=None)
    yield "full", accumulate, (params, total, rows)
    delta = jax.eval_shape(
        lambda: lora.init(jax.random.key(0), ARCH, targets=TARGETS, rank=8)
    )
    yield "merge", lora.merge, (params, delta)
    yield from weighed(params)


def weighed(params: dict) -> Iterator[tuple[str, Callable, tuple]]:
    """The steps of pairs and of groups, and what they read first."""
    values = runpy.run_path(str(HERE.parents[1] / "configs" / "tiny.py"))
    group = values["get_config"]().imitate
    group.lora.targets = TARGETS
    for rule in ("dpo", "grpo"):
        group.rule = rule
        cfg = config_rules.build(ImitateConfig, group.to_dict(), "config.imitate")
        found = []
        prefer.expect(
            params,
            100,
            arch=ARCH,
            cfg=cfg,
            eos=0,
            call=lambda fn, *args, found=found, **static: (
                found.append((functools.partial(fn, **static), args))
                or jax.eval_shape(functools.partial(fn, **static), *args)
            ),
        )
        (_, read, step) = found
        if rule == "dpo":
            yield "log_probs", *read
        yield f"step_{rule}", *step


def main(target: str) -> dict[str, list[str]]:
    if target == "h200":
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=(HERE / "h200.txtpb").read_text(),
            topology="1x1x1",
        )
        mesh = topologies.make_mesh(topology, (1,), ("d",))
    else:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{target}:2x2"
        )
        mesh = jax.sharding.Mesh(topology.devices[:1], ("d",))
    placed = NamedSharding(mesh, PartitionSpec())
    found = {}
    for name, run, args in programs():
        args = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), args
        )
        packs = target == "h200" and name.startswith(("packed", "influence"))
        options = packed.GPU_OPTIONS if packs else None
        compiled = jax.jit(run, out_shardings=placed).lower(*args).compile(options)
        found[name] = unordered_scatters(compiled.as_text())
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
