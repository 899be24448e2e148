"""Groups of settings that kinds of experiments share, as frozen dataclasses.

A config file (`configs/*.py`) writes every field that is declared here; there are no
defaults below it (`config_rules.build`). The experiments themselves are in the
`settings` of `rounds`, `continual` and `pooled`.
"""

import dataclasses

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Seed, Share, Start, shown
from seal_jax.tasks import self_edit

TASKS = ("squad", "world")


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Where passages come from.

    `name = "squad"`: `train` and `heldout` are local JSON files in SEAL's format or hub
    names (with the `_split` to take); each list is shuffled with `shuffle_seed` and
    taken from `_start` on. `name = "world"`: passages are generated from `shuffle_seed`
    with `forward_share`; the four source fields must be empty.
    """

    name: str
    train: str
    train_split: str
    train_start: Start
    heldout: str
    heldout_split: str
    heldout_start: Start
    shuffle_seed: Seed
    forward_share: Share

    def __post_init__(self):
        config_rules.one_of("task.name", self.name, TASKS)
        for name in ("train", "train_split", "heldout", "heldout_split"):
            if self.name == "world" and (value := getattr(self, name)):
                raise ValueError(
                    f"task.{name}={shown(value)} is not read by task.name='world', "
                    "which is generated; use task.name='squad' for files, or ''"
                )
        config_rules.check(self, "task")


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """From a self-edit to training lines; see `self_edit.split`."""

    split: str
    quirks: str

    def __post_init__(self):
        config_rules.one_of("edit.split", self.split, self_edit.RULES)
        config_rules.one_of("edit.quirks", self.quirks, self_edit.QUIRKS)
