"""A `trials.Run` for tests that need one without a run around it."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import tiny_model

from seal_jax.generation import policies
from seal_jax.rounds import trials
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules, metrics
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import knowledge
from seal_jax.tasks.passage import Passage
from seal_jax.training import capacity

# A policy of which only its stop token is looked at.
BLANK = policies.Policy(None, {}, None, (0,), None)  # pyright: ignore

type RoundsRun = trials.Run[PassageRounds, Passage]


def right(items: list[tuple[str, str, str]]) -> list[float]:
    """A grader: the answer is the gold one, letter by letter."""
    return [float(answer == gold) for _, gold, answer in items]


@contextlib.contextmanager
def opened(workdir: pathlib.Path) -> Iterator[Callable[..., RoundsRun]]:
    """`make(...)` gives a run of rounds on passages, as a new process would make it.

    Each call opens the journal in `workdir` anew; the run before it is closed.
    Arguments of `make`: `score`, the grader and the rubric; `blank`, the policy that
    the task reads with; `model`, its path; `say`; and changes of the config
    (`tiny_model.values`).
    """
    with contextlib.ExitStack() as stack:

        def make(
            score: Callable[..., Any] = right,
            *,
            blank: policies.Policy | None = BLANK,
            model: pathlib.Path | str = "model",
            say: Callable[[str], object] = lambda line: None,
            **changes: Any,
        ) -> RoundsRun:
            stack.close()
            values = tiny_model.values(model, **changes)
            exp = config_rules.build(PassageRounds, values)
            journal = Journal(workdir / "journal.jsonl")
            return trials.Run(
                exp=exp,
                inner=capacity.build(exp.inner, step_tokens=192, adapters=3),
                mesh=None,
                journal=stack.enter_context(journal),
                metrics=stack.enter_context(metrics.Metrics(workdir)),
                task=knowledge.Knowledge(
                    exp,
                    blank or policies.describe(exp.model),
                    "{title} {passage}",
                    "{title} {question}",
                    score,
                    score,
                ),
                say=say,
            )

        yield make
