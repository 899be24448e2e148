"""The wheel and the sdist: all that the commands need is in them, and nothing else."""

import email
import re
import tarfile
import tomllib

import packages
import pages
import pytest

from seal_jax.commands import table
from seal_jax.runtime import shipped

PROJECT = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The files of a wheel that is built from this tree."""
    return packages.contents(packages.build(tmp_path_factory.mktemp("wheel"), "wheel"))


def tracked(folder):
    """Files of a folder, but for what Python leaves in it."""
    found = (path for path in (pages.ROOT / folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(pages.ROOT / folder)): path.read_bytes()
        for path in found
        if "__pycache__" not in path.parts
    }


@pytest.mark.parametrize(
    "folder, inside",
    [
        ("seal_jax", "seal_jax"),
        ("kernels/seal_kernels", "seal_kernels"),
        ("configs", "seal_jax/configs"),
    ],
)
def test_the_wheel_has_every_file_of_a_package(folder, inside, wheel):
    begin = f"{inside}/"
    there = {n.removeprefix(begin): b for n, b in wheel.items() if n.startswith(begin)}
    if folder == "seal_jax":
        there = {n: b for n, b in there.items() if not n.startswith("configs/")}
    assert there == tracked(folder)


def test_the_wheel_has_nothing_else(wheel):
    info = f"seal_jax-{PROJECT['version']}.dist-info"
    assert {n.split("/")[0] for n in wheel} == {"seal_jax", "seal_kernels", info}
    names = (*shipped.names(), *shipped.PRETRAINING)
    assert {f"seal_jax/configs/{name}.py" for name in names} <= set(wheel)
    assert "seal_jax/embedded/assets/tiny/model.safetensors" in wheel
    assert f"{info}/licenses/LICENSE" in wheel


def test_its_metadata_are_the_projects(wheel):
    (name,) = (n for n in wheel if n.endswith("/METADATA"))
    told = email.message_from_bytes(wheel[name])
    assert (told["Name"], told["Version"]) == ("seal-jax", PROJECT["version"])
    assert told["Requires-Python"] == PROJECT["requires-python"]
    needed = [r for r in told.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert len(needed) == len(PROJECT["dependencies"])
    assert set(told.get_all("Provides-Extra", [])) == set(
        PROJECT["optional-dependencies"]
    )
    # What pip shows beside the name is README's first line.
    assert told.get_payload().startswith("# seal_jax\n")


def test_its_command_is_there(wheel):
    (name,) = (n for n in wheel if n.endswith("/entry_points.txt"))
    assert wheel[name].decode().split() == (
        "[console_scripts] seal-jax = seal_jax.__main__:main".split()
    )
    for module, _ in table.COMMANDS.values():
        path = module.replace(".", "/")
        assert {f"{path}.py", f"{path}/__main__.py"} & set(wheel), module


def test_the_sdist_builds_the_same_wheel(wheel, tmp_path):
    packed = packages.build(tmp_path / "sdist", "sdist")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = packages.contents(packages.build(tmp_path / "again", "wheel", source))
    assert again == wheel


def test_the_pythons_that_are_named_are_tried():
    """By `.ci/environments`: the oldest with the lowest versions of dependencies."""
    script = (pages.ROOT / ".ci" / "environments").read_text(encoding="utf-8")
    (legs,) = re.findall(r"LEGS=\((3.*)\)", script)
    tried = dict(leg.split(":") for leg in legs.split())
    named = [c.split(" :: ")[-1] for c in PROJECT["classifiers"] if ":: 3." in c]
    assert list(tried) == named
    assert tried.pop(named[0]) == "lowest-direct"
    assert set(tried.values()) == {"highest"}
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_every_dependency_has_a_lower_bound():
    """Those that are tested: `.ci/environments` installs the lowest of all."""
    extras = [d for group in PROJECT["optional-dependencies"].values() for d in group]
    assert [d for d in PROJECT["dependencies"] if ">=" not in d] == []
    assert [d for d in extras if ">=" not in d and not d.startswith("jax[")] == []
