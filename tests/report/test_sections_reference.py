import xml.etree.ElementTree as ET

import report_run

from seal_jax.analysis import stats
from seal_jax.report import reference
from seal_jax.report.sections import reference as reference_section


def test_the_chart_shows_each_file_beside_its_base(tmp_path):
    results = [
        reference.read(report_run.ranking_file(tmp_path / f"{n}.json")) for n in "ab"
    ]
    first, second = reference_section.sections(results)
    root = ET.fromstring(first)
    mean, se = stats.mean_se([a.adapter for a in results[0].articles])
    low, high = stats.interval([a.adapter for a in results[0].articles])
    told = [t.text for g in root.iter("g") for t in g.iter("title")]
    assert told[:2] == [f"a: {mean:.4f} ± {se:.4f}", "its base: 0.0000 ± 0.0000"]
    assert len(told) == 4
    thin = next(b for b in root.iter("line") if b.get("class") == "thin")
    thick = next(b for b in root.iter("line") if b.get("class") == "thick")
    widths = [float(b.get("x2", "")) - float(b.get("x1", "")) for b in (thin, thick)]
    assert abs(widths[0] / widths[1] - (high - low) / (2 * se)) < 0.01
    pairs = [
        row.findtext("td") for row in ET.fromstring(second).iterfind(".//tbody/tr")
    ]
    assert pairs == ["a − its base", "b − its base", "b − a"]


def test_no_files_have_no_sections():
    assert reference_section.sections([]) == []
