"""The kinds of experiments: what a config describes, and the way of each."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seal_jax.continual import sequences as continual
from seal_jax.continual.settings import Continual
from seal_jax.deploy import days as deploy
from seal_jax.deploy.settings import Deploy
from seal_jax.generation import policies
from seal_jax.lmsi import walk as lmsi
from seal_jax.lmsi.settings import Lmsi
from seal_jax.pooled import arms as pooled
from seal_jax.pooled.settings import Pooled
from seal_jax.rounds import (
    first_programs,
    gold,
    grading,
    loop,
    more_rounds,
    over_seeds,
    trials,
)
from seal_jax.rounds.experiment import Experiment
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import compiling, config_rules, plugins
from seal_jax.tasks import few_shot, few_shot_settings, knowledge_setup
from seal_jax.tasks import settings as tasks_settings
from seal_jax.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Kind[Exp: Experiment, Item, T: Task]:
    """What a run asks of a kind of experiment: its items, and the way through them.

    `load` gives the items to learn from, in lists, and those held out; `make` the task,
    checked; `connect` the task with who grades its answers. `walk` ends in the summary.
    `rising`: a key that may be raised in the workdir of a run (`more_rounds`).
    `expect`: calls the programs that the walk begins with; None: not known before.
    """

    config: type[Exp]
    load: Callable[[Exp], tuple[list[list[Item]], list[Item]]]
    make: Callable[[Exp, policies.Policy, Sequence[Item], Sequence[Item]], T]
    connect: Callable[[Exp, T, Path], T]
    walk: Callable[
        [
            trials.Run[Exp, Item],
            policies.Policy,
            Sequence[Sequence[Item]],
            Sequence[Item],
            Path,
        ],
        dict[str, Any],
    ]
    rising: str = ""
    expect: (
        Callable[
            [
                Exp,
                policies.Policy,
                T,
                Sequence[Sequence[Item]],
                Sequence[Item],
                compiling.Call,
            ],
            None,
        ]
        | None
    ) = None


def unconnected[T](exp: Experiment, task: T, workdir: Path) -> T:
    """The task as it is: its answers are compared with its own."""
    del exp, workdir
    return task


KINDS: tuple[Kind[Any, Any, Any], ...] = (
    # Before the rounds of one seed, of which it is a kind.
    Kind(
        OverSeeds,
        over_seeds.load,
        knowledge_setup.make,
        grading.connect,
        over_seeds.walk,
    ),
    Kind(
        PassageRounds,
        gold.load,
        knowledge_setup.make_rounds,
        grading.connect_rounds,
        loop.walk,
        more_rounds.KEY,
        first_programs.expect,
    ),
    Kind(
        FewShot,
        few_shot.load,
        few_shot.make,
        unconnected,
        loop.walk,
        more_rounds.KEY,
        first_programs.expect,
    ),
    Kind(
        Continual,
        continual.load,
        continual.make,
        grading.connect,
        continual.walk,
    ),
    Kind(
        Deploy,
        deploy.load,
        deploy.make,
        grading.connect,
        deploy.walk,
    ),
    Kind(
        Pooled,
        pooled.load,
        pooled.make,
        grading.connect,
        pooled.walk,
    ),
    Kind(
        Lmsi,
        lmsi.load,
        lmsi.make,
        unconnected,
        lmsi.walk,
    ),
)


def read(values: Mapping[str, Any]) -> Experiment:
    """The experiment that a config describes.

    A group `over_seeds` makes it rounds over many seeds, a group `sequence` a continual
    one, a group `stream` one on the job, a group `pool` one on pooled edits, a group
    `chains` one without labels; of rounds, the task's name says whether they are on
    passages or on few-shot tasks.

    Raises:
      ValueError: see `config_rules.build`.
    """
    if "over_seeds" in values:
        return config_rules.build(OverSeeds, values)
    if "sequence" in values:
        return config_rules.build(Continual, values)
    if "stream" in values:
        return config_rules.build(Deploy, values)
    if "pool" in values:
        return config_rules.build(Pooled, values)
    if "chains" in values:
        return config_rules.build(Lmsi, values)
    if "arms" in values:
        raise ValueError(
            "config.arms is of a config with the group sequence, stream, pool or "
            "chains, which must be there; add it, or use ladder in its place"
        )
    task = values.get("task")
    if isinstance(task, Mapping) and "name" in task:
        names = (*tasks_settings.TASKS, *few_shot_settings.TASKS)
        plugins.one_of("config.task.name", task["name"], names)
        if task["name"] in few_shot_settings.TASKS:
            return config_rules.build(FewShot, values)
        _on_passages(task["name"], values)
    return config_rules.build(PassageRounds, values)


def _on_passages(name: object, values: Mapping[str, Any]) -> None:
    """Refuses a task of passages in a config of few-shot tasks."""
    passages, few_shot = (
        {field.name for field in dataclasses.fields(kind)}
        for kind in (PassageRounds, FewShot)
    )
    others = [key for key in values if key in few_shot - passages]
    if others:
        raise ValueError(
            f"config.task.name={config_rules.shown(name)} is of passages, and "
            f"config.{others[0]} of few-shot tasks, {few_shot_settings.TASKS}; name "
            "one of these, or use --config=configs/own.py"
        )


def kind_of(exp: Experiment) -> Kind[Any, Any, Any]:
    return next(k for k in KINDS if isinstance(exp, k.config))


def raised(values: Mapping[str, Any], more: int) -> dict[str, Any]:
    """The config with `more` rounds than it says.

    Raises:
      ValueError: it is of no kind of experiment that can be continued by rounds.
    """
    exp = read(values)
    kind = kind_of(exp)
    if not kind.rising:
        raise ValueError(
            f"--more_rounds={more} adds rounds on one policy, and this config "
            f"({type(exp).__name__}) has none that a finished run could go on with; "
            "leave it out, and give another --workdir for another config"
        )
    scale = dict(values["scale"])
    return {**values, "scale": {**scale, "rounds": scale["rounds"] + more}}
