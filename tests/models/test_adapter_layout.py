"""Adapters as vLLM reads them, by what it asks of a folder.

It takes adapter_config.json with `r`, `lora_alpha` and `target_modules`, no bias, no
DoRA and no modules to save; and adapter_model.safetensors with nothing but
base_model.model.MODULE.lora_A.weight `[r, in]` and lora_B `[out, r]` of linear modules.
The scale is lora_alpha / r; tensors are cast to the base's dtype. The rank may be at
most --max-lora-rank, 16 unless it is said. vLLM itself needs a GPU, so this holds the
folder to that list, and its modules to the weights that transformers wrote.
"""

import json
import re

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from seal_jax.models import lora, peft

MODELS = ("qwen2", "qwen25", "qwen3", "llama")
NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


def weights(name):
    """{module: shape} of the model's own file, as transformers names them."""
    file = golden_models.GOLDEN / name / "model" / "model.safetensors"
    with safe_open(file, framework="np") as tensors:
        shapes = {k: tensors.get_slice(k).get_shape() for k in tensors.keys()}  # noqa: SIM118
    return {k.removesuffix(".weight"): tuple(s) for k, s in shapes.items()}


def save(path, name, *, targets=None, dtype="float32", rank=4, alpha=4):
    cfg, _ = golden_models.load(name)
    targets = targets or tuple(cfg.linears())
    delta = lora.init(jax.random.key(0), cfg, targets=targets, rank=rank)
    delta = jax.tree.map(lambda x: (x + 0.5).astype(dtype), delta)
    peft.save(path, delta, cfg=cfg, alpha=alpha, base_name="Qwen/Qwen2.5-0.5B")
    return cfg, delta


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_the_folder_is_what_vllm_reads(tmp_path, name, dtype):
    cfg, _ = save(tmp_path / "adapter", name, dtype=dtype)
    folder = tmp_path / "adapter"
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")
    assert type(config["r"]) is int and type(config["lora_alpha"]) is int
    assert config["lora_alpha"] / config["r"] == 1.0
    assert config["bias"] == "none" and config["modules_to_save"] is None
    assert not config["use_dora"] and not config["use_rslora"]
    assert sorted(config["target_modules"]) == sorted(cfg.linears())
    modules, seen = weights(name), {}
    with safe_open(folder / "adapter_model.safetensors", framework="np") as tensors:
        for key in tensors.keys():  # noqa: SIM118 (not a mapping)
            match = NAME.fullmatch(key)
            assert match, key
            part = tensors.get_slice(key)
            assert part.get_dtype() == {"float32": "F32", "bfloat16": "BF16"}[dtype]
            seen.setdefault(match[1], {})[match[2]] = tuple(part.get_shape())
    for module, shapes in seen.items():
        out, size = modules[module]
        assert shapes == {"A": (4, size), "B": (out, 4)}, module
        assert module.rpartition(".")[2] in config["target_modules"]
    assert len(seen) == cfg.layers * len(cfg.linears())


def test_the_product_is_the_update_of_the_weight(tmp_path):
    """B A, scaled by alpha / r, is what `lora.merge` adds to a weight."""
    cfg, delta = save(tmp_path / "a", "qwen2", targets=("q_proj",), rank=2, alpha=6)
    _, params = golden_models.load("qwen2")
    merged = lora.merge(params, lora.scaled(delta, 6 / 2))
    stem = "base_model.model.model.layers.1.self_attn.q_proj"
    with safe_open(tmp_path / "a" / peft.WEIGHTS, framework="np") as tensors:
        a, b = (tensors.get_tensor(f"{stem}.lora_{s}.weight") for s in "AB")
    ours = [
        np.asarray(new) - np.asarray(old)
        for new, old in zip(
            jax.tree.leaves(merged), jax.tree.leaves(params), strict=True
        )
    ]
    update = 3.0 * b @ a
    changed = [x for x in ours if x.shape in (update.shape, update.T.shape)]
    assert any(
        np.allclose(x, update, atol=1e-5) or np.allclose(x, update.T, atol=1e-5)
        for x in changed
    )
    assert jnp.isfinite(update).all() and cfg.layers == 2
