"""The machine a run is on: its memory and peak, compiled programs, other processes."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

# Dense bfloat16 FLOP/s of one device, from the vendors' data sheets.
PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}

# Share of a device's memory that may be planned for; the rest is the allocator's, for
# fragments, and the runtime's.
USABLE = 0.92


def peak_flops(device: Any) -> float | None:
    """Dense bfloat16 FLOP/s of `device`, or None where it is not known."""
    kinds = [k for k in PEAK_FLOPS if device.device_kind.startswith(k)]
    return PEAK_FLOPS[max(kinds, key=len)] if kinds else None


def memory_limit(device: Any) -> int:
    """Bytes that a program may use on `device`: its memory times `USABLE`.

    A CPU's is the machine's, shared by the CPU devices of this process.
    """
    stats = device.memory_stats() or {}
    if device.platform == "cpu" or "bytes_limit" not in stats:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return int(USABLE * whole / jax.local_device_count())
    return int(USABLE * stats["bytes_limit"])


def cache_programs() -> None:
    """Keeps compiled programs on disk, for later runs, unless jax is told where.

    Under `$XDG_CACHE_HOME/seal_jax`, or ~/.cache/seal_jax. `JAX_COMPILATION_CACHE_DIR`
    names another folder, `JAX_ENABLE_COMPILATION_CACHE=0` turns it off. A user without
    a home folder, as in some containers, has none.
    """
    # Not Path.home, which raises there.
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if jax.config.jax_compilation_cache_dir is None and not root.startswith("~"):
        folder = Path(root) / "seal_jax" / "programs"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@dataclasses.dataclass
class CompileTimes:
    """Seconds spent in XLA's compiler, and in reading programs back from the cache."""

    cold: float = 0.0
    warm: float = 0.0
    programs: int = 0
    from_cache: int = 0

    def line(self) -> str:
        """For people."""
        compiled = self.programs - self.from_cache
        return (
            f"{compiled} programs compiled in {self.cold:.1f} s, {self.from_cache} "
            f"read from the cache in {self.warm:.1f} s"
        )


@contextlib.contextmanager
def compile_times() -> Iterator[CompileTimes]:
    """Counts what jax compiles inside the block."""
    times = CompileTimes()

    def duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            times.cold += duration_secs  # Cached programs pass through here too.
            times.programs += 1
        elif event == "/jax/compilation_cache/cache_retrieval_time_sec":
            times.cold -= duration_secs
            times.warm += duration_secs
            times.from_cache += 1

    jax.monitoring.register_event_duration_secs_listener(duration)
    try:
        yield times
    finally:
        jax.monitoring.unregister_event_duration_listener(duration)
