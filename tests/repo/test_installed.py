"""The wheel in a fresh environment, used from a folder that knows nothing of this tree.

What pip would take today is installed, the newest of every dependency; so this needs a
registry.
"""

import json
import subprocess

import packages
import pages
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = packages.build(folder / "dist", "wheel")
    uv, venv = packages.uv(), folder / "venv"
    env = packages.outside()
    for command in (
        [uv, "venv", "--quiet", "--no-config", "--python", "3.12", str(venv)],
        [uv, "pip", "install", "--quiet", "--no-config", str(wheel)],
    ):
        done = subprocess.run(
            command,
            cwd=folder,
            env=env | {"VIRTUAL_ENV": str(venv), "PYENV_VERSION": "3.12"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    return venv / "bin" / "python"


@pytest.fixture
def use(python, tmp_path):
    """Runs a command of the environment in a folder of its own; its standard output."""

    def run(program, *args):
        done = subprocess.run(
            [str(python.parent / program), *args],
            cwd=tmp_path,
            env=packages.outside(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_it_is_the_wheel_that_is_used(use, python):
    said = use(
        "python", "-c", "import seal_jax, seal_kernels; print(seal_jax, seal_kernels)"
    )
    assert said.count(str(python.parents[1])) == 2
    assert "pretrain" in use("seal-jax", "--help")
    assert use("seal-jax", "--version") == f"seal-jax {version()}\n"


def version():
    text = (pages.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return text.split('version = "')[1].split('"')[0]


def test_a_short_demo_and_its_page(use, tmp_path):
    use("seal-jax", "train", "--config=tiny:debug", "--workdir=runs/debug")
    assert "self_edits" in use(
        "seal-jax", "report", "runs/debug", "--html", "debug.html"
    )
    assert "<svg" in (tmp_path / "debug.html").read_text(encoding="utf-8")


def test_the_page_of_the_api(use, tmp_path):
    code = "\n\n".join(pages.read("docs/api.md").fenced("python"))
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    use("python", "page.py")


def test_the_whole_demo(use, tmp_path):
    use("seal-jax", "train", "--config=tiny", "--workdir=runs/tiny")
    ladder = json.loads((tmp_path / "runs/tiny/summary.json").read_text())["ladder"]
    mean = {row["name"]: row["mean"] for row in ladder}
    rising = ("base", "passage_only", "self_edits", "round_1", "round_2", "oracle")
    assert sorted(rising, key=mean.__getitem__) == list(rising)
