"""What README.md names is there: commands, files, keys, variables."""

import ast
import importlib.util
import pathlib
import re

import pytest

from seal_jax import config_few_shot, config_rounds, experiment

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
# Code in the text: `spans`, and blocks indented by four spaces.
CODE = re.findall(r"`([^`]+)`", PROSE) + re.findall(r"^    (\S.*)$", PROSE, re.M)
MODULES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in (ROOT / "seal_jax").rglob("*.py")
}


def tree() -> dict[str, str]:
    """{path: comment} of the annotated file tree; a folder's own line ends in "/"."""
    (block,) = (b for b in FENCED if "seal_jax/\n" in b)
    found, folder = {}, ""
    for line in block.splitlines():
        name, _, comment = line.strip().partition("  ")
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            found[name] = comment.strip()
        else:
            found[f"{folder}{name}"] = comment.strip()
    return found


def values_of(name: str) -> dict:
    path = ROOT / "configs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().to_dict()


def holders(key: str) -> list[dict]:
    """The configs that have this dotted key."""
    found = []
    for name in ("squad", "arc", "continual", "squad_cpt"):
        values = values_of(name)
        try:
            group, last = leaf(values, key)
            found += [values] * (last in group)
        except (KeyError, TypeError):
            continue
    return found


def leaf(values: dict, key: str):
    """The group that holds the last part of a dotted key, and that part."""
    *groups, last = key.split(".")
    for group in groups:
        values = values[group]
    return values, last


def settings() -> list[tuple[str, str]]:
    """Each key=value of the config that the text gives, as flag or in a table."""
    pattern = re.compile(r'(?:--config\.)?((?:\w+\.)+\w+)=("[^"]*"|\S+)')
    roots = set(values_of("squad")) | set(values_of("arc"))
    return [
        (match[1], match[2])
        for code in CODE
        for match in pattern.finditer(code)
        if match[0].startswith("--config.") or match[1].split(".")[0] in roots
        if "$" not in match[2]  # a variable of the shell
    ]


def test_the_tree_names_what_exists():
    missing = [path for path in tree() if not (ROOT / path).exists()]
    assert missing == []


def test_the_tree_names_every_source_file():
    named = set(tree())
    sources = [
        str(path.relative_to(ROOT))
        for folder in ("seal_jax", "configs", "benchmarks", "kernels")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert len(sources) > 30
    assert [path for path in sources if path not in named] == []


def test_every_file_of_the_package_has_a_comment():
    bare = [p for p, comment in tree().items() if p.endswith(".py") and not comment]
    assert bare == []


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    named = {t for code in CODE for t in re.findall(r"\bmake ([a-z-]+)", code)}
    assert {"demo", "test"} <= named <= targets
    explained = re.findall(r'^\t@echo "make ([a-z-]+) ', makefile, re.M)
    assert tree()["Makefile"].split(", ") == explained


def test_the_two_commands_come_first():
    commands = re.findall(r"^    (\S.*)$", TEXT, re.M)
    assert [c.split("#")[0].strip() for c in commands[:2]] == ["make demo", "make test"]


def test_modules_that_are_run_exist():
    named = {m for code in CODE for m in re.findall(r"python -m ([\w.]+)", code)}
    assert {"seal_jax.train", "seal_jax.select", "seal_jax.report"} <= named
    assert [m for m in named if importlib.util.find_spec(m) is None] == []
    plain = [m for m in named if '__name__ == "__main__"' not in MODULES[m[9:]]]
    assert plain == []


def test_config_files_that_are_given_exist():
    given = {c for code in CODE for c in re.findall(r"--config=([\w/.]+)", code)}
    assert {"configs/tiny.py", "configs/squad.py", "configs/arc.py"} <= given
    assert [path for path in given if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("key, text", settings())
def test_settings_are_accepted(key, text):
    text = text.strip('"')
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    refusals = []
    for values in holders(key):
        group, last = leaf(values, key)
        group[last] = value
        try:
            experiment.read(values)
        except ValueError as error:
            refusals.append(str(error))
    # Refuses a wrong type, and values that the key does not take.
    assert len(refusals) < len(holders(key)), refusals


def test_there_are_settings_to_check():
    keys = {key for key, _ in settings()}
    assert {"inner.loss.pad_samples", "edit.quirks", "model.path"} <= keys


def defined(module: str, name: str) -> bool:
    body = ast.parse(MODULES[module]).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and node.name == name for node in body)


def test_dotted_names_are_config_keys_or_functions():
    unknown = []
    suffixes = ("py", "json", "jsonl", "html", "txt")
    for name in {c for c in CODE if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", c)}:
        first, *_, last = name.split(".")
        if last in suffixes or first == "jax":
            continue
        if not holders(name) and not (first in MODULES and defined(first, last)):
            unknown.append(name)
    assert unknown == []


def test_environment_variables_are_read_somewhere():
    named = set(re.findall(r"\bSEAL_[A-Z_]+\b", TEXT))
    files = [
        p for d in ("seal_jax", "configs", "tests") for p in (ROOT / d).rglob("*.py")
    ]
    sources = "".join(
        p.read_text(encoding="utf-8")
        for p in files
        if p.name != pathlib.Path(__file__).name
    )
    assert {"SEAL_DATA", "SEAL_TORCH_PYTHON"} <= named
    assert [name for name in named if name not in sources] == []


def test_links_into_the_repository_lead_somewhere():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_the_dimension_key_is_the_models():
    doc = ast.get_docstring(ast.parse(MODULES["model"]))
    key = doc.split("throughout the project:")[1]
    letters = set(re.findall(r"\b([A-Z])\b(?= [a-z]| LoRA| key)", key))
    assert len(letters) > 10
    assert letters == set(re.findall(r"`([A-Z])`", TEXT))


def test_every_row_of_the_ladder_is_explained():
    rows = {*config_rounds.BASE_ARMS, *config_rounds.CONTROL_ARMS, "round_1", "round_2"}
    rows |= {*config_few_shot.BASE_ARMS, *config_few_shot.LAST_ARMS}
    assert rows <= set(CODE)


def test_nothing_is_left_to_fill_in():
    assert re.findall(r"@@\w*@*", TEXT) == []
