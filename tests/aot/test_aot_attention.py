"""Attention, compiled for an H200: kernels, and no scores of whole rows."""

import importlib.util

import pytest

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("jax_cuda13_plugin", "tokamax"))),
        reason="jax-cuda13-plugin or tokamax is not installed; run `make test-aot`",
    ),
]

# Calls of kernels: one forwards, of dq and of dk and dv backwards.
CALLS = {"forward": 1, "both": 3, "decode": 1}
MOSAIC, TRITON = "mosaic_gpu_v2", "__gpu$xla.gpu.triton"
KERNELS = [
    "qwen2.5-7b:tokamax:both",
    "llama-3.2-1b:tokamax:both",
    "ragged:tokamax:both",
    "qwen2.5-7b:triton:both",
    "llama-3.2-1b:triton:both",
    "ragged:triton:both",
    "short:tokamax:forward",
    "qwen2.5-7b:tokamax:decode",
    "llama-3.2-1b:tokamax:decode",
]
# What `auto` takes. On an H200 forward tokamax and backward Triton, in float32 Triton
# for both; before Hopper Triton, where a head fits; before Ampere neither.
AUTO = {
    "qwen2.5-7b:auto:both": [TRITON, TRITON, MOSAIC],
    "float32:auto:both": [TRITON] * 3,
    "qwen2.5-7b:auto:both:a100": [TRITON] * 3,
    "qwen2.5-7b:auto:both:a10": [TRITON] * 3,
    "float32:auto:both:a10": [],
    "ragged:auto:both:t4": [],
}
PLAIN = ["qwen2.5-7b:xla:both", "qwen2.5-7b:reference:both", "llama-3.2-1b:xla:decode"]


@pytest.fixture(scope="module")
def reports(compiled_by):
    """What the compiler made, by target."""
    return compiled_by("compile_attention.py", [*KERNELS, *AUTO, *PLAIN])


@pytest.mark.parametrize("target", KERNELS)
def test_the_kernels_do_all(reports, target):
    report = reports[target]
    _, implementation, what = target.split(":")
    kernel = TRITON if implementation == "triton" else MOSAIC
    assert report["custom_calls"] == [kernel] * CALLS[what]
    assert report["dots"] == 0
    if not target.startswith("short"):  # It has many sizes that are multiples of 64.
        assert report["scores"] == []


@pytest.mark.parametrize("target", AUTO)
def test_what_auto_takes(reports, target):
    made = reports[target]["custom_calls"]
    assert [call for call in made if call in (TRITON, MOSAIC)] == AUTO[target]


def test_no_implementation_but_the_reference_holds_the_scores_of_rows(reports):
    assert reports["qwen2.5-7b:reference:both"]["scores"]
    assert not any(reports[target]["scores"] for target in PLAIN if "ref" not in target)


def test_temporary_memory_is_a_fraction(reports):
    """q, dq and their like are 14.7 MB each; scores of all heads in float32 235 MB."""
    kernels, xla, whole = (
        reports[f"qwen2.5-7b:{name}:both"]["temp_bytes"]
        for name in ("auto", "xla", "reference")
    )
    assert kernels < 60e6
    assert kernels < xla / 2 < whole / 4


@pytest.mark.parametrize("case", ["qwen2.5-7b", "llama-3.2-1b"])
def test_decoding_does_not_copy_the_cache(reports, case):
    """The caches of a layer are 640 MB and 1.4 GB."""
    assert reports[f"{case}:tokamax:decode"]["temp_bytes"] < 20e6
