"""The self-edits in a workdir, in a file of its rows, or in a file of the reference."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seal_jax.analysis.novelty import Edits, Passage
from seal_jax.report import run_view
from seal_jax.runtime import files

_WANTED = "a workdir with an edits.jsonl, or a SEAL file of self-edits"

type Entry = tuple[Passage, str | None, list[str]]  # its prompt's template; its texts


@run_view.bounded
def read(path: str | Path, *, name: str | None = None) -> list[Edits]:
    """The self-edits in a file or workdir, by round or arm, and by prompt if it varies.

    Args:
      name: begins the names of the results; None: the file's stem or folder's name.

    Raises:
      ValueError: nothing there, or rows without a passage and texts.
      OSError: it cannot be read.
    """
    path = Path(path)
    name = stem(path) if name is None else name
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
    groups: dict[str, list[Entry]] = {}
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


def stem(path: str | Path) -> str:
    """A file's name without its ending, or a folder's."""
    # Not Path.resolve, which raises at a link to itself.
    path = Path(os.path.realpath(path))
    return path.name if path.is_dir() else path.stem


def _label(row: dict[str, Any]) -> str:
    if "round" in row:
        return f" round {row['round']}"
    return f" held-out {row['arm']}" if "arm" in row else ""


def _entry(row: dict[str, Any]) -> Entry:
    title, text = row.get("title") or "", row.get("context") or row["passage"]
    completions = row["completions"] if "completions" in row else [row["text"]]
    if not isinstance(completions, list):  # A text is a list of letters to Python.
        raise TypeError(f"completions={completions!r:.40} is no list")
    edits = [c["text"] if isinstance(c, dict) else c for c in completions]
    for part in (title, text, *edits):
        if not isinstance(part, str):
            raise TypeError(f"{part!r:.40} is not text")
    return (title, text), _template(row.get("prompt"), title, text), edits


def _template(prompt: Any, title: str, passage: str) -> str | None:
    """The prompt without this passage, the same for all of one kind."""
    if not isinstance(prompt, str) or not passage or passage not in prompt:
        return None
    head, _, tail = prompt.partition(passage)
    return f"{head.rstrip().removesuffix(title).rstrip()} ... {tail.strip()}".strip()


def _by_prompt(name: str, entries: Iterable[Entry]) -> list[Edits]:
    prompts: dict[str | None, dict[Passage, tuple[str, ...]]] = {}
    for passage, prompt, texts in entries:
        by_passage = prompts.setdefault(prompt, {})
        by_passage[passage] = (*by_passage.get(passage, ()), *texts)
    if len(prompts) == 1:
        return [Edits(name, by_passage) for by_passage in prompts.values()]
    return [
        Edits(f"{name} prompt {i}", by_passage, prompt)
        for i, (prompt, by_passage) in enumerate(prompts.items(), start=1)
    ]
