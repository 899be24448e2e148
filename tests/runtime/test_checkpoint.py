import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seal_jax.runtime import checkpoint, files


def random_bits(seed, shape, dtype):
    """Every bit pattern, NaN payloads and subnormals included."""
    raw = np.random.default_rng(seed).bytes(
        int(np.prod(shape)) * jnp.dtype(dtype).itemsize
    )
    return np.frombuffer(raw, dtype).reshape(shape)


def delta():
    return {
        "layers_0": {
            "q_proj": {
                "a": random_bits(0, (2, 4, 8), jnp.float32),
                "b": random_bits(1, (2, 4, 6), jnp.float32),
            },
            "v_proj": {"a": random_bits(2, (2, 4, 8), jnp.bfloat16)},
        },
        "step": np.int32(7),
    }


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@pytest.mark.parametrize("like", [shapes, lambda x: x, lambda x: jax.device_put(x)])
def test_restore_is_bit_exact(tmp_path, like):
    tree = jax.device_put(delta())
    meta = {"round": 1, "mean": 0.1 + 0.2, "names": ("a", "b")}
    checkpoint.save(tmp_path / "c", 3, tree, meta)
    found, found_meta = checkpoint.restore(tmp_path / "c", 3, like(delta()))
    assert_same_bits(found, tree)
    assert found_meta == {"round": 1, "mean": 0.1 + 0.2, "names": ["a", "b"]}


def test_an_optimizer_state_comes_back_with_its_types(tmp_path):
    params = {"w": jnp.arange(6.0).reshape(2, 3)}
    state = (params, optax.adamw(1e-3).init(params))
    checkpoint.save(tmp_path, 1, state, {})
    found, _ = checkpoint.restore(tmp_path, 1, state)
    assert_same_bits(found, state)


def test_steps_are_kept_and_the_newest_found(tmp_path):
    directory = tmp_path / "c"
    assert checkpoint.latest(directory) is None
    assert not directory.exists()
    for step in (1, 2, 10):
        checkpoint.save(directory, step, {"w": jnp.full(3, step)}, {"step": step})
    assert checkpoint.latest(directory) == 10
    for step in (1, 2, 10):
        tree, meta = checkpoint.restore(directory, step, {"w": jnp.zeros(3, int)})
        assert tree["w"].tolist() == [step] * 3
        assert meta == {"step": step}


def test_a_sharding_is_restored_to(tmp_path):
    checkpoint.save(tmp_path, 1, {"w": jnp.arange(8.0)}, {})
    mesh = jax.make_mesh((1,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.P("data"))
    like = {"w": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding)}
    found, _ = checkpoint.restore(tmp_path, 1, like)
    assert found["w"].sharding == sharding
    assert found["w"].tolist() == list(range(8))


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": ((2, 3), "float32")}, r"w is float32\[3\] there, float32\[2, 3\] here"),
        ({"w": ((3,), "bfloat16")}, r"w is float32\[3\] there, bfloat16\[3\] here"),
        ({}, r"w is float32\[3\] there, absent here"),
        (
            {"w": ((3,), "float32"), "x": ((1,), "int32")},
            r"step 1: x is absent there, int32\[1\] here; .* use the config",
        ),
    ],
)
def test_another_layout_is_refused(tmp_path, like, message):
    checkpoint.save(tmp_path, 1, {"w": jnp.zeros(3)}, {})
    wanted = {k: jax.ShapeDtypeStruct(s, d) for k, (s, d) in like.items()}
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.restore(tmp_path, 1, wanted)
    assert "\n" not in str(caught.value)


def test_missing_and_double_steps_are_named(tmp_path):
    tree = {"w": jnp.zeros(3)}
    with pytest.raises(ValueError, match=r"step 1 is none of its complete steps \[\]"):
        checkpoint.restore(tmp_path / "none", 1, tree)
    checkpoint.save(tmp_path, 1, tree, {})
    with pytest.raises(ValueError, match=r"step 2 is none of its complete steps \[1\]"):
        checkpoint.restore(tmp_path, 2, tree)
    with pytest.raises(ValueError, match="step 1 is saved already"):
        checkpoint.save(tmp_path, 1, tree, {})


_SAVER = """
import os, signal, sys
import numpy as np
from seal_jax.runtime import checkpoint
directory, fatal = sys.argv[1], int(sys.argv[2])
checkpoint.save(directory, 1, {"w": np.full(1000, 1.0, np.float32)}, {"n": 1})
calls = 0

def count(event, args):
    # Kill at the fatal-th file system event of the second save.
    global calls
    if event in ("open", "os.rename", "os.mkdir", "os.remove"):
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
checkpoint.save(directory, 2, {"w": np.full(1000, 2.0, np.float32)}, {"n": 2})
print(calls, flush=True)
"""


def run_saver(directory, fatal, env):
    return subprocess.run(
        [sys.executable, "-c", _SAVER, str(directory), str(fatal)],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )


def check_usable(directory, step):
    like = {"w": jax.ShapeDtypeStruct((1000,), jnp.float32)}
    tree, meta = checkpoint.restore(directory, step, like)
    assert meta == {"n": step}
    assert np.all(np.asarray(tree["w"]) == step)


def test_kill_9_in_mid_save_leaves_the_previous_step(tmp_path, child_env):
    done = run_saver(tmp_path / "whole", 0, child_env)
    assert done.returncode == 0, done.stderr
    events = int(done.stdout)
    assert events > 8
    interrupted = 0
    for fatal in (events // 2, events - 1):
        directory = tmp_path / str(fatal)
        assert run_saver(directory, fatal, child_env).returncode == -signal.SIGKILL
        step = checkpoint.latest(directory)
        assert step in (1, 2)
        check_usable(directory, step)
        check_usable(directory, 1)
        if step == 1:
            interrupted += any("tmp" in name for name in os.listdir(directory))
            tree = {"w": np.full(1000, 2.0, np.float32)}
            checkpoint.save(directory, 2, tree, {"n": 2})
            check_usable(directory, 2)
        assert sorted(os.listdir(directory)) == ["1", "2"]
    assert interrupted > 0


_LIMITED = """
import resource, sys
import numpy as np
from seal_jax.runtime import (checkpoint, files)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
tree = {"w": np.random.default_rng(0).normal(size=1 << 16)}
try:
    checkpoint.save(sys.argv[1], 1, {"w": np.zeros(4)}, {})
    checkpoint.save(sys.argv[1], 2, tree, {})
except files.DiskFullError as error:
    print(error)
"""


def test_a_limit_on_file_size_is_named_and_leaves_nothing(tmp_path, child_env):
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        env=child_env,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert f"{tmp_path / '2'}: cannot be written" in done.stdout
    assert os.listdir(tmp_path) == ["1"]


def test_a_full_disk_is_named_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(files.DiskFullError, match="No space left"):
        checkpoint.save(tmp_path, 1, {"w": jnp.zeros(3)}, {})
    assert os.listdir(tmp_path) == []


def test_every_altered_file_is_named(tmp_path):
    """A bit in each, in its beginning and its end; its loss; another file."""
    tree = {"w": jnp.arange(64, dtype=jnp.float32), "n": jnp.int32(3)}
    checkpoint.save(tmp_path / "c", 1, tree, {"loss": 0.5, "texts": ["a", "b"]})
    paths = sorted(p for p in (tmp_path / "c" / "1").rglob("*") if p.is_file())
    assert len(paths) > 5

    def refused():
        with pytest.raises((ValueError, OSError)) as caught:
            checkpoint.restore(tmp_path / "c", 1, tree)
        message = str(caught.value)
        assert "altered since it was saved" in message and "\n" not in message
        assert f"{tmp_path / 'c'} step 1" in message
        assert caught.value.__cause__ is not None
        return message

    for path in paths:
        whole = path.read_bytes()
        for i in {0, len(whole) // 2, len(whole) - 1} if whole else ():
            altered = bytearray(whole)
            altered[i] ^= 1 << i % 8
            path.write_bytes(altered)
            if (
                path.name == "sha256.json"
                and path.read_bytes().split() == whole.split()
            ):
                continue
            refused()
        path.unlink()
        assert path.name in refused()
        path.write_bytes(whole)
    (tmp_path / "c" / "1" / "more").write_text("x")
    assert "more does not have" in refused()
    (tmp_path / "c" / "1" / "more").unlink()
    back, _ = checkpoint.restore(tmp_path / "c", 1, tree)
    assert_same_bits(back, tree)


def test_a_file_in_the_place_of_a_step_is_no_step(tmp_path):
    checkpoint.save(tmp_path, 1, {"w": jnp.zeros(3)}, {})
    (tmp_path / "2").write_text("x")
    assert checkpoint.latest(tmp_path) == 1


def test_what_the_system_says_is_free_may_not_be(tmp_path, monkeypatch):
    """A quota, which no question about free space tells."""

    def over_quota(self, data):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(self))

    monkeypatch.setattr(pathlib.Path, "write_bytes", over_quota)
    with pytest.raises(files.DiskFullError, match="quota"):
        checkpoint.save(tmp_path, 1, {"w": jnp.zeros(3)}, {})
    assert os.listdir(tmp_path) == []


def test_a_trial_leaves_nothing_behind(tmp_path):
    (tmp_path / ".trial" / "0").mkdir(parents=True)  # By a kill.
    checkpoint.check_directory(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_trial_says_why_it_failed(tmp_path, monkeypatch):
    (tmp_path / "file").touch()

    def no_room(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), args[0])

    monkeypatch.setattr(pathlib.Path, "mkdir", no_room)
    with pytest.raises(files.CannotWriteError, match="Read-only file system"):
        checkpoint.check_directory(tmp_path)
    assert os.listdir(tmp_path) == ["file"]
