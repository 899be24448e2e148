"""A tiny experiment over seeds, for the round in one program and for the host's.

The model's weights are random: golds are lists of words, of which any one will do, so
that answers are right now and then and edits differ in what they earn.
"""

import contextlib
import dataclasses
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import tiny_model

from seal_jax.embedded import world_corpus
from seal_jax.generation import policies
from seal_jax.rounds import grading, trials
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.runtime import config_rules, metrics
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import knowledge_setup
from seal_jax.tasks.passage import Passage
from seal_jax.training import capacity

CHANGES: dict[str, Any] = {
    "scale.edits": 3,
    "scale.seeds": 2,
    "propose.max_tokens": 10,
    "grade.threshold": 0.001,
    "imitate.learning_rate": 0.05,
    "ladder": (
        *("base", "passage_only", "sentence_split", "self_edits"),
        *("random_kept", "oracle"),
    ),
}
SEEDS = {"count": 2, "chunk": 1, "together": 1, "march": 5}


def values(path: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """The config; `over_seeds` among the changes are those of that group."""
    seeds = SEEDS | changes.pop("over_seeds", {})
    dotted = {key.replace(".", "__"): value for key, value in CHANGES.items()}
    return tiny_model.values(path, **(dotted | changes)) | {"over_seeds": seeds}


def experiment(path: pathlib.Path, **changes: Any) -> OverSeeds:
    """The experiment of `values`."""
    return config_rules.build(OverSeeds, values(path, **changes))


def easy(passages: list[Passage]) -> list[Passage]:
    """The passages with gold answers of which any word is right."""
    rng = random.Random(0)
    words = [w for w in world_corpus.vocabulary() if w.isalpha() and w != "a"]
    return [
        dataclasses.replace(
            passage,
            questions=tuple(
                dataclasses.replace(q, answer=" ".join(rng.sample(words, 60)))
                for q in passage.questions
            ),
        )
        for passage in passages
    ]


@contextlib.contextmanager
def hosted(
    exp: OverSeeds,
    policy: policies.Policy,
    passages: list[Passage],
    workdir: pathlib.Path,
) -> Iterator[trials.Run[OverSeeds, Passage]]:
    """The run that drives the same rounds from the host."""
    task = knowledge_setup.make(exp, policy, passages, [])
    sizes = capacity.build(exp.inner, step_tokens=exp.inner.step_tokens, adapters=3)
    with Journal(workdir / "journal.jsonl") as journal:
        yield trials.Run(
            exp=exp,
            inner=sizes,
            mesh=None,
            journal=journal,
            metrics=metrics.NullMetrics(),
            task=grading.connect(exp, task, workdir),
            say=lambda line: None,
        )
