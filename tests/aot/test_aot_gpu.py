"""The Hopper kernels as machine code for an H200, compiled without one."""

import importlib.util

import pytest

from seal_kernels.lora_matmul import cases, mosaic_gpu

pytestmark = pytest.mark.aot

PLUGINS = "jax_cuda13_plugin", "jax_cuda12_plugin"
CANDIDATES = len(mosaic_gpu.candidates(cases.CASES["qwen2.5-7b/q/packed"]))
LINEARS = "q", "k", "gate", "down"
TARGETS = [
    f"qwen2.5-7b/{linear}/packed:{direction}"
    for linear in LINEARS
    for direction in ("forward", "backward")
] + [f"qwen2.5-7b/q/{workload}:backward" for workload in ("dense", "imitate")]
TARGETS += [f"qwen2.5-7b/q/packed:forward:{i}" for i in range(CANDIDATES)]

# Of a thread block on an H200, in bytes.
SHARED_BYTES = 232_448


@pytest.fixture(scope="module")
def reports(compiled_by):
    """What the compiler reported, by target."""
    if not any(importlib.util.find_spec(name) for name in PLUGINS):
        pytest.skip(
            "no CUDA plugin of JAX here; pip install --no-deps the jax-cuda13-plugin "
            "and jax-cuda13-pjrt of this jax's version (no CUDA is needed)"
        )
    return compiled_by("compile_gpu.py", [*TARGETS])


@pytest.mark.parametrize("target", TARGETS)
def test_compiles_for_h200(reports, target):
    report = reports[target]
    names = [kernel["name"] for kernel in report["kernels"]]
    sides = 2 if ":backward" in target else 1
    assert names == ["lora_matmul_core"] + ["lora_matmul_side"] * sides
    for kernel in report["kernels"]:
        assert kernel["spill_bytes"] == 0
        assert not kernel["serialised"]
        assert kernel["registers"] <= 255
        assert kernel["shared_bytes"] <= SHARED_BYTES
        # Of PTX; machine code has as many, where there is a disassembler to see it.
        assert kernel["wgmma"] > 0
        assert kernel["hgmma"] in (None, kernel["wgmma"])


@pytest.mark.parametrize("target", TARGETS)
def test_no_product_is_left_to_xla(reports, target):
    report = reports[target]
    assert report["custom_calls"] == ["mosaic_gpu_v2"] * len(report["kernels"])
    assert report["dots"] == 0
