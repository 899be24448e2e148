"""Continuous decoding against transformers' `generate` and a plain definition."""

import dataclasses
import functools
import json

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.generation import generate, sample
from seal_jax.models import decoder, key_ranges, lora, peft

GOLDEN = golden_models.GOLDEN
Request = generate.Request


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


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def run(name, adapters, requests, cfg, row_keys=None, **changes):
    arch, params = golden_models.load(name)
    sizes = {"batch": 8, "per_page": 2, "prompt_multiple": 8} | changes
    row_keys = keys(len(requests)) if row_keys is None else row_keys
    return generate.run(
        params, adapters, requests, row_keys, arch=arch, cfg=cfg, **sizes
    )


@functools.partial(jax.jit, static_argnums=0)
def last_logits(arch, params, ids_T, length):
    """After the first `length` of the ids, in one pass without a cache."""
    t = len(ids_T)
    ranges = key_ranges.causal(jnp.ones((1, t), bool))
    hidden, _ = decoder.hidden(
        params, None, arch, ids_T[None], jnp.arange(t)[None], ranges
    )
    return decoder.logits(params, arch, hidden[0, length - 1])


draw = jax.jit(sample.draw, static_argnums=2)


def plain(name, delta, prompt, key, cfg) -> list[int]:
    """The definition: one row, the whole text again for every token."""
    arch, params = golden_models.load(name)
    merged = params if delta is None else lora.merge(params, delta)
    ids = list(prompt)
    for count in range(cfg.max_tokens):
        padded = jnp.zeros(32, jnp.int32).at[: len(ids)].set(jnp.array(ids))
        logits_V = last_logits(arch, merged, padded, len(ids))
        if count < cfg.min_tokens:
            logits_V = logits_V.at[jnp.array(cfg.stop_ids)].set(-jnp.inf)
        token = int(draw(logits_V, jax.random.fold_in(key, count), cfg))
        if token in cfg.stop_ids:
            break
        ids.append(token)
    return ids[len(prompt) :]


def drawn_adapters(name, count):
    arch, _ = golden_models.load(name)

    def one(i):
        fresh = lora.init(jax.random.key(i), arch, targets=("q_proj", "v_proj"), rank=2)
        noise = lambda x: x + 0.1 * jax.random.normal(jax.random.key(9 + i), x.shape)
        return jax.tree.map(noise, fresh)

    return lora.stack([one(i) for i in range(count)])


PROMPTS = [(5, 6, 7), (9, 8, 7, 6, 5, 4, 3, 2, 1), (40,), (11, 12), (3, 1, 4, 1, 5)]

# transformers


@pytest.mark.parametrize("name", golden_models.NAMES)
def test_greedy_equals_transformers_token_by_token(name):
    golden = json.loads((GOLDEN / name / "greedy.json").read_text())
    cfg = config(max_tokens=golden["max_new_tokens"], stop_ids=(golden["eos_id"],))
    requests = [Request(tuple(p)) for p in golden["prompts"]]
    made = run(name, None, requests, cfg, batch=2)
    want = [[t for t in out if t != golden["eos_id"]] for out in golden["outputs"]]
    assert made.tokens == want
    assert any(out[-1] == golden["eos_id"] for out in golden["outputs"])


def test_greedy_with_many_adapters_equals_transformers_one_by_one():
    arch, _ = golden_models.load("qwen2")
    base = json.loads((GOLDEN / "qwen2" / "greedy.json").read_text())
    adapted = json.loads((GOLDEN / "qwen2" / "peft_all_greedy.json").read_text())
    delta, alpha = peft.load(GOLDEN / "qwen2" / "peft_all", arch)
    delta = lora.scaled(delta, alpha / len(delta["layers_0"]["q_proj"]["a"]))
    none = jax.tree.map(jnp.zeros_like, delta)
    # Adapter 0 is none; -1 and 2, outside the stack, are none as well.
    kinds = {0: base, 1: adapted, -1: base, 2: base}
    requests, want = [], []
    for slot, golden in kinds.items():
        requests += [Request(tuple(p), slot) for p in golden["prompts"]]
        want += golden["outputs"]
    cfg = config(max_tokens=base["max_new_tokens"], stop_ids=())
    made = run("qwen2", lora.stack([none, delta]), requests, cfg)
    # Each golden run stopped at its own end token, which it includes.
    assert [t[: len(w)] for t, w in zip(made.tokens, want, strict=True)] == want
    assert base["outputs"] != adapted["outputs"]


# The definition


SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 1.3, "top_p": 0.8, "min_tokens": 2, "stop_ids": tuple(range(99))},
    {"temperature": 0.7, "top_k": 5, "max_tokens": 1},
]


@pytest.mark.parametrize("changes", SETTINGS)
def test_rows_equal_the_definition_whatever_decodes_beside_them(changes):
    cfg = config(**changes)
    stack = drawn_adapters("qwen3", 3)
    requests = [
        Request(prompt, slot)
        for slot, prompt in zip([2, 0, 2, -1, 2], PROMPTS, strict=True)
    ]
    want = [
        plain(
            "qwen3",
            None if r.adapter < 0 else lora.select(stack, r.adapter),
            r.prompt,
            key,
            cfg,
        )
        for r, key in zip(requests, keys(5), strict=True)
    ]
    if changes is SETTINGS[0]:
        few = {"batch": 2, "per_page": 2}  # one page at a time
        assert run("qwen3", stack, requests, cfg, **few).tokens == want
    many = {"batch": 12, "per_page": 3, "prompt_multiple": 5}
    backwards = run("qwen3", stack, requests[::-1], cfg, keys(5)[::-1], **many)
    assert backwards.tokens == want[::-1]
    if cfg.max_tokens > 1:
        assert len({tuple(t) for t in want}) == 5


def test_wider_tiles_for_longer_prompts_change_nothing():
    stack, cfg = drawn_adapters("qwen3", 3), config(temperature=1.0, max_tokens=3)
    requests = [
        Request(p, slot) for slot, p in zip([2, 0, 1, -1, 2], PROMPTS, strict=True)
    ]
    # There is room for prompts of 1024 tokens: tiles of 64.
    wide = run("qwen3", stack, requests, cfg, prompt_multiple=1024)
    assert wide.tokens == run("qwen3", stack, requests, cfg).tokens
    assert any(wide.tokens)


@pytest.mark.parametrize("batch", [1, 12, 40])
def test_samples_of_one_prompt_share_its_reading(batch):
    cfg = config(temperature=1.0)
    requests = [Request(p) for p in PROMPTS for _ in range(5)]
    made = run("llama", None, requests, cfg, batch=batch)
    assert made.prompt_tokens == sum(map(len, PROMPTS))
    assert made.new_tokens == sum(map(len, made.tokens)) > 0
    for i in (0, 7, 24):
        assert made.tokens[i] == plain(
            "llama", None, requests[i].prompt, keys(25)[i], cfg
        )
    assert len({tuple(t) for t in made.tokens}) > 20


def test_min_tokens_forbids_an_empty_text():
    ask = [Request((5, 6, 7))]
    first = run("qwen2", None, ask, config(max_tokens=1, stop_ids=())).tokens[0]
    stop = tuple(first)
    assert run("qwen2", None, ask, config(stop_ids=stop)).tokens == [[]]
    longer = run("qwen2", None, ask, config(stop_ids=stop, min_tokens=1)).tokens[0]
    assert len(longer) >= 1


def test_a_diverged_adapter_reaches_no_other_rows():
    cfg = config(temperature=1.0)
    stack = drawn_adapters("qwen2", 3)
    broken = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), stack)
    # Adapter 1 has the longest prompts: it decodes first, and the others follow it into
    # its page.
    slots = [1, 1, 0, 2, 0]
    prompts = sorted(PROMPTS, key=lambda p: -len(p))
    requests = [Request(p, a) for p, a in zip(prompts, slots, strict=True)]
    for batch in (2, 8):
        sound = run("qwen2", stack, requests, cfg, batch=batch).tokens
        made = run("qwen2", broken, requests, cfg, batch=batch).tokens
        assert made[2:] == sound[2:]


# The queue


def test_requests_without_a_prompt_are_empty_and_change_nothing():
    cfg = config()
    told = []
    requests = [Request(()), Request((5, 6, 7)), Request(())]
    made = run("qwen2", None, requests, cfg, tick=told.append)
    assert (made.tokens[0], made.tokens[2]) == ([], [])
    assert made.tokens[1] == run("qwen2", None, requests[1:2], cfg).tokens[0]
    assert sum(told) == 3
    assert run("qwen2", None, [], cfg, keys(1)).tokens == []
    none = run("qwen2", None, requests[:1], cfg)
    assert (none.tokens, none.steps, none.prompt_tokens) == ([[]], 0, 0)


def test_a_finished_page_is_refilled_while_others_go_on():
    cfg = config(max_tokens=20, temperature=5.0, stop_ids=tuple(range(40)))
    told = []
    requests = [Request((5, 6, 7))] * 24
    made = run("qwen2", None, requests, cfg, batch=4, tick=told.append)
    counts = [len(tokens) for tokens in made.tokens]
    assert max(counts) >= 2 * np.median(counts) > 0  # one waits for many
    # In batches of 4, each would last as long as its longest text.
    assert made.steps < 0.8 * sum(max(counts[i : i + 4]) for i in range(0, 24, 4))
    assert sum(told) == 24 and len(told) > 6


@pytest.mark.parametrize("adapters", [0, 2])
def test_a_limit_ends_a_request_and_changes_nothing_before(adapters):
    stack = drawn_adapters("qwen2", adapters) if adapters else None
    requests = [Request(p, i % 2 if adapters else -1) for i, p in enumerate(PROMPTS)]
    limits = [0, 3, 6, 9, 1]
    for stop_ids in ((), tuple(range(0, 99, 9))):
        cfg = config(temperature=1.0, stop_ids=stop_ids)
        # One batch, so that it is one program.
        free = run("qwen2", stack, requests, cfg, batch=2).tokens
        made = run("qwen2", stack, requests, cfg, batch=2, limits=limits)
        assert made.tokens == [t[:n] for t, n in zip(free, limits, strict=True)]
    # Some ended at a stop token before the limit, some had more to say.
    assert any(len(t) < min(n, 6) for t, n in zip(free, limits, strict=True))
    assert any(len(t) > n for t, n in zip(free, limits, strict=True))
    none = run("qwen2", stack, requests, cfg, batch=2, limits=[0] * len(requests))
    assert (none.new_tokens, none.steps) == (0, 0)


def test_many_adapters_and_samples_share_what_they_can():
    """More requests than rows, five samples of a prompt, adapters one after another."""
    cfg = config(temperature=1.0)
    stack = drawn_adapters("qwen3", 3)
    requests = [Request(p, a) for a in (2, -1, 0, 1) for p in PROMPTS for _ in range(3)]
    alone = [
        run("qwen3", stack, requests[i : i + 1], cfg, keys(60)[i : i + 1]).tokens[0]
        for i in (0, 17, 38, 59)
    ]
    for batch in (4, 16):
        made = run("qwen3", stack, requests, cfg, keys(60), batch=batch, per_page=3)
        assert [made.tokens[i] for i in (0, 17, 38, 59)] == alone
        assert made.prompt_tokens == 4 * sum(map(len, PROMPTS))


def test_long_texts_move_together_and_stay_what_they_are():
    cfg = config(temperature=1.0, max_tokens=90, stop_ids=tuple(range(0, 99, 2)))
    stack = drawn_adapters("qwen2", 2)
    requests = [Request(p, i % 3 - 1) for i, p in enumerate(PROMPTS * 4)]
    # Two texts go on to the end, the others stop.
    row_keys, ends = keys(20), dataclasses.replace(cfg, stop_ids=())
    few = [3, 16]
    alone, of_few = [requests[i] for i in few], row_keys[jnp.array(few)]
    whole = run("qwen2", stack, alone, ends, of_few, batch=16)
    limits = [90 if i in few else 3 for i in range(20)]
    made = run("qwen2", stack, requests, ends, row_keys, batch=16, limits=limits)
    assert [made.tokens[i] for i in few] == whole.tokens
    assert {len(t) for t in whole.tokens} == {90}
    assert all(len(t) == 3 for i, t in enumerate(made.tokens) if i not in few)


# Log-likelihoods


# With room for 1024 tokens tiles are wider.
@pytest.mark.parametrize(("batch", "room"), [(1, 0), (32, 0), (2, 1024)])
def test_log_likelihoods_equal_the_sum_over_single_positions(batch, room):
    arch, params = golden_models.load("qwen25")
    stack = drawn_adapters("qwen25", 2)
    requests = [Request(p, i % 2) for i, p in enumerate(PROMPTS) if len(p) > 1]
    given = [1, 4, 1, 2]
    got = generate.log_likelihoods(
        params,
        stack,
        requests,
        given,
        arch=arch,
        batch=batch,
        prompt_multiple=4,
        room=room,
    )
    for request, start, value in zip(requests, given, got, strict=True):
        merged = lora.merge(params, lora.select(stack, request.adapter))
        ids = (
            jnp.zeros(16, jnp.int32)
            .at[: len(request.prompt)]
            .set(jnp.array(request.prompt))
        )
        want = sum(
            jax.nn.log_softmax(last_logits(arch, merged, ids, i))[request.prompt[i]]
            for i in range(start, len(request.prompt))
        )
        np.testing.assert_allclose(value, want, rtol=1e-4)
