"""Compiles the Hopper kernels for an H200 on a machine without a GPU.

    python tests/aot/compile_gpu.py qwen2.5-7b/q/packed:forward ...

Needs jax-cuda13-plugin and jax-cuda13-pjrt, no CUDA. A target is `case:direction`, with
a case of `seal_kernels.lora_matmul.cases`, or `case:direction:index` for one of its
candidate tile sizes. Prints one line of JSON for each: what ptxas made of each kernel,
what XLA calls, and bytes of temporary memory. A process of its own, since LLVM ends it
on an instruction that it does not know.
"""

import functools
import json
import os
import pathlib
import re
import sys
import tempfile
from typing import Any

# Before jax is imported: it looks for devices, and the dumps are switched on, then.
os.environ["JAX_PLATFORMS"] = "cpu"
DUMP = tempfile.TemporaryDirectory()
os.environ["MOSAIC_GPU_DUMP_TO"] = DUMP.name
os.environ["MOSAIC_GPU_DUMP_PTX"] = "1"
os.environ["MOSAIC_GPU_DUMP_PTXAS"] = "1"
os.environ["MOSAIC_GPU_DUMP_SASS"] = "1"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from seal_kernels.lora_matmul import cases, mosaic_gpu  # noqa: E402

H200 = pathlib.Path(__file__).with_name("h200.txtpb")


def main(targets: list[str]) -> None:
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=H200.read_text(), topology="1x1x1"
    )
    mesh = topologies.make_mesh(topology, (1,), ("device",))
    sharding = NamedSharding(mesh, PartitionSpec())
    for target in targets:
        name, direction, *index = target.split(":")
        case = cases.CASES[name]
        config = mosaic_gpu.candidates(case)[int(index[0])] if index else None
        report = compile_case(case, direction, config, sharding)
        print(json.dumps({"target": target, **report}), flush=True)


def compile_case(
    case: cases.Case,
    direction: str,
    config: mosaic_gpu.Config | None,
    sharding: NamedSharding,
) -> dict[str, Any]:
    """What became of `mosaic_gpu.forward` or `.backward` for the case."""

    def shape(*sizes: int, dtype: Any = case.dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    adapters = (
        shape(case.D, case.F),
        shape(case.S, case.R, case.D, dtype=jnp.float32),
        shape(case.S, case.R, case.F, dtype=jnp.float32),
        shape(case.M // case.tile, dtype=jnp.int32),
    )
    rows = [shape(case.M, case.D)]
    if direction == "backward":
        rows = [shape(case.M, case.F), *rows, shape(case.M, case.R)]
    run = functools.partial(getattr(mosaic_gpu, direction), config=config)
    compiled = jax.jit(run, out_shardings=sharding).lower(*rows, *adapters).compile()
    text = compiled.as_text()
    report = {
        "kernels": [_kernel(ptxas) for ptxas in sorted(_dumped("*.ptxas"))],
        "custom_calls": sorted(re.findall(r'custom_call_target="([^"]+)"', text)),
        "dots": len(re.findall(r" dot\(", text)),
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }
    for file in _dumped("*"):
        file.unlink()
    return report


def _dumped(pattern: str) -> list[pathlib.Path]:
    return list(pathlib.Path(DUMP.name).glob(pattern))


def _kernel(ptxas: pathlib.Path) -> dict[str, Any]:
    """What ptxas says of one kernel, and the multiplications that are in it."""
    said = ptxas.read_text()
    resources = ptxas.with_suffix(".resources.txt").read_text()
    # Each barrier is 8 bytes of shared memory beside the buffers.
    barriers = re.findall(r"num_barriers=(\d+),[^)]*\): (\d+)", resources)
    sass = ptxas.with_suffix(".sass")
    if not sass.exists():
        sass = ptxas.with_suffix(".sass_ctrl")
    return {
        "name": ptxas.stem.rsplit("_", 1)[0],
        "registers": _number(r"Used (\d+) registers", said),
        "spill_bytes": _number(r"(\d+) bytes spill stores", said)
        + _number(r"(\d+) bytes spill loads", said),
        "serialised": "are serialized" in said,
        "shared_bytes": _number(r"smem_scratch_bytes=(\d+)", resources)
        + sum(8 * int(size) * int(count) for size, count in barriers),
        "wgmma": ptxas.with_suffix(".ptx").read_text().count("wgmma.mma_async"),
        # Machine code can be read only where nvdisasm is installed.
        "hgmma": sass.read_text().count("HGMMA") if sass.exists() else None,
    }


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern!r} in what the compiler said: {text!r}")
    return int(found[1])


if __name__ == "__main__":
    main(sys.argv[1:])
