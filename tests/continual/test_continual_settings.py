"""The continual config: what builds, what its arms ask for, what is refused."""

import dataclasses

import pytest
import tiny_model

from seal_jax.continual.settings import CONTROLS, Continual, controls
from seal_jax.runtime import config_rules
from seal_jax.training.settings import EngineOptions


def built(arg="tiny", **changes):
    config = tiny_model.load_config("continual", arg)
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(dotted)
    return config_rules.build(Continual, config.to_dict())


@pytest.mark.parametrize("arg", [None, "", "tiny", "debug"])
def test_every_variant_builds(arg):
    values = tiny_model.load_config("continual", arg).to_dict()
    exp = config_rules.build(Continual, values)
    assert tiny_model.present(exp) == values
    assert hash(exp) == hash(built(arg))


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="tiny2: the variants are"):
        tiny_model.load_config("continual", "tiny2")


def test_the_tiny_arms_are_all_controls_and_merging():
    assert set(built().arms) == {"in_context", "merge", *CONTROLS}


@pytest.mark.parametrize(
    "arm, parts",
    [
        ("merge", set()),
        ("gate", {"gate"}),
        ("replay+gate", {"gate", "replay"}),
        ("keep+best", {"keep", "best"}),
        ("kl+orthogonal+replay+gate+penalty",) * 2,
    ],
)
def test_controls_of_an_arm(arm, parts):
    wanted = set(parts.split("+")) if isinstance(parts, str) else parts
    assert controls(arm) == wanted


def test_spaces_in_an_arm_are_dropped():
    exp = built(arms=("gate + replay", " merge "))
    assert exp.arms == ("gate+replay", "merge")
    with pytest.raises(ValueError, match=r"'replay\+gate' and 'gate\+replay' must"):
        built(arms=("gate + replay", "replay+gate"))


def test_the_length_of_generic_texts_binds_only_arms_that_read_them():
    assert built(retain__kl_tokens=64).retain.kl_tokens == 64
    assert built(retain__kl_tokens=65, arms=("merge",)).retain.kl_tokens == 65


REFUSED = {
    "arms": [
        ((), "arms=()", "('merge',)"),
        (("merge", "rehearse"), "'rehearse'", "'replay'"),
        (("merge+gate",), "'merge'", "stand alone"),
        (("in_context+gate",), "'in_context'", "stand alone"),
        (("in_context", "in_context"), "'in_context'", "must differ"),
        (("gate+gate",), "'gate+gate'", "once"),
        (("keep+replay",), "'keep' and 'replay'", "two arms"),
        (("best+penalty",), "'best' and 'penalty'", "two arms"),
        (("gate+kl", "kl+gate"), "'kl+gate' and 'gate+kl'", "must differ"),
    ],
    "task.train": [("my.json", "task.train='my.json'", "task.name='squad'")],
    "task.heldout_split": [("train", "task.heldout_split='train'", "or ''")],
    "inner.loss.mode": [("reference", "'kl'", "inner.loss.mode='masked'")],
    "sequence.passages": [(1, "sequence.passages=1", "at least 2")],
    "sequence.count": [(0, "sequence.count=0", "at least 1")],
    "sequence.probes": [(0, "sequence.probes=0", "at least 1")],
    "retain.replay": [(0, "retain.replay=0", "at least 1")],
    "retain.kl": [(0.0, "retain.kl=0.0", "at least 1e-")],
    "retain.kl_tokens": [
        (65, "retain.kl_tokens=65 must be at most", "inner.row_tokens=64")
    ],
    "retain.gate_budget": [(1.5, "retain.gate_budget=1.5", "at most 1.0")],
    "retain.gate_least": [
        (0.0, "retain.gate_least=0.0", "at least 1e-"),
        (1.5, "retain.gate_least=1.5", "at most 1.0"),
    ],
    "retain.gate_steps": [(-1, "retain.gate_steps=-1", "at least 0")],
    "retain.candidates": [(1, "retain.candidates=1", "at least 2")],
    "seed": [(-1, "seed=-1", "at most 4294967295")],
}


@pytest.mark.parametrize(
    "key, value, what, fix",
    [(key, *case) for key, cases in REFUSED.items() for case in cases],
)
def test_refused(key, value, what, fix):
    with pytest.raises(ValueError) as error:
        built(**{key: value})
    assert what in str(error.value) and fix in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arms, adapters, engine",
    [
        (("merge",), 24, (28, 24, 0.0, False)),
        (("keep",), 24, (0, 0, 0.0, False)),
        (("keep", "gate"), 24, (28, 24, 0.0, False)),
        (("kl", "orthogonal"), 24, (28, 24, 0.5, True)),
        (("keep+kl",), 24, (0, 0, 0.0, True)),
        (("merge", "best"), 24 * 5, (28, 24, 0.0, False)),
    ],
)
def test_the_engine_is_made_for_the_arm_that_needs_most(arms, adapters, engine):
    exp = built(
        arms=arms,
        sequence__count=24,
        sequence__passages=8,
        inner__lora__rank=4,
        retain__orthogonal=0.5,
        retain__candidates=5,
    )
    most = EngineOptions(*engine)
    assert exp.engine == most
    assert exp.adapters == adapters
    for arm in arms:
        needed = dataclasses.astuple(exp.engine_of(arm))
        pairs = zip(needed, dataclasses.astuple(most), strict=True)
        assert all(a <= b for a, b in pairs)


def test_an_arm_alone_is_compiled_without_what_others_need():
    exp = built(arms=("merge", "kl", "orthogonal", "keep"))
    assert exp.engine_of("merge").divergence is False
    assert exp.engine_of("merge").orthogonal == 0.0
    assert exp.engine_of("keep").frozen_rank == 0
