"""What a pretraining run is told: its corpus, the decoder's sizes, and the steps."""

import dataclasses
from typing import Annotated

from seal_jax.embedded import grids_corpus, hops_corpus, world_corpus
from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound, LearningRate, Seed, Share

CORPORA = {
    "world": world_corpus.corpus,
    "grids": grids_corpus.corpus,
    "hops": hops_corpus.corpus,
}


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Settings of one pretraining run; every field is written in its config file."""

    corpus: str
    seed: Seed
    steps: Annotated[int, Bound(1, 10_000_000)]
    chunk: Annotated[int, Bound(1, 10_000)]
    checkpoint_every: Annotated[int, Bound(1, 1_000_000)]
    rows: Annotated[int, Bound(1, 4096)]
    # The longest documents take nearly 200 tokens.
    row_tokens: Annotated[int, Bound(64, 16_384)]
    muon_learning_rate: LearningRate
    adam_learning_rate: LearningRate
    warmup: Annotated[int, Bound(0, 10_000_000)]
    decay_share: Share
    weight_decay: Annotated[float, Bound(0.0, 10.0, least=1e-9)]
    width: Annotated[int, Bound(24, 16_384)]
    # `init_params` sets heads of the first three layers, and up to the fourth head.
    layers: Annotated[int, Bound(3, 256)]
    heads: Annotated[int, Bound(4, 256)]
    ff: Annotated[int, Bound(1, 65_536)]
    rope_theta: Annotated[float, Bound(1.0, 1e12)]
    max_position: Annotated[int, Bound(64, 2**20)]

    def __post_init__(self):
        config_rules.one_of("corpus", self.corpus, CORPORA)
        config_rules.check(self)
        size = 2 * self.heads
        if self.width % size or self.width < 3 * size:
            fits = max(-(-self.width // size), 3) * size
            raise ValueError(
                f"width={self.width} must be a multiple of twice heads={self.heads}, "
                f"and 6 or more for each head; use {fits}"
            )
        if self.row_tokens > self.max_position:
            raise ValueError(
                f"row_tokens={self.row_tokens} must be at most max_position="
                f"{self.max_position}, which rows are positions of; use "
                f"{self.max_position}"
            )
        decay = int(self.decay_share * self.steps)
        if self.warmup + decay > self.steps:
            raise ValueError(
                f"warmup={self.warmup} steps and the last decay_share="
                f"{self.decay_share} of them must fit steps={self.steps}; use warmup="
                f"{self.steps - decay}"
            )
