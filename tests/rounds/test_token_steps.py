"""Text steps on token ids give what the functions on strings give."""

import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.generation import policies
from seal_jax.generation.settings import ModelSource
from seal_jax.models import hf
from seal_jax.rewards import graders
from seal_jax.rounds import round_inputs, token_forms, token_steps
from seal_jax.rounds.token_steps import Text
from seal_jax.tasks import self_edit, wordwise

N, WIDTH = 16, 14


@pytest.fixture(scope="module")
def policy():
    source = ModelSource("embedded:tiny", False, "float32", "auto", "auto")
    return policies.describe(source)


@pytest.fixture(scope="module")
def tables(policy):
    return jax.tree.map(jnp.asarray, round_inputs.words(policy))


@pytest.fixture(scope="module")
def drawn(policy):
    """Random ids, mostly those that the rules look at; some of them have no text."""
    rng = random.Random(0)
    ids = {text: policy.encode(text)[0] for text in ("\n", "Answer", ":", "?", "the")}
    common = [*ids.values(), ids["\n"], 1, policy.encode("Question")[0]]
    rows = []
    for _ in range(600):
        pool = common if rng.random() < 0.6 else range(1, policy.arch.vocab)
        rows.append([rng.choice(pool) for _ in range(rng.randint(0, N))])
    answer = [ids["the"], ids["\n"], ids["Answer"], ids[":"], ids["the"]]
    return [*rows, answer, answer[1:], [*answer[:2], *answer[2:4], ids["\n"]]]


@pytest.fixture(scope="module")
def read(drawn, tables):
    ids, sizes = token_forms.laid(drawn, N)
    return jax.jit(jax.vmap(token_steps.read, (0, 0, None)))(ids, sizes, tables)


@pytest.fixture(scope="module")
def texts(policy, drawn):
    return [hf.decode(policy.tokenizer, row).strip() for row in drawn]


def as_lists(ids, sizes):
    return [row[:n].tolist() for row, n in zip(np.asarray(ids), sizes, strict=True)]


def test_a_text_is_read_as_it_shows(policy, texts, read):
    assert as_lists(*read) == [policy.encode(text) for text in texts]


def test_a_text_that_says_nothing_is_refused(texts, tables, read):
    got = jax.jit(jax.vmap(token_steps.is_blank, (0, None)))(read, tables)
    want = [bool(self_edit.refusal(t, rule="lines", quirks="fixed")) for t in texts]
    assert got.tolist() == want
    assert 20 < sum(want) < len(want) - 20


def test_length_is_counted_in_characters(texts, tables, read):
    got = jax.jit(jax.vmap(token_steps.characters, (0, None)))(read, tables)
    assert got.tolist() == list(map(len, texts))


def test_an_edit_becomes_the_training_lines_of_its_text(policy, texts, tables, read):
    head, passage = policy.encode("Karsk\n"), policy.encode("Karsk\nAda Quill.")
    told = np.pad(passage, (0, WIDTH - len(passage))).tolist()

    @jax.jit
    @jax.vmap
    def lines(text):
        split = token_steps.split(text, tables, lines=(N + 1) // 2, width=WIDTH)
        of = (Text(jnp.array(head), jnp.int32(2)), Text(jnp.array(told), jnp.int32(5)))
        return token_steps.training_lines(split, *of, width=WIDTH)

    got, asked = lines(read), 0
    for i, text in enumerate(texts):
        parts = self_edit.split(text, rule="lines", quirks="fixed")
        asked += any(part.startswith("Question 1:") for part in parts)
        want = [policy.encode(f"Karsk\n{part}") for part in parts]
        assert got.number[i] == len(want) + 1
        assert got.size_L[i, : len(want) + 1].tolist() == [*map(len, want), 5]
        assert as_lists(got.ids_LT[i, : len(want)], list(map(len, want))) == [
            ids[:WIDTH] for ids in want
        ]
        assert got.ids_LT[i, len(want)].tolist() == told
    assert asked > 3


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.6, 1.0])
def test_answers_are_graded_by_word_recall(policy, texts, tables, read, threshold):
    rng = random.Random(1)
    words = ["the", "Old", "Old", "Norse", "?", "rye", "bread"]
    golds, answers, rows = [], [], []
    for _ in range(300):
        gold = " ".join(rng.sample(words, rng.randint(1, 5)))
        if not wordwise.normalize(gold):
            continue
        answer = " ".join(rng.choices(words, k=rng.randint(0, 5)))
        golds.append(gold)
        answers.append(answer)
        rows.append(policy.encode(answer))
    word = np.asarray(tables.word)
    seen = [[n for i in policy.encode(g) if (n := word[i]) >= 0] for g in golds]
    gold_ids, sizes = token_forms.laid(seen, 5, token_forms.NOTHING)
    needed = [token_forms.needed(int(n), threshold) for n in sizes]
    text = Text(*token_forms.laid(rows, 5))
    right = jax.jit(jax.vmap(functools.partial(token_steps.is_right, tables=tables)))
    got = right(text, gold_ids, np.array(needed))
    want = [
        graders.by_recall("", gold, answer, threshold=threshold)
        for gold, answer in zip(golds, answers, strict=True)
    ]
    assert got.astype(float).tolist() == want
    assert 0 < sum(want) < len(want)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"rye": "rye bread"}, "'rye bread' is no word, mark or line break"),
        ({"rye": "r2"}, "'r2' is no word"),
        ({"rye": "-"}, "'-' is no word"),
        ({"Answer": "Answers"}, "'Answers' is no word"),
        ({"\n": "ye"}, "gives other tokens"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(broken, message):
    texts = ["", "\n", "rye", "Answer", ":"]
    shown = [broken.get(text, text) for text in texts]

    def decode(ids):
        return "".join(shown[i] for i in ids)

    def encode(text):
        return [shown.index(text)] if text in shown else [0]

    with pytest.raises(ValueError, match=message):
        token_forms.words(encode, decode, len(texts))
