import pathlib
import re
import xml.etree.ElementTree as ET

import jinja2
import pytest
from markupsafe import Markup

from seal_jax.report import fragments

HOSTILE = "<script>alert('x')</script>&amp;\x00\ud800\"]]>"
TEMPLATES = pathlib.Path(fragments.__file__).parent / "report/templates"


def macros():
    """(name, parameters) of every macro of every template."""
    for path in sorted(TEMPLATES.glob("*.html.jinja")):
        source = path.read_text(encoding="utf-8")
        file = path.name.removesuffix(".html.jinja")
        for name, given in re.findall(r"macro (\w+)\(([^)]*)\)", source):
            yield f"{file}.{name}", [p.split("=")[0].strip() for p in given.split(",")]


class Values(list):
    """Hostile wherever it is put: as a text, in a loop, and in pairs."""

    def __str__(self):
        return HOSTILE


def value(name):
    if name in ("tiles", "items", "colours"):
        return [(HOSTILE, HOSTILE)]
    plural = ("sections", "head", "bodies", "words", "chips", "lines")
    plural += ("shown", "asked", "arms", "figures", "drawn")
    if name == "rows":
        return [[HOSTILE]]
    return Values([HOSTILE]) if name in plural else HOSTILE


@pytest.mark.parametrize(("part", "names"), list(macros()), ids=str)
def test_texts_come_out_inert_in_every_part(part, names):
    values = {name: value(name) for name in names if name}
    text = fragments.render(part, **values)
    root = ET.fromstring(f"<body>{text.removeprefix('<!DOCTYPE html>')}</body>")
    assert [e.tag for e in root.iter("script")] == []
    # Whatever is shown is shown as it was given, but for what XML forbids.
    if names != [""] and part != "parts.verdict":
        printed = "".join(root.itertext()) + "".join(
            v for e in root.iter() for v in e.attrib.values()
        )
        assert "<script>alert('x')</script>&amp;\ufffd\ufffd\"]]>" in printed


def test_html_is_put_as_it_is_and_text_beside_it_is_not():
    both = fragments.joined([fragments.bold("<i>"), "<i>", Markup("<i/>")])
    assert both == "<b>&lt;i&gt;</b>&lt;i&gt;<i/>"


def test_a_missing_value_is_an_error_and_not_an_empty_place():
    with pytest.raises(jinja2.UndefinedError, match="body"):
        fragments.render("parts.headed", title="t")
    with pytest.raises(KeyError):
        fragments.render("parts.nothing")


def test_nothing_to_show_is_nothing():
    assert not fragments.headed("title", "")
    assert not fragments.scroll("")
    assert not fragments.charts([])
    assert not fragments.lead("")
