"""Asking all sequences' models at once, each about its own passages and the probes."""

from collections.abc import Sequence

import numpy as np

from seal_jax.continual import controls
from seal_jax.continual import stack as continual_stack
from seal_jax.continual.stack import Setting
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import scoring, trials
from seal_jax.rounds.graded import mean
from seal_jax.tasks.passage import Passage

type Scores = list[list[float | None]]


def ask(
    setting: Setting,
    adapters: lora.Tree | None,
    asked: Sequence[Sequence[Passage]],
    t: int,
) -> tuple[list[list[list[str]]], list[Scores]]:
    """Answers and scores of each question of `asked[a]` under adapter a, by passage.

    Raises:
      scoring.MissingJudgementsError: see `graded`.
    """
    prompts = [[q for p in own for q in setting.task.prompts(p)] for own in asked]
    fixed = [np.full(len(asked), v) for v in (trials.ANSWER, t)]
    keys_A = policies.fold(setting.run.key, *fixed, range(len(asked)))
    flat = policies.answer(setting.base, adapters, prompts, keys_A, setting.exp.answer)
    return graded(setting, asked, flat)


def ask_kept(
    setting: Setting,
    stack: lora.Tree,
    asked: Sequence[Sequence[Passage]],
    learned: Sequence[Sequence[Sequence[str]]],
    t: int,
) -> tuple[list[list[list[str]]], list[Scores]]:
    """As `ask`, each question under the kept adapter that it is sent to.

    Args:
      setting: the arm.
      stack: the kept adapters.
      asked: each sequence's passages.
      learned: each sequence's training lines of passages 1, 2, ...
      t: how many it has learned.
    """
    n, rank = setting.exp.sequence.passages, setting.exp.inner.lora.rank
    base = len(asked) * n
    groups: list[list[str]] = [[] for _ in range(base + 1)]
    places: list[list[tuple[int, int]]] = []
    for s, own in enumerate(asked):
        known = [controls.words("\n".join(lines)) for lines in learned[s]]
        places.append([])
        for passage in own:
            prompts = setting.task.prompts(passage)
            for prompt, q in zip(prompts, passage.questions, strict=True):
                words = controls.words(f"{passage.title}\n{q.question}")
                to = controls.route(words, known, floor=setting.exp.retain.keep_floor)
                row = base if to is None else s * n + to
                places[-1].append((row, len(groups[row])))
                groups[row].append(prompt)
    fixed = [np.full(len(groups), v) for v in (trials.ANSWER, t)]
    keys_A = policies.fold(setting.run.key, *fixed, range(len(groups)))
    adapters = continual_stack.kept_apart(stack, rank=rank)
    answers = policies.answer(
        setting.base, adapters, groups, keys_A, setting.exp.answer
    )
    flat = [[answers[row][i] for row, i in own] for own in places]
    return graded(setting, asked, flat)


def graded(
    setting: Setting, asked: Sequence[Sequence[Passage]], flat: Sequence[Sequence[str]]
) -> tuple[list[list[list[str]]], list[Scores]]:
    """Answers by passage, with their scores.

    Raises:
      scoring.MissingJudgementsError: more than `grade.max_missing` could not be had, or
        all of one passage.
    """
    by_passage = []
    for own, answers in zip(asked, flat, strict=True):
        rest = iter(answers)
        by_passage.append([[next(rest) for _ in p.questions] for p in own])
    pairs = [
        (passage, answers)
        for own, group in zip(asked, by_passage, strict=True)
        for passage, answers in zip(own, group, strict=True)
    ]
    scores = iter(setting.task.score(pairs))
    made = [[[next(scores) for _ in a] for a in group] for group in by_passage]
    every = [score for group in made for own in group for score in own]
    missing = sum(score is None for score in every)
    blank = any(mean(own) is None for group in made for own in group)
    if missing > setting.task.max_missing * len(every) or blank:
        raise scoring.MissingJudgementsError(
            f"{setting.arm}: {missing} of {len(every)} judgements could not be had"
            f"{', of one passage none' * blank}; grade.max_missing="
            f"{setting.task.max_missing}; run the same command again to ask for them"
        )
    return by_passage, made


def forgotten(
    setting: Setting,
    stack: lora.Tree,
    t: int,
    before: Sequence[Scores],
    of: Sequence[int],
) -> dict[int, float | None]:
    """Forgetting of the earlier passages' questions, of the sequences `of`."""
    if t == 1:
        return dict.fromkeys(of, 0.0)
    asked = [
        list(own[: t - 1]) if s in of else [] for s, own in enumerate(setting.sequences)
    ]
    _, scores = ask(setting, stack, asked, t)
    return {s: lost(before[s], scores[s]) for s in of}


def lost(before: Scores, after: Scores) -> float | None:
    """`controls.forgetting` over all questions of the same passages."""
    return controls.forgetting(
        [x for own in before for x in own], [x for own in after for x in own]
    )
