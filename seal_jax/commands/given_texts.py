"""Texts of a command line: .txt, .md and .jsonl files, and folders of them; no jax."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax.runtime import files, reading

TEXTS, ROWS = (".txt", ".md"), ".jsonl"
_ROW = (
    'a JSON text, {"text": TEXT}, {"prompt": TEXT, "completion": TEXT}, or '
    '{"lines": [...]} of such rows'
)

type Line = str | tuple[str, str]


def named(paths: Sequence[str], *, by_line: bool = False) -> dict[str, Any]:
    """What each adapter is to learn (`api.lines`), by a name that can be a folder's.

    A text file is one, by its own name; of a .jsonl file each row is, by the file's
    name and its number. A folder stands for such files in it.

    Args:
      by_line: whether a text file's lines are trained each for itself.

    Raises:
      ValueError: no text, another kind of file, a row that is none of its forms, or two
        of one name.
      OSError: a file cannot be read.
    """
    found: dict[str, Any] = {}
    for path in (file for given in paths for file in _files(given)):
        here = _rows(path) if path.suffix == ROWS else {path.stem: _text(path, by_line)}
        if twice := sorted(found.keys() & here.keys()):
            raise ValueError(
                f"{path}: {twice[0]!r} is the name of an adapter already; rename the "
                "file, or give its folder another --out"
            )
        found |= here
    return found


def _files(given: str) -> list[Path]:
    path, kinds = Path(given), (*TEXTS, ROWS)
    if files.is_folder(path):
        inside = sorted(p for p in path.iterdir() if p.suffix in kinds)
        if not inside:
            raise ValueError(
                f"{given}: holds no file that ends in {', '.join(kinds)}; give another "
                "folder, or files"
            )
        return inside
    if not files.is_file(path):
        raise FileNotFoundError(
            f"{reading.shorten(given)}: no such file or folder; give texts, in files "
            f"that end in {', '.join(kinds)}"
        )
    if path.suffix not in kinds:
        raise ValueError(
            f"{given}: must end in one of {', '.join(kinds)}; rename it, or write it as"
            " one of these"
        )
    return [path]


def _text(path: Path, by_line: bool) -> str | list[Line]:
    text = files.read_prompt(path).strip("\n")
    if not text.strip():
        raise ValueError(f"{path}: has no text; fill it in or leave it out")
    if by_line:
        return [line for line in text.splitlines() if line.strip()]
    return text


def _rows(path: Path) -> dict[str, Any]:
    rows = files.read_rows(path)
    if not rows:
        raise ValueError(f"{path}: has no rows; each must be {_ROW}")
    if (odd := reading.surrogate(rows)) is not None:
        raise ValueError(
            f"{path}: {odd!r:.40} must be text without lone surrogates; write it as "
            "UTF-8"
        )
    digits = max(3, len(str(len(rows) - 1)))
    return {
        f"{path.stem}-{i:0{digits}}": _row(row, f"{path}: row {i}")
        for i, row in enumerate(rows)
    }


def _row(row: Any, name: str) -> Line | list[Line]:
    match row:
        case {"lines": [_, *_] as lines}:
            return [_line(line, f"{name}, line {i}") for i, line in enumerate(lines)]
    return _line(row, name)


def _line(row: Any, name: str) -> Line:
    match row:
        case str(text) | {"text": str(text)}:
            return text
        case {"prompt": str(prompt), "completion": str(completion)}:
            return prompt, completion
    raise ValueError(
        f"{name}: {reading.shorten(repr(row))[:60]} must be {_ROW}; correct it"
    )


def prompts(path: str) -> list[str]:
    """Prompts of a file: a row of .jsonl each (text, or `{"prompt": TEXT}`), or a line.

    In lines, `\\n` stands for a new line.

    Raises:
      ValueError: no prompts, or a row that is none.
      OSError: the file cannot be read.
    """
    if not files.is_file(path):
        raise FileNotFoundError(
            f"{reading.shorten(path)}: no such file; give a prompt a line, or .jsonl"
        )
    if Path(path).suffix != ROWS:
        lines = files.read_prompt(path).splitlines()
        found = [unescaped(line) for line in lines if line.strip()]
    else:
        found = []
        for i, row in enumerate(files.read_rows(path)):
            match row:
                case str(prompt) | {"prompt": str(prompt)}:
                    found.append(prompt)
                case _:
                    raise ValueError(
                        f"{path}: row {i}: {reading.shorten(repr(row))[:60]} must be a "
                        'JSON text or {"prompt": TEXT}; correct it'
                    )
    if not found:
        raise ValueError(f"{path}: holds no prompts; write one a line")
    return found


def unescaped(line: str) -> str:
    """A line as it was typed, `\\n` in it as a new line."""
    return line.replace("\\n", "\n")
