import dataclasses
import errno
import json
import resource
import shutil

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from seal_jax.models import hf, hf_config
from seal_jax.runtime import files

EOS = 256

# Finding


def test_resolve_takes_a_directory(tmp_path):
    assert hf.resolve(tmp_path) == tmp_path
    assert hf.resolve(str(tmp_path)) == tmp_path


def test_resolve_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert hf.resolve("~/model") == tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    ["/no/such/directory", "./nowhere", "a/b/c", "two words", "", "~no-such-user/m"],
)
def test_resolve_refuses_what_can_only_be_a_path(name):
    with pytest.raises(FileNotFoundError) as caught:
        hf.resolve(name)
    golden_models.assert_one_line(caught, repr(name), "directory", "embedded:tiny")


def test_resolve_without_a_network_says_what_to_do():
    # conftest.py keeps the hub offline; the name is nobody's, so no cache holds it.
    with pytest.raises(FileNotFoundError) as caught:
        hf.resolve("nobody-at-all/no-such-model")
    golden_models.assert_one_line(
        caught, "nobody-at-all/no-such-model", "local", "embedded:tiny"
    )


# Writing


@pytest.mark.parametrize("name", golden_models.CONFIGS)
def test_a_saved_model_is_tensor_by_tensor_what_transformers_saved(name, tmp_path):
    source = golden_models.GOLDEN / name / "model"
    cfg, params = golden_models.load(name)
    hf.save(tmp_path / "out", cfg, params, source=source)
    ours = load_file(tmp_path / "out" / "model.safetensors")
    theirs = load_file(source / "model.safetensors")
    assert set(ours) == set(theirs)
    for key in theirs:
        assert ours[key].dtype == theirs[key].dtype
        np.testing.assert_array_equal(ours[key], theirs[key])
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (source / file).read_bytes()
    ids = {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": EOS}
    raw = files.read_json(tmp_path / "out" / "config.json")
    assert raw == hf_config.to_json(cfg) | ids


@pytest.mark.parametrize("dtype", hf_config.DTYPES)
def test_a_saved_model_loads_back_bit_for_bit(dtype, tmp_path):
    cfg = dataclasses.replace(golden_models.CONFIGS["qwen25"], dtype=dtype)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), dtype),
        golden_models.load("qwen25")[1],
    )
    hf.save(tmp_path / "out", cfg, params)
    assert hf.read_config(tmp_path / "out", dtype=dtype) == cfg
    golden_models.assert_same_trees(hf.load_params(tmp_path / "out", cfg), params)


@pytest.mark.parametrize("name", golden_models.CONFIGS)
def test_transformers_opens_a_saved_model_live(name, tmp_path):
    cfg, params = golden_models.load(name)
    hf.save(tmp_path / "out", cfg, params)
    tokens, is_key = golden_models.batch(name)
    got = golden_models.live_logits(tmp_path, tmp_path / "out", tokens, is_key)
    want = golden_models.arrays(f"{name}/logits")["logits"]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_save_replaces_an_earlier_model_and_nothing_else(tmp_path):
    cfg, params = golden_models.load("qwen3")
    out = tmp_path / "policy"
    hf.save(out, *golden_models.load("qwen25"))
    hf.save(out, cfg, params)
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    golden_models.assert_same_trees(hf.load_params(out, cfg), params)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(ValueError) as caught:
        hf.save(tmp_path / "notes", cfg, params)
    golden_models.assert_one_line(caught, tmp_path / "notes", "config.json")
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "policy"]


@pytest.mark.parametrize("renamed", [False, True])
def test_save_clears_what_a_kill_left_behind(renamed, tmp_path):
    cfg, params = golden_models.load("qwen3")
    out = tmp_path / "policy"
    hf.save(out, cfg, params)
    (tmp_path / ".policy.new").mkdir()
    (tmp_path / ".policy.new" / "half").write_text("a torn file")
    if renamed:  # killed after the old model was moved away
        out.rename(tmp_path / ".policy.old")
    hf.save(out, cfg, params)
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]
    golden_models.assert_same_trees(hf.load_params(out, cfg), params)


def test_a_failed_save_keeps_the_model_that_a_kill_had_moved_away(tmp_path):
    cfg, params = golden_models.load("qwen3")
    out = tmp_path / "policy"
    hf.save(out, cfg, params)
    out.rename(tmp_path / ".policy.old")
    with pytest.raises(ValueError, match="implies"):
        hf.save(out, golden_models.CONFIGS["llama"], params)
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]
    golden_models.assert_same_trees(hf.load_params(out, cfg), params)


@pytest.mark.parametrize("limit", [20, 50_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(limit, tmp_path):
    cfg, params = golden_models.load("qwen3")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(files.DiskFullError) as caught:
            hf.save(tmp_path / "policy", cfg, params)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    golden_models.assert_one_line(caught, tmp_path, "free some space")
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda p: p.pop("final_norm"), ["final_norm/scale", "None", "(32,)"]),
        (lambda p: p.update(lm_head=p["embed"]), ["lm_head", "(264, 32)", "None"]),
        (lambda p: p.update(embed=p["embed"][:9]), ["embed", "(9, 32)", "(264, 32)"]),
    ],
)
def test_save_refuses_parameters_of_another_config(change, parts, tmp_path):
    cfg, params = golden_models.load("qwen3")
    params = dict(params)
    change(params)
    with pytest.raises(ValueError) as caught:
        hf.save(tmp_path / "policy", cfg, params)
    golden_models.assert_one_line(caught, *parts)
    assert list(tmp_path.iterdir()) == []


# Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return hf.load_tokenizer(golden_models.GOLDEN / "qwen2" / "model")


@pytest.mark.parametrize(
    "text", ["Orsel mill.", "", " two  spaces \n", "Ærøskøbing 東"]
)
def test_text_survives_encode_and_decode(text, tokenizer):
    ids = hf.encode(tokenizer, text)
    assert len(ids) == len(text.encode())  # a byte-level vocabulary, nothing added
    assert hf.decode(tokenizer, ids) == text


def test_decode_leaves_out_the_end_token_and_ids_without_a_token(tokenizer):
    ids = [*hf.encode(tokenizer, "mill"), EOS, 263]
    assert hf.decode(tokenizer, np.array(ids, np.int32)) == "mill"


@pytest.mark.parametrize(
    ("generation", "config", "want"),
    [
        ({"eos_token_id": 7}, {"eos_token_id": 8}, (7,)),
        ({"eos_token_id": [7, 9]}, {"eos_token_id": 8}, (7, 9)),
        ({"eos_token_id": [7, EOS, 7]}, {}, (EOS, 7)),
        ({}, {"eos_token_id": 8}, (8,)),
        (None, {"eos_token_id": [8, 3]}, (8, 3)),
        (None, None, (EOS,)),
    ],
)
def test_eos_id_takes_the_first_file_that_names_one(
    generation, config, want, tokenizer, tmp_path
):
    for name, raw in (("generation_config", generation), ("config", config)):
        if raw is not None:
            (tmp_path / f"{name}.json").write_text(json.dumps(raw))
    assert hf.eos_id(tokenizer, tmp_path) == want


def test_eos_id_of_a_model_without_one(tmp_path):
    class Bare:
        eos_token_id = None

    with pytest.raises(ValueError) as caught:
        hf.eos_id(Bare(), tmp_path)
    golden_models.assert_one_line(caught, tmp_path, "eos_token_id")


@pytest.mark.parametrize("stated", [[], -1, [1, -1], "7", ["7"], True, 7.0, [None], {}])
@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_what_is_no_end_token_is_refused(stated, name, tokenizer, tmp_path):
    (tmp_path / name).write_text(json.dumps({"eos_token_id": stated}))
    with pytest.raises(ValueError) as caught:
        hf.eos_id(tokenizer, tmp_path)
    golden_models.assert_one_line(caught, tmp_path / name, "eos_token_id=")


def test_ids_are_those_of_rows_that_the_model_has(tokenizer, tmp_path):
    cfg = golden_models.CONFIGS["qwen2"]
    most = max(tokenizer.get_vocab().values())
    hf.check_ids(tmp_path, tokenizer, cfg, (EOS,))  # padded: more rows than tokens
    exact = dataclasses.replace(cfg, vocab=most + 1)
    hf.check_ids(tmp_path, tokenizer, exact, (most,))
    with pytest.raises(ValueError) as caught:
        hf.check_ids(tmp_path, tokenizer, exact, (most, most + 1))
    golden_models.assert_one_line(caught, tmp_path, f"eos_token_id {most + 1} must be")
    short = dataclasses.replace(cfg, vocab=most)
    with pytest.raises(ValueError) as caught:
        hf.check_ids(tmp_path, tokenizer, short, (0,))
    golden_models.assert_one_line(caught, f"has the id {most}", f"vocab_size={most}")


BROKEN = ["null", "3", "[]", '"a"', "{}", '{"model": null}', "[" * 5000]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", BROKEN)
def test_a_tokenizer_of_another_kind_is_one_line(name, text, tmp_path):
    shutil.copytree(golden_models.GOLDEN / "qwen2" / "model", tmp_path / "m")
    (tmp_path / "m" / name).write_text(text)
    try:
        hf.load_tokenizer(tmp_path / "m")
    except ValueError as error:
        assert "\n" not in str(error) and "does not open" in str(error)
        assert error.__cause__ is not None
    else:
        assert name == "tokenizer_config.json" and text in ("{}", '{"model": null}')


@pytest.mark.parametrize(
    "name", ["embedded:../../models", "embedded:", "embedded:tiny/../tiny", "a/.."]
)
def test_a_name_does_not_lead_out_of_its_folder(name, tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    with pytest.raises(FileNotFoundError) as caught:
        hf.resolve(name)
    golden_models.assert_one_line(caught, repr(name), "; ")


def test_a_missing_or_damaged_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        hf.load_tokenizer(tmp_path)
    golden_models.assert_one_line(caught, tmp_path, "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError) as caught:
        hf.load_tokenizer(tmp_path)
    golden_models.assert_one_line(caught, tmp_path, "does not open")
