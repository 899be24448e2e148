"""What every test runs under: the CPU, no network, strict numerics."""

import gc
import os
import pathlib
import sys
from collections.abc import Iterator

import hypothesis
import pytest

# Set before anything imports jax or transformers, and inherited by the processes that
# tests start. A caller may choose another platform: JAX_PLATFORMS=cuda pytest -m gpu.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["HF_HUB_OFFLINE"] = "1"
# XLA's own notices; errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# transformers announces at every import that it found no torch.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = pathlib.Path(__file__).parent.parent

# Where Python may write no bytecode beside its modules, as in many containers, each of
# the many processes that tests start would compile all that it imports: for seconds.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.pycache_prefix = os.environ.setdefault(
        "PYTHONPYCACHEPREFIX", str(ROOT / ".pytest_cache" / "bytecode")
    )

# Compiled programs, for all workers, the processes that tests start and the next run.
# jax locks a folder that has a limit, so that none reads what is half written.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "programs")
)
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(4 * 2**30))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# The same examples every time: a change, not luck, makes a test fail.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


# Linux allows a process 65,530 mappings, and a program that XLA compiled for the CPU
# keeps several. One that is given no more ends in a segmentation fault.
_MOST_MAPPINGS = 30_000


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Gives compiled programs back, between modules, before they are too many."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if "jax" not in sys.modules or not maps.exists():
        return
    if maps.read_bytes().count(b"\n") > _MOST_MAPPINGS:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def seal_data() -> pathlib.Path:
    """The folder of data files that the SEAL authors released; skips without it."""
    folder = os.environ.get("SEAL_DATA")
    if not folder:
        pytest.skip("SEAL_DATA is not set; set it to a copy of SEAL's released data")
    path = pathlib.Path(folder)
    if not path.is_dir():
        pytest.fail(f"SEAL_DATA={folder} is not a folder; fix or unset it")
    return path


@pytest.fixture(scope="session")
def child_env() -> dict[str, str]:
    """The environment for a Python process started by a test: finds both packages,
    and the tests with what they share.
    """
    folders = sorted(p for p in (ROOT / "tests").iterdir() if p.is_dir())
    roots = os.pathsep.join(map(str, [ROOT, ROOT / "kernels", *folders]))
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([roots, inherited]) if inherited else roots
    return {**os.environ, "PYTHONPATH": path}
