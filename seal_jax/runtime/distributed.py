"""Several processes, on one host or many, in one run: the first decides, all compute.

Every process goes through the same program. What is read from the disk, asked of a
judge or measured by a clock is the first process's, and `share` hands it on, so that
all of them take the same branches; only the first one writes. Arrays lie on the mesh
and need none of this. With one process every function here is the obvious one.
"""

import contextlib
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax._src import distributed as jax_distributed
from jax._src.lib import _jax  # pyright: ignore
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from seal_jax.runtime import files, interrupts, meshes, peers, relay
from seal_jax.runtime.journal import Journal

# Seconds: until all have to be there, and until all have to be gone.
_START_S, _END_S = 120, 60
# Seconds for the news that another process has ended.
_VERDICT_S = 3.0


def launched(environ: Mapping[str, str]) -> bool:
    """Whether a launcher started this process as one of several.

    SLURM's srun, Open MPI's mpirun, and the workers of a TPU slice say so in the
    environment. Other clusters that jax knows are not asked unless the user wants it
    (`--coordinator=auto`): to find out takes requests to a server.
    """
    step = "SLURM_STEP_NODELIST" in environ and "SLURM_PROCID" in environ
    counts = (
        environ.get("SLURM_NTASKS", "1") if step else "1",
        environ.get("OMPI_COMM_WORLD_SIZE", "1"),
        environ.get("MEGASCALE_NUM_SLICES", "1"),
    )
    workers = environ.get("TPU_WORKER_HOSTNAMES", "")
    return "," in workers or any(c.isdigit() and int(c) > 1 for c in counts)


@contextlib.contextmanager
def joined(
    coordinator: str | None, processes: int | None, process: int | None
) -> Iterator[None]:
    """Connects the processes of a run; alone, it does nothing.

    If the block fails in one of them, all the others end too, with the reason in one
    line: they may be waiting for that one inside a collective, where no exception
    reaches.

    Args:
      coordinator: "host:port" of process 0, "auto" for what jax finds out about the
        cluster, or None for "auto" if a launcher started several processes.
      processes: how many there are; with an address only. 1: this one is alone.
      process: which one this is, from 0 on; with an address only.

    Raises:
      ValueError: arguments that do not go together; no cluster, no coordinator.
    """
    if not _connect(coordinator, processes, process):
        yield
        return
    client, name = _client(), "seal_jax/peers"
    address = jax_distributed.global_state.coordinator_address or ""
    with peers.connected(
        _index(),
        _count(),
        address.rpartition(":")[0].strip("[]"),
        publish=lambda word: client.key_value_set(name, word),
        published=lambda: client.blocking_key_value_get(name, _START_S * 1000),
    ) as others:
        try:
            yield
            jax.distributed.shutdown()
        except interrupts.Stopped as stopped:
            others.tell(peers.end_of_signal(_index(), 128 + stopped.number))
            raise
        except BaseException as error:
            if isinstance(error, jax.errors.JaxRuntimeError):
                # It may only follow from another's end, of which is heard by now.
                time.sleep(_VERDICT_S)
            # Here and not by the interpreter, which the others would have to wait for.
            reason = _print(error)
            others.tell(peers.end_of_error(_index(), reason))
            interrupts.end(1, "")
        others.close()


def _connect(
    coordinator: str | None, processes: int | None, process: int | None
) -> bool:
    """Whether this process is now one of several."""
    flags = {"coordinator": coordinator, "processes": processes, "process": process}
    given = " ".join(f"--{k}={v}" for k, v in flags.items() if v is not None)
    by_address = coordinator not in (None, "auto")
    _check(given, coordinator if by_address else None, processes, process)
    if not by_address and (processes == 1 or not (coordinator or launched(os.environ))):
        return False
    # Its notices of preemption nobody reads here, and it would keep SIGTERM to itself.
    jax.config.update("jax_enable_preemption_service", False)
    what = f"{given or 'the launcher'}: the processes of this run cannot be connected"
    fix = "give each --coordinator=host:port --processes=N --process=I"
    late = threading.Timer(_START_S, _give_up, [f"{what} within {_START_S} s; {fix}"])
    late.daemon = True
    late.start()
    connecting = threading.Event()
    connecting.set()

    def lost() -> None:
        if connecting.is_set():
            interrupts.end(1, f"error: process 0: {peers.GONE}")

    try:
        with relay.clients_behind_relays(
            _jax, "get_distributed_runtime_client", lost=lost
        ):
            jax.distributed.initialize(
                coordinator if by_address else None,
                processes,
                process,
                cluster_detection_method="deactivate" if by_address else None,
                initialization_timeout=2 * _START_S,
                shutdown_timeout_seconds=_END_S,
            )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{what} ({reason}); {fix}") from None
    finally:
        connecting.clear()
        late.cancel()
    return _count() > 1


def _check(
    given: str, address: str | None, processes: int | None, process: int | None
) -> None:
    """Refuses flags that do not go together."""
    if address is None:
        if process is not None or processes not in (None, 1):
            raise ValueError(
                f"{given}: --processes and --process need --coordinator=host:port"
            )
        return
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise ValueError(
            f"{given}: --coordinator must be host:port of process 0, or auto"
        )
    if processes is None or process is None or not 0 <= process < processes:
        raise ValueError(
            f"{given}: --coordinator=host:port needs --processes=N, the same for all, "
            "and --process=I, from 0 to N - 1"
        )


def _give_up(reason: str) -> None:
    """Ends this process in one line, before jax does so in many."""
    print(f"error: {reason}", file=sys.stderr, flush=True)
    os._exit(1)


def _print(error: BaseException) -> str:
    """Prints what the interpreter would; returns it as one line."""
    if isinstance(error, SystemExit):
        print(error.code, file=sys.stderr, flush=True)
        return str(error.code).removeprefix("error: ")
    traceback.print_exception(error)
    return " ".join(f"{type(error).__name__}: {error}".split())


def _client() -> Any:
    # The key-value store has no public name; what jax offers for several hosts
    # (`multihost_utils`) compiles a program for every length of text.
    return jax_distributed.global_state.client


# Values


def _index() -> int:
    # `jax.process_index` would start the devices, in a run that may yet be refused.
    return jax_distributed.global_state.process_id


def _count() -> int:
    return jax_distributed.global_state.num_processes


def leads() -> bool:
    """Whether this is the first process: the one that writes."""
    return _index() == 0


def share[T](fn: Callable[[], T]) -> T:
    """The first process's `fn()`; the others do not call it and wait for the value.

    All processes must come here, in the same order. The others' value has been through
    JSON (with NaN and infinities): a tuple has become a list.
    """
    if _count() == 1:
        return fn()
    client, name = _client(), _next_name()
    if leads():
        value = fn()
        text = json.dumps(value, default=files.to_json)
        client.key_value_set_bytes(name, text.encode())
        return value
    return json.loads(_wait_for(name))


def everyone[T](value: T) -> list[T]:
    """The `value` of each process, through JSON, in their order."""
    if _count() == 1:
        return [value]
    client, name = _client(), _next_name()
    client.key_value_set_bytes(f"{name}/{_index()}", json.dumps(value).encode())
    return [json.loads(_wait_for(f"{name}/{i}")) for i in range(_count())]


def _next_name() -> str:
    """A name that every process gets once, by counting what it has exchanged."""
    counter = f"seal_jax/count/{_index()}"
    return f"seal_jax/value/{_client().key_value_increment(counter, 1)}"


def _wait_for(name: str) -> bytes:
    client = _client()
    while True:
        try:
            return client.blocking_key_value_get_bytes(name, 10_000)
        except jax.errors.JaxRuntimeError as error:
            # However long the first process takes; `_watch` sees it fail.
            if not str(error).startswith("DEADLINE_EXCEEDED"):
                raise


def open_journal(path: str | Path, *, summed: bool = False) -> Journal:
    """The first process's journal, which all the others read and none of them writes.

    What is stored is what the first process puts: texts, times and verdicts.
    """
    return Journal(path, writes=leads(), share=share, summed=summed)


# Arrays


def check_mesh(mesh: Mesh | None) -> None:
    """Refuses a mesh that leaves a process without work.

    Raises:
      ValueError: see above.
    """
    if jax.process_count() != _count():
        raise ValueError(
            f"jax knows of {jax.process_count()} processes that are not connected; "
            "call jax.distributed.initialize() in each before the run"
        )
    used = {0} if mesh is None else {d.process_index for d in mesh.devices.flat}
    if len(used) < _count():
        raise ValueError(
            f"mesh.data x mesh.model = {1 if mesh is None else mesh.size} must take "
            f"devices of each of {_count()} processes, {len(jax.devices())} devices"
            " in all; use mesh.data=0"
        )


def readable(tree: Any) -> Any:
    """Arrays of a mesh as the first process can save them; None on the others.

    All processes must come here. A leaf that is cut over processes goes to the host.
    """
    if _count() == 1:
        return tree

    def local(leaf: jax.Array | np.ndarray) -> Any:
        if isinstance(leaf, np.ndarray) or leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return leaf.addressable_data(0)
        mesh = meshes.holding(leaf)
        assert mesh is not None  # or it would be whole on some device
        whole = meshes.gather(leaf, mesh).addressable_data(0)
        return np.asarray(whole) if leads() else None

    leaves = jax.tree.map(local, tree)
    return leaves if leads() else None


def share_arrays[T](fn: Callable[[], tuple[Any, T]], like: Any) -> tuple[Any, T]:
    """The first process's `fn()`: a tree of arrays like `like`, and JSON beside it.

    The arrays arrive bit for bit, in the host's memory.
    """
    if _count() == 1:
        tree, beside = fn()
        # On the host as well: a checkpoint is read to a device that it is bound to, and
        # programs that take it would be compiled again for that.
        return jax.tree.map(np.asarray, tree), beside
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    tree, beside = fn() if leads() else (zeros, None)
    # As bytes: jax adds zeros to them on the way, which would turn -0.0 into 0.0.
    raw = jax.tree.map(lambda x: np.frombuffer(np.asarray(x).tobytes(), np.uint8), tree)
    raw = multihost_utils.broadcast_one_to_all(raw, is_source=leads())
    tree = jax.tree.map(
        lambda x, r: np.asarray(r).view(x.dtype).reshape(x.shape), like, raw
    )
    return tree, share(lambda: cast(T, beside))


def keep_cache_if_shared() -> None:
    """Turns the cache of compiled programs off where not all processes can read it.

    The first process alone writes to it. A program that it has and others lack would be
    compiled by these alone, perhaps to other roundings, and on GPUs not at all: they
    tune it together.
    """
    folder = jax.config.jax_compilation_cache_dir
    if _count() == 1 or folder is None:
        return

    def mark() -> str:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f".shared-{os.getpid()}-{os.urandom(8).hex()}"
        path.touch()
        return str(path)

    path = Path(share(mark))
    seen = all(everyone(path.exists()))
    if leads():
        path.unlink()
    if not seen:
        jax.config.update("jax_enable_compilation_cache", False)
