"""Continual runs as tables.

    seal-jax continual PATH...

prints the accuracy matrix and the tables made from it (`analysis.forgetting`). A PATH
is a folder of run*/summary_*.json (results/continual_self_edits), its runs averaged;
one such file; or a folder that holds several such folders, as a continual workdir does
for its arms. Those are never averaged: each has its tables, and all stand side by
side.
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

from collections.abc import Sequence

from seal_jax.continual import files as continual_files
from seal_jax.report import run_view
from seal_jax.report.tables import continual as continual_table
from seal_jax.runtime import command_line, formatting

EXAMPLES = """
seal-jax continual runs/forget
seal-jax continual results/continual
seal-jax continual runs/forget runs/other
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables for the paths of a command line; returns the exit status."""
    parser = command_line.Parser(
        prog="seal-jax continual",
        description="Prints what continual runs remember, ours or the reference's.",
        examples=EXAMPLES,
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="folder or file")
    args = parser.parse_args(argv)
    return formatting.exit_status(lambda: _print(args.paths))


def _print(paths: Sequence[str]) -> None:
    named = []
    for path in paths:
        with run_view.reading_from(path):
            named += continual_files.read_all(path)
    texts = [f"{name}: {continual_table.tables(runs)}\n" for name, runs in named]
    if len(named) > 1:
        texts.append(continual_table.side_by_side(named))
    print("\n".join(texts))


if __name__ == "__main__":
    raise SystemExit(main())
