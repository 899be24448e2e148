"""The page about the benchmarks: its commands and files are those that there are."""

import importlib
import re
import shlex

import pytest


@pytest.fixture(scope="module")
def load(root):
    """Imports a file of benchmarks/, which find each other as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module


def test_every_command_in_the_readme_is_one_that_its_benchmark_takes(root, load):
    text = (root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"benchmarks/(\w+)\.py((?: [^`#\n]*)?)", text)
    parsed = set()
    for name, rest in found:
        module = load(name)
        if hasattr(module, "parse_args"):
            module.parse_args(shlex.split(rest))
            parsed.add(name)
    assert {"inner_loop", "peft_baseline", "round", "generate", "scaling"} <= parsed


def test_the_readme_names_every_file_beside_it(root):
    text = (root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for path in (root / "benchmarks").glob("*.*"):
        assert path.name == "README.md" or f"`{path.name}`" in text, path.name
