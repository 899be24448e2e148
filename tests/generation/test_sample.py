"""Drawing, and the rows that decode together."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_models import load

from seal_jax.generation import sample
from seal_jax.models import decoder, key_ranges


def config(**changes) -> sample.SampleConfig:
    base = dict(
        max_tokens=6,
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        min_tokens=0,
        stop_ids=(20,),
    )
    return sample.SampleConfig(**(base | changes))


# Drawing


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


def drawn_by_sorting(logits_V, key, cfg):
    """The definition: the nucleus is found in the sorted vocabulary."""
    logits_V = logits_V / cfg.temperature
    if cfg.top_k:
        kth = jnp.sort(logits_V)[-cfg.top_k]
        logits_V = jnp.where(logits_V < kth, -jnp.inf, logits_V)
    sorted_V = jnp.sort(logits_V, descending=True)
    probs_V = jax.nn.softmax(sorted_V)
    before_V = jnp.cumsum(probs_V) - probs_V
    last = jnp.sum(before_V < cfg.top_p) - 1
    nucleus_V = jnp.where(logits_V < sorted_V[last], -jnp.inf, logits_V)
    return jax.random.categorical(key, nucleus_V)


LOGITS = {
    "peaked": lambda x: 4 * x,
    "flat": lambda x: 0.01 * x,  # nearly all of the vocabulary
    "tied": lambda x: jnp.round(2 * x),
    "bfloat16": lambda x: x.astype(jnp.bfloat16).astype(jnp.float32),
    "banned": lambda x: jnp.where(x > 0.5, -jnp.inf, x),
}


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("top_p", [0.3, 0.95, 0.9999])
def test_a_nucleus_is_drawn_from_as_if_it_was_sorted_for(kind, top_p):
    rows, vocab = 300, 500
    logits_BV = LOGITS[kind](jax.random.normal(jax.random.key(3), (rows, vocab)))
    row_keys = jax.random.split(jax.random.key(4), rows)
    for top_k in (0, 40):
        cfg = config(temperature=0.8, top_p=top_p, top_k=top_k)
        got, want = (
            jax.vmap(functools.partial(draw, cfg=cfg))(logits_BV, row_keys)
            for draw in (sample.draw, drawn_by_sorting)
        )
        np.testing.assert_array_equal(got, want)


def test_a_nucleus_is_drawn_without_sorting_the_vocabulary():
    cfg = config(temperature=1.0, top_p=0.9)
    drawn = jax.make_jaxpr(lambda *row: sample.draw(*row, cfg))
    traced = str(drawn(jnp.zeros(50), jax.random.key(0)))
    assert "while" in traced and not re.search(r"sort|top_k", traced)


def test_logits_that_are_not_numbers_end_the_search():
    cfg = config(temperature=1.0, top_p=0.5)
    for bad in (jnp.full(9, jnp.nan), jnp.arange(9.0).at[4].set(jnp.nan)):
        assert 0 <= int(sample.draw(bad, jax.random.key(0), cfg)) < 9


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


# Rows


def start(name, cfg, *, rows, slots=14):
    arch, params = load(name)
    made = sample.empty_rows(None, arch=arch, cfg=cfg, rows=rows, slots=slots)
    return arch, params, made


NO_SLOTS = np.full(8, -1, np.int32)


def side_by_side(prompts, width=8):
    """In one row, one after the other: tokens, starts, and spans."""
    tokens, starts = np.zeros((1, width), np.int32), np.full((1, width), -1, np.int32)
    first = np.cumsum([0, *map(len, prompts)], dtype=np.int32)[:-1]
    for at, ids in zip(first, prompts, strict=True):
        tokens[0, at : at + len(ids)], starts[0, at : at + len(ids)] = ids, at
    lengths = np.array([len(ids) for ids in prompts], np.int32)
    return tokens, starts, (np.zeros_like(first), first, lengths)


def read(arch, params, prompts):
    return sample.prefill(params, None, NO_SLOTS, *side_by_side(prompts), arch=arch)


def admit(rows, prompts, sources, places, cfg, arch):
    keys = jax.random.split(jax.random.key(1), 2)
    none = np.array([0, 0], np.int32)
    entering = sample.Entering(
        source_E=np.array(sources, np.int32),
        row_E=np.array(places, np.int32),
        page_E=none,
        slot_E=none,
        keys_E=keys,
        limit_E=none + 99,
        members_CGQ=np.zeros((1, 0, 1), np.int32),
    )
    return sample.admit(rows, prompts, None, entering, arch=arch, cfg=cfg)


def test_empty_rows_are_done_and_decode_takes_no_step():
    arch, params, rows = start("qwen2", config(), rows=6)
    assert rows.done_B.all() and rows.done_B.shape == (6,)
    rows, steps = sample.decode(params, rows, 6, 9, arch=arch, cfg=config())
    assert steps == 0 and not rows.count_B.any()


def test_rows_that_are_not_admitted_to_stay_as_they_are():
    cfg = config(stop_ids=())
    arch, params, rows = start("qwen2", cfg, rows=4)
    prompts = read(arch, params, [[5, 6, 7], [8, 9]])
    rows = admit(rows, prompts, [1, 0], [2, 4], cfg, arch)  # 4 is past the last row
    np.testing.assert_array_equal(rows.length_B, [0, 0, 2, 0])
    np.testing.assert_array_equal(rows.count_B, [0, 0, 1, 0])
    np.testing.assert_array_equal(rows.done_B, [True, True, False, True])
    before = jax.device_get(rows)
    rows = admit(rows, prompts, [0, 0], [0, 3], cfg, arch)
    for old, new in zip(
        jax.tree.leaves(before.cache), jax.tree.leaves(rows.cache), strict=True
    ):
        np.testing.assert_array_equal(old[1:3], new[1:3])
    np.testing.assert_array_equal(before.out_BN[2], rows.out_BN[2])
    np.testing.assert_array_equal(rows.length_B, [3, 0, 2, 3])


def test_a_row_leaves_nothing_to_the_next_one():
    cfg = config(stop_ids=())
    arch, params, rows = start("qwen2", cfg, rows=2)
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), rows.cache)
    prompts = read(arch, params, [[5, 6, 7], [8, 9]])

    def tokens(rows):
        rows = admit(rows, prompts, [0, 1], [0, 1], cfg, arch)
        rows, steps = sample.decode(params, rows, 2, 99, arch=arch, cfg=cfg)
        assert steps == cfg.max_tokens - 1  # the first token is the prompt's
        return np.asarray(rows.out_BN)

    spoilt = rows._replace(cache=nan)
    np.testing.assert_array_equal(
        tokens(spoilt), tokens(start("qwen2", cfg, rows=2)[2])
    )


def test_decode_ends_when_enough_rows_have_or_at_the_limit():
    cfg = config(stop_ids=(), max_tokens=6)
    arch, params, rows = start("qwen2", cfg, rows=3)
    prompts = read(arch, params, [[5, 6, 7], [8, 9]])
    rows = admit(rows, prompts, [0, 1], [0, 3], cfg, arch)  # row 0 alone
    rows, steps = sample.decode(params, rows, 3, 2, arch=arch, cfg=cfg)
    assert steps == 2 and rows.count_B[0] == 3
    rows = admit(rows, prompts, [1, 1], [1, 3], cfg, arch)  # row 1, 2 tokens later
    rows, steps = sample.decode(params, rows, 2, 99, arch=arch, cfg=cfg)
    assert steps == 3  # row 0 is finished, row 2 was never begun
    np.testing.assert_array_equal(rows.count_B, [6, 4, 0])
    none = np.zeros((1, 0), np.int32)
    moved = sample.move(rows, np.array([[1]]), none, none[..., None])
    for kept, all_of_it in zip(
        jax.tree.leaves(jax.device_get((moved.cache, moved.out_BN, moved.token_B))),
        jax.tree.leaves(jax.device_get((rows.cache, rows.out_BN, rows.token_B))),
        strict=True,
    ):
        np.testing.assert_array_equal(kept, all_of_it[1:2])
    rows, steps = sample.decode(params, rows, 3, 99, arch=arch, cfg=cfg)
    assert steps == 2
    np.testing.assert_array_equal(rows.length_B, [3 + 5, 2 + 5, 0])


# Log-likelihoods


def test_log_likelihoods_equal_those_of_single_positions():
    arch, params = load("llama")
    lines = [[1, 2], [11, 12, 13, 14, 15]]
    tokens, starts, _ = side_by_side(lines)
    got_PT = sample.log_likelihood(params, None, NO_SLOTS, tokens, starts, arch=arch)
    flax_model, first = decoder.Decoder(arch), 2
    for stop in (1, 3, 4):
        prefix = jnp.array([lines[1][:stop]])
        positions = jnp.arange(stop)[None]
        ranges = key_ranges.causal(jnp.ones((1, stop), bool))
        hidden, _ = flax_model.apply({"params": params}, prefix, positions, ranges)
        logits = flax_model.apply({"params": params}, hidden, method="unembed")
        want = jax.nn.log_softmax(logits[0, -1])[lines[1][stop]]
        np.testing.assert_allclose(got_PT[0, first + stop], want, rtol=1e-5)
