"""The passages of an experiment, and the task for them, checked to fit the model."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from seal_jax.runtime import plugins
from seal_jax.tasks import knowledge, own, self_edit, sources
from seal_jax.tasks.base import Encoder
from seal_jax.tasks.knowledge import Knowledge
from seal_jax.tasks.passage import Passage
from seal_jax.tasks.settings import ProposeConfig, TaskConfig
from seal_jax.training.inner_rules import RULES


class Counts(Protocol):
    """How many passages are learned from, and held out."""

    @property
    def rounds(self) -> int: ...
    @property
    def passages(self) -> int: ...
    @property
    def heldout_passages(self) -> int: ...


class Sources(Protocol):
    """The groups that say which passages there are."""

    @property
    def task(self) -> TaskConfig: ...
    @property
    def scale(self) -> Counts: ...
    @property
    def ladder(self) -> tuple[str, ...]: ...


def load(
    exp: Sources, *, asked: bool = True
) -> tuple[list[list[Passage]], list[Passage]]:
    """Training passages of each round, disjoint, and the held-out ones.

    `asked`: whether each must have a question, and some must be held out.

    Raises:
      ValueError: too few passages, a passage in both sets, or one without questions.
    """
    task, scale = exp.task, exp.scale
    wanted = scale.rounds * scale.passages
    if task.name != "world" and task.forward_share:
        raise ValueError(
            f"task.forward_share={task.forward_share} belongs to task.name='world'; "
            "use 0.0"
        )
    with sources.wanted_by("scale.rounds * scale.passages from task.train_start on"):
        train = sources.passages(task, sources.TRAIN, count=wanted, asked=asked)
    with sources.wanted_by("scale.heldout_passages from task.heldout_start on"):
        heldout = sources.heldout(task, count=scale.heldout_passages, asked=asked)
    sources.check_apart(train, heldout, "held-out passages are training passages too")
    if "oracle" in exp.ladder and heldout:
        sources.check_oracle(task, heldout[0], "ladder")
    starts = range(0, wanted, scale.passages)
    return [train[i : i + scale.passages] for i in starts], heldout


def make(
    exp: knowledge.Settings,
    blank: Encoder,
    train: Sequence[Passage],
    heldout: Sequence[Passage],
    *,
    writes: bool = True,
    told: bool | None = None,
    viewed: Sequence[Passage] = (),
    rules: Sequence[str] = (),
) -> Knowledge:
    """The task for these passages, without a grader.

    `writes`: whether this model writes the self-edits; `told`: whether passages are
    training lines, None: as the rule has it; `viewed`: passages that it is asked about
    with them in view; `rules`: inner rules that are followed beside that of the
    config; see `check_fit`.

    Raises:
      ValueError: a template that cannot be used, or see `check_fit`.
      FileNotFoundError: a template's file is not there.
    """
    task = kind_of(exp.task)(
        exp,
        blank,
        self_edit.load_template(exp.propose.prompt, "propose"),
        self_edit.load_template(exp.answer.prompt, "answer"),
        knowledge.unconnected,
        knowledge.unconnected,
        rule=exp.inner.rule,
    )
    passages = [*train, *heldout]
    check_fit(exp, blank, task, passages, writes=writes, told=told, viewed=viewed)
    for rule in rules:
        check_fit(exp, blank, task.under(rule), passages, writes=writes)
    return task


def kind_of(task: TaskConfig) -> type[Knowledge]:
    """The class of the task: the user's own (guarded), if the config names such a one.

    Raises:
      ValueError: see `own.check`.
    """
    found = own.check("task.name", task.name) if plugins.is_named(task.name) else None
    if found is None or not issubclass(found, Knowledge):
        return Knowledge
    return own.guarded(task.name, found, Knowledge)


class LadderSettings(knowledge.Settings, Protocol):
    """The groups of an experiment with a ladder that its task reads."""

    @property
    def propose(self) -> ProposeConfig: ...
    @property
    def ladder(self) -> tuple[str, ...]: ...


def make_rounds(
    exp: LadderSettings,
    blank: Encoder,
    train: Sequence[Passage],
    heldout: Sequence[Passage],
) -> Knowledge:
    """`make` for rounds with a ladder, which may show the passages held out."""
    viewed = heldout if knowledge.IN_CONTEXT in exp.ladder else ()
    rules = [row for row in exp.ladder if row in RULES]
    prompts = exp.propose.search if knowledge.PROMPTS in exp.ladder else ()
    # What no policy wrote is statements, by whatever rule.
    told = True if knowledge.FIXED & {*exp.ladder} else None
    task = make(exp, blank, train, heldout, told=told, viewed=viewed, rules=rules)
    for prompt in prompts:
        check_fit(exp, blank, task.asking(prompt), [*train, *heldout])
    shown = [prompt for item in viewed for prompt in task.in_view().prompts(item)]
    lengths = [len(blank.sequence(prompt)) for prompt in shown]
    return dataclasses.replace(task, room=max(lengths, default=0))


def check_fit(
    exp: knowledge.Settings,
    base: Encoder,
    task: Knowledge,
    passages: Sequence[Passage],
    *,
    writes: bool = True,
    told: bool | None = None,
    viewed: Sequence[Passage] = (),
) -> None:
    """Refuses passages that would not fit the model, before anything is compiled.

    A self-edit prompt is only for a model that `writes` self-edits, a passage's own
    line for one that is `told` it (None: as the rule has it), and a question with its
    passage in view for those that are `viewed` so.

    Raises:
      ValueError: a prompt, a passage or a training line longer than its context.
    """
    context, limit = base.context, knowledge.longest_line(exp, base)

    def fits(
        what: str, passage: Passage, ids: Sequence[int], room: int, fix: str
    ) -> None:
        if (length := len(ids)) > room:
            raise ValueError(
                f"passage {passage.id} ({passage.title!r}): {what} takes {length} "
                f"tokens, {max(room, 0)} fit; {fix}"
            )

    if told is None:
        teach = exp.inner.teach
        told = not RULES[task.rule].asks or (teach is not None and teach.passage_line)
    for passage in passages:
        if told:
            fits(
                "its training line",
                passage,
                base.line(f"{passage.title}\n{passage.text}"),
                limit,
                "leave it out of the data, or raise inner.row_tokens"
                if limit < context
                else "leave it out of the data",
            )
        if writes:
            most = task.writing.max_tokens
            group = "label_free.quiz" if RULES[task.rule].asks else "propose"
            fits(
                "its self-edit prompt",
                passage,
                base.sequence(task.propose_prompt(passage)),
                context - most,
                f"lower {group}.max_tokens={most}",
            )
            if (listing := task.listing(passage)) is not None:
                fits(
                    "the prompt for its strategies",
                    passage,
                    base.sequence(listing),
                    context - most,
                    f"lower {group}.max_tokens={most}",
                )
    room = context - exp.answer.max_tokens
    fix = f"lower answer.max_tokens={exp.answer.max_tokens}"
    for what, asking, asked in (
        ("a question prompt", task, passages),
        ("a question prompt with the passage in view", task.in_view(), viewed),
    ):
        for passage in asked:
            for prompt in asking.prompts(passage):
                fits(what, passage, base.sequence(prompt), room, fix)


def check_learned(
    exp: knowledge.Settings,
    base: Encoder,
    task: Knowledge,
    passages: Sequence[Passage],
) -> None:
    """Refuses given questions that fill a training line, with no room for an answer.

    Those that the policy asks itself are left out where they do (`Knowledge.again`).

    Raises:
      ValueError: see above.
    """
    limit = knowledge.longest_line(exp, base)
    for passage in passages:
        for prompt in task.prompts(passage):
            if (length := len(base.sequence(prompt))) >= limit:
                raise ValueError(
                    f"passage {passage.id} ({passage.title!r}): a question that is "
                    f"learned takes {length} tokens, {limit - 1} fit beside an answer; "
                    "leave it out of the data, or raise inner.row_tokens"
                )
