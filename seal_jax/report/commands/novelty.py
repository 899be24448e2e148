"""How new self-edits are, and how alike.

    seal-jax novelty PATH...

A PATH is a workdir (its edits.jsonl by round, its heldout.jsonl by arm), one such
.jsonl file, or a JSON file of the SEAL reference that holds completions:
data/synthetic_data/**.json or results/query_server/**.json. Printed are one row for
each file, round or arm, one of its diversity, and for each two of them that share
passages the overlap of their texts and the paired differences.

Diversity falls where a policy collapses: the share of different edits of a passage, of
different trigrams among all, and how alike two edits are of one passage and of two.

Texts are compared as lower-cased runs of word characters (`\\w+`), and trigrams as sets
within one completion. The measures are the usual ones of text diversity: n-gram novelty
and coverage, the Jaccard index (Jaccard 1912), distinct-n (Li et al. 2016,
arXiv 1510.03055) and compressibility (Shaib et al. 2024, arXiv 2403.00553). A measure
that a text is too short for is None, never 0.

Distinct-2 falls and zlib rises with the words there are: compare rows of as many edits
per passage (`--first`), and note their lengths.
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

from collections.abc import Sequence

from seal_jax.analysis import novelty
from seal_jax.report import read_texts, run_view
from seal_jax.report.tables import novelty as novelty_table
from seal_jax.runtime import command_line, formatting

EXAMPLES = """
seal-jax novelty runs/tiny
seal-jax novelty runs/tiny/edits.jsonl --first=2
seal-jax novelty runs/tiny runs/other
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = command_line.Parser(
        prog="seal-jax novelty",
        description="Novelty and diversity of self-edits, by file, round and arm.",
        examples=EXAMPLES,
    )
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument(
        "--first",
        type=command_line.COUNT,
        metavar="K",
        help="only the first K edits of each passage",
    )
    args = parser.parse_args(argv)
    return formatting.exit_status(lambda: _print(args.paths, args.first))


def _print(paths: Sequence[str], count: int | None) -> None:
    alike = len({read_texts.stem(path) for path in paths}) < len(paths)
    groups = []
    for path in paths:
        with run_view.reading_from(path):
            groups += read_texts.read(path, name=path if alike else None)
    if count is not None:
        groups = [novelty.first(edits, count) for edits in groups]
    texts = [
        formatting.aligned(novelty_table.summary_rows(groups)),
        f"\n{formatting.aligned(novelty_table.diversity_rows(groups))}",
    ]
    texts += [f"{e.name}: {e.prompt!r}" for e in groups if e.prompt is not None]
    changes = novelty_table.change_rows(groups)
    if len(changes) > 1:
        texts.append(f"\n{formatting.aligned(changes)}")
    print("\n".join(texts))


if __name__ == "__main__":
    raise SystemExit(main())
