"""The config of many passages at once: what it accepts, and what it refuses."""

import math

import pytest
import tiny_model

from seal_jax.pooled.settings import ARMS, Pooled
from seal_jax.runtime import config_rules
from seal_jax.training.settings import PLAIN


def build(arg: str = "", **changes) -> Pooled:
    config = tiny_model.load_config("squad_cpt", arg)
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(dotted)
    return config_rules.build(Pooled, config.to_dict())


@pytest.mark.parametrize("arg", ["", "tiny", "debug"])
def test_every_variant_is_an_experiment(arg):
    exp = build(arg)
    assert exp.turn_end == "" and exp.engine == PLAIN
    assert exp.lines_per_step == exp.inner.batch == exp.full.batch == 8
    assert exp.untrained_arms == ("base", "in_context")
    assert exp.trained_arms == tuple(a for a in ARMS[2:] if a in exp.arms)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"squad_cpt\.py:big: the variants"):
        tiny_model.load_config("squad_cpt", "big")


def test_the_default_is_the_first_versions():
    exp = build()
    sequences = exp.pool.passages * exp.pool.edits * 2  # an edit and its passage
    steps = exp.inner.epochs * math.ceil(sequences / exp.inner.batch)
    assert (sequences, steps) == (2000, 750)
    assert (exp.inner.lora.rank, exp.inner.lora.alpha) == (32, 64.0)


@pytest.mark.parametrize(
    ("changes", "adapters"),
    [
        ({}, 4),
        ({"pool__seeds": 3}, 12),
        ({"arms": ("base",)}, 0),
        ({"pool__how": "full"}, 0),
        ({"arms": ("self_edits", "base"), "pool__seeds": 2}, 2),
    ],
)
def test_adapters_are_counted(changes, adapters):
    assert build("tiny", **changes).adapters == adapters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool__how": "both"}, "pool.how='both' must be one of"),
        (
            {"pool__how": "full", "model__base_dtype": "float8"},
            "model.base_dtype='float8' is for weights that stay as they are, and "
            "pool.how='full' trains them; use model.base_dtype='same'",
        ),
        ({"pool__copies": "twice"}, "pool.copies='twice' must be one of"),
        ({"pool__passages": 0}, "pool.passages=0 must be at least 1"),
        ({"pool__edits": 0}, "pool.edits=0 must be at least 1"),
        ({"pool__seeds": 0}, "pool.seeds=0 must be at least 1"),
        ({"pool__questions": -1}, "pool.questions=-1 must be at least 0"),
        ({"inner__batch": 0}, "inner.batch=0 must be at least 1"),
        ({"inner__warmup_share": 1.5}, "inner.warmup_share=1.5 must be 0 or"),
        ({"inner__loss__mode": "reference"}, "inner.loss.mode='reference' must be one"),
        ({"inner__step_tokens": 2048}, "8 rows of inner.row_tokens=1024; use 8192 or"),
        ({"inner__epochs": 0}, "inner.epochs=0 must be at least 1"),
        ({"full__batch": 0}, "full.batch=0 must be at least 1"),
        ({"full__micro_batch": 0}, "full.micro_batch=0 must be at least 1"),
        ({"full__clip": 0.0}, "full.clip=0.0 must be at least 1e-"),
        ({"full__learning_rate": -1.0}, "full.learning_rate=-1.0 must be at least 1e-"),
        ({"full__warmup_share": -0.1}, "full.warmup_share=-0.1 must be 0 or"),
        ({"arms": ("round_1",)}, "arms='round_1' must be one of"),
        ({"arms": ("base", "base")}, "must differ"),
        ({"arms": ()}, "name at least one"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"task__name": "world"}, "task.train='rajpurkar/squad' is not read by task."),
        (
            {"writer__path": "there", "pool__edits_file": "file.json"},
            "nothing to write with pool.edits_file='file.json'",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError) as caught:
        build(**changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)
