"""Pretraining of the embedded model on the generated world."""

from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    config = ConfigDict()
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
    return config
