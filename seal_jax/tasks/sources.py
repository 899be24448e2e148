"""Passages as a config names them: generated, from files or a hub, or of one's own.

The one place that turns `TaskConfig` into passages, for all kinds of experiments
on passages.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence

from seal_jax.runtime import plugins
from seal_jax.tasks import columns, own, squad, world
from seal_jax.tasks.passage import Passage, part
from seal_jax.tasks.settings import TaskConfig

TRAIN, HELDOUT = "train", "heldout"


def passages(
    task: TaskConfig, side: str, *, count: int, asked: bool = True
) -> list[Passage]:
    """`count` passages of the training or the held-out side, from its start on.

    Args:
      task: where passages come from.
      side: TRAIN or HELDOUT.
      count: how many.
      asked: whether each must have a question.

    Raises:
      ValueError: too few passages, or one without questions.
      FileNotFoundError: no such source.
    """
    train = side == TRAIN
    start = task.train_start if train else task.heldout_start
    if task.name == "world":
        return world.passages(
            side,
            seed=task.shuffle_seed,
            start=start,
            count=count,
            forward_share=task.forward_share,
        )
    source, given = _given(task, side)
    return part(given, source, start=start, count=count, asked=asked)


def _given(
    task: TaskConfig, side: str, *, shuffled: bool = True
) -> tuple[str, list[Passage]]:
    """What a side's passages come from, and all of them; the world has no end.

    Those of the user's own code come as it gives them.

    Raises:
      ValueError, FileNotFoundError: see `passages`.
    """
    if plugins.is_named(task.name):
        return task.name, own.items(task, side)
    train = side == TRAIN
    source = task.train if train else task.heldout
    split = task.train_split if train else task.heldout_split
    seed = task.shuffle_seed if shuffled else None
    if task.name == "passages":
        read = functools.partial(columns.load, columns=task.columns)
    else:
        read = squad.load
    return source, read(source, split=split, seed=seed)


def heldout(task: TaskConfig, *, count: int, asked: bool = True) -> list[Passage]:
    """`passages` held out; none, if of one's own none are and none need be `asked`.

    Raises:
      ValueError, FileNotFoundError: see `passages`.
    """
    if not asked and task.name == "passages" and not task.heldout:
        return []
    if asked or not plugins.is_named(task.name):
        return passages(task, HELDOUT, count=count, asked=asked)
    source, given = _given(task, HELDOUT)  # Once: a user's code may take its time.
    start = task.heldout_start
    return given and part(given, source, start=start, count=count, asked=asked)


def heldout_left(task: TaskConfig) -> int | None:
    """How many passages there are from `heldout_start` on; None: any number.

    Raises:
      ValueError, FileNotFoundError: see `passages`.
    """
    if task.name == "world":
        return None
    _, found = _given(task, HELDOUT, shuffled=False)
    return max(0, len(found) - task.heldout_start)


def sequences(
    task: TaskConfig, *, group: str, count: int, length: int
) -> list[list[Passage]]:
    """`count` lists of `length` training passages that one model can learn together.

    Those of the world tell of the residents of `group`, each once in a list: nothing
    that a model is to learn contradicts another. Other passages stand for themselves.

    Raises:
      ValueError: too few passages or residents, or a passage without questions.
      FileNotFoundError: no such source.
    """
    if task.name == "world":
        return world.sequences(
            group,
            seed=task.shuffle_seed,
            start=task.train_start,
            count=count,
            length=length,
            forward_share=task.forward_share,
        )
    drawn = passages(task, TRAIN, count=count * length)
    return [drawn[i : i + length] for i in range(0, len(drawn), length)]


def probes(task: TaskConfig, *, count: int) -> list[Passage]:
    """Passages whose questions probe what no edit is about.

    Of the world: residents that the base knows from pretraining; else those of the
    held-out side.

    Raises:
      ValueError, FileNotFoundError: see `passages`.
    """
    if task.name == "world":
        return world.known_passages(
            seed=task.shuffle_seed, start=task.heldout_start, count=count
        )
    return passages(task, HELDOUT, count=count)


def check_apart(
    train: Sequence[Passage], heldout: Sequence[Passage], wrong: str
) -> None:
    """Refuses texts that are on both sides; `wrong` says what that means.

    Raises:
      ValueError: see above.
    """
    shared = {p.text for p in train} & {p.text for p in heldout}
    if shared:
        raise ValueError(
            f"{len(shared)} {wrong}, such as {min(shared)[:40]!r}; set "
            "task.train_start and task.heldout_start apart"
        )


def check_oracle(task: TaskConfig, first: Passage, key: str) -> None:
    """Refuses ideal edits, named by the config's `key`, where nobody can write them.

    Raises:
      ValueError: see above.
    """
    if first.oracle is None:
        raise ValueError(
            f"{key}: 'oracle' needs a task that writes ideal edits, task.name="
            f"{task.name!r} does not; leave it out"
        )


@contextlib.contextmanager
def wanted_by(keys: str) -> Iterator[None]:
    """Puts the keys that asked for passages before an error about them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{keys}: {error}") from None
