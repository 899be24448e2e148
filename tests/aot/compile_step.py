"""Compiles the packed inner loop at a real model's shapes for an H200 that is not here.

    python tests/aot/compile_step.py TARGETS SLOTS ACTIVE POOL STEP_TOKENS

`TARGETS` is a comma-separated list of Qwen2.5-7B's linears, or "all". Needs jax's CUDA
plugin, but no GPU and no CUDA. Prints one JSON object: bytes, by XLA's own analysis,
and seconds.
"""

import functools
import json
import os
import pathlib
import sys
import time

# The plugin would look for a driver.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from seal_jax import inner, model, packed, plan

TARGET = pathlib.Path(__file__).parent / "h200.txtpb"
QWEN_7B = model.ModelConfig(
    "qwen2",
    vocab=152064,
    width=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    ff=18944,
    max_position=32768,
    rope_theta=1e6,
    qkv_bias=True,
    dtype="bfloat16",
)


def main(targets: str, *sizes: str) -> dict[str, float]:
    slots, active, pool, step_tokens = map(int, sizes)
    names = tuple(QWEN_7B.linears()) if targets == "all" else tuple(targets.split(","))
    cfg = inner.InnerConfig(
        targets=names,
        rank=32,
        alpha=64.0,
        plan=plan.PlanConfig(16, 1024, step_tokens, slots, active),
        pool=pool,
    )
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=TARGET.read_text(), topology="1x1x1"
    )
    mesh = topologies.make_mesh(topology, (1,), ("d",))
    placed = NamedSharding(mesh, PartitionSpec())
    args = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed),
        packed.arguments(QWEN_7B, cfg),
    )
    run = functools.partial(packed.run_block, arch=QWEN_7B, cfg=cfg)
    begin = time.monotonic()
    jitted = jax.jit(run, donate_argnums=1, out_shardings=placed)
    compiled = jitted.lower(*args).compile()
    used = compiled.memory_analysis()
    text = compiled.as_text()
    return {
        "seconds": time.monotonic() - begin,
        "argument_bytes": used.argument_size_in_bytes,
        "output_bytes": used.output_size_in_bytes,
        "donated_bytes": used.alias_size_in_bytes,
        "temporary_bytes": used.temp_size_in_bytes,
        "total_bytes": used.argument_size_in_bytes
        + used.output_size_in_bytes
        - used.alias_size_in_bytes
        + used.temp_size_in_bytes,
        # Frozen weights or the logits of all tokens in float32.
        "wide_weights": sum(
            f"f32[{d},{f}]" in text for d, f in QWEN_7B.linears().values()
        ),
        "all_logits": f"f32[{step_tokens},{QWEN_7B.vocab}]" in text,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
