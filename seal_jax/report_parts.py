"""The building blocks of report.html: sections, tables, rows of charts."""

from collections.abc import Sequence

from seal_jax import formatting, report_style, svg

type Cells = Sequence[str]  # HTML


def page(title: str, sections: Sequence[str], *, what: str = "SEAL run") -> str:
    """A whole page, of the sections that have something to show."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"<title>{svg.escape(title)}: {what}</title>"
        f"<style>{report_style.CSS}</style></head>\n"
        f"<body><main>\n{'\n'.join(filter(None, sections))}\n</main></body></html>\n"
    )


def section(title: str, note: str, body: str) -> str:
    """A headed part of the page; `note` says how to read it."""
    return f"<section><h2>{title}</h2>{lead(note)}{body}</section>"


def lead(note: str) -> str:
    """A paragraph in small print; nothing for no text."""
    return f'<p class="note">{note}</p>' if note else ""


def table(head: Cells, rows: Sequence[Cells], *, css: str = "") -> str:
    """A table that scrolls sideways on a narrow screen; the first column is names."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows
    )
    return scroll(
        f'<table class="{css}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def plain(
    head: Sequence[object], rows: Sequence[Sequence[object]], *, css: str = "close"
) -> str:
    """A table of texts, escaped here."""
    escaped = [[svg.escape(cell) for cell in row] for row in (head, *rows)]
    return table(escaped[0], escaped[1:], css=css)


def shown(table: formatting.Table, *, css: str = "close") -> str:
    """A table of texts under its title; nothing for one without rows."""
    if not table.rows:
        return ""
    body = plain(table.head, table.rows, css=css)
    return titled(table.title, body) if table.title else body


def small_charts(figures: Sequence[str]) -> str:
    """Charts of half the page's width, two abreast where there is room."""
    return f'<div class="grid2">{"".join(figures)}</div>' if figures else ""


def header(name: str, note: str, tiles: Sequence[tuple[str, str]] = ()) -> str:
    """The top of a page; `tiles` are a few (value, label) to see first."""
    cells = "".join(
        f'<div class="tile"><b>{svg.escape(value)}</b>'
        f"<span>{svg.escape(label)}</span></div>"
        for value, label in tiles
    )
    shown = f'<div class="tiles">{cells}</div>' if cells else ""
    return (
        f'<header><h1>{svg.escape(name)}</h1><p class="note">{note}</p>{shown}</header>'
    )


def headed(title: str, body: str) -> str:
    """What has a small heading, which is HTML, of its own; nothing for no body."""
    return f"<h3>{title}</h3>{body}" if body else ""


def titled(title: str, body: str) -> str:
    """`headed` by a text."""
    return headed(svg.escape(title), body)


def scroll(inner: str) -> str:
    """Room to scroll sideways on a narrow screen."""
    return f'<div class="scroll">{inner}</div>' if inner else ""


def folded(title: str, body: str) -> str:
    """What opens when its title is chosen."""
    return f"<details><summary>{title}</summary>{body}</details>"


def figure(caption: str, body: str) -> str:
    """A drawing under its caption."""
    return f"<figure><figcaption>{caption}</figcaption>{body}</figure>"


def charts(figures: Sequence[str]) -> str:
    """Small charts side by side, as many as fit."""
    return f'<div class="grid3">{"".join(figures)}</div>' if figures else ""


def verdict(right: bool) -> str:
    """A tick or a cross."""
    css, mark = ("yes", "✓") if right else ("no", "✗")
    return f'<span class="{css}">{mark}</span>'


def tinted(text: str, share: float | None) -> str:
    """`text` of a table cell on a ground as strong as `share`, of 0..1."""
    if share is None:
        return text
    return (
        f'<span class="tint" style="--s: {min(max(share, 0.0), 1.0):.2f}">{text}</span>'
    )
