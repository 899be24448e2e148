import shutil

import golden_models
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from seal_jax.models import hf, hf_config, hf_weights
from seal_jax.runtime import files


@pytest.fixture
def copied(tmp_path):
    """Copies a golden model, its tensors changed, to a directory of its own."""

    def copy(name, change=lambda tensors: tensors):
        source, out = golden_models.GOLDEN / name / "model", tmp_path / name
        shutil.copytree(source, out)
        tensors = load_file(source / "model.safetensors")
        change(tensors)
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return out

    return copy


@pytest.mark.parametrize("name", golden_models.CONFIGS)
def test_every_tensor_is_read_into_its_place(name):
    """Leaf by leaf from the files, by names written out here."""
    cfg, params = golden_models.load(name)
    tensors = load_file(golden_models.GOLDEN / name / "model" / "model.safetensors")
    for i in range(cfg.layers):
        block = params[f"layers_{i}"]
        stem = f"model.layers.{i}."
        for n in ("q_proj", "k_proj", "v_proj", "o_proj"):
            want = tensors.pop(f"{stem}self_attn.{n}.weight").T
            np.testing.assert_array_equal(block[n]["kernel"], want)
            if cfg.qkv_bias and n != "o_proj":
                want = tensors.pop(f"{stem}self_attn.{n}.bias")
                np.testing.assert_array_equal(block[n]["bias"], want)
        for n in ("gate_proj", "up_proj", "down_proj"):
            want = tensors.pop(f"{stem}mlp.{n}.weight").T
            np.testing.assert_array_equal(block[n]["kernel"], want)
        norms = [
            ("input_layernorm", "input_norm"),
            ("post_attention_layernorm", "post_norm"),
        ]
        if cfg.qk_norm:
            norms += [("self_attn.q_norm", "q_norm"), ("self_attn.k_norm", "k_norm")]
        for theirs, ours in norms:
            want = tensors.pop(f"{stem}{theirs}.weight")
            np.testing.assert_array_equal(block[ours]["scale"], want)
    embed = tensors.pop("model.embed_tokens.weight")
    np.testing.assert_array_equal(params["embed"], embed)
    norm = tensors.pop("model.norm.weight")
    np.testing.assert_array_equal(params["final_norm"]["scale"], norm)
    if not cfg.tied:
        head = tensors.pop("lm_head.weight").T
        np.testing.assert_array_equal(params["lm_head"], head)
    assert tensors == {}


@pytest.mark.parametrize("source", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("dtype", hf_config.DTYPES)
def test_tensors_are_cast_to_the_dtype_of_the_config(source, dtype, copied):
    def cast(tensors):
        tensors.update({k: v.astype(source) for k, v in tensors.items()})

    path = copied("qwen3", cast)
    params = hf.load_params(path, hf.read_config(path, dtype=dtype))
    assert {x.dtype.name for x in jax.tree.leaves(params)} == {dtype}
    exact = load_file(path / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    got = params["layers_1"]["up_proj"]["kernel"]
    np.testing.assert_array_equal(got, exact.T.astype(jnp.dtype(dtype)))


def test_a_head_that_equals_the_embedding_is_accepted_in_a_tied_model(copied):
    def add(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()

    cfg, want = golden_models.load("qwen2")
    golden_models.assert_same_trees(hf.load_params(copied("qwen2", add), cfg), want)


@pytest.mark.parametrize("rows", [264, 263])
def test_a_head_of_its_own_is_refused_in_a_tied_model(rows, copied):
    def add(tensors):
        head = tensors["model.embed_tokens.weight"][:rows].copy()
        head[-1, -1] += rows == 264  # differs in one element, or in shape alone
        tensors["lm_head.weight"] = head

    with pytest.raises(ValueError) as caught:
        hf.load_params(copied("qwen2", add), golden_models.CONFIGS["qwen2"])
    golden_models.assert_one_line(caught, "lm_head.weight", "tie_word_embeddings")


def test_rotary_buffers_are_ignored(copied):
    def add(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4)
        tensors["model.rotary_emb.inv_freq"] = np.ones(4)

    cfg, want = golden_models.load("llama")
    golden_models.assert_same_trees(hf.load_params(copied("llama", add), cfg), want)


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda t: t.pop(UP), ["missing tensor", UP]),
        (
            lambda t: [t.pop(k) for k in list(t) if "layers.1." in k],
            ["missing tensor", "layers.1.", "(and 11 more)"],
        ),
        (lambda t: t.pop("model.embed_tokens.weight"), ["missing tensor", "embed"]),
        (
            lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}),
            ["missing tensor", "embed"],
        ),
        (
            lambda t: t.update({UP.replace("1", "2"): t[UP]}),
            ["surplus tensor", "layers.2", "2 layers"],
        ),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": t[UP]}),
            ["surplus tensor", "q_norm", "qwen2"],
        ),
        (
            lambda t: t.update({"model.layers.0.mlp.experts.0.weight": t[UP]}),
            ["unmapped tensor", "experts"],
        ),
        (lambda t: t.update({"score.weight": t[UP]}), ["unmapped tensor", "score"]),
        (
            lambda t: t.update({UP: np.ascontiguousarray(t[UP].T)}),
            ["[32, 64]", "[64, 32]", UP],
        ),
        (lambda t: t.update({UP: t[UP][0]}), ["[32]", "[64, 32]", UP]),
        (
            lambda t: t.update({UP: t[UP].astype(np.int8)}),
            ["I8", "BF16", UP, "unquantized"],
        ),
    ],
)
def test_load_params_refuses(change, parts, copied):
    path = copied("qwen2", change)
    with pytest.raises(ValueError) as caught:
        hf.load_params(path, golden_models.CONFIGS["qwen2"])
    golden_models.assert_one_line(caught, path, *parts)


def test_load_params_without_weights(tmp_path, copied):
    with pytest.raises(FileNotFoundError) as caught:
        hf.load_params(tmp_path, golden_models.CONFIGS["qwen2"])
    golden_models.assert_one_line(caught, tmp_path, "safetensors")
    path = copied("qwen2")
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError) as caught:
        hf.load_params(path, golden_models.CONFIGS["qwen2"])
    golden_models.assert_one_line(caught, file, "not a whole safetensors file")


def test_a_sharded_model_loads_back_and_its_index_is_complete(tmp_path):
    cfg, params = golden_models.load("qwen25")
    hf_weights.save_params(tmp_path, cfg, params, max_shard_bytes=60_000)
    golden_models.assert_same_trees(hf.load_params(tmp_path, cfg), params)
    shards = sorted(tmp_path.glob("*.safetensors"))
    count = len(shards)
    assert count > 3
    names = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    assert [p.name for p in shards] == names
    assert all(p.stat().st_size < 70_000 for p in shards)
    index = files.read_json(tmp_path / "model.safetensors.index.json")
    held = {key: p.name for p in shards for key in load_file(p)}
    assert index["weight_map"] == held
    whole = load_file(golden_models.GOLDEN / "qwen25" / "model" / "model.safetensors")
    assert set(held) == set(whole)
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in whole.values())
    shards[1].unlink()
    with pytest.raises(FileNotFoundError) as caught:
        hf.load_params(tmp_path, cfg)
    golden_models.assert_one_line(caught, shards[1], "absent")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(ValueError) as caught:
        hf.load_params(tmp_path, cfg)
    golden_models.assert_one_line(caught, "model.safetensors.index.json", "weight_map")


# Shards


@pytest.fixture
def sharded(tmp_path):
    """A model in shards: its folder, config, parameters and index."""
    cfg, params = golden_models.load("qwen25")
    hf_weights.save_params(tmp_path, cfg, params, max_shard_bytes=60_000)
    index = files.read_json(tmp_path / hf_weights.INDEX)
    return tmp_path, cfg, params, index["weight_map"]


def refused(sharded, kind=ValueError):
    path, cfg, *_ = sharded
    with pytest.raises(kind) as caught:
        hf.load_params(path, cfg)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stale(path, name):
    """Puts another tensor of this name into a shard."""
    tensors = load_file(path)
    tensors[name] = np.full((80, 48), 7, np.float32)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_stale_copy_in_another_shard_is_not_read(place, sharded):
    path, cfg, params, placed = sharded
    shards = sorted(set(placed.values()))
    others = [s for s in shards if s != placed[UP]]
    stale(path / (others[0] if place == "before" else others[-1]), UP)
    golden_models.assert_same_trees(hf.load_params(path, cfg), params)


def test_a_tensor_without_a_place_in_the_index_is_not_read(sharded):
    path, _, _, placed = sharded
    files.write_json(
        path / hf_weights.INDEX,
        {"weight_map": {k: v for k, v in placed.items() if k != UP}},
    )
    assert f"missing tensor {UP}" in refused(sharded)


def test_a_tensor_that_its_shard_lacks_is_named(sharded):
    path, _, _, placed = sharded
    other = next(s for s in sorted(set(placed.values())) if s != placed[UP])
    files.write_json(path / hf_weights.INDEX, {"weight_map": placed | {UP: other}})
    message = refused(sharded)
    assert f"{other}: must hold tensor {UP}" in message


def test_a_single_file_beside_an_index_is_refused(sharded):
    path, *_ = sharded
    save_file({"x": np.zeros(1)}, path / hf_weights.SINGLE)
    assert "not both" in refused(sharded)


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "", "x.bin", 3, None, []],
)
def test_a_shard_lies_beside_its_index(name, sharded):
    path, _, _, placed = sharded
    files.write_json(path / hf_weights.INDEX, {"weight_map": placed | {UP: name}})
    assert "beside it" in refused(sharded)


def test_a_missing_head_is_not_always_a_broken_download(copied):
    path = copied("qwen25", lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ValueError) as caught:
        hf.load_params(path, golden_models.CONFIGS["qwen25"])
    golden_models.assert_one_line(caught, "set tie_word_embeddings=true")
