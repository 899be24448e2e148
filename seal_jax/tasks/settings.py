"""Groups of settings that kinds of experiments share, as frozen dataclasses.

A config file (`configs/*.py`) writes every field that is declared here; there are no
defaults below it (`config_rules.build`). The experiments themselves are in the
`settings` of `rounds`, `continual` and `pooled`.
"""

import dataclasses

from seal_jax.generation.settings import Decoding
from seal_jax.runtime import config_rules, plugins
from seal_jax.runtime.config_rules import Seed, Share, Start, shown
from seal_jax.tasks import own, self_edit

TASKS = ("squad", "world", "passages")


@dataclasses.dataclass(frozen=True)
class ColumnsConfig:
    """Which columns of a table hold what; "" is none. `rows` reads the table.

    `text` is the passage; `title` what it is about, else the file's name; `id` its name
    in files and on command lines, else 12 digits of title and text. `question` and
    `answer` are one question to a row: rows with the same id, or else with the same
    title and text, are one passage. `questions` holds them all, a list of objects with
    the keys `question` and `answer`. Without any of the three nothing is asked. A dot
    leads into an object, as in "answers.text"; of a list of answers the first counts.
    """

    text: str
    title: str
    id: str
    question: str
    answer: str
    questions: str

    def __post_init__(self):
        if not self.text:
            raise ValueError(
                "task.columns.text='' must name the column that holds the passages; "
                "fill it in"
            )
        given = bool(self.question), bool(self.answer)
        if given[0] != given[1]:
            raise ValueError(
                f"task.columns.question={shown(self.question)} and task.columns.answer="
                f"{shown(self.answer)} go together; name both, or neither where "
                "passages have no questions"
            )


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Where passages come from.

    `name = "squad"`: `train` and `heldout` are local files in SEAL's format or hub
    names (with the `_split` to take); each list is shuffled with `shuffle_seed` and
    taken from `_start` on. `name = "passages"`: likewise, of any file, folder or hub
    name that `rows` reads, with the `columns` of a table, and with questions or none;
    `heldout` may be empty. `name = "world"`: passages are generated from `shuffle_seed`
    with `forward_share`; the four source fields must be empty. `name =
    "module:Class"`: passages of the user's own class, which reads the other fields as
    it likes (`own`); they are taken from `_start` on.
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
    columns: ColumnsConfig | None = None

    def __post_init__(self):
        plugins.one_of("task.name", self.name, TASKS)
        if plugins.is_named(self.name):
            own.check("task.name", self.name)
        for name in ("train", "train_split", "heldout", "heldout_split"):
            if self.name == "world" and (value := getattr(self, name)):
                raise ValueError(
                    f"task.{name}={shown(value)} is not read by task.name='world', "
                    "which is generated; use task.name='squad' for files, or ''"
                )
        config_rules.check(self, "task")


@dataclasses.dataclass(frozen=True)
class ProposeConfig(Decoding):
    """How self-edits are written; `search`: prompts that the row `prompts` tries."""

    search: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        config_rules.distinct("propose.search", self.search)


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """From a self-edit to training lines; see `self_edit.split`."""

    split: str
    quirks: str

    def __post_init__(self):
        config_rules.one_of("edit.split", self.split, self_edit.RULES)
        config_rules.one_of("edit.quirks", self.quirks, self_edit.QUIRKS)
