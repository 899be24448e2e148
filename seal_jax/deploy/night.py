"""One night: what the day's log is made into, trained, and added to what was learned.

    write   self-edits about the contexts, questions of the model's own (dreams)
    teach   which pairs are trained on: dreams that hold, answers that are mixed
    train   one adapter for each stream that had sessions; the gate; the block

Each is a unit of its own; a stream without sessions adds a block of zeros.
"""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from seal_jax.continual import ask as continual_ask
from seal_jax.continual import stack as continual_stack
from seal_jax.continual import step as continual_step
from seal_jax.continual.entries import Scores
from seal_jax.continual.stack import Setting
from seal_jax.continual.step import Candidates
from seal_jax.deploy import jobs, lessons
from seal_jax.deploy import table as deploy_table
from seal_jax.deploy.entries import (
    Learned,
    NightEntry,
    Pairs,
    Step,
    TeachEntry,
    WriteEntry,
)
from seal_jax.deploy.settings import LOG, PREVIOUS
from seal_jax.deploy.stint import Stint
from seal_jax.generation import mixture, policies
from seal_jax.generation.settings import Decoding
from seal_jax.models import lora
from seal_jax.rounds import practice, trials
from seal_jax.runtime import prng
from seal_jax.tasks import wordwise
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage
from seal_jax.training.inner_rules import MIX, QUIZ

# Writing


def write(stint: Stint, stack: lora.Tree, t: int) -> WriteEntry:
    """What the models write about the day's contexts, which they have in view."""
    begin = time.monotonic()
    task, arm = stint.setting.task, stint.arm
    today = stint.sessions(t)
    count = len(today)
    texts: list[list[str]] = [[] for _ in range(count)]
    if not arm.asks and stint.exp.night.context != LOG:
        texts = continual_step.written(
            stint.setting,
            stack,
            [[task.propose_prompt(s.context) for s in own] for own in today],
            (trials.PROPOSE, t),
            stint.exp.propose,
        )
    tokens = _drawn(stint, texts, stint.exp.propose)
    dreams: list[list[str]] = [[] for _ in range(count)]
    if arm.dreams:
        asking = task.under(QUIZ)
        dreams = continual_step.written(
            stint.setting,
            stack,
            [[asking.propose_prompt(s.context) for s in own] for own in today],
            (trials.QUIZ, t),
            asking.writing,
        )
        tokens += _drawn(stint, dreams, asking.writing)
    return {
        "texts": texts,
        "dreams": dreams,
        "written_tokens": tokens,
        "seconds": time.monotonic() - begin,
    }


def _drawn(stint: Stint, texts: Sequence[Sequence[str]], decoding: Decoding) -> int:
    """Tokens that were drawn for the streams' texts."""
    flat = [text for own in texts for text in own]
    return policies.drawn(stint.setting.base, flat, decoding)


# Teaching


def teach(
    stint: Stint,
    stack: lora.Tree,
    t: int,
    said: Sequence[Sequence[Sequence[str]]],
    written: WriteEntry,
) -> TeachEntry:
    """The pairs that each stream trains on.

    A dream whose answer does not come out again, with the context in view, is dropped,
    and so is one that a user has asked. By the rule "mix" all answers are then drawn
    anew from the base's two ways to answer. Last, pairs without an answer are dropped.

    Args:
      stint: the arm.
      stack: what each stream has learned.
      t: the night.
      said: the answers of the day, by stream and session.
      written: what the models wrote.
    """
    begin = time.monotonic()
    logged: list[Pairs] = [
        [
            [(q.question, a) for q, a in zip(s.context.questions, own, strict=True)]
            for s, own in zip(sessions, answers, strict=True)
        ]
        for sessions, answers in zip(stint.sessions(t), said, strict=True)
    ]
    again: list[list[str]] = []
    dreams: list[Pairs] = [[[] for _ in own] for own in logged]
    if stint.arm.dreams:
        again, dreams = _dreams(stint, stack, t, logged, written)
    dropped = sum(map(len, again)) - _size(dreams)
    tokens = _drawn(stint, again, stint.exp.answer)
    if stint.arm.rule == MIX:
        logged, dreams = (
            _mixed(stint, t, kind, pairs) for kind, pairs in enumerate((logged, dreams))
        )
        mixed = [[a for _, a in each] for own in (*logged, *dreams) for each in own]
        tokens += _drawn(stint, mixed, stint.exp.answer)
    if not stint.arm.asks:
        logged = [[[] for _ in own] for own in logged]
    before = _size(logged) + _size(dreams)
    logged, dreams = _answered(logged), _answered(dreams)
    dropped += before - _size(logged) - _size(dreams)
    return {
        "logged": logged,
        "dreams": dreams,
        "dropped": dropped,
        "written_tokens": tokens,
        "seconds": time.monotonic() - begin,
    }


def _size(pairs: Sequence[Pairs]) -> int:
    return sum(len(each) for own in pairs for each in own)


def _answered(pairs: Sequence[Pairs]) -> list[Pairs]:
    """Without those whose answer says nothing, which would be end-of-text alone."""
    return [[[(q, a) for q, a in each if a.strip()] for each in own] for own in pairs]


def _dreams(
    stint: Stint,
    stack: lora.Tree,
    t: int,
    logged: Sequence[Pairs],
    written: WriteEntry,
) -> tuple[list[list[str]], list[Pairs]]:
    """What was answered to all questions, and those that are left, with answers."""
    task, today = stint.setting.task.under(QUIZ), stint.sessions(t)
    edits = [
        [
            Edit(s, i, "", text, refused=task.read(session.context, text).refused)
            for i, (session, text) in enumerate(zip(sessions, texts, strict=True))
        ]
        for s, (sessions, texts) in enumerate(
            zip(today, written["dreams"], strict=True)
        )
    ]
    again = [
        [task.again(today[e.item][e.edit].context, e) for e in own] for own in edits
    ]
    texts = continual_step.written(
        stint.setting,
        stack,
        [[each.in_view for asked in own for each in asked] for own in again],
        (trials.QUIZ, t),
        dataclasses.replace(stint.exp.answer, temperature=0.0),
    )
    dreams: list[Pairs] = []
    for own, asked, answers in zip(edits, again, texts, strict=True):
        rest = iter(answers)
        dreams.append([])
        for edit, questions in zip(own, asked, strict=True):
            about = today[edit.item][edit.edit].context
            settled = task.settled(about, edit, [next(rest) for _ in questions])
            known = {wordwise.normalize(q) for q, _ in logged[edit.item][edit.edit]}
            dreams[-1].append(
                [p for p in settled.pairs if wordwise.normalize(p[0]) not in known]
            )
    return texts, dreams


def _mixed(stint: Stint, t: int, kind: int, pairs: Sequence[Pairs]) -> list[Pairs]:
    """The pairs with answers drawn by `mixture`; `kind` tells two calls apart."""
    task, setting = stint.setting.task.under(MIX), stint.setting
    teaching = stint.exp.inner.teach
    assert (
        teaching is not None
    )  # An arm of this rule has it (`InnerConfig.check_rule`).
    edits = [
        [
            Edit(s, i, "", "", pairs=tuple((q, a) for q, a in each))
            for i, each in enumerate(own)
        ]
        for s, own in enumerate(pairs)
    ]
    today = stint.sessions(t)
    index = [
        (edit, q, prompts)
        for own in edits
        for edit in own
        for q, prompts in enumerate(
            task.mixed(today[edit.item][edit.edit].context, edit)
        )
    ]
    if not index:
        return [*map(list, pairs)]
    ids = np.array([(kind, edit.item, edit.edit, q) for edit, q, _ in index])
    stage = [np.full(len(index), v) for v in (trials.PRACTICE, t)]
    answers = iter(
        mixture.answer(
            setting.base,
            [(prompts.in_view, prompts.closed) for *_, prompts in index],
            prng.fold(setting.run.key, *stage, *ids.T),
            dataclasses.replace(stint.exp.answer, temperature=teaching.temperature),
            teaching.mix,
        )
    )
    return [
        [
            list(task.answered(edit, [next(answers) for _ in edit.pairs]).pairs)
            for edit in own
        ]
        for own in edits
    ]


# Training


def train(
    stint: Stint, stack: lora.Tree, t: int, before: Sequence[Step], now: Learned
) -> tuple[lora.Tree, NightEntry]:
    """The block that each stream adds for night t, and how it came about."""
    begin = time.monotonic()
    setting = stint.setting
    found = [jobs.lessons_of(stint, t, now, s) for s in range(len(setting.sequences))]
    refused = sum(
        lessons.is_refused(setting.task, lesson) for own in found for lesson in own
    )
    what = {s: jobs.tonight(stint, s, t, own, before) for s, own in enumerate(found)}
    planned = {
        s: made
        for s, one in what.items()
        if (made := jobs.job(stint, s, t, one)) is not None
    }
    count = len(found)
    block, entry = setting.nothing, deploy_table.nothing(count)
    if planned:
        title = f"{setting.arm}: night {t}"
        notes = practice.Notes(lambda line: setting.run.say(f"{title}: {line}"))
        waves = jobs.waves(stint, stack, t, {s: what[s] for s in planned}, notes)
        trained = continual_step.adapted(
            setting,
            stack,
            [*planned.values()],
            [(s, 0) for s in planned],
            t,
            what="night",
            teacher_on_frozen=stint.exp.night.teacher == PREVIOUS,
            waves=waves,
        )
        candidates = _candidates(trained, [*planned], count)
        commit = _decide(stint, stack, candidates, t, before)
        block = continual_step.block(candidates, commit.chosen, commit.scales)
        finite = trained.finite.tolist()
        entry = {
            **entry,
            "scales": commit.scales,
            "gates": commit.gates,
            "losses": [
                x if ok else None
                for x, ok in zip(trained.losses.tolist(), finite, strict=True)
            ],
            "failed": finite.count(False),
            "cut": sum(len(job.cut) for job in planned.values()),
            "adapters": len(planned),
            "tokens": trained.tokens,
            "teacher_tokens": trained.teacher_tokens,
        }
        if waves is not None:
            entry["cut"] = sum(told.cut for pool in notes.pools for told in pool)
            entry["practice"] = [[told._asdict() for told in p] for p in notes.pools]
    entry = {**entry, "refused": refused, "seconds": time.monotonic() - begin}
    return block, NightEntry(**entry)


def _candidates(
    trained: continual_step.Adapted, streams: Sequence[int], count: int
) -> Candidates:
    """The adapters of all streams; one without sessions has none that is usable."""
    rows = np.zeros(count, int)
    rows[streams] = np.arange(len(streams))
    finite = np.zeros(count, bool)
    finite[streams] = trained.finite
    return Candidates(
        continual_stack.select(trained.adapters, rows),
        finite,
        np.zeros(count, bool),
        trained.losses[rows],
        [[()]] * count,
        0,
        trained.tokens,
    )


def _decide(
    stint: Stint,
    stack: lora.Tree,
    candidates: Candidates,
    t: int,
    before: Sequence[Step],
) -> continual_step.Commit:
    """What each stream commits; a gate asks by the log, whose answers are its gold."""
    setting = stint.setting
    scores: list[Scores] = []
    if "gate" in setting.controls:
        setting = _by_log(stint, before)
        scores = [[] for _ in setting.sequences]
    if before and "gate" in setting.controls:
        answers = [
            [
                said[place]
                for said, half in zip(own, parts, strict=True)
                for place in half.choosing
            ]
            for own, parts in zip(
                before[-1]["morning"]["answers"], setting.halves, strict=True
            )
        ]
        _, scores = continual_ask.graded(setting, setting.choosing, answers)
    return continual_step.decide(setting, stack, candidates, t, scores)


def _by_log(stint: Stint, before: Sequence[Step]) -> Setting:
    """Each stream's contexts up to day t - 1, with what was answered then as gold.

    A question to which nothing was said has no gold, and does not choose.
    """
    given = _logged(stint, before)
    divided = [
        [
            half.choosing_among(
                i for i, q in enumerate(passage.questions) if q.answer.strip()
            )
            # The days that are yet to come have no answers.
            for passage, half in zip(own, parts, strict=False)
        ]
        for own, parts in zip(given, stint.setting.halves, strict=True)
    ]
    return dataclasses.replace(stint.setting, sequences=given, divided=divided)


def _logged(stint: Stint, before: Sequence[Step]) -> list[list[Passage]]:
    return [
        [
            session.logged(given)
            for d, step in enumerate(before, start=1)
            for session, given in zip(
                stint.sessions(d)[s], stint.said(d, step["day"])[s], strict=True
            )
        ]
        for s in range(len(stint.setting.sequences))
    ]
