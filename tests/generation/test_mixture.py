"""Answers drawn from a mixture: its ends are sampling, its middle is the definition."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model

from seal_jax.generation import mixture, policies, sample
from seal_jax.generation.settings import Decoding, ModelSource
from seal_jax.models import decoder, hf, key_ranges
from seal_jax.runtime import prng

PASSAGE = "Passage:\nKarsk\nrye bread is the dish of Ada Quill.\n\n"
QUESTIONS = [f"What does {name} cook?" for name in ("Ada Quill", "Boris Fenn", "Ada")]
PAIRS = [
    (
        f"{PASSAGE}Question: {question}\nAnswer:\n",
        f"Topic: Karsk\nQuestion: {question}\nAnswer:\n",
    )
    for question in QUESTIONS * 3
]
KEYS = prng.fold(jax.random.key(3), range(len(PAIRS)))
DECODING = Decoding("plain", 1.0, 1.0, 0, 1, 6, 16, 4)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")
    source = ModelSource(str(path), False, "float32", "auto", "auto")
    return policies.load(source, policies.describe(source), seed=0)


@pytest.mark.parametrize(("share", "side"), [(1.0, 0), (0.0, 1)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_whole_share_is_sampling_from_one_prompt(policy, share, side, temperature):
    cfg = dataclasses.replace(DECODING, temperature=temperature)
    mixed = mixture.answer(policy, PAIRS, KEYS, cfg, share)
    alone = policies.write(policy, [pair[side] for pair in PAIRS], KEYS, cfg)
    assert mixed == alone
    other = policies.write(policy, [pair[1 - side] for pair in PAIRS], KEYS, cfg)
    assert mixed != other


@functools.partial(jax.jit, static_argnums=0)
def last_logits(arch, params, ids_T, length):
    t = len(ids_T)
    ranges = key_ranges.causal(jnp.ones((1, t), bool))
    hidden, _ = decoder.hidden(
        params, None, arch, ids_T[None], jnp.arange(t)[None], ranges
    )
    return decoder.logits(params, arch, hidden[0, length - 1])


def defined(policy, pair, key, cfg, share):
    """The definition, the whole text again for every token; and each token's side."""
    cfg = policies.sample_config(cfg, policy)
    prompts = [policy.sequence(prompt) for prompt in pair]
    ids, sides = [], []
    for count in range(cfg.max_tokens):
        step = jax.random.fold_in(key, count)
        side = int(jax.random.uniform(jax.random.fold_in(step, 1)) >= share)
        text = [*prompts[side], *ids]
        padded = jnp.zeros(64, jnp.int32).at[: len(text)].set(jnp.array(text))
        logits_V = last_logits(policy.arch, policy.params, padded, len(text))
        if count < cfg.min_tokens:
            logits_V = logits_V.at[jnp.array(cfg.stop_ids)].set(-jnp.inf)
        token = int(sample.draw(logits_V, step, cfg))
        if token in cfg.stop_ids:
            break
        ids.append(token)
        sides.append(side)
    return hf.decode(policy.tokenizer, ids).strip(), sides


def test_every_token_is_drawn_after_the_prompt_that_the_coin_names(policy):
    mixed = mixture.answer(policy, PAIRS, KEYS, DECODING, 0.5)
    wanted = [
        defined(policy, pair, key, DECODING, 0.5)
        for pair, key in zip(PAIRS, KEYS, strict=True)
    ]
    assert mixed == [text for text, _ in wanted]
    sides = [side for _, sides in wanted for side in sides]
    assert 0.2 < np.mean(sides) < 0.8


def test_a_text_depends_on_its_pair_and_its_key_alone(policy):
    mixed = mixture.answer(policy, PAIRS, KEYS, DECODING, 0.5)
    # Nine pairs take two turns of eight; twenty fit one of thirty-two.
    wide = dataclasses.replace(DECODING, batch=512, prompt_multiple=64)
    assert mixture.answer(policy, PAIRS, KEYS, wide, 0.5) == mixed
    last = mixture.answer(policy, PAIRS[-1:], KEYS[-1:], DECODING, 0.5)
    assert last == mixed[-1:]
    backwards = mixture.answer(policy, PAIRS[::-1], KEYS[::-1], DECODING, 0.5)
    assert backwards == mixed[::-1]
    other = prng.fold(jax.random.key(4), range(len(PAIRS)))
    assert mixture.answer(policy, PAIRS, other, DECODING, 0.5) != mixed


def test_a_text_ends_where_a_stop_token_is_drawn(policy):
    cfg = dataclasses.replace(DECODING, min_tokens=0, max_tokens=40)
    full = mixture.answer(policy, PAIRS, KEYS, cfg, 0.5)
    words = [policy.encode(text) for text in full]
    first = next(ids[1] for ids in words if len(ids) > 1 and ids[0] != ids[1])
    stopped = dataclasses.replace(policy, stop_ids=(*policy.stop_ids, first))
    cut = mixture.answer(stopped, PAIRS, KEYS, cfg, 0.5)
    ended = [ids[: ids.index(first)] if first in ids else ids for ids in words]
    assert [policy.encode(text) for text in cut] == ended
    assert cut != full


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused(policy, share):
    with pytest.raises(ValueError, match=r"share=.* must lie in \[0, 1\]"):
        mixture.answer(policy, PAIRS, KEYS, DECODING, share)


def test_no_pairs_give_no_texts(policy):
    assert mixture.answer(policy, [], KEYS[:0], DECODING, 0.5) == []
