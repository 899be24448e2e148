"""What a config of a run without labels may say."""

import pytest
import tiny_model

from seal_jax.experiment import kinds
from seal_jax.lmsi.settings import Lmsi


def build(variant: str | None = "debug", **changes) -> Lmsi:
    config = tiny_model.load_config("lmsi", variant)
    config.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in changes.items()}
    )
    exp = kinds.read(config.to_dict())
    assert isinstance(exp, Lmsi)
    return exp


@pytest.mark.parametrize("variant", [None, "tiny", "debug"])
def test_the_group_chains_makes_it_one(variant):
    exp = build(variant)
    assert exp.adapters == 0
    assert kinds.kind_of(exp).config is Lmsi


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"chains__samples": 0}, "chains.samples=0 must be at least 1"),
        ({"chains__threshold": 1.5}, "chains.threshold=1.5 must be"),
        ({"chains__formats": ()}, "chains.formats=() must name a format"),
        ({"chains__formats": ("few",)}, "chains.formats='few' must be one of"),
        ({"chains__formats": ("zero_chain",) * 2}, "must differ; name each once"),
        (
            {"chains__shots": 0},
            "'few_chain' shows examples, and chains.shots=0 has none",
        ),
        ({"arms": ()}, "arms=() must name what is learned"),
        ({"arms": ("best",)}, "arms='best' must be one of ('majority', "),
        ({"propose__prompt": "x"}, "propose.prompt='x' must be one of ('plain', "),
        ({"answer__temperature": 1.0}, "answer.temperature=1.0 is of rows that are"),
        ({"propose__temperature": 0.0}, "makes all chains.samples=4 chains"),
        ({"model__chat": "auto"}, "model.chat='auto' is for passages"),
        ({"imitate__start": "last"}, "imitate.start='last' must be one of"),
        ({"task__name": "squad"}, "task.name='squad' must be one of ('hops', 'rows')"),
    ],
)
def test_what_cannot_be_is_one_line(changes, said):
    with pytest.raises(ValueError) as caught:
        build(**changes)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({}, "scale.heldout=500 questions are scored by their gold answers"),
        ({"scale__heldout": 0, "arms": ("gold",)}, "'gold' keeps chains by the gold"),
    ],
)
def test_rows_that_need_gold_answers_need_their_column(changes, said):
    with pytest.raises(ValueError) as caught:
        build(None, task__answer="", **changes)
    assert said in str(caught.value)


def test_without_gold_answers_nothing_needs_their_column():
    exp = build(None, task__answer="", scale__heldout=0)
    assert isinstance(exp, Lmsi) and (exp.task.answer, exp.arms) == ("", ("majority",))


def test_one_chain_may_be_greedy():
    exp = build(chains__samples=1, propose__temperature=0.0)
    assert isinstance(exp, Lmsi) and exp.propose.temperature == 0.0
