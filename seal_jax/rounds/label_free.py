"""Rewards without gold answers: what the policy asks itself, and what a rubric says.

The third, the majority of the adapters' answers, needs nothing more than these and is
taken in `scoring`. All are for passages; each is held against the true reward where
`select.compare` names both (`agreement`).
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from seal_jax.generation import policies
from seal_jax.rounds import scoring, self_scores, trials
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.settings import SELF, LabelFreeConfig
from seal_jax.rounds.trials import Run
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import distributed, prng
from seal_jax.tasks import quiz
from seal_jax.tasks.base import Edit
from seal_jax.tasks.knowledge import Knowledge
from seal_jax.tasks.passage import Passage


def settings[Item](run: Run[Rounds, Item]) -> LabelFreeConfig:
    """The group `label_free`.

    Raises:
      ValueError: the experiment has none: its items are no passages.
    """
    if run.exp.label_free is None:
        raise ValueError("a reward without labels is for edits that are texts")
    return run.exp.label_free


def passages(items: Sequence[object]) -> list[Passage]:
    """The items, which must be passages.

    Raises:
      ValueError: some are not.
    """
    texts = [item for item in items if isinstance(item, Passage)]
    if len(texts) < len(items):
        raise ValueError(
            f"{len(items) - len(texts)} of {len(items)} items are no passages, which "
            "a reward without labels is for"
        )
    return texts


def quizzes[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    *,
    phase: str,
    round_index: int,
) -> list[Item]:
    """Each passage with questions that the policy asked and answered with it in view.

    A question whose answer does not come out again when it is asked once more, greedily
    and with the passage still in view, is dropped; a passage may be left with none.

    Raises:
      ValueError: items that are no passages, or no group `label_free`.
    """
    cfg, texts = settings(run), passages(items)

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        stage = [np.full(len(items), v) for v in (trials.QUIZ, round_index)]
        keys = prng.fold(run.key, *stage, np.arange(len(items)))
        template = quiz.PROMPTS[cfg.quiz.prompt]
        prompts = [policy.turn(quiz.prompt(template, text)) for text in texts]
        written = policies.write(policy, prompts, keys, cfg.quiz)
        drawn = [quiz.parse(text, cfg.questions) for text in written]
        again = _answers_in_view(run, policy, texts, drawn)
        sure = [quiz.consistent(*pair) for pair in zip(drawn, again, strict=True)]
        return {
            "asked": sum(map(len, drawn)),
            "quizzes": [[[q.question, q.answer] for q in group] for group in sure],
            "seconds": time.monotonic() - begin,
        }

    run.say(f"{phase}: ask {len(items)} quizzes")
    groups = run.journal.cached(str(UnitKey(phase, "quiz")), unit)["quizzes"]
    if empty := sum(not group for group in groups):
        run.say(
            f"{phase}: {empty} of {len(items)} quizzes have no question left, so the "
            "edits of these items have no reward by them"
        )
    return [
        _with_questions(item, [quiz.Question(*pair) for pair in group])
        for item, group in zip(items, groups, strict=True)
    ]


def _with_questions[Item](item: Item, questions: Sequence[quiz.Question]) -> Item:
    assert isinstance(item, Passage)
    return dataclasses.replace(item, questions=tuple(questions))


def _answers_in_view[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    texts: Sequence[Passage],
    questions: Sequence[Sequence[quiz.Question]],
) -> list[list[str]]:
    """Greedy answers to each passage's questions, the passage in view."""
    cfg = settings(run).quiz
    template = quiz.RECHECK_PROMPTS[cfg.prompt]
    answer = run.exp.answer
    greedy = dataclasses.replace(
        cfg,
        temperature=0.0,
        min_tokens=answer.min_tokens,
        max_tokens=answer.max_tokens,
    )
    prompts = [
        policy.turn(quiz.recheck_prompt(template, item, q.question))
        for item, group in zip(texts, questions, strict=True)
        for q in group
    ]
    if not prompts:
        return [[] for _ in texts]
    keys = prng.fold(run.key, np.arange(len(prompts)))  # Not used: it is greedy.
    answers = iter(policies.write(policy, prompts, keys, greedy))
    return [[next(answers) for _ in group] for group in questions]


def verdicts[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    edits: Sequence[Edit],
    *,
    phase: str,
    round_index: int,
) -> list[float | None]:
    """What the text of each edit is worth, 0..1, by whom `label_free.rubric` names.

    No adapter is trained. None: no judgement could be had.

    Raises:
      scoring.MissingJudgementsError, ValueError: see `rubric` and `self_scores.scores`.
    """
    cfg = settings(run)
    if cfg.rubric != SELF:
        return rubric(run, items, edits, phase=phase)
    return self_scores.scores(
        *(run, policy, passages(items), edits, cfg),
        phase=phase,
        round_index=round_index,
    )


def rubric[Item](
    run: Run[Rounds, Item], items: Sequence[Item], edits: Sequence[Edit], *, phase: str
) -> list[float | None]:
    """What the text of each edit is worth by rules or by a judge, 0..1.

    The paper's proxy (SEAL v2): a judge, four categories.

    Raises:
      scoring.MissingJudgementsError: more than `grade.max_missing` of them.
      ValueError: items that are no passages.
    """
    task, texts = run.task, passages(items)
    if not isinstance(task, Knowledge):
        raise ValueError("a rubric is for edits that are texts")

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        pairs = [(texts[e.item], e) for e in edits]
        values = distributed.share(lambda: task.rubric(pairs))
        missing = sum(value is None for value in values)
        if missing > run.task.max_missing * len(values):
            raise scoring.MissingJudgementsError(
                f"{phase}: {missing} of {len(values)} rubrics could not be had, "
                f"grade.max_missing={run.task.max_missing}; run the same command "
                "again to ask for them only"
            )
        return {"values": values, "seconds": time.monotonic() - begin}

    return run.journal.cached(str(UnitKey(phase, "rubric")), unit)["values"]
