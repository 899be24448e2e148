"""How new self-edits are, and how alike, as rows of text."""

import itertools
from collections.abc import Sequence

from seal_jax.analysis import novelty, novelty_measures, stats
from seal_jax.runtime import formatting


def summary_rows(groups: Sequence[novelty.Edits]) -> list[tuple[str, ...]]:
    """A heading and a row for each of `groups`: sizes, then mean ± standard error."""
    heads = [f"{name} ± se" for name in novelty_measures.MEASURES]
    rows: list[tuple[str, ...]] = [("", "passages", "edits each", *heads)]
    for edits in groups:
        sizes = {len(texts) for texts in edits.by_passage.values()}
        each = " to ".join(f"{size}" for size in sorted({min(sizes), max(sizes)}))
        means = novelty.summarize(edits)
        cells = [
            formatting.plus_minus(*means[m], digits=d)
            for m, d in novelty_measures.MEASURES.items()
        ]
        rows.append((edits.name, formatting.count(len(edits.by_passage)), each, *cells))
    return rows


def change_rows(groups: Sequence[novelty.Edits]) -> list[tuple[str, ...]]:
    """A heading and a row for each two that share passages, the later first.

    A pair without overlap to speak of (one side is blank) has no row.
    """
    shown = [name for name in novelty_measures.MEASURES if name != "words"]
    heads = [cell for name in shown for cell in (f"{name} diff", "z")]
    rows: list[tuple[str, ...]] = [("change", "passages", "overlap ± se", *heads)]
    for earlier, later in itertools.combinations(groups, 2):
        if later.by_passage.keys().isdisjoint(earlier.by_passage):
            continue
        change = novelty.compare(later, earlier)
        if change.overlap[0] is None:
            continue
        cells, many = [], stats.enough(change.passages)
        for name in shown:
            diff, _, z = change.diffs[name]
            cells.append(
                formatting.signed(diff, digits=novelty_measures.MEASURES[name])
            )
            cells.append(formatting.signed(z if many else None, digits=1))
        common = formatting.plus_minus(*change.overlap, digits=3)
        title = f"{later.name} - {earlier.name}"
        rows.append((title, formatting.count(change.passages), common, *cells))
    return rows


def diversity_rows(groups: Sequence[novelty.Edits]) -> list[tuple[str, ...]]:
    """A heading and a row for each of `groups`; see `novelty_measures.diversity`."""
    found = [
        (edits.name, novelty_measures.diversity([*edits.by_passage.values()]))
        for edits in groups
    ]
    heads = found[0][1] if found else ()
    return [
        ("diversity", *heads),
        *((name, *map(formatting.number, told.values())) for name, told in found),
    ]
