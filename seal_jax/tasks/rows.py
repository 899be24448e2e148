"""Rows of data, whatever they lie in: the one reader for all formats and tasks.

.json    a list of objects
.jsonl   an object a line (.ndjson too)
.csv     the first line names the columns; commas, or semicolons if they make more
.tsv     likewise, with tabs
.parquet as the library pyarrow reads it
.txt .md one text; its name is the title

A folder stands for its texts, those in folders below it too, or for its files of one
of the other kinds; or it is what `datasets` saved (`save_to_disk`). Anything else is a
name of the hub (`hub`). Texts are UTF-8, with a byte order mark or none.
"""

import csv
import difflib
import io
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seal_jax.runtime import files, reading
from seal_jax.tasks import hub

TEXTS, TABLES, LINES = hub.TEXTS, hub.TABLES, (".jsonl", ".ndjson")
# The columns of the rows that texts give.
TEXT, TITLE = "text", "title"

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
# What `datasets` leaves beside its own files.
_SAVED = ("dataset_dict.json", "state.json")


class Row(NamedTuple):
    """`where`: the file, and the row's place in it."""

    where: str
    values: Mapping[str, Any]


class Table(NamedTuple):
    """Rows of a source, `name`; `title` stands in for a title that a row lacks.

    `texts`: whether rows are whole files, not rows of a table.
    """

    name: str
    title: str
    rows: list[Row]
    texts: bool = False

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in order of first appearance."""
        return list(dict.fromkeys(str(key) for row in self.rows for key in row.values))


def read(source: str | Path, *, split: str = "", fix: str) -> Table:
    """The rows of a source.

    Args:
      source: a file, a folder, or a name of the hub.
      split: of the hub, or of what `datasets` saved; unused for files.
      fix: what to do where there is no such source.

    Raises:
      ValueError: a file that is not in its format; file and line are named. No rows.
      FileNotFoundError: no such source.
    """
    path = Path(source)
    with reading.boundary(source, wrong="must be rows of data", fix=fix):
        # An empty name would be the folder that one is in.
        if str(source) and files.is_folder(path):
            table = _folder(path, split)
        elif files.is_file(path):
            table = _file(path)
        else:
            given = hub.rows(str(source), split, fix=fix)
            title = path.name.replace("_", " ")
            table = Table(str(source), title, _numbered(f"{source}", given))
    if not table.rows:
        raise ValueError(f"{source}: has no rows; fill it in, or give other data")
    return table


def kind_of(path: str | Path) -> str:
    """The ending that says what a file holds, in small letters."""
    return Path(path).suffix.lower()


def inside(folder: Path) -> list[tuple[Path, str]]:
    """The files of a folder, and of folders below it, by their names there.

    A name is the path from the folder on, without the ending. What begins with a dot is
    left out.
    """
    found = [(p, p.relative_to(folder)) for p in sorted(folder.rglob("*"))]
    return [
        (path, name.with_suffix("").as_posix())
        for path, name in found
        if not any(part.startswith(".") for part in name.parts) and path.is_file()
    ]


def is_saved(folder: Path) -> bool:
    """Whether a folder is what `datasets` saved."""
    return any(files.is_file(folder / name) for name in _SAVED)


def _file(path: Path) -> Table:
    kind = kind_of(path)
    if kind in TEXTS:
        return Table(str(path), path.stem, [_text(path, path.stem)], texts=True)
    if kind not in TABLES:
        kinds = (*TABLES, *TEXTS)
        raise ValueError(
            f"{path}: must end in one of {', '.join(kinds)}, which says what it holds; "
            "rename it, or write it as one of these"
        )
    return Table(str(path), path.stem, _table(path, kind))


def _table(path: Path, kind: str) -> list[Row]:
    if kind in _SEPARATORS:
        return _separated(path, _SEPARATORS[kind])
    if kind == ".parquet":
        return _numbered(str(path), _parquet(path))
    if kind == ".json":
        value = files.read_data(path)
        if not isinstance(value, list):
            raise ValueError(
                f"{path}: must be a list of objects, not a {type(value).__name__}; "
                "write it as one, or as a .jsonl file"
            )
        return _numbered(str(path), value)
    return _numbered(str(path), json_lines(path))


def json_lines(path: str | Path) -> list[Any]:
    """The values of a file of JSON lines.

    Raises:
      ValueError: a line that is not JSON, or text that is no Unicode.
      OSError: it cannot be read.
    """
    rows = files.read_rows(path)
    if (odd := reading.surrogate(rows)) is not None:
        raise ValueError(
            f"{path}: {reading.shorten(odd)[:40]!r} must be text without lone "
            "surrogates; write it again as UTF-8"
        )
    return rows


def _numbered(name: str, values: Iterable[Any]) -> list[Row]:
    rows = []
    for i, value in enumerate(values):
        if not isinstance(value, Mapping):
            raise ValueError(
                f"{name}: row {i}: {reading.shorten(repr(value))[:40]} must be an "
                "object with the columns as keys; correct it"
            )
        rows.append(Row(f"{name}: row {i}", value))
    return rows


def _separated(path: Path, separator: str) -> list[Row]:
    """Rows of a .csv or .tsv file, every cell a text.

    Raises:
      ValueError: two columns of one name, a line with other cells than the first, or
        quotes that do not end.
    """
    text = files.read_prompt(path)
    if separator == "," and _columns(text, ";") > _columns(text, ","):
        separator = ";"
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    before = csv.field_size_limit(sys.maxsize)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(
            f"{path} line {reader.line_num}: must be rows of cells ({error}); put "
            "quotes around text that holds quotes, and write each of these twice"
        ) from None
    finally:
        csv.field_size_limit(before)
    if not lines:
        return []
    names = [name.strip() for name in lines[0][1]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{path}: two columns are called {twice[0]!r}; rename one, in the first "
            "line"
        )
    rows = []
    for number, cells in lines[1:]:
        where = f"{path} line {number}"
        if len(cells) != len(names):
            raise ValueError(
                f"{where}: has {len(cells)} cells, and the first line names "
                f"{len(names)} columns; put quotes around text that holds {separator!r}"
            )
        rows.append(Row(where, dict(zip(names, cells, strict=True))))
    return rows


def _columns(text: str, separator: str) -> int:
    """How many columns the first line names, read with a separator; 0: it cannot be."""
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        return len(next((cells for cells in reader if cells), []))
    except csv.Error:
        return 0


def _parquet(path: Path) -> list[Any]:
    # Slow to import, and not needed for other files.
    import pyarrow
    from pyarrow import parquet

    with reading.boundary(
        path,
        wrong="must be a parquet file",
        fix="write or download it again",
        foreign=True,
    ):
        source = pyarrow.BufferReader(path.read_bytes())
        return parquet.ParquetFile(source).read(use_threads=False).to_pylist()


def _text(path: Path, title: str) -> Row:
    return Row(str(path), {TITLE: title, TEXT: files.read_prompt(path).strip("\n")})


def _folder(path: Path, split: str) -> Table:
    if is_saved(path):
        saved = _numbered(str(path), hub.saved(path, split))
        return Table(str(path), path.name, saved)
    there = inside(path)
    if texts := [_text(p, title) for p, title in there if kind_of(p) in TEXTS]:
        return Table(str(path), path.name, texts, texts=True)
    kinds = {kind_of(p) for p, _ in there} & set(TABLES)
    if len(kinds) != 1:
        what = f"files of the kinds {', '.join(sorted(kinds))}" if kinds else "no files"
        raise ValueError(
            f"{path}: must hold texts ({', '.join(TEXTS)}) or tables of one kind "
            f"({', '.join(TABLES)}), and holds {what}; give one of them"
        )
    (kind,) = kinds
    parts = [p for p, _ in there if kind_of(p) == kind]
    found = [row for part in parts for row in _table(part, kind)]
    return Table(str(path), path.name, found)


# Columns


_NOTHING: Any = object()


def value(row: Row, column: str) -> Any:
    """What a row has in a column; None where it has none.

    A dot leads into an object: "answers.text" is the key "text" of "answers".
    """
    found = _resolved(row.values, column)
    return None if found is _NOTHING else found


def _resolved(values: Mapping[str, Any], column: str) -> Any:
    """What `value` gives, or `_NOTHING` where the key is not there."""
    here: Any = values
    if column in here:
        return here[column]
    for part in column.split("."):
        if not isinstance(here, Mapping) or part not in here:
            return _NOTHING
        here = here[part]
    return here


def check_columns(table: Table, wanted: Mapping[str, str]) -> None:
    """Refuses columns that no row of the table has; `wanted`: by the config's key.

    Raises:
      ValueError: see above; the nearest name is told, and for a way into an object
        what is in it.
    """
    for key, column in wanted.items():
        if any(_resolved(row.values, column) is not _NOTHING for row in table.rows):
            continue
        known = _beside(table, column) or table.columns
        near = difflib.get_close_matches(column, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"{table.name}: no column {column!r} ({key}); {hint}there: "
            f"{reading.shorten(', '.join(known))}"
        )


def _beside(table: Table, column: str) -> list[str]:
    """Ways into the deepest object that a column leads to; none: it leads to none."""
    parts, found = column.split("."), []
    level: list[Any] = [row.values for row in table.rows]
    for depth, part in enumerate(parts[:-1], start=1):
        level = [here[part] for here in level if part in here]
        level = [here for here in level if isinstance(here, Mapping)]
        begin = ".".join(parts[:depth])
        inside = dict.fromkeys(f"{begin}.{key}" for here in level for key in here)
        found = list(inside) or found
    return found
