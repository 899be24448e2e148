"""What the streams train on in a night, as jobs: the day's, and earlier nights' again.

An arm that practises (`inner_rules.ON_POLICY`) has questions alone; before each wave
its jobs are made anew, of what each stream's model answers by then.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from seal_jax.continual import controls
from seal_jax.continual import step as continual_step
from seal_jax.deploy import lessons
from seal_jax.deploy.entries import Learned, Step
from seal_jax.deploy.lessons import Noted
from seal_jax.deploy.stint import Stint
from seal_jax.models import lora
from seal_jax.rounds import pools, practice, trials
from seal_jax.training import plan
from seal_jax.training.inner_rules import RULES


@dataclasses.dataclass(frozen=True)
class Tonight:
    """What one stream trains on in a night.

    `own`: the day's sessions; `earlier`: those of the nights before that added
    something; `again`: places among the training lines of these that come again.
    """

    own: Sequence[Noted]
    earlier: Sequence[Noted] = ()
    again: Sequence[int] = ()


def lessons_of(stint: Stint, t: int, learned: Learned, s: int) -> list[Noted]:
    """What stream s has from night t."""
    return lessons.of_night(stint.sessions(t)[s], learned["write"], learned["teach"], s)


def tonight(
    stint: Stint, s: int, t: int, own: Sequence[Noted], before: Sequence[Step]
) -> Tonight:
    """What stream s trains on in night t: `own`, and what is replayed of the others.

    Where adapters practise, all answers are blank.
    """
    practises = RULES[stint.arm.rule].practises
    own = lessons.unanswered(own) if practises else own
    if "replay" not in stint.setting.controls:
        return Tonight(own)
    earlier = [
        noted
        for night, step in enumerate(before, start=1)
        if step["night"]["scales"][s]
        for noted in lessons_of(stint, night, step, s)
    ]
    earlier = lessons.unanswered(earlier) if practises else earlier
    seed = _seed(stint, s, t)
    whole = _made(stint, earlier, seed)
    lines = range(0 if whole is None else len(whole.lines))
    most = stint.exp.retain.replay
    return Tonight(own, earlier, controls.replayed(lines, most, (*seed, 3)))


def job(stint: Stint, s: int, t: int, what: Tonight) -> plan.Job | None:
    """The training of stream s in night t, with what the controls put beside it.

    None: the day has nothing to train on.
    """
    seed = _seed(stint, s, t)
    planned = _made(stint, what.own, seed)
    if planned is None:
        return None
    if what.again and (whole := _made(stint, what.earlier, seed)) is not None:
        planned = lessons.joined([planned, lessons.part(whole, what.again)], seed)
    return continual_step.with_generic(stint.setting, planned)


def _seed(stint: Stint, s: int, t: int) -> tuple[int, ...]:
    return stint.exp.seed, trials.ADAPT, t, s, 0


def _made(stint: Stint, own: Sequence[Noted], seed: tuple[int, ...]) -> plan.Job | None:
    context = stint.exp.night.context
    return lessons.job(stint.setting.task, stint.arm, context, own, seed)


def waves(
    stint: Stint,
    stack: lora.Tree,
    t: int,
    what: Mapping[int, Tonight],
    note: Callable[[int, practice.Practice], None],
) -> pools.Waves | None:
    """The waves of night t, if the arm practises, each on what the models then answer.

    They are asked without the contexts, each stream's under its stack and the adapter
    in training; kept adapters lie on the base alone. Replayed questions are answered
    anew, too.

    Args:
      stint: the arm.
      stack: what each stream has learned.
      t: the night.
      what: of each stream that trains, in the order of the jobs.
      note: see `practice.waves`.
    """
    exp, setting = stint.exp, stint.setting
    if not RULES[stint.arm.rule].practises:
        return None
    assert exp.inner.teach is not None  # See `InnerConfig.check_rule`.
    streams, asked = [*what], functools.partial(lessons.asked, setting.task, stint.arm)
    # By line, those of earlier nights that come again behind the day's own.
    lines: list[list[str | None]] = []
    for one in what.values():
        before = asked(one.earlier) if one.again else []
        lines.append([*asked(one.own), *(before[i] for i in one.again)])

    def made(a: int, given: Sequence[str]) -> plan.Job:
        rest = iter(given)
        said = [None if prompt is None else next(rest) for prompt in lines[a]]
        now = job(stint, streams[a], t, _answered(stint, what[streams[a]], said))
        assert now is not None  # A question is a line, whatever is answered.
        return now

    on_stack = practice.on_top(stack, streams, (t - 1) * exp.inner.lora.rank)
    return practice.waves(
        *(setting.base, exp.inner.teach, exp.answer),
        key=setting.run.key,
        stage=trials.PRACTICE,
        prompts=[[prompt for prompt in own if prompt is not None] for own in lines],
        ids=[(t, s) for s in streams],
        job=made,
        note=note,
        applied=practice.alone if "keep" in setting.controls else on_stack,
    )


def _answered(stint: Stint, what: Tonight, said: Sequence[str | None]) -> Tonight:
    """With these answers, line by line."""
    answered = functools.partial(lessons.answered, stint.setting.task, stint.arm)
    first = len(said) - len(what.again)
    by_place = dict(zip(what.again, said[first:], strict=True))
    return Tonight(
        answered(what.own, dict(enumerate(said[:first]))),
        answered(what.earlier, by_place),
        what.again,
    )
