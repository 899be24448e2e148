"""Which data a round learns from: its own, or that of all rounds so far.

A model that is trained on its own output alone drifts: in linear regression its error
grows with every generation. If each generation's data are added to those before, the
error stays bounded (Gerstgrasser et al. 2024, arXiv 2404.01413, theorem 1).
"""

from collections.abc import Sequence

from seal_jax.training_settings import IMITATE_DATA


def training_set[T](
    past: Sequence[Sequence[T]], new: Sequence[T], policy: str
) -> list[T]:
    """What to train on in this round, in the order in which it came to be.

    Args:
      past: what earlier rounds brought, a sequence each, the first round first.
      new: what this round brought.
      policy: "replace" takes the new data alone, "accumulate" all of them.

    Raises:
      ValueError: unknown `policy`.
    """
    if policy not in IMITATE_DATA:
        raise ValueError(f"policy={policy!r} must be one of {', '.join(IMITATE_DATA)}")
    if policy == "replace":
        return list(new)
    return [one for own in (*past, new) for one in own]
