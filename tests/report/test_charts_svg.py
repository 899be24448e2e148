import math
import re
import xml.etree.ElementTree as ET

import pytest

from seal_jax.report.charts import svg

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


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([], (0, 1)),
        ([1.0], (0, 1)),
        ([1e-4, 1e-3], (-4, -3)),
        ([1e-3], (-3, -2)),
        ([1.1e-4, 0.99], (-4, 0)),
        ([2.0, 50.0], (0, 2)),
        ([1000.0], (3, 4)),
    ],
)
def test_log_fit_holds_its_values_in_whole_decades(values, ends):
    x = svg.log_fit(values, 10, 110)
    assert (x.low, x.high) == ends
    assert all(10 - 1e-6 <= x(v) <= 110 + 1e-6 for v in values)


def test_log_scale_places_equal_factors_equally_far_apart():
    x = svg.LogScale(-4, 0, 0.0, 200.0)
    assert [x(v) for v in (1e-4, 1e-3, 1e-2, 1.0)] == pytest.approx([0, 50, 100, 200])
    assert x.at(x(0.003)) == pytest.approx(0.003)
    assert x.ticks() == pytest.approx([1e-4, 1e-3, 1e-2, 0.1, 1.0])
    assert x.ticks(2) == pytest.approx([1e-4, 1e-2, 1.0])


def test_a_linear_scale_finds_back_its_values():
    x = svg.Scale(-1.0, 3.0, 100.0, 20.0)
    assert x.at(x(2.5)) == pytest.approx(2.5)


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


def test_intervals_draw_bounds_in_place_of_two_errors():
    points = [
        svg.Point("both", "", 0.5, 0.1, "k-base", (0.0, 0.6)),
        svg.Point("far", "", 1.0, 0.1, "k-base"),
        svg.Point("certain", "", 0.0, 0.0, "k-base", (0.0, 0.0)),
    ]
    root = parse(svg.intervals(points))
    unit = float(root.findall(".//circle")[1].get("cx", "")) - (
        start := float(root.findall(".//circle")[2].get("cx", ""))
    )

    def ends(line):
        return [(float(line.get(k, "")) - start) / unit for k in ("x1", "x2")]

    thin, thick = root.findall("g[1]/line")
    assert (thin.get("class"), thick.get("class")) == ("thin", "thick")
    assert ends(thin) == pytest.approx([0.0, 0.6], abs=0.002)
    assert ends(thick) == pytest.approx([0.4, 0.6], abs=0.002)
    assert ends(root.find("g[2]/line")) == pytest.approx([0.8, 1.2], abs=0.002)
    assert root.find("g[3]/line") is None


def test_histogram_counts_every_value():
    values = [0.0, 0.05, 0.5, 1.0, 1.0, 7.0]  # one beyond the scale joins the end
    root = parse(svg.histogram(values, svg.Scale(0, 1, 0, 160), "k-self", bins=10))
    found = [t.text or "" for t in root.iter("title")]
    assert [int(t.split()[0]) for t in found] == [2, 1, 3]
    heights = [float(r.get("height", "")) for r in root.iter("rect")]
    assert heights[2] == pytest.approx(3 * heights[1], abs=0.2)


def test_histogram_draws_a_part_in_front_of_all():
    x = svg.LogScale(-4, -2, 0, 200)
    values = [1e-4, 1e-4, 5e-4, 1e-3, 1e-2]
    root = parse(svg.histogram(values, x, "k-self", bins=2, part=[1e-4, 1e-3]))
    drawn = [(r.get("class"), float(r.get("height", ""))) for r in root.iter("rect")]
    whole = drawn[0][1]
    # 1e-3 is on the edge and belongs to the second decade.
    assert drawn == [
        ("pale", whole),
        ("bar", pytest.approx(whole / 3, abs=0.1)),
        ("pale", pytest.approx(whole * 2 / 3, abs=0.1)),
        ("bar", pytest.approx(whole / 3, abs=0.1)),
    ]
    hints = [t.text for t in root.iter("title")]
    assert hints[::2] == [
        "3 from 0.0001 to 0.001, 1 of them",
        "2 from 0.001 to 0.01, 1 of them",
    ]
    # The mean's place is that of the geometric mean.
    (mean,) = root.findall("line[@class='mean']")
    middle = math.prod(values) ** 0.2
    assert float(mean.get("x1", "")) == pytest.approx(x(middle), abs=0.1)


def painted(drawing):
    """The colours of a drawn grid, from its ground and its lines."""
    rect = drawing.find("rect")
    ground = int(rect.get("class")[1:])
    size = (int(rect.get("height")), int(rect.get("width")))
    found = [[ground] * size[1] for _ in range(size[0])]
    for path in drawing.iterfind("g/path"):
        for run in re.findall(r"M(\d+) (\d+)h(\d+)", path.get("d")):
            x, y, length = map(int, run)
            for k in range(x, x + length):
                found[y][k] = int(path.get("class")[1:])
    return found


@pytest.mark.parametrize(
    "grid",
    [
        [[7]],
        [[0, 0, 1], [2, 0, 0]],
        [[i] for i in range(10)],
        [[(3 * x + y * y) % 10 for x in range(30)] for y in range(30)],
        [[5] * 30],
    ],
)
def test_cells_paint_every_colour_where_it_is(grid):
    drawing = parse(svg.cells(grid, "a <grid>", side=100))
    assert painted(drawing) == grid
    assert drawing.get("viewBox") == f"0 0 {len(grid[0])} {len(grid)}"
    sizes = re.findall(r"(?:width|height): (\d+)px", drawing.get("style"))
    assert 1 <= min(map(int, sizes)) <= max(map(int, sizes)) <= 100


def test_cells_are_described_by_their_numbers():
    drawing = parse(svg.cells([[0, 1], [2, 3], [4, 5]], "a <grid>"))
    assert drawing.get("role") == "img"
    assert drawing.findtext("title") == "a <grid>"
    assert drawing.findtext("desc") == "3 by 2: 01, 23, 45"
    net = drawing.find("path[@class='net']").get("d")
    assert net == "M1 0v3M0 1h2M0 2h2"


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
        svg.histogram([], svg.log_fit([], 0, 100), "k-self", part=[]),
        svg.cells([[0]], HOSTILE),
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
