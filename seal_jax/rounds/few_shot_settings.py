"""The experiment on few-shot tasks as frozen dataclasses; `configs/arc.py` is one.

`settings` has that on passages, and what both share.
"""

import dataclasses
from typing import Annotated

from seal_jax.generation.settings import NONE, Decoding, ModelSource
from seal_jax.rewards import names as reward_names
from seal_jax.rounds.settings import SelectConfig, StopConfig, check_products
from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound, Edits, Rounds, Seed
from seal_jax.runtime.settings import MeshConfig
from seal_jax.runtime.writers import WatchConfig
from seal_jax.tasks.arc import examples as arc_data
from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.tasks.arc import text as arc_text
from seal_jax.tasks.arc import vote as arc_vote
from seal_jax.tasks.few_shot_settings import FewShotInner, FewShotTaskConfig
from seal_jax.training.settings import PLAIN, EngineOptions, ImitateConfig

# ARC has 400 to train on; each is checked against the model, which takes time.
Tasks = Annotated[int, Bound(1, 2000)]

# The ladder's rows: those of the base policy, then those of the last one.
BASE_ARMS = ("in_context", "random", "self_edits", "oracle")
LAST_ARMS = ("constant",)


@dataclasses.dataclass(frozen=True)
class FewShotScale:
    """How much of everything, for few-shot tasks."""

    rounds: Rounds
    tasks: Tasks
    edits: Edits
    seeds: Edits
    heldout_tasks: Tasks
    heldout_edits: Edits
    heldout_seeds: Edits

    def __post_init__(self):
        config_rules.check(self, "scale")
        check_products(self, "tasks")

    @property
    def adapters(self) -> int:
        """The most that are trained in one phase."""
        return max(
            self.tasks * self.edits * self.seeds,
            self.heldout_tasks * self.heldout_edits * self.heldout_seeds,
        )


@dataclasses.dataclass(frozen=True)
class FewShot:
    """Everything that decides the result of a run on few-shot tasks."""

    seed: Seed
    mesh: MeshConfig
    model: ModelSource
    task: FewShotTaskConfig
    scale: FewShotScale
    propose: Decoding
    edit: arc_edit.EditLimits
    data: arc_data.DataConfig
    inner: FewShotInner
    views: arc_vote.ViewsConfig
    answer: Decoding
    select: SelectConfig
    imitate: ImitateConfig
    stop: StopConfig
    ladder: tuple[str, ...]
    watch: WatchConfig

    def __post_init__(self):
        config_rules.check(self)
        self.stop.check_ladder(self.ladder, self.scale.heldout_tasks)
        for arm in self.ladder:
            config_rules.one_of("ladder", arm, (*BASE_ARMS, *LAST_ARMS))
        for name in self.select.measured:
            config_rules.one_of(
                "select.reward and compare", name, reward_names.FEW_SHOT_REWARDS
            )
        self.select.check_scale(edits=self.scale.edits, seeds=self.scale.seeds)
        self.select.check_imitate(
            self.imitate, edits=self.scale.edits, seeds=self.scale.seeds
        )
        if self.select.prefilter:
            raise ValueError(
                f"select.prefilter={self.select.prefilter} ranks edits that are "
                "texts, those of few-shot tasks are settings; use ()"
            )
        if self.select.novelty_bonus or self.select.max_copied < 1:
            raise ValueError(
                f"select.novelty_bonus={self.select.novelty_bonus} and "
                f"select.max_copied={self.select.max_copied} compare with a passage, "
                "few-shot tasks have none; use 0.0 and 1.0"
            )
        if self.model.chat != NONE:
            raise ValueError(
                f"model.chat={self.model.chat!r} is for passages, and few-shot tasks "
                f"have a chat of their own, task.chat={self.task.chat!r}; use 'none'"
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
    def engine(self) -> EngineOptions:
        """What the inner loop has to be made for besides (`capacity.choose`)."""
        return PLAIN
