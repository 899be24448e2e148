"""Compiles attention for a GPU that is not here, and prints what came out.

    python tests/aot/compile_attention.py qwen2.5-7b:tokamax:both ...

A target is `CASE:IMPLEMENTATION:PASS[:GPU]`, the pass `forward`, `both` or `decode`, on
an H200 or what `GPUS` has besides. Needs
jax's CUDA plugin and tokamax, but no GPU and no CUDA. Prints one line of JSON for each:
the custom calls, shapes of whole rows' scores, bytes of temporary memory.
"""

import json
import os
import pathlib
import re
import sys
import time
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.append(os.path.join(os.path.dirname(__file__), "../../benchmarks"))

import hlo_scores
import jax
import jax.numpy as jnp
import pretend_h200
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from seal_kernels.attention import api

H200 = pathlib.Path(__file__).with_name("h200.txtpb")

# Rows, positions, query heads, key heads, head size; bytes of a number.
CASES = {
    "qwen2.5-7b": (2, 1024, 28, 4, 128, 2),
    "llama-3.2-1b": (2, 5120, 32, 8, 64, 2),
    # Neither rows nor heads fill a tile.
    "ragged": (3, 200, 6, 2, 64, 2),
    "short": (8, 64, 28, 4, 128, 2),
    "float32": (2, 320, 4, 2, 128, 4),
}
DTYPES = {2: jnp.bfloat16, 4: jnp.float32}
# Name, compute capability, bytes of shared memory.
GPUS = {
    "h200": ("NVIDIA H200", "9.0", 232448),
    "a100": ("NVIDIA A100-SXM4-80GB", "8.0", 166912),
    "a10": ("NVIDIA A10", "8.6", 101376),
    "t4": ("Tesla T4", "7.5", 65536),
}
# Rows, slots, query heads, key heads, head size.
CACHES = {
    "qwen2.5-7b": (64, 2432, 28, 4, 128),
    "llama-3.2-1b": (96, 6976, 32, 8, 64),
}


def main(targets: list[str]) -> None:
    for target in targets:
        case, implementation, what, *gpu = target.split(":")
        name, capability, shared = GPUS[gpu[0] if gpu else "h200"]
        pretend_h200.begin(device_kind=name, compute_capability=capability)
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=described(name, capability, shared),
            topology="1x1x1",
        )
        mesh = topologies.make_mesh(topology, (1,), ("device",))
        placed = NamedSharding(mesh, PartitionSpec())
        # The mesh says for which device kernels are made.
        with jax.set_mesh(mesh):
            report = compile_case(case, implementation, what, placed)
        print(json.dumps({"target": target, **report}), flush=True)


def described(name: str, capability: str, shared: int) -> str:
    """An H200's description, with what a kernel may ask of another GPU changed."""
    text = H200.read_text()
    major, minor = capability.split(".")
    ours = "major: 9\n    feature_extension: ACCELERATED_FEATURES"
    if capability != "9.0":
        assert ours in text
        text = text.replace(ours, f"major: {major}\n    minor: {minor}")
    return text.replace("NVIDIA H200", name).replace("232448", str(shared))


def compile_case(
    case: str, implementation: str, what: str, placed: NamedSharding
) -> dict[str, Any]:
    """What became of a pass over the case's rows, or of decoding with its cache."""

    dtype = jnp.bfloat16 if what == "decode" else DTYPES[CASES[case][-1]]

    def shape(*sizes: int, dtype: Any = dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=placed)

    def attend(q, k, v, first, end):
        return api.attention(q, k, v, first, end, implementation)

    def both(q, k, v, first, end, dy):
        y, back = jax.vjp(lambda *qkv: attend(*qkv, first, end), q, k, v)
        return y, back(dy)

    if what == "decode":
        b, s, n, heads, h = CACHES[case]
        cache, lengths = shape(b, heads, s, h), shape(b, dtype=jnp.int32)
        run = lambda *args: api.decode(*args, implementation=implementation)
        args = shape(b, n, h), cache, cache, lengths
    else:
        b, s, n, heads, h, _ = CASES[case]
        q, kv, bound = (
            shape(b, s, n, h),
            shape(b, s, heads, h),
            shape(b, s, dtype=jnp.int32),
        )
        run = both if what == "both" else attend
        args = q, kv, kv, bound, bound, *([q] if what == "both" else [])
    begin = time.perf_counter()
    compiled = jax.jit(run, out_shardings=placed).lower(*args).compile()
    text = compiled.as_text()
    return {
        "seconds": round(time.perf_counter() - begin, 1),
        "dots": len(re.findall(r" dot\(", text)),
        "custom_calls": sorted(re.findall(r'custom_call_target="([^"]+)"', text)),
        "scores": hlo_scores.shapes(text, s),
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
