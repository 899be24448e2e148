"""The few-shot round's work for arc_round.py: settings of configs/arc.py, lengths of
arc_workload.json, and a configuration for every adapter."""

import dataclasses
import functools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import arc_workload
import round_task
import workload

from seal_jax.generation import generate
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.runtime import config_rules
from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.training import plan
from seal_jax.training.settings import LossConfig

CONFIGURATIONS = ("random", "oracle")

# Random ids of which every prompt and line is a piece.
_IDS = 2**15

type Tokens = tuple[int, ...]


def settings(overrides: Mapping[str, Any]) -> FewShot:
    """configs/arc.py with some of its values replaced.

    Raises:
      ValueError: see `round_task.values`, or a value that it refuses.
    """
    values = round_task.values(arc_workload.CONFIG, overrides)
    return config_rules.build(FewShot, values)


# Lengths


def lengths(
    whole: arc_workload.Workload, exp: FewShot, *, scale: float = 1.0
) -> arc_workload.Workload:
    """The tasks of a round, as many and as long as the settings allow.

    Args:
      whole: the tasks of configs/arc.py; the first of each set are taken.
      exp: says how many, the most lines of a dataset, and the most tokens of an answer.
        Of more lines than that some are taken, short and long ones alike.
      scale: factor on every length; at least one token is left.

    Raises:
      ValueError: more tasks are asked for than there are, or a scale outside (0, 1].
    """
    if not 0 < scale <= 1:
        raise ValueError(f"--scale-lengths={scale} must lie in (0, 1]; 1 is as it was")

    def scaled(tokens: int) -> int:
        return max(1, round(tokens * scale))

    def lines(pairs: arc_workload.Pairs) -> arc_workload.Pairs:
        n, most = len(pairs), min(len(pairs), exp.data.most)
        some = [pairs[(2 * i + 1) * n // (2 * most)] for i in range(most)]
        return tuple((scaled(prompt), scaled(answer)) for prompt, answer in some)

    def task(one: arc_workload.Task) -> arc_workload.Task:
        return arc_workload.Task(
            one.id,
            scaled(one.propose_prompt),
            {name: lines(pairs) for name, pairs in one.datasets.items()},
            tuple(
                (scaled(prompt), min(scaled(answer), exp.answer.max_tokens))
                for prompt, answer in one.views
            ),
        )

    def some(flag: str, tasks: tuple[arc_workload.Task, ...], wanted: int):
        if wanted > len(tasks):
            raise ValueError(
                f"--{flag}={wanted} must be at most {len(tasks)}, all there are"
            )
        return tuple(map(task, tasks[:wanted]))

    return arc_workload.Workload(
        some("tasks", whole.train, exp.scale.tasks),
        some("heldout-tasks", whole.heldout, exp.scale.heldout_tasks),
    )


# Tokens of these lengths


class Trial(NamedTuple):
    """One adapter: task and edit."""

    task: int
    edit: int


@dataclasses.dataclass(frozen=True)
class Part:
    """The adapters of one set of tasks; tokens by task.

    Attributes:
      exp: the settings.
      tasks: lengths.
      edits: the configurations of each task.
      texts: tokens of each as it is written.
      prompts: what asks for them.
      views: what an adapter is asked.
      dataset: training lines of a task under switches, by their key, and how many
        tokens of each are given; edits share them.
      trials: the adapters, those with the most steps first.
    """

    exp: FewShot
    tasks: tuple[arc_workload.Task, ...]
    edits: tuple[tuple[arc_edit.SelfEdit, ...], ...]
    texts: tuple[tuple[int, ...], ...]
    prompts: tuple[Tokens, ...]
    views: tuple[tuple[Tokens, ...], ...]
    dataset: Callable[[int, str], tuple[tuple[Tokens, ...], Tokens]]
    trials: tuple[Trial, ...]

    def job(self, trial: Trial, *, first_step_only: bool) -> plan.Job:
        """The training of an adapter, or a single step of it.

        At the lowest valid rate: what random weights would make of another is of no
        interest, and takes as long.
        """
        edit, inner = self.edits[trial.task][trial.edit], self.exp.inner
        lines, given = self.dataset(trial.task, arc_workload.key(edit.switches))
        if first_step_only:
            few = self.exp.edit.batch
            lines, given = lines[:few], given[:few]
        longest = max(map(len, lines)) + 1
        return plan.Job(
            lines,
            (round_task.SEED, *trial),
            epochs=1 if first_step_only else edit.epochs,
            learning_rate=self.exp.edit.min_learning_rate,
            clip=inner.clip,
            loss=LossConfig(inner.padding, longest, inner.pad_samples),
            batch=self.exp.edit.batch,
            given=given if edit.output_only else (),
            warmup=inner.warmup,
            schedule=inner.schedule,
        )

    def requests(self, chunk: Sequence[Trial]) -> list[tuple[generate.Request, int]]:
        """Every view of the task of each adapter, and for how many tokens."""
        return [
            (generate.Request(prompt, number), answer)
            for number, (task, _) in enumerate(chunk)
            for prompt, (_, answer) in zip(
                self.views[task], self.tasks[task].views, strict=True
            )
        ]

    def jobs(self) -> list[plan.Job]:
        """The training of every adapter, in the order of `trials`."""
        return [self.job(trial, first_step_only=False) for trial in self.trials]


@dataclasses.dataclass(frozen=True)
class Round:
    """A round to run: the tasks that it learns from, and those held out."""

    exp: FewShot
    train: Part
    heldout: Part


def make(
    exp: FewShot,
    tasks: arc_workload.Workload,
    *,
    configuration: str,
    vocab: int,
    seed: int,
) -> Round:
    """The round with these lengths, of random tokens.

    Args:
      exp: the settings.
      tasks: from `lengths`.
      configuration: of every adapter; "random": drawn as the row of that name of the
        program's report, a valid one within budget; "oracle": the settings' own.
      vocab: of the model.
      seed: of the configurations.
    """
    part = functools.partial(_part, exp, configuration, vocab, seed)
    return Round(
        exp,
        part("train", tasks.train, exp.scale.edits),
        part("heldout", tasks.heldout, exp.scale.heldout_edits),
    )


def _part(
    exp: FewShot,
    configuration: str,
    vocab: int,
    seed: int,
    name: str,
    tasks: tuple[arc_workload.Task, ...],
    count: int,
) -> Part:
    drawn = workload.token_ids([_IDS], vocab=vocab, seed=round_task.SEED)[0]
    ids, rng = tuple(drawn), random.Random(name)

    def edit(task: arc_workload.Task, number: int) -> arc_edit.SelfEdit:
        if configuration == "oracle":
            return arc_edit.parse(exp.task.oracle, exp.edit)
        return arc_edit.random_edit(
            random.Random(f"{seed} {task.id} {number}"),
            lambda switches: len(task.datasets[arc_workload.key(switches)]),
            exp.edit,
        )

    @functools.cache
    def dataset(task: int, switches: str) -> tuple[tuple[Tokens, ...], Tokens]:
        pairs = tasks[task].datasets[switches]
        own = random.Random(f"{name} {task} {switches}")
        lines = tuple(
            _random_slice(ids, prompt + answer, own) for prompt, answer in pairs
        )
        return lines, tuple(prompt for prompt, _ in pairs)

    edits = tuple(tuple(edit(task, e) for e in range(count)) for task in tasks)

    def steps(trial: Trial) -> int:
        one = edits[trial.task][trial.edit]
        lines = tasks[trial.task].datasets[arc_workload.key(one.switches)]
        return arc_edit.steps(one, len(lines), exp.edit.batch)

    trials = [Trial(t, e) for t in range(len(tasks)) for e in range(count)]
    return Part(
        exp,
        tasks,
        edits,
        texts=tuple(
            tuple(min(_written(one), exp.propose.max_tokens) for one in own)
            for own in edits
        ),
        prompts=tuple(_random_slice(ids, task.propose_prompt, rng) for task in tasks),
        views=tuple(
            tuple(_random_slice(ids, prompt, rng) for prompt, _ in task.views)
            for task in tasks
        ),
        dataset=dataset,
        trials=tuple(sorted(trials, key=lambda trial: -steps(trial))),
    )


def _written(edit: arc_edit.SelfEdit) -> int:
    """Tokens of a configuration as models write them: indented, a line for each key."""
    return arc_workload.count(json.dumps(json.loads(edit.json()), indent=2))


def _random_slice(ids: Tokens, size: int, rng: random.Random) -> Tokens:
    """So many ids, from a random place on."""
    first = rng.randrange(len(ids) - size)
    return ids[first : first + size]


def rewards(part: Part) -> list[list[float]]:
    """A made-up reward for every edit, by task: 1 or 0, the same ones every time."""
    rng = random.Random(round_task.SEED)
    return [[float(rng.random() < 0.5) for _ in own] for own in part.edits]
