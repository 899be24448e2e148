"""Asking all sequences' models at once, each about its own passages and the probes."""

from collections.abc import Mapping, Sequence

import numpy as np

from seal_jax.continual import controls
from seal_jax.continual import stack as continual_stack
from seal_jax.continual.entries import Answers, Scores
from seal_jax.continual.stack import Setting
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import scoring, trials
from seal_jax.rounds.graded import mean
from seal_jax.runtime import prng
from seal_jax.tasks.passage import Passage


def ask(
    setting: Setting,
    adapters: lora.Tree | None,
    groups: Sequence[Sequence[Passage]],
    t: int,
) -> tuple[list[Answers], list[Scores]]:
    """Answers and scores of each question of `groups[a]` under adapter a, by passage.

    Args:
      setting: the arm.
      adapters: as a stack; None: the base, which one group is asked.
      groups: the passages that each adapter is asked about.
      t: how many passages have been learned; part of the random keys.

    Raises:
      scoring.MissingJudgementsError: see `graded`.
    """
    flat = answers(setting, adapters, groups, t)
    return graded(setting, groups, flat)


def answers(
    setting: Setting,
    adapters: lora.Tree | None,
    groups: Sequence[Sequence[Passage]],
    t: int,
) -> list[list[str]]:
    """As `ask`, the answers alone, each group's in one list."""
    prompts = [
        [prompt for passage in group for prompt in setting.task.prompts(passage)]
        for group in groups
    ]
    fixed = [np.full(len(groups), v) for v in (trials.ANSWER, t)]
    keys_A = prng.fold(setting.run.key, *fixed, range(len(groups)))
    return policies.answer(setting.base, adapters, prompts, keys_A, setting.exp.answer)


def ask_routed(
    setting: Setting,
    stack: lora.Tree,
    groups: Sequence[Sequence[Passage]],
    learned: Sequence[Mapping[int, Sequence[str]]],
    t: int,
) -> tuple[list[Answers], list[Scores]]:
    """As `ask`, each question under the kept adapter that it is sent to.

    Args:
      setting: the arm.
      stack: the kept adapters.
      groups: each sequence's passages to ask about.
      learned: each sequence's training lines of the blocks in its stack, by their
        place there.
      t: how many steps there were.

    Raises:
      scoring.MissingJudgementsError: see `graded`.
    """
    n, rank = setting.exp.steps, setting.exp.inner.lora.rank
    base = len(groups) * n
    prompts_A: list[list[str]] = [[] for _ in range(base + 1)]
    # Of each sequence's questions the adapter, and the place among its prompts.
    places: list[list[tuple[int, int]]] = []
    for s, group in enumerate(groups):
        blocks = [*learned[s]]
        vocabularies = [controls.words("\n".join(learned[s][b])) for b in blocks]
        places.append([])
        for passage in group:
            prompts = setting.task.prompts(passage)
            for prompt, q in zip(prompts, passage.questions, strict=True):
                words = controls.words(f"{passage.title}\n{q.question}")
                to = controls.route(
                    words, vocabularies, floor=setting.exp.retain.keep_floor
                )
                adapter = base if to is None else s * n + blocks[to]
                places[-1].append((adapter, len(prompts_A[adapter])))
                prompts_A[adapter].append(prompt)
    fixed = [np.full(len(prompts_A), v) for v in (trials.ANSWER, t)]
    keys_A = prng.fold(setting.run.key, *fixed, range(len(prompts_A)))
    adapters = continual_stack.kept_apart(stack, rank=rank)
    answers_A = policies.answer(
        setting.base, adapters, prompts_A, keys_A, setting.exp.answer
    )
    flat = [[answers_A[adapter][i] for adapter, i in group] for group in places]
    return graded(setting, groups, flat)


def graded(
    setting: Setting, groups: Sequence[Sequence[Passage]], flat: Sequence[Sequence[str]]
) -> tuple[list[Answers], list[Scores]]:
    """Each group's answers by passage, with their scores.

    Raises:
      scoring.MissingJudgementsError: more than `grade.max_missing` could not be had, or
        all of one passage.
    """
    by_passage: list[Answers] = []
    for group, answers in zip(groups, flat, strict=True):
        rest = iter(answers)
        by_passage.append([[next(rest) for _ in p.questions] for p in group])
    pairs = [
        (passage, answers)
        for group, group_answers in zip(groups, by_passage, strict=True)
        for passage, answers in zip(group, group_answers, strict=True)
    ]
    scored = iter(scoring.one_for_all(setting.task, pairs))
    scores = [[[next(scored) for _ in a] for a in group] for group in by_passage]
    passages = [passage for group in scores for passage in group]
    flat_scores = [score for passage in passages for score in passage]
    missing = sum(score is None for score in flat_scores)
    # One without questions of this half is not missing any.
    blank = any(passage and mean(passage) is None for passage in passages)
    if missing > setting.task.max_missing * len(flat_scores) or blank:
        raise scoring.MissingJudgementsError(
            f"{setting.arm}: {missing} of {len(flat_scores)} judgements could not be "
            f"had{', of one passage none' * blank}; grade.max_missing="
            f"{setting.task.max_missing}; run the same command again to ask for them"
        )
    return by_passage, scores


def forgotten(
    setting: Setting,
    stack: lora.Tree,
    t: int,
    before: Sequence[Scores],
    of: Sequence[int],
) -> dict[int, float | None]:
    """Forgetting of the earlier passages' choosing questions, of the sequences `of`.

    `before`: their scores before the edit.

    Raises:
      scoring.MissingJudgementsError: see `graded`.
    """
    groups = [
        list(sequence[: setting.upto(s, t - 1)]) if s in of else []
        for s, sequence in enumerate(setting.choosing)
    ]
    if not any(groups):
        return dict.fromkeys(of, 0.0)
    _, scores = ask(setting, stack, groups, t)
    return {s: lost(before[s], scores[s]) for s in of}


def lost(before: Scores, after: Scores) -> float | None:
    """`controls.forgetting` over all questions of the same passages."""
    return controls.forgetting(
        [score for passage in before for score in passage],
        [score for passage in after for score in passage],
    )
