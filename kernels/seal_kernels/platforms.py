"""Which platform programs are for, as far as that is known before they are compiled."""

import jax
from jax.extend import backend


def expects(platform: str) -> bool:
    """Whether programs traced here are, in all likelihood, for that platform.

    Else `auto` need not import and trace its kernel. Ahead of time, for a machine that
    this one is not, the mesh knows the device. Without one it is the default device.
    """
    described = jax.sharding.get_abstract_mesh().abstract_device
    here = described.platform if described else backend.get_default_device().platform
    return here in (platform, {"cuda": "gpu"}.get(platform))
