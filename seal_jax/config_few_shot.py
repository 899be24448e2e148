"""The experiment on few-shot tasks as frozen dataclasses; `configs/arc.py` is one.

`config` has that on passages, and what both share.
"""

import dataclasses

from seal_jax import (
    config,
    config_rounds,
    config_rules,
    generation_settings,
    reward_names,
    training_settings,
)
from seal_jax.tasks import arc_data, arc_edit, arc_text, arc_vote

TASKS = ("arc", "grids")

# The ladder's rows: those of the base policy, then those of the last one.
BASE_ARMS = ("in_context", "random", "self_edits", "oracle")
LAST_ARMS = ("constant",)


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
    shuffle_seed: int
    chat: str
    attempts: int
    oracle: str

    def __post_init__(self):
        config_rules.one_of("task.name", self.name, TASKS)
        config_rules.one_of("task.chat", self.chat, arc_text.CHATS)
        config_rules.at_least("task.attempts", self.attempts, 1)
        for name in ("train", "heldout"):
            source, ids = getattr(self, name), getattr(self, f"{name}_ids")
            if len(set(ids)) < len(ids):
                raise ValueError(f"task.{name}_ids={ids} must differ; name each once")
            if self.name == "grids" and (source or ids):
                raise ValueError(
                    f"task.{name}={source!r} and its ids are not for task.name='grids',"
                    " which is generated; use task.name='arc' for files"
                )


@dataclasses.dataclass(frozen=True)
class FewShotScale:
    """How much of everything, for few-shot tasks."""

    rounds: int
    tasks: int
    edits: int
    seeds: int
    heldout_tasks: int
    heldout_edits: int
    heldout_seeds: int

    def __post_init__(self):
        config_rules.all_positive("scale", self)

    @property
    def adapters(self) -> int:
        """The most that are trained in one phase."""
        return max(
            self.tasks * self.edits * self.seeds,
            self.heldout_tasks * self.heldout_edits * self.heldout_seeds,
        )


@dataclasses.dataclass(frozen=True)
class FewShotInner(training_settings.InnerSizes):
    """The inner loop of few-shot tasks; the self-edit says the rest.

    `warmup` steps, then `schedule` ("cosine" or "linear") to zero. `padding`: "masked",
    or "padded" for the reference's loss on pads, of which `pad_samples` are computed
    (`training_settings.LossConfig`).
    """

    warmup: int
    schedule: str
    padding: str
    pad_samples: int

    def __post_init__(self):
        super().__post_init__()
        config_rules.at_least("inner.warmup", self.warmup, 0)
        config_rules.one_of(
            "inner.schedule",
            self.schedule,
            (training_settings.LINEAR, training_settings.COSINE),
        )
        config_rules.one_of(
            "inner.padding",
            self.padding,
            (training_settings.MASKED, training_settings.PADDED),
        )
        config_rules.at_least("inner.pad_samples", self.pad_samples, -1)
        if self.padding == training_settings.PADDED and not self.pad_samples:
            raise ValueError(
                "inner.pad_samples=0 leaves out what inner.padding='padded' is for; "
                "use -1 for all pads, or 8 to sample so many"
            )


@dataclasses.dataclass(frozen=True)
class FewShot:
    """Everything that decides the result of a run on few-shot tasks."""

    seed: int
    mesh: config.MeshConfig
    model: generation_settings.ModelSource
    task: FewShotTaskConfig
    scale: FewShotScale
    propose: generation_settings.Decoding
    edit: arc_edit.EditLimits
    data: arc_data.DataConfig
    inner: FewShotInner
    views: arc_vote.ViewsConfig
    answer: generation_settings.Decoding
    select: config_rounds.SelectConfig
    imitate: training_settings.ImitateConfig
    stop: config_rounds.StopConfig
    ladder: tuple[str, ...]

    def __post_init__(self):
        config_rules.within("seed", self.seed, 0, 2**32 - 1)
        self.stop.check_ladder(self.ladder, self.scale.heldout_tasks)
        for arm in self.ladder:
            config_rules.one_of("ladder", arm, (*BASE_ARMS, *LAST_ARMS))
        for name in self.select.measured:
            config_rules.one_of(
                "select.reward and compare", name, reward_names.FEW_SHOT_REWARDS
            )
        self.select.check_scale(edits=self.scale.edits, seeds=self.scale.seeds)
        if self.select.novelty_bonus or self.select.max_copied < 1:
            raise ValueError(
                f"select.novelty_bonus={self.select.novelty_bonus} and "
                f"select.max_copied={self.select.max_copied} compare with a passage, "
                "few-shot tasks have none; use 0.0 and 1.0"
            )
        inner, least = self.inner, self.edit.batch * self.inner.row_tokens
        if 0 < inner.step_tokens < least:
            raise ValueError(
                f"inner.step_tokens={inner.step_tokens} must have room for edit.batch="
                f"{self.edit.batch} rows of inner.row_tokens={inner.row_tokens}; use "
                f"{least} or 0"
            )

    @property
    def turn_end(self) -> str:
        """The token that ends an answer; empty: the model's own end of text."""
        return arc_text.CHATS[self.task.chat].end

    @property
    def label_free(self) -> None:
        """None: what there is without labels is about texts."""

    @property
    def base_arms(self) -> tuple[str, ...]:
        """Rows of the ladder that the base policy walks, in order."""
        return BASE_ARMS

    @property
    def last_arms(self) -> tuple[str, ...]:
        """Those that the last policy walks after the rounds."""
        return LAST_ARMS

    @property
    def adapters(self) -> int:
        """The most that are trained in one phase."""
        return self.scale.adapters

    @property
    def lines_per_step(self) -> int:
        """Training lines of one optimizer step."""
        return self.edit.batch

    @property
    def engine(self) -> training_settings.EngineOptions:
        """What the inner loop has to be made for besides (`capacity.choose`)."""
        return training_settings.PLAIN
