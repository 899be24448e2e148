"""Several processes of this machine make one run, which is that of one process."""

import contextlib
import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny_model

from seal_jax.experiment import checks
from seal_jax.runtime import distributed, files


@pytest.fixture
def address():
    """Of a coordinator to come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def env(child_env, tmp_path_factory):
    """One small device in each process; programs are compiled once for all tests."""
    proxies = {key for key in child_env if "_proxy" in key.lower()}
    path = os.pathsep.join([child_env["PYTHONPATH"], str(tiny_model.ROOT / "tests")])
    return {k: v for k, v in child_env.items() if k not in proxies} | {
        "PYTHONPATH": path,
        # Half the time to compile; what is compared is compiled alike.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@contextlib.contextmanager
def together(commands, env):
    """Starts the processes; kills what is left of them at the end."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen(command, env=env, cwd=tiny_model.ROOT, **pipes)
        for command in commands
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def ended(started, timeout=600):
    """(exit status, standard output, standard error) of each."""
    outs = [process.communicate(timeout=timeout) for process in started]
    return [(p.returncode, *out) for p, out in zip(started, outs, strict=True)]


# What a launcher leaves


@pytest.mark.parametrize(
    "environ, several",
    [
        ({}, False),
        (
            {
                "SLURM_STEP_NODELIST": "node[1-2]",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "2",
            },
            True,
        ),
        (
            {"SLURM_STEP_NODELIST": "node1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
            False,
        ),
        # Inside sbatch or salloc, but not started by srun.
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"MEGASCALE_NUM_SLICES": "2", "TPU_WORKER_HOSTNAMES": "localhost"}, True),
    ],
)
def test_launchers_that_start_several_processes(environ, several):
    assert distributed.launched(environ) is several


@pytest.mark.parametrize(
    "args, parts",
    [
        (("host:1", 2, None), ["--coordinator=host:1 --processes=2:", "--process=I"]),
        (("host:1", None, 0), ["--processes=N"]),
        (("host:1", 2, 2), ["--process=2", "from 0 to N - 1"]),
        (("host", 2, 0), ["--coordinator=host ", "must be host:port"]),
        ((":1", 2, 0), ["must be host:port"]),
        ((None, 2, 0), ["--processes=2 --process=0:", "need --coordinator"]),
        (("auto", 2, None), ["need --coordinator=host:port"]),
        (("auto", None, None), ["--coordinator=auto:", "--coordinator=host:port"]),
    ],
)
def test_flags_that_do_not_go_together(args, parts):
    with pytest.raises(ValueError) as caught, distributed.joined(*args):
        raise AssertionError("joined what cannot be joined")
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


def test_alone_everything_is_as_without(tmp_path, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with distributed.joined(None, 1, None):
        assert distributed.leads()
        assert distributed.share(lambda: (1, "a")) == (1, "a")
        assert distributed.everyone(3) == [3]
    distributed.check_mesh(None)
    tree = {"a": np.ones(2)}
    assert distributed.readable(tree) is tree
    assert distributed.share_arrays(lambda: (tree, 4), like=None) == (tree, 4)


# The parts

PARTS = """
import json, os, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from seal_jax.runtime import (distributed, meshes)

address, process, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])

def refused(on):
    try:
        distributed.check_mesh(on)
    except ValueError as error:
        return str(error)

def bits(tree):
    return [np.asarray(x).tobytes().hex() for x in jax.tree.leaves(tree)]

with distributed.joined(address, 2, process):
    leads = distributed.leads()
    found = {"leads": leads, "devices": jax.device_count()}
    found["shared"] = [
        distributed.share(lambda: {"x": (float("nan"), 0.1), "who": process}),
        distributed.share(lambda: "é" * 100_000)[-2:],
    ]
    found["everyone"] = distributed.everyone([process, 2**40])

    values = iter([1, 2, 3])
    with distributed.open_journal(folder / f"{process}.jsonl") as journal:
        found["before"] = {k: journal.get(k) for k in journal.keys()}
        journal.put("a", process)
        found["made"] = journal.cached("b", lambda: (process, next(values)))
        found["again"] = journal.cached("b", lambda: next(values))
        found["keys"] = [journal.keys(), "a" in journal, journal.get("a")]

    on = meshes.make_mesh(data=2)
    alone = jax.sharding.Mesh(np.array(jax.devices()[:1]), "data")
    found["meshes"] = [refused(on), refused(alone), refused(None)]

    made = {"f": jnp.array([-0.0, jnp.nan, 1e-40]), "b": jnp.array([3], jnp.bfloat16)}
    got = distributed.share_arrays(lambda: (made, ["beside"]), made)
    found["arrays"] = [bits(made), bits(got[0]), got[1]]
    tree = {
        "cut": meshes.put(np.arange(4.0), on, "data"),
        "whole": meshes.put(np.arange(3.0), on),
        "local": jnp.ones(2),
    }
    tree = distributed.readable(tree)
    found["readable"] = jax.tree.map(lambda x: np.asarray(x).tolist(), tree)

    print(json.dumps(found), flush=True)
    fails = sys.argv[4:] == [str(process)]
    if fails:
        raise KeyError("out of luck")
    if len(sys.argv) > 4:
        # Waits for the one that fails, where no exception can reach it.
        rows = meshes.put(np.ones(2), on, "data")
        total = jax.jit(jnp.sum, out_shardings=meshes.replicated(on))(rows)
        np.asarray(total)
        distributed.share(lambda: distributed.everyone(1))
print("over")
"""


def parts(address, env, folder, *extra):
    commands = [
        [sys.executable, "-c", PARTS, address, str(i), str(folder), *extra]
        for i in range(2)
    ]
    with together(commands, env) as started:
        return ended(started)


@pytest.mark.parametrize("fails", [0, 1])
def test_what_one_process_has_the_others_get(fails, address, env, tmp_path):
    (tmp_path / "0.jsonl").write_text('{"key": "old", "value": NaN}\n')
    done = parts(address, env, tmp_path, str(fails))
    # Standard output also holds a notice of the library of collectives.
    found = [
        json.loads(next(line for line in out.splitlines() if line.startswith("{")))
        for _, out, _ in done
    ]
    first, second = found
    assert (first.pop("leads"), second.pop("leads")) == (True, False)
    assert first.pop("readable") == {
        "cut": [0, 1, 2, 3],
        "whole": [0, 1, 2],
        "local": [1, 1],
    }
    assert second.pop("readable") is None
    # As text, in which NaN equals itself.
    assert json.dumps(first) == json.dumps(second)
    assert first["devices"] == 2
    assert json.dumps(first["shared"][0]) == '{"x": [NaN, 0.1], "who": 0}'
    assert first["shared"][1] == "éé"
    assert first["everyone"] == [[0, 2**40], [1, 2**40]]
    assert json.dumps(first["before"]) == '{"old": NaN}'
    assert first["made"] == first["again"] == [0, 1]
    assert first["keys"] == [["old", "a", "b"], True, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.jsonl"]
    assert len(files.read_jsonl(tmp_path / "0.jsonl")) == 3
    good, partial, none = first["meshes"]
    assert good is None
    assert "mesh.data x mesh.model = 1 must take devices" in partial and partial == none
    sent, received, beside = first["arrays"]
    assert sent == received and beside == ["beside"]
    # One failed, and told the other, which was waiting for it.
    assert [status for status, *_ in done] == [1, 1]
    assert not any("over" in out for _, out, _ in done)
    own, told = done[fails][2], done[1 - fails][2]
    assert own.endswith("KeyError: 'out of luck'\n")
    assert told == f"error: process {fails}: KeyError: 'out of luck'\n"


# Whole runs

# One round, and few shapes to compile: rounds and the ladder have tests of their own.
CHANGES = tiny_model.CHANGES | {
    "scale.rounds": 1,
    "inner.learning_rate": 0.005,
    "inner.lora.targets": ("v_proj",),
    "imitate.lora.targets": ("v_proj",),
    "ladder": (),
}


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    model = tiny_model.write(tmp_path_factory.mktemp("model") / "tiny", layers=1)

    def make(workdir, *extra):
        changes = CHANGES | {"model.path": str(model)}
        return [
            *(sys.executable, "-m", "seal_jax.train"),
            *("--config=configs/tiny.py:debug", f"--workdir={workdir}"),
            *(f"--config.{key}={value}" for key, value in changes.items()),
            *extra,
        ]

    return make


def pair(command, address, workdirs, *extra):
    """The same command for two processes, each with its own idea of a workdir."""
    return [
        command(
            workdir,
            f"--coordinator={address}",
            "--processes=2",
            f"--process={i}",
            *extra,
        )
        for i, workdir in enumerate(workdirs)
    ]


def results(workdir: pathlib.Path) -> dict:
    """What the run found out: no times, and nothing that they decide."""
    summary = files.read_json(workdir / "summary.json")
    names = ("ladder", "paired", "rounds", "adapters", "tokens", "config_hash")
    return {
        "summary": {name: summary[name] for name in names},
        "edits": files.read_jsonl(workdir / "edits.jsonl"),
        "heldout": files.read_jsonl(workdir / "heldout.jsonl"),
    }


@pytest.fixture(scope="module")
def one(command, env, tmp_path_factory):
    """The workdir of the run that one process makes on so many devices."""

    def make(devices):
        workdir = tmp_path_factory.mktemp("one") / "run"
        own = env | {"JAX_NUM_CPU_DEVICES": str(devices)}
        with together([command(workdir)], own) as started:
            [(status, _, err)] = ended(started)
        assert status == 0, err
        return workdir

    return functools.cache(make)


def test_two_processes_make_the_run_of_one(command, env, address, one, tmp_path):
    two, other = tmp_path / "two", tmp_path / "other"
    # Killed when they have written their first edits, and are about to train on them.
    with together(pair(command, address, (two, other)), env) as started:
        journal, until = two / "journal.jsonl", time.monotonic() + 600
        while not (journal.exists() and "/propose" in journal.read_text()):
            assert all(process.poll() is None for process in started)
            assert time.monotonic() < until
            time.sleep(0.1)
        for process in started:
            process.send_signal(signal.SIGKILL)
        assert [status for status, *_ in ended(started)] == [-signal.SIGKILL] * 2
    assert not (two / "summary.json").exists()
    with together(pair(command, address, (two, other)), env) as started:
        (status, out, err), second = ended(started)
    assert status == 0, err
    # The second one neither speaks nor writes.
    assert second[0] == 0 and second[2] == ""
    assert "round_1" not in second[1] and "round_1" in out
    assert not other.exists()
    # The same work on the same number of devices: every bit, the policy's too.
    assert results(two) == results(one(2))
    weights = [at / "policy" / "model.safetensors" for at in (two, one(2))]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_two_devices_make_the_run_of_one_to_rounding(one):
    rows = [
        [row for kind in ("edits", "heldout") for row in results(one(n))[kind]]
        for n in (1, 2)
    ]
    # Answers are chosen by a hair, now and then; what is learned is not.
    losses = [np.array([row.pop("losses") for row in run_rows]) for run_rows in rows]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert all(row.pop("answers") for run_rows in rows for row in run_rows)
    assert rows[0] == rows[1]


def test_launched_processes_find_each_other_and_end_together(
    command, env, address, tmp_path
):
    """As srun starts them; what is wrong only the first one can see."""
    workdirs = tmp_path / "run", tmp_path / "other"
    workdirs[0].write_text("")
    with contextlib.ExitStack() as stack:
        started = []
        for i, workdir in enumerate(workdirs):
            step = {"STEP_NODELIST": "localhost", "NTASKS": "2", "PROCID": str(i)}
            step |= {"JOB_ID": "1", "LOCALID": str(i)}
            own = env | {f"SLURM_{k}": v for k, v in step.items()}
            own["JAX_COORDINATOR_PORT"] = address.rpartition(":")[2]
            started += stack.enter_context(together([command(workdir)], own))
        done = ended(started)
    assert [status for status, *_ in done] == [1, 1]
    assert [err.count("\n") for *_, err in done] == [1, 1], done
    why = f"{workdirs[0]}: a workdir must be a directory"
    assert done[0][2].startswith(f"error: {why}")
    assert done[1][2].startswith(f"error: process 0: {why}")
    assert not workdirs[1].exists()


def test_processes_with_different_configs_are_refused(monkeypatch):
    monkeypatch.setattr(
        distributed, "everyone", lambda value: [value, value, "another"]
    )
    with pytest.raises(ValueError, match="process 2 has another config than process 0"):
        checks.check_same({"seed": 0})
    monkeypatch.setattr(distributed, "everyone", lambda value: [value] * 3)
    checks.check_same({"seed": 0})


class Lost:
    """A client of a store that a test looks into."""

    def __init__(self, error):
        self.error = error

    def blocking_key_value_get_bytes(self, name, timeout):
        error, self.error = self.error, None
        if error is None:
            return b"1"
        raise jax.errors.JaxRuntimeError(error)


def test_waiting_has_no_limit_but_other_errors_are_raised(monkeypatch):
    for error in ("DEADLINE_EXCEEDED: 10 s", None):
        client = Lost(error)
        monkeypatch.setattr(distributed, "_client", lambda c=client: c)
        assert distributed._wait_for("name") == b"1"
    monkeypatch.setattr(distributed, "_client", lambda: Lost("UNAVAILABLE: gone"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="gone"):
        distributed._wait_for("name")


def test_a_cache_that_not_all_can_read_is_turned_off(tmp_path, monkeypatch):
    """The processes are simulated: a mark in the folder, seen by both or by one."""
    monkeypatch.setattr(distributed, "_count", lambda: 2)
    monkeypatch.setattr(distributed, "share", lambda fn: fn())
    before = (
        jax.config.jax_compilation_cache_dir,
        jax.config.jax_enable_compilation_cache,
    )
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
        for both in (True, False):
            seen = lambda mark, both=both: [mark, both]
            monkeypatch.setattr(distributed, "everyone", seen)
            distributed.keep_cache_if_shared()
            assert jax.config.jax_enable_compilation_cache is both
            assert list((tmp_path / "cache").iterdir()) == []
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_enable_compilation_cache", before[1])
