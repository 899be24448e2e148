"""Writing and scoring under adapters, against the merged model."""

import types

import jax
import numpy as np
import pytest
from golden_models import assert_one_line

import seal_jax as seal
from seal_jax.api import sizes

PROMPTS = ["Ada", "The mill is", "Boris", "Who bakes?", "Rye", "It is old. Ada"]


@pytest.fixture(scope="module")
def alone(model, adapters):
    """What each merged model writes after each prompt: all that can be asked for."""
    merged = [model.merge(one) for one in adapters]
    return [m.generate(PROMPTS, max_tokens=8) for m in merged]


def test_one_adapter_for_each_prompt(model, adapters, alone):
    texts = model.generate(PROMPTS, adapters, max_tokens=8)
    assert texts == [alone[i][i] for i in range(6)]
    # They differ from the base's, or nothing was compared.
    base = model.generate(PROMPTS, max_tokens=8)
    assert sum(a != b for a, b in zip(texts, base, strict=True)) > 2
    assert model.generate(PROMPTS, adapters[::-1], max_tokens=8) == [
        alone[5 - i][i] for i in range(6)
    ]


def test_one_adapter_for_all_prompts(model, adapters, alone):
    for one in (adapters[2], adapters[2:3]):
        assert model.generate(PROMPTS, one, max_tokens=8) == alone[2]


def test_lists_of_prompts_one_for_each_adapter(model, adapters, alone):
    lists = [PROMPTS[:3], [], PROMPTS[3:4], PROMPTS[4:], [], []]
    texts = model.generate(lists, adapters, max_tokens=8)
    assert texts == [alone[0][:3], [], alone[2][3:4], alone[3][4:], [], []]
    # Under one adapter, and under none, lists stay lists.
    want = [alone[1][:3], [], alone[1][3:4], alone[1][4:], [], []]
    assert model.generate(lists, adapters[1], max_tokens=8) == want
    assert model.generate([PROMPTS], max_tokens=8) == [
        model.generate(PROMPTS, max_tokens=8)
    ]


def test_stacks_that_do_not_fit_go_one_after_the_other(
    model, adapters, alone, monkeypatch
):
    stacks = []
    real = sizes.decoding

    def few(*args, **kwargs):
        sizes_ = real(*args, **kwargs)
        stacks.append(sizes_.stack)
        return sizes.Decode(sizes_.rows, sizes_.per_page, 4)

    monkeypatch.setattr(sizes, "decoding", few)
    texts = model.generate(PROMPTS, adapters, max_tokens=8)
    assert texts == [alone[i][i] for i in range(6)]
    assert stacks[0] > 6


@pytest.mark.slow
def test_draws_depend_on_the_seed_and_the_place(model, adapters):
    def draw(**options):
        return model.generate(
            ["Ada"] * 6, adapters[0], max_tokens=8, temperature=1.0, **options
        )

    one = draw(seed=1)
    assert len(set(one)) == 6
    assert draw(seed=1) == one
    assert draw(seed=2) != one


def test_log_likelihoods_are_the_merged_models(model, adapters):
    pairs = [(prompt, " rye") for prompt in PROMPTS]
    scores = model.log_likelihood(pairs, adapters)
    for i in (0, 3):
        want = model.merge(adapters[i]).log_likelihood(pairs)
        assert scores[i] == pytest.approx(want[i], abs=1e-4)
    nested = model.log_likelihood([[pair] for pair in pairs], adapters)
    assert nested == [pytest.approx([score]) for score in scores]
    base = model.log_likelihood(pairs)
    assert max(abs(a - b) for a, b in zip(base, scores, strict=True)) > 0.1


def test_a_merged_model_is_saved_and_loaded(model, adapters, tmp_path):
    merged = model.merge(adapters[0])
    again = seal.load(merged.save(tmp_path / "merged"))
    assert again.base.mark == merged.base.mark != model.base.mark
    for a, b in zip(
        jax.tree.leaves(again.policy.params),
        jax.tree.leaves(merged.policy.params),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_weights_are_known_again_in_another_dtype(model, folder):
    half = seal.load(folder, dtype="bfloat16")
    assert (half.base.mark, half.policy.arch.dtype) == (model.base.mark, "bfloat16")
    assert "bfloat16" in repr(half) and "2 layers" in repr(half)


@pytest.mark.parametrize(
    ("prompts", "count", "parts"),
    [
        (PROMPTS, 5, ["prompts has 6 prompts and adapters 5", "one adapter for each"]),
        ([PROMPTS], 2, ["prompts has 1 lists of prompts and adapters 2"]),
        ("Ada", None, ["prompts='Ada'", "[prompt]"]),
        (["Ada", ""], None, ["prompts[1]='' is empty"]),
        (["Ada", 3], None, ["prompts[1]=3", "must be a text"]),
        (["Ada", ["Ada"]], None, ["prompts[1]=['Ada']", "must be a text"]),
        (["Ada", ("Ada", "b")], None, ["prompts[1]=('Ada', 'b') must be a text"]),
        (["Ada", "\ud800"], None, ["prompts[1]: '\\ud800'", "lone surrogates"]),
        (iter(PROMPTS), None, ["give list(prompts)"]),
        (PROMPTS, 0, ["adapters holds none"]),
        (["Ada", "a" * 250], None, ["prompts[1] has 250 tokens", "takes 256"]),
    ],
)
def test_prompts_that_cannot_be_written_after(model, adapters, prompts, count, parts):
    with pytest.raises(ValueError) as caught:
        under = None if count is None else adapters[:count]
        model.generate(prompts, under, max_tokens=8)
    assert_one_line(caught, *parts)


@pytest.mark.parametrize(
    ("pairs", "parts"),
    [
        (["ab"], ["pairs[0]='ab' must be a pair (prompt, completion)"]),
        ([["a", "b"]], ["pairs[0]='a' must be a pair"]),
        (("a", "b"), ["pairs[0]='a' must be a pair"]),
        ("ab", ["pairs='ab'", "[pair]"]),
        ([("", "b")], ["pairs[0]=('', 'b') is empty"]),
        ([("a", "\ud800")], ["pairs[0]: '\\ud800'", "lone surrogates"]),
    ],
)
def test_what_is_no_pair_has_no_likelihood(model, pairs, parts):
    with pytest.raises(ValueError) as caught:
        model.log_likelihood(pairs)
    assert_one_line(caught, *parts)


@pytest.mark.parametrize(
    ("path", "options", "parts"),
    [
        (None, {}, ["load.path=None must be a path or a name"]),
        ("x", {"dtype": "flaot32"}, ["dtype='flaot32'", "use 'float32'"]),
        ("x", {"data": "2"}, ["load.data='2' must be of type int"]),
        ("x", {"data": -1}, ["load.data=-1 must be at least 0"]),
        ("x", {"model": 0}, ["load.model=0 must be at least 1"]),
        ("embedded:tny", {}, ["model='embedded:tny'", "'tiny'", "correct the name"]),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(path, options, parts):
    with pytest.raises((ValueError, OSError)) as caught:
        seal.load(path, **options)
    assert_one_line(caught, *parts)


def test_what_is_no_model_and_no_adapter_is_told(model, tmp_path):
    for call in (
        lambda: seal.train_adapters("x", ["Ada"]),
        lambda: seal.iter_adapters(None, ["Ada"]),
        lambda: seal.load_peft(tmp_path, model="x"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert_one_line(caught, ".model=", "must be what seal_jax.load gave")
    with pytest.raises(ValueError) as caught:
        model.merge("x")
    assert_one_line(caught, "merge='x' must be an adapter")


@pytest.mark.parametrize("path", [None, 3, "", ".", "..", "/", "a\0b"])
def test_what_is_no_path_to_write_is_told(model, path):
    with pytest.raises(ValueError) as caught:
        model.save(path)
    assert_one_line(caught, "path=", "must be the path of a directory")


def test_a_place_where_nothing_can_be_made_is_told(model, tmp_path):
    for path in (tmp_path / ("x" * 300), "/proc/no/such"):
        with pytest.raises(OSError) as caught:
            model.save(path)
        assert_one_line(caught, "cannot be written", "; ")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"max_token": 3}, ["max_token", "did you mean", "max_tokens?"]),
        ({"max_tokens": 0}, ["generate.max_tokens=0", "at least 1"]),
        ({"temperature": -1.0}, ["temperature=-1.0"]),
        ({"top_p": 0}, ["top_p=0"]),
        ({"seed": "a"}, ["seed='a'", "type int"]),
    ],
)
def test_a_wrong_setting_is_refused(model, options, parts):
    with pytest.raises(ValueError) as caught:
        model.generate(PROMPTS, **options)
    assert_one_line(caught, *parts)


def test_adapters_of_another_model_are_refused(model, adapters):
    merged = model.merge(adapters[0])
    for ask in (merged.generate, merged.log_likelihood):
        with pytest.raises(ValueError) as caught:
            ask(PROMPTS, adapters)
        assert_one_line(caught, "adapters: trained on", "not those of this model")
    with pytest.raises(ValueError) as caught:
        merged.merge(adapters[1])
    assert_one_line(caught, "merge: trained on")
    with pytest.raises(ValueError) as caught:
        model.merge(adapters)
    assert_one_line(caught, "given 6", "adapters[0]")
    with pytest.raises(ValueError) as caught:
        model.generate(PROMPTS, [adapters[0]])
    assert_one_line(caught, "stack a list of them")


def test_no_prompts_are_no_texts(model):
    assert model.generate([]) == [] == model.log_likelihood([])


def test_rows_and_stacks_fit_what_is_left(model, monkeypatch):
    arch = model.policy.arch
    monkeypatch.setattr(
        sizes, "backend", types.SimpleNamespace(memory_limit=lambda d: limit)
    )
    base = sizes.capacity.base_bytes(arch)
    ask = dict(requests=1000, most_of_one=1, positions=100)
    # A position: keys and values of 2 layers x 2 heads x 8 numbers of 4 bytes.
    limit = base + 2 * 100 * 256 * 10
    assert sizes.decoding(arch, None, **ask, adapter_bytes=0).rows == 10
    limit = 10**12
    assert sizes.decoding(arch, None, **ask, adapter_bytes=0).rows == sizes.MOST_ROWS
    few = sizes.decoding(arch, None, **ask | {"requests": 5}, adapter_bytes=0)
    assert (few.rows, few.per_page) == (6, 1)
    limit = base + 4 * 7 * 10**6
    many = sizes.decoding(arch, None, **ask | {"most_of_one": 9}, adapter_bytes=10**6)
    assert (many.stack, many.per_page) == (7, 6)
    assert many.rows == 14 * 10**6 // (100 * 256 + int(2.5e6 / 6))
