"""The machine a run is on: its memory and peak, compiled programs, other processes."""

import contextlib
import dataclasses
import os
import threading
import time
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
    """Programs that were compiled, or read from the cache, and the clock meanwhile.

    `cold`: seconds in which some program was being compiled; of two at a time they
    count once. `warm`: the same of programs that were read.
    """

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


class Covered:
    """Seconds that spans of time cover, each told when it ends; they may overlap."""

    def __init__(self):
        self._spans: list[tuple[float, float]] = []

    def add(self, *, end: float, seconds: float) -> float:
        """All seconds so far, with those before `end`, the latest that was told."""
        begin = end - seconds
        while self._spans and self._spans[-1][1] > begin:
            begin = min(begin, self._spans.pop()[0])
        self._spans.append((begin, end))
        return sum(end - begin for begin, end in self._spans)


class _Here(threading.local):
    """Whether the program that this thread is about to have was read."""

    read = False


@contextlib.contextmanager
def compile_times() -> Iterator[CompileTimes]:
    """Counts what jax compiles inside the block, in whatever thread."""
    times, cold, warm = CompileTimes(), Covered(), Covered()
    lock, here = threading.Lock(), _Here()

    def duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/compilation_cache/cache_retrieval_time_sec":
            here.read = True  # The program's own event follows, in this thread.
        elif event == "/jax/core/compile/backend_compile_duration":
            read, here.read = here.read, False
            with lock:
                times.programs += 1
                times.from_cache += read
                end = time.monotonic()
                if read:
                    times.warm = warm.add(end=end, seconds=duration_secs)
                else:
                    times.cold = cold.add(end=end, seconds=duration_secs)

    jax.monitoring.register_event_duration_secs_listener(duration)
    try:
        yield times
    finally:
        jax.monitoring.unregister_event_duration_listener(duration)
