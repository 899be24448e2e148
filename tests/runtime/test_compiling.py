"""Programs that a thread compiles before they are called."""

import subprocess
import sys
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.runtime import backend, compiling

LIKE = jax.ShapeDtypeStruct((3,), jnp.float32)


class Fake:
    """What is lowered and compiled as a jitted function is; its results are 7."""

    def __init__(self, compile_it):
        self._lowered = SimpleNamespace(compile=compile_it, out_info=7)

    def lower(self, *args, **static):
        return self._lowered


def test_the_first_call_compiles_nothing():
    made_in = []

    @jax.jit
    def doubled(tree, by):
        return {"x": tree["x"] * by}

    @jax.jit
    def added(tree):
        return jnp.cosh(tree["x"] + 1.5).sum()

    def traced(event, duration_secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            made_in.append(threading.current_thread())

    jax.monitoring.register_event_duration_secs_listener(traced)
    try:
        with compiling.beside() as call:
            assert call(added, call(doubled, {"x": LIKE}, 2)).shape == ()
            call(doubled, {"x": LIKE}, 5)
    finally:
        jax.monitoring.unregister_event_duration_listener(traced)
    assert len(made_in) == 2 and threading.main_thread() not in made_in
    with backend.compile_times() as times:
        found = added(doubled({"x": np.ones(3, np.float32)}, 3))
    assert times.programs == 0
    assert float(found) == pytest.approx(3 * np.cosh(4.5))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_one_program_for_each_function_shape_and_setting(order):
    compiled = []
    one, other = (
        Fake(lambda name=name: compiled.append(name)) for name in ("one", "other")
    )
    calls = [
        lambda call: call(one, {"x": LIKE}, 3, size=1),
        lambda call: call(one, {"x": np.zeros(3, np.float32)}, 4, size=1),
        lambda call: call(one, {"x": LIKE}, np.int32(3), size=1),
        lambda call: call(other, {"x": LIKE}, 3, size=1),
    ]
    with compiling.beside() as call:
        assert [calls[i](call) for i in order] == [7] * 4
    assert sorted(compiled) == ["one", "one", "other"]
    with compiling.beside() as call:
        for size in (1, 2, 1):
            call(one, size=size)
    assert compiled.count("one") == 4


def test_what_compiling_raises_comes_out_at_the_end_of_the_block():
    def refuse():
        raise ValueError("no such kernel here")

    reached = False
    raises = pytest.raises(ValueError, match="no such kernel here")
    with raises, compiling.beside() as call:
        call(Fake(refuse))
        reached = True
    assert reached


def test_what_the_block_raises_comes_first_and_leaves_the_rest():
    begun, go_on, compiled = threading.Event(), threading.Event(), []

    def wait():
        begun.set()
        assert go_on.wait(60)
        compiled.append("first")
        raise ValueError("no such kernel here")

    raises = pytest.raises(ValueError, match="does not fit")
    with raises, compiling.beside() as call:
        call(Fake(wait))
        call(Fake(lambda: compiled.append("second")))
        assert begun.wait(60)
        threading.Timer(0.2, go_on.set).start()
        raise ValueError("does not fit")
    assert compiled == ["first"]


CHILD = """
import os, signal, threading, time
from seal_jax.runtime import compiling, interrupts
interrupts.install(interrupts.CONTINUES)
interrupts.GRACE_S = 0.1
class Slow:
    out_info = None
    def lower(self):
        return self
    def compile(self):
        print("compiles", flush=True)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(600)
with interrupts.one_line(), interrupts.units(), compiling.beside() as call:
    call(Slow())
print("not here")
"""


def test_a_signal_ends_it_in_one_line_while_the_thread_compiles(child_env):
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        capture_output=True,
        text=True,
        env=child_env,
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (130, "compiles\n")
    assert done.stderr == "stopped; the same command continues\n"


def test_one_processor_or_several_processes_compile_as_they_go(monkeypatch):
    monkeypatch.setattr(compiling.os, "sched_getaffinity", lambda pid: {0, 1})
    assert compiling.pays()
    monkeypatch.setattr(compiling.jax, "process_count", lambda: 2)
    assert not compiling.pays()
    monkeypatch.undo()
    monkeypatch.setattr(compiling.os, "sched_getaffinity", lambda pid: {3})
    assert not compiling.pays()
    monkeypatch.delattr(compiling.os, "sched_getaffinity")
    monkeypatch.setattr(compiling.os, "cpu_count", lambda: 2)
    assert compiling.pays()
