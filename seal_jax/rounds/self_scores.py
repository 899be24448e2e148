"""The policy's own verdict on its self-edits: `label_free.rubric="self"`.

It is asked as it is at the round, so that the reward changes with the policy: does it
drift from the true one? `agreement` tells, where `select.compare` names the grade.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from seal_jax.analysis import stats
from seal_jax.generation import policies
from seal_jax.rewards import names as reward_names
from seal_jax.rewards import self_score
from seal_jax.rounds import trials
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.settings import LabelFreeConfig
from seal_jax.rounds.trials import Run
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import prng
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage

# Of a reply: a number, and what a model may say before it.
REPLY_TOKENS = 64


def scores[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    passages: Sequence[Passage],
    edits: Sequence[Edit],
    cfg: LabelFreeConfig,
    *,
    phase: str,
    round_index: int,
) -> list[float | None]:
    """What each edit is worth to the policy, 0..1: the mean of its readable replies.

    None where it was refused, where no reply could be read, and where the prompt leaves
    no room for one in the model's context.

    Raises:
      ValueError: this reward decides, and in round 1 not one reply could be read, or
        no edit that was not refused left room for one. Such a model or setting would do
        no better later; a later round goes on without a reward.
    """
    name = str(UnitKey(phase, "self_score"))
    most = min(REPLY_TOKENS, cfg.quiz.max_tokens)

    def prompt(edit: Edit) -> str | None:
        passage = passages[edit.item]
        text = self_score.prompt(passage.title, passage.text, edit.text)
        text = policy.turn(text)
        fits = len(policy.sequence(text)) + most <= policy.context
        return text if fits and not edit.refused else None

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        prompts = {i: text for i, e in enumerate(edits) if (text := prompt(e))}
        rows = [(i, n) for i in prompts for n in range(cfg.samples)]
        written: list[str] = []
        if rows:
            ids = np.array([(edits[i].item, edits[i].edit, n) for i, n in rows])
            stage = [np.full(len(rows), v) for v in (trials.SCORE, round_index)]
            written = policies.write(
                policy,
                [prompts[i] for i, _ in rows],
                prng.fold(run.key, *stage, *ids.T),
                # A number is short, however long a quiz must be.
                dataclasses.replace(cfg.quiz, min_tokens=0, max_tokens=most),
            )
        points: list[list[float | None]] = [[] for _ in edits]
        for (i, _), reply in zip(rows, written, strict=True):
            points[i].append(self_score.parse(reply))
        return {
            "points": points,
            "first": written[:1],
            "seconds": time.monotonic() - begin,
        }

    run.say(f"{phase}: the policy scores {len(edits)} self-edits of its own")
    found = run.journal.cached(name, unit)
    asked, unread = _counted(found)
    if unread:
        run.say(f"{phase}: {unread} of {asked} scores of its own could not be read")
    valid = sum(not e.refused for e in edits)
    if valid and asked == unread and run.exp.select.reward == reward_names.RUBRIC:
        problem = (
            f"none of {asked} replies of {phase} is a number from 0 to "
            f"{self_score.MOST} (the first: {' '.join(found['first'])[:60]!r}); this "
            "model cannot judge by a prompt: use another, or select.reward='self_asked'"
        )
        if not asked:
            problem = (
                f"no self-edit of {phase} can be scored: all {valid} that are not "
                f"refused leave no room for {most} tokens of a reply in the model's "
                f"context of {policy.context}; lower propose.max_tokens"
            )
        if round_index == 1:
            raise ValueError(f"label_free.rubric='self': {problem}")
        run.say(f"{phase}: no self-edit has a reward: {problem}")
    return [stats.mean(own) for own in found["points"]]


def figures[Item](run: Run[Rounds, Item], phase: str) -> dict[str, int]:
    """How many replies a round asked for, and how many were no number."""
    name = str(UnitKey(phase, "self_score"))
    if name not in run.journal:
        return {}
    asked, unread = _counted(run.journal.get(name))
    return {"self_scores": asked, "unread_self_scores": unread}


def _counted(unit: dict[str, Any]) -> tuple[int, int]:
    replies = [value for own in unit["points"] for value in own]
    return len(replies), sum(value is None for value in replies)
