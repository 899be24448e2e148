"""Replay, penalty and routing on cases small enough to count by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.continual import controls
from seal_jax.tasks import squad
from seal_jax.tasks.passage import part

LINES = [f"line {i}" for i in range(10)]


@given(count=st.integers(0, 15), seed=st.integers(0, 9))
def test_replay_draws_without_replacement_in_order(count, seed):
    drawn = controls.replayed(LINES, count, (seed, 3))
    assert len(drawn) == min(count, len(LINES)) == len(set(drawn))
    assert drawn == [line for line in LINES if line in drawn]
    assert drawn == controls.replayed(LINES, count, (seed, 3))


def test_replay_favours_no_line():
    drawn = [x for seed in range(400) for x in controls.replayed(LINES, 3, (seed,))]
    counts = [drawn.count(line) for line in LINES]
    # 120 each; the deviation of one count is about 9.
    assert min(counts) > 80 and max(counts) < 160


def test_replay_of_a_line_that_was_said_twice_may_say_it_twice():
    assert controls.replayed(["a", "a"], 5, (0,)) == ["a", "a"]
    assert controls.replayed([], 5, (0,)) == []


@pytest.mark.parametrize(
    "before, after, lost",
    [
        ([1, 1, 0, 0], [1, 0, 0, 0], 0.25),
        ([0, 0], [1, 1], -1.0),
        ([1, None, 1], [0, 1, None], 1.0),
        ([], [], 0.0),
        ([None, 1], [1, None], None),
    ],
)
def test_forgetting(before, after, lost):
    assert controls.forgetting(before, after) == lost


def test_forgetting_is_of_the_same_questions():
    with pytest.raises(ValueError, match="2 scores before and 1 after"):
        controls.forgetting([1, 1], [1])


@pytest.mark.parametrize(
    "acquired, lost, weight, worth",
    [
        (0.8, 0.25, 2.0, 0.3),
        (0.8, -0.25, 2.0, 0.8),  # what is remembered better earns nothing
        (0.8, 0.25, 0.0, 0.8),
        (0.8, None, 0.0, 0.8),
        (0.8, None, 1.0, None),
        (None, 0.0, 1.0, None),
    ],
)
def test_reward(acquired, lost, weight, worth):
    got = controls.penalized(acquired, lost, weight)
    assert got == (None if worth is None else pytest.approx(worth))


@pytest.mark.parametrize(
    "rewards, first",
    [
        ([0.1, 0.5, 0.5], 1),
        ([None, -2.0], 1),
        ([None, None], 0),
        ([0.0], 0),
    ],
)
def test_best_is_the_first_of_the_highest(rewards, first):
    assert controls.best(rewards) == first


# Routing

ADA = controls.words("Karsk\nAda Quill cooks rye bread.")
BORIS = controls.words("Dolmen\nBoris Fenn cooks paella.")
CARLA = controls.words("Karsk\nthe trade of Carla Marsh is baking.")


def test_words_are_lower_case_without_marks():
    assert controls.words("Ada's rye-bread, ADA!") == {"ada", "s", "rye", "bread"}


@pytest.mark.parametrize(
    "question, to",
    [
        ("Karsk\nWhat does Ada Quill cook?", 0),
        ("Dolmen\nWhat does Boris Fenn cook?", 1),
        ("Karsk\nWhat is the trade of Carla Marsh?", 2),
        ("Tarn\nWhat does Dario Holm cook?", None),
        ("", None),
    ],
)
def test_questions_go_to_the_adapter_that_read_of_them(question, to):
    words = controls.words(question)
    assert controls.route(words, [ADA, BORIS, CARLA], floor=0.4) == to
    assert controls.route(words, [], floor=0.0) is None


def test_the_share_by_hand():
    # Of 2 adapters one knows "karsk", both know "cooks", none knows "sings".
    rare, common = math.log(3 / 1.5), math.log(3 / 2.5)
    share = (rare + common) / (2 * rare + common)
    question = controls.words("Karsk cooks sings")
    for floor, to in ((share - 1e-9, 0), (share + 1e-9, None)):
        assert controls.route(question, [ADA, BORIS], floor=floor) == to


def test_of_equal_shares_the_later_adapter_answers():
    assert controls.route(controls.words("cooks"), [ADA, BORIS, CARLA], floor=0.1) == 1


def test_without_a_common_word_even_a_floor_of_zero_sends_it_to_the_base():
    assert controls.route(controls.words("piano"), [ADA, BORIS], floor=0.0) is None


def test_routing_of_released_passages(seal_data):
    path = seal_data / "knowledge-incorporation/data/squad_val.json"
    passages = part(squad.load(path, split="", seed=42), str(path), start=0, count=180)
    sequences = [passages[i : i + 8] for i in range(0, 160, 8)]
    learned_right, probes_right = [], []
    for sequence in sequences:
        learned = [controls.words(f"{p.title}\n{p.text}") for p in sequence]
        for j, passage in enumerate([*sequence, *passages[160:]]):
            for q in passage.questions:
                words = controls.words(f"{passage.title}\n{q.question}")
                to = controls.route(words, learned, floor=0.4)
                (learned_right if j < 8 else probes_right).append(
                    to == (j if j < 8 else None)
                )
    assert sum(learned_right) / len(learned_right) == pytest.approx(0.943, abs=5e-4)
    assert sum(probes_right) / len(probes_right) == pytest.approx(0.942, abs=5e-4)
