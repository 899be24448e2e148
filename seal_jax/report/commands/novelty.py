"""`python -m seal_jax novelty PATH...`: how new self-edits are, and how alike.

A PATH is a workdir (its edits.jsonl by round, its heldout.jsonl by arm), one such
.jsonl file, or a JSON file of the SEAL reference that holds completions:
data/synthetic_data/**.json or results/query_server/**.json. Printed are one row for
each file, round or arm, and for each two of them that share passages the overlap of
their texts and the paired differences.

Texts are compared as lower-cased runs of word characters (`\\w+`), and trigrams as sets
within one completion. The measures are the usual ones of text diversity: n-gram novelty
and coverage, the Jaccard index (Jaccard 1912), distinct-n (Li et al. 2016,
arXiv 1510.03055) and compressibility (Shaib et al. 2024, arXiv 2403.00553). A measure
that a text is too short for is None, never 0.

Distinct-2 falls and zlib rises with the words there are: compare rows of as many edits
per passage (`--first`), and note their lengths.
"""

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax.analysis import ngrams, novelty_measures, stats
from seal_jax.report import run_view
from seal_jax.runtime import files, formatting

_WANTED = "a workdir with an edits.jsonl, or a SEAL file of self-edits"

type Passage = tuple[str, str]  # (title, text)


@dataclasses.dataclass(frozen=True)
class Edits:
    """The self-edits of one file, round or arm."""

    name: str
    by_passage: dict[Passage, tuple[str, ...]]
    prompt: str | None = None  # only where one file or round holds several prompts

    # Kept, since comparing many files in pairs asks for them again and again.
    @functools.cached_property
    def measured(self) -> dict[Passage, dict[str, float | None]]:
        """`novelty_measures.measure` of each passage."""
        return {
            p: novelty_measures.measure(p[1], own) for p, own in self.by_passage.items()
        }

    @functools.cached_property
    def trigrams(self) -> dict[Passage, list[set[ngrams.Gram]]]:
        """Of each completion of each passage that has three words."""
        return {
            p: novelty_measures.trigram_sets(own) for p, own in self.by_passage.items()
        }


# Many passages


def summarize(edits: Edits) -> dict[str, tuple[float | None, float | None]]:
    """{measure: (mean, standard error) over passages}; None where not measured."""
    rows = edits.measured.values()
    return {
        name: _mean_se([row[name] for row in rows])
        for name in novelty_measures.MEASURES
    }


@dataclasses.dataclass(frozen=True)
class Change:
    """Two sets of edits over the passages they share."""

    passages: int
    overlap: tuple[float | None, float | None]  # mean, standard error
    # {measure: (later - earlier, standard error, z)} over the same passages
    diffs: dict[str, tuple[float | None, float | None, float | None]]


def compare(later: Edits, earlier: Edits) -> Change:
    """Overlap of the texts, and paired differences later - earlier.

    Raises:
      ValueError: they share no passage.
    """
    shared = [p for p in later.by_passage if p in earlier.by_passage]
    if not shared:
        names = f"{later.name} and {earlier.name}"
        raise ValueError(f"{names} share no passage; compare edits of the same ones")
    common = [
        novelty_measures.overlap_of_sets(later.trigrams[p], earlier.trigrams[p])
        for p in shared
    ]
    a, b = ([side.measured[p] for p in shared] for side in (later, earlier))
    diffs = {
        name: _paired([row[name] for row in a], [row[name] for row in b])
        for name in novelty_measures.MEASURES
    }
    return Change(len(shared), _mean_se(common), diffs)


def first(edits: Edits, count: int) -> Edits:
    """The first `count` edits of each passage; one that has fewer is left out.

    Raises:
      ValueError: `count` is not positive, or no passage has as many.
    """
    if count < 1:
        raise ValueError(f"first={count} must be at least 1")
    kept = {p: own[:count] for p, own in edits.by_passage.items() if len(own) >= count}
    most = max(map(len, edits.by_passage.values()))
    if not kept:
        raise ValueError(f"{edits.name}: first={count} must be at most {most} edits")
    return dataclasses.replace(edits, by_passage=kept)


def _mean_se(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    return stats.mean_se(known) if known else (None, None)


def _paired(
    a: Sequence[float | None], b: Sequence[float | None]
) -> tuple[float | None, float | None, float | None]:
    if any(x is not None and y is not None for x, y in zip(a, b, strict=True)):
        return stats.paired(a, b)
    return None, None, None


# Files


def read(path: str | Path, *, name: str | None = None) -> list[Edits]:
    """The self-edits in a file or workdir, by round or arm, and by prompt if it varies.

    Args:
      name: begins the names of the results; None: the file's stem or folder's name.

    Raises:
      ValueError: nothing there, or rows without a passage and texts.
      OSError: it cannot be read.
    """
    path = Path(path)
    name = _stem(path) if name is None else name
    if path.is_dir():
        rows = [*enumerate(run_view.read_edits(path), start=1)]
        rows += enumerate(run_view.read_heldout(path), start=1)
    elif not path.is_file():
        raise ValueError(f"{path}: no such file or directory; give {_WANTED}")
    elif path.suffix == ".jsonl":
        rows = [*enumerate(files.read_jsonl(path), start=1)]
    else:
        value = files.read_json(path)
        if isinstance(value, dict):
            value = value.get("articles")
        rows = [*enumerate(value, start=1)] if isinstance(value, list) else []
    if not rows:
        raise ValueError(f"{path}: must hold self-edits; give {_WANTED}")
    groups: dict[str, list[tuple[Passage, str | None, list[str]]]] = {}
    for number, row in rows:
        try:
            label, entry = _label(row), _entry(row)
        except KeyError as error:
            raise ValueError(
                f"{path}: row {number} must have a passage and its self-edits, and "
                f"lacks {error}; it has {list(row)[:6]}; give {_WANTED}"
            ) from None
        except (TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: row {number} must have a passage and its self-edits "
                f"({error}); give {_WANTED}"
            ) from None
        groups.setdefault(f"{name}{label}", []).append(entry)
    return [e for label, entries in groups.items() for e in _by_prompt(label, entries)]


def _stem(path: str | Path) -> str:
    path = Path(path).resolve()
    return path.name if path.is_dir() else path.stem


def _label(row: dict[str, Any]) -> str:
    if "round" in row:
        return f" round {row['round']}"
    return f" held-out {row['arm']}" if "arm" in row else ""


def _entry(row: dict[str, Any]) -> tuple[Passage, str | None, list[str]]:
    title, text = row.get("title") or "", row.get("context") or row["passage"]
    own = row["completions"] if "completions" in row else [row["text"]]
    own = [c["text"] if isinstance(c, dict) else c for c in own]
    for part in (title, text, *own):
        if not isinstance(part, str):
            raise TypeError(f"{part!r:.40} is not text")
    return (title, text), _template(row.get("prompt"), title, text), own


def _template(prompt: Any, title: str, passage: str) -> str | None:
    """The prompt without this passage, the same for all of one kind."""
    if not isinstance(prompt, str) or not passage or passage not in prompt:
        return None
    head, _, tail = prompt.partition(passage)
    return f"{head.rstrip().removesuffix(title).rstrip()} ... {tail.strip()}".strip()


def _by_prompt(name: str, entries) -> list[Edits]:
    prompts: dict[str | None, dict[Passage, tuple[str, ...]]] = {}
    for passage, prompt, texts in entries:
        own = prompts.setdefault(prompt, {})
        own[passage] = (*own.get(passage, ()), *texts)
    if len(prompts) == 1:
        return [Edits(name, own) for own in prompts.values()]
    numbered = enumerate(prompts.items(), start=1)
    return [Edits(f"{name} prompt {i}", own, text) for i, (text, own) in numbered]


# Command


def summary_rows(groups: Sequence[Edits]) -> list[tuple[str, ...]]:
    """A heading and a row for each of `groups`: sizes, then mean ± standard error."""
    heads = [f"{name} ± se" for name in novelty_measures.MEASURES]
    rows: list[tuple[str, ...]] = [("", "passages", "edits each", *heads)]
    for edits in groups:
        sizes = {len(own) for own in edits.by_passage.values()}
        each = " to ".join(f"{size}" for size in sorted({min(sizes), max(sizes)}))
        means = summarize(edits)
        cells = [
            plus_minus(*means[m], digits=d)
            for m, d in novelty_measures.MEASURES.items()
        ]
        rows.append((edits.name, formatting.count(len(edits.by_passage)), each, *cells))
    return rows


def change_rows(groups: Sequence[Edits]) -> list[tuple[str, ...]]:
    """A heading and a row for each two that share passages, the later first.

    A pair without overlap to speak of (one side is blank) has no row.
    """
    shown = [name for name in novelty_measures.MEASURES if name != "words"]
    heads = [cell for name in shown for cell in (f"{name} diff", "z")]
    rows: list[tuple[str, ...]] = [("change", "passages", "overlap ± se", *heads)]
    for earlier, later in itertools.combinations(groups, 2):
        if later.by_passage.keys().isdisjoint(earlier.by_passage):
            continue
        change = compare(later, earlier)
        if change.overlap[0] is None:
            continue
        cells, many = [], formatting.enough(change.passages)
        for name in shown:
            diff, _, z = change.diffs[name]
            cells.append(
                formatting.signed(diff, digits=novelty_measures.MEASURES[name])
            )
            cells.append(formatting.signed(z if many else None, digits=1))
        common = plus_minus(*change.overlap, digits=3)
        title = f"{later.name} - {earlier.name}"
        rows.append((title, formatting.count(change.passages), common, *cells))
    return rows


def plus_minus(mean: float | None, se: float | None, *, digits: int = 3) -> str:
    """1.234 ± 0.056; the mean alone without a standard error, "-" for neither."""
    text = formatting.number(mean, digits=digits)
    return text if se is None else f"{text} ± {formatting.number(se, digits=digits)}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seal_jax novelty",
        description="Novelty and diversity of self-edits, by file, round and arm.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument(
        "--first", type=int, metavar="K", help="only the first K edits of each passage"
    )
    args = parser.parse_args(argv)
    return formatting.exit_status(lambda: _print(args.paths, args.first))


def _print(paths: Sequence[str], count: int | None) -> None:
    alike = len({_stem(path) for path in paths}) < len(paths)
    groups = [e for p in paths for e in read(p, name=p if alike else None)]
    if count is not None:
        groups = [first(edits, count) for edits in groups]
    print(formatting.aligned(summary_rows(groups)))
    for edits in groups:
        if edits.prompt is not None:
            print(f"{edits.name}: {edits.prompt!r}")
    changes = change_rows(groups)
    if len(changes) > 1:
        print(f"\n{formatting.aligned(changes)}")


if __name__ == "__main__":
    raise SystemExit(main())
