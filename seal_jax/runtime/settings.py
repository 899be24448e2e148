"""Which devices a run takes, as a config says it."""

import dataclasses
from typing import Annotated

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices: `data` shards of adapters and rows, each with the base over `model`.

    `data = 0`: as many as the devices allow.
    """

    data: Annotated[int, Bound(0, 65_536)]
    model: Annotated[int, Bound(1, 65_536)]

    def __post_init__(self):
        config_rules.check(self, "mesh")
