"""How a policy is asked for points, and which replies are a number."""

import pytest

from seal_jax.rewards import self_score

REPLIES = {
    " 4": 0.8,
    "5": 1.0,
    "0\n\nTitle: Marl": 0.0,
    "**3**/5": 0.6,
    "3.5 out of 5": 0.7,
    "4/5, well done": 0.8,
    "2.": 0.4,
    "Points: 1": 0.2,
    "Four of them hold. Points: **4**\nPoints: 2": 0.8,
    "<think>Points: 1, or 2?</think>\n3": 0.6,
    # A list of verdicts before the sum, or after it.
    "1. Yes\n2. Yes\n3. Yes\n4. No\n5. Yes\n\nPoints: 4": 0.8,
    " 1) True\n2) False\n**Points:** 1/5": 0.2,
    "**1.** Yes, it does.\nPoints: 3": 0.6,
    "1 is true, 2 is not. Points = 1": 0.2,
    "4\n\n1. Yes\n2. Yes\nPoints: 5": 0.8,
    "2.\n\nTitle: Marl\nPoints: 5": 0.4,
    "Points: 4. They are good.": 0.8,
    "Points:\n4": 0.8,
    "1. Yes\n2. Yes": None,
    "Points:\n1. Yes\n2. No": None,
    "5) no": None,
    "1: yes": None,
    # What is not plainly a number of points is none.
    "": None,
    "four": None,
    "-1": None,
    "6": None,
    "10": None,
    "4th": None,
    "80%": None,
    "4/10": None,
    "1,5": None,
    "I would give 4": None,
    "<think>Points: 1": None,
}


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_is_read_as_a_number_or_not_at_all(reply):
    assert self_score.parse(reply) == REPLIES[reply]


def test_the_prompt_ends_in_the_cue_and_texts_stay_what_they_are():
    made = self_score.prompt("{edit}", "{title} and more", "{passage}")
    assert made.endswith("\nPoints:")
    assert "Title: {edit}\n\nPassage:\n{title} and more\n\nNotes:\n{passage}\n" in made
