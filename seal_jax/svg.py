"""Small charts as inline SVG text.

Colours are CSS classes of the page (`report_html`), so that a chart follows its light
or dark scheme. Every text is escaped here; lengths are in user units of the viewBox.
"""

import dataclasses
import html
import math
import re
from collections.abc import Sequence

# What neither XML nor HTML may hold, escaped or not.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
)


def escape(text: object) -> str:
    """`text` safe inside an element or a quoted attribute."""
    return html.escape(_FORBIDDEN.sub("\ufffd", str(text)), quote=True)


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

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the range, near `about` of them."""
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def fit(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale around `values` with a little room, and around equal values too."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return Scale(low - room, high + room, start, end)


@dataclasses.dataclass(frozen=True)
class Point:
    """One row of an interval chart."""

    label: str
    text: str  # the numbers, to the right
    mean: float
    se: float | None
    css: str


def intervals(points: Sequence[Point], *, reference: float | None = None) -> str:
    """Means as dots with bars of one (thick) and two (thin) standard errors.

    Args:
      reference: a value to mark by a dashed line through all rows.
    """
    row, top, bottom = 30, 8, 26
    height = top + row * len(points) + bottom
    ends = [p.mean + k * (p.se or 0.0) for p in points for k in (-2, 0, 2)]
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
        parts.append(_text(140, y + 4, p.label, "label end"))
        for k, css in ((2, "thin"), (1, "thick")):
            if p.se:
                a, b = x(p.mean - k * p.se), x(p.mean + k * p.se)
                parts.append(
                    f'<line class="{css}" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>'
                )
        parts.append(f'<circle class="dot" cx="{x(p.mean):.1f}" cy="{y}" r="5.5"/>')
        parts.append(_text(604, y + 4, p.text, "value"))
        parts.append("</g>")
    return _svg(720, height, parts, "Means with standard errors")


def interval(x: Scale, mean: float, se: float | None, css: str) -> str:
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
    return _svg(width, 22, parts, f"{mean:+.3f}")


def histogram(values: Sequence[float], x: Scale, css: str, *, bins: int = 16) -> str:
    """How `values` are spread over `x`, with their mean marked."""
    height, base = 96, 72
    counts = [0] * bins
    for v in values:
        place = int((v - x.low) / (x.high - x.low) * bins)
        counts[min(max(place, 0), bins - 1)] += 1
    most = max(counts, default=0)
    parts = [_grid(x, 12, base, about=3), f'<g class="{css}">']
    width = (x.end - x.start) / bins
    for i, n in enumerate(counts):
        if n:
            h = (base - 14) * n / most
            place = f'x="{x.start + i * width + 1:.1f}" y="{base - h:.1f}"'
            size = f'width="{width - 2:.1f}" height="{h:.1f}"'
            low = x.low + (x.high - x.low) * i / bins
            high = x.low + (x.high - x.low) * (i + 1) / bins
            hint = f"<title>{n} from {low:.3g} to {high:.3g}</title>"
            parts.append(f'<rect class="bar" {place} {size} rx="1.5">{hint}</rect>')
    parts.append("</g>")
    if values:
        at = x(sum(values) / len(values))
        parts.append(
            f'<line class="mean" x1="{at:.1f}" x2="{at:.1f}" y1="6" y2="{base}"/>'
        )
    return _svg(x.start + x.end, height, parts, f"Histogram of {len(values)} values")


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """(label, value, text) as horizontal bars from zero."""
    row = 26
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts = []
    for i, (label, value, text) in enumerate(rows):
        y = row * i
        width = max(440 * value / most, 1.0)
        parts.append(_text(140, y + 17, label, "label end"))
        parts.append(
            f'<rect class="bar" x="150" y="{y + 5}" width="{width:.1f}" height="16" '
            'rx="2"/>'
        )
        parts.append(_text(604, y + 17, text, "value"))
    return _svg(
        720, row * len(rows), [f'<g class="plain">{"".join(parts)}</g>'], "Bars"
    )


def line(points: Sequence[tuple[float, float]]) -> str:
    """(x, y) pairs joined by a line, with the extremes of y named."""
    x = fit([p[0] for p in points], 8, 196)
    y = fit([p[1] for p in points], 66, 10)
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    last = points[-1]
    parts = [
        f'<line class="grid" x1="8" x2="196" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f"{_text(204, y(v) + 4, f'{v:.3g}', 'tick')}"
        for v in dict.fromkeys((low, high))
    ]
    parts.append(f'<polyline class="path" points="{path}"/>')
    dot = f'cx="{x(last[0]):.1f}" cy="{y(last[1]):.1f}"'
    parts.append(f'<g class="plain"><circle class="dot" {dot} r="3"/></g>')
    return _svg(250, 76, parts, f"{len(points)} points")


def _grid(x: Scale, top: float, bottom: float, *, about: int = 5) -> str:
    parts = []
    for tick in x.ticks(about):
        at = f"{x(tick):.1f}"
        parts.append(
            f'<line class="grid" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>'
        )
        # + 0.0 turns -0 into 0.
        parts.append(_text(x(tick), bottom + 16, f"{tick + 0.0:.3g}", "tick middle"))
    return "".join(parts)


def _text(x: float, y: float, text: str, css: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str], what: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width: {width:g}px" '
        f'role="img" aria-label="{escape(what)}">{"".join(parts)}</svg>'
    )
