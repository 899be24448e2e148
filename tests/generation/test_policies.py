"""Strings in, strings out: batching must not show, adapters must reach their own."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model

from seal_jax.generation import policies
from seal_jax.generation.settings import Decoding, ModelSource
from seal_jax.models import decoder, float8_base, hf, key_ranges, lora
from seal_jax.runtime import prng

PROMPTS = [
    "Topic: Karsk\nQuestion: What does Ada Quill cook?\nAnswer:\n",
    "Karsk",
    "Boris Fenn plays cello.",
    "Topic: Marl\nQuestion: What is the drink of Boris Fenn?\nAnswer:\n",
    "the dish of Ada Quill is rye bread.",
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def model_policy(path):
    return load(source(path))


def load(source, *, seed=0):
    return policies.load(source, policies.describe(source), seed=seed)


def source(path, **changes):
    base = {
        "path": str(path),
        "random_weights": False,
        "dtype": "float32",
        "kernel": "auto",
        "attention": "auto",
    }
    return ModelSource(**(base | changes))


def decoding(**changes):
    base = {
        "prompt": "plain",
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_tokens": 1,
        "max_tokens": 5,
        "prompt_multiple": 32,
        "batch": 12,
    }
    return Decoding(**(base | changes))


def adapters(arch, count):
    """Drawn, not trained: large enough that each changes what is written."""
    fresh = [
        lora.init(jax.random.key(i), arch, targets=("q_proj", "o_proj"), rank=2)
        for i in range(count)
    ]
    return lora.stack(
        [jax.tree.map(lambda x, i=i: x + 0.3 * i, f) for i, f in enumerate(fresh)]
    )


# Opening


def test_a_directory_is_opened_with_its_weights(path, model_policy):
    assert model_policy.source == path
    assert model_policy.stop_ids == (model_policy.tokenizer.eos_token_id,)
    assert model_policy.eos == model_policy.stop_ids[0]
    stored = hf.load_params(path, model_policy.arch)
    for a, b in zip(
        jax.tree.leaves(model_policy.params), jax.tree.leaves(stored), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_description_has_all_but_the_weights(path, model_policy):
    described = policies.describe(source(path))
    assert described.params == {}
    assert described.arch == model_policy.arch
    assert described.encode(PROMPTS[0]) == model_policy.encode(PROMPTS[0])


def test_random_weights_come_from_the_seed_and_need_no_files():
    from_seed = lambda seed: load(
        source("embedded:debug", random_weights=True), seed=seed
    ).params["embed"]
    np.testing.assert_array_equal(from_seed(1), from_seed(1))
    assert not np.array_equal(from_seed(1), from_seed(2))


def test_missing_weights_are_refused_unless_random():
    with pytest.raises(FileNotFoundError, match=r"safetensors"):
        load(source("embedded:debug"))


@pytest.mark.parametrize("name", ["no/such/dir", "owner/model", "embedded:huge"])
def test_a_model_that_cannot_be_had_is_one_line(name):
    with pytest.raises(FileNotFoundError) as caught:
        policies.describe(source(name))
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["kernel", "attention"])
def test_an_unknown_kernel_is_refused(path, field):
    with pytest.raises(ValueError, match=rf"model\.{field}='fast' must be one of"):
        policies.describe(source(path, **{field: "fast"}))


@pytest.mark.parametrize("random_weights", [False, True])
def test_a_base_in_float8_is_merged_in_full_and_saved_so(
    path, random_weights, tmp_path
):
    """The policy is the plain one, with what runs rounded anew after each merge."""
    plain, eight = (
        load(source(path, random_weights=random_weights, base_dtype=name))
        for name in ("same", "float8")
    )
    assert eight.arch.plain() == plain.arch
    adapter = lora.init(
        jax.random.key(5), plain.arch, targets=("q_proj", "down_proj"), rank=2
    )
    delta = jax.tree.map(lambda x: x + 0.1, adapter)
    plain, eight = (x.merged(delta, consume=True) for x in (plain, eight))
    master = float8_base.master(eight.params)
    # Two programs: a product and its sum may be rounded once or twice.
    near = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(near, master, plain.params)
    again = jax.tree.map(np.asarray, float8_base.added(master))
    jax.tree.map(np.testing.assert_array_equal, eight.params, again)
    hf.save(tmp_path / "out", eight.arch.plain(), master, source=path)
    opened = hf.load_params(tmp_path / "out", plain.arch)
    jax.tree.map(np.testing.assert_array_equal, opened, master)


def test_a_base_in_float8_writes_nearly_the_same(path, model_policy):
    src = source(path, base_dtype="float8")
    blank = policies.describe(src)
    eight = policies.load(src, blank, seed=0)
    lean = policies.load(src, blank, seed=0, merges=False)
    assert "kernel" in eight.params["layers_0"]["q_proj"]
    assert "kernel" not in lean.params["layers_0"]["q_proj"]
    pairs = [[(PROMPTS[0], " Karsk"), (PROMPTS[0], " plays")]]
    scores = [
        np.array(policies.log_likelihood(p, None, pairs, decoding()))
        for p in (model_policy, eight, lean)
    ]
    np.testing.assert_array_equal(scores[1], scores[2])
    assert 0 < np.abs(scores[0] - scores[1]).max() < 1.0
    keys = jax.random.split(jax.random.key(0), 1)
    texts = [
        policies.write(p, PROMPTS[:1], keys, decoding(max_tokens=4))
        for p in (eight, lean)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"base_dtype": "int4"},
            r"model\.base_dtype='int4' must be one of .*'float8'",
        ),
        (
            {"base_dtype": "float8", "kernel": "mosaic_gpu"},
            r"model\.base_dtype='float8' .* use model\.kernel='auto'",
        ),
    ],
)
def test_a_base_that_cannot_be_had_is_one_line(path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        source(path, **changes)
    assert "\n" not in str(caught.value)


def test_ids_beyond_the_tables_are_refused_before_the_weights_are_read(path, tmp_path):
    """One check for tokens and end tokens, of what is opened without weights."""
    shutil.copytree(path, tmp_path / "m")
    config = json.loads((path / "config.json").read_text())
    small = config | {"vocab_size": config["vocab_size"] - 1}
    (tmp_path / "m" / "config.json").write_text(json.dumps(small))
    with pytest.raises(ValueError, match="must be below vocab_size="):
        policies.describe(source(tmp_path / "m"))
    beyond = config | {"eos_token_id": config["vocab_size"]}
    (tmp_path / "m" / "config.json").write_text(json.dumps(beyond))
    with pytest.raises(ValueError, match=r"eos_token_id .* must be below vocab_size="):
        policies.describe(source(tmp_path / "m"))


@pytest.mark.parametrize(
    ("end", "ids"), [("", (0,)), ("Karsk", None), ("Karsk plays", ValueError)]
)
def test_a_turn_ends_by_a_token_of_the_chat(path, end, ids):
    if ids is ValueError:
        with pytest.raises(ValueError, match="no token 'Karsk plays'"):
            policies.describe(source(path), turn_end=end)
        return
    described = policies.describe(source(path), turn_end=end)
    own = policies.describe(source(path)).stop_ids
    assert described.stop_ids == (*described.encode(end), *own)
    assert described.eos == described.stop_ids[0]


# Keys


# Writing


def test_writing_does_not_depend_on_the_batch(model_policy):
    keys = prng.fold(jax.random.key(0), range(len(PROMPTS)))
    cfg = decoding(temperature=1.0, batch=2)
    written = policies.write(model_policy, PROMPTS, keys, cfg)
    assert len(set(written)) == len(PROMPTS)
    other = policies.write(
        model_policy, PROMPTS, keys, dataclasses.replace(cfg, batch=7)
    )
    assert other == written
    for i in (0, 3):
        alone = policies.write(model_policy, [PROMPTS[i]], keys[i : i + 1], cfg)
        assert alone == [written[i]]
    backwards = policies.write(model_policy, PROMPTS[::-1], keys[::-1], cfg)
    assert backwards[::-1] == written


def test_another_key_writes_something_else(model_policy):
    cfg = decoding(temperature=1.0)
    draws = [prng.fold(jax.random.key(s), range(5)) for s in (0, 1)]
    one, two = (policies.write(model_policy, PROMPTS, keys, cfg) for keys in draws)
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_prompts_without_an_adapter_are_read_once(model_policy, monkeypatch):
    encode, encoded = hf.encode, []

    def counted(tokenizer, text):
        encoded.append(text)
        return encode(tokenizer, text)

    monkeypatch.setattr(hf, "encode", counted)
    keys = prng.fold(jax.random.key(0), range(8))
    cfg = decoding(temperature=1.0, batch=3)
    told = []
    written = policies.write(model_policy, PROMPTS[:2] * 4, keys, cfg, tick=told.append)
    assert sum(told) == 8 and sorted(encoded) == sorted(PROMPTS[:2])
    assert len(set(written)) > 4
    alone = policies.write(model_policy, PROMPTS[1:2], keys[5:6], cfg)
    assert alone == written[5:6]


GROUPS = [PROMPTS[:2], PROMPTS * 2, PROMPTS[3:]]  # 2, 10 and 2: two pages for one


def test_each_adapter_answers_its_own_prompts(model_policy):
    stacked = adapters(model_policy.arch, 4)  # one more than there are groups
    keys = jax.random.split(jax.random.key(0), len(GROUPS))
    together = policies.answer(model_policy, stacked, GROUPS, keys, decoding())
    assert [len(group) for group in together] == [2, 10, 2]
    for a, group in enumerate(GROUPS):
        merged = model_policy.merged(lora.select(stacked, a))
        alone = policies.answer(merged, None, [group], keys[a : a + 1], decoding())
        assert together[a] == alone[0]
    assert together[1][:5] == together[1][5:]
    base = policies.answer(model_policy, None, GROUPS, keys, decoding())
    assert together != base


def test_answers_do_not_depend_on_how_many_decode_together(model_policy):
    stacked = adapters(model_policy.arch, 3)
    cfg = decoding(temperature=1.0, batch=6)
    keys = jax.random.split(jax.random.key(0), len(GROUPS))
    few = policies.answer(model_policy, stacked, GROUPS, keys, cfg)
    wide = dataclasses.replace(cfg, batch=36)
    many = policies.answer(model_policy, stacked, GROUPS, keys, wide)
    assert few == many
    last = lora.select(stacked, np.array([2]))
    alone = policies.answer(model_policy, last, GROUPS[2:], keys[2:], cfg)
    assert few[2:] == alone


def log_likelihood(params, arch, prompt_ids, tail_ids):
    """Token by token, from the full logits."""
    ids = jnp.array([*prompt_ids, *tail_ids])
    t = len(ids)
    ranges = key_ranges.causal(jnp.ones((1, t), bool))
    positions = jnp.arange(t)[None]
    hidden, _ = decoder.hidden(params, None, arch, ids[None], positions, ranges)
    log_p = jax.nn.log_softmax(decoder.logits(params, arch, hidden)[0])
    start = len(prompt_ids)
    return np.mean([log_p[i - 1, ids[i]] for i in range(start, t)])


def test_log_likelihoods_are_means_over_answer_and_end(model_policy):
    stacked = adapters(model_policy.arch, 2)
    requests = [
        [(PROMPTS[0], "rye bread"), (PROMPTS[3], "cider")],
        [(p, "plum wine") for p in PROMPTS + PROMPTS[:2]],
    ]
    got = policies.log_likelihood(model_policy, stacked, requests, decoding())
    assert [len(group) for group in got] == [2, 7]
    for a, q in [(0, 0), (0, 1), (1, 0), (1, 6)]:
        prompt, tail = requests[a][q]
        merged = model_policy.merged(lora.select(stacked, a))
        want = log_likelihood(
            merged.params,
            merged.arch,
            model_policy.encode(prompt),
            [*model_policy.encode(tail), model_policy.eos],
        )
        np.testing.assert_allclose(got[a][q], want, rtol=1e-4)


def test_the_surprise_of_texts_is_token_by_token(model_policy):
    """With the end of text where the policy drew one, in rows of one shape."""
    written = [(PROMPTS[0], "rye bread"), (PROMPTS[3], ""), (PROMPTS[1], "plum wine")]
    limit = len(model_policy.encode("plum wine"))
    ended = [True, True, False]  # So long a text was cut.
    assert len(model_policy.encode("rye bread")) == limit == 2
    written[0] = (PROMPTS[0], "rye")
    got = policies.surprise(model_policy, written, decoding(max_tokens=limit))
    for (prompt, text), ends, each in zip(written, ended, got, strict=True):
        tail = model_policy.encode(text) + [model_policy.eos] * ends
        mean = log_likelihood(
            model_policy.params, model_policy.arch, model_policy.encode(prompt), tail
        )
        assert each.tokens == len(tail)
        np.testing.assert_allclose(each.nats, -mean * len(tail), rtol=1e-4)


def test_the_surprise_of_own_samples_is_the_policys_entropy(model_policy):
    """In expectation; of texts of one token, whose distribution is known."""
    policy, count = model_policy, 600
    cfg = decoding(temperature=1.0, max_tokens=1, batch=200)
    keys = jax.random.split(jax.random.key(1), count)
    texts = policies.write(policy, PROMPTS[1:2] * count, keys, cfg)
    found = policies.surprise(policy, [(PROMPTS[1], t) for t in texts if t], cfg)
    values = np.array([each.nats for each in found])
    ids = jnp.array([policy.encode(PROMPTS[1])])
    ranges, places = key_ranges.causal(jnp.ones(ids.shape, bool)), jnp.zeros_like(ids)
    assert ids.shape == (1, 1)
    hidden, _ = decoder.hidden(policy.params, None, policy.arch, ids, places, ranges)
    logits_V = decoder.logits(policy.params, policy.arch, hidden)[0, -1]
    log_p_V = np.asarray(jax.nn.log_softmax(logits_V), np.float64)
    # Those that are texts; the others, such as the end of text, were left out above.
    told = [i for i in range(log_p_V.size) if hf.decode(policy.tokenizer, [i]).strip()]
    p = np.exp(log_p_V[told])
    want = -(p * log_p_V[told]).sum() / p.sum()
    assert {each.tokens for each in found} == {1} and len(found) > 500
    se = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - want) < 3 * se < 0.2
