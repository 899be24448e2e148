"""The un-edited model's answers: closed-book, and with the passages in view."""

import dataclasses
import time

from seal_jax.continual import ask as continual_ask
from seal_jax.continual.entries import BaseEntry, StepEntry
from seal_jax.continual.settings import IN_CONTEXT
from seal_jax.continual.stack import Setting


def ask(setting: Setting) -> BaseEntry:
    """What the base answers about all passages and probes: the rows 0."""
    begin = time.monotonic()
    learned = [passage for sequence in setting.sequences for passage in sequence]
    passages = learned + list(setting.probes)
    setting.run.say(f"un-edited: ask about {len(passages)} passages")
    (answers,), (scores,) = continual_ask.ask(setting, None, [passages], 0)
    n, count = setting.exp.steps, len(learned)
    return {
        "answers": answers,
        "scores": [scores[i : i + n] for i in range(0, count, n)],
        "general": scores[count:],
        "asked": sum(map(len, answers)),
        "seconds": time.monotonic() - begin,
    }


def in_context(setting: Setting, before: BaseEntry) -> list[StepEntry]:
    """The steps of the row that learns nothing: each passage in view of its questions.

    What is answered so does not depend on the step. The probes, which no passage is
    about, are answered as closed-book, which is `before`.
    """
    run, n = setting.run, setting.exp.steps
    shown = dataclasses.replace(
        setting, run=dataclasses.replace(run, task=setting.task.in_view()), probes=()
    )
    asked: BaseEntry = run.journal.cached(f"continual/{IN_CONTEXT}", lambda: ask(shown))
    count = len(setting.sequences)
    answers = [asked["answers"][i : i + n] for i in range(0, count * n, n)]
    return [
        StepEntry(
            texts=[[] for _ in range(count)],
            lines=[[] for _ in range(count)],
            chosen=[0] * count,
            rewards=[[] for _ in range(count)],
            scales=[0.0] * count,
            gates=[[] for _ in range(count)],
            losses=[],
            failed=0,
            refused=0,
            cut=0,
            adapters=0,
            tokens=0,
            learn_seconds=0.0,
            answers=[group[:t] for group in answers],
            scores=[group[:t] for group in asked["scores"]],
            general=[before["general"]] * count,
            # Once for all steps.
            asked=asked["asked"] * (t == n),
            ask_seconds=asked["seconds"] * (t == n),
            seconds=asked["seconds"] * (t == n),
        )
        for t in range(1, n + 1)
    ]
