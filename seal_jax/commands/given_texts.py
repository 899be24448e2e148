"""Texts of a command line: files of text, tables, folders of them, a hub; no jax."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seal_jax.runtime import files, reading
from seal_jax.tasks import rows

KINDS = (*rows.TEXTS, *rows.TABLES)
# What `--column` can name.
COLUMNS, PROMPT = ("text", "prompt", "completion", "name"), ("prompt",)
_FIX = f"give files that end in {', '.join(KINDS)}, folders of them, or a hub name"
_LONGEST_NAME = 100
_ROW = (
    'a JSON text, {"text": TEXT}, {"prompt": TEXT, "completion": TEXT}, or '
    '{"lines": [...]} of such rows'
)

type Line = str | tuple[str, str]


def named(
    paths: Sequence[str],
    *,
    by_line: bool = False,
    columns: Mapping[str, str] | None = None,
    split: str = "",
) -> dict[str, Any]:
    """What each adapter is to learn (`api.lines`), by a name that can be a folder's.

    A text file is one, by its own name; of a table each row is, by the file's name and
    its number. A folder stands for such files in it, and in folders below it (of which
    "deep/x" is "deep-x": each adapter has a folder of its name); or it is what
    `datasets` saved.

    Args:
      paths: files, folders, or names of the hub.
      by_line: whether a text file's lines are trained each for itself.
      columns: of `COLUMNS`, which column of a table holds them; those with the same
        names, if left out.
      split: of a data set of the hub.

    Raises:
      ValueError: no text, another kind of file, a row that is none of its forms, or two
        of one name.
      OSError: a file cannot be read.
    """
    found: dict[str, Any] = {}
    for path, name in (file for given in paths for file in _files(given, split)):
        kind = rows.kind_of(path)
        if kind in rows.TEXTS:
            here = {name: _text(path, by_line)}
        elif kind in rows.LINES and not columns:
            here = _rows(path, name)
        else:
            here = _table(path, name, columns or {}, split)
        if twice := sorted(found.keys() & here.keys()):
            raise ValueError(
                f"{path}: {twice[0]!r} is the name of an adapter already; rename the "
                "file, or give its folder another --out"
            )
        found |= here
    return found


def _files(given: str, split: str) -> list[tuple[Path, str]]:
    """Files with the names of what they hold; or what is to be read as a whole."""
    path = Path(given)
    if files.is_folder(path):
        if rows.is_saved(path):
            return [(path, path.name)]
        found = [(p, n) for p, n in rows.inside(path) if rows.kind_of(p) in KINDS]
        if not found:
            raise ValueError(
                f"{given}: holds no file that ends in {', '.join(KINDS)}; give another "
                "folder, or files"
            )
        return [(p, name.replace("/", "-")) for p, name in found]
    if not files.is_file(path):
        if split and files.is_hub_name(given, owner=True):
            return [(path, path.name)]
        raise FileNotFoundError(
            f"{reading.shorten(given)}: no such file or folder; {_FIX} with --split"
        )
    if rows.kind_of(path) not in KINDS:
        raise ValueError(
            f"{given}: must end in one of {', '.join(KINDS)}; rename it, or write it as"
            " one of these"
        )
    return [(path, path.stem)]


def _text(path: Path, by_line: bool) -> str | list[Line]:
    text = files.read_prompt(path).strip("\n")
    if not text.strip():
        raise ValueError(f"{path}: has no text; fill it in or leave it out")
    if by_line:
        return [line for line in text.splitlines() if line.strip()]
    return text


def _table(
    path: Path, stem: str, columns: Mapping[str, str], split: str
) -> dict[str, Any]:
    """Each row of a table, by the name that it has or its number."""
    table = rows.read(path, split=split, fix=_FIX)
    rows.check_columns(table, {f"--column {k}": name for k, name in columns.items()})
    if not columns and not {"text", "prompt", "lines"} & set(table.columns):
        raise ValueError(
            f"{path}: no column 'text'; there: "
            f"{reading.shorten(', '.join(table.columns))}; name it by --column "
            "text=NAME, or prompt and completion"
        )
    digits = max(3, len(str(len(table.rows) - 1)))
    found: dict[str, Any] = {}
    for i, row in enumerate(table.rows):
        given = {key: rows.value(row, name) for key, name in columns.items()}
        name = str(given.pop("name", f"{stem}-{i:0{digits}}")).strip()
        safe = name.isprintable() and "/" not in name and len(name) <= _LONGEST_NAME
        if not safe or name[:1] in ("", ".") or name in found:
            raise ValueError(
                f"{row.where}: {reading.shorten(name)[:40]!r} must be a folder's name "
                f"of at most {_LONGEST_NAME} characters, each once; correct it"
            )
        # A table has all columns in each row, filled in or not.
        full = {k: v for k, v in (given or row.values).items() if v not in (None, "")}
        found[name] = _row(full, row.where)
    return found


def _rows(path: Path, stem: str) -> dict[str, Any]:
    read = rows.json_lines(path)
    if not read:
        raise ValueError(f"{path}: has no rows; each must be {_ROW}")
    digits = max(3, len(str(len(read) - 1)))
    return {
        f"{stem}-{i:0{digits}}": _row(row, f"{path}: row {i}")
        for i, row in enumerate(read)
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


def prompts(path: str, columns: Mapping[str, str] | None = None) -> list[str]:
    """Prompts of a file: a row of a table each, or a line.

    A row of .jsonl may be the text itself; `columns` may say which column it is in. In
    lines, `\\n` stands for a new line.

    Raises:
      ValueError: no prompts, or a row that is none.
      OSError: the file cannot be read.
    """
    if not files.is_file(path):
        raise FileNotFoundError(
            f"{reading.shorten(path)}: no such file; give a prompt a line, or "
            f"{', '.join(rows.TABLES)}"
        )
    kind = rows.kind_of(path)
    if kind not in rows.TABLES:
        lines = files.read_prompt(path).splitlines()
        found = [unescaped(line) for line in lines if line.strip()]
    elif kind in rows.LINES and not columns:
        read = rows.json_lines(path)
        found = [_prompt(row, f"{path}: row {i}") for i, row in enumerate(read)]
    else:
        table = rows.read(path, fix=_FIX)
        wanted = {"prompt": "prompt", **(columns or {})}
        rows.check_columns(table, {f"--column {k}": v for k, v in wanted.items()})
        cells = [(row.where, rows.value(row, wanted["prompt"])) for row in table.rows]
        found = [_prompt(cell, where) for where, cell in cells]
    if not found:
        raise ValueError(f"{path}: holds no prompts; write one a line")
    return found


def _prompt(row: Any, name: str) -> str:
    match row:
        case str(prompt) | {"prompt": str(prompt)}:
            return prompt
    raise ValueError(
        f"{name}: {reading.shorten(repr(row))[:60]} must be a JSON text or "
        '{"prompt": TEXT}; correct it'
    )


def unescaped(line: str) -> str:
    """A line as it was typed, `\\n` in it as a new line."""
    return line.replace("\\n", "\n")
