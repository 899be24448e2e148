"""The wheel of this tree, and fresh environments that have it."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pages


def build(out: pathlib.Path, kind: str, source: pathlib.Path = pages.ROOT):
    """Builds a "wheel" or an "sdist" of a tree into a folder; its path.

    By hatchling as it is installed here, so that no registry is asked.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def contents(wheel: pathlib.Path) -> dict[str, bytes]:
    """The files of a wheel by their names in it."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def uv() -> str:
    """The uv that `make setup` used."""
    stamp = pages.ROOT / ".venv" / ".setup-done"
    return str((pages.ROOT / stamp.read_text().strip()).resolve())


def outside() -> dict[str, str]:
    """A user's variables: nothing of `make` or of tests/conftest.py leads here."""
    gone = ("PYTHONPATH", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON")
    gone += ("JAX_NUMPY_RANK_PROMOTION",)
    return {key: value for key, value in os.environ.items() if key not in gone}
