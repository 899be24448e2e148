"""What a run knows of its machine."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.runtime import backend


def device(kind="NVIDIA H200", platform="gpu", stats=None):
    return SimpleNamespace(
        device_kind=kind, platform=platform, memory_stats=lambda: stats
    )


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_peaks_are_found_by_the_longest_name(kind, teraflops):
    assert backend.peak_flops(device(kind)) == teraflops * 1e12


def test_no_peak_is_made_up():
    assert backend.peak_flops(device("cpu", "cpu")) is None
    assert backend.peak_flops(device("NVIDIA GeForce RTX 4090")) is None


def test_memory_is_the_devices_own_or_the_machines_share():
    assert backend.memory_limit(device(stats={"bytes_limit": 1000})) == 920
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for stats in (None, {"bytes_limit": 1000}):
        cpu = device("cpu", "cpu", stats)
        assert backend.memory_limit(cpu) == int(0.92 * pages)


def test_compiling_is_counted_inside_the_block_alone():
    @jax.jit
    def first(x):
        return jnp.sin(x) * 3

    with backend.compile_times() as times:
        first(jnp.ones(7))
    seen = times.programs
    assert seen >= 1
    assert times.cold > 0
    assert times.from_cache == 0
    jax.jit(lambda x: jnp.cos(x) * 5)(jnp.ones(7))
    assert times.programs == seen
    assert "programs compiled in" in times.line()


def test_what_two_compile_at_a_time_counts_once():
    covered = backend.Covered()
    assert covered.add(end=3.0, seconds=2.0) == 2.0
    assert covered.add(end=5.0, seconds=1.0) == 3.0
    # From 2 to 6: over the end of the first, all of the second, and between them.
    assert covered.add(end=6.0, seconds=4.0) == 5.0
    assert covered.add(end=8.0, seconds=1.0) == 6.0


def test_programs_of_all_threads_are_counted():
    from concurrent import futures

    def compile_one(factor):
        jax.jit(lambda x: jnp.sin(x * factor) * factor)(np.ones(5)).block_until_ready()

    with backend.compile_times() as times, futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(compile_one, (3, 5, 7)))
    assert times.programs == 3 and times.from_cache == 0


CHILD = """
import json, sys
import jax
from seal_jax.runtime import backend
backend.cache_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
with backend.compile_times() as times:
    jax.jit(lambda x: jax.numpy.tan(x @ x))(jax.numpy.ones((9, 9)))
print(json.dumps([times.cold, times.warm, times.programs, times.from_cache]))
print(jax.config.jax_compilation_cache_dir)
"""


def child(env):
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    numbers, folder = done.stdout.splitlines()
    return json.loads(numbers), folder


def test_programs_are_kept_for_the_next_process(child_env, tmp_path):
    env = {k: v for k, v in child_env.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    env["XDG_CACHE_HOME"] = str(tmp_path)
    (_, _, programs, hits), folder = child(env)
    assert folder == str(tmp_path / "seal_jax" / "programs")
    assert (programs > 0, hits) == (True, 0)
    (cold, warm, again, hits), _ = child(env)
    assert (again, hits) == (programs, programs)
    assert warm > 0
    assert cold < 0.5


def test_a_folder_that_was_named_is_kept(child_env, tmp_path):
    env = child_env | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine")}
    assert child(env)[1] == str(tmp_path / "mine")


def test_without_a_home_folder_no_program_is_kept(monkeypatch):
    told = []
    config = SimpleNamespace(
        jax_compilation_cache_dir=None, update=lambda *pair: told.append(pair)
    )
    monkeypatch.setattr(backend.jax, "config", config)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    # What Python gives where there is neither HOME nor an entry for the user.
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    backend.cache_programs()
    assert told == []
