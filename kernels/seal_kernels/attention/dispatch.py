"""Which implementation of attention runs, and what happens if it cannot.

As for the low-rank matmul: `NotImplementedError` from an implementation means "not this
one". `auto` then takes the next, in the end XLA, and a name that was asked for raises
it, when the program is compiled.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
from jax import Array, lax

from seal_kernels.attention import reference, xla
from seal_kernels.platforms import expects
from seal_kernels.refusal import refuse

IMPLEMENTATIONS = ("auto", "reference", "xla", "tokamax", "triton", "splash")

# The one platform that a kernel is written for; the others run anywhere.
PLATFORMS = {"tokamax": "cuda", "triton": "cuda", "splash": "tpu"}
_MODULES = {"tokamax": "tokamax_gpu", "triton": "triton_gpu", "splash": "splash_tpu"}
# What `auto` takes, the first that does it; XLA if none does. Modelled: tokamax's
# forward kernels are made for the newest GPUs and pass over what nobody sees, its
# backward kernels do not.
_CHOICE = {
    "forward": {"cuda": ("tokamax", "triton"), "tpu": ("splash",)},
    "backward": {"cuda": ("triton", "tokamax"), "tpu": ("splash",)},
    "decode": {"cuda": ("tokamax",), "tpu": ("splash",)},
}


def forward(
    implementation: str, *operands: Array, causal: bool = False
) -> tuple[Array, Array]:
    """`reference.forward` by the named implementation; see `api.attention`."""
    return run(implementation, "forward", operands, causal=causal)


def backward(
    implementation: str, *operands: Array, causal: bool = False
) -> tuple[Array, Array, Array]:
    """`reference.backward` by the named implementation; see `api.attention`."""
    return run(implementation, "backward", operands, causal=causal)


def decode(implementation: str, *operands: Array) -> Array:
    """`reference.decode` by the named implementation; see `api.decode`."""
    return run(implementation, "decode", operands)


def run(
    implementation: str, what: str, operands: tuple[Array, ...], *, causal: bool = False
) -> Any:
    """The function `what` of the implementation's module.

    `causal`, that no range goes past its query, is of use to `tokamax` alone. `auto` is
    a kernel made for the platform; no measurement says so yet, only a model
    (docs/engine.md).
    """
    if implementation == "reference":
        return getattr(reference, what)(*operands)
    plain = functools.partial(getattr(xla, what), *operands)
    run_one = functools.partial(_kernel, what, operands, causal)
    branches: dict[str, Callable[[], Any]] = {}
    if implementation in PLATFORMS:
        refused = functools.partial(_refused, implementation, plain=plain)
        asked = functools.partial(run_one, (implementation,), refused)
        branches[PLATFORMS[implementation]] = asked
        elsewhere = f"it is for {PLATFORMS[implementation]} only"
        return lax.platform_dependent(**branches, default=lambda: refused(elsewhere))
    if implementation == "auto":
        for platform, names in _CHOICE[what].items():
            if expects(platform):
                branches[platform] = functools.partial(
                    run_one, names, lambda reason: plain()
                )
    on_cpu = functools.partial(plain, sizes=xla.ON_CPU)
    return lax.platform_dependent(cpu=on_cpu, **branches, default=plain)


def _kernel(
    what: str,
    operands: tuple[Array, ...],
    causal: bool,
    names: Sequence[str],
    refused: Callable[[str], Any],
) -> Any:
    """By the first of those that does it, else `refused` with the last's reason."""
    reason = ""
    for name in names:
        settings = {"causal": True} if causal and name == "tokamax" else {}
        try:
            return getattr(_module(name), what)(*operands, **settings)
        except NotImplementedError as error:
            reason = str(error)
    return refused(reason)


def _refused(name: str, reason: str, plain: Callable[[], Any]) -> Any:
    message = f"attention: implementation={name!r} does not run here: {reason}"
    return refuse(f"{message}; use 'auto' or 'xla'", jax.eval_shape(plain))


def _module(name: str) -> ModuleType:
    # Imported where it is asked for: Pallas takes a while, tokamax need not be there.
    return importlib.import_module(f"seal_kernels.attention.{_MODULES[name]}")
