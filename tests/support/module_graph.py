"""The order of the packages, and the imports between the modules as they are.

    python tests/support/module_graph.py            # prints the graph
    python tests/support/module_graph.py --write    # ... into docs/architecture.md

`tests/repo/test_imports.py` holds the code to `ORDER` and `JAX_FREE`.
"""

import ast
import functools
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[2]

# From the bottom to the top: a package imports only from those before it.
ORDER = (
    "runtime",
    "analysis",
    "models",
    "training",
    "generation",
    "tasks",
    "rewards",
    "rounds",
    "continual",
    "deploy",
    "pooled",
    "lmsi",
    "report",
    "embedded",
    "experiment",
    "forecast",
    "train",
    "api",
    "commands",
    "__main__",
)

# Packages and modules that jax never reaches, directly or through others.
JAX_FREE = (
    "analysis",
    "api.lines",
    "api.settings",
    "tasks",
    "rewards",
    "report",
    "commands.completion",
    "commands.given_columns",
    "commands.given_texts",
    "commands.model_card",
    "commands.table",
    "continual.controls",
    "continual.entries",
    "continual.files",
    "continual.halves",
    "continual.settings",
    "continual.table",
    "deploy.entries",
    "deploy.lessons",
    "deploy.logs",
    "deploy.sessions",
    "deploy.settings",
    "deploy.table",
    "embedded.assets",
    "embedded.grids_corpus",
    "embedded.hops_corpus",
    "embedded.make_debug",
    "embedded.settings",
    "embedded.world_corpus",
    "forecast.named",
    "generation.places",
    "generation.schedule",
    "generation.settings",
    "generation.side_by_side",
    "lmsi.asking",
    "lmsi.settings",
    "lmsi.table",
    "lmsi.votes",
    "pooled.settings",
    "rounds.draws",
    "rounds.experiment",
    "rounds.few_shot_settings",
    "rounds.gold",
    "rounds.graded",
    "rounds.ladder_rows",
    "rounds.lessons",
    "rounds.outer_checks",
    "rounds.over_seeds_settings",
    "rounds.seeds_summary",
    "rounds.select",
    "rounds.settings",
    "rounds.sieves",
    "rounds.token_forms",
    "rounds.unit_key",
    "runtime.ahead",
    "runtime.command_line",
    "runtime.config_file",
    "runtime.config_rules",
    "runtime.files",
    "runtime.formatting",
    "runtime.interrupts",
    "runtime.journal",
    "runtime.metrics",
    "runtime.peers",
    "runtime.plugins",
    "runtime.progress",
    "runtime.reading",
    "runtime.records",
    "runtime.relay",
    "runtime.settings",
    "runtime.shipped",
    "runtime.writer_kinds",
    "runtime.writers",
    "training.fitting",
    "training.inner_rules",
    "training.outer_rules",
    "training.plan",
    "training.plan_arrays",
    "training.settings",
    "training.sft_rows",
    "training.taught",
)

# Third-party packages that bring jax with them.
JAX_FAMILY = frozenset({"chex", "flax", "jax", "jaxlib", "optax", "orbax"})

BEGIN, END = "<!-- graph:begin -->", "<!-- graph:end -->"


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    """Every module of `seal_jax` by its dotted name within the package."""
    package = ROOT / "seal_jax"
    paths = sorted(package.rglob("*.py"))
    names = (".".join(p.relative_to(package).with_suffix("").parts) for p in paths)
    pairs = zip(names, paths, strict=True)
    return {
        name.removesuffix(".__init__"): p for name, p in pairs if name != "__init__"
    }


def imported(source: str) -> list[tuple[int, str]]:
    """Every (line, dotted name) a source imports, wherever in it it does so.

    `from seal_jax.models import lora` counts as `seal_jax.models.lora`; a relative
    import keeps its dots, a star import its star.
    """
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            names += [(node.lineno, f"{origin}.{alias.name}") for alias in node.names]
    return names


@functools.cache
def imports(path: pathlib.Path) -> tuple[tuple[int, str], ...]:
    """`imported` of a file, parsed once."""
    return tuple(imported(path.read_text(encoding="utf-8")))


@functools.cache
def inner_imports(name: str) -> tuple[tuple[int, str], ...]:
    """The imports of seal_jax's own modules by a module, as names of `modules`."""
    inner = []
    for line, full in imports(modules()[name]):
        if full.split(".")[0] != "seal_jax":
            continue
        target = full.removeprefix("seal_jax").removeprefix(".")
        # `from seal_jax.models.decoder import Arch` names an object of the module.
        while target and target not in modules():
            target = target.rpartition(".")[0]
        if target and target != name:
            inner.append((line, target))
    return tuple(inner)


def reached(name: str) -> set[str]:
    """A module and all that it imports, directly or through others."""
    seen, todo = set(), [name]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += [other for _, other in inner_imports(module)]
    return seen


def package(name: str) -> str:
    """`models` of `models.lora`."""
    return name.split(".")[0]


def is_jax_free(name: str) -> bool:
    """Whether `JAX_FREE` promises it of a module."""
    return any(name == free or name.startswith(f"{free}.") for free in JAX_FREE)


def cycle() -> list[str] | None:
    """Modules that import each other in a circle, or None."""
    state: dict[str, int] = {}
    path: list[str] = []

    def visit(name: str) -> list[str] | None:
        state[name] = 1
        path.append(name)
        for _, other in inner_imports(name):
            if state.get(other) == 1:
                return [*path[path.index(other) :], other]
            if other not in state and (circle := visit(other)):
                return circle
        state[name] = 2
        path.pop()
        return None

    for name in modules():
        if name not in state and (circle := visit(name)):
            return circle
    return None


def graph() -> str:
    """For each package its modules, and the packages that it imports from."""
    lines = []
    for room in ORDER:
        names = [n for n in modules() if (package(n) == room and "." in n) or n == room]
        below = {package(other) for n in names for _, other in inner_imports(n)}
        below = [other for other in ORDER if other in below - {room}]
        sign = " (no jax)" if all(is_jax_free(n) for n in names if "." in n) else ""
        lines.append(f"{room}{sign if room in JAX_FREE else ''}")
        lines.append(f"    from  {', '.join(below) or 'nothing below'}")
        inside = [n.partition(".")[2] for n in names if "." in n]
        if inside:
            lines += _wrapped("    holds ", inside)
    return "\n".join(lines)


def _wrapped(head: str, words: list[str]) -> list[str]:
    lines, line = [], head
    for i, word in enumerate(words):
        item = word + ("," if i < len(words) - 1 else "")
        if len(line) + len(item) + 1 > 84 and line.strip():
            lines.append(line.rstrip())
            line = " " * len(head)
        line += f"{item} "
    return [*lines, line.rstrip()]


def with_graph(text: str) -> str:
    """A page with the graph between its two marks."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n```text\n{graph()}\n```\n{END}{tail}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        page = ROOT / "docs" / "architecture.md"
        page.write_text(with_graph(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(graph())
