import dataclasses
import json

import golden_models
import pytest

from seal_jax.models import hf, hf_config


def golden_raw(name):
    path = golden_models.GOLDEN / name / "model" / "config.json"
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", golden_models.CONFIGS)
def test_read_config_of_transformers_5(name):
    path = golden_models.GOLDEN / name / "model"
    assert hf.read_config(path, dtype="float32") == golden_models.CONFIGS[name]
    half = hf.read_config(path, dtype="bfloat16")
    assert half == dataclasses.replace(golden_models.CONFIGS[name], dtype="bfloat16")


@pytest.mark.parametrize("name", golden_models.CONFIGS)
def test_read_config_of_transformers_4(name):
    raw = golden_raw(name)
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope.pop("rope_theta")
    raw["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    raw.pop("layer_types", None)
    assert hf_config.parse(raw, dtype="float32") == golden_models.CONFIGS[name]


def test_read_config_takes_the_old_key_of_the_rope_type():
    raw = golden_raw("llama")
    rope = raw["rope_parameters"]
    rope["type"] = rope.pop("rope_type")
    assert hf_config.parse(raw, dtype="float32") == golden_models.CONFIGS["llama"]


@pytest.mark.parametrize(
    ("name", "change", "field", "value"),
    [
        ("qwen2", {"head_dim": 16}, "head_dim", 16),
        ("qwen3", {"head_dim": None}, "head_dim", 128),
        ("qwen2", {"num_key_value_heads": None}, "kv_heads", 4),
        ("qwen2", {"layer_types": None, "sliding_window": 64}, "layers", 2),
        ("qwen2", {"layer_types": None, "sliding_window": 0}, "layers", 2),
        # In use by name, but from a layer on that the model does not have.
        (
            "qwen2",
            {"layer_types": None, "use_sliding_window": True, "sliding_window": 64},
            "layers",
            2,
        ),
    ],
)
def test_read_config_defaults_are_those_of_transformers(name, change, field, value):
    cfg = hf_config.parse(golden_raw(name) | change, dtype="float32")
    assert getattr(cfg, field) == value


@pytest.mark.parametrize("name", golden_models.CONFIGS)
def test_a_written_config_reads_back(name):
    cfg = golden_models.CONFIGS[name]
    raw = json.loads(json.dumps(hf_config.to_json(cfg)))
    assert hf_config.parse(raw, dtype=cfg.dtype) == cfg


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}
PER_LAYER = {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}}


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("qwen2", {"model_type": "mistral"}, ["'mistral'", "qwen2", "qwen3", "llama"]),
        ("qwen2", {"model_type": None}, ["model_type=None"]),
        (
            "qwen2",
            {"architectures": ["Qwen2ForSequenceClassification"]},
            ["Qwen2ForSequenceClassification", "Qwen2ForCausalLM"],
        ),
        ("qwen2", {"hidden_act": "gelu"}, ["hidden_act='gelu'", "silu"]),
        ("llama", {"attention_bias": True}, ["attention_bias=true", "Qwen2"]),
        ("llama", {"mlp_bias": True}, ["mlp_bias=true"]),
        ("qwen3", {"attention_bias": True}, ["attention_bias=true"]),
        ("qwen2", {"rope_parameters": YARN}, ["'yarn'", "default", "llama3"]),
        ("qwen3", {"rope_parameters": PER_LAYER}, ["the same for every layer"]),
        (
            "llama",
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
            ["llama3", "low_freq_factor"],
        ),
        ("llama", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor=0.5"]),
        (
            "qwen2",
            {"layer_types": ["full_attention", "sliding_attention"]},
            ["sliding window", "use_sliding_window=false"],
        ),
        (
            "qwen2",
            {
                "layer_types": None,
                "use_sliding_window": True,
                "sliding_window": 64,
                "max_window_layers": 1,
            },
            ["sliding window"],
        ),
        # With transformers' default for the layer that it begins at.
        (
            "qwen3",
            {
                "layer_types": None,
                "use_sliding_window": True,
                "sliding_window": 64,
                "num_hidden_layers": 29,
            },
            ["sliding window"],
        ),
        (
            "qwen2",
            {"quantization_config": {"quant_method": "awq"}},
            ["quantization_config", "unquantized"],
        ),
        ("qwen2", {"hidden_size": None}, ["hidden_size=None"]),
        ("qwen2", {"vocab_size": "many"}, ["vocab_size='many'"]),
        ("qwen2", {"num_key_value_heads": 3}, ["num_key_value_heads=3"]),
        ("qwen2", {"hidden_size": 34}, ["hidden_size=34", "head_dim"]),
    ],
)
def test_read_config_refuses(name, change, parts, tmp_path):
    raw = golden_raw(name) | change
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError) as caught:
        hf.read_config(tmp_path, dtype="float32")
    golden_models.assert_one_line(caught, tmp_path / "config.json", *parts)


def test_read_config_refuses_a_dtype_and_a_file_it_cannot_use(tmp_path):
    with pytest.raises(ValueError) as caught:
        hf_config.parse(golden_raw("qwen2"), dtype="int8")
    golden_models.assert_one_line(caught, "dtype='int8'", "bfloat16")
    with pytest.raises(FileNotFoundError) as caught:
        hf.read_config(tmp_path, dtype="float32")
    golden_models.assert_one_line(caught, tmp_path / "config.json", "absent")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError) as caught:
        hf.read_config(tmp_path, dtype="float32")
    golden_models.assert_one_line(caught, "JSON object")


# What is of another type, or beyond any model, is named and never waited for.
MISTYPED = {
    "rms_norm_eps": [None, "1e-6", 0, -1, True, 2.0, float("nan"), float("inf"), []],
    "rope_theta": [None, "1e6", 0, float("nan"), [1]],
    "rope_parameters": [[], "default", 3, {"rope_theta": None}, {"rope_type": 3}],
    "layer_types": ["full_attention", [3], {}, 3],
    "architectures": ["Qwen2ForCausalLM", "xQwen2ForCausalLMx", [3], {}, 3],
    "torch_dtype": [3, ["float32"], {}],
    "dtype": [3],
    "hidden_act": [3, ["silu"]],
    "tie_word_embeddings": ["false", 0, 1, []],
    "use_sliding_window": ["false", 1],
    "model_type": [[], {}, 3],
    "head_dim": [7, 0, True, 2.0, 10**9],
    "max_window_layers": ["2", -1, 10**12],
    "partial_rotary_factor": [None, "1", 0, float("nan")],
    **{
        key: [None, 0, -1, 2.0, "2", True, 10**12, [2]]
        for key in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        )
    },
}


@pytest.mark.parametrize(
    ("key", "value"), [(k, v) for k, values in MISTYPED.items() for v in values]
)
def test_a_mistyped_field_is_named(key, value):
    raw = golden_raw("qwen2")
    if key == "rope_theta":
        del raw["rope_parameters"]
    if key in ("max_window_layers", "use_sliding_window"):
        raw |= {"layer_types": None, "sliding_window": 8}
    with pytest.raises(ValueError) as caught:
        hf_config.parse(raw | {key: value}, dtype="float32")
    message = str(caught.value)
    assert "\n" not in message
    assert key in message or "rope" in message
    assert "must" in message and len(message) < 300


@pytest.mark.parametrize(
    "rope",
    [
        {"factor": None},
        {"factor": "8"},
        {"low_freq_factor": 4.0},
        {"high_freq_factor": 0},
        {"original_max_position_embeddings": 1.5},
    ],
)
def test_scalings_that_mean_nothing_are_refused(rope):
    raw = golden_raw("llama")
    raw["rope_parameters"] |= rope
    with pytest.raises(ValueError, match="must be") as caught:
        hf_config.parse(raw, dtype="float32")
    assert next(iter(rope)) in str(caught.value)


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
@pytest.mark.parametrize("window", ["absent", None, 0, 64])
@pytest.mark.parametrize("first", [None, 1, 2])
def test_sliding_windows_are_seen_as_transformers_sees_them(name, window, first):
    raw = golden_raw(name) | {"use_sliding_window": True}
    for key in ("layer_types", "sliding_window", "max_window_layers"):
        raw.pop(key, None)
    raw |= {} if window == "absent" else {"sliding_window": window}
    raw |= {} if first is None else {"max_window_layers": first}
    slides = window in ("absent", 64) and first == 1
    if slides:
        with pytest.raises(ValueError, match="sliding window attention is in use"):
            hf_config.parse(raw, dtype="float32")
    else:
        hf_config.parse(raw, dtype="float32")
