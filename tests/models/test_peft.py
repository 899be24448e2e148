import errno
import json
import shutil

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from seal_jax.models import hf_weights, lora, peft
from seal_jax.runtime import files

CASES = [(name, kind) for name in golden_models.ADAPTED for kind in ("default", "all")]


def directory(name, kind):
    return golden_models.GOLDEN / name / f"peft_{kind}"


def scaled(delta, alpha):
    rank = len(next(iter(delta["layers_0"].values()))["a"])
    return lora.scaled(delta, alpha / rank)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_logits_under_a_loaded_adapter_equal_peft(name, kind):
    cfg, params = golden_models.load(name)
    delta, alpha = peft.load(directory(name, kind), cfg)
    want = golden_models.arrays(f"{name}/peft_{kind}")
    tokens, is_key = golden_models.batch(name)
    under = golden_models.forward(cfg, params, tokens, is_key, scaled(delta, alpha))
    np.testing.assert_allclose(under, want["logits"], rtol=0, atol=1e-4)
    merged = lora.merge(params, scaled(delta, alpha))
    after = golden_models.forward(cfg, merged, tokens, is_key)
    np.testing.assert_allclose(after, want["merged"], rtol=0, atol=1e-4)
    base = golden_models.arrays(f"{name}/logits")["logits"]
    assert np.abs(want["logits"] - base).max() > 0.1


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_saved_adapter_is_key_by_key_what_peft_wrote(name, kind, tmp_path):
    cfg, _ = golden_models.load(name)
    delta, alpha = peft.load(directory(name, kind), cfg)
    peft.save(tmp_path / "out", delta, cfg=cfg, alpha=alpha, base_name="tiny")
    ours, theirs = (
        load_file(d / "adapter_model.safetensors")
        for d in (tmp_path / "out", directory(name, kind))
    )
    assert set(ours) == set(theirs)
    for key in theirs:
        assert (ours[key].shape, ours[key].dtype) == (theirs[key].shape, np.float32)
        np.testing.assert_array_equal(ours[key], theirs[key])
    ours, theirs = (
        json.loads((d / "adapter_config.json").read_text())
        for d in (tmp_path / "out", directory(name, kind))
    )
    for config in (ours, theirs):
        config["target_modules"] = set(config["target_modules"])
    assert ours == {key: theirs[key] for key in ours}


def test_default_targets_are_those_peft_chooses():
    cfg, _ = golden_models.load("qwen2")
    delta, alpha = peft.load(directory("qwen2", "default"), cfg)
    assert (set(delta["layers_1"]), alpha) == ({"q_proj", "v_proj"}, 8.0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_round_trip_is_exact(dtype, tmp_path):
    cfg, _ = golden_models.load("qwen2")
    delta = lora.init(jax.random.key(0), cfg, targets=tuple(cfg.linears()), rank=5)
    delta = jax.tree.map(lambda x: (x + 0.5).astype(dtype), delta)
    peft.save(tmp_path / "out", delta, cfg=cfg, alpha=12.5, base_name="tiny")
    back, alpha = peft.load(tmp_path / "out", cfg)
    assert alpha == 12.5
    want = jax.tree.map(lambda x: x.astype(jnp.float32), delta)
    assert jax.tree.structure(back) == jax.tree.structure(want)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back, want)))


def test_peft_opens_a_saved_adapter_live(tmp_path):
    cfg, params = golden_models.load("llama")
    delta = lora.init(jax.random.key(3), cfg, targets=("k_proj", "up_proj"), rank=2)
    delta = jax.tree.map(lambda x: x + 0.05, delta)
    peft.save(tmp_path / "out", delta, cfg=cfg, alpha=6, base_name="tiny")
    tokens, is_key = golden_models.batch("llama")
    want = golden_models.live_logits(
        tmp_path,
        golden_models.GOLDEN / "llama" / "model",
        tokens,
        is_key,
        adapter=tmp_path / "out",
    )
    got = golden_models.forward(cfg, params, tokens, is_key, lora.scaled(delta, 3.0))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


@pytest.fixture
def adapter(tmp_path):
    """A copy of a PEFT directory to damage."""
    shutil.copytree(directory("qwen2", "default"), tmp_path / "adapter")
    return tmp_path / "adapter"


def refused(path, name="qwen2", kind: type[Exception] = ValueError):
    with pytest.raises(kind) as caught:
        peft.load(path, golden_models.load(name)[0])
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("bias", "all"),
        ("use_dora", True),
        ("use_rslora", True),
        ("init_lora_weights", "pissa"),
        ("kasa_config", {"beta": 1}),
        ("lora_bias", True),
        ("fan_in_fan_out", True),
        ("rank_pattern", {"q_proj": 2}),
        ("alpha_pattern", {"q_proj": 2}),
        ("modules_to_save", ["lm_head"]),
        ("layers_to_transform", [0]),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["x"]),
        ("r", 0),
        ("lora_alpha", None),
        ("target_modules", ["q_proj", "k_proj"]),
    ],
)
def test_load_refuses_a_config_it_would_misread(adapter, key, value):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    message = refused(adapter)
    assert f"{key}=" in message
    assert str(value) in message


def edit(adapter, change):
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


STEM = "base_model.model.model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda t: t.pop(f"{STEM}.lora_A.weight"), ["lora_A.weight is missing"]),
        (
            lambda t: t.update(
                {f"{STEM}.lora_B.weight": np.zeros((32, 5), np.float32)}
            ),
            ["shape (32, 5)", "(32, 4)"],
        ),
        (
            lambda t: t.update({f"{STEM}.lora_magnitude_vector": np.zeros(32)}),
            ["lora_magnitude_vector", "no place"],
        ),
        (
            lambda t: t.update(
                {f"{STEM.replace('1', '9')}.lora_A.weight": np.zeros((4, 32))}
            ),
            ["layers.9", "2 layers"],
        ),
        (
            lambda t: t.update(
                {f"{STEM.replace('self_attn', 'mlp')}.lora_A.weight": np.zeros((4, 32))}
            ),
            ["mlp.q_proj", "no place"],
        ),
        (lambda t: t.clear(), ["target_modules", "[]"]),
    ],
    ids=["missing", "misshapen", "unknown", "layer", "part", "empty"],
)
def test_load_refuses_tensors_that_do_not_fit(adapter, change, parts):
    edit(adapter, change)
    message = refused(adapter)
    assert all(part in message for part in parts)


def test_load_refuses_the_adapter_of_another_model(adapter):
    assert "(4, 64)" in refused(adapter, name="llama")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_load_says_which_file_is_absent(adapter, name):
    (adapter / name).unlink()
    assert f"{adapter / name}: absent" in refused(adapter, kind=FileNotFoundError)


def test_load_refuses_damaged_files(adapter):
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "not a whole safetensors file" in refused(adapter)
    (adapter / "adapter_config.json").write_text("[1]")
    assert "one JSON object" in refused(adapter)


@pytest.mark.parametrize(
    ("targets", "rank", "change", "part"),
    [
        (
            ("q_proj",),
            2,
            lambda ab: ab | {"a": ab["a"][:1]},
            "((1, 32), (1, 32))",
        ),
        (("q_proj",), 2, lambda ab: {"a": ab["a"][None], "b": ab["b"]}, "lora.select"),
    ],
)
def test_save_refuses_what_is_not_one_adapter(targets, rank, change, part, tmp_path):
    cfg, _ = golden_models.load("qwen2")
    delta = lora.init(jax.random.key(0), cfg, targets=targets, rank=rank)
    broken = lora.per_linear(delta, change)
    with pytest.raises(ValueError) as caught:
        peft.save(tmp_path / "out", broken, cfg=cfg, alpha=4, base_name="tiny")
    assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_adapter(tmp_path, monkeypatch):
    cfg, _ = golden_models.load("qwen2")
    old, alpha = peft.load(directory("qwen2", "default"), cfg)
    out = tmp_path / "out"
    peft.save(out, old, cfg=cfg, alpha=alpha, base_name="tiny")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hf_weights.safetensors.numpy, "save_file", full)
    with pytest.raises(files.DiskFullError, match="No space left"):
        peft.save(out, lora.scaled(old, 3.0), cfg=cfg, alpha=alpha, base_name="tiny")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    back, _ = peft.load(out, cfg)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back, old)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("lora_alpha", v) for v in (float("nan"), float("inf"), 0, -8, True, "8")),
        *(("r", v) for v in (2.0, True, 10**12)),
        ("target_modules", ["q_proj", "v_proj", "q_proj"]),
        ("target_modules", ["q_proj", 3]),
        ("target_modules", {"q_proj": 1}),
        ("use_dora", 0),
    ],
)
def test_load_refuses_numbers_and_names_that_mean_nothing(adapter, key, value):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    message = refused(adapter)
    assert key in message and "; " in message


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_load_refuses_quantized_tensors(adapter, dtype):
    edit(adapter, lambda t: t.update({k: v.astype(dtype) for k, v in t.items()}))
    message = refused(adapter)
    assert "must be one of ['F32', 'BF16', 'F16', 'F64']" in message
    assert "unquantized" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_load_refuses_tensors_that_are_not_finite(adapter, value):
    edit(adapter, lambda t: t[f"{STEM}.lora_A.weight"].fill(value))
    assert "not finite" in refused(adapter)
