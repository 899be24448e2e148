"""Pretraining of the embedded models on generated worlds.

    python -m seal_jax pretrain --config=configs/tiny_pretrain.py --workdir=DIR

12,000 steps, 21.5 million tokens: about 20 minutes on 2 CPU cores. The loss, a weighted
mean in which answers dominate, ends near 0.38; every probe ends at 0.99 or above. The
result, `DIR/model`, is what `seal_jax/embedded/assets/tiny` holds.

    python -m seal_jax pretrain --config=configs/tiny_pretrain.py:arc --workdir=DIR

4,000 steps, 7.2 million tokens: about 14 minutes on 2 CPU cores shared with other work.
The loss ends near 0.09, most of it the author's choices in self-edits; the probe `copy`
ends at 1.00. The result is what `seal_jax/embedded/assets/grids` holds.

    python -m seal_jax pretrain --config=configs/tiny_pretrain.py:hops --workdir=DIR

4,000 steps, 7.6 million tokens: 38 minutes on 2 CPU cores that much other work shared.
The loss ends near 0.20, most of it the author's choice among ways of telling; the
probes `memory` and `chain` end at 1.00. The result is what
`seal_jax/embedded/assets/hops` holds.
"""

from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "arc", "hops", or "debug": a minute, and next to nothing."""
    if arg not in (None, "", "arc", "hops", "debug"):
        raise ValueError(
            f"configs/tiny_pretrain.py:{arg}: the variants are '', 'arc', 'hops' and "
            "'debug'"
        )
    config = ConfigDict()
    config.corpus = "world"
    config.seed = 0
    config.steps = 12_000
    config.chunk = 50
    config.checkpoint_every = 20
    config.rows = 10
    config.row_tokens = 192
    config.muon_learning_rate = 0.02
    config.adam_learning_rate = 3e-3
    config.warmup = 200
    config.decay_share = 0.4
    config.weight_decay = 0.02
    config.width = 128
    config.layers = 4
    config.heads = 4
    config.ff = 352
    config.rope_theta = 1e6
    config.max_position = 512
    if arg == "arc":
        config.corpus = "grids"
        config.steps = 4000
        config.rows = 8
        config.row_tokens = 256
        config.max_position = 2048
    if arg == "hops":
        config.corpus = "hops"
        config.steps = 4000
        config.ff = 256
    if arg == "debug":
        config.steps = 20
        config.chunk = 10
        config.checkpoint_every = 1
        config.rows = 2
        config.warmup = 5
    return config
