"""The halves of a passage's questions, and that the choosing one reports nothing."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.continual import controls, halves
from seal_jax.tasks.passage import Passage, Question


def passage(count, name="x"):
    questions = tuple(Question(f"Q{i}?", f"A{i}") for i in range(count))
    return Passage(name, "T", "Text.", questions)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.text(max_size=5))
def test_halves_part_all_questions_and_one_always_reports(count, seed, name):
    got = halves.drawn(passage(count, name), seed=seed)
    assert sorted(got.choosing + got.reporting) == list(range(count))
    assert list(got.choosing) == sorted(got.choosing)
    assert list(got.reporting) == sorted(got.reporting)
    assert got.reporting and abs(len(got.choosing) - len(got.reporting)) <= 1
    assert got == halves.drawn(passage(count, name), seed=seed)
    kept = got.chooses(passage(count, name))
    assert [q.question for q in kept.questions] == [f"Q{i}?" for i in got.choosing]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_place_chooses_about_as_often_as_it_reports(count):
    drawn = [halves.drawn(passage(count, f"p{i}"), seed=0) for i in range(2000)]
    often = np.bincount([i for h in drawn for i in h.choosing], minlength=count)
    assert np.all(abs(often / 2000 - 0.5) < 4 * 0.5 / 2000**0.5)


def test_another_seed_draws_other_halves():
    assert len({halves.drawn(passage(9), seed=s) for s in range(20)}) > 10


def test_without_a_choice_all_questions_report():
    assert halves.undivided(passage(3)) == halves.Halves((), (0, 1, 2))


def test_scores_of_a_half_are_of_the_passages_so_far():
    parts = [halves.Halves((0, 2), (1,)), halves.Halves((), (0,))]
    scores = [[0.0, 0.5, None], [1.0]]
    assert halves.of_scores(scores, parts, "choosing") == [[0.0, None], []]
    assert halves.of_scores(scores, parts, "reporting") == [[0.5], [1.0]]
    assert halves.of_scores(scores[:1], parts, "reporting") == [[0.5]]


def test_the_best_of_equal_edits_reports_what_each_of_them_would():
    # Answers are coins: no edit is better than another.
    rng, chosen, reported = random.Random(0), [], []
    for i in range(3000):
        half = halves.drawn(passage(4, f"p{i}"), seed=0)
        tries = [[float(rng.random() < 0.4) for _ in range(4)] for _ in range(3)]
        chooses = [[row[q] for q in half.choosing] for row in tries]
        best = controls.best([sum(row) / len(row) for row in chooses])
        chosen.append(np.mean(chooses[best]))
        reported.append(np.mean([tries[best][q] for q in half.reporting]))
    assert np.mean(chosen) > 0.6
    assert abs(np.mean(reported) - 0.4) < 4 * (0.4 * 0.6 / 2 / 3000) ** 0.5
