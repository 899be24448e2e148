"""What our kernels in Pallas that Triton compiles have in common.

jax has declared its Triton backend deprecated and means to drop it. Without it these
kernels are refused.
"""

import functools
import importlib
import warnings
from types import ModuleType
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

# No side of a product in Triton is shorter.
LEAST = 16


def dot(left: Array, right: Array) -> Array:
    """A product inside a kernel, summed in float32; of float32 in full precision."""
    exact = lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    return jnp.dot(left, right, precision=exact, preferred_element_type=jnp.float32)


def power_of_two(size: int, most: int) -> int:
    """The largest power of two up to `most` that divides a size: Triton's blocks."""
    return min(size & -size, most)


def params(**settings: int) -> Any:
    """A kernel's compiler settings."""
    return _triton().CompilerParams(**settings)


def check_dtype(dtype: Any) -> None:
    """Refuses a dtype that no kernel does.

    Raises:
      NotImplementedError: it is another.
    """
    if dtype not in (jnp.bfloat16, jnp.float16, jnp.float32):
        raise NotImplementedError(f"{dtype} is none of bfloat16, float16, float32")


def capability() -> int:
    """The compute capability that programs are compiled for, as 90.

    Raises:
      NotImplementedError: there is no such GPU, or it is before Ampere's.
    """
    try:
        found = _triton().get_gpu_info().compute_capability
    except ValueError as error:
        raise NotImplementedError(f"jax names no GPU to compile for: {error}") from None
    if found < 80:
        raise NotImplementedError(f"compute capability {found} is before Ampere's")
    return found


@functools.cache
def _triton() -> ModuleType:
    try:
        triton = importlib.import_module("jax.experimental.pallas.triton")
    except ImportError as error:
        raise NotImplementedError(f"this jax has no Triton ({error})") from None
    # Said of every kernel that is lowered; what becomes of it is said above.
    warnings.filterwarnings("ignore", message="The Pallas Triton backend is deprecated")
    return triton
