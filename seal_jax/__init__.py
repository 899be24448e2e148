"""SEAL (self-adapting language models) in JAX: many adapters trained at once.

    import seal_jax as seal

is the interface for other programs (docs/api.md); its names are looked up when they are
used, so that importing this brings no jax.

Packages from the bottom to the top: runtime, analysis, models, training, generation,
tasks, rewards, rounds, continual, deploy, pooled, lmsi, report, embedded; then
`experiment`, a run from the first check to the last file, `forecast`, what it is going
to cost, `train`, its command, `api`, and `commands`, the others. Each imports only from
those before it.
The round is `seal_jax/rounds/rest_em.py`.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from seal_jax.api.adapters import Adapter, Adapters, stack
    from seal_jax.api.models import Model, load
    from seal_jax.api.peft_files import load_peft
    from seal_jax.api.training import iter_adapters, train_adapters

__all__ = [
    "Adapter",
    "Adapters",
    "Model",
    "iter_adapters",
    "load",
    "load_peft",
    "stack",
    "train_adapters",
]

_PLACES = {
    "Adapter": "adapters",
    "Adapters": "adapters",
    "Model": "models",
    "iter_adapters": "training",
    "load": "models",
    "load_peft": "peft_files",
    "stack": "adapters",
    "train_adapters": "training",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.api.{_PLACES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
