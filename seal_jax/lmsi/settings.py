"""The experiment without labels as frozen dataclasses (`lmsi`); no jax.

`configs/lmsi.py` is one.
"""

import dataclasses
from typing import Annotated

from seal_jax.generation.settings import NONE, Decoding, ModelSource
from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import (
    Bound,
    Edits,
    Items,
    Rounds,
    Seed,
    Share,
    shown,
)
from seal_jax.runtime.settings import MeshConfig
from seal_jax.runtime.writers import WatchConfig
from seal_jax.tasks import chains
from seal_jax.tasks.questions import ROWS, QuestionsConfig
from seal_jax.training import outer_rules
from seal_jax.training.settings import (
    PLAIN,
    EngineOptions,
    ImitateConfig,
    InnerSizes,
)

# What is learned: the chains that reach the majority's answer; as many that are drawn
# at random; those that reach the gold answer.
MAJORITY, RANDOM, GOLD = ARMS = ("majority", "random_chain", "gold")


@dataclasses.dataclass(frozen=True)
class LmsiScale:
    """How much of everything. `heldout` may be 0: then nothing is held out."""

    rounds: Rounds
    questions: Items
    heldout: Annotated[int, Bound(0, 20_000)]

    def __post_init__(self):
        config_rules.check(self, "scale")


@dataclasses.dataclass(frozen=True)
class ChainsConfig:
    """What is made of a question's chains.

    `samples`: chains a question. `threshold`: a question is learned from if at least
    this share of its chains agree; 0 takes every question, 1 those without dissent.
    `cap`: chains that are kept of a question, at most, the first that were drawn; 0:
    all. `formats`: of `chains.FORMATS`; every kept chain is written in each of them.
    `shots`: worked questions that the formats with examples show; 0: none, and chains
    are asked for in words.
    """

    samples: Edits
    threshold: Share
    cap: Annotated[int, Bound(0, 1000)]
    formats: tuple[str, ...]
    shots: Annotated[int, Bound(0, 100)]

    def __post_init__(self):
        config_rules.check(self, "chains")
        for name in self.formats:
            config_rules.one_of("chains.formats", name, chains.FORMATS)
        config_rules.distinct("chains.formats", self.formats)
        if not self.formats:
            raise ValueError(
                "chains.formats=() must name a format to learn in; use "
                f"{chains.FORMATS}"
            )
        needing = [name for name in self.formats if name in chains.SHOWN]
        if needing and not self.shots:
            raise ValueError(
                f"chains.formats={shown(self.formats)}: {needing[0]!r} shows examples, "
                "and chains.shots=0 has none; raise chains.shots, or leave it out"
            )

    @property
    def chained(self) -> str:
        """The format in which chains are asked for."""
        return chains.FEW_CHAIN if self.shots else chains.ZERO_CHAIN

    @property
    def direct(self) -> str:
        """The format in which answers are asked for without chains."""
        return chains.FEW_DIRECT if self.shots else chains.ZERO_DIRECT


@dataclasses.dataclass(frozen=True)
class Lmsi:
    """Everything that decides the result of a run without labels.

    `propose`: how chains are drawn; `answer`: how the greedy rows are. Their prompts
    are names of `chains.TEMPLATES`. `arms`: what is learned, each in rounds of its own.
    """

    seed: Seed
    mesh: MeshConfig
    model: ModelSource
    task: QuestionsConfig
    scale: LmsiScale
    chains: ChainsConfig
    propose: Decoding
    imitate: ImitateConfig
    answer: Decoding
    arms: tuple[str, ...]
    watch: WatchConfig

    def __post_init__(self):
        config_rules.check(self)
        for arm in self.arms:
            config_rules.one_of("arms", arm, ARMS)
        if not self.arms:
            raise ValueError("arms=() must name what is learned; use ('majority',)")
        config_rules.distinct("arms", self.arms)
        for key, prompt in (
            ("propose.prompt", self.propose.prompt),
            ("answer.prompt", self.answer.prompt),
        ):
            config_rules.one_of(key, prompt, chains.TEMPLATES)
        if self.answer.temperature:
            raise ValueError(
                f"answer.temperature={self.answer.temperature} is of rows that are "
                "greedy; use 0.0 (chains are drawn at propose.temperature)"
            )
        if not self.propose.temperature and self.chains.samples > 1:
            raise ValueError(
                f"propose.temperature=0.0 makes all chains.samples="
                f"{self.chains.samples} chains of a question the same one; raise it, "
                "or use chains.samples=1"
            )
        if self.model.chat != NONE:
            raise ValueError(
                f"model.chat={self.model.chat!r} is for passages, and questions have "
                "prompts without turns; use 'none'"
            )
        if self.imitate.rule != outer_rules.BEST:
            raise ValueError(
                f"imitate.rule={self.imitate.rule!r} ranks edits, and chains that are "
                f"kept are all imitated; use {outer_rules.BEST!r}"
            )
        if GOLD in self.arms and self.task.name == ROWS and not self.task.answer:
            raise ValueError(
                f"arms={shown(self.arms)}: {GOLD!r} keeps chains by the gold answer, "
                "and task.answer='' names none; name its column, or leave the arm out"
            )
        if self.scale.heldout and self.task.name == ROWS and not self.task.answer:
            raise ValueError(
                f"scale.heldout={self.scale.heldout} questions are scored by their "
                "gold answers, and task.answer='' names none; name its column, or use "
                "scale.heldout=0"
            )
        config_rules.at_most(
            "chains of a round, scale.questions * chains.samples",
            self.scale.questions * self.chains.samples,
            config_rules.MOST_ADAPTERS,
        )

    @property
    def inner(self) -> InnerSizes:
        """Sizes of an inner loop that is never built: items have no adapters."""
        return InnerSizes(
            lora=self.imitate.lora,
            clip=self.imitate.clip,
            tile=8,
            row_tokens=64,
            step_tokens=64,
            slots=1,
            active=1,
            chunk_tokens=0,
            pool=1,
        )

    @property
    def adapters(self) -> int:
        """None that the packed engine trains."""
        return 0

    @property
    def lines_per_step(self) -> int:
        """Of no inner loop."""
        return 1

    @property
    def turn_end(self) -> str:
        """The token that ends an answer; empty: the model's own end of text."""
        return ""

    @property
    def engine(self) -> EngineOptions:
        """What the inner loop has to be made for besides: nothing."""
        return PLAIN
