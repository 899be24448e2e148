"""Learning on the job: many models, each at a job of its own, side by side.

For each arm (what a night trains on, and how it does not forget):

    for d in 1 .. days, all streams side by side:
        day      users ask about contexts; the model answers with these in view, and
                 nothing is trained: it is only logged
        night    write, teach, train: one adapter on the whole log of the day
        morning  the users' questions without the contexts, yesterday's and all before;
                 the same in other words; what nobody asked; what no night is about

The log's answers are free training data: whoever had the context in view is the
teacher. A night adds a block to a stream's stack, as a step of `continual` does.
"""

import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seal_jax.continual import step as continual_step
from seal_jax.deploy import asking, jobs, lessons, logs, night, sessions
from seal_jax.deploy import table as deploy_table
from seal_jax.deploy.entries import (
    BaseEntry,
    DayEntry,
    Learned,
    MorningEntry,
    NightEntry,
    Step,
    TeachEntry,
    WriteEntry,
)
from seal_jax.deploy.settings import EDIT, LOG, NONE, Arm, Deploy
from seal_jax.deploy.stint import FOLDER, DeployRun, Stint
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.runtime import checkpoint, config_rules, distributed, files, meshes
from seal_jax.tasks import knowledge, knowledge_setup, sources
from seal_jax.tasks.base import Encoder
from seal_jax.tasks.passage import Passage
from seal_jax.training import inner_rules
from seal_jax.training.inner_rules import QUIZ


def load(exp: Deploy) -> tuple[list[list[Passage]], list[Passage]]:
    """Each stream's contexts with all their questions, and the probes.

    Raises:
      ValueError: too few passages, one that is a probe as well, or see `logs.read`.
      OSError: no such file.
    """
    streams = sessions.load(exp)
    contexts = [
        [session.whole for session in streams.all(s)] for s in range(len(streams.days))
    ]
    if not exp.stream.probes:
        return contexts, []
    of_world = exp.task.name == "world"
    by = f"stream.probes={exp.stream.probes}"
    with sources.wanted_by(by if of_world else f"task.heldout, for {by}"):
        probes = sources.probes(exp.task, count=exp.stream.probes)
    if not of_world:  # There they have no text, and tell of others.
        flat = [passage for own in contexts for passage in own]
        sources.check_apart(flat, probes, "probes are in a session too")
    return contexts, probes


def make(
    exp: Deploy,
    blank: policies.Policy,
    train: Sequence[Passage],
    heldout: Sequence[Passage],
) -> knowledge.Knowledge:
    """The task, which reads no more of an experiment than this one has.

    Raises:
      ValueError: logged answers that teachers have no room for, or see
        `knowledge_setup.make`.
      FileNotFoundError: see `knowledge_setup.make`.
    """
    if exp.stream.logs and exp.engine.bank:
        _check_bank(exp, blank)
    arms = [Arm.of(arm) for arm in exp.learning_arms]
    statements = any(not arm.asks for arm in arms)
    context, teach = exp.night.context, exp.inner.teach
    lined = teach is not None and teach.passage_line
    told = (statements and context != EDIT) or (lined and any(arm.asks for arm in arms))
    writes = statements and context != LOG
    task = knowledge_setup.make(
        exp, blank, train, (), writes=writes, told=told, viewed=train
    )
    if any(arm.dreams for arm in arms):
        knowledge_setup.check_fit(exp, blank, task.under(QUIZ), train, told=False)
    if any(arm.asks for arm in arms):
        knowledge_setup.check_learned(exp, blank, task, train)
    # Probes are asked about, no more.
    knowledge_setup.check_fit(exp, blank, task, heldout, writes=False, told=False)
    return task


def _check_bank(exp: Deploy, blank: policies.Policy) -> None:
    """Refuses a log with a day that is more than a night's teacher has room for.

    Of passages the config bounds what is asked and how long answers are.

    Raises:
      ValueError: see above.
    """
    streams = sessions.load(exp)
    for name in exp.learning_arms:
        room = exp.engine_of(name).bank
        most = max(taught_targets(exp, name, own, blank) for own in streams.days)
        if room and most > room:
            what = "answers" if Arm.of(name).asks else "self-edits"
            raise ValueError(
                f"stream.logs={exp.stream.logs!r}: arm {name!r}: the {what} of one "
                f"night have {most} tokens, of which a teacher has room for {room}; "
                f"use inner.teach.tokens={most}"
            )


def taught_targets(
    exp: Deploy,
    name: str,
    days: Sequence[Sequence[sessions.Session]],
    blank: Encoder,
) -> int:
    """The most targets that a night of one logged stream has teachers for.

    Logged answers are as long as they are, but cut; what is not written yet is as long
    as it can be: of statements, unless the config says how much they are
    (`inner.teach.tokens`).
    """
    arm, longest = Arm.of(name), exp.answer.max_tokens
    teach, group = exp.inner.teach, exp.label_free
    if not inner_rules.RULES[arm.rule].taught:
        return 0
    dreams = 0
    if arm.dreams and group is not None:
        dreams = group.questions * (longest + 1)

    practises = inner_rules.RULES[arm.rule].practises

    def targets(session: sessions.Session) -> int:
        if not arm.asks:
            return 0 if teach is not None and teach.tokens else exp.propose.max_tokens
        if practises:
            return dreams + len(session.answers) * (longest + 1)
        # End-of-text is taught, too, but after what is cut.
        sizes = (len(blank.encode(a)) for a in session.answers)
        return dreams + sum(n + 1 if n <= longest else longest for n in sizes)

    line = longest + 1 if arm.asks else exp.longest_line
    most = earlier = 0
    for day in days:
        own = sum(map(targets, day))
        most = max(most, own + min(exp.replayed(name) * line, earlier))
        earlier += own
    return most


def walk(
    run: DeployRun,
    base: policies.Policy,
    train: Sequence[Sequence[Passage]],
    probes: Sequence[Passage],
    workdir: Path,
) -> dict[str, Any]:
    """All arms over the same streams; returns the summary.

    What was said by day is in `sessions.jsonl` of the workdir.
    """
    del train  # Contexts with all questions; the streams divide these by who asks.
    exp, streams = run.exp, sessions.load(run.exp)
    check_streams(run, streams)

    unseen, beside = [], []

    for line in noted(exp, streams, base):
        run.say(line)

    def stint(arm: str) -> Stint:
        return Stint.of(run, base, arm, streams, probes, unseen, beside)

    before: BaseEntry = run.journal.cached(
        f"{FOLDER}/base", lambda: asking.base(stint(NONE))
    )
    if exp.learning_arms:
        unseen = run.journal.cached(
            f"{FOLDER}/generic", lambda: continual_step.generic_texts(run, base)
        )
    if any("kl" in Arm.of(arm).controls for arm in exp.arms):
        beside = run.journal.cached(
            f"{FOLDER}/beside", lambda: texts_beside(run, base, unseen)
        )
    book = Book(workdir / logs.NAME, streams)
    rows = []
    for arm in exp.arms:
        at = stint(arm)
        if at.arm.rule == NONE:
            steps = deploy_table.still(at.streams, before)
            for t, step in enumerate(steps, start=1):
                book.add(at, t, step["day"])
        else:
            steps = walk_arm(at, workdir, book)
        rows.append(deploy_table.arm_row(arm, at.setting.halves, streams, steps))
    return deploy_table.summary(exp, streams, rows)


def noted(exp: Deploy, streams: sessions.Streams, blank: Encoder) -> list[str]:
    """What is said at the start of a run: of its logs, and of what does nothing."""
    lines = exp.idle
    if streams.left_out:
        lines.append(
            f"stream.logs: {streams.left_out} sessions are beyond stream.count="
            f"{exp.stream.count} and stream.days={exp.stream.days}, and left out"
        )
    if streams.bare:
        lines.append(
            f"stream.logs: {streams.bare} sessions have no context, or no question "
            "with an answer, and are left out"
        )
    every = [x for s in range(len(streams.days)) for x in streams.all(s)]
    lines += _little_to_choose_by(exp, every) + _one_context(streams, every)
    most = exp.answer.max_tokens
    said = [a for session in every for a in session.answers]
    cut = sum(len(blank.encode(a)) > most for a in said)
    rules = [inner_rules.RULES[Arm.of(arm).rule] for arm in exp.learning_arms]
    # Those of a mixture and those that are practised on are drawn anew.
    kept = any(rule.asks and not (rule.practises or rule.mixes) for rule in rules)
    if cut and kept:
        lines.append(
            f"stream.logs: {cut} of {len(said)} answers are longer than "
            f"answer.max_tokens={most}, and trained on up to there"
        )
    return lines


def _little_to_choose_by(exp: Deploy, every: Sequence[sessions.Session]) -> list[str]:
    """Where an arm gates: sessions whose one question reports, and cannot choose."""
    single = sum(len(session.context.questions) < 2 for session in every)
    if not exp.chooses or not single:
        return []
    which = "all" if single == len(every) else f"{single} of {len(every)}"
    then = "nothing is gated" if single == len(every) else "they are not gated by"
    return [
        f"arms that gate choose by half of a session's questions: {which} sessions "
        f"have one question, which reports, so {then}"
    ]


# Of fewer sessions it says little that most have one context.
_TELLING = 5


def _one_context(
    streams: sessions.Streams, every: Sequence[sessions.Session]
) -> list[str]:
    """Logs whose context says nothing of a session, such as a system message."""
    if not streams.logged or len(every) < _TELLING:
        return []
    texts = collections.Counter(session.context.text for session in every)
    ((text, count),) = texts.most_common(1)
    if 2 * count <= len(every):
        return []
    return [
        f"stream.logs: {count} of {len(every)} sessions have one context, "
        f"{config_rules.shown(text)}: if it is a system message, leave it out of the "
        "log, so that what a user gives to read is the context"
    ]


def check_streams(run: DeployRun, streams: sessions.Streams) -> None:
    """Refuses other streams or days than the workdir began with.

    That their contexts are the same was checked before (`workdirs.check_items`).

    Raises:
      ValueError: see above.
    """
    now = {"names": [*streams.names], "days": [[*own] for own in streams.lengths]}
    if run.journal.cached(f"{FOLDER}/streams", lambda: now) != now:
        raise ValueError(
            f"stream.logs={run.exp.stream.logs!r}: this workdir was begun with other "
            "days or names of streams; restore the file, or give another --workdir"
        )


def texts_beside(
    run: DeployRun, base: policies.Policy, unseen: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Texts of the base that "kl" trains on: none that drift is measured on."""
    drawn = continual_step.generic_texts(run, base, stage=continual_step.APART)
    # A model that always writes the same has no others.
    return [ids for ids in drawn if ids not in unseen] or drawn


class Book:
    """`sessions.jsonl`: what was said by day, of all arms so far."""

    def __init__(self, path: Path, streams: sessions.Streams):
        self._path, self._streams = path, streams
        self._rows: list[dict[str, Any]] = []

    def add(self, stint: Stint, t: int, entry: DayEntry) -> None:
        """Writes down day t of an arm."""
        for name, own, said in zip(
            self._streams.names, stint.sessions(t), stint.said(t, entry), strict=True
        ):
            logged = [
                logs.Logged(
                    "",
                    name,
                    t,
                    session.context.title,
                    session.context.text,
                    tuple(
                        (q.question, answer)
                        for q, answer in zip(
                            session.context.questions, answers, strict=True
                        )
                    ),
                )
                for session, answers in zip(own, said, strict=True)
            ]
            self._rows += logs.rows(logged, arm=stint.setting.arm)
        if distributed.leads():
            files.write_jsonl(self._path, self._rows)


def walk_arm(stint: Stint, workdir: Path, book: Book) -> list[Step]:
    """One arm's days, as they are in the journal; goes on where a killed run ended."""
    folder = workdir / "checkpoints" / FOLDER / stint.setting.arm
    stack = stint.setting.empty
    done: list[Step] = []
    for t in range(1, stint.streams.nights + 1):
        stack, step = one_day(stint, stack, t, done, folder, book)
        done.append(step)
    return done


def one_day(
    stint: Stint,
    stack: lora.Tree,
    t: int,
    done: Sequence[Step],
    folder: Path,
    book: Book,
) -> tuple[lora.Tree, Step]:
    """Day t, the night and the morning after it; the stacks of that morning.

    Every unit is an entry of the journal; what was trained is a checkpoint besides.
    """
    run = stint.setting.run

    def unit(name: str, make: Callable[[], Any]) -> Any:
        return run.journal.cached(stint.key(t, name), make)

    day: DayEntry = unit("day", lambda: asking.day(stint, stack, t))
    book.add(stint, t, day)
    write: WriteEntry = unit("write", lambda: night.write(stint, stack, t))
    said = stint.said(t, day)
    teach: TeachEntry = unit("teach", lambda: night.teach(stint, stack, t, said, write))
    now = Learned(write=write, teach=teach)
    block, entry = learned(stint, stack, t, done, now, folder)
    entry = unit("adapt", lambda: entry)
    after = stint.setting.written(stack, block, t)
    told = [
        _told(stint, [*done, now], [*(step["night"] for step in done), entry], s)
        for s in range(len(stint.streams.days))
    ]
    fresh = stint.key(t, "ask") not in run.journal
    morning: MorningEntry = unit("ask", lambda: asking.morning(stint, after, t, told))
    step = Step(day=day, write=write, teach=teach, night=entry, morning=morning)
    if fresh:
        line = deploy_table.report(step, stint.setting.halves, stint.streams, t)
        run.metrics.log(t, {f"{stint.setting.arm}/{k}": v for k, v in line.items()})
        words = ", ".join(f"{k} {v:.3f}" for k, v in line.items())
        run.say(f"{stint.setting.arm}: night {t}: {words}")
    return after, step


def learned(
    stint: Stint,
    stack: lora.Tree,
    t: int,
    done: Sequence[Step],
    now: Learned,
    folder: Path,
) -> tuple[lora.Tree, NightEntry]:
    """The block of night t and its story, from the checkpoint or trained for it."""
    setting = stint.setting
    if distributed.share(lambda: checkpoint.latest(folder) or 0) < t:
        block, entry = night.train(stint, stack, t, done, now)
        block = distributed.readable(block)
        if distributed.leads():
            checkpoint.save(folder, t, block, dict(entry))
    # Read back even if it was just written: both ways must give the same bits.
    block, meta = distributed.share_arrays(
        lambda: checkpoint.restore(folder, t, setting.block), setting.block
    )
    # Off the device where it was put: see `sequences.learn`.
    placed = meshes.put(jax.tree.map(np.asarray, block), setting.run.mesh)
    return placed, NightEntry(**meta)


def _told(
    stint: Stint,
    nights: Sequence[Learned],
    entries: Sequence[NightEntry],
    s: int,
) -> dict[int, list[str]]:
    """What stream s was told, by night from 0 on; none of one that added nothing."""
    task, context = stint.setting.task, stint.exp.night.context
    return {
        t - 1: lessons.told(
            task, stint.arm, context, jobs.lessons_of(stint, t, learned, s)
        )
        for t, (learned, entry) in enumerate(zip(nights, entries, strict=True), start=1)
        if entry["scales"][s]
    }
