"""The self-edit of a grid task: a JSON configuration of its own training.

Schema and step budget are the SEAL reference's (arXiv 2506.10943, section 4.1), which
takes any number and dies of some; here what is valid is spelled out, and what is not
has a reason that can be counted. One edit (made up):

    {"data_generation": {"use_basic_augmentations": true,
                         "use_size_augmentations": false,
                         "use_chain_augmentations": true,
                         "use_repeat_augmentations": false},
     "training": {"strategy": "train_using_output_tokens",
                  "learning_rate": 0.0001, "num_train_epochs": 2}}
"""

import dataclasses
import itertools
import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Batch, Bound, LearningRate
from seal_jax.tasks.arc.examples import Switches

# Why a text is no edit.
REASONS = (
    "not json",
    "not one object",
    "repeated key",
    "missing key",
    "unknown key",
    "wrong type",
    "bad strategy",
    "learning rate",
    "epochs",
)

# Why one that is valid is not trained.
OVER_BUDGET = "over budget"

_SWITCHES = tuple(f"use_{name}_augmentations" for name in Switches._fields)
_TRAINING = ("strategy", "learning_rate", "num_train_epochs")
_ALL_TOKENS = "train_using_all_tokens"
_OUTPUT_TOKENS = "train_using_output_tokens"


class InvalidEditError(ValueError):
    """A text that is no self-edit; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class SelfEdit:
    """Training of one adapter: data, loss on the output alone or on all, and pace."""

    switches: Switches
    output_only: bool
    learning_rate: float
    epochs: int

    def json(self) -> str:
        """The canonical text, which `parse` reads back."""
        values = (
            _OUTPUT_TOKENS if self.output_only else _ALL_TOKENS,
            self.learning_rate,
            self.epochs,
        )
        return json.dumps(
            {
                "data_generation": dict(zip(_SWITCHES, self.switches, strict=True)),
                "training": dict(zip(_TRAINING, values, strict=True)),
            }
        )


@dataclasses.dataclass(frozen=True)
class EditLimits:
    """What a valid edit may ask for, and what the budget of its training is.

    Attributes:
      min_learning_rate, max_learning_rate: bounds of the peak, both allowed.
      max_epochs: a valid edit has at most so many.
      max_steps: an edit beyond this is over budget (the reference: 375).
      batch: examples of a step (2).
    """

    min_learning_rate: LearningRate
    max_learning_rate: LearningRate
    max_epochs: Annotated[int, Bound(1, 10_000)]
    max_steps: Annotated[int, Bound(1, 1_000_000)]
    batch: Batch

    def __post_init__(self):
        config_rules.check(self)
        low, high = self.min_learning_rate, self.max_learning_rate
        if low > high:
            raise ValueError(
                f"min_learning_rate={low}, max_learning_rate={high}: must be in this "
                "order; exchange them"
            )


# Texts


def parse(text: str, limits: EditLimits) -> SelfEdit:
    """The self-edit that `text` is: one JSON object, with white space about it or not.

    Raises:
      InvalidEditError: it is none, for the first reason that applies.
    """
    value = _object(_decode(text), "the text")
    _check_keys(value, ("data_generation", "training"), "the object")
    data = _object(value["data_generation"], "data_generation", "wrong type")
    training = _object(value["training"], "training", "wrong type")
    _check_keys(data, _SWITCHES, "data_generation")
    _check_keys(training, _TRAINING, "training")
    for name in _SWITCHES:
        if not isinstance(data[name], bool):
            raise InvalidEditError(
                "wrong type", f"{name}={data[name]!r:.40} must be true or false"
            )
    strategy = training["strategy"]
    if not isinstance(strategy, str):
        raise InvalidEditError("wrong type", f"strategy={strategy!r:.40} must be text")
    if strategy not in (_ALL_TOKENS, _OUTPUT_TOKENS):
        raise InvalidEditError(
            "bad strategy",
            f"strategy={strategy!r:.40} must be {_ALL_TOKENS} or {_OUTPUT_TOKENS}",
        )
    low, high = limits.min_learning_rate, limits.max_learning_rate
    rate = _number(training["learning_rate"], "learning_rate")
    if not low <= rate <= high:
        raise InvalidEditError(
            "learning rate", f"learning_rate={rate!r:.40} must lie in {low}..{high}"
        )
    epochs = _number(training["num_train_epochs"], "num_train_epochs")
    # The bounds come first: infinity has no integer.
    if not 1 <= epochs <= limits.max_epochs or epochs != int(epochs):
        raise InvalidEditError(
            "epochs",
            f"num_train_epochs={epochs!r:.40} must be a whole number in "
            f"1..{limits.max_epochs}",
        )
    switches = Switches(*(data[name] for name in _SWITCHES))
    return SelfEdit(switches, strategy == _OUTPUT_TOKENS, float(rate), int(epochs))


def _decode(text: str) -> Any:
    try:
        return json.loads(
            text.strip(), object_pairs_hook=_no_repeats, parse_constant=_no_constant
        )
    except InvalidEditError:
        raise
    except json.JSONDecodeError as error:
        # Raised once a first value is complete.
        reason = "not one object" if error.msg == "Extra data" else "not json"
        raise InvalidEditError(reason, f"the text must be JSON ({error})") from None
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits; brackets nested a thousand deep.
        raise InvalidEditError("not json", f"the text must be JSON ({error})") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise InvalidEditError(
            "repeated key", f"the keys {[key for key, _ in pairs]!r:.80} must differ"
        )
    return entries


def _no_constant(name: str) -> Any:
    raise InvalidEditError("not json", f"{name} must not be used: it is not JSON")


def _object(value: Any, what: str, reason: str = "not one object") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidEditError(reason, f"{what} must be an object, not {value!r:.40}")
    return value


def _check_keys(value: Mapping[str, Any], keys: tuple[str, ...], what: str) -> None:
    for key in keys:
        if key not in value:
            raise InvalidEditError("missing key", f"{what} must have the key {key}")
    for key in value:
        if key not in keys:
            raise InvalidEditError(
                "unknown key", f"{what} must not have the key {key!r:.40}"
            )


def _number(value: Any, name: str) -> int | float:
    # A bool is an int to Python, and no number to JSON.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidEditError("wrong type", f"{name}={value!r:.40} must be a number")
    return value


# Budget


def steps(edit: SelfEdit, sequences: int, batch: int) -> int:
    """Optimiser steps of the edit's training on so many sequences."""
    return edit.epochs * math.ceil(sequences / batch)


def over_budget(edit: SelfEdit, sequences: int, limits: EditLimits) -> bool:
    """Whether the training is longer than allowed.

    As in the reference a last, short batch counts by its share here, so that `steps`
    may come to a few more than `limits.max_steps` in what is within budget.
    """
    return edit.epochs * sequences // limits.batch > limits.max_steps


def most_epochs(sequences: int, limits: EditLimits) -> int:
    """The most epochs that are valid and within budget; 0 where not even one is."""
    if sequences < 1:
        return 0
    within = ((limits.max_steps + 1) * limits.batch - 1) // sequences
    return min(within, limits.max_epochs)


def random_edit(
    rng: random.Random, sequences: Callable[[Switches], int], limits: EditLimits
) -> SelfEdit:
    """A random valid edit within budget.

    Uniform over switches (those that leave room for an epoch), strategies and epochs,
    and over the logarithm of the learning rate.

    Args:
      sequences: size of the task's dataset by switches.

    Raises:
      ValueError: no switches leave room for one epoch.
    """
    combinations = [
        Switches(*mesh) for mesh in itertools.product((False, True), repeat=4)
    ]
    for switches in rng.sample(combinations, len(combinations)):
        most = most_epochs(sequences(switches), limits)
        if most:
            break
    else:
        raise ValueError(
            f"max_steps={limits.max_steps} must leave room for one epoch of some "
            "dataset of the task; raise it"
        )
    low, high = (
        math.log(rate) for rate in (limits.min_learning_rate, limits.max_learning_rate)
    )
    rate = math.exp(rng.uniform(low, high))
    return SelfEdit(
        switches,
        rng.random() < 0.5,
        # Rounding may leave the bounds by an ulp.
        min(max(rate, limits.min_learning_rate), limits.max_learning_rate),
        rng.randint(1, most),
    )
