import dataclasses
import math

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.models import decoder, hf, hf_config, key_ranges
from seal_jax.models.parameters import leaf_shapes

TOLERANCE = 1e-4  # of float32 logits against transformers


@pytest.mark.parametrize("name", golden_models.NAMES)
def test_logits_equal_transformers(name):
    cfg, params = golden_models.load(name)
    tokens, is_key = golden_models.batch(name)
    want = golden_models.arrays(f"{name}/logits")["logits"]
    got = golden_models.forward(cfg, params, tokens, is_key)
    assert got.dtype == jnp.float32
    assert np.abs(want).max() > 1  # logits of a model that says something
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", golden_models.NAMES)
def test_logits_equal_transformers_live(name, tmp_path):
    cfg, params = golden_models.load(name)
    # Other weights and lengths than the golden file's, from another generator.
    rng = np.random.default_rng(7)
    params = jax.tree.map(
        lambda x: np.asarray(x) * rng.uniform(0.8, 1.2, x.shape).astype(np.float32),
        params,
    )
    hf.save(tmp_path / "model", cfg, params)
    is_key = np.arange(33) < np.array([[33], [1], [18]])
    tokens = np.where(is_key, rng.integers(0, cfg.vocab, is_key.shape), 256)
    want = golden_models.live_logits(tmp_path, tmp_path / "model", tokens, is_key)
    got = golden_models.forward(cfg, params, tokens, is_key)
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


def test_a_logit_depends_on_its_own_and_earlier_tokens_only():
    cfg, params = golden_models.load("qwen3")
    tokens = golden_models.batch("qwen3")[0][:1, :9]
    net = decoder.Decoder(dataclasses.replace(cfg, vocab=cfg.vocab + 9))
    positions = jnp.arange(9)[None]
    ranges = key_ranges.causal(jnp.ones((1, 9), bool))
    at = 5

    def score(embed_of_row_TD):
        # Each position its own row of the embedding, so that gradients tell them apart.
        own = jnp.concatenate([params["embed"], embed_of_row_TD])
        ids = cfg.vocab + jnp.arange(9)[None]
        hidden, _ = net.apply(
            {"params": {**params, "embed": own}}, ids, positions, ranges
        )
        return jnp.sum(hidden[0, at] ** 2 * jnp.arange(1.0, cfg.width + 1))

    grad_TD = jax.grad(score)(params["embed"][tokens[0]])
    size_T = np.abs(grad_TD).max(axis=1)
    assert (size_T[: at + 1] > 1e-6).all()
    assert (size_T[at + 1 :] == 0).all()


@pytest.mark.parametrize("name", golden_models.NAMES)
def test_padding_changes_nothing(name):
    cfg, params = golden_models.load(name)
    tokens, is_key = golden_models.batch(name)
    want = golden_models.forward(cfg, params, tokens, is_key)
    # Other tokens in the padding, and more of it.
    changed = np.where(is_key, tokens, (tokens + 91) % cfg.vocab)
    wider, wider_key = (
        np.pad(changed, ((0, 0), (0, 8)), constant_values=3),
        np.pad(is_key, ((0, 0), (0, 8))),
    )
    got = golden_models.forward(cfg, params, wider, wider_key)[:, : tokens.shape[1]]
    np.testing.assert_allclose(
        np.where(is_key[..., None], got, 0),
        np.where(is_key[..., None], want, 0),
        rtol=0,
        atol=2e-5,
    )


def test_llama3_frequencies_band_by_band():
    """At Llama 3.1's constants, against the three bands written out one by one."""
    scaling = decoder.RopeScaling(8.0, 1.0, 4.0, 8192)
    cfg = dataclasses.replace(
        golden_models.load("llama")[0],
        head_dim=128,
        rope_theta=500_000.0,
        rope_scaling=scaling,
    )
    want, bands = [], set()
    for i in range(64):
        freq = 500_000.0 ** (-2 * i / 128)
        wavelength = 2 * math.pi / freq
        if wavelength < 8192 / 4:
            want.append(freq)
            bands.add("kept")
        elif wavelength > 8192:
            want.append(freq / 8)
            bands.add("stretched")
        else:
            smooth = (8192 / wavelength - 1) / 3
            want.append((1 - smooth) * freq / 8 + smooth * freq)
            bands.add("between")
    assert len(bands) == 3
    np.testing.assert_allclose(decoder.rope_frequencies(cfg), want, rtol=2e-5)


QWEN = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 32768,
    "max_window_layers": 28,
    "vocab_size": 151936,
}
LLAMA = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "max_position_embeddings": 131072,
    "attention_bias": False,
    "mlp_bias": False,
    "vocab_size": 128256,
}


def raw(family, width, layers, heads, kv_heads, ff, tied, **more):
    common = QWEN if family.startswith("qwen") else LLAMA
    return common | {
        "model_type": family,
        "architectures": [hf_config.ARCHITECTURES[family]],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ff,
        "tie_word_embeddings": tied,
        **more,
    }


def llama3(factor):
    return {
        "factor": factor,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }


# The fields of the released config.json files that matter, and the parameter counts
# that the releases state (a tied head counted once).
RELEASED = {
    "Qwen2.5-0.5B": (raw("qwen2", 896, 24, 14, 2, 4864, True), 494_032_768),
    "Qwen2.5-1.5B": (raw("qwen2", 1536, 28, 12, 2, 8960, True), 1_543_714_304),
    "Qwen2.5-3B": (raw("qwen2", 2048, 36, 16, 2, 11008, True), 3_085_938_688),
    "Qwen2.5-7B": (
        raw("qwen2", 3584, 28, 28, 4, 18944, False, vocab_size=152064),
        7_615_616_512,
    ),
    "Qwen3-0.6B": (
        raw("qwen3", 1024, 28, 16, 8, 3072, True, head_dim=128),
        596_049_920,
    ),
    "Qwen3-1.7B": (
        raw("qwen3", 2048, 28, 16, 8, 6144, True, head_dim=128),
        1_720_574_976,
    ),
    "Qwen3-4B": (
        raw("qwen3", 2560, 36, 32, 8, 9728, True, head_dim=128),
        4_022_468_096,
    ),
    "Qwen3-8B": (
        raw("qwen3", 4096, 36, 32, 8, 12288, False, head_dim=128),
        8_190_735_360,
    ),
    "Llama-3.2-1B": (
        raw(
            "llama", 2048, 16, 32, 8, 8192, True, head_dim=64, rope_scaling=llama3(32.0)
        ),
        1_235_814_400,
    ),
    "Llama-3.2-3B": (
        raw(
            "llama",
            3072,
            28,
            24,
            8,
            8192,
            True,
            head_dim=128,
            rope_scaling=llama3(32.0),
        ),
        3_212_749_824,
    ),
    "Llama-3.1-8B": (
        raw("llama", 4096, 32, 32, 8, 14336, False, rope_scaling=llama3(8.0)),
        8_030_261_248,
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_models_have_their_parameter_counts(name):
    fields, count = RELEASED[name]
    cfg = hf_config.parse(fields, dtype="bfloat16")
    leaves = leaf_shapes(cfg)
    assert sum(math.prod(leaf.shape) for leaf in leaves.values()) == count
    assert {leaf.dtype.name for leaf in leaves.values()} == {"bfloat16"}


@pytest.mark.parametrize("name", RELEASED)
def test_released_models_trace_to_logits(name):
    cfg = hf_config.parse(RELEASED[name][0], dtype="bfloat16")
    params = jax.eval_shape(lambda: decoder.init_params(jax.random.key(0), cfg))
    tokens = jax.ShapeDtypeStruct((2, 16), jnp.int32)
    is_key = jax.ShapeDtypeStruct((2, 16), jnp.bool_)
    out = jax.eval_shape(
        lambda *args: golden_models.forward(cfg, *args), params, tokens, is_key
    )
    assert (out.shape, out.dtype) == ((2, 16, cfg.vocab), jnp.float32)


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        (
            "Qwen2.5-7B",
            {
                "embed": (152064, 3584),
                "lm_head": (3584, 152064),
                "layers/q_proj/kernel": (28, 3584, 3584),
                "layers/q_proj/bias": (28, 3584),
                "layers/k_proj/kernel": (28, 3584, 512),
                "layers/k_proj/bias": (28, 512),
                "layers/v_proj/kernel": (28, 3584, 512),
                "layers/v_proj/bias": (28, 512),
                "layers/o_proj/kernel": (28, 3584, 3584),
                "layers/gate_proj/kernel": (28, 3584, 18944),
                "layers/up_proj/kernel": (28, 3584, 18944),
                "layers/down_proj/kernel": (28, 18944, 3584),
                "layers/input_norm/scale": (28, 3584),
                "layers/post_norm/scale": (28, 3584),
                "final_norm/scale": (3584,),
            },
        ),
        (
            "Qwen3-4B",
            {
                "embed": (151936, 2560),
                "layers/q_proj/kernel": (36, 2560, 4096),
                "layers/k_proj/kernel": (36, 2560, 1024),
                "layers/v_proj/kernel": (36, 2560, 1024),
                "layers/o_proj/kernel": (36, 4096, 2560),
                "layers/q_norm/scale": (36, 128),
                "layers/k_norm/scale": (36, 128),
                "layers/gate_proj/kernel": (36, 2560, 9728),
                "layers/up_proj/kernel": (36, 2560, 9728),
                "layers/down_proj/kernel": (36, 9728, 2560),
                "layers/input_norm/scale": (36, 2560),
                "layers/post_norm/scale": (36, 2560),
                "final_norm/scale": (2560,),
            },
        ),
    ],
)
def test_released_models_have_exactly_these_leaves(name, leaves):
    cfg = hf_config.parse(RELEASED[name][0], dtype="bfloat16")
    found = {"/".join(p): x.shape for p, x in leaf_shapes(cfg).items()}
    wanted = {}
    for path, shape in leaves.items():
        if path.startswith("layers/"):  # Of each layer, whose number leads the shape.
            layers, *shape = shape
            of_layers = (path.replace("layers", f"layers_{i}") for i in range(layers))
            wanted |= dict.fromkeys(of_layers, tuple(shape))
        else:
            wanted[path] = shape
    assert found == wanted


def test_matmul_params_counts_the_head_of_a_tied_model_too():
    cfg = hf_config.parse(RELEASED["Qwen2.5-0.5B"][0], dtype="bfloat16")
    leaves = leaf_shapes(cfg)
    kernels = sum(math.prod(x.shape) for p, x in leaves.items() if p[-1] == "kernel")
    assert cfg.matmul_params() == kernels + 151936 * 896
