"""Small charts as inline SVG.

Colours are CSS classes of the page (`page_style`), so that a chart follows its light
or dark scheme. Every text is escaped here; lengths are in user units of the viewBox.
"""

import collections
import dataclasses
import html
import itertools
import math
import re
from collections.abc import Sequence

from markupsafe import Markup

# What neither XML nor HTML may hold, escaped or not.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """`text` with a mark in place of what no page may hold."""
    return _FORBIDDEN.sub("\ufffd", text)


def escape(text: object) -> str:
    """`text` safe inside an element or a quoted attribute."""
    return html.escape(printable(str(text)), quote=True)


@dataclasses.dataclass(frozen=True)
class Scale:
    """A linear map from values `low`..`high` to positions `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def at(self, position: float) -> float:
        """The value that is placed at `position`."""
        share = (position - self.start) / (self.end - self.start)
        return self.low + share * (self.high - self.low)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the range, near `about` of them."""
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


@dataclasses.dataclass(frozen=True)
class LogScale:
    """As `Scale`, but equal factors are equally far apart: from 10**low to 10**high.

    Both exponents are whole numbers, `low` the smaller one.
    """

    low: int
    high: int
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def at(self, position: float) -> float:
        """The value that is placed at `position`."""
        share = (position - self.start) / (self.end - self.start)
        return 10 ** (self.low + share * (self.high - self.low))

    def ticks(self, about: int = 5) -> list[float]:
        """Powers of ten, from the lowest on, near `about` of them."""
        step = math.ceil((self.high - self.low) / about)
        return [10.0**e for e in range(self.low, self.high + 1, step)]


def log_fit(values: Sequence[float], start: float, end: float) -> LogScale:
    """The whole decades that hold `values`, all above 0."""
    # An exact power of ten may have a logarithm that is off by its last bit.
    low = math.floor(math.log10(min(values, default=1.0)) + 1e-9)
    high = math.ceil(math.log10(max(values, default=1.0)) - 1e-9)
    return LogScale(low, max(high, low + 1), start, end)


def fit(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale around `values` with a little room, and around equal values too."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return Scale(low - room, high + room, start, end)


@dataclasses.dataclass(frozen=True)
class Point:
    """One row of an interval chart.

    The thin bar spans `bounds`, or two standard errors to either side without them.
    """

    label: str
    text: str  # the numbers, to the right
    mean: float
    se: float | None
    css: str
    bounds: tuple[float, float] | None = None

    def bars(self) -> list[tuple[str, float, float]]:
        """(class, from, to) of what can be drawn, the thin bar first."""
        se = self.se or 0.0
        ends = self.bounds or (self.mean - 2 * se, self.mean + 2 * se)
        candidates = [("thin", *ends), ("thick", self.mean - se, self.mean + se)]
        return [bar for bar in candidates if bar[1] < bar[2]]


def intervals(points: Sequence[Point], *, reference: float | None = None) -> Markup:
    """Means as dots with bars: a standard error (thick), the bounds (thin).

    Args:
      reference: a value to mark by a dashed line through all rows.
    """
    row, top, bottom = 30, 8, 26
    height = top + row * len(points) + bottom
    ends = [p.mean for p in points]
    ends += [end for p in points for bar in p.bars() for end in bar[1:]]
    if reference is not None:
        ends.append(reference)
    x = fit(ends, 150, 590)
    parts = [_grid(x, top, height - bottom)]
    if reference is not None:
        at = f'x1="{x(reference):.1f}" x2="{x(reference):.1f}"'
        parts.append(f'<line class="ref" {at} y1="{top}" y2="{height - bottom}"/>')
    for i, p in enumerate(points):
        y = top + row * (i + 0.5)
        parts.append(f'<g class="{p.css}">')
        parts.append(f"<title>{escape(f'{p.label}: {p.text}')}</title>")
        parts.append(text(140, y + 4, p.label, "label end"))
        for css, low, high in p.bars():
            ends_at = f'x1="{x(low):.1f}" x2="{x(high):.1f}"'
            parts.append(f'<line class="{css}" {ends_at} y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{x(p.mean):.1f}" cy="{y}" r="5.5"/>')
        parts.append(text(604, y + 4, p.text, "value"))
        parts.append("</g>")
    return drawing(720, height, parts, "Means with standard errors")


def interval(x: Scale, mean: float, se: float | None, css: str) -> Markup:
    """One interval against zero, for a table cell; `x` places it."""
    width, y = x.start + x.end, 11
    parts = [f'<line class="ref" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="22"/>']
    parts.append(f'<g class="{css}">')
    for k, weight in ((2, "thin"), (1, "thick")):
        if se:
            a, b = x(mean - k * se), x(mean + k * se)
            parts.append(
                f'<line class="{weight}" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>'
            )
    parts.append(f'<circle class="dot" cx="{x(mean):.1f}" cy="{y}" r="4.5"/></g>')
    return drawing(width, 22, parts, f"{mean:+.3f}")


def histogram(
    values: Sequence[float],
    x: Scale | LogScale,
    css: str,
    *,
    bins: int = 16,
    part: Sequence[float] | None = None,
) -> Markup:
    """How `values` are spread over `x`, with their mean (by its place on `x`) marked.

    Args:
      part: some of `values`, drawn in front of all, which are pale then.
    """
    height, base = 96, 72
    width = (x.end - x.start) / bins
    counts = _counts(values, x, bins)
    front = _counts(part or (), x, bins)
    most = max(counts.values(), default=0)
    parts = [_grid(x, 12, base, about=3), f'<g class="{css}">']
    for i, n in sorted(counts.items()):
        low, high = (x.at(x.start + k * width) for k in (i, i + 1))
        hint = f"{n} from {low:.3g} to {high:.3g}"
        if part is not None:
            hint += f", {front[i]} of them"
        for shown, shade in ((n, "bar" if part is None else "pale"), (front[i], "bar")):
            if shown:
                h = (base - 14) * shown / most
                place = f'x="{x.start + i * width + 1:.1f}" y="{base - h:.1f}"'
                size = f'width="{width - 2:.1f}" height="{h:.1f}"'
                parts.append(f'<rect class="{shade}" {place} {size} rx="1.5">')
                parts.append(f"<title>{hint}</title></rect>")
    parts.append("</g>")
    if values:
        at = sum(map(x, values)) / len(values)
        parts.append(
            f'<line class="mean" x1="{at:.1f}" x2="{at:.1f}" y1="6" y2="{base}"/>'
        )
    return drawing(x.start + x.end, height, parts, f"Histogram of {len(values)} values")


def _counts(
    values: Sequence[float], x: Scale | LogScale, bins: int
) -> collections.Counter[int]:
    """How many values are in each bin; what lies beyond the scale joins the ends."""
    # A value on an edge starts a bin, also when rounding puts it just below.
    places = [int((x(v) - x.start) / (x.end - x.start) * bins + 1e-9) for v in values]
    return collections.Counter(min(max(place, 0), bins - 1) for place in places)


def cells(grid: Sequence[Sequence[int]], title: str, *, side: float = 120) -> Markup:
    """A grid of colours 0-9 as squares, at most `side` wide and high.

    Its numbers are the description, for those who do not see the colours.
    """
    height, width = len(grid), len(grid[0])
    scale = min(side / max(height, width), 18.0)
    runs: dict[int, list[str]] = {}
    for y, row in enumerate(grid):
        x = 0
        for colour, group in itertools.groupby(row):
            n = sum(1 for _ in group)
            runs.setdefault(colour, []).append(f"M{x} {y}h{n}")
            x += n
    # The colour with the most lines lies below all, without any.
    ground = max(runs, key=lambda colour: len(runs[colour]))
    painted = "".join(
        f'<path class="c{colour}" d="{"".join(lines)}"/>'
        for colour, lines in sorted(runs.items())
        if colour != ground
    )
    net = [f"M{i} 0v{height}" for i in range(1, width)]
    net += [f"M0 {i}h{width}" for i in range(1, height)]
    numbers = ", ".join("".join(map(str, row)) for row in grid)
    return Markup(
        f'<svg class="cells" viewBox="0 0 {width} {height}" role="img" style="width: '
        f'{scale * width:.0f}px; height: {scale * height:.0f}px">'
        f"<title>{escape(title)}</title><desc>{height} by {width}: {numbers}</desc>"
        f'<rect class="c{ground}" width="{width}" height="{height}"/>'
        f'<g transform="translate(0 .5)">{painted}</g>'
        f'<path class="net" d="{"".join(net)}"/></svg>'
    )


def bars(rows: Sequence[tuple[str, float, str]]) -> Markup:
    """(label, value, text) as horizontal bars from zero."""
    row = 26
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts = []
    for i, (label, value, shown) in enumerate(rows):
        y = row * i
        width = max(440 * value / most, 1.0)
        parts.append(text(140, y + 17, label, "label end"))
        parts.append(
            f'<rect class="bar" x="150" y="{y + 5}" width="{width:.1f}" height="16" '
            'rx="2"/>'
        )
        parts.append(text(604, y + 17, shown, "value"))
    return drawing(
        720, row * len(rows), [f'<g class="plain">{"".join(parts)}</g>'], "Bars"
    )


def line(points: Sequence[tuple[float, float]]) -> Markup:
    """(x, y) pairs joined by a line, with the extremes of y named."""
    x = fit([p[0] for p in points], 8, 196)
    y = fit([p[1] for p in points], 66, 10)
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    last = points[-1]
    parts = [
        f'<line class="grid" x1="8" x2="196" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f"{text(204, y(v) + 4, f'{v:.3g}', 'tick')}"
        for v in dict.fromkeys((low, high))
    ]
    parts.append(f'<polyline class="path" points="{path}"/>')
    dot = f'cx="{x(last[0]):.1f}" cy="{y(last[1]):.1f}"'
    parts.append(f'<g class="plain"><circle class="dot" {dot} r="3"/></g>')
    return drawing(250, 76, parts, f"{len(points)} points")


def _grid(x: Scale | LogScale, top: float, bottom: float, *, about: int = 5) -> str:
    parts = []
    for tick in x.ticks(about):
        at = f"{x(tick):.1f}"
        parts.append(
            f'<line class="grid" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>'
        )
        # + 0.0 turns -0 into 0.
        parts.append(text(x(tick), bottom + 16, f"{tick + 0.0:.6g}", "tick middle"))
    return "".join(parts)


def text(x: float, y: float, words: str, css: str) -> str:
    """One line of text at a place."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def drawing(width: float, height: float, parts: Sequence[str], what: str) -> Markup:
    """The parts as a drawing that shrinks with its page; `what` describes it."""
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width: {width:g}px" '
        f'role="img" aria-label="{escape(what)}">{"".join(parts)}</svg>'
    )
