"""Few-shot tasks and their inner loop, as a config says it."""

import dataclasses
from typing import Annotated

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound, Seed, shown
from seal_jax.tasks.arc import text as arc_text
from seal_jax.training.settings import COSINE, LINEAR, MASKED, PADDED, InnerSizes

TASKS = ("arc", "grids")


@dataclasses.dataclass(frozen=True)
class FewShotTaskConfig:
    """Where few-shot tasks come from, and how they are told.

    `name = "arc"`: `train` and `heldout` are files, folders or hub names (`tasks.arc`),
    of which the `_ids` are taken, in this order; all, if there are none. `name =
    "grids"`: tasks are generated from `shuffle_seed`; the source fields are empty.

    `chat`: one of `arc_text.CHATS`. `attempts`: texts drawn until one is a valid
    self-edit, at most. `oracle`: the self-edit, as JSON, of the rows `oracle` and
    `constant`.
    """

    name: str
    train: str
    train_split: str
    train_ids: tuple[str, ...]
    heldout: str
    heldout_split: str
    heldout_ids: tuple[str, ...]
    shuffle_seed: Seed
    chat: str
    attempts: Annotated[int, Bound(1, 1000)]
    oracle: str

    def __post_init__(self):
        config_rules.one_of("task.name", self.name, TASKS)
        config_rules.one_of("task.chat", self.chat, arc_text.CHATS)
        config_rules.check(self, "task")
        for name in ("train", "heldout"):
            source, ids = getattr(self, name), getattr(self, f"{name}_ids")
            config_rules.distinct(f"task.{name}_ids", ids)
            if self.name == "grids" and (source or ids):
                raise ValueError(
                    f"task.{name}={shown(source)} and task.{name}_ids={shown(ids)} "
                    "must be empty with task.name='grids', which is generated; use "
                    "task.name='arc' for files"
                )


@dataclasses.dataclass(frozen=True)
class FewShotInner(InnerSizes):
    """The inner loop of few-shot tasks; the self-edit says the rest.

    `warmup` steps, then `schedule` ("cosine" or "linear") to zero. `padding`: "masked",
    or "padded" for the reference's loss on pads, of which `pad_samples` are computed
    (`LossConfig`).
    """

    warmup: Annotated[int, Bound(0, 1_000_000)]
    schedule: str
    padding: str
    pad_samples: Annotated[int, Bound(-1, 65_536)]

    def __post_init__(self):
        super().__post_init__()
        config_rules.check(self, "inner")
        config_rules.one_of(
            "inner.schedule",
            self.schedule,
            (LINEAR, COSINE),
        )
        config_rules.one_of(
            "inner.padding",
            self.padding,
            (MASKED, PADDED),
        )
        if self.padding == PADDED and not self.pad_samples:
            raise ValueError(
                "inner.pad_samples=0 leaves out what inner.padding='padded' is for; "
                "use -1 for all pads, or 8 to sample so many"
            )
