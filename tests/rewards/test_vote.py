"""Elections by hand, and what holds of any election."""

import hypothesis
import pytest
from hypothesis import strategies as st

from seal_jax.rewards import vote


@pytest.mark.parametrize(
    "answers, winner, share",
    [
        (["cello", "harp", "cello"], "cello", 2 / 3),
        (["The cello.", "harp", "CELLO"], "The cello.", 2 / 3),
        (["harp", "cello", "cello", "harp"], "harp", 0.5),  # the first seen wins
        (["", " ", "harp", ""], "harp", 0.25),
        ([None, "harp", None], "harp", 1.0),
        (["", None], None, 0.0),
        ([], None, 0.0),
        (["+", "-", "+"], "+", 2 / 3),  # no words, and still answers
    ],
)
def test_the_majority(answers, winner, share):
    assert vote.majority(answers) == (winner, pytest.approx(share))


def test_adapters_earn_the_share_of_their_answers_that_won():
    answers = [["cello", "red"], ["a Cello", "blue"], ["harp", "blue"], ["", "blue."]]
    assert vote.rewards(answers) == [0.5, 1.0, 0.5, 0.5]


def test_no_adapter_votes_for_itself():
    answers = [["harp"], ["cello"], ["lute"]]
    # With its own vote the first wins each tie; alone, nobody agrees with anybody.
    assert vote.rewards(answers) == [1.0, 0.0, 0.0]
    assert vote.rewards(answers, leave_own_out=True) == [0.0, 0.0, 0.0]
    pair = [["harp"], ["cello"], ["cello"]]
    assert vote.rewards(pair, leave_own_out=True) == [0.0, 0.0, 0.0]
    # Each cello sees one harp and one cello left, and the harp was first.


def test_a_bloc_of_seeds_has_no_say_about_its_own():
    answers = [["harp"], ["harp"], ["harp"], ["cello"], ["cello"]]
    blocs = ["a", "a", "a", "b", "b"]
    assert vote.rewards(answers, blocs=blocs) == [1, 1, 1, 0, 0]
    assert vote.rewards(answers, leave_own_out=True, blocs=blocs) == [0] * 5


def test_missing_answers_are_left_out_and_blank_ones_are_not():
    answers = [["harp", None], ["harp", ""], [None, None]]
    assert vote.rewards(answers) == [1.0, 0.5, None]
    assert vote.rewards([[], []]) == [None, None]
    assert vote.rewards([]) == []


@pytest.mark.parametrize(
    "answers, options, words",
    [
        ([["a"], ["a", "b"]], {}, "same questions"),
        ([["a"], ["b"]], {"blocs": ["x"]}, "1 labels for 2"),
        ([["a"]], {"leave_own_out": True}, "nobody to vote"),
        ([["a"], ["b"]], {"leave_own_out": True, "blocs": [1, 1]}, "nobody to vote"),
    ],
)
def test_bad_votes_are_refused_in_one_line(answers, options, words):
    with pytest.raises(ValueError, match=words) as error:
        vote.rewards(answers, **options)
    assert "\n" not in str(error.value)


ANSWERS = st.lists(st.sampled_from(["harp", "cello", "Lute", ""]), min_size=2)


@hypothesis.given(ANSWERS)
def test_the_winners_share_is_the_mean_reward(answers):
    winner, share = vote.majority(answers)
    rewards = vote.rewards([[a] for a in answers])
    assert sum(r or 0 for r in rewards) / len(answers) == pytest.approx(share)
    assert (winner is None) == (share == 0)


@hypothesis.given(ANSWERS)
def test_leaving_the_own_vote_out_is_an_election_without_it(answers):
    got = vote.rewards([[a] for a in answers], leave_own_out=True)
    for i, (answer, reward) in enumerate(zip(answers, got, strict=True)):
        winner, _ = vote.majority(answers[:i] + answers[i + 1 :])
        assert reward == float(bool(answer) and answer == winner)


@hypothesis.given(ANSWERS)
def test_all_alike_earn_everything(answers):
    alike = [["cello"] for _ in answers]
    assert vote.rewards(alike) == vote.rewards(alike, leave_own_out=True)
    assert set(vote.rewards(alike)) == {1.0}
