"""The TPU kernels, compiled to the end for chips that are not there.

Needs the libtpu package, no TPU: pytest -m aot tests/aot/test_aot_tpu.py
"""

import importlib.util
import json
import subprocess
import sys

import pytest

from seal_kernels.lora_matmul import mosaic_tpu_blocks as blocks

pytestmark = pytest.mark.aot

KINDS = {"v5e": "TPU v5 lite", "v6e": "TPU v6 lite"}
FORWARD = {"lora_matmul_side": 1, "lora_matmul_core": 1}
BACKWARD = {"lora_matmul_side": 2, "lora_matmul_core": 1}
BOTH = {"lora_matmul_side": 3, "lora_matmul_core": 2}
# The forward pass alone, and again for the backward pass.
SPLASH = {
    f"splash_mha_{kernel}": 1
    for kernel in (
        "fwd_no_residuals",
        "fwd_residuals",
        "dq_no_residuals",
        "dkv_no_residuals",
    )
}
PROGRAMS = {
    **{f"{layer}/forward": FORWARD for layer in ("q", "v", "gate", "down")},
    **{f"{layer}/backward": BACKWARD for layer in ("q", "v", "gate", "down")},
    "float32/forward": FORWARD,
    "api_packed/vjp": BOTH,
    "api_dense/vjp": BOTH,
    "attention/vjp": SPLASH,
    "attention_ragged/vjp": SPLASH,
}


@pytest.mark.parametrize("target", KINDS)
def test_every_program_compiles_to_the_kernels_alone(target, root, child_env):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed; pip install libtpu, as jax[tpu] pins it")
    script = root / "tests" / "aot" / "compile_tpu.py"
    done = subprocess.run(
        [sys.executable, str(script), target],
        # libtpu takes a lock, as if each process were to own a chip; none does.
        env=child_env | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["device_kind"] == KINDS[target]
    programs = {program["name"]: program for program in result["programs"]}
    calls = {
        name: {kernel: len(used) for kernel, used in program["kernels"].items()}
        for name, program in programs.items()
    }
    assert calls == PROGRAMS
    for name, program in programs.items():
        # No product is XLA's; nothing as large as 3584 wide rows (14 MiB) is set aside,
        # nor scores of all heads (112 MiB). A v6e keeps q, k and v in both layouts.
        assert program["dots"] == 0, name
        most = 16 if "attention" in name else 4
        assert program["temp_bytes"] < most * blocks.MIB, name
        for used in program["kernels"].values():
            assert max(used) <= blocks.VMEM_LIMIT, name
