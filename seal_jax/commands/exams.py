"""What `evaluate` asks and how it grades: of a run's config, and of the flags."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, cast

from seal_jax.api.settings import WriteOptions
from seal_jax.commands import given_columns, shared
from seal_jax.continual.settings import Continual
from seal_jax.deploy.settings import Deploy
from seal_jax.generation.settings import Decoding
from seal_jax.pooled.settings import Pooled
from seal_jax.rewards import graders
from seal_jax.rewards.judge import JudgeConfig
from seal_jax.rewards.settings import GradeConfig
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules, files, plugins, reading
from seal_jax.tasks import knowledge, knowledge_setup, self_edit, sources
from seal_jax.tasks.base import Encoder
from seal_jax.tasks.knowledge import Scorer
from seal_jax.tasks.passage import Passage
from seal_jax.tasks.settings import TASKS, ColumnsConfig, TaskConfig

COLUMNS = tuple(field.name for field in dataclasses.fields(ColumnsConfig))


@dataclasses.dataclass(frozen=True)
class Exam:
    """On what a model is measured, and how.

    `exp`: the run's, if it has a task of its own.
    """

    passages: list[Passage]
    template: str
    drawing: WriteOptions
    grade: GradeConfig
    exp: knowledge.Settings | None = None

    def task(self, encoder: Encoder, score: Scorer) -> knowledge.Knowledge:
        """The task that asks about the passages, and scores the answers."""
        found = knowledge.Knowledge
        if self.exp:
            found = knowledge_setup.kind_of(self.exp.task)
        # Without an own task nothing but the template is looked at.
        exp = cast(knowledge.Settings, self.exp)
        return found(exp, encoder, "", self.template, score, knowledge.unconnected)


def read(args: argparse.Namespace) -> Exam:
    """Passages, prompt and grader, of a run's config and of the flags.

    Raises:
      ValueError, OSError: there are none, or one cannot be had.
    """
    like = args.like or (args.model if shared.is_workdir(args.model) else None)
    if args.like and not files.is_file(Path(args.like) / "config.json"):
        raise ValueError(
            f"--like: {reading.shorten(args.like)}/config.json is not there; give the "
            "workdir of a run"
        )
    task, held, answer, grade = _plain(), 100, None, None
    if like is not None:
        task, held, answer, grade = _of_run(like)
    elif not args.data:
        raise ValueError(
            "--data must name passages with questions: world, a file, a folder or a "
            "hub name; or give --like WORKDIR"
        )
    exp = None
    if plugins.is_named(task.name) and like is not None and not args.data:
        exp = _own(like)
    task = _told(task, args)
    # Before data, which may be much: a grader that is not there is told at once.
    grade = _grade(grade, args)
    count = held or 100
    if not args.count and (args.data or (exp is not None and held is None)):
        # All that there are, if they are fewer than what is asked by itself.
        count = max(1, min(count, sources.heldout_left(task) or count))
    passages = _passages(task, args.count or count)
    prompt = args.answer or (answer.prompt if answer else "concise")
    return Exam(
        passages,
        self_edit.load_template(prompt, "answer"),
        _drawing(answer, args),
        grade,
        exp,
    )


def _own(workdir: str) -> knowledge.Settings:
    """The experiment of a run on a task of the user's own, of any kind.

    Raises:
      ValueError: its config is none.
    """
    # Imported here: it brings jax.
    from seal_jax.experiment import kinds

    exp = kinds.read(files.read_json(Path(workdir) / "config.json"))
    if isinstance(exp, PassageRounds | Continual | Deploy | Pooled):
        return exp
    raise ValueError(
        f"{workdir}: its task is one of your own, and its config of a kind that has "
        "none; give --data"
    )


def _passages(task: TaskConfig, count: int) -> list[Passage]:
    """Passages to ask about; of those that need have no questions, what has some.

    Raises:
      ValueError: there is none.
    """
    bare = task.name == "passages" or plugins.is_named(task.name)
    found = sources.heldout(task, count=count, asked=not bare)
    if not found:
        raise ValueError(
            f"task.heldout={task.heldout!r}: this run holds no passages out; give "
            "--data with questions"
        )
    if asked := [passage for passage in found if passage.questions]:
        return asked
    raise ValueError(
        f"{task.heldout or task.name}: none of {len(found)} passages has a question; "
        "name their columns, by --column question=NAME --column answer=NAME"
    )


def _drawing(answer: Decoding | None, args: argparse.Namespace) -> WriteOptions:
    """How answers are drawn: as the flags say, or the run, or the API."""
    names = ("max_tokens", "temperature", "top_p", "top_k")
    drawing: dict[str, Any] = {"seed": args.seed, "progress": True}
    for name in names:
        value = getattr(args, name)
        if value is None and answer is not None:
            value = getattr(answer, name)
        if value is not None:
            drawing[name] = value
    return WriteOptions(**drawing)


def _plain() -> TaskConfig:
    return TaskConfig("world", "", "", 0, "", "", 0, 0, 0.0, None)


def _of_run(workdir: str) -> tuple[TaskConfig, int | None, Decoding, GradeConfig]:
    """What a run's config says of its held-out side; no number, if it has no scale.

    Raises:
      ValueError: no such config, or one of another kind of items.
      OSError: it cannot be read.
    """
    values = files.read_json(Path(workdir) / "config.json")
    match values:
        case {"task": {"name": str(name)}} if name not in plugins.Names(TASKS):
            raise ValueError(
                f"{workdir}: a run on task.name={name!r}, whose items are no passages; "
                f"evaluate takes {', '.join(TASKS)}: give --data"
            )
        case {"task": dict(task), "answer": dict(answer), "grade": dict(grade)}:
            pass
        case _:
            raise ValueError(
                f"{workdir}: its config.json has no task, answer and grade; give the "
                "workdir of a run on passages, or --data"
            )
    scale = values.get("scale")
    count = scale.get("heldout_passages") if isinstance(scale, dict) else None
    return (
        config_rules.build(TaskConfig, task, "config.task"),
        count if isinstance(count, int) else None,
        config_rules.build(Decoding, answer, "config.answer"),
        config_rules.build(GradeConfig, grade, "config.grade"),
    )


def _told(task: TaskConfig, args: argparse.Namespace) -> TaskConfig:
    """The task with what the flags say."""
    changes: dict[str, Any] = {}
    if args.data == "world":
        changes = {"name": "world", "heldout": "", "heldout_split": ""}
    elif args.data:
        changes = {"name": "squad", "heldout": args.data, "forward_share": 0.0}
        if args.column or files.is_folder(args.data):
            changes["name"] = "passages"
    if args.column:
        if (changes or {"name": task.name})["name"] != "passages":
            raise ValueError("--column: names columns of a table; give it as --data")
        known = task.columns or ColumnsConfig("text", "", "", "", "", "")
        named = given_columns.read(args.column, COLUMNS)
        changes["columns"] = dataclasses.replace(known, **named)
    if args.split and (changes or {"name": task.name})["name"] == "world":
        raise ValueError(
            f"--split={reading.shorten(args.split)}: is of a hub's data set, and world "
            "is generated; leave it out"
        )
    given = {
        "heldout_split": args.split,
        "heldout_start": args.start,
        "shuffle_seed": args.shuffle_seed,
    }
    changes |= {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(task, **changes)


def _grade(grade: GradeConfig | None, args: argparse.Namespace) -> GradeConfig:
    """The run's grader, or recall, with what the flags say."""
    judge = grade.judge if grade else None
    if args.judge_url or args.judge_model:
        known = (
            dataclasses.asdict(judge)
            if judge
            else {
                "concurrency": 16,
                "retries": 4,
                "timeout_s": 60.0,
                "base_url": args.judge_url or "",
                "model": args.judge_model or "",
            }
        )
        known |= {"base_url": args.judge_url} if args.judge_url else {}
        known |= {"model": args.judge_model} if args.judge_model else {}
        judge = JudgeConfig(**known)
    name = args.grade or (grade.name if grade else "recall")
    if name == "judge" and judge is None:
        raise ValueError("--grade judge needs --judge-url and --judge-model; give both")
    threshold = args.threshold
    if threshold is None:
        threshold = grade.threshold if grade else graders.RECALL_THRESHOLD
    return GradeConfig(name, threshold, 1.0, judge)
