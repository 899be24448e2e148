"""Which devices a run takes, as a config says it."""

import dataclasses

from seal_jax.runtime import config_rules


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices: `data` shards of adapters and rows, each with the base over `model`.

    `data = 0`: as many as the devices allow.
    """

    data: int
    model: int

    def __post_init__(self):
        config_rules.at_least("mesh.data", self.data, 0)
        config_rules.at_least("mesh.model", self.model, 1)
