"""Few-shot grid tasks as a task of the round: the model configures its own training.

An item is a task. A self-edit is a JSON configuration: which augmentations of the
demonstrations to train on, on which tokens, how fast and for how long. Its adapter
answers several views of each test input, they vote, and the reward is 1 if every test
is right by one of two guesses, else 0 (SEAL, arXiv 2506.10943, section 4.1; the
protocol is Akyuerek et al., arXiv 2411.07279).
"""

import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax import config, plan, policy, trials
from seal_jax.tasks import arc, arc_data, arc_edit, arc_text, arc_vote, grids

OVER_BUDGET = "over budget"
_EVERYTHING = arc_data.Switches(True, True, True, True)


def load(exp: config.FewShot) -> tuple[list[list[arc.Task]], list[arc.Task]]:
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
            grids.tasks("train", seed=seed, start=r * scale.tasks, count=scale.tasks)
            for r in rounds
        ]
        heldout = grids.tasks("heldout", seed=seed, start=0, count=scale.heldout_tasks)
        return train, heldout
    known = _some(task.train, task.train_split, task.train_ids)
    heldout = _some(task.heldout, task.heldout_split, task.heldout_ids)
    for name, have, want in (
        ("scale.tasks", known, scale.tasks),
        ("scale.heldout_tasks", heldout, scale.heldout_tasks),
    ):
        if len(have) < want:
            raise ValueError(f"{name}={want}: there are {len(have)}; use {len(have)}")
    heldout = heldout[: scale.heldout_tasks]
    places = [
        [(r * scale.tasks + i) % len(known) for i in range(scale.tasks)]
        for r in range(scale.rounds)
    ]
    train = [[known[i] for i in own] for own in places]
    shared = {t.id for own in train for t in own} & {t.id for t in heldout}
    if shared:
        raise ValueError(
            f"task {min(shared)!r} is among the training and the held-out tasks; "
            "take it out of task.train_ids or task.heldout_ids"
        )
    return train, heldout


def _some(source: str, split: str, ids: Sequence[str]) -> list[arc.Task]:
    tasks = arc.load(source, split=split)
    return arc.select(tasks, ids) if ids else list(tasks.values())


def make(
    exp: config.FewShot, blank: policy.Policy, items: Sequence[arc.Task]
) -> "FewShotTask":
    """The task for these items.

    Raises:
      ValueError: a prompt that cannot be used, a task that does not fit, an oracle
        that is no self-edit.
      FileNotFoundError: a prompt's file is not there.
    """
    task = FewShotTask(exp, blank)
    try:
        arc_edit.parse(exp.task.oracle, exp.edit)
    except arc_edit.InvalidEditError as error:
        raise ValueError(f"task.oracle: {error}") from None
    for item in items:
        task.check_fit(item)
    return task


def connect(task: "FewShotTask", workdir: Path) -> "FewShotTask":
    """Nothing has to be connected: answers are compared with the tasks' own."""
    del workdir
    return task


class FewShotTask:
    """What the round asks of the task; see `trials.Task`.

    Datasets are made once for a task and its switches, views once for a task.
    """

    max_missing = 0.0

    def __init__(self, exp: config.FewShot, blank: policy.Policy):
        self.exp = exp
        self.blank = blank
        self.attempts = exp.task.attempts
        self.chat = arc_text.CHATS[exp.task.chat]
        self.template = arc_text.load_propose(exp.propose.prompt)
        self.instruction = arc_text.load_instruction(exp.answer.prompt)
        self._lines = functools.cache(self._make_lines)
        self._views = functools.cache(self._make_views)

    def name(self, item: arc.Task) -> str:
        return f"task {item.id}"

    # Self-edits

    def propose_prompt(self, item: arc.Task) -> str:
        return arc_text.propose_prompt(item, chat=self.chat, template=self.template)

    def read(self, item: arc.Task, text: str) -> trials.Reading:
        """What is not valid is drawn again; what is over budget is the policy's own."""
        try:
            edit = arc_edit.parse(text, self.exp.edit)
        except arc_edit.InvalidEditError as error:
            return trials.Reading(error.reason, again=True)
        sequences = len(self._lines(item, edit.switches)[0])
        if not sequences or arc_edit.over_budget(edit, sequences, self.exp.edit):
            return trials.Reading(OVER_BUDGET)
        return trials.Reading()

    def job(self, item: arc.Task, edit: trials.Edit, seed: tuple[int, ...]) -> plan.Job:
        asked, inner = arc_edit.parse(edit.text, self.exp.edit), self.exp.inner
        lines, given = self._lines(item, asked.switches)
        longest = max(map(len, lines)) + 1  # with the end of the turn
        return plan.Job(
            lines,
            seed,
            epochs=asked.epochs,
            learning_rate=asked.learning_rate,
            clip=inner.clip,
            loss=plan.LossConfig(inner.padding, longest, inner.pad_samples),
            batch=self.exp.edit.batch,
            given=given if asked.output_only else (),
            warmup=inner.warmup,
            schedule=inner.schedule,
        )

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
            self.blank.encode(prompt),
            self.blank.encode(arc_text.example_answer(example)),
        )

    def _length(self, example: arc_data.Example) -> int:
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

        def sequences(switches: arc_data.Switches) -> int:
            return len(self._lines(item, switches)[0])

        rngs = [random.Random(f"{self.exp.seed} {item.id} {e}") for e in range(count)]
        return [arc_edit.random_edit(r, sequences, self.exp.edit).json() for r in rngs]

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
        return [self._prompt(v.example) for own in self._views(item) for v in own]

    def gold(self, item: arc.Task) -> list[str]:
        return [
            arc_text.example_answer(v.example) for own in self._views(item) for v in own
        ]

    def guesses(
        self, item: arc.Task, answers: Sequence[str]
    ) -> list[tuple[arc.Grid, arc.Grid]]:
        """Two guesses for each test."""
        left = iter(answers)
        return [
            arc_vote.vote([(view, arc_vote.parse(next(left))) for view in own])
            for own in self._views(item)
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

    def row(self, item: arc.Task, edit: trials.Edit) -> dict[str, Any]:
        row: dict[str, Any] = {
            "task_id": item.id,
            "edit": edit.edit,
            "prompt": edit.prompt,
            "text": edit.text,
            "redrawn": list(edit.redrawn),
            "refused": edit.refused,
        }
        if edit.refused is None or edit.refused == OVER_BUDGET:
            asked = arc_edit.parse(edit.text, self.exp.edit)
            sequences = len(self._lines(item, asked.switches)[0])
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
        for test, own, two in zip(item.tests, self._views(item), guesses, strict=True):
            parsed = [arc_vote.parse(next(left)) for _ in own]
            rows.append(
                {
                    "guesses": two,
                    "right": test.output in two,
                    "views": len(own),
                    "parsed": sum(grid is not None for grid in parsed),
                }
            )
        return rows

    # Before anything is compiled

    def check_fit(self, item: arc.Task) -> None:
        """Refuses a task that does not fit the model.

        Raises:
          ValueError: see above; the task is named.
        """
        exp, context = self.exp, self.blank.arch.max_position

        def fits(what: str, length: int, room: int, fix: str) -> None:
            if length > room:
                raise ValueError(
                    f"task {item.id}: {what} takes {length} tokens, {room} fit; {fix}"
                )

        fits(
            "its self-edit prompt",
            len(self.blank.encode(self.propose_prompt(item))),
            context - exp.propose.max_tokens,
            "leave it out of the data",
        )
        # Every training line of every configuration has the length of one of these.
        every = arc_data.pool(item, _EVERYTHING, exp.data, length=self._length)
        if not every:
            raise ValueError(
                f"task {item.id}: no training line stays within data.max_side="
                f"{exp.data.max_side} and data.max_tokens={exp.data.max_tokens}; raise "
                "them, or leave the task out"
            )
        fits(
            "a training line",
            max(map(self._length, every)),
            min(exp.inner.row_tokens, context),
            f"lower data.max_tokens={exp.data.max_tokens} or raise inner.row_tokens",
        )
        for own in self._views(item):
            if not own:
                raise ValueError(
                    f"task {item.id}: no view of a test is shorter than "
                    f"views.max_tokens={exp.views.max_tokens}; raise it, or leave the "
                    "task out"
                )
        fits(
            "a view of a test",
            max(len(self.blank.encode(prompt)) for prompt in self.prompts(item)),
            context - exp.answer.max_tokens,
            f"lower views.max_tokens={exp.views.max_tokens} or "
            f"answer.max_tokens={exp.answer.max_tokens}",
        )
