"""Larger charts as inline SVG text: lines with errors, and heat maps.

As in `svg`, colours are CSS classes of the page (`page_style`), every text is escaped
here, and lengths are in user units of the viewBox.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from seal_jax.report.charts import svg

# Line colours of the style sheet, .s0 and up; more lines begin again with dashes.
COLOURS = 8
_LABEL, _LEGEND = 24, 46  # characters of a name beside a line, and above the chart


class _Frame(NamedTuple):
    """Where the plot is, and roughly how many numbers each axis has room for."""

    width: float
    left: float
    right: float
    plot: float
    ticks: tuple[int, int]


_LARGE = _Frame(720, 68, 560, 250, (8, 6))
_SMALL = _Frame(360, 58, 350, 140, (5, 4))


@dataclasses.dataclass(frozen=True)
class Dot:
    """A measured value at `x`, with the ends of its error bar where they are known."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""  # shown when pointed at, after the numbers


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
      dots: from left to right.
      style: number of its colour and mark; lines that belong together share it.
      dashed: a line to compare with.
      band: the errors as a shaded band in place of bars.
      joined: whether a line goes through the dots.
    """

    name: str
    dots: tuple[Dot, ...]
    style: int = 0
    dashed: bool = False
    band: bool = False
    joined: bool = True


def erring(x: float, y: float, se: float | None, note: str = "") -> Dot:
    """A dot whose bar spans one standard error to either side."""
    return Dot(x, y, *((y - se, y + se) if se else (None, None)), note)


@dataclasses.dataclass(frozen=True)
class Axes:
    """What the axes of a line chart say.

    Attributes:
      ticks: (x, label) below the chart; empty: round numbers.
      zero: whether y starts at zero.
      share: whether y is a share, and so ends at 1.
      reference: (y, label) of a dashed level.
      marks: (x, label) of dashed uprights.
    """

    x: str
    y: str
    ticks: tuple[tuple[float, str], ...] = ()
    zero: bool = False
    reference: tuple[float, str] | None = None
    marks: tuple[tuple[float, str], ...] = ()
    share: bool = False


def lines(
    series: Sequence[Series], axes: Axes, title: str, *, small: bool = False
) -> Markup:
    """Lines through dots with errors, named at their ends and in a legend above.

    A line without dots is left out. `title` describes the chart to those who do not see
    it. A small chart names no lines: `legend` does, for all that stand side by side.
    """
    frame = _SMALL if small else _LARGE
    drawn = [s for s in series if s.dots]
    head, top = ("", 14.0) if small or len(drawn) < 2 else _legend(drawn)
    bottom = top + frame.plot
    x, y = _scales(drawn, axes, frame, (top, bottom))
    parts = [head, *_axes(x, y, axes, frame)]
    scales = _beside(drawn, x)
    # Bands lie below everything, dots above all lines.
    for draw in (_band, _path, _dots):
        for s, x_scale in zip(drawn, scales, strict=True):
            parts.append(f'<g class="{_css(s)}">{draw(s, x_scale, y)}</g>')
    if not small:
        parts += _end_names(drawn, y, frame)
    return svg.drawing(frame.width, bottom + 42, parts, title)


def legend(series: Sequence[Series]) -> Markup:
    """The names of lines by themselves; nothing for fewer than two."""
    if len(series) < 2:
        return Markup("")
    parts, end = _legend(series)
    return svg.drawing(_LARGE.width, end - 8, [parts], "Legend")


def _scales(
    series: Sequence[Series], axes: Axes, frame: _Frame, ends: tuple[float, float]
) -> tuple[svg.Scale, svg.Scale]:
    dots = [d for s in series for d in s.dots]
    values = [end for d in dots for end in (d.y, d.low, d.high) if end is not None]
    if axes.reference:
        values.append(axes.reference[0])
    top, bottom = ends
    y = svg.fit(values, bottom, top)
    lowest = min(values, default=0.0)
    if lowest >= 0 and (axes.zero or y.low < 0):
        # Room below a share or a variance would be of values that cannot be.
        y = dataclasses.replace(y, low=0.0)
    if axes.share and y.high > 1 and max(values, default=0.0) <= 1:
        y = dataclasses.replace(y, high=1.0)
    places = [d.x for d in dots] + [at for at, _ in (*axes.ticks, *axes.marks)]
    return svg.fit(places, frame.left + 6, frame.right - 6), y


def _beside(series: Sequence[Series], x: svg.Scale) -> list[svg.Scale]:
    """The scale of each line: those with error bars keep them a little apart."""
    barred = [
        not s.band and any(d.low is not None and d.low != d.high for d in s.dots)
        for s in series
    ]
    scales, seen = [], 0
    for bars in barred:
        shift = 3.0 * (seen - (sum(barred) - 1) / 2) if bars else 0.0
        seen += bars
        scales.append(dataclasses.replace(x, start=x.start + shift, end=x.end + shift))
    return scales


def _axes(x: svg.Scale, y: svg.Scale, axes: Axes, frame: _Frame) -> list[str]:
    top, bottom = y.end, y.start
    sides = f'x1="{frame.left}" x2="{frame.right}"'
    parts = []
    for tick in y.ticks(frame.ticks[1]):
        at = f"{y(tick):.1f}"
        parts.append(f'<line class="grid" {sides} y1="{at}" y2="{at}"/>')
        words = f"{tick + 0.0:.6g}"  # + 0.0 turns -0 into 0.
        parts.append(svg.text(frame.left - 8, y(tick) + 4, words, "tick end"))
    round_ones = [(t, f"{t + 0.0:.6g}") for t in x.ticks(frame.ticks[0])]
    for at, label in axes.ticks or round_ones:
        parts.append(svg.text(x(at), bottom + 17, label, "tick middle"))
    middle = (frame.left + frame.right) / 2
    parts.append(svg.text(middle, bottom + 36, axes.x, "tick middle"))
    turn = f"translate(12 {(top + bottom) / 2:.1f}) rotate(-90)"
    named = svg.text(0, 0, axes.y, "tick middle")
    parts.append(f'<g transform="{turn}">{named}</g>')
    for at, label in axes.marks:
        place = f'x1="{x(at):.1f}" x2="{x(at):.1f}"'
        parts.append(f'<line class="ref" {place} y1="{top}" y2="{bottom}"/>')
        parts.append(svg.text(x(at) + 5, top + 12, label, "tick"))
    if axes.reference:
        level, label = axes.reference
        parts.append(
            f'<line class="ref" {sides} y1="{y(level):.1f}" y2="{y(level):.1f}"/>'
        )
        parts.append(svg.text(frame.left + 4, y(level) - 5, label, "tick"))
    return parts


def _css(series: Series) -> str:
    again = series.dashed or series.style >= COLOURS
    return f"s{series.style % COLOURS}{' dashed' if again else ''}"


def _band(series: Series, x, y) -> str:
    sides = [
        (x(d.x), y(d.low), y(d.high))
        for d in series.dots
        if d.low is not None and d.high is not None
    ]
    if not series.band or len(sides) < 2:
        return ""
    around = [(at, high) for at, _, high in sides]
    around += [(at, low) for at, low, _ in reversed(sides)]
    return f'<polygon class="band" points="{_places(around)}"/>'


def _path(series: Series, x, y) -> str:
    if not series.joined or len(series.dots) < 2:
        return ""
    return (
        '<polyline class="stroke" points="'
        f'{_places([(x(d.x), y(d.y)) for d in series.dots])}"/>'
    )


def _places(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _dots(series: Series, x, y) -> str:
    parts = []
    for d in series.dots:
        hint = f"{series.name}, {d.x:g}: {d.y:.4g}"
        if d.low is not None and d.high is not None:
            hint += f" ({d.low:.4g} to {d.high:.4g})"
            if not (series.band and len(series.dots) > 1) and d.low < d.high:
                parts.append(_bar(x(d.x), y(d.low), y(d.high)))
        hint += f", {d.note}" if d.note else ""
        parts.append(_mark(series.style, x(d.x), y(d.y), hint))
    return "".join(parts)


def _bar(x: float, low: float, high: float) -> str:
    caps = "".join(
        f'<line class="thin" x1="{x - 4:.1f}" x2="{x + 4:.1f}" y1="{at:.1f}" '
        f'y2="{at:.1f}"/>'
        for at in (low, high)
    )
    ends = f'y1="{low:.1f}" y2="{high:.1f}"'
    return f'<line class="thin" x1="{x:.1f}" x2="{x:.1f}" {ends}/>{caps}'


def _mark(style: int, x: float, y: float, hint: str = "") -> str:
    """A disc, square, triangle or diamond, for those who tell no colours apart."""
    title = f"<title>{svg.escape(hint)}</title>" if hint else ""
    shape = style % 4
    if shape == 0:
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="4.5"'
        return f'<circle class="dot" {place}>{title}</circle>'
    corners = {
        1: ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        2: ((0, -5), (5, 4), (-5, 4)),
        3: ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
    }[shape]
    points = _places([(x + a, y + b) for a, b in corners])
    return f'<polygon class="dot" points="{points}">{title}</polygon>'


def _legend(series: Sequence[Series]) -> tuple[str, float]:
    """The names in rows above the chart, and where the chart begins."""
    left = _LARGE.left
    parts, at, row = [], left, 0
    for s in series:
        name = shortened(s.name, _LEGEND)
        width = 44 + 7.2 * len(name)
        if at > left and at + width > _LARGE.width:
            at, row = left, row + 1
        y = 12 + 20 * row
        sample = f'<line class="stroke" x1="{at}" x2="{at + 24}" y1="{y}" y2="{y}"/>'
        marker = (sample if s.joined else "") + _mark(s.style, at + 12, y)
        parts.append(
            f'<g class="{_css(s)}"><title>{svg.escape(s.name)}</title>{marker}'
            f"{svg.text(at + 30, y + 4, name, 'label')}</g>"
        )
        at += width
    return "".join(parts), 20 * (row + 1) + 16


def _end_names(series: Sequence[Series], y: svg.Scale, frame: _Frame) -> list[str]:
    """Each name beside its last dot, moved apart where they would overlap."""
    gap, top, bottom = 15.0, y.end, y.start
    wanted = sorted(((y(s.dots[-1].y), s) for s in series), key=lambda pair: pair[0])
    placed: list[float] = []
    for at, _ in wanted:
        placed.append(max(at, placed[-1] + gap) if placed else at)
    over = placed[-1] - bottom if placed else 0.0
    if over > 0:
        # What was pushed beyond the chart pushes back from below.
        limit = max(bottom, top + gap * (len(placed) - 1))
        for i in reversed(range(len(placed))):
            placed[i] = min(placed[i], limit)
            limit = placed[i] - gap
    return [
        f'<g class="{_css(s)}"><title>{svg.escape(s.name)}</title>'
        f"{svg.text(frame.right + 8, at + 4, shortened(s.name, _LABEL), 'name')}</g>"
        for at, (_, s) in zip(placed, wanted, strict=True)
    ]


def shortened(text: str, most: int) -> str:
    """`text`, or what of it fits into `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a heat map: its text, and how strong its colour is, in -1..1.

    Above 0 the ground is blue, below 0 red, at 0 it is that of the page.
    """

    text: str
    shade: float = 0.0
    hint: str = ""


def heat(
    rows: Sequence[tuple[str, Sequence[Cell | None]]],
    columns: Sequence[str],
    title: str,
    *,
    corner: str = "",
    ruled: int = 0,
) -> Markup:
    """A grid of named rows and columns; None is an empty place.

    Args:
      ruled: a line is drawn below so many rows, which stand apart from the others.
    """
    high, left, top = 30, 118, 28
    wide = min(74.0, (_LARGE.width - left - 4) / max(len(columns), 1))
    parts = [svg.text(left - 10, top - 10, corner, "tick end")]
    for i, name in enumerate(columns):
        parts.append(svg.text(left + wide * (i + 0.5), top - 10, name, "tick middle"))
    for r, (name, cells) in enumerate(rows):
        y = top + high * r + (6 if ruled and r >= ruled else 0)
        parts.append(svg.text(left - 10, y + 19, shortened(name, 16), "label end"))
        for c, cell in enumerate(cells):
            if cell is None:
                continue
            x = left + wide * c
            strength = min(abs(cell.shade), 1.0)
            css = "warm" if cell.shade < 0 else "cool"
            place = f'x="{x + 1:.1f}" y="{y + 1:.1f}"'
            size = f'width="{wide - 2:.1f}" height="{high - 2}"'
            hint = f"<title>{svg.escape(cell.hint)}</title>" if cell.hint else ""
            parts.append(
                f'<g class="{css}" style="--s: {strength:.2f}">{hint}'
                f'<rect class="cell" {place} {size} rx="3"/>'
                f"{svg.text(x + wide / 2, y + 19, cell.text, 'value middle')}</g>"
            )
    bottom = top + high * len(rows) + (6 if 0 < ruled < len(rows) else 0)
    return svg.drawing(_LARGE.width, bottom + 4, parts, title)
