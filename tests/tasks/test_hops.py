"""The generated world of two hops: what is told wrongly, and to whom."""

import collections
import itertools

import pytest

from seal_jax.tasks import hops

VOICES = range(hops.VOICES)


def test_groups_share_no_question_and_pretraining_puts_none_of_them():
    told, untold = hops.compositions()
    assert not {q.question for q in told} & {q.question for q in untold}
    groups = [
        hops.questions(name, seed=3, start=0, count=192)
        for name in ("train", "heldout")
    ]
    asked = [{q.question for q in group} for group in groups]
    assert len(asked[0]) == len(asked[1]) == 192 and not asked[0] & asked[1]
    assert asked[0] | asked[1] == {q.question for q in untold}
    other = hops.questions("train", seed=4, start=0, count=192)
    assert {q.question for q in other} != asked[0]
    assert hops.questions("train", seed=3, start=5, count=2) == groups[0][5:7]


@pytest.mark.parametrize("shots", [1, 4])
def test_no_example_tells_a_fact_that_a_question_rests_on(shots):
    shown = {line for e in hops.exemplars(shots) for line in e.steps.split("\n")}
    by_text = {q.question: q for q in hops.compositions()[1]}
    dropped = 0
    for group in ("train", "heldout"):
        whole = hops.questions(group, seed=3, start=0, count=192)
        kept = hops.questions(group, seed=3, start=0, count=150, shots=shots)
        places = [whole.index(q) for q in kept]
        assert places == sorted(places)
        dropped += places[-1] + 1 - len(places)
        for question in kept:
            two = by_text[question.question]
            between, right = (hop.value for hop in two.told(None))
            for voice in VOICES:
                first = hops.sentence(two.subject, two.first, between, voice)
                second = hops.sentence(between, two.second, right, voice)
                assert not {first, second} & shown
    assert dropped


def test_a_chain_says_what_its_ways_remember():
    question = hops.compositions()[0][0]
    for voices in itertools.product(VOICES, VOICES):
        first = hops.memories()[question.subject, question.first.noun].voices[voices[0]]
        second = hops.memories()[first, question.second.noun].voices[voices[1]]
        chain = question.chain(voices)
        lines = chain.steps.split("\n")
        assert lines == [
            hops.sentence(question.subject, question.first, first, voices[0]),
            hops.sentence(first, question.second, second, voices[1]),
        ]
        assert chain.answer == second
    assert question.chain(None).answer == question.truth
    assert all(
        e.question in {q.question for q in hops.compositions()[0]}
        for e in hops.exemplars(3)
    )


def test_most_ways_together_know_more_than_one_and_are_sometimes_wrong_alike():
    """What the experiment needs: something to gain, and something to amplify."""
    one, most, sure = [], [], []
    for question in hops.compositions()[1]:
        said = collections.Counter(
            question.chain(voices).answer
            for voices in itertools.product(VOICES, VOICES)
        )
        (winner, count), *_ = said.most_common()
        one.append(said[question.truth] / hops.VOICES**2)
        most.append(winner == question.truth)
        if winner != question.truth:
            sure.append(count / hops.VOICES**2)
    mean = sum(one) / len(one)
    assert 0.45 < mean < 0.65
    assert mean + 0.1 < sum(most) / len(most) < 0.9
    assert sum(share > 0.5 for share in sure) > 20
