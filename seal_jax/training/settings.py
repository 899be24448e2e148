"""Settings of all training, and what they allow; no jax.

Of an adapter's inner loop (`LoraConfig`, `LossConfig`, `InnerConfig`), of its layout on
the device (`PlanConfig`, `EngineOptions`), of the policy's fine-tuning on kept edits
(`ImitateConfig`) and of full fine-tuning (`FullConfig`).
"""

import dataclasses
from collections.abc import Collection
from typing import Annotated

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import (
    AnySize,
    Batch,
    Bound,
    ClipNorm,
    Epochs,
    LearningRate,
    Share,
    Tokens,
)
from seal_jax.training import inner_rules, outer_rules
from seal_jax.training.inner_rules import RULES, TeachConfig
from seal_jax.training.outer_rules import PreferConfig

MASKED, REFERENCE, PADDED = "masked", "reference", "padded"
LINEAR, COSINE = "linear", "cosine"

# Which rounds' edits `ImitateConfig.data` takes; SEAL's own is "replace".
IMITATE_DATA = ("replace", "accumulate")

# More adapters than any memory holds: the compiled program says what fits.
MOST_SLOTS = 2**24
Tile = Annotated[int, Bound(1, 4096)]
# Rows are as wide as the longest text, rounded up to a multiple of it.
LengthMultiple = Annotated[int, Bound(1, 65_536)]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Which tokens of a line carry loss.

    A line is trained in a row: its tokens, then end-of-text, once or more. In a row of
    n tokens the model predicts all but the first, so n - 1 are targets, and n - g where
    the first g are given.

    `masked`: one end-of-text ends the row. The loss is the mean over a step's targets.

    `padded`: what SEAL's few-shot reference trains: end-of-text fills the row up to the
    job's longest line and its end, each of them a target. The loss is the mean over a
    step's targets.

    `reference`: what SEAL's TTT server trains: end-of-text fills the row up to `pad_to`
    tokens, each of them a target, and the sum is divided by `pad_to`. One line a step.

    A pad attends to the line and to no other pad, so pads are independent of each
    other. Exact: the terms of the line, the first end-of-text, and with
    `pad_samples = -1` all other pads. Estimated: with `pad_samples = k >= 0`, the pads'
    sum is k of them, one drawn from each of k equal strata, weighted to the full count.
    With k > 0 that is unbiased; k = 0 leaves out the pads after the first.

    `pad_to` is read by `reference` alone, `pad_samples` by the modes that pad.
    """

    mode: str
    pad_to: Annotated[int, Bound(2, 65_536)]  # A token and its target, at least.
    pad_samples: Annotated[int, Bound(-1, 65_536)]

    def __post_init__(self):
        config_rules.one_of("inner.loss.mode", self.mode, (MASKED, PADDED, REFERENCE))
        config_rules.check(self, "inner.loss")

    def row(self, tokens: int, longest: int) -> int:
        """Tokens of the whole row of a line of `tokens`, of a job's up to `longest`."""
        if self.mode == REFERENCE:
            return self.pad_to
        return (tokens if self.mode == MASKED else longest) + 1

    def extra(self, tokens: int, longest: int | None = None) -> int:
        """How many pad positions are computed beside a line of `tokens` tokens.

        Its job's longest line has `longest` tokens; None: this is the longest.
        """
        pads = max(0, self.row(tokens, longest or tokens) - 1 - tokens)
        return pads if self.pad_samples < 0 else min(pads, self.pad_samples)

    def longest(self, width: int) -> int:
        """Tokens of the longest line that fits `width` positions with its pads.

        Raises:
          ValueError: not even a line of one token does.
        """
        longest = self.pad_to if self.mode == REFERENCE else width
        for tokens in range(min(longest, width), 0, -1):
            if tokens + self.extra(tokens) <= width:
                return tokens
        raise ValueError(
            f"inner.row_tokens={width} holds no line beside its {self.extra(1)} pads; "
            f"use {self.pad_to}"
        )


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """How lines are laid into global steps.

    A step has `step_tokens` positions in rows of `row_tokens`, within which attention
    works; a line lies in one row. A `tile` of positions belongs to one adapter. `slots`
    adapters are in training at a time.

    A step comes in chunks of `chunk_tokens` positions, parts or multiples of a row (0,
    or not less than the step: one chunk). At most `active` adapters have lines, or
    parts of lines, in a chunk: each has a place there. Where all positions are
    multiplied with all adapters that may be theirs, fewer are wanted.

    With `by_slot` every slot has the place of its number, and its adapter is multiplied
    with where it lies. That is for kernels to which adapters that no position is under
    cost nothing; steps are one chunk then.
    """

    tile: Tile
    row_tokens: Tokens
    step_tokens: Annotated[int, Bound(1, 2**20)]
    slots: Annotated[int, Bound(1, MOST_SLOTS)]
    active: Annotated[int, Bound(1, MOST_SLOTS)]
    chunk_tokens: AnySize = 0
    by_slot: bool = False

    def __post_init__(self):
        config_rules.check(self, "inner")
        if self.by_slot and self.chunks > 1:
            raise ValueError(
                f"by_slot=True takes steps of one chunk, chunk_tokens="
                f"{self.chunk_tokens} cuts those of {self.step_tokens} tokens; use 0"
            )
        _multiple("row_tokens", self.row_tokens, "tile", self.tile)
        _multiple("step_tokens", self.step_tokens, "row_tokens", self.row_tokens)
        if 0 < self.chunk_tokens < self.step_tokens:
            check_chunk(self.chunk_tokens, self.row_tokens)
            _multiple("chunk_tokens", self.chunk_tokens, "tile", self.tile)
            _multiple(
                "step_tokens", self.step_tokens, "chunk_tokens", self.chunk_tokens
            )

    @property
    def chunks(self) -> int:
        """Chunks of a step; one if it is no longer than a chunk."""
        return max(1, self.step_tokens // (self.chunk_tokens or self.step_tokens))

    @property
    def places(self) -> int:
        """Places for adapters in a step, chunk by chunk."""
        return self.slots if self.by_slot else self.chunks * self.active

    def short(self) -> "PlanConfig":
        """An eighth of a step's rows and places, rounded up (`plan.steps`)."""
        rows, eighth = self.step_tokens // self.row_tokens, -(-self.active // 8)
        tokens = -(-rows // 8) * self.row_tokens
        return dataclasses.replace(self, step_tokens=tokens, active=eighth)

    def tiles(self, positions: int) -> int:
        """Tiles that a line of so many positions takes."""
        return -(-positions // self.tile)


def check_chunk(chunk: int, row: int) -> None:
    """Refuses chunks of a step that begin anywhere in its rows.

    A row with the end of one chunk and the beginning of another, which it shares with
    the row after it, would be filled past what that one can take.

    Raises:
      ValueError: see above.
    """
    if row % chunk == 0 or chunk % row == 0:
        return
    larger = -(-chunk // row) * row
    use = next((n for n in range(chunk, row) if row % n == 0), larger)
    raise ValueError(
        f"inner.chunk_tokens={chunk} must be a part or a multiple of inner.row_tokens="
        f"{row}; use {use}"
    )


def _multiple(name: str, value: int, unit: str, size: int) -> None:
    if value % size:
        raise ValueError(
            f"inner.{name}={value} must be a multiple of inner.{unit}={size}; use "
            f"{-(-value // size) * size}"
        )


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """An adapter's shape; the applied scale is `alpha / rank`."""

    targets: tuple[str, ...]
    rank: Annotated[int, Bound(1, 65_536)]
    alpha: Annotated[float, Bound(1e-3, 1e6)]

    def __post_init__(self):
        config_rules.distinct("targets", self.targets)
        config_rules.check(self)


@dataclasses.dataclass(frozen=True)
class InnerSizes:
    """What every inner loop has; sizes of `PlanConfig` and `inner.EngineConfig`.

    A size of 0 is chosen to fit the device (`capacity.choose`), but for `chunk_tokens`.
    No size changes what an adapter learns, but for `row_tokens`: where a self-edit is
    text, longer lines are cut there, are counted, and have no end-of-text.
    """

    lora: LoraConfig
    clip: ClipNorm
    tile: Tile
    row_tokens: Tokens
    step_tokens: AnySize
    slots: Annotated[int, Bound(0, MOST_SLOTS)]
    active: Annotated[int, Bound(0, MOST_SLOTS)]
    chunk_tokens: AnySize
    pool: Annotated[int, Bound(0, MOST_SLOTS)]

    def __post_init__(self):
        config_rules.check(self, "inner")
        # Whatever is open, the rest must be a legal plan; an open step may have chunks.
        if self.chunk_tokens and not self.step_tokens:
            check_chunk(self.chunk_tokens, self.row_tokens)
        PlanConfig(
            self.tile,
            self.row_tokens,
            self.step_tokens or self.row_tokens,
            self.slots or 1,
            self.active or 1,
            self.chunk_tokens,
        )


@dataclasses.dataclass(frozen=True)
class InnerConfig(InnerSizes):
    """The inner loop of passages: a line a step, linear decay.

    `rule`: what is learned of a self-edit, one of `inner_rules.RULES`; `teach`: what
    rules other than "edits" need.
    """

    learning_rate: LearningRate
    epochs: Epochs
    loss: LossConfig
    rule: str
    teach: TeachConfig | None

    def __post_init__(self):
        super().__post_init__()
        config_rules.one_of("inner.rule", self.rule, tuple(RULES))
        config_rules.check(self, "inner")

    def rate(self, rule: str) -> float:
        """The learning rate of a rule."""
        own = self.teach.rates.of(rule) if self.teach is not None else 0.0
        return own or self.learning_rate

    def check_rule(self, rule: str, why: str) -> None:
        """Refuses a rule that this inner loop cannot follow, which `why` asks for.

        Raises:
          ValueError: the group `teach` is missing, the loss is not of single tokens, or
            there are more waves than epochs.
        """
        if rule == inner_rules.EDITS:
            return
        teach = config_rules.needs_group(self.teach, "inner.teach", why)
        if self.loss.mode != MASKED:
            raise ValueError(
                f"inner.loss.mode={self.loss.mode!r} trains whole rows, and {why} "
                f"single tokens of a line; use {MASKED!r}"
            )
        if RULES[rule].practises and self.epochs < teach.waves:
            raise ValueError(
                f"inner.teach.waves={teach.waves} must be at most inner.epochs="
                f"{self.epochs}, for {why}; use {self.epochs}"
            )

    def engine(
        self, rules: Collection[str], *, asked: int, answer: int, written: int
    ) -> "EngineOptions":
        """What the engine has to be made for, to follow these rules.

        Args:
          rules: of `inner_rules.RULES`.
          asked: the most questions of a quiz.
          answer: the most tokens of an answer.
          written: the most tokens of a self-edit of statements.
        """
        found = [RULES[rule] for rule in rules]
        if self.teach is None or not any(rule.taught for rule in found):
            return PLAIN
        # End-of-text is taught, too.
        most = [
            asked * (answer + 1) if rule.asks else written
            for rule in found
            if rule.taught
        ]
        return EngineOptions(
            teach=self.teach.divergence,
            beta=self.teach.beta,
            bank=self.teach.tokens or max(most),
            resumes=any(rule.practises for rule in found),
        )


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """What an inner loop is made for besides an adapter on the base alone.

    The fields are those of `inner.EngineConfig`, which says what they do.
    """

    frozen_rank: int = 0
    frozen_rows: int = 0
    orthogonal: float = 0.0
    divergence: bool = False
    teach: str = ""
    beta: float = 0.5
    bank: int = 0
    resumes: bool = False

    def joined(self, other: "EngineOptions") -> "EngineOptions":
        """The options of a program that serves both: the larger of each.

        Raises:
          ValueError: both have teachers, by different divergences.
        """
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        both = EngineOptions(*map(max, pairs))
        if self.teach and other.teach:
            if (self.teach, self.beta) != (other.teach, other.beta):
                raise ValueError(
                    f"teach={self.teach!r}, beta={self.beta} and teach={other.teach!r}"
                    f", beta={other.beta} need a program each; use one of the two"
                )
            return both
        return dataclasses.replace(both, beta=(self if self.teach else other).beta)


# Adapters on the base alone.
PLAIN = EngineOptions()


@dataclasses.dataclass(frozen=True)
class ImitateConfig:
    """Fine-tuning of the policy on the edits of a round.

    `rule`: what is learned of them, one of `outer_rules.RULES`; `prefer`: what rules
    other than "best" need. Cross-entropy is trained by `imitate.train`, pairs and
    groups by `prefer.train`.

    `start`: "previous" trains on the policy that wrote the edits, "base" on the one
    that the run began with. `data`: "replace" takes the edits of this round,
    "accumulate" those of all rounds. SEAL's are previous and replace; ReST-EM starts
    from the base. `batch` counts edits, or pairs of them. `micro_batch` counts packed
    rows, whose gradient is taken at once: it costs memory and changes no result but by
    rounding.
    """

    start: str
    data: str
    lora: LoraConfig
    learning_rate: LearningRate
    schedule: str
    epochs: Epochs
    batch: Batch
    micro_batch: Batch
    clip: ClipNorm
    length_multiple: LengthMultiple
    rule: str
    prefer: PreferConfig | None

    def __post_init__(self):
        config_rules.one_of("imitate.rule", self.rule, tuple(outer_rules.RULES))
        config_rules.one_of("imitate.start", self.start, ("previous", "base"))
        config_rules.one_of("imitate.data", self.data, IMITATE_DATA)
        config_rules.one_of("imitate.schedule", self.schedule, (LINEAR, COSINE))
        config_rules.check(self, "imitate")
        if self.batch % self.micro_batch:
            raise ValueError(
                f"imitate.batch={self.batch} must be a multiple of "
                f"imitate.micro_batch={self.micro_batch}; use micro_batch=1"
            )
        if self.rule != outer_rules.BEST:
            why = f"imitate.rule={self.rule!r}"
            config_rules.needs_group(self.prefer, "imitate.prefer", why)
        if outer_rules.RULES[self.rule].groups and self.start == "base":
            raise ValueError(
                f"imitate.start='base' trains a policy that did not write the edits, "
                f"and the advantages of imitate.rule={self.rule!r} are of those that "
                "the trained policy writes; use 'previous'"
            )

    @property
    def by_rule(self) -> "ImitateConfig":
        """With the learning rate of its rule in place of the common one."""
        own = self.prefer.rates.of(self.rule) if self.prefer is not None else 0.0
        return dataclasses.replace(self, learning_rate=own or self.learning_rate)


@dataclasses.dataclass(frozen=True)
class FullConfig:
    """Full fine-tuning: `batch` texts a step, packed into rows (`finetune`).

    The rate climbs over the share `warmup_share` of the steps, then falls linearly to
    zero. `micro_batch`: rows whose gradient is taken at once. Rows are as wide as the
    longest text, rounded up to `length_multiple`; texts are cut at `inner.row_tokens`.
    """

    learning_rate: LearningRate
    epochs: Epochs
    batch: Batch
    micro_batch: Batch
    warmup_share: Share
    clip: ClipNorm
    length_multiple: LengthMultiple

    def __post_init__(self):
        config_rules.check(self, "full")
