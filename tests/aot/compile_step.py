"""Compiles the packed inner loop at a real model's shapes for an H200 that is not here.

    python tests/aot/compile_step.py MODEL INNER ATTENTION

`MODEL` is one of `MODELS`; `INNER` is a JSON object of `inner.EngineConfig`'s fields;
`ATTENTION` is `model.attention`. Needs jax's CUDA plugin and tokamax, but no GPU and no
CUDA. Prints one JSON object: bytes, by XLA's own analysis, and seconds.
"""

import dataclasses
import functools
import json
import os
import pathlib
import sys
import time
from typing import Any

# The plugin would look for a driver.
os.environ["JAX_PLATFORMS"] = "cpu"

import hlo_scores
import jax
import pretend_h200
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from seal_jax.models import decoder
from seal_jax.training import inner, packed
from seal_jax.training.settings import PlanConfig

TARGET = pathlib.Path(__file__).parent / "h200.txtpb"
MODELS = {
    "qwen2.5-7b": decoder.Arch(
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
    ),
    "llama-3.2-1b": decoder.Arch(
        "llama",
        vocab=128256,
        width=2048,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        ff=8192,
        max_position=131072,
        rope_theta=5e5,
        rope_scaling=decoder.RopeScaling(32.0, 1.0, 4.0, 8192),
        norm_eps=1e-5,
        tied=True,
        dtype="bfloat16",
    ),
}


def main(name: str, fields: str, attention: str) -> dict[str, Any]:
    pretend_h200.begin()
    arch, raw = (
        dataclasses.replace(MODELS[name], attention=attention),
        json.loads(fields),
    )
    sizes = PlanConfig(**raw.pop("plan"))
    cfg = inner.EngineConfig(targets=tuple(raw.pop("targets")), plan=sizes, **raw)
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=TARGET.read_text(), topology="1x1x1"
    )
    mesh = topologies.make_mesh(topology, (1,), ("d",))
    placed = NamedSharding(mesh, PartitionSpec())
    args = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed),
        packed.arguments(arch, cfg),
    )
    run = functools.partial(packed.run_block, arch=arch, cfg=cfg)
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
            f"f32[{d},{f}]" in text for d, f in arch.linears().values()
        ),
        "scores": hlo_scores.shapes(text, sizes.row_tokens),
        "all_logits": f"f32[{sizes.step_tokens},{arch.vocab}]" in text,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
