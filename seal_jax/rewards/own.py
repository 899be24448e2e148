"""Graders and rewards of the user's own, as `module:function` names them.

A grader is called as those of `graders.LOCAL` are. A reward asks for what it needs by
the names of its parameters, of `GIVEN`; one that asks for nothing that an adapter gave
needs none trained.
"""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from seal_jax.rewards import names
from seal_jax.runtime import plugins
from seal_jax.tasks import wordwise

GRADER = ("question", "gold", "answer")

# What a reward may ask for: of the passage, of the edit, of one adapter.
_OF_ITEM = ("title", "passage", "questions", "gold")
_OF_EDIT = ("edit",)
_OF_ADAPTER = ("answers", "loss")
GIVEN = (*_OF_ITEM, *_OF_EDIT, *_OF_ADAPTER)
# Those that a passage without questions does not have.
_ASKED = {"questions", "gold", "answers"}

# Beyond these a mean over adapters would mean nothing (`names.WORST`).
_WORST, _BEST = -1e5, 1e5


def grader(text: str) -> Callable[[str, str, str], float | None]:
    """The user's own grader: a number from 0 to 1, or None; blank answers are wrong.

    Raises:
      ValueError: see `plugins.function`.
    """
    key = "grade.name"
    found = plugins.function(key, text, GRADER)

    def grade(question: str, gold: str, answer: str) -> float | None:
        if wordwise.is_empty(answer):
            return 0.0
        value = plugins.call(key, text, found, question, gold, answer)
        return plugins.number(key, text, value, 0.0, 1.0)

    return grade


@dataclasses.dataclass(frozen=True)
class Reward:
    """A reward of the user's own; `wants`: the names of `GIVEN` that it asks for."""

    key: str
    text: str
    function: Callable[..., Any]
    wants: tuple[str, ...]

    @property
    def trains(self) -> bool:
        """Whether an adapter has to be trained for it."""
        return any(name in _OF_ADAPTER for name in self.wants)

    @property
    def asks(self) -> bool:
        """Whether it needs the questions of a passage."""
        return any(name in _ASKED for name in self.wants)

    def of(self, given: Mapping[str, Any]) -> float | None:
        """What it is, of all that there is; None: it has no value.

        Raises:
          ValueError: it raises, or gives no number.
        """
        asked = {name: given[name] for name in self.wants}
        value = plugins.call(self.key, self.text, self.function, **asked)
        return plugins.number(self.key, self.text, value, _WORST, _BEST)


@functools.cache
def reward(text: str, key: str = "select.reward") -> Reward:
    """The reward that `module:function` names.

    Raises:
      ValueError: see `plugins.function`; or a parameter that there is not.
    """
    found = plugins.function(key, text)
    signature = plugins.signature_of(found)
    if signature is None:
        raise ValueError(
            f"{key}={text!r}: must be a function written in Python, whose parameters "
            f"are some of {', '.join(GIVEN)}; wrap it in one"
        )
    return Reward(key, text, found, _wanted(key, text, signature))


def _wanted(key: str, text: str, signature: inspect.Signature) -> tuple[str, ...]:
    """The names of `GIVEN` among its parameters; others must have a default."""
    wanted = []
    for name, parameter in signature.parameters.items():
        by_name = parameter.kind in (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        )
        if by_name and name in GIVEN:
            wanted.append(name)
        elif parameter.default is inspect.Parameter.empty:
            near = difflib.get_close_matches(name, GIVEN, 1)
            hint = f"; did you mean {near[0]}?" if near else "; rename it"
            raise ValueError(
                f"{key}={text!r}: takes {signature}, and {name} is none of "
                f"{', '.join(GIVEN)}{hint}"
            )
    if not wanted:
        raise ValueError(
            f"{key}={text!r}: takes {signature}, and must ask for some of "
            f"{', '.join(GIVEN)} by its parameters' names"
        )
    return tuple(wanted)


# Of any reward, the package's own and the user's.


def trains(name: str) -> bool:
    """Whether an adapter has to be trained for the reward of that name."""
    return (
        reward(name).trains if plugins.is_named(name) else name not in names.UNTRAINED
    )


def without_zero(name: str) -> bool:
    """Whether a failed adapter's value of it is not 0, since none says "nothing"."""
    if plugins.is_named(name):
        return reward(name).trains
    return name == names.LOG_LIKELIHOOD


def asks(name: str) -> bool:
    """Whether the reward of that name needs questions with gold answers."""
    if plugins.is_named(name):
        return reward(name).asks
    return name in names.OF_QUESTIONS
