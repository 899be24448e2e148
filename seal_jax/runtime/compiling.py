"""Programs that a thread compiles, from shapes alone, before anything runs them.

The compiler lets go of Python while it works, and keeps one processor busy: a second
one can compile what is needed later. jax keeps what was compiled for a jitted function
and for arguments of some shapes, so that the function's first call compiles nothing.
"""

import concurrent.futures
import contextlib
import os
from collections.abc import Iterator
from typing import Any, Protocol

import jax

from seal_jax.runtime import interrupts

# Seconds between two looks at whether a signal came.
_LOOK_S = 0.1


class Call(Protocol):
    """How a jitted function is called: `run` does it, `Compiler` compiles it alone."""

    def __call__(self, jitted: Any, *args: Any, **static: Any) -> Any: ...


def run(jitted: Any, *args: Any, **static: Any) -> Any:
    """What the function returns."""
    return jitted(*args, **static)


class Compiler:
    """Has the programs compiled of functions that it is called with.

    Of arguments only shapes and dtypes count; keywords are static. They must be bound
    to no device, as those of the run are. What comes out are shapes, to go on with. No
    program is compiled twice. Tracing is this thread's.
    """

    def __init__(self, worker: concurrent.futures.Executor):
        self._worker = worker
        self._shapes: dict[Any, Any] = {}
        self.compiling: list[concurrent.futures.Future[Any]] = []

    def __call__(self, jitted: Any, *args: Any, **static: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        shapes = tuple(_shape(leaf) for leaf in leaves)
        key = jitted, tree, shapes, tuple(sorted(static.items()))
        if key not in self._shapes:
            lowered = jitted.lower(*args, **static)
            self.compiling.append(self._worker.submit(lowered.compile))
            self._shapes[key] = lowered.out_info
        return self._shapes[key]


def _shape(leaf: Any) -> Any:
    # A number of Python's is another argument than an array without axes.
    return (leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else type(leaf)


@contextlib.contextmanager
def beside() -> Iterator[Compiler]:
    """A compiler of its own thread's; the block ends when all its programs are there.

    What compiling one raises is raised at the end of the block; what the block raises
    leaves those that were not begun.
    """
    with concurrent.futures.ThreadPoolExecutor(1, "compiling") as worker:
        compiler = Compiler(worker)
        try:
            yield compiler
            left = set(compiler.compiling)
            while left:
                done, left = concurrent.futures.wait(
                    left,
                    timeout=_LOOK_S,
                    return_when=concurrent.futures.FIRST_EXCEPTION,
                )
                for future in done:
                    future.result()
                interrupts.check()
        finally:
            worker.shutdown(wait=False, cancel_futures=True)


def pays() -> bool:
    """Whether there is a second processor, and no other process in the run.

    Several processes compile alike, each its programs in one order: collectives of a
    compiler that times kernels would wait for each other.
    """
    return jax.process_count() == 1 and _processors() > 1


def _processors() -> int:
    """Those that this process may use; where a system does not say, all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
