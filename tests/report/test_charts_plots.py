import itertools
import re
import xml.etree.ElementTree as ET

import pytest

from seal_jax.report.charts import plots
from seal_jax.report.charts.plots import Axes, Cell, Dot, Series

HOSTILE = "a<b>&\"c'\x00\x0b\ud800\ufffe"
AXES = Axes("rounds", "score")


def parse(text):
    return ET.fromstring(text)


def chart(series, axes=AXES, **options):
    return parse(plots.lines(series, axes, "what it shows", **options))


def circles(root):
    """Places of the discs inside the plot; the legend lies above."""
    found = [
        (float(c.get("cx", "")), float(c.get("cy", "")))
        for c in root.iter("circle")
        if c.find("title") is not None
    ]
    return found


def line(root, index=0):
    path = [p for p in root.iter("polyline")][index]
    return [tuple(map(float, p.split(","))) for p in path.get("points", "").split()]


def test_dots_are_to_scale_and_joined():
    dots = (Dot(0, 0.1), Dot(1, 0.3), Dot(3, 0.2))
    root = chart([Series("one", dots)])
    found = circles(root)
    assert line(root) == found
    (x0, y0), (x1, y1), (x3, y3) = found
    assert x3 - x0 == pytest.approx(3 * (x1 - x0), abs=0.3)
    assert y0 - y1 == pytest.approx(2 * (y0 - y3), abs=0.3)
    assert y1 < y3 < y0
    assert root.get("aria-label") == "what it shows"


@pytest.mark.parametrize("share", [True, False])
def test_the_axis_of_shares_ends_at_1(share):
    series = [Series("one", (Dot(0, 0.6), Dot(1, 1.0)))]
    (_, high) = circles(chart(series, Axes("x", "y", share=share)))
    # The plot of a single line begins at 14.
    assert (high[1] == 14.0) == share
    above = [Series("one", (Dot(0, 0.6), Dot(1, 1.2)))]
    (_, high) = circles(chart(above, Axes("x", "y", share=share)))
    assert high[1] > 14.0


def test_error_bars_span_their_ends_and_none_is_drawn_for_none():
    dots = (Dot(0, 0.5, 0.4, 0.7), Dot(1, 1.0), Dot(2, 0.0, 0.0, 0.0))
    root = chart([Series("one", dots)])
    (_, y_half), (_, y_one), (_, y_zero) = circles(root)
    unit = y_zero - y_one
    bars = [b for b in root.iter("line") if b.get("class") == "thin"]
    assert len(bars) == 3  # the bar and its two ends
    low, high = float(bars[0].get("y1", "")), float(bars[0].get("y2", ""))
    assert low - y_half == pytest.approx(0.1 * unit, abs=0.2)
    assert y_half - high == pytest.approx(0.2 * unit, abs=0.2)


def test_a_band_in_place_of_bars():
    dots = tuple(Dot(i, 0.5, 0.4, 0.7) for i in range(3))
    root = chart([Series("one", dots, band=True)])
    (band,) = [p for p in root.iter("polygon") if p.get("class") == "band"]
    assert len(band.get("points", "").split()) == 6
    assert not [b for b in root.iter("line") if b.get("class") == "thin"]


def test_lines_with_bars_stand_a_little_apart_and_others_do_not():
    barred = [Series(str(i), (Dot(0, 0.5, 0.4, 0.6), Dot(1, 0.5))) for i in range(3)]
    plain = [Series(str(i), (Dot(0, 0.5), Dot(1, 0.5))) for i in range(2)]
    found = circles(chart(barred))
    starts = [found[i][0] for i in (0, 2, 4)]
    assert [b - a for a, b in itertools.pairwise(starts)] == pytest.approx([3.0, 3.0])
    assert circles(chart(plain))[0] == circles(chart(plain))[2]


def test_names_at_the_ends_do_not_overlap():
    series = [Series(f"line {i}", (Dot(0, 0.0), Dot(1, 0.5)), i) for i in range(12)]
    root = chart(series)
    names = [t for t in root.iter("text") if t.get("class") == "name"]
    places = sorted(float(t.get("y", "")) for t in names)
    assert sorted(t.text or "" for t in names) == sorted(s.name for s in series)
    assert all(b - a >= 14.9 for a, b in itertools.pairwise(places))
    bottom = float(root.get("viewBox", "").split()[3])
    assert 0 < places[0] < places[-1] < bottom


def test_a_name_is_beside_its_last_dot_where_there_is_room():
    series = [Series("low", (Dot(0, 0.9), Dot(1, 0.1))), Series("high", (Dot(1, 0.8),))]
    root = chart(series)
    names = {
        t.text: float(t.get("y", "")) - 4
        for t in root.iter("text")
        if t.get("class") == "name"
    }
    lasts = {"low": circles(root)[1][1], "high": circles(root)[2][1]}
    assert names == pytest.approx(lasts, abs=0.11)


def test_levels_and_uprights_are_drawn_where_they_belong():
    axes = Axes("x", "y", reference=(0.5, "the base"), marks=((2.0, "here"),))
    root = chart([Series("one", (Dot(0, 0.0), Dot(2, 1.0)))], axes)
    level, upright = None, None
    for ref in root.iter("line"):
        if ref.get("class") == "ref":
            if ref.get("y1") == ref.get("y2"):
                level = float(ref.get("y1", ""))
            else:
                upright = float(ref.get("x1", ""))
    (_, y0), (x2, y2) = circles(root)
    assert level == pytest.approx((y0 + y2) / 2, abs=0.2)
    assert upright == pytest.approx(x2, abs=0.2)
    words = [t.text for t in root.iter("text")]
    assert {"the base", "here", "x", "y"} <= set(words)


def test_shares_have_no_axis_below_zero():
    def lowest(series, **changes):
        root = chart([series], Axes("x", "y", **changes))
        ticks = [
            t.text or "" for t in root.iter("text") if t.get("class") == "tick end"
        ]
        return float(ticks[0])

    assert lowest(Series("one", (Dot(0, 0.01), Dot(1, 0.9)))) == 0
    assert lowest(Series("one", (Dot(0, 0.8), Dot(1, 0.9)))) > 0.7
    assert lowest(Series("one", (Dot(0, 0.8), Dot(1, 0.9))), zero=True) == 0
    assert lowest(Series("one", (Dot(0, -0.8), Dot(1, 0.9)))) < 0


def test_a_legend_names_several_lines_and_a_small_chart_none():
    series = [Series(n, (Dot(0, 0.1), Dot(1, 0.2)), i) for i, n in enumerate("ab")]

    def words(text):
        return [t.text for t in parse(text).iter("text") if t.text in ("a", "b")]

    assert words(plots.legend(series)) == ["a", "b"]
    assert plots.legend(series[:1]) == ""
    assert words(plots.lines(series, AXES, "t")) == ["a", "b", "a", "b"]
    assert words(plots.lines(series[:1], AXES, "t")) == ["a"]
    assert words(plots.lines(series, AXES, "t", small=True)) == []


def test_styles_repeat_in_dashes():
    dots = (Dot(0, 0.1), Dot(1, 0.2))
    series = [
        Series("a", dots, 1),
        Series("b", dots, 9),
        Series("c", dots, 2, dashed=True),
    ]
    root = chart(series)
    assert {g.get("class") for g in root.iter("g")} >= {"s1", "s1 dashed", "s2 dashed"}


def test_a_hint_tells_the_numbers():
    dots = (Dot(3, 0.12345, 0.1, 0.2, "of 5"),)
    root = chart([Series("one", dots, joined=False)])
    (hint,) = [t.text for c in root.iter("circle") for t in c.iter("title")]
    assert hint == "one, 3: 0.1235 (0.1 to 0.2), of 5"
    assert not [*root.iter("polyline")]


def test_a_heat_map_has_its_numbers_and_leaves_places_empty():
    rows = [
        ("top", [Cell("0.10"), Cell("0.20")]),
        ("next", [Cell("0.30", 0.5, "hint"), None]),
        ("last", [Cell("0.05", -1.5), Cell("0.15", 0.25)]),
    ]
    root = parse(plots.heat(rows, ["p1", "p2"], "a map", corner="passage", ruled=1))
    cells = [
        (g.get("class"), g.get("style"), g.findtext("text")) for g in root.iter("g")
    ]
    assert cells == [
        ("cool", "--s: 0.00", "0.10"),
        ("cool", "--s: 0.00", "0.20"),
        ("cool", "--s: 0.50", "0.30"),
        ("warm", "--s: 1.00", "0.05"),
        ("cool", "--s: 0.25", "0.15"),
    ]
    words = [t.text for t in root.iter("text")]
    assert {"top", "next", "last", "p1", "p2", "passage"} <= set(words)
    tops = [float(r.get("y", "")) for r in root.iter("rect")]
    assert tops[0] == tops[1]
    # A gap sets the first row apart.
    assert tops[2] - tops[0] == pytest.approx(tops[3] - tops[2] + 6)


@pytest.mark.parametrize("columns", [1, 8, 40])
def test_a_heat_map_fits_its_drawing(columns):
    rows = [("r", [Cell("1.00", 1.0)] * columns)]
    root = parse(plots.heat(rows, ["p"] * columns, "t"))
    width = float(root.get("viewBox", "").split()[2])
    ends = [
        float(r.get("x", "")) + float(r.get("width", "")) for r in root.iter("rect")
    ]
    assert max(ends) <= width <= 720


@pytest.mark.parametrize(
    "text",
    [
        plots.lines([], AXES, HOSTILE),
        plots.lines([Series(HOSTILE, ())], AXES, "t"),
        plots.lines(
            [Series(HOSTILE, (Dot(0, 0.0, 0.0, 0.0, HOSTILE),), i) for i in range(3)],
            Axes(
                HOSTILE, HOSTILE, ((0, HOSTILE),), True, (0, HOSTILE), ((0, HOSTILE),)
            ),
            HOSTILE,
        ),
        plots.lines([Series("a", (Dot(0, -5.0), Dot(0, -5.0)))], AXES, "t"),
        plots.heat([], [], HOSTILE),
        plots.heat([(HOSTILE, [Cell(HOSTILE, 0.1, HOSTILE)])], [HOSTILE], "t"),
    ],
)
def test_every_chart_is_well_formed_with_finite_numbers(text):
    parse(text)
    assert not re.search(r"\b(nan|inf)\b", text)


def test_cut_keeps_what_fits():
    assert plots.shortened("abcdef", 6) == "abcdef"
    assert plots.shortened("abcdefg", 6) == "abcde…"


def test_a_dot_with_an_error_spans_it():
    assert plots.erring(1, 0.5, 0.25) == Dot(1, 0.5, 0.25, 0.75)
    assert plots.erring(1, 0.5, None) == Dot(1, 0.5)
