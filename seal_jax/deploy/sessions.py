"""What happens by day: streams of sessions, from passages of a task or from logs.

A session is a context and the questions that users ask about it. Of a passage they ask
about some facts only; the rest are never asked, and tell what a night learns beyond
what it heard.
"""

import dataclasses
import random
from collections.abc import Sequence

from seal_jax.deploy import logs
from seal_jax.deploy.settings import Deploy
from seal_jax.tasks import sources
from seal_jax.tasks.passage import Passage, Question, passage_id


@dataclasses.dataclass(frozen=True)
class Session:
    """One context, with the questions about it.

    Attributes:
      context: with the questions that users ask.
      rephrased: with the same questions in other words, or none.
      unasked: with questions that nobody asks, or none.
      answers: to the users' questions as they were logged; empty: it is the model that
        answers by day.
    """

    context: Passage
    rephrased: Passage
    unasked: Passage
    answers: tuple[str, ...] = ()

    @property
    def whole(self) -> Passage:
        """The context with all its questions."""
        own = (self.context, self.rephrased, self.unasked)
        asked = tuple(q for passage in own for q in passage.questions)
        return dataclasses.replace(self.context, questions=asked)

    def logged(self, answers: Sequence[str]) -> Passage:
        """The context with its questions, the answers that were given as gold."""
        pairs = zip(self.context.questions, answers, strict=True)
        asked = tuple(Question(q.question, answer) for q, answer in pairs)
        return dataclasses.replace(self.context, questions=asked)


@dataclasses.dataclass(frozen=True)
class Streams:
    """All streams: `days[s][d]` are the sessions of stream s on day d.

    `names`: whose they are; `logged`: whether they were read, with answers as gold;
    `left_out`: sessions of logs beyond the streams and days that are taken; `bare`:
    those with nothing to learn.
    """

    days: tuple[tuple[tuple[Session, ...], ...], ...]
    names: tuple[str, ...]
    logged: bool
    left_out: int = 0
    bare: int = 0

    @property
    def lengths(self) -> tuple[tuple[int, ...], ...]:
        """Sessions of each stream by day."""
        return tuple(tuple(map(len, days)) for days in self.days)

    @property
    def nights(self) -> int:
        """Days of the longest stream."""
        return max(map(len, self.days))

    def all(self, s: int) -> list[Session]:
        """Stream s from its first day to its last."""
        return [session for day in self.days[s] for session in day]


def load(exp: Deploy) -> Streams:
    """The streams of an experiment.

    Raises:
      ValueError: too few passages, one without questions, or see `logs.load`.
      OSError: no such file.
    """
    return _of_logs(exp) if exp.stream.logs else _of_passages(exp)


def _of_passages(exp: Deploy) -> Streams:
    """Passages of the task, each in one session."""
    cfg, of_world = exp.stream, exp.task.name == "world"
    length = cfg.days * cfg.sessions
    by = f"stream.days * stream.sessions={length}"
    if not of_world:
        by = f"task.train, for stream.count={cfg.count} of {by}"
    with sources.wanted_by(by):
        drawn = sources.sequences(
            exp.task, group="heldout", count=cfg.count, length=length
        )
    days = tuple(
        tuple(
            tuple(
                divided(p, cfg.asked, seed=exp.seed) for p in own[i : i + cfg.sessions]
            )
            for i in range(0, length, cfg.sessions)
        )
        for own in drawn
    )
    return Streams(days, tuple(map(str, range(cfg.count))), logged=False)


def divided(passage: Passage, asked: int, *, seed: int) -> Session:
    """The passage as a session, in which users ask so many of its questions.

    Which ones is drawn; they are the same for the same `seed`, whatever stream and day
    the passage is in.
    """
    rng = random.Random(f"asked {seed} {passage.id} {passage.title}")
    count = len(passage.questions)
    chosen = set(rng.sample(range(count), min(asked, count)))

    def having(questions: Sequence[Question], wanted: bool) -> Passage:
        kept = tuple(q for i, q in enumerate(questions) if (i in chosen) == wanted)
        return dataclasses.replace(passage, questions=kept, rephrased=())

    return Session(
        context=having(passage.questions, wanted=True),
        rephrased=having(passage.rephrased, wanted=True),
        unasked=having(passage.questions, wanted=False),
    )


def _of_logs(exp: Deploy) -> Streams:
    """Sessions as they were; without days, `stream.sessions` make one."""
    cfg = exp.stream
    with sources.wanted_by("stream.logs"):
        found = logs.load(cfg.logs)
    streams = []
    for days in found.streams:
        if days[0] and days[0][0].day is None:
            (own,) = days
            days = [own[i : i + cfg.sessions] for i in range(0, len(own), cfg.sessions)]
        streams.append(days)
    taken = [days[: cfg.days] for days in streams[: cfg.count]]
    # One that began later has nothing to learn before it did, but its stack is there.
    longest = max(map(len, taken))
    taken = [[*days, *[[] for _ in range(longest - len(days))]] for days in taken]
    sessions = sum(len(day) for days in streams for day in days)
    kept = sum(len(day) for days in taken for day in days)
    if not kept:
        raise ValueError(
            f"stream.logs={cfg.logs!r}: the first stream.count={cfg.count} streams "
            f"have no session on the first stream.days={cfg.days} days; take more"
        )
    return Streams(
        tuple(tuple(tuple(map(_of_log, day)) for day in days) for days in taken),
        tuple(next(s.stream for day in days for s in day) for days in streams)[
            : cfg.count
        ],
        logged=True,
        left_out=sessions - kept,
        bare=found.bare,
    )


def _of_log(logged: logs.Logged) -> Session:
    title, text = logged.title, logged.context
    nothing = Passage(passage_id(title, text), title, text, ())
    asked = tuple(Question(q, a) for q, a in logged.turns)
    return Session(
        context=dataclasses.replace(nothing, questions=asked),
        rephrased=nothing,
        unasked=nothing,
        answers=tuple(a for _, a in logged.turns),
    )
