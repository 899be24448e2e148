import re
import xml.etree.ElementTree as ET

import pytest

from seal_jax import svg

HOSTILE = "a<b>&\"c'\x00\x0b\ud800\ufffe"


def parse(text):
    return ET.fromstring(text)


def test_escape_leaves_nothing_that_xml_forbids():
    element = parse(f'<p title="{svg.escape(HOSTILE)}">{svg.escape(HOSTILE)}</p>')
    expected = "a<b>&\"c'\ufffd\ufffd\ufffd\ufffd"
    assert element.text == expected
    assert element.get("title") == expected


def test_scale_is_linear_either_way():
    x = svg.Scale(-1.0, 3.0, 100.0, 20.0)
    assert [x(v) for v in (-1.0, 1.0, 3.0)] == [100.0, 60.0, 20.0]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.13, 0.88, [0.2, 0.4, 0.6, 0.8]),
        (-0.051, 0.049, [-0.04, -0.02, 0.0, 0.02, 0.04]),
        (-7.0, 30.0, [0.0, 10.0, 20.0, 30.0]),
    ],
)
def test_ticks_are_round(low, high, ticks):
    assert svg.Scale(low, high, 0, 1).ticks() == pytest.approx(ticks, abs=1e-12)


@pytest.mark.parametrize("values", [[], [0.0], [0.5, 0.5], [-3.0, 1e9], [-1e-9, 1e-9]])
def test_fit_holds_its_values_inside(values):
    x = svg.fit(values, 0, 10)
    assert x.low < x.high
    assert all(0 < x(v) < 10 for v in values)
    assert x.ticks()


def test_intervals_draw_means_and_errors_to_scale():
    points = [
        svg.Point("low", "0.1", 0.1, 0.05, "k-base"),
        svg.Point("no <se>", "0.9", 0.9, None, "k-round"),
    ]
    root = parse(svg.intervals(points, reference=0.5))
    low, high = (float(c.get("cx", "")) for c in root.iter("circle"))
    (ref,) = root.findall("line[@class='ref']")
    assert float(ref.get("x1", "")) == pytest.approx((low + high) / 2, abs=0.2)
    unit = (high - low) / 0.8
    (thick,) = root.findall(".//line[@class='thick']")
    half = (float(thick.get("x2", "")) - float(thick.get("x1", ""))) / 2
    assert half == pytest.approx(0.05 * unit, abs=0.2)
    assert [t.text for t in root.iter("title")] == ["low: 0.1", "no <se>: 0.9"]


def test_histogram_counts_every_value():
    values = [0.0, 0.05, 0.5, 1.0, 1.0, 7.0]  # one beyond the scale joins the end
    root = parse(svg.histogram(values, svg.Scale(0, 1, 0, 160), "k-self", bins=10))
    found = [t.text or "" for t in root.iter("title")]
    assert [int(t.split()[0]) for t in found] == [2, 1, 3]
    heights = [float(r.get("height", "")) for r in root.iter("rect")]
    assert heights[2] == pytest.approx(3 * heights[1], abs=0.2)


def test_bars_are_proportional():
    root = parse(svg.bars([("a", 2.0, "2 s"), ("b", 1.0, "1 s"), ("c", 0.0, "0 s")]))
    a, b, c = (float(r.get("width", "")) for r in root.iter("rect"))
    assert a == pytest.approx(2 * b, abs=0.2)
    assert 0 < c < b


def test_line_rises_upwards():
    root = parse(svg.line([(0, 1.0), (1, 2.0), (2, 1.5)]))
    (path,) = root.iter("polyline")
    ys = [float(p.split(",")[1]) for p in path.get("points", "").split()]
    assert ys[1] < ys[2] < ys[0]


@pytest.mark.parametrize(
    "text",
    [
        svg.histogram([], svg.Scale(0, 1, 0, 100), "k-self"),
        svg.intervals([]),
        svg.bars([]),
        svg.line([(0, 1.0), (0, 1.0)]),
        svg.intervals([svg.Point(HOSTILE, HOSTILE, -2.0, 0.0, "k-base")]),
        svg.interval(svg.fit([-1, 1], 6, 234), 0.2, None, "k-up"),
        svg.bars([(HOSTILE, 0.0, HOSTILE)]),
    ],
)
def test_every_chart_is_well_formed_with_finite_numbers(text):
    parse(text)
    assert not re.search(r"\b(nan|inf)\b", text)
