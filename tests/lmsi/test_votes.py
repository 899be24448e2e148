"""Votes on synthetic chains: who wins, what is kept, what it was worth."""

import random

import pytest

from seal_jax.lmsi import votes
from seal_jax.tasks.chains import Chain, Question

UNREADABLE = "I do not know."


def of(*answers):
    """A vote of chains with these answers; None: one that gives none."""
    return votes.of_texts(
        [
            UNREADABLE if a is None else f"step {i}\nAnswer: {a}"
            for i, a in enumerate(answers)
        ]
    )


def answers(kept):
    return [chain.answer for chain in kept]


def keep(vote, threshold=0.0, cap=0):
    return votes.kept(vote, threshold=threshold, cap=cap)


def test_all_chains_that_reach_the_majority_are_kept_as_they_were_written():
    vote = of("Rye bread", "ramen", "rye bread.", None, "the rye bread")
    assert (vote.winner, vote.share) == ("Rye bread", 0.6)
    assert keep(vote) == [
        Chain("step 0", "Rye bread"),
        Chain("step 2", "rye bread"),
        Chain("step 4", "the rye bread"),
    ]
    assert answers(keep(vote, cap=2)) == ["Rye bread", "rye bread"]


def test_numbers_are_counted_by_value():
    assert of("35", "3.5", "3.50").winner == "3.5"


def test_of_answers_with_as_many_votes_the_first_drawn_wins():
    assert of("b", "a", "a", "b").winner == "b"
    assert of("a", "b", "b", "a").winner == "a"


def test_unreadable_chains_vote_for_nobody_and_count():
    vote = of(None, None, None, "a")
    assert (vote.winner, vote.share) == ("a", 0.25)
    nobody = of(None, None)
    assert (nobody.winner, nobody.share) == (None, 0.0)
    assert keep(nobody) == [] and not nobody.right("a")


def test_a_threshold_of_one_keeps_the_unanimous_alone():
    assert answers(keep(of("a", "a", "a"), threshold=1.0)) == ["a"] * 3
    assert keep(of("a", "a", "b"), threshold=1.0) == []
    # One that cannot be read is a dissent.
    assert keep(of("a", "a", None), threshold=1.0) == []
    assert answers(keep(of("a", "a", "b", "c"), threshold=0.5)) == ["a", "a"]


def test_one_chain_is_plain_self_training():
    assert answers(keep(of("b"))) == ["b"] and keep(of(None)) == []


def test_the_control_keeps_as_many_as_it_is_told_of_any():
    vote, seen = of("a", "a", "b", "c", None), set()
    for seed in range(40):
        drawn = votes.random_kept(vote, random.Random(seed), 2)
        assert len(drawn) == 2 and len(set(drawn)) == 2
        seen |= set(answers(drawn))
    assert seen == {"a", "b", "c"}
    assert votes.random_kept(vote, random.Random(0), 0) == []
    assert len(votes.random_kept(vote, random.Random(0), 5)) == 4


def test_the_oracle_keeps_what_is_right():
    vote = of("a", "a", "b")
    assert answers(votes.gold_kept(vote, Question("?", "B"), cap=0)) == ["b"]
    assert votes.gold_kept(vote, Question("?", "c"), cap=0) == []
    assert votes.gold_kept(vote, Question("?"), cap=0) == []


def test_bins_hold_their_upper_end():
    voted = [
        of("a", "b", "c", "d", "e"),
        of("a", "a", "a", "b", "c"),
        of("a"),
        of(None),
    ]
    asked = [
        Question("?", "a"),
        Question("?", "b"),
        Question("?", "a"),
        Question("?", "a"),
    ]
    bins = votes.calibration([*voted, of("a")], [*asked, Question("?")])
    assert [b["n"] for b in bins] == [1, 0, 1, 0, 1]
    assert [b["accuracy"] for b in bins] == [1.0, None, 0.0, None, 1.0]
    assert [b["share"] for b in bins] == [0.2, None, pytest.approx(0.6), None, 1.0]


def test_growth_follows_the_answer_that_was_wrong():
    asked = [Question("?", "right")] * 4
    # The first halves elect w, w, w and right, whatever the others say.
    first = [["w"] * 4] * 3 + [["right"] * 4]
    before = [
        ("w", "w", "right", "x"),  # its share grows
        ("w", "w", "right", "x"),  # another wrong answer wins: this one shrinks
        ("w", "w", "right", "x"),  # comes right
        ("right", "right", "w", "x"),  # is lost
    ]
    after = [
        ("w", "w", "w", "x"),
        ("x", "x", "x", "w"),
        ("right", "right", "right", "w"),
        ("w", "w", "right", "x"),
    ]
    olds = [of(*a, *b) for a, b in zip(first, before, strict=True)]
    # What electing chains say after is not looked at.
    news = [of(*"yyyy", *b) for b in after]
    found = votes.growth(olds, news, asked)
    assert found["n"] == 4 and found["wrong"] == 0.75
    assert found["grown"] == pytest.approx(1 / 3)
    assert found["shrunk"] == pytest.approx(2 / 3)
    assert found["wrong_before"] == 0.5
    assert found["wrong_after"] == pytest.approx((0.75 + 0.25 + 0.25) / 3)
    assert (found["turned_before"], found["turned"]) == (0.0, pytest.approx(1 / 3))
    assert (found["right_before"], found["right_after"]) == (0.5, 0.25)
    assert (found["lost_before"], found["lost"]) == (0.0, 1.0)
    nothing = votes.growth(olds[:1], news[:1], [Question("?")])
    assert nothing["n"] == 0 and nothing["grown"] is None
    single = votes.growth([of("w")], [of("w")], [Question("?", "right")])
    assert single["n"] == 0


def test_an_unchanged_policy_neither_grows_nor_shrinks_what_is_wrong():
    """Drawn twice from the same nothing regresses; held to itself nothing moves."""
    rng = random.Random(0)
    asked, before, after = [], [], []
    for _ in range(1500):
        weights = [rng.random() for _ in range(4)]
        draw = (rng.choices("abcd", weights, k=16) for _ in range(2))
        first, second = (of(*answers) for answers in draw)
        asked.append(Question("?", rng.choice("abcd")))
        before.append(first)
        after.append(second)
    found = votes.growth(before, after, asked)
    assert found["grown"] == pytest.approx(found["shrunk"], abs=0.05)
    assert found["grown"] > 0.3
    assert found["wrong_after"] == pytest.approx(found["wrong_before"], abs=0.01)
    assert found["right_after"] == pytest.approx(found["right_before"], abs=0.015)
    assert found["turned"] == pytest.approx(found["turned_before"], abs=0.03)
    assert found["lost"] == pytest.approx(found["lost_before"], abs=0.05)
    same = votes.growth(before, before, asked)
    assert same["grown"] == same["shrunk"] == 0
