"""Triton's low-rank products and Adam, compiled for GPUs that are not here."""

import importlib.util

import pytest

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(
        importlib.util.find_spec("jax_cuda13_plugin") is None,
        reason="jax-cuda13-plugin is not installed; run `make test-aot`",
    ),
]

PRODUCTS = [f"low_rank_{name}" for name in "abuvxy"]
# What `auto` takes: wide ranks and float32 also where shared memory is small; none for
# sizes that no block divides, and before Ampere.
KERNELS = {
    "bfloat16-32:h200": ["adam_step", *PRODUCTS],
    "bfloat16-128:h200": ["adam_step", *PRODUCTS],
    "bfloat16-128:a10": ["adam_step", *PRODUCTS],
    "mixed-128:a10": ["adam_step", *PRODUCTS],
    "bfloat16-480:a10": ["adam_step", *PRODUCTS],
    "float32-128:h200": ["adam_step", *PRODUCTS],
    "float32-128:a10": ["adam_step", *PRODUCTS],
    "bfloat16-128:a100": ["adam_step", *PRODUCTS],
    "ragged:h200": [],
    "bfloat16-32:t4": [],
}


@pytest.fixture(scope="module")
def reports(compiled_by):
    """What the compiler made, by target."""
    return compiled_by("compile_low_rank.py", [*KERNELS])


@pytest.mark.parametrize("target", KERNELS)
def test_what_auto_takes(reports, target):
    assert reports[target]["kernels"] == KERNELS[target]


def test_no_adapter_is_copied(reports):
    """Weights, moments and copies of 40 adapters in float32 and two bytes: 64 MB, all
    updated where they lie; beside rows nothing is held."""
    report = reports["bfloat16-32:h200"]
    assert report["aliased"] == 40 * 32 * 3584 * (3 * 4 + 2)
    rows = 2 * 2048 * (3584 + 512)
    assert report["temp_bytes"] < 1.5 * rows
