"""Self-edits as JSON: what is valid, what is not and why, budgets, random ones."""

import collections
import dataclasses
import itertools
import json
import math
import random
import re

import hypothesis
import pytest
from hypothesis import strategies

from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.tasks.arc.examples import Switches
from seal_jax.tasks.arc.self_edit import EditLimits, InvalidEditError, SelfEdit

LIMITS = EditLimits(
    min_learning_rate=1e-6,
    max_learning_rate=1e-2,
    max_epochs=10,
    max_steps=375,
    batch=2,
)
EVERY = [Switches(*mesh) for mesh in itertools.product((False, True), repeat=4)]
EDIT = SelfEdit(Switches(True, False, True, False), True, 1e-4, 2)
TEXT = (
    '{"data_generation": {"use_basic_augmentations": true, '
    '"use_size_augmentations": false, "use_chain_augmentations": true, '
    '"use_repeat_augmentations": false}, "training": '
    '{"strategy": "train_using_output_tokens", "learning_rate": 0.0001, '
    '"num_train_epochs": 2}}'
)


def changed(**values):
    """`TEXT` with some values of either part replaced; `...` removes a key."""
    entry = json.loads(TEXT)
    for name, value in values.items():
        part = entry["training" if name in entry["training"] else "data_generation"]
        if value is ...:
            del part[name]
        else:
            part[name] = value
    return json.dumps(entry)


def parse(text, limits=LIMITS):
    return arc_edit.parse(text, limits)


# Valid


def test_the_canonical_text():
    assert EDIT.json() == TEXT
    assert parse(TEXT) == EDIT


edits = strategies.builds(
    SelfEdit,
    switches=strategies.sampled_from(EVERY),
    output_only=strategies.booleans(),
    learning_rate=strategies.floats(1e-6, 1e-2),
    epochs=strategies.integers(1, 10),
)


@hypothesis.settings(max_examples=50)
@hypothesis.given(edits)
def test_what_is_written_is_read(edit):
    assert parse(edit.json()) == edit
    assert parse(json.dumps(json.loads(edit.json()), indent=4)) == edit


VALID = {
    "white space": (f"\n  {TEXT}\t\r\n ", EDIT),
    "odd white space": (f"\u00a0{TEXT}\u2003", EDIT),
    "spread out": (re.sub(r"([{}:,])", r" \1 ", TEXT), EDIT),
    "another order": (
        json.dumps(dict(reversed(json.loads(TEXT).items()))),
        EDIT,
    ),
    "all tokens": (
        changed(strategy="train_using_all_tokens"),
        dataclasses.replace(EDIT, output_only=False),
    ),
    "epochs as a float": (changed(num_train_epochs=2.0), EDIT),
    "epochs in another notation": (TEXT.replace(" 2}", " 0.2e1}"), EDIT),
    "most epochs": (
        changed(num_train_epochs=10),
        dataclasses.replace(EDIT, epochs=10),
    ),
    "rate in another notation": (TEXT.replace("0.0001", "1E-4"), EDIT),
    "highest rate": (
        changed(learning_rate=0.01),
        dataclasses.replace(EDIT, learning_rate=0.01),
    ),
    "lowest rate": (
        changed(learning_rate=1e-6),
        dataclasses.replace(EDIT, learning_rate=1e-6),
    ),
    "escaped": (TEXT.replace("use_b", "\\u0075se_b"), EDIT),
}


@pytest.mark.parametrize("case", VALID)
def test_valid_edits(case):
    text, want = VALID[case]
    found = parse(text)
    assert found == want
    assert type(found.epochs) is int and type(found.learning_rate) is float


def test_a_whole_number_may_be_the_rate():
    limits = dataclasses.replace(LIMITS, max_learning_rate=1.0)
    found = parse(changed(learning_rate=1), limits)
    assert found.learning_rate == 1.0 and type(found.learning_rate) is float


# Malformed

DATA = json.loads(TEXT)["data_generation"]
TRAINING = json.loads(TEXT)["training"]


def parts(**entry):
    return json.dumps(entry)


INVALID = {
    "empty": ("", "not json"),
    "white space": (" \n", "not json"),
    "prose": ("I would train for two epochs.", "not json"),
    "prose before": (f"Here it is: {TEXT}", "not json"),
    "fenced": (f"```json\n{TEXT}\n```", "not json"),
    "torn": (TEXT[:-1], "not json"),
    "torn in a string": (TEXT[:20], "not json"),
    "single quotes": (TEXT.replace('"', "'"), "not json"),
    "python": (TEXT.replace("true", "True"), "not json"),
    "trailing comma": (TEXT.replace("2}}", "2,}}"), "not json"),
    "comment": (TEXT + " // done", "not one object"),
    "elided": (TEXT.replace("true", "..."), "not json"),
    "nan": (TEXT.replace("0.0001", "NaN"), "not json"),
    "infinity": (TEXT.replace("0.0001", "Infinity"), "not json"),
    "minus infinity": (TEXT.replace("0.0001", "-Infinity"), "not json"),
    "leading zero": (TEXT.replace(" 2}", " 02}"), "not json"),
    "no digit": (TEXT.replace("0.0001", ".0001"), "not json"),
    "raw line break in a key": (TEXT.replace("use_b", "use\nb"), "not json"),
    "very deep": ("[" * 100_000, "not json"),
    "very deep objects": ('{"a":' * 100_000, "not json"),
    "very long number": (TEXT.replace(" 2}", f" {'9' * 5000}}}"), "not json"),
    "null": ("null", "not one object"),
    "a list": (f"[{TEXT}]", "not one object"),
    "a string": (json.dumps(TEXT), "not one object"),
    "a number": ("3", "not one object"),
    "true": ("true", "not one object"),
    "two": (TEXT + TEXT, "not one object"),
    "two lines": (f"{TEXT}\n{TEXT}", "not one object"),
    "prose after": (f"{TEXT}\nThis is best.", "not one object"),
    "repeated part": (
        TEXT.replace('"training"', '"data_generation": {}, "training"'),
        "repeated key",
    ),
    "repeated switch": (
        TEXT.replace('"use_s', '"use_basic_augmentations": false, "use_s'),
        "repeated key",
    ),
    "repeated equally": (
        TEXT.replace(" 2}", ' 2, "num_train_epochs": 2}'),
        "repeated key",
    ),
    "nothing": ("{}", "missing key"),
    "no data": (parts(training=TRAINING), "missing key"),
    "no training": (parts(data_generation=DATA), "missing key"),
    "flat": (parts(**DATA, **TRAINING), "missing key"),
    "no strategy": (changed(strategy=...), "missing key"),
    "no rate": (changed(learning_rate=...), "missing key"),
    "no epochs": (changed(num_train_epochs=...), "missing key"),
    "no basic": (changed(use_basic_augmentations=...), "missing key"),
    "no size": (changed(use_size_augmentations=...), "missing key"),
    "no chain": (changed(use_chain_augmentations=...), "missing key"),
    "no repeat": (changed(use_repeat_augmentations=...), "missing key"),
    "wrong case": (TEXT.replace("strategy", "Strategy"), "missing key"),
    "further part": (
        parts(data_generation=DATA, training=TRAINING, note="x"),
        "unknown key",
    ),
    "further switch": (changed(use_concat_augmentations=True), "unknown key"),
    "further setting": (
        parts(data_generation=DATA, training=TRAINING | {"batch_size": 2}),
        "unknown key",
    ),
    "data is null": (parts(data_generation=None, training=TRAINING), "wrong type"),
    "data is a list": (parts(data_generation=[DATA], training=TRAINING), "wrong type"),
    "training is text": (parts(data_generation=DATA, training="fast"), "wrong type"),
    "switch is 1": (changed(use_basic_augmentations=1), "wrong type"),
    "switch is text": (changed(use_size_augmentations="true"), "wrong type"),
    "switch is null": (changed(use_chain_augmentations=None), "wrong type"),
    "switch is a list": (changed(use_repeat_augmentations=[True]), "wrong type"),
    "strategy is null": (changed(strategy=None), "wrong type"),
    "strategy is a list": (changed(strategy=["train_using_all_tokens"]), "wrong type"),
    "rate is text": (changed(learning_rate="1e-4"), "wrong type"),
    "rate is true": (changed(learning_rate=True), "wrong type"),
    "rate is null": (changed(learning_rate=None), "wrong type"),
    "rate is an object": (changed(learning_rate={}), "wrong type"),
    "epochs is text": (changed(num_train_epochs="2"), "wrong type"),
    "epochs is true": (changed(num_train_epochs=True), "wrong type"),
    "epochs is null": (changed(num_train_epochs=None), "wrong type"),
    "other strategy": (changed(strategy="train_using_input_tokens"), "bad strategy"),
    "strategy in capitals": (
        changed(strategy="TRAIN_USING_ALL_TOKENS"),
        "bad strategy",
    ),
    "both strategies": (
        changed(strategy="train_using_all_tokens|train_using_output_tokens"),
        "bad strategy",
    ),
    "rate of 0": (changed(learning_rate=0), "learning rate"),
    "rate below 0": (changed(learning_rate=-1e-4), "learning rate"),
    "rate too low": (changed(learning_rate=9.9e-7), "learning rate"),
    "rate too high": (changed(learning_rate=0.011), "learning rate"),
    "rate beyond floats": (TEXT.replace("0.0001", "1e999"), "learning rate"),
    "rate of many digits": (TEXT.replace("0.0001", "9" * 4000), "learning rate"),
    "no epoch": (changed(num_train_epochs=0), "epochs"),
    "epochs below 0": (changed(num_train_epochs=-2), "epochs"),
    "half an epoch": (changed(num_train_epochs=1.5), "epochs"),
    "too many epochs": (changed(num_train_epochs=11), "epochs"),
    "epochs beyond floats": (TEXT.replace(" 2}", " 1e999}"), "epochs"),
    "epochs of many digits": (TEXT.replace(" 2}", f" {'9' * 4000}}}"), "epochs"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_edits(case):
    text, reason = INVALID[case]
    with pytest.raises(InvalidEditError) as caught:
        parse(text)
    assert caught.value.reason == reason
    message = str(caught.value)
    assert "\n" not in message and 0 < len(message) < 200


def test_every_reason_occurs():
    assert {reason for _, reason in INVALID.values()} == set(arc_edit.REASONS)
    assert len(set(arc_edit.REASONS)) == len(arc_edit.REASONS)


def valid_or_reason(text):
    try:
        edit = parse(text)
    except InvalidEditError as error:
        assert error.reason in arc_edit.REASONS and "\n" not in str(error)
    else:
        assert parse(edit.json()) == edit
        assert LIMITS.min_learning_rate <= edit.learning_rate <= 1e-2
        assert 1 <= edit.epochs <= LIMITS.max_epochs


any_json = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(max_size=8),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(
            strategies.sampled_from(["training", "data_generation", *DATA, *TRAINING]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@hypothesis.settings(max_examples=200)
@hypothesis.given(strategies.text() | any_json.map(json.dumps))
def test_any_text_is_an_edit_or_has_a_reason(text):
    valid_or_reason(text)


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    edits,
    strategies.lists(
        strategies.tuples(
            strategies.integers(0, 300),
            strategies.integers(0, 4),
            strategies.text(
                '{}[]",:.eE+-0123456789truefalsnNI \n\ud800\x00', max_size=3
            ),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_any_damaged_edit_is_an_edit_or_has_a_reason(edit, damages):
    text = edit.json()
    for start, length, new in damages:
        text = text[:start] + new + text[start + length :]
    valid_or_reason(text)


@hypothesis.settings(max_examples=100)
@hypothesis.given(strategies.sampled_from([*DATA, *TRAINING]), any_json)
def test_any_value_is_valid_or_has_a_reason(name, value):
    valid_or_reason(changed(**{name: value}))


# Budget


@pytest.mark.parametrize(
    "epochs, sequences, batch, steps, over",
    [
        (3, 250, 2, 375, False),
        (4, 250, 2, 500, True),
        (1, 751, 2, 376, False),
        (1, 752, 2, 376, True),
        (5, 150, 2, 375, False),
        # A short last batch counts by its share: three steps of 250.33.
        (3, 249, 2, 375, False),
        (3, 251, 2, 378, True),
        (375, 1, 1, 375, False),
        (376, 1, 1, 376, True),
        (10, 4, 2, 20, False),
        (10, 3, 2, 20, False),
        (7, 107, 2, 378, False),
        (2, 0, 2, 0, False),
    ],
)
def test_steps_and_budget(epochs, sequences, batch, steps, over):
    edit = dataclasses.replace(EDIT, epochs=epochs)
    limits = dataclasses.replace(LIMITS, batch=batch)
    assert arc_edit.steps(edit, sequences, batch) == steps
    assert arc_edit.over_budget(edit, sequences, limits) == over


@pytest.mark.parametrize(
    "sequences, epochs",
    [(0, 0), (1, 751), (4, 187), (69, 10), (96, 7), (250, 3), (751, 1), (752, 0)],
)
def test_most_epochs_by_hand(sequences, epochs):
    limits = dataclasses.replace(LIMITS, max_epochs=10_000)
    assert arc_edit.most_epochs(sequences, limits) == epochs
    assert arc_edit.most_epochs(sequences, LIMITS) == min(epochs, 10)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    strategies.integers(1, 400), strategies.integers(1, 400), strategies.integers(1, 5)
)
def test_most_epochs_is_the_last_within_budget(sequences, max_steps, batch):
    limits = EditLimits(1e-5, 1e-3, 10_000, max_steps, batch)
    most = arc_edit.most_epochs(sequences, limits)
    for epochs, over in ((most, False), (most + 1, True)):
        edit = dataclasses.replace(EDIT, epochs=epochs)
        assert arc_edit.over_budget(edit, sequences, limits) == over


def test_random_edits_are_valid_and_within_budget():
    rng = random.Random(0)
    sizes = {switches: 30 + 55 * sum(switches) for switches in EVERY}
    found = [arc_edit.random_edit(rng, sizes.__getitem__, LIMITS) for _ in range(4000)]
    for edit in found:
        assert parse(edit.json()) == edit
        assert not arc_edit.over_budget(edit, sizes[edit.switches], LIMITS)
    switches = collections.Counter(edit.switches for edit in found)
    assert len(switches) == 16
    # Four standard deviations of a count of 4000/16, of 4000/2, of a mean of 4000.
    assert all(abs(count - 250) < 4 * math.sqrt(250) for count in switches.values())
    assert abs(sum(edit.output_only for edit in found) - 2000) < 4 * math.sqrt(1000)
    logs = [math.log10(edit.learning_rate) for edit in found]
    assert abs(sum(logs) / 4000 + 4) < 4 * (4 / math.sqrt(12)) / math.sqrt(4000)
    assert min(logs) < -5.95 and max(logs) > -2.05
    # 250 sequences leave three epochs.
    epochs = collections.Counter(e.epochs for e in found if e.switches == EVERY[-1])
    assert set(epochs) == {1, 2, 3} and min(epochs.values()) > 50
    most = {edit.epochs for edit in found if edit.switches == EVERY[0]}
    assert most == set(range(1, 11))


def test_random_edits_repeat_with_their_seed():
    made = [
        arc_edit.random_edit(random.Random(seed), lambda switches: 100, LIMITS)
        for seed in (1, 1, 2)
    ]
    assert made[0] == made[1] != made[2]


def test_random_edits_avoid_switches_without_room():
    only = Switches(False, True, False, True)
    sizes = {switches: 752 for switches in EVERY} | {only: 751}
    rng = random.Random(0)
    for _ in range(20):
        edit = arc_edit.random_edit(rng, sizes.__getitem__, LIMITS)
        assert (edit.switches, edit.epochs) == (only, 1)
    with pytest.raises(ValueError, match="max_steps=375 must leave room for one epoch"):
        arc_edit.random_edit(rng, lambda switches: 752, LIMITS)


def test_bounds_are_met_exactly():
    limits = dataclasses.replace(LIMITS, min_learning_rate=3e-4, max_learning_rate=3e-4)
    edit = arc_edit.random_edit(random.Random(0), lambda switches: 10, limits)
    assert edit.learning_rate == 3e-4


@pytest.mark.parametrize(
    "change, message",
    [
        ({"min_learning_rate": 0.0}, "min_learning_rate=0.0 must be at least 1e-12"),
        ({"min_learning_rate": 0.1}, "must be in this order"),
        ({"max_learning_rate": math.inf}, "max_learning_rate=inf"),
        ({"min_learning_rate": math.nan}, "min_learning_rate=nan"),
        ({"max_epochs": 0}, "max_epochs=0 must be at least 1"),
        ({"max_steps": 0}, "max_steps=0 must be at least 1"),
        ({"batch": 0}, "batch=0 must be at least 1"),
    ],
)
def test_refused_limits(change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        dataclasses.replace(LIMITS, **change)
    assert "\n" not in str(caught.value)
