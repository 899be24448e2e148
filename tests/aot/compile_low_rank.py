"""Compiles Triton's low-rank products and Adam for GPUs that are not here.

    python tests/aot/compile_low_rank.py bfloat16-32:h200 ...

A target is `CASE:GPU`, with what `compile_attention.GPUS` has. Needs jax's CUDA plugin,
but no GPU and no CUDA. Prints one line of JSON for each: the custom calls of a training
step's products and of the optimizer's step, bytes of temporary memory.
"""

# First, since it says where jax may look for devices.
import compile_attention  # isort: skip
import json
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pretend_h200
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from seal_kernels.adam import api as adam
from seal_kernels.lora_matmul import api

# Rows, input and output width, adapters, rank; dtypes of rows and of adapters.
CASES = {
    "bfloat16-32": (2048, 3584, 512, 40, 32, jnp.bfloat16, jnp.bfloat16),
    "bfloat16-128": (2048, 2048, 8192, 12, 128, jnp.bfloat16, jnp.bfloat16),
    "bfloat16-480": (1024, 3584, 512, 8, 480, jnp.bfloat16, jnp.bfloat16),
    "float32-32": (1024, 896, 4864, 16, 32, jnp.float32, jnp.float32),
    "float32-128": (1024, 896, 896, 16, 128, jnp.float32, jnp.float32),
    "mixed-128": (2048, 2048, 8192, 12, 128, jnp.bfloat16, jnp.float32),
    "ragged": (100, 20, 72, 3, 5, jnp.bfloat16, jnp.bfloat16),
}
RULE = adam.Rule(0.9, 0.999, 1e-8, 2.0)


def main(targets: list[str]) -> None:
    for target in targets:
        case, gpu = target.split(":")
        name, capability, shared = compile_attention.GPUS[gpu]
        pretend_h200.begin(device_kind=name, compute_capability=capability)
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=compile_attention.described(name, capability, shared),
            topology="1x1x1",
        )
        mesh = topologies.make_mesh(topology, (1,), ("device",))
        placed = NamedSharding(mesh, PartitionSpec())
        # The mesh says for which device kernels are made.
        with jax.set_mesh(mesh):
            report = compile_case(case, placed)
        print(json.dumps({"target": target, **report}), flush=True)


def compile_case(case: str, placed: NamedSharding) -> dict[str, Any]:
    """What became of forward and backward products, and of a step along the slopes."""
    m, d, f, s, r, dtype, of_adapters = CASES[case]

    def shape(*sizes: int, dtype: Any = dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=placed)

    def run(x, w, a, b, slots, dy, old, by):
        call = lambda x, a, b: api.lora_matmul_packed(x, w, a, b, slots)
        y, back = jax.vjp(call, x, a, b)
        dx, da, db = back(dy)
        return y, dx, db, adam.step(old, da, by, RULE)

    wide = [shape(s, r, d, dtype=jnp.float32)] * 3
    by = [shape(s, dtype=kind) for kind in (bool, jnp.float32, jnp.float32, jnp.int32)]
    args = (
        *(shape(m, d), shape(d, f)),
        *(shape(s, r, width, dtype=of_adapters) for width in (d, f)),
        shape(m, dtype=jnp.int32),
        shape(m, f),
        adam.Moved(*wide, shape(s, r, d)),
        adam.Step(*by),
    )
    compiled = jax.jit(run, out_shardings=placed, donate_argnums=6).lower(*args)
    compiled = compiled.compile()
    text = compiled.as_text()
    calls = re.findall(
        r'custom-call\(.*__gpu\$xla\.gpu\.triton.*?op_name="([^"]*)"', text
    )
    return {
        "kernels": sorted(call.split("/")[-2] for call in calls),
        "aliased": compiled.memory_analysis().alias_size_in_bytes,
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
