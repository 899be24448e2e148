"""The generated world: groups kept apart, passages stable and answerable."""

import hashlib
import random

import pytest

from seal_jax.embedded import world_corpus
from seal_jax.tasks import world

KINDS = ("person", "firm")


def drawn(group, *, seed=0, start=0, count=40, forward_share=0.2):
    return world.passages(
        group, seed=seed, start=start, count=count, forward_share=forward_share
    )


def everyone(group):
    return [name for kind in KINDS for name in world.residents(group, kind)]


def named(text, names):
    return {name for name in names if name in text}


@pytest.mark.parametrize("kind", KINDS)
def test_groups_share_nobody_and_cover_almost_everybody(kind):
    groups = [world.residents(group, kind) for group in world.GROUPS]
    together = [name for group in groups for name in group]
    assert len(together) == len(set(together))
    parts = (
        (world.FIRST_NAMES, world.LAST_NAMES)
        if kind == "person"
        else (world.FIRM_NAMES, world.FIRM_KINDS)
    )
    assert set(together) <= {f"{a} {b}" for a in parts[0] for b in parts[1]}
    assert len(together) >= len(parts[0]) * len(parts[1]) - len(world.GROUPS)
    assert all(len(group) > 20 for group in groups)
    assert groups == [world.residents(group, kind) for group in world.GROUPS]


def test_an_unknown_group_is_refused_by_name():
    with pytest.raises(ValueError, match=r"group='trian' must be one of .*'train'"):
        world.residents("trian", "person")


@pytest.mark.parametrize("group", ["train", "heldout"])
def test_passages_speak_of_their_own_group_only(group):
    own, others = everyone(group), [g for g in world.GROUPS if g != group]
    for passage in drawn(group):
        text = passage.text + "".join(q.question for q in passage.questions)
        assert len(named(text, own)) == 2
        for other in others:
            assert named(text, everyone(other)) == set()


def test_train_and_heldout_passages_share_no_resident():
    told = {
        group: set().union(*(named(p.text, everyone(group)) for p in drawn(group)))
        for group in ("train", "heldout")
    }
    assert len(told["train"]) > 20
    assert told["train"].isdisjoint(told["heldout"])


def test_a_passage_is_the_same_whatever_slice_it_is_taken_in():
    whole = drawn("train", count=9)
    assert whole == [*drawn("train", count=4), *drawn("train", start=4, count=5)]
    assert len({p.id for p in whole}) == len({p.text for p in whole}) == 9


@pytest.mark.parametrize("other", [{"seed": 1}, {"start": 40}, {"group": "heldout"}])
def test_another_seed_start_or_group_is_other_passages(other):
    base = {p.text for p in drawn("train")}
    changed = {p.text for p in drawn(**({"group": "train"} | other))}
    assert base.isdisjoint(changed)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_oracle_answers_every_question_subject_first(share):
    relations = [r for kind in KINDS for r in world.relations(kind)]
    for passage in drawn("heldout", forward_share=share):
        assert passage.title in world.PLACES
        assert passage.oracle is not None
        lines = passage.oracle.split("\n")
        assert len(lines) == len(passage.questions) == 6
        sentences = passage.text.removesuffix(".").split(". ")
        assert len(sentences) == 6
        for line, question, sentence in zip(
            lines, passage.questions, sentences, strict=True
        ):
            (subject,) = named(question.question, everyone("heldout"))
            (relation,) = {
                r
                for r in relations
                if question.question
                in (
                    f"What does {subject} {r.infinitive}?",
                    f"What is the {r.noun} of {subject}?",
                )
            }
            assert question.answer in relation.values
            assert line in (
                f"{subject} {relation.verb} {question.answer}.",
                f"the {relation.noun} of {subject} is {question.answer}.",
            )
            # A reversed sentence begins with its value, a forward one ends in it.
            assert subject in sentence
            forward = sentence.endswith(question.answer)
            assert forward == (share == 1.0)
            assert forward or sentence.startswith(question.answer)


def known():
    return world.known_passages(seed=3, start=0, count=20)


@pytest.mark.parametrize("passages", [drawn("heldout"), known()])
def test_every_fact_has_a_question_in_words_that_no_training_has_put(passages):
    relations = [r for kind in KINDS for r in world.relations(kind)]
    residents = [*everyone("heldout"), *everyone("known")]
    for passage in passages:
        assert len(passage.rephrased) == len(passage.questions)
        for new, usual in zip(passage.rephrased, passage.questions, strict=True):
            (subject,) = named(usual.question, residents)
            (relation,) = {r for r in relations if usual.answer in r.values}
            noun, verb = relation.noun, relation.infinitive
            assert new.question == f"What {noun} does {subject} {verb}?"
            assert new.answer == usual.answer


def test_no_document_of_pretraining_puts_a_question_in_the_form_that_is_kept_apart():
    rng = random.Random(0)
    residents = world.known_residents()
    mixture = world_corpus.at(1.0)
    kinds = {"question": 0, "read": 0}
    for _ in range(300):
        pieces = world_corpus.document(rng, mixture, residents=residents)
        text = "".join(piece or "" for piece, _ in pieces)
        asked = [line for line in text.splitlines() if line.startswith("Question:")]
        kinds["read" if text.startswith("Passage:") else "question"] += len(asked)
        for line in asked:
            assert line.startswith(("Question: What does ", "Question: What is the "))
    assert min(kinds.values()) > 20


def test_passages_and_their_random_numbers_are_what_they_always_were():
    told = "\n".join(
        f"{p.id} {p.text} {p.questions} {p.oracle}" for p in drawn("train")
    )
    told += "\n".join(f"{p.id} {p.title} {p.questions}" for p in known())
    digest = hashlib.sha256(told.encode()).hexdigest()
    assert digest[:16] == "39185a6dcbbf74d1"


def test_words_of_a_passage_alone_do_not_tell_its_two_residents_apart():
    for passage in drawn("train"):
        answers = [q.answer for q in passage.questions]
        assert len(set(answers)) == 6


def test_residents_of_a_passage_share_no_name_part():
    names = world.residents("train", "firm")
    for seed in range(30):
        facts = world.draw_facts(
            random.Random(seed), names=names, kind="firm", subjects=3, count=2
        )
        parts = [w for s in {f.subject for f in facts} for w in s.split()]
        assert len(parts) == len(set(parts)) == 6


def test_the_vocabulary_holds_every_word_of_every_passage():
    words = set(world_corpus.vocabulary())
    for passage in [*drawn("train"), *drawn("heldout")]:
        said = [passage.title, passage.text, passage.oracle or ""]
        asked = (*passage.questions, *passage.rephrased)
        said += [t for q in asked for t in (q.question, q.answer)]
        assert set(world_corpus.split_words("\n".join(said))) <= words
