"""Imports go one way, what needs no jax stays free of it, no import has an effect."""

import pathlib
import re
import subprocess
import sys
import tomllib

import module_graph
import pytest
from module_graph import JAX_FAMILY, ORDER, ROOT, imports, modules

import seal_jax

FREE = [name for name in modules() if module_graph.is_jax_free(name)]


def sources(folder: str) -> list[pathlib.Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "source, names",
    [
        ("import jax.numpy as jnp", ["jax.numpy"]),
        ("from seal_jax import models, train", ["seal_jax.models", "seal_jax.train"]),
        ("def f():\n    if True:\n        import jax", ["jax"]),
        ("from . import lora", ["..lora"]),
        ("from .lora import init", [".lora.init"]),
        ("from jax import *", ["jax.*"]),
        ('"""import jax"""\n# import jax', []),
    ],
)
def test_imports_are_read_wherever_they_stand(source, names):
    assert [name for _, name in module_graph.imported(source)] == names


def test_every_package_has_its_place_in_the_order():
    assert {module_graph.package(name) for name in modules()} == set(ORDER)
    assert len(set(ORDER)) == len(ORDER)


def test_nothing_imports_upward():
    rank = {room: i for i, room in enumerate(ORDER)}
    upward = [
        f"{name}:{line} imports {other}"
        for name in modules()
        for line, other in module_graph.inner_imports(name)
        if rank[module_graph.package(other)] > rank[module_graph.package(name)]
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle():
    assert module_graph.cycle() is None


def test_a_circle_is_seen(monkeypatch):
    edges = {"a": ((1, "b"),), "b": ((1, "c"),), "c": ((1, "b"),)}
    monkeypatch.setattr(module_graph, "modules", lambda: edges)
    monkeypatch.setattr(module_graph, "inner_imports", edges.__getitem__)
    assert module_graph.cycle() == ["b", "c", "b"]


def test_what_is_said_to_be_free_of_jax_does_not_reach_it():
    gone = [n for n in module_graph.JAX_FREE if n not in modules()]
    assert gone == [], "JAX_FREE names what is not there"
    bad = {
        name: sorted(
            f"{other} imports {full}"
            for other in module_graph.reached(name)
            for _, full in imports(modules()[other])
            if full.split(".")[0] in JAX_FAMILY | {"seal_kernels"}
        )
        for name in FREE
    }
    assert {name: why for name, why in bad.items() if why} == {}


def test_whatever_is_free_of_jax_is_said_to_be():
    """A module that could do without jax, and is not promised to, is a slip."""
    silent = [
        name
        for name in modules()
        if "." in name
        and name not in FREE
        and not any(
            full.split(".")[0] in JAX_FAMILY | {"seal_kernels"}
            for other in module_graph.reached(name)
            for _, full in imports(modules()[other])
        )
    ]
    assert silent == [], "add these to JAX_FREE"


def test_importing_them_leaves_jax_unloaded(child_env):
    lines = [f"import seal_jax.{name}" for name in FREE if "__main__" not in name]
    lines += ["import sys", "print('loaded:', 'jax' in sys.modules)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        env=child_env,
    )
    assert (done.stdout, done.stderr) == ("loaded: False\n", "")


def test_the_api_is_looked_up_when_it_is_used(child_env):
    """`import seal_jax` brings no jax, and has every name that it lists."""
    source = """
import sys, seal_jax
from seal_jax.runtime import files
names = [name for name in seal_jax.__all__ if name in dir(seal_jax)]
assert names == seal_jax.__all__ and not hasattr(seal_jax, "nothing")
print(sorted({"jax", "numpy", "transformers"} & set(sys.modules)))
print([name for name in names if getattr(seal_jax, name).__name__ != name])
print("jax" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env=child_env
    )
    assert (done.stdout, done.stderr) == ("[]\n[]\nTrue\n", "")


def test_a_name_of_the_api_is_told_to_type_checkers_where_it_is():
    """The imports for type checkers, the table and `__all__` are the same names."""
    tree = module_graph.ast.parse((ROOT / "seal_jax/__init__.py").read_text())
    told = {
        alias.name: node.module.removeprefix("seal_jax.api.")
        for node in module_graph.ast.walk(tree)
        if isinstance(node, module_graph.ast.ImportFrom)
        for alias in node.names
    }
    assert told == seal_jax._PLACES
    assert sorted(told) == seal_jax.__all__


def test_every_package_says_what_lives_in_it():
    """`__init__.py` is a door sign: a docstring, and nothing else."""
    for name, path in modules().items():
        if path.name == "__init__.py" and "assets" not in name:
            body = module_graph.ast.parse(path.read_text(encoding="utf-8")).body
            assert len(body) == 1, f"{name}: a docstring and nothing else"
            assert len(str(module_graph.ast.literal_eval(body[0].value))) > 40, name


def test_the_graph_in_the_docs_is_today_s():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert module_graph.with_graph(page) == page, "run `make graph`"


def test_kernels_import_jax_and_nothing_of_the_method():
    allowed = {"jax", "jaxlib", "numpy", "seal_kernels", *sys.stdlib_module_names}
    foreign = {
        f"{path.name}: {name}"
        for path in sources("kernels/seal_kernels")
        for _, name in imports(path)
        if name.split(".")[0] not in allowed
    }
    assert foreign == set()


@pytest.mark.parametrize("path", sources("configs"), ids=lambda p: p.name)
def test_configs_import_only_ml_collections(path):
    allowed = {"ml_collections", *sys.stdlib_module_names}
    foreign = {name for _, name in imports(path) if name.split(".")[0] not in allowed}
    assert foreign == set()


def test_every_package_that_is_imported_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # These are imported under other names than the index lists them by.
    renamed = {"absl-py": "absl", "orbax-checkpoint": "orbax"}
    extras = project["optional-dependencies"]
    # Writers of numbers are extras, and imported when a config names them.
    lines = [*project["dependencies"], *extras["wandb"], *extras["trackio"]]
    names = [re.split(r"[^\w-]", line)[0] for line in lines]
    declared = {renamed.get(name, name).replace("-", "_") for name in names}
    known = {*sys.stdlib_module_names, "seal_jax", "seal_kernels"}
    # The benchmarks' own modules, and the baseline they are measured against, which
    # runs under an interpreter of its own.
    known |= {path.stem for path in sources("benchmarks")} | {"peft", "torch"}
    used = {
        name.split(".")[0]
        for folder in ("seal_jax", "kernels", "configs", "benchmarks")
        for path in sources(folder)
        for _, name in imports(path)
    }
    assert used - known - declared == set()


@pytest.mark.parametrize("folder", ["seal_jax", "kernels", "configs", "tests"])
def test_no_relative_or_star_imports(folder):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sources(folder)
        for line, name in imports(path)
        if name.startswith(".") or name.endswith(".*")
    ]
    assert wrong == []


def test_no_two_test_files_have_one_name():
    """The folders of tests are no packages: pytest would import but one of the two."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_no_package_lacks_its_init():
    for package in (ROOT / "seal_jax", ROOT / "kernels" / "seal_kernels"):
        folders = {path.parent for path in package.rglob("*.py")}
        assert folders == {path.parent for path in package.rglob("__init__.py")}


def test_rank_promotion_raises():
    jnp = pytest.importorskip("jax.numpy")
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_the_order_is_told_alike_everywhere():
    """The package's docstring and the page on it name the rooms as `ORDER` does."""
    rooms = [room for room in ORDER if room != "__main__"]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", page.split("## Module graph")[0], re.M)
    assert rows == ["seal_kernels", *rooms]
    text = module_graph.modules()["runtime"].parents[1] / "__init__.py"
    words = re.findall(r"\w+", text.read_text(encoding="utf-8").split("top:")[1])
    told = list(dict.fromkeys(word for word in words if word in rooms))
    assert told == rooms
