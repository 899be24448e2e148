"""Imports go one way, text stays free of jax, and no import has an effect."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# From the bottom up; a module imports only from rows below its own. A new module joins
# a row here. Rows marked `text` must not reach jax, directly or through others.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("text", ("config_rules", "files", "gate", "grade", "ngrams", "plan")),
    ("text", ("ladder_rows", "retain", "reward_names", "stats", "svg")),
    ("text", ("tasks.base", "tasks.common", "unit_key")),
    ("text", ("graded", "novelty_measures")),
    ("text", ("choice", "continual_matrix", "halving", "plateau", "svg_charts")),
    ("text", ("journal", "progress", "quiz", "variance", "vote")),
    ("text", ("assets.make_debug", "metrics", "records", "report_style", "select")),
    ("text", ("rankings",)),
    ("text", ("plan_blocks", "tasks.hub")),
    ("text", ("tasks.arc",)),
    ("text", ("tasks.arc_augment", "tasks.grids")),
    ("text", ("tasks.arc_data",)),
    ("text", ("tasks.arc_edit", "tasks.arc_text", "tasks.arc_vote")),
    ("text", ("judge", "self_edit", "seal_results", "tasks.squad", "tasks.world")),
    ("text", ("config", "rubric", "run_view", "tasks.grids_docs", "tasks.world_docs")),
    ("text", ("config_continual", "config_pooled", "config_rounds")),
    ("text", ("experiment_base", "knowledge")),
    ("text", ("config_few_shot", "few_shot_view", "report_parts")),
    ("text", ("few_shot",)),
    ("text", ("continual_table", "novelty")),
    ("text", ("agreement", "continual_results", "reliability")),
    ("text", ("report_configs", "report_grids", "report_ladder")),
    ("text", ("report_continual", "report_edits", "report_novelty")),
    ("text", ("report_reliability", "report_results", "report_rounds")),
    ("text", ("report_agreement",)),
    ("text", ("report_inputs",)),
    ("text", ("report_html",)),
    ("text", ("report",)),
    ("jax", ("checkpoint", "cross_entropy", "model", "runtime")),
    ("jax", ("hf_config", "lora", "mesh", "params")),
    ("jax", ("hf_weights", "kv_cache", "model_sharding")),
    ("jax", ("hf", "inner", "sample", "sft_loss")),
    ("jax", ("finetune", "generate", "imitate")),
    ("jax", ("packed",)),
    ("jax", ("capacity", "peft", "policy", "pretrain", "rates")),
    ("jax", ("distributed",)),
    ("jax", ("pools",)),
    ("jax", ("trials",)),
    ("jax", ("grading", "learn", "proposals", "reward")),
    ("jax", ("continual_stack", "control", "label_free", "pooled_texts")),
    ("jax", ("continual_ask", "evaluate", "pooled_steps")),
    ("jax", ("continual_step", "ladder", "rest_em")),
    ("jax", ("summary",)),
    ("jax", ("continual", "pooled", "rounds")),
    ("jax", ("experiment",)),
    ("jax", ("train",)),
)
LAYER = {name: i for i, (_, names) in enumerate(LAYERS) for name in names}
TEXT = tuple(name for kind, names in LAYERS if kind == "text" for name in names)

# Third-party packages that bring jax with them.
JAX_FAMILY = {"chex", "flax", "jax", "jaxlib", "optax", "orbax"}


def sources(folder: str) -> list[pathlib.Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_name(path: pathlib.Path, package: pathlib.Path) -> str:
    """`seal_jax/tasks/world.py` -> `tasks.world`, within the package's folder."""
    return ".".join(path.relative_to(package).with_suffix("").parts)


def imports(path: pathlib.Path) -> list[tuple[int, str]]:
    """Every (line, dotted name) a file imports, wherever in the file it does so.

    `from seal_jax import lora` counts as `seal_jax.lora`; a relative import keeps its
    dots, a star import its star.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            found += [(node.lineno, f"{origin}.{alias.name}") for alias in node.names]
    return found


MODULES = {
    module_name(path, ROOT / "seal_jax"): path
    for path in sources("seal_jax")
    if path.name != "__init__.py"
}


def own_imports(path: pathlib.Path) -> list[tuple[int, str]]:
    """The imports of seal_jax's own modules, as names of `MODULES`."""
    found = []
    for line, name in imports(path):
        if name.split(".")[0] != "seal_jax":
            continue
        inner = name.removeprefix("seal_jax.")
        # `from seal_jax.model import ModelConfig` names an object of the module.
        parent = inner.rpartition(".")[0]
        found.append((line, parent if parent in MODULES else inner))
    return found


@pytest.mark.parametrize(
    "source, names",
    [
        ("import jax.numpy as jnp", ["jax.numpy"]),
        ("from seal_jax import lora, model", ["seal_jax.lora", "seal_jax.model"]),
        ("def f():\n    if True:\n        import jax", ["jax"]),
        ("from . import lora", ["..lora"]),
        ("from .lora import init", [".lora.init"]),
        ("from jax import *", ["jax.*"]),
        ('"""import jax"""\n# import jax', []),
    ],
)
def test_imports_are_found(source, names, tmp_path):
    path = tmp_path / "m.py"
    path.write_text(source)
    assert [name for _, name in imports(path)] == names


def test_every_module_has_a_row_and_every_row_a_module():
    assert set(MODULES) - set(LAYER) == set(), "add these modules to a row of LAYERS"
    assert set(LAYER) - set(MODULES) == set(), "LAYERS names modules that are gone"


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_from_rows_below(name):
    path = MODULES[name]
    upward = [
        f"{path.name}:{line} imports {other}"
        for line, other in own_imports(path)
        if LAYER.get(other, len(LAYERS)) >= LAYER[name]
    ]
    assert upward == []


@pytest.mark.parametrize("name", TEXT)
def test_text_modules_do_not_reach_jax(name):
    seen, todo = set(), [name]
    while todo:
        module = todo.pop()
        seen.add(module)
        outside = {other.split(".")[0] for _, other in imports(MODULES[module])}
        reached = outside & (JAX_FAMILY | {"seal_kernels"})
        assert not reached, f"{name} reaches {reached} through {module}"
        todo += [m for _, m in own_imports(MODULES[module]) if m not in seen]


def test_importing_the_text_modules_leaves_jax_unloaded(child_env):
    lines = [f"import seal_jax.{name}" for name in TEXT]
    lines += ["import sys", "print('loaded:', 'jax' in sys.modules)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        env=child_env,
    )
    assert (done.stdout, done.stderr) == ("loaded: False\n", "")


@pytest.mark.parametrize(
    "path", sources("kernels/seal_kernels"), ids=lambda p: "/".join(p.parts[-2:])
)
def test_kernels_import_jax_and_nothing_of_the_method(path):
    allowed = {"jax", "jaxlib", "numpy", "seal_kernels", *sys.stdlib_module_names}
    foreign = {name for _, name in imports(path) if name.split(".")[0] not in allowed}
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
    names = [re.split(r"[^\w-]", line)[0] for line in project["dependencies"]]
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
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sources(folder)
        for line, name in imports(path)
        if name.startswith(".") or name.endswith(".*")
    ]
    assert found == []


def test_init_files_are_empty_and_none_is_missing():
    for package in (ROOT / "seal_jax", ROOT / "kernels" / "seal_kernels"):
        inits = {path for path in package.rglob("__init__.py")}
        assert [str(p) for p in inits if p.read_text(encoding="utf-8").strip()] == []
        folders = {path.parent for path in package.rglob("*.py")}
        assert folders == {path.parent for path in inits}


def test_rank_promotion_raises():
    jnp = pytest.importorskip("jax.numpy")
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)
