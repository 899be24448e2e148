"""Few-shot grid tasks as a task of the round: the model configures its own training.

An item is a task. A self-edit is a JSON configuration: which augmentations of the
demonstrations to train on, on which tokens, how fast and for how long. Its adapter
answers several views of each test input, they vote, and the reward is 1 if every test
is right by one of two guesses, else 0 (SEAL, arXiv 2506.10943, section 4.1; the
protocol is Akyürek et al., arXiv 2411.07279).
"""

import functools
import random
from collections.abc import Sequence
from typing import Any, Protocol

from seal_jax.generation.settings import Decoding
from seal_jax.tasks.arc import examples as arc_data
from seal_jax.tasks.arc import generated
from seal_jax.tasks.arc import puzzles as arc
from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.tasks.arc import text as arc_text
from seal_jax.tasks.arc import vote as arc_vote
from seal_jax.tasks.base import AsWritten, Edit, Encoder, Lines, Reading
from seal_jax.tasks.few_shot_settings import FewShotInner, FewShotTaskConfig
from seal_jax.training import plan
from seal_jax.training.settings import LossConfig

_EVERYTHING = arc_data.Switches(True, True, True, True)
_NOTHING = arc_data.Switches(False, False, False, False)


class Counts(Protocol):
    """How many tasks are learned from and held out, and edits of each held-out one."""

    @property
    def rounds(self) -> int: ...
    @property
    def tasks(self) -> int: ...
    @property
    def heldout_tasks(self) -> int: ...
    @property
    def heldout_edits(self) -> int: ...


class Settings(Protocol):
    """The groups of an experiment that the task reads."""

    @property
    def seed(self) -> int: ...
    @property
    def task(self) -> FewShotTaskConfig: ...
    @property
    def scale(self) -> Counts: ...
    @property
    def propose(self) -> Decoding: ...
    @property
    def edit(self) -> arc_edit.EditLimits: ...
    @property
    def data(self) -> arc_data.DataConfig: ...
    @property
    def inner(self) -> FewShotInner: ...
    @property
    def views(self) -> arc_vote.ViewsConfig: ...
    @property
    def answer(self) -> Decoding: ...
    @property
    def ladder(self) -> tuple[str, ...]: ...


def load(exp: Settings) -> tuple[list[list[arc.Task]], list[arc.Task]]:
    """Training tasks of each round, and the held-out ones.

    Generated tasks are new ones in every round. Files have so few that one can solve:
    all rounds go through the same list, from where the last one stopped.

    Raises:
      ValueError: a file that is not in ARC's format, an unknown id, too few tasks, or
        a task in both sets.
    """
    task, scale = exp.task, exp.scale
    if task.name == "grids":
        seed, rounds = task.shuffle_seed, range(scale.rounds)
        train = [
            generated.tasks(
                "train", seed=seed, start=r * scale.tasks, count=scale.tasks
            )
            for r in rounds
        ]
        heldout = generated.tasks(
            "heldout", seed=seed, start=0, count=scale.heldout_tasks
        )
        return train, heldout
    available = _some("train", task.train, task.train_split, task.train_ids)
    heldout = _some("heldout", task.heldout, task.heldout_split, task.heldout_ids)
    for name, have, want in (
        ("scale.tasks", available, scale.tasks),
        ("scale.heldout_tasks", heldout, scale.heldout_tasks),
    ):
        if len(have) < want:
            raise ValueError(
                f"{name}={want} must be at most the {len(have)} tasks that task."
                f"{'train' if have is available else 'heldout'} gives; use {len(have)}"
            )
    heldout = heldout[: scale.heldout_tasks]
    places = [
        [(r * scale.tasks + i) % len(available) for i in range(scale.tasks)]
        for r in range(scale.rounds)
    ]
    train = [[available[i] for i in indices] for indices in places]
    shared = {t.id for tasks in train for t in tasks} & {t.id for t in heldout}
    if shared:
        raise ValueError(
            f"task {min(shared)!r} is among the training and the held-out tasks; "
            "take it out of task.train_ids or task.heldout_ids"
        )
    return train, heldout


def _some(name: str, source: str, split: str, ids: Sequence[str]) -> list[arc.Task]:
    """The tasks of the config's group `task`, `name` of which is the source."""
    try:
        tasks = arc.load(source, split=split)
        return arc.select(tasks, ids) if ids else list(tasks.values())
    except FileNotFoundError as error:
        hint = "; set the variable SEAL_DATA" if "$SEAL_DATA" in source else ""
        raise FileNotFoundError(f"task.{name}: {error}{hint}") from None
    except ValueError as error:
        raise ValueError(f"task.{name}: {error}") from None


def make(
    exp: Settings,
    blank: Encoder,
    train: Sequence[arc.Task],
    heldout: Sequence[arc.Task],
) -> "FewShotTask":
    """The task for these items.

    Raises:
      ValueError: a prompt that cannot be used, a task that does not fit, an oracle that
        is no self-edit or is over budget for a held-out task.
      FileNotFoundError: a prompt's file is not there.
    """
    task = FewShotTask(exp, blank)
    try:
        oracle = arc_edit.parse(exp.task.oracle, exp.edit)
    except arc_edit.InvalidEditError as error:
        raise ValueError(f"task.oracle: {error}; change it") from None
    for item in dict.fromkeys((*train, *heldout)):
        task.check_fit(item)
    for item in heldout:
        if {"oracle", "constant"} & set(exp.ladder):
            task.check_budget(item, oracle)
        if "random" in exp.ladder:
            task.fixed("random", item)
    return task


def _shape(grid: arc.Grid) -> tuple[int, int]:
    return len(grid), len(grid[0])


def _black(shape: tuple[int, int]) -> arc.Grid:
    return ((0,) * shape[1],) * shape[0]


class FewShotTask(AsWritten):
    """What the round asks of the task; see `base.Task`.

    Datasets are made once for a task and its switches, views once for a task.
    """

    max_missing = 0.0
    # A policy that writes what cannot be trained has solved nothing with it.
    untried = 0.0
    room = 0

    def __init__(self, exp: Settings, blank: Encoder):
        self.exp = exp
        self.blank = blank
        self.writing = exp.propose
        self.attempts = exp.task.attempts
        self.chat = arc_text.CHATS[exp.task.chat]
        self.template = arc_text.load_propose(exp.propose.prompt)
        self.instruction = arc_text.load_instruction(exp.answer.prompt)
        self._lines = functools.cache(self._make_lines)
        self._views = functools.cache(self._make_views)
        self._lengths = functools.cache(self._length_of_shapes)

    def name(self, item: arc.Task) -> str:
        return f"task {item.id}"

    # Self-edits

    def text(self, item: arc.Task) -> None:
        del item

    def propose_prompt(self, item: arc.Task) -> str:
        return arc_text.propose_prompt(item, chat=self.chat, template=self.template)

    def read(self, item: arc.Task, text: str) -> Reading:
        """What is not valid is drawn again; what is over budget is the policy's own."""
        try:
            edit = arc_edit.parse(text, self.exp.edit)
        except arc_edit.InvalidEditError as error:
            return Reading(error.reason, again=True)
        over = arc_edit.over_budget(
            edit, self._count(item, edit.switches), self.exp.edit
        )
        return Reading(arc_edit.OVER_BUDGET if over else None)

    def job(self, item: arc.Task, edit: Edit, seed: tuple[int, ...]) -> plan.Job:
        asked, inner = arc_edit.parse(edit.text, self.exp.edit), self.exp.inner
        lines, given = self._lines(item, asked.switches)
        # Rows are padded to the job's own longest: `pad_to` is for passages.
        loss = LossConfig(inner.padding, 2, inner.pad_samples)
        return plan.Job(
            lines,
            seed,
            epochs=asked.epochs,
            learning_rate=asked.learning_rate,
            clip=inner.clip,
            loss=loss,
            batch=self.exp.edit.batch,
            given=given if asked.output_only else (),
            warmup=inner.warmup,
            schedule=inner.schedule,
        )

    def count_lines(self, item: arc.Task, edit: Edit) -> Lines:
        """None is cut: lines that do not fit are left out (`data.max_tokens`)."""
        if edit.refused:
            return Lines(0, 0)
        asked = arc_edit.parse(edit.text, self.exp.edit)
        return Lines(self._count(item, asked.switches), 0)

    def _count(self, item: arc.Task, switches: arc_data.Switches) -> int:
        return len(self._lines(item, switches)[0])

    def _make_lines(
        self, item: arc.Task, switches: arc_data.Switches
    ) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        """Training lines as token ids, and how many tokens of each are its prompt."""
        examples = arc_data.dataset(item, switches, self.exp.data, length=self._length)
        parts = [self._encode(example) for example in examples]
        return (
            tuple((*prompt, *answer) for prompt, answer in parts),
            tuple(len(prompt) for prompt, _ in parts),
        )

    def _encode(self, example: arc_data.Example) -> tuple[list[int], list[int]]:
        """Prompt and answer; apart, as the model meets them when it answers."""
        prompt = self._prompt(example)
        return (
            self.blank.sequence(prompt),
            self.blank.encode(arc_text.example_answer(example)),
        )

    def _length(self, example: arc_data.Example) -> int:
        """Tokens of prompt and answer.

        Digits stand between spaces, so that only the grids' shapes matter, and there
        are few: a dataset has thousands of examples, and reading text is slow.
        """
        pairs = (*example.context, example.query)
        return self._lengths(tuple(tuple(map(_shape, pair)) for pair in pairs))

    def _length_of_shapes(self, shapes: tuple[tuple[tuple[int, int], ...], ...]) -> int:
        *context, query = (arc.Pair(*map(_black, pair)) for pair in shapes)
        example = arc_data.Example(tuple(context), query)
        return sum(map(len, self._encode(example)))

    def _prompt(self, example: arc_data.Example) -> str:
        return arc_text.example_prompt(
            example, chat=self.chat, instruction=self.instruction
        )

    def fixed(self, arm: str, item: arc.Task) -> list[str] | None:
        count = self.exp.scale.heldout_edits
        if arm in ("oracle", "constant"):
            return [self.exp.task.oracle] * count
        if arm != "random":
            return None

        sequences = functools.partial(self._count, item)
        rngs = [random.Random(f"{self.exp.seed} {item.id} {e}") for e in range(count)]
        try:
            edits = [arc_edit.random_edit(r, sequences, self.exp.edit) for r in rngs]
        except ValueError as error:
            raise ValueError(f"task {item.id}: edit.{error}") from None
        return [edit.json() for edit in edits]

    # Answers

    def _make_views(self, item: arc.Task) -> list[list[arc_vote.View]]:
        return [
            arc_vote.views(
                item, test, self.exp.views, seed=self.exp.seed, length=self._length
            )
            for test in range(len(item.tests))
        ]

    def prompts(self, item: arc.Task) -> list[str]:
        """All views of all tests, in order."""
        return [self._prompt(v.example) for group in self._views(item) for v in group]

    def in_view(self) -> "FewShotTask":
        return self

    def gold(self, item: arc.Task) -> list[str]:
        return [
            arc_text.example_answer(v.example)
            for group in self._views(item)
            for v in group
        ]

    def guesses(
        self, item: arc.Task, answers: Sequence[str]
    ) -> list[tuple[arc.Grid, arc.Grid]]:
        """Two guesses for each test."""
        left = iter(answers)
        return [
            arc_vote.vote([(view, arc_vote.parse(next(left))) for view in group])
            for group in self._views(item)
        ]

    def scores_of(self, item: arc.Task) -> int:
        """One: all tests are right, or they are not."""
        del item
        return 1

    def score(
        self, answered: Sequence[tuple[arc.Task, Sequence[str]]]
    ) -> list[float | None]:
        return [
            float(arc_vote.solved(item, self.guesses(item, answers)))
            for item, answers in answered
        ]

    # For items.jsonl and edits.jsonl

    def item_row(self, item: arc.Task) -> dict[str, Any]:
        return {
            "task_id": item.id,
            "train": [pair._asdict() for pair in item.train],
            "test": [pair._asdict() for pair in item.tests],
        }

    def row(self, item: arc.Task, edit: Edit) -> dict[str, Any]:
        row: dict[str, Any] = {
            "task_id": item.id,
            "edit": edit.edit,
            "prompt": edit.prompt,
            "text": edit.text,
            "redrawn": list(edit.redrawn),
            "refused": edit.refused,
        }
        if edit.refused is None or edit.refused == arc_edit.OVER_BUDGET:
            asked = arc_edit.parse(edit.text, self.exp.edit)
            sequences = self._count(item, asked.switches)
            row |= {
                "switches": asked.switches._asdict(),
                "output_only": asked.output_only,
                "learning_rate": asked.learning_rate,
                "epochs": asked.epochs,
                "sequences": sequences,
                "steps": arc_edit.steps(asked, sequences, self.exp.edit.batch),
            }
        return row

    def answers_row(
        self, item: arc.Task, answers: Sequence[str], scores: Sequence[float | None]
    ) -> list[dict[str, Any]]:
        """For each test its two guesses, and how many of the views gave a grid."""
        del scores
        left = iter(answers)
        rows = []
        guesses = self.guesses(item, answers)
        for test, views, two in zip(
            item.tests, self._views(item), guesses, strict=True
        ):
            parsed = [arc_vote.parse(next(left)) for _ in views]
            rows.append(
                {
                    "guesses": two,
                    "right": test.output in two,
                    "views": len(views),
                    "parsed": sum(grid is not None for grid in parsed),
                }
            )
        return rows

    # Before anything is compiled

    def check_budget(self, item: arc.Task, oracle: arc_edit.SelfEdit) -> None:
        """Refuses an oracle that cannot be trained on a task.

        Raises:
          ValueError: see above.
        """
        sequences, limits = self._count(item, oracle.switches), self.exp.edit
        if not sequences or arc_edit.over_budget(oracle, sequences, limits):
            steps = arc_edit.steps(oracle, sequences, limits.batch)
            raise ValueError(
                f"task.oracle takes {steps} steps on the {sequences} training lines of "
                f"task {item.id}, edit.max_steps={limits.max_steps}; give it at most "
                f"{arc_edit.most_epochs(sequences, limits)} epochs"
            )

    def check_fit(self, item: arc.Task) -> None:
        """Refuses a task that does not fit the model.

        Raises:
          ValueError: see above; the task is named.
        """
        exp, context = self.exp, self.blank.context

        def fits(what: str, length: int, room: int, fix: str) -> None:
            if length > room:
                raise ValueError(
                    f"task {item.id}: {what} takes {length} tokens, "
                    f"{max(room, 0)} fit; {fix}"
                )

        fits(
            "its self-edit prompt",
            len(self.blank.sequence(self.propose_prompt(item))),
            context - exp.propose.max_tokens,
            "leave it out of the data",
        )
        # Every training line of every configuration has the length of one of these.
        examples = arc_data.pool(item, _EVERYTHING, exp.data, length=self._length)
        if not examples or not self._count(item, _NOTHING):
            raise ValueError(
                f"task {item.id}: no training line with data.leave={exp.data.leave} "
                f"stays within data.max_side={exp.data.max_side} and data.max_tokens="
                f"{exp.data.max_tokens}; change them, or leave the task out"
            )
        fits(
            "a training line",
            max(map(self._length, examples)),
            min(exp.inner.row_tokens, context),
            f"lower data.max_tokens={exp.data.max_tokens} or raise inner.row_tokens",
        )
        for views in self._views(item):
            if not views:
                raise ValueError(
                    f"task {item.id}: no view of a test is shorter than "
                    f"views.max_tokens={exp.views.max_tokens}; raise it, or leave the "
                    "task out"
                )
        fits(
            "an answer",
            max(len(self.blank.encode(answer)) for answer in self.gold(item)) + 1,
            exp.answer.max_tokens,
            f"raise answer.max_tokens={exp.answer.max_tokens}",
        )
        fits(
            "a view of a test",
            max(len(self.blank.sequence(prompt)) for prompt in self.prompts(item)),
            context - exp.answer.max_tokens,
            f"lower views.max_tokens={exp.views.max_tokens} or "
            f"answer.max_tokens={exp.answer.max_tokens}",
        )
