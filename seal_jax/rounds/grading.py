"""Who grades answers and edits: the rule or the endpoint that a config names.

The graders themselves are in `rewards` (`graders`, `judge`, `rubric`); a task
(`knowledge`) takes one as a function. On several processes only the first has one: who
asks a task for scores hands them on (`scoring.one_for_all`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from seal_jax.rewards import graders, judge, own, rubric
from seal_jax.rewards.settings import GradeConfig
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import distributed, plugins
from seal_jax.tasks.knowledge import Knowledge, Rubric, Scorer

# Why an endpoint is needed, for the error where the config has none.
_RUBRIC = "label_free.rubric='judge'"


class HasGrade(Protocol):
    """An experiment whose answers are graded."""

    @property
    def grade(self) -> GradeConfig: ...


def connect(exp: HasGrade, task: Knowledge, workdir: Path) -> Knowledge:
    """The task with its grader.

    Raises:
      judge.JudgeError: the endpoint refuses.
    """
    score = scorer(exp.grade, workdir) if distributed.leads() else _silent
    return dataclasses.replace(task, grader=score)


def connect_rounds(exp: PassageRounds, task: Knowledge, workdir: Path) -> Knowledge:
    """The task with its grader, and with the rubric for its edits.

    Raises:
      judge.JudgeError: the endpoint refuses.
    """
    leads = distributed.leads()
    if leads and exp.asks_rubric:
        judge.check(exp.grade.endpoint(_RUBRIC))
    task = connect(exp, task, workdir)
    judged = rubric_of(exp, workdir) if leads else _silent
    return dataclasses.replace(task, judged=judged)


def _silent(items: Sequence[object]) -> list[float | None]:
    """The rule of the processes that do not lead: it is never asked."""
    raise RuntimeError(f"{len(items)} answers for a process that does not grade")


def rubric_of(exp: PassageRounds, workdir: Path) -> Rubric:
    """The rubric as one function of (passage, lines) pairs."""
    if exp.asks_rubric:
        cfg, path = exp.grade.endpoint(_RUBRIC), workdir / "rubric.jsonl"
        return functools.partial(rubric.by_judge, cfg=cfg, cache_path=path)
    return lambda items: [rubric.by_rules(*item) for item in items]


def scorer(cfg: GradeConfig, workdir: Path) -> Scorer:
    """The grader as one function of (question, gold, answer) triples.

    Raises:
      judge.JudgeError: the endpoint refuses.
    """
    if cfg.name == "judge":
        endpoint = cfg.endpoint("grade.name='judge'")
        judge.check(endpoint)
        path = workdir / "judge.jsonl"
        verdicts = functools.partial(judge.grade, cfg=endpoint, cache_path=path)
        return lambda items: list(verdicts(items))
    if plugins.is_named(cfg.name):
        own_rule = own.grader(cfg.name)
        return lambda items: [own_rule(*item) for item in items]
    rule = graders.LOCAL[cfg.name]
    if cfg.name == "recall":
        rule = functools.partial(graders.by_recall, threshold=cfg.threshold)
    return lambda items: [rule(*item) for item in items]
