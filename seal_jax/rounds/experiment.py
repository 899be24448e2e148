"""What experiments have in common: the groups that all kinds have, and the rounds'.

The kinds are in `seal_jax.experiment.kinds.KINDS`, each in the settings of its package.
"""

from typing import Protocol

from seal_jax.generation.settings import Decoding, ModelSource
from seal_jax.rounds.settings import LabelFreeConfig, SelectConfig, StopConfig
from seal_jax.runtime.settings import MeshConfig
from seal_jax.runtime.writers import WatchConfig
from seal_jax.training.settings import EngineOptions, ImitateConfig, InnerSizes


class Experiment(Protocol):
    """What a run asks of any kind of experiment.

    `adapters`: the most that are trained in one phase. `lines_per_step`: training lines
    of one optimizer step. `engine`: what the inner loop has to be made for besides
    (`capacity.choose`). `turn_end`: the token that ends an answer; empty: the model's
    own end of text. `imitate`: how the policy learns; None: it does not. `watch`: where
    its numbers go.
    """

    @property
    def seed(self) -> int: ...
    @property
    def mesh(self) -> MeshConfig: ...
    @property
    def model(self) -> ModelSource: ...
    @property
    def inner(self) -> InnerSizes: ...
    @property
    def propose(self) -> Decoding: ...
    @property
    def answer(self) -> Decoding: ...
    @property
    def imitate(self) -> ImitateConfig | None: ...
    @property
    def adapters(self) -> int: ...
    @property
    def lines_per_step(self) -> int: ...
    @property
    def engine(self) -> EngineOptions: ...
    @property
    def turn_end(self) -> str: ...
    @property
    def watch(self) -> WatchConfig: ...


class RoundsScale(Protocol):
    """How much of everything, whatever the items are."""

    @property
    def rounds(self) -> int: ...
    @property
    def edits(self) -> int: ...
    @property
    def seeds(self) -> int: ...
    @property
    def heldout_edits(self) -> int: ...
    @property
    def heldout_seeds(self) -> int: ...


class Imitates(Experiment, Protocol):
    """An experiment whose policy learns to write."""

    @property
    def imitate(self) -> ImitateConfig: ...


class Rounds(Imitates, Protocol):
    """What the rounds ask of their experiment.

    `ladder`: the rows to walk; of these `base_arms` are the base policy's and
    `last_arms` the last one's. `label_free`: None where items are no passages.
    """

    @property
    def scale(self) -> RoundsScale: ...
    @property
    def select(self) -> SelectConfig: ...
    @property
    def stop(self) -> StopConfig: ...
    @property
    def label_free(self) -> LabelFreeConfig | None: ...
    @property
    def ladder(self) -> tuple[str, ...]: ...
    @property
    def base_arms(self) -> tuple[str, ...]: ...
    @property
    def last_arms(self) -> tuple[str, ...]: ...
