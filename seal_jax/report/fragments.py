"""The building blocks of report.html: sections, tables, rows of charts.

HTML is `Markup`, made by the templates in report/templates, and charts are too. All
other text is escaped where a template puts it, and what neither XML nor HTML may hold
is replaced there.
"""

import functools
from collections.abc import Iterable, Sequence

import jinja2
from markupsafe import Markup

from seal_jax.report import page_style
from seal_jax.report.charts import svg
from seal_jax.runtime.formatting import Table

NOTHING = Markup("")


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("seal_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
    )


def _printable(value: object) -> object:
    """Text without what no page may hold; HTML as it is."""
    return value if isinstance(value, Markup) else svg.printable(str(value))


def render(part: str, **values: object) -> Markup:
    """A part filled with values: "tasks.pair" is the macro `pair` of tasks.html.jinja.

    Raises:
      KeyError: no such macro.
      jinja2.UndefinedError: a value of it is missing.
    """
    name, _, macro = part.partition(".")
    module = _environment().get_template(f"{name}.html.jinja").module
    return Markup(vars(module)[macro](**values))


def joined(parts: Iterable[str]) -> Markup:
    """HTML one after another; texts among it are escaped."""
    return NOTHING.join(parts)


def page(title: str, sections: Sequence[str], *, what: str = "SEAL run") -> str:
    """A whole page, of the sections that have something to show."""
    style = Markup(page_style.CSS)
    return render("page.page", title=title, what=what, style=style, sections=sections)


def header(name: str, note: str, tiles: Sequence[tuple[str, str]] = ()) -> Markup:
    """The top of a page; `tiles` are a few (value, label) to see first."""
    return render("page.header", name=name, note=note, tiles=tiles)


def section(title: str, note: str, body: str) -> Markup:
    """A headed part of the page; `note` says how to read it."""
    return render("parts.section", title=title, note=note, body=body)


def lead(note: str) -> Markup:
    """A paragraph in small print; nothing for no text."""
    return render("parts.lead", note=note)


def note(text: str) -> Markup:
    """Words in small print."""
    return render("parts.note", text=text)


def table(
    head: Sequence[object], rows: Sequence[Sequence[object]], *, css: str = ""
) -> Markup:
    """A table that scrolls sideways on a narrow screen; the first column is names."""
    return render("parts.table", head=head, rows=rows, css=css)


def shown(table_: Table, *, css: str = "close") -> Markup:
    """A table of texts under its title; nothing for one without rows."""
    if not table_.rows:
        return NOTHING
    body = table(table_.head, table_.rows, css=css)
    return headed(table_.title, body) if table_.title else body


def headed(title: str, body: str) -> Markup:
    """What has a small heading of its own; nothing for no body."""
    return render("parts.headed", title=title, body=body) if body else NOTHING


def scroll(inner: str) -> Markup:
    """Room to scroll sideways on a narrow screen; nothing for nothing."""
    return _group("scroll", [inner] if inner else [])


def charts(figures: Sequence[str]) -> Markup:
    """Small charts side by side, as many as fit."""
    return _group("grid3", figures)


def small_charts(figures: Sequence[str]) -> Markup:
    """Charts of half the page's width, two abreast where there is room."""
    return _group("grid2", figures)


def _group(css: str, bodies: Sequence[str]) -> Markup:
    return render("parts.group", css=css, bodies=bodies) if bodies else NOTHING


def folded(title: str, body: str) -> Markup:
    """What opens when its title is chosen."""
    return render("parts.folded", title=title, body=body)


def figure(caption: str, body: str) -> Markup:
    """A drawing under its caption."""
    return render("parts.figure", caption=caption, body=body)


def caption(name: object, rest: str = "", *, below: str = "") -> Markup:
    """A bold name and what follows it, on the same line and on the next."""
    return render("parts.caption", name=name, rest=rest, below=below)


def stacked(words: Sequence[str]) -> Markup:
    """The heading of a narrow column, one word a line."""
    return render("parts.stacked", words=words)


def bold(text: str) -> Markup:
    """`text` in bold type."""
    return render("parts.bold", text=text)


def pre(text: str) -> Markup:
    """Lines that are shown as they are."""
    return render("parts.pre", text=text)


def verdict(right: bool) -> Markup:
    """A tick or a cross."""
    return render("parts.verdict", right=right)


def tinted(text: str, share: float | None) -> str:
    """`text` of a table cell on a ground as strong as `share`, of 0..1."""
    if share is None:
        return text
    strength = f"{min(max(share, 0.0), 1.0):.2f}"
    return render("parts.tinted", text=text, share=strength)
