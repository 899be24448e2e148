"""Compiles the TPU kernels for a chip that is not there, and prints what came out.

    python tests/aot/compile_tpu.py v5e

One target per process, on any machine with the libtpu package; the last line is JSON:

    {"target": "v5e", "device_kind": "TPU v5 lite", "jax": "0.11.2", "programs": [
      {"name": "q/forward", "kernels": {"lora_matmul_core": [bytes of VMEM], ...},
       "dots": 0, "temp_bytes": 0, "seconds": 1.2}, ...]}

Shapes are those of a packed training step on Qwen2.5-7B. `dots` counts the products
that XLA does itself; on a TPU they may be written as convolutions.
"""

import collections
import functools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# libtpu reads these when jax loads it: no metadata server, no device.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
os.environ["TPU_ACCELERATOR_TYPE"] = {"v5e": "v5litepod-4", "v6e": "v6e-4"}.get(
    sys.argv[-1], ""
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from seal_kernels.attention import api as attention
from seal_kernels.lora_matmul import api, mosaic_tpu

ROWS, TILE, SLOTS, RANK = 2048, 16, 48, 32
LINEARS = {
    "q": (3584, 3584),
    "v": (3584, 512),
    "gate": (3584, 18944),
    "down": (18944, 3584),
}


def main(target: str) -> None:
    """Compiles everything for `target`, `v5e` or `v6e`, and prints one line."""
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{target}:2x2"
    )
    device = topology.devices[0]
    mesh = jax.sharding.Mesh(
        np.array([device]), ("d",), axis_types=(jax.sharding.AxisType.Explicit,)
    )
    with jax.set_mesh(mesh):
        compiled = [
            {"name": name, **_compile(function, args)}
            for name, function, args in _programs()
        ]
    result = {
        "target": target,
        "device_kind": device.device_kind,
        "jax": jax.__version__,
        "programs": compiled,
    }
    print(json.dumps(result))


def _programs() -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """Name, function and arguments of all that is compiled."""
    slots = _shape((ROWS // TILE,), jnp.int32)
    for name, (width, features) in LINEARS.items():
        x, dy = _shape((ROWS, width)), _shape((ROWS, features))
        u, w = _shape((ROWS, RANK)), _shape((width, features))
        a = _shape((SLOTS, RANK, width), jnp.float32)
        b = _shape((SLOTS, RANK, features), jnp.float32)
        yield f"{name}/forward", mosaic_tpu.forward, (x, w, a, b, slots)
        yield f"{name}/backward", mosaic_tpu.backward, (dy, x, u, w, a, b, slots)
    # The rest once each, on the smallest layer.
    x, w = _shape((ROWS, 3584)), _shape((3584, 512))
    a, b = _shape((SLOTS, RANK, 3584)), _shape((SLOTS, RANK, 512))
    dy = _shape((ROWS, 512))
    yield "api_packed/vjp", _vjp_packed, (x, w, a, b, slots, dy)
    x, dy = _shape((SLOTS, 128, 3584)), _shape((SLOTS, 128, 512))
    yield "api_dense/vjp", _vjp_dense, (x, w, a, b, dy)
    # Attention of a step's rows, and of rows and heads that fill no tile.
    for name, t, n, heads, h in (
        ("attention", 1024, 28, 4, 128),
        ("attention_ragged", 300, 4, 2, 64),
    ):
        q, kv = _shape((2, t, n, h)), _shape((2, t, heads, h))
        bound = _shape((2, t), jnp.int32)
        yield f"{name}/vjp", _vjp_attention, (q, kv, kv, bound, bound, q)
    floats = [(64, 512), (512, 256), (3, 8, 512), (3, 8, 256)]
    x, w, a, b = [_shape(shape, jnp.float32) for shape in floats]
    yield "float32/forward", mosaic_tpu.forward, (x, w, a, b, _shape((8,), jnp.int32))


def _shape(shape: tuple[int, ...], dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _vjp_packed(x, w, a, b, slots, dy):
    op = functools.partial(api.lora_matmul_packed, implementation="mosaic_tpu")
    y, back = jax.vjp(lambda x, a, b: op(x, w, a, b, slots), x, a, b)
    return y, back(dy)


def _vjp_dense(x, w, a, b, dy):
    op = functools.partial(api.lora_matmul, implementation="mosaic_tpu")
    op = jax.vmap(op, in_axes=(0, None, 0, 0))
    y, back = jax.vjp(lambda x, a, b: op(x, w, a, b), x, a, b)
    return y, back(dy)


def _vjp_attention(q, k, v, first, end, dy):
    op = lambda q, k, v: attention.attention(q, k, v, first, end, "splash")
    y, back = jax.vjp(op, q, k, v)
    return y, back(dy)


def _compile(function: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    text = compiled.as_text()
    kernels = collections.defaultdict(list)
    # What follows a call may go over lines, and small ones say nothing of memory.
    calls = r'%(\w+)[^\n]*custom_call_target="tpu_custom_call"'
    for call in re.finditer(calls, text):
        used = r'"used_scoped_memory_configs":\[(.*?)\]'
        configs = re.search(used, text[call.end() :], re.DOTALL).group(1)
        sizes = re.findall(r'"size":"(\d+)"', configs)
        kernels[call.group(1)].append(int(sizes[0]) if sizes else 0)
    return {
        "kernels": kernels,
        "dots": len(re.findall(r"= \S+ (?:dot|convolution)\(", text)),
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "seconds": round(seconds, 2),
    }


if __name__ == "__main__":
    if not os.environ["TPU_ACCELERATOR_TYPE"]:
        sys.exit(f"compile_tpu.py {' '.join(sys.argv[1:])}: name one of v5e, v6e")
    main(sys.argv[-1])
