"""Which implementation of the low-rank matmul runs, and what happens if it cannot.

`NotImplementedError` from an implementation means "not this one": `auto` then takes
`plain`, and a name that was asked for raises it, at the time the program is compiled.
Not earlier, for two reasons. Only then is the platform known, which need not be that
of the machine that traces. And `custom_vmap` traces its function for one adapter
before the batch is known: a shape may be refused there that never runs.
"""

import functools
import importlib
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax import Array, lax

from seal_kernels import float8, triton
from seal_kernels.lora_matmul import dense, reference, xla
from seal_kernels.platforms import expects
from seal_kernels.refusal import refuse
from seal_kernels.tuned import table

IMPLEMENTATIONS = (
    "auto",
    "plain",
    "reference",
    "xla",
    "dense",
    "triton",
    "mosaic_gpu",
    "mosaic_tpu",
)

# What a measurement may speak of.
MEASURED = IMPLEMENTATIONS[2:]

# The one platform that a kernel is written for; the others run anywhere.
PLATFORMS = {"triton": "cuda", "mosaic_gpu": "cuda", "mosaic_tpu": "tpu"}
_MODULES = {
    "triton": "triton_gpu",
    "mosaic_gpu": "mosaic_gpu",
    "mosaic_tpu": "mosaic_tpu",
}


def forward(
    implementation: str,
    x_MD: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    chunks: int = 1,
    sound_S: Array | None = None,
) -> tuple[Array, Array]:
    """`reference.forward` by the named implementation; see `api.lora_matmul`.

    Of `chunks` and `sound_S` only `dense` makes use: no tile names a slot of another
    chunk, and by tiles nothing of an adapter reaches another.
    """
    shape = _shape("forward", x_MD, b_SRF, slots_G)
    operands = x_MD, w_DF, a_SRD, b_SRF, slots_G
    return _run(implementation, shape, operands, (chunks, sound_S))


def backward(
    implementation: str,
    dy_MF: Array,
    x_MD: Array,
    u_MR: Array,
    w_DF: float8.Base,
    a_SRD: Array,
    b_SRF: Array,
    slots_G: Array | np.ndarray,
    chunks: int = 1,
    sound_S: Array | None = None,
) -> tuple[Array, Array, Array]:
    """`reference.backward` by the named implementation; see `forward`.

    The gradients of a and b are in their dtypes.
    """
    shape = _shape("backward", x_MD, b_SRF, slots_G)
    operands = (dy_MF, x_MD, u_MR, w_DF, a_SRD, b_SRF, slots_G)
    return _run(implementation, shape, operands, (chunks, sound_S))


def reads_in_place(implementation: str, *sizes: int) -> bool:
    """Whether packed rows meet, on the device here, their own adapters alone.

    Then an adapter that no row is under costs nothing, and a stack may be as long as is
    convenient. With XLA's own operations (`plain`) each one of a chunk costs something.
    `sizes` are the ranks and widths that there are. Where `auto` has measurements of
    this device, all must speak for `triton`.
    """
    if implementation not in ("auto", "triton") or not expects("cuda"):
        return False
    if any(size % triton.LEAST for size in sizes):
        return False
    if implementation == "auto":
        measured = table.entries("lora_matmul", _device_kind())
        others = [e for e in measured if e.implementation != "triton" or not e.ahead()]
        if others:
            return False
    try:
        triton.capability()
    except NotImplementedError:
        return False
    return True


def choose(
    shape: table.Shape, device_kind: str, folder: pathlib.Path | None = None
) -> tuple[str, Mapping[str, Any]]:
    """What `auto` runs by the committed measurements, if there are any.

    Returns:
      The implementation that was measured ahead of XLA, and the fields of its `Config`;
      "plain" if XLA was ahead, "auto" if nothing was measured near this shape.

    Raises:
      ValueError: the table names no implementation.
    """
    entry = table.nearest("lora_matmul", shape, device_kind, folder)
    if entry is None:
        return "auto", {}
    if entry.implementation not in MEASURED:
        raise ValueError(
            f"{table.path_of(device_kind, folder)}: implementation="
            f"{entry.implementation!r} must be one of {', '.join(MEASURED)}"
        )
    if not entry.ahead():
        return "plain", {}
    return entry.implementation, entry.config


def _shape(
    direction: str, x_MD: Array, b_SRF: Array, slots_G: Array | np.ndarray
) -> table.Shape:
    rows, width = x_MD.shape
    _, rank, features = b_SRF.shape
    return table.Shape(
        direction=direction,
        dtype=x_MD.dtype.name,
        M=rows,
        D=width,
        F=features,
        R=rank,
        tile=rows // len(slots_G),
    )


def _run(
    implementation: str,
    shape: table.Shape,
    operands: tuple[Any, ...],
    of_dense: tuple[int, Array | None],
) -> Any:
    def run(module: ModuleType, *more: Any, **settings: Any) -> Any:
        made = getattr(module, shape.direction)(*operands, *more, **settings)
        backward = shape.direction == "backward"
        return _in_their_dtypes(made, operands) if backward else made

    tiled = functools.partial(run, xla)
    whole = functools.partial(run, dense, *of_dense)
    chunks, _ = of_dense

    def plain() -> Any:
        """XLA's own operations, as the platform likes them."""
        *_, b_SRF, slots_G = operands
        known = isinstance(slots_G, np.ndarray)  # A tile each: nothing to gather.
        if known or not dense.pays(len(b_SRF) // chunks, shape.tile):
            return tiled()
        return lax.platform_dependent(cpu=tiled, default=whole)

    def unmeasured() -> Any:
        """On CUDA by `triton` where it gathers nothing; modelled, not measured."""
        *_, slots_G = operands
        if isinstance(slots_G, np.ndarray) or not expects("cuda"):
            return plain()
        by_ranges = functools.partial(_kernel, "triton", run, operands, {})
        return lax.platform_dependent(
            cuda=lambda: by_ranges(lambda reason: plain()), default=plain
        )

    name, config = implementation, {}
    if name == "auto":
        name, config = choose(shape, _device_kind())
    match name:
        case "auto":
            return unmeasured()
        case "plain":
            return plain()
        case "xla":
            return tiled()
        case "dense":
            return whole()
        case "reference":
            return run(reference)

    def otherwise(reason: str) -> Any:
        if implementation == "auto":
            return plain()
        message = f"lora_matmul: implementation={name!r} does not run here: {reason}"
        return refuse(f"{message}; use 'auto' or 'xla'", jax.eval_shape(tiled))

    platform = PLATFORMS[name]
    kernel = functools.partial(_kernel, name, run, operands, config, otherwise)
    elsewhere = lambda: otherwise(f"it is for {platform} only")
    return lax.platform_dependent(**{platform: kernel}, default=elsewhere)


def _in_their_dtypes(
    gradients: tuple[Array, Array, Array], operands: tuple[Any, ...]
) -> tuple[Array, Array, Array]:
    """A backward pass's, whose sums are in float32, those of a and b in their dtypes.

    Here and not behind the door, so that one that writes them so has no wider ones.
    """
    dx_MD, da_SRD, db_SRF = gradients
    *_, a_SRD, b_SRF, _ = operands
    return dx_MD, da_SRD.astype(a_SRD.dtype), db_SRF.astype(b_SRF.dtype)


def _kernel(
    name: str,
    run: Callable[..., Any],
    operands: tuple[Any, ...],
    config: Mapping[str, Any],
    otherwise: Callable[[str], Any],
) -> Any:
    """The kernel, or `otherwise` with the reason why not."""
    in_float8 = any(isinstance(x, float8.Weights) for x in operands)
    if in_float8 and name != "triton":
        return otherwise("it takes no base in float8")
    try:
        module = _module(name)
        tuned = {"config": module.Config(**config)} if config else {}
        return run(module, **tuned)
    except NotImplementedError as error:
        return otherwise(str(error))


def _module(name: str) -> ModuleType:
    # Imported where it is asked for: Pallas takes a while, and most runs need none.
    return importlib.import_module(f"seal_kernels.lora_matmul.{_MODULES[name]}")


def _device_kind() -> str:
    # Ahead of time, for a machine that this one is not, the mesh knows the device.
    described = jax.sharding.get_abstract_mesh().abstract_device
    return described.device_kind if described else jax.devices()[0].device_kind
