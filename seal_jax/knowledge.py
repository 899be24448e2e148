"""Knowledge incorporation as a task of the round: learn a passage, answer without it.

An item is a passage; every line of a self-edit is a training line, the passage the last
(SEAL, arXiv 2506.10943, section 3.2); questions are answered closed-book and graded.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seal_jax import (
    config,
    config_rounds,
    distributed,
    grade,
    judge,
    plan,
    policy,
    rubric,
    self_edit,
    trials,
)
from seal_jax.tasks import sources
from seal_jax.tasks.common import Passage

type Scorer = Callable[[Sequence[tuple[str, str, str]]], list[float | None]]


def load(
    exp: config_rounds.Experiment,
) -> tuple[list[list[Passage]], list[Passage]]:
    """Training passages of each round, disjoint, and the held-out ones.

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
    train = sources.passages(task, sources.TRAIN, count=wanted)
    heldout = sources.passages(task, sources.HELDOUT, count=scale.heldout_passages)
    sources.check_apart(train, heldout, "held-out passages are training passages too")
    if "oracle" in exp.ladder:
        sources.check_oracle(task, heldout[0], "ladder")
    starts = range(0, wanted, scale.passages)
    return [train[i : i + scale.passages] for i in starts], heldout


def make(
    exp: config_rounds.Experiment,
    blank: policy.Policy,
    train: Sequence[Passage],
    heldout: Sequence[Passage],
) -> "Knowledge":
    """The task for these passages, without a grader.

    Raises:
      ValueError: a template that cannot be used, or see `check_fit`.
      FileNotFoundError: a template's file is not there.
    """
    task = Knowledge(
        exp,
        blank,
        self_edit.load_template(exp.propose.prompt, "propose"),
        self_edit.load_template(exp.answer.prompt, "answer"),
        _unconnected,
        _unconnected,
    )
    check_fit(exp, blank, task, [*train, *heldout])
    return task


def _unconnected(items: Sequence[Any]) -> list[float | None]:
    raise RuntimeError(f"{len(items)} answers and no grader: see `connect`")


def connect(task: "Knowledge", workdir: Path) -> "Knowledge":
    """The task with its grader; on several processes the first one grades for all.

    Raises:
      judge.JudgeError: the endpoint refuses.
    """
    exp, leads = task.exp, distributed.leads()
    if leads and asks_rubric(exp):
        judge.check(exp.grade.endpoint("label_free.rubric='judge'"))
    score = scorer(exp.grade, workdir) if leads else list
    judged = rubric_of(exp, workdir) if leads else list

    def one_for_all(rule: Callable[..., list]) -> Callable[..., list]:
        return lambda items: distributed.share(lambda: rule(items))

    return dataclasses.replace(
        task, grader=one_for_all(score), judged=one_for_all(judged)
    )


def asks_rubric(exp: Any) -> bool:
    """Whether a judge is to be asked for rubrics."""
    # Of the kinds of experiment that have passages only the rounds have rewards.
    return isinstance(exp, config_rounds.Experiment) and exp.asks_rubric


def rubric_of(exp: Any, workdir: Path) -> Callable[..., list]:
    """The rubric as one function of (passage, lines) pairs."""
    if asks_rubric(exp):
        cfg = exp.grade.endpoint("label_free.rubric='judge'")
        path = workdir / "rubric.jsonl"
        return functools.partial(rubric.by_judge, cfg=cfg, cache_path=path)
    return lambda items: [rubric.by_rules(*item) for item in items]


def scorer(cfg: config.GradeConfig, workdir: Path) -> Callable[..., list]:
    """The grader as one function of (question, gold, answer) triples.

    Raises:
      judge.JudgeError: the endpoint refuses.
    """
    if cfg.name == "judge":
        endpoint = cfg.endpoint("grade.name='judge'")
        judge.check(endpoint)
        path = workdir / "judge.jsonl"
        return functools.partial(judge.grade, cfg=endpoint, cache_path=path)
    rule = grade.LOCAL[cfg.name]
    if cfg.name == "recall":
        rule = functools.partial(grade.by_recall, threshold=cfg.threshold)
    return lambda items: [rule(*item) for item in items]


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What the round asks of the task; see `trials.Task`."""

    exp: config_rounds.Experiment
    blank: policy.Policy  # for its tokenizer
    propose_template: str
    answer_template: str
    grader: Scorer
    judged: Callable[[Sequence[tuple[str, Sequence[str]]]], list[float | None]]

    attempts = 1

    @property
    def max_missing(self) -> float:
        return self.exp.grade.max_missing

    def name(self, item: Passage) -> str:
        return f"passage {item.id} ({item.title})"

    def text(self, item: Passage) -> str:
        return item.text

    def propose_prompt(self, item: Passage) -> str:
        return self_edit.propose_prompt(self.propose_template, item)

    def read(self, item: Passage, text: str) -> trials.Reading:
        """Every text is an edit."""
        del item, text
        return trials.Reading()

    def lines(self, item: Passage, edit: trials.Edit) -> tuple[str, ...]:
        """Training lines of a self-edit, the passage last.

        Of what no policy wrote, every line is a text: what a policy's text has to be
        cleaned of is not there, so it is not parsed. An empty edit goes the usual way,
        for the quirk of the reference that concerns it.
        """
        if edit.fixed and edit.text:
            texts = (*edit.text.splitlines(), item.text)
            return tuple(f"{item.title}\n{text}" for text in texts)
        rule, quirks = self.exp.edit.split, self.exp.edit.quirks
        return tuple(self_edit.train_lines(edit.text, item, rule=rule, quirks=quirks))

    def job(self, item: Passage, edit: trials.Edit, seed: tuple[int, ...]) -> plan.Job:
        inner, limit = self.exp.inner, longest_line(self.exp, self.blank)
        lines = self.lines(item, edit)
        return plan.Job(
            tuple(tuple(self.blank.encode(line)[:limit]) for line in lines),
            seed,
            epochs=inner.epochs,
            learning_rate=inner.learning_rate,
            clip=inner.clip,
            loss=inner.loss,
        )

    def fixed(self, arm: str, item: Passage) -> list[str] | None:
        if arm == "passage_only":
            return [""]
        if arm == "sentence_split":
            return ["\n".join(self_edit.sentences(item.text))]
        return [item.oracle or ""] if arm == "oracle" else None

    def prompts(self, item: Passage) -> list[str]:
        """The closed-book prompts of the questions."""
        return [
            self_edit.answer_prompt(self.answer_template, item, q.question)
            for q in item.questions
        ]

    def gold(self, item: Passage) -> list[str]:
        return [q.answer for q in item.questions]

    def scores_of(self, item: Passage) -> int:
        return len(item.questions)

    def score(
        self, answered: Sequence[tuple[Passage, Sequence[str]]]
    ) -> list[float | None]:
        return self.grader(
            [
                (q.question, q.answer, answer)
                for item, answers in answered
                for q, answer in zip(item.questions, answers, strict=True)
            ]
        )

    def rubric(
        self, written: Sequence[tuple[Passage, trials.Edit]]
    ) -> list[float | None]:
        rule, quirks = self.exp.edit.split, self.exp.edit.quirks
        return self.judged(
            [
                (item.text, self_edit.split(edit.text, rule=rule, quirks=quirks))
                for item, edit in written
            ]
        )

    def item_row(self, item: Passage) -> None:
        del item

    def row(self, item: Passage, edit: trials.Edit) -> dict[str, Any]:
        return {
            "passage_id": item.id,
            "title": item.title,
            "passage": item.text,
            "edit": edit.edit,
            "prompt": edit.prompt,
            "text": edit.text,
            "lines": list(self.lines(item, edit)),
        }

    def answers_row(
        self, item: Passage, answers: Sequence[str], scores: Sequence[float | None]
    ) -> list[dict[str, Any]]:
        return [
            {"question": q.question, "gold": q.answer, "answer": a, "score": s}
            for q, a, s in zip(item.questions, answers, scores, strict=True)
        ]


def longest_line(exp: config_rounds.Experiment, learner: policy.Policy) -> int:
    """Tokens of the longest training line the model and the packed rows can take."""
    longest = exp.inner.loss.longest(exp.inner.row_tokens)
    return min(learner.arch.max_position, longest)


def check_fit(
    exp: config_rounds.Experiment,
    base: policy.Policy,
    task: Knowledge,
    passages: Sequence[Passage],
) -> None:
    """Refuses passages that would not fit the model, before anything is compiled.

    Raises:
      ValueError: a prompt, a passage or a training line longer than its context.
    """
    context, limit = base.arch.max_position, longest_line(exp, base)

    def fits(what: str, passage: Passage, text: str, room: int, fix: str) -> None:
        length = len(base.encode(text))
        if length > room:
            raise ValueError(
                f"passage {passage.id} ({passage.title!r}): {what} takes {length} "
                f"tokens, {room} fit; {fix}"
            )

    for passage in passages:
        fits(
            "its training line",
            passage,
            f"{passage.title}\n{passage.text}",
            limit,
            "leave it out of the data, or raise inner.row_tokens"
            if limit < context
            else "leave it out of the data",
        )
        fits(
            "its self-edit prompt",
            passage,
            task.propose_prompt(passage),
            context - exp.propose.max_tokens,
            f"lower propose.max_tokens={exp.propose.max_tokens}",
        )
        for prompt in task.prompts(passage):
            fits(
                "a question prompt",
                passage,
                prompt,
                context - exp.answer.max_tokens,
                f"lower answer.max_tokens={exp.answer.max_tokens}",
            )
