"""Generation against transformers' `generate`, and the sampler's contracts."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax import hf, hf_weights, lora, model, peft, sample

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ("qwen2", "qwen25", "qwen3", "llama")


def config(**changes) -> sample.SampleConfig:
    base = dict(
        max_tokens=6,
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        min_tokens=0,
        stop_ids=(20,),
        prompt_multiple=8,
    )
    return sample.SampleConfig(**(base | changes))


def load(family: str):
    arch = hf.read_config(GOLDEN / family / "model", dtype="float32")
    return arch, hf_weights.load_params(GOLDEN / family / "model", arch)


def keys(a: int, q: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), (a, q))


def generate(arch, params, prompts, cfg, delta=None, row_keys=None):
    width = sample.padded_width(prompts, cfg.prompt_multiple)
    per_group = max(len(group) for group in prompts)
    tokens, lengths = sample.pad(
        prompts, groups=len(prompts), per_group=per_group, width=width
    )
    if row_keys is None:
        row_keys = keys(len(prompts), per_group)
    out = sample.generate(params, delta, tokens, lengths, row_keys, arch=arch, cfg=cfg)
    return sample.texts(*out)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_transformers_token_by_token(family):
    arch, params = load(family)
    golden = json.loads((GOLDEN / family / "greedy.json").read_text())
    cfg = config(max_tokens=golden["max_new_tokens"], stop_ids=(golden["eos_id"],))
    ours = generate(arch, params, [golden["prompts"]], cfg)[0]
    assert ours == [
        [t for t in out if t != golden["eos_id"]] for out in golden["outputs"]
    ]
    assert any(out[-1] == golden["eos_id"] for out in golden["outputs"])


def test_greedy_with_many_adapters_in_one_batch_equals_transformers_one_by_one():
    arch, params = load("qwen2")
    base = json.loads((GOLDEN / "qwen2" / "greedy.json").read_text())
    adapted = json.loads((GOLDEN / "qwen2" / "peft_all_greedy.json").read_text())
    delta, alpha = peft.load(GOLDEN / "qwen2" / "peft_all", arch)
    rank = delta["layers"]["q_proj"]["a"].shape[1]
    delta = lora.scaled(delta, alpha / rank)
    none = jax.tree.map(jnp.zeros_like, delta)
    prompts = [base["prompts"], adapted["prompts"], base["prompts"]]
    cfg = config(max_tokens=base["max_new_tokens"], stop_ids=())
    ours = generate(arch, params, prompts, cfg, delta=lora.stack([none, delta, none]))
    for got, golden in zip(ours, (base, adapted, base), strict=True):
        # Each golden run stopped at its own end token, which it includes.
        for tokens, want in zip(got, golden["outputs"], strict=False):
            assert tokens[: len(want)] == want
    assert base["outputs"] != adapted["outputs"]


def test_sampled_rows_do_not_depend_on_their_neighbours():
    arch, params = load("qwen3")
    cfg = config(temperature=1.0, max_tokens=12)
    prompts = [[[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1], [40]]]
    together = generate(arch, params, prompts, cfg)[0]
    row_keys = keys(1, 3)
    for q, prompt in enumerate(prompts[0]):
        alone = generate(arch, params, [[prompt]], cfg, row_keys=row_keys[:, q : q + 1])
        assert alone[0][0] == together[q]
    assert len({tuple(t) for t in together}) == 3


def test_a_skipped_row_is_empty_and_changes_nothing():
    arch, params = load("qwen2")
    cfg = config()
    both = generate(arch, params, [[[5, 6, 7], []]], cfg)[0]
    assert both[1] == []
    assert both[0] == generate(arch, params, [[[5, 6, 7]]], cfg)[0][0]


def test_min_tokens_forbids_an_empty_text():
    arch, params = load("qwen2")
    first = generate(arch, params, [[[5, 6, 7]]], config(max_tokens=1, stop_ids=()))
    stop = tuple(first[0][0])
    stopped = generate(arch, params, [[[5, 6, 7]]], config(stop_ids=stop))
    assert stopped[0][0] == []
    longer = generate(arch, params, [[[5, 6, 7]]], config(stop_ids=stop, min_tokens=1))
    assert len(longer[0][0]) >= 1


DRAW_CASES = [
    # probabilities, top_k, top_p, tokens that may be drawn
    ([0.5, 0.3, 0.15, 0.05], 0, 1.0, {0, 1, 2, 3}),
    ([0.5, 0.3, 0.15, 0.05], 2, 1.0, {0, 1}),
    ([0.5, 0.3, 0.15, 0.05], 0, 0.5, {0}),
    ([0.5, 0.3, 0.15, 0.05], 0, 0.51, {0, 1}),
    ([0.5, 0.3, 0.15, 0.05], 0, 0.9, {0, 1, 2}),
    ([0.05, 0.15, 0.3, 0.5], 3, 0.7, {3, 2}),
    ([0.25, 0.25, 0.25, 0.25], 0, 1e-6, {0, 1, 2, 3}),
]


@pytest.mark.parametrize(("probs", "top_k", "top_p", "allowed"), DRAW_CASES)
def test_draw_keeps_exactly_the_allowed_tokens(probs, top_k, top_p, allowed):
    cfg = config(temperature=1.0, top_k=top_k, top_p=top_p)
    draws = jax.random.split(jax.random.key(1), 400)
    tokens = jax.vmap(lambda k: sample.draw(jnp.log(jnp.array(probs)), k, cfg))(draws)
    assert set(np.asarray(tokens).tolist()) == allowed


def test_draw_follows_the_tempered_distribution():
    probs = np.array([0.6, 0.3, 0.1])
    cfg = config(temperature=2.0)
    draws = jax.random.split(jax.random.key(2), 20_000)
    tokens = jax.vmap(lambda k: sample.draw(jnp.log(jnp.array(probs)), k, cfg))(draws)
    want = probs**0.5 / (probs**0.5).sum()
    got = np.bincount(np.asarray(tokens), minlength=3) / 20_000
    np.testing.assert_allclose(got, want, atol=0.015)


def test_log_likelihood_equals_the_sum_over_single_positions():
    arch, params = load("llama")
    ids = [11, 12, 13, 14, 15]
    tokens, lengths = sample.pad([[ids, [1, 2]]], groups=1, per_group=2, width=8)
    scored = np.zeros(tokens.shape, bool)
    scored[0, 0, 3:5] = True
    got = sample.log_likelihood(params, None, tokens, scored, lengths, arch=arch)
    decoder = model.Decoder(arch)
    want = 0.0
    for stop in (3, 4):
        prefix = jnp.array([ids[:stop]])
        positions = jnp.arange(stop)[None]
        mask = model.causal_mask(jnp.ones((1, stop), bool))
        hidden, _ = decoder.apply({"params": params}, prefix, positions, mask)
        logits = decoder.apply({"params": params}, hidden, method="unembed")
        want += jax.nn.log_softmax(logits[0, -1])[ids[stop]]
    np.testing.assert_allclose(got[0, 0], want, rtol=1e-5)
    assert got[0, 1] == 0.0


BAD = [
    ({"max_tokens": 0}, "max_tokens=0"),
    ({"temperature": -1.0}, "temperature=-1.0"),
    ({"top_p": 0.0}, "top_p=0.0"),
    ({"top_k": -1}, "top_k=-1"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config(**change)
