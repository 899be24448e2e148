"""How far a reward measured with few seeds can be trusted, and what more would buy.

    seal-jax reliability PATH...

A PATH is a ranking result of the SEAL reference (results/query_server/train/*.json) or
a workdir (its edits.jsonl, each round on its own). Printed are the variance of rewards
between edits and between seeds; the gain of the best edit for more seeds, as it appears
and as it is; the best use of a budget of trainings; and successive halving beside equal
seeds for all. "real" is for normal rewards, "held out" is measured: chosen by some
seeds, graded by the others.
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

from collections.abc import Sequence

from seal_jax.analysis.reliability import SeedRewards
from seal_jax.report import read_seeds, run_view
from seal_jax.report.tables import reliability as reliability_table
from seal_jax.runtime import command_line, formatting

EXAMPLES = """
seal-jax reliability runs/tiny
seal-jax reliability ranking.json --draws=1000
seal-jax reliability runs/tiny runs/other
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints tables for the paths of a command line; returns the exit status."""
    parser = command_line.Parser(
        prog="seal-jax reliability",
        description="How far rewards can be trusted, and what more seeds would buy.",
        examples=EXAMPLES,
    )
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument(
        "--draws",
        type=command_line.whole(1, 100_000),
        default=400,
        help="resampled races",
    )
    args = parser.parse_args(argv)
    return formatting.exit_status(lambda: _print(args.paths, args.draws))


def _print(paths: Sequence[str], draws: int) -> None:
    texts = []
    for path in paths:
        with run_view.reading_from(path):
            texts += [_describe(measured, draws) for measured in read_seeds.read(path)]
    print("\n".join(f"{text}\n" for text in texts))


def _describe(measured: SeedRewards, draws: int) -> str:
    try:
        return reliability_table.describe(measured, draws=draws)
    except ValueError as error:
        raced = measured.raced
        why = "; of a race only the seeds count that all edits had"
        raise ValueError(
            f"{measured.name}{formatting.raced(raced)}: {error}"
            f"{'' if raced is None else why}"
        ) from error


if __name__ == "__main__":
    raise SystemExit(main())
