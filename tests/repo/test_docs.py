"""README, CONTRIBUTING and docs/: what they name is there, and their code runs.

Links between the pages of docs/ are checked by `mkdocs build --strict` (`make docs`).
"""

import ast
import importlib
import importlib.util
import pathlib
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

import pages
import pytest

from seal_jax import __main__ as commands
from seal_jax.experiment import kinds
from seal_jax.rewards import graders
from seal_jax.rounds import few_shot_settings
from seal_jax.rounds import settings as rounds_settings

ROOT, PAGES = pages.ROOT, pages.PAGES
MODULES = sorted((ROOT / "seal_jax").rglob("*.py"))
COMMANDS = [(page.name, command) for page in PAGES for command in page.commands]

# Stands before a block that takes minutes: the page's blocks run in `make test-slow`.
SLOW = "<!-- slow -->"


def paths(text: str) -> set[str]:
    """Paths in the repository; what has a placeholder in capitals is none."""
    found = re.findall(r"\b(?:seal_jax|configs|benchmarks|kernels)/[\w./-]*", text)
    names = {path.rstrip(".-") for path in found}
    return {n for n in names if not any(p.isupper() for p in re.split(r"[/.]", n))}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_paths_exist(page):
    missing = {path for path in paths(page.text) if not (ROOT / path).exists()}
    assert missing == set()


def test_result_files_of_the_findings_exist():
    names = re.findall(r"`(\w[\w-]*\.json)`", pages.read("docs/findings.md").text)
    results = {path.name for path in (ROOT / "benchmarks/results").rglob("*.json")}
    assert len(names) > 10
    assert set(names) - results == set()


def linked(page: pages.Page) -> list[str]:
    links = re.findall(r"\]\(([^)\s]+)\)", page.text)
    return [link for link in links if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    lost = []
    for link in linked(page):
        name, _, anchor = link.partition("#")
        target = (ROOT / page.name).parent / name if name else ROOT / page.name
        if not target.exists():
            lost.append(link)
            continue
        there = pages.read(str(target.resolve().relative_to(ROOT))) if anchor else None
        if there is not None and anchor not in there.anchors:
            lost.append(link)
    assert lost == []


# Commands


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    called = {t for _, c in COMMANDS for t in re.findall(r"\bmake ([a-z-]+)", c)}
    assert {"demo", "test", "docs", "lint"} <= called <= targets
    explained = set(re.findall(r'^\t@echo "make ([a-z-]+) ', makefile, re.M))
    assert called <= explained


def test_modules_that_are_run_exist():
    called = {
        (module, name)
        for _, command in COMMANDS
        for module, name in re.findall(
            r"python -m (seal_jax[\w.]*)(?: ([a-z]+))?", command
        )
    }
    assert {"seal_jax", "seal_jax.train"} <= {module for module, _ in called}
    lost = [m for m in sorted({module for module, _ in called}) if not source(m)]
    assert lost == []
    names = {name for module, name in called if module == "seal_jax" and name}
    assert names - set(commands.COMMANDS) == set()


def test_the_page_of_commands_names_all_of_them():
    text = pages.read("docs/outputs.md").text
    named = re.findall(r"^\| `seal-jax (\w+)`", text, re.M)
    assert named == list(commands.COMMANDS)
    assert [m for m, _ in commands.COMMANDS.values() if not source(m)] == []


def source(module: str) -> str:
    """The text of what `python -m` runs; empty if there is no such command."""
    path = ROOT / module.replace(".", "/")
    if path.is_dir():
        path /= "__main__"
    path = path.with_suffix(".py")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    guarded = path.name == "__main__.py" or '__name__ == "__main__"' in text
    return text if guarded else ""


def load(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"{name}_config", ROOT / "configs" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# By their files, and by their names.
AS_GIVEN = (r"configs/(\w+)\.py(?::(\w+))?", r"--config=(\w+)(?::(\w+))?(?![\w/.:])")
GIVEN = sorted(
    {
        found
        for _, command in COMMANDS
        for pattern in AS_GIVEN
        for found in re.findall(pattern, command)
    }
)


def values_of(name: str, variant: str) -> dict[str, Any]:
    return load(name).get_config(variant or None).to_dict()


def test_configs_that_are_given_exist():
    given = {("tiny", ""), ("squad", ""), ("arc", "tiny"), ("tiny", "seeds")}
    assert given <= set(GIVEN)
    for name, variant in GIVEN:
        assert values_of(name, variant)


@pytest.fixture(scope="module")
def benchmark():
    """Imports a file of benchmarks/, which find each other as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module


def test_benchmarks_take_the_flags_that_they_are_given(benchmark):
    pattern = re.compile(
        r"^(?:\w+=\S+ )*(?:python|TORCH_PYTHON) benchmarks/(\w+)\.py(.*)"
    )
    parsed = set()
    for _, command in COMMANDS:
        if match := pattern.match(command):
            module = benchmark(match[1])
            if hasattr(module, "parse_args"):
                module.parse_args(match[2].split())
                parsed.add(match[1])
    assert {"inner_loop", "peft_baseline", "round", "generate", "scaling"} <= parsed


def test_the_page_of_benchmarks_names_every_file():
    text = pages.read("docs/benchmarks.md").text
    files = [path.name for path in (ROOT / "benchmarks").glob("*.*")]
    assert [n for n in files if n != "README.md" and f"`{n}`" not in text] == []


# Settings


# Experiments; pretraining has a config of another kind.
VALUES = {at: values_of(*at) for at in GIVEN if at[0] != "tiny_pretrain"}


def leaf(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The group that holds the last part of a dotted key, and that part."""
    *groups, last = key.split(".")
    for group in groups:
        values = values[group]
    return values, last


def holders(key: str) -> list[tuple[str, str]]:
    """The configs, with their variants, that have this dotted key."""
    names = []
    for name, values in VALUES.items():
        try:
            group, last = leaf(values, key)
        except (KeyError, TypeError):
            continue
        if isinstance(group, Mapping) and last in group:
            names.append(name)
    return names


def settings() -> list[tuple[str, str]]:
    """Each key=value of a config that the pages give, as a flag or in the text."""
    flag = re.compile(r'--config\.([\w.]+)=("[^"]*"|\S+)')
    plain = re.compile(r'^((?:\w+\.)+\w+)=("[^"]*"|\S+)$')
    found = {
        (match[1], match[2])
        for _, command in COMMANDS
        for match in (*flag.finditer(command), *plain.finditer(command))
        if "$" not in match[2]  # a variable of the shell
        and not match[1].isupper()  # a placeholder
        and not match[2].startswith("module:")  # another one
    }
    return sorted(found)


@pytest.mark.parametrize("key, text", settings())
def test_settings_are_accepted(key, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_modules(PAGES, tmp_path)
    text = text.strip('"')
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    refusals = []
    for name in holders(key):
        values = values_of(*name)
        group, last = leaf(values, key)
        group[last] = value
        try:
            kinds.read(values)
        except ValueError as error:
            refusals.append(str(error))
    # Refuses a wrong type, and values that the key does not take.
    assert len(refusals) < len(holders(key)), refusals


def test_there_are_settings_to_check():
    keys = {key for key, _ in settings()}
    assert {"inner.loss.pad_samples", "edit.quirks", "model.path"} <= keys


def test_dotted_names_of_a_group_are_its_keys():
    groups = {
        key
        for values in VALUES.values()
        for key, value in values.items()
        if isinstance(value, Mapping)
    }
    spans = {span for page in PAGES for span in page.spans}
    dotted = {s for s in spans if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", s)}
    keys = {s for s in dotted if s.split(".")[0] in groups}
    assert len(keys) > 30
    assert [key for key in keys if not holders(key)] == []


def test_environment_variables_are_read_somewhere():
    named = {v for p in PAGES for v in re.findall(r"\bSEAL_[A-Z_]+\b", p.text)}
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("seal_jax", "configs", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "test_docs.py"
    )
    assert {"SEAL_DATA", "SEAL_TORCH_PYTHON"} <= named
    assert [name for name in named if name not in sources] == []


def test_every_row_of_the_ladder_is_explained():
    rows = {
        *rounds_settings.BASE_ARMS,
        *rounds_settings.CONTROL_ARMS,
        "round_1",
        "round_2",
    }
    rows |= {*few_shot_settings.BASE_ARMS, *few_shot_settings.LAST_ARMS}
    explained = {
        span
        for name in ("tiny_world", "arc")
        for span in pages.read(f"docs/{name}.md").spans
    }
    assert rows <= explained


def test_the_glossary_names_what_the_code_has():
    """Its third column: `module.Name`, or a group or field of a config."""
    text = pages.read("docs/architecture.md").text.split("## Glossary")[1]
    rows = re.findall(r"^\| [^|`]+ \| [^|]+ \| ([^|]+) \|$", text, re.M)
    names = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    lost = []
    for name in names:
        module, _, attribute = name.rpartition(".")
        files = [p for p in MODULES if p.stem == module]
        text = "".join(p.read_text(encoding="utf-8") for p in files)
        if not re.search(rf"^(?:class|def|type) {attribute}\b", text, re.M):
            lost.append(name)
    assert len(names) > 25
    assert lost == []


def test_the_dimension_key_is_the_decoders():
    docs = [
        ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for path in MODULES
    ]
    (key,) = (doc.split("Dimension key")[1] for doc in docs if "Dimension key" in doc)
    letters = set(re.findall(r"\b([A-Z])\b(?= [a-z]| LoRA| key)", key))
    page = pages.read("docs/architecture.md")
    assert len(letters) > 10
    assert letters == {span for span in page.spans if re.fullmatch("[A-Z]", span)}


# Code


WITH_CODE = [page for page in PAGES if page.fenced("python")]


def write_modules(of: list[pages.Page], folder: pathlib.Path) -> None:
    """The files that blocks of the pages are."""
    for name, text in (entry for page in of for entry in page.modules.items()):
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.name)
def test_no_example_is_longer_than_60_lines(page):
    lengths = [len(block.splitlines()) for block in page.modules.values()]
    assert max(lengths, default=0) < 60


def execute(page: pages.Page) -> None:
    """Runs the page's blocks in their order, in one namespace."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in page.fenced("python"):
        exec(compile(block, page.name, "exec"), namespace)


def test_there_is_code():
    assert "docs/extending.md" in [page.name for page in WITH_CODE]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, marks=[pytest.mark.slow] if SLOW in page.text else [], id=page.name
        )
        for page in WITH_CODE
    ],
)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What a page adds to the table of graders is gone after it.
    monkeypatch.setattr(graders, "LOCAL", dict(graders.LOCAL))
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_modules([page], tmp_path)
    execute(page)
