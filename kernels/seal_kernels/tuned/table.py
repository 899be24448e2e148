"""Committed measurements of kernels: what was timed on a device, and the nearest one.

One file a device kind, `nvidia-h200.json` for "NVIDIA H200":

    {"lora_matmul": [
      {"direction": "forward", "M": 2048, "D": 3584, "F": 3584, "R": 32, "tile": 16,
       "dtype": "bfloat16", "implementation": "mosaic_gpu", "config": {"tile_m": 64},
       "seconds": 1.1e-4, "xla_seconds": 1.2e-4}]}

Measurements that lost to XLA stay in the table: they keep a neighbour's win from
spreading to where it does not hold.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

FOLDER = pathlib.Path(__file__).parent
DIRECTIONS = ("forward", "backward")

# One measurement speaks for shapes up to this factor away, in every dimension.
REACH = 2.0


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a low-rank matmul is asked to do; `tile` rows share an adapter."""

    direction: str
    dtype: str
    M: int
    D: int
    F: int
    R: int
    tile: int

    def sizes(self) -> tuple[int, ...]:
        return self.M, self.D, self.F, self.R, self.tile


@dataclasses.dataclass(frozen=True)
class Entry:
    """One measurement: the best found for a shape, and XLA's time for the same."""

    shape: Shape
    implementation: str
    config: Mapping[str, Any]
    seconds: float
    xla_seconds: float

    def ahead(self) -> bool:
        """Whether it was faster than XLA."""
        return self.seconds < self.xla_seconds


def path_of(device_kind: str, folder: pathlib.Path | None = None) -> pathlib.Path:
    """The file of a device kind: its name in lower case, words joined by dashes."""
    words = re.findall(r"[a-z0-9.]+", device_kind.lower())
    return (folder or FOLDER) / f"{'-'.join(words)}.json"


def entries(
    op: str, device_kind: str, folder: pathlib.Path | None = None
) -> tuple[Entry, ...]:
    """All measurements of an operation on a device; arguments as of `nearest`."""
    return _load(path_of(device_kind, folder), op)


def nearest(
    op: str, shape: Shape, device_kind: str, folder: pathlib.Path | None = None
) -> Entry | None:
    """The measurement nearest to a shape, of the same direction and dtype.

    Near is a small sum of |log2| of the ratios of sizes, none beyond `REACH`.

    Args:
      op: the operation's name in the file, such as `lora_matmul`.
      shape: what is about to run.
      device_kind: as JAX names the device, `jax.devices()[0].device_kind`.
      folder: where the tables are; the packaged ones if not given.

    Returns:
      The entry, or None without one in reach.

    Raises:
      ValueError: the table is not as the module's docstring says.
    """
    if min(shape.sizes()) < 1:
        return None
    found = None
    least = math.inf
    for entry in entries(op, device_kind, folder):
        same = (entry.shape.direction, entry.shape.dtype)
        if same != (shape.direction, shape.dtype):
            continue
        pairs = zip(entry.shape.sizes(), shape.sizes(), strict=True)
        gaps = [abs(math.log2(one / other)) for one, other in pairs]
        if max(gaps) <= math.log2(REACH) and sum(gaps) < least:
            found, least = entry, sum(gaps)
    return found


@functools.cache
def _load(path: pathlib.Path, op: str) -> tuple[Entry, ...]:
    if not path.is_file():
        return ()
    try:
        rows = json.loads(path.read_text(encoding="utf-8")).get(op, [])
        return tuple(_entry(row) for row in rows)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: {error!r} in the entries of {op}; write them as "
            "seal_kernels.tuned.table says"
        ) from error


def _entry(row: dict[str, Any]) -> Entry:
    shape = Shape(**{f.name: row[f.name] for f in dataclasses.fields(Shape)})
    if shape.direction not in DIRECTIONS or min(shape.sizes()) < 1:
        raise ValueError(f"no such shape: {shape}")
    return Entry(
        shape=shape,
        implementation=row["implementation"],
        config=row.get("config", {}),
        seconds=row["seconds"],
        xla_seconds=row["xla_seconds"],
    )
