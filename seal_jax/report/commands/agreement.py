"""How well cheap rewards of self-edits agree with the true one.

    seal-jax agreement PATH...

A PATH is a workdir (its edits.jsonl, each round on its own) or a ranking result of the
SEAL reference (results/query_server/train/*.json). The true reward is the share of
questions that an edit's adapters answer right, over all seeds. Beside it stand all
other rewards that the run measured, and those that the text alone gives: the rubric by
rules, the number of words, the share of trigrams that the passage lacks.

What matters is the choice among the edits of one passage, so passages' own levels do
not count: `pooled` is the correlation of the deviations from passages' means, all
together, `mean` and `rank` are the means over passages of their own Pearson and
Spearman correlations. `pick` is the true reward of the edit that the cheap one likes
best, and `captured` the share that it gains of what the best edit has over the mean.

The true reward is noisy, and no reward can foretell its noise. "grade, other seeds" is
how the grade of half of the seeds agrees with that of the others: what seeds know of
each other. A reward that was measured on the same adapters shares their luck with the
grade; its row "other seeds" does not. Of a round that was a race over seeds only those
count that all edits had: the later ones were given to edits that had been lucky.

Of several rounds a last table says by round what each reward captures, and how it
correlates: a policy that learns from a reward of its own may drift from the true one.
Several workdirs are taken for seeds of one run there, with Student's 95 % interval.
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

import dataclasses
from collections.abc import Sequence

from seal_jax.report import read_rewards, run_view
from seal_jax.report.tables import agreement as agreement_table
from seal_jax.runtime import command_line, formatting

EXAMPLES = """
seal-jax agreement runs/rewards
seal-jax agreement ranking.json
seal-jax agreement runs/rewards runs/more
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table for each round or file of a command line; returns the status."""
    parser = command_line.Parser(
        prog="seal-jax agreement",
        description="How well cheap rewards of self-edits agree with the true one.",
        examples=EXAMPLES,
    )
    parser.add_argument("paths", metavar="PATH", nargs="+")
    args = parser.parse_args(argv)
    return formatting.exit_status(lambda: _print(args.paths))


def _print(paths: Sequence[str]) -> None:
    texts, rounds = [], []
    for number, path in enumerate(paths):
        with run_view.reading_from(path):
            for measured in read_rewards.read(path):
                # Workdirs of one name are several nevertheless.
                name = f"{number} {measured.name}"
                rounds.append(dataclasses.replace(measured, name=name))
                title = agreement_table.title(measured)
                if measured.has_choice:
                    table = formatting.aligned(agreement_table.table(measured))
                    texts.append(f"{table}\n")
                else:
                    texts.append(
                        f"{title}: one edit for each passage: nothing to choose from"
                    )
    if drift := agreement_table.by_round([m for m in rounds if m.has_choice]):
        texts.append(formatting.aligned(drift))
    print("\n".join(texts))


if __name__ == "__main__":
    raise SystemExit(main())
