"""Drawings as SVG: well-formed whatever the texts are."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toolshed.live.drawing import Drawing, Line, Shape, Text, to_svg
from toolshed.views.panels import printable

SVG = "{http://www.w3.org/2000/svg}"


def parse(*items: Line | Shape | Text) -> ElementTree.Element:
    return ElementTree.fromstring(to_svg(Drawing(100, 50, items)))


def test_a_line_goes_through_its_points():
    points = np.array([[1.0, 2.0], [3.25, 2.0], [3.25, 40.0]])
    path = parse(Line(points, "#0072b2", 1.5)).findall(f"{SVG}path")[0]
    start, moves = re.fullmatch(r"M(.*)l(.*)", path.attrib["d"]).groups()
    where = np.cumsum([[float(x) for x in pair.split()] for pair in [start, *_pairs(moves)]], axis=0)
    np.testing.assert_allclose(where, points, atol=0.051)  # a tenth of a pixel
    assert (path.attrib["stroke"], path.attrib["stroke-width"]) == ("#0072b2", "1.5")


def _pairs(moves: str) -> list[str]:
    numbers = moves.split()
    return [f"{x} {y}" for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def test_rounding_does_not_add_up_along_a_line():
    x = np.linspace(0, 90, 5000)
    path = parse(Line(np.stack([x, x / 2], 1), "#000000")).findall(f"{SVG}path")[0]
    start, moves = re.fullmatch(r"M(.*)l(.*)", path.attrib["d"]).groups()
    total = np.sum([[float(v) for v in pair.split()] for pair in [start, *_pairs(moves)]], axis=0)
    np.testing.assert_allclose(total, [90, 45], atol=0.051)


def test_a_line_of_one_point_is_well_formed():
    assert parse(Line(np.array([[5.0, 5.0]]), "#000000")).findall(f"{SVG}path")[0].attrib["d"] == "M5 5h0"


@given(st.text())
def test_any_text_is_text(text):
    (found,) = parse(Text(5, 5, text, "#000000")).findall(f"{SVG}text")
    assert (found.text or "") == printable(text)
    assert len(found) == 0


def test_what_would_be_markup_or_turn_the_text_around_is_harmless():
    hostile = "</text><script>alert(1)</script>\u202e\x00&amp;"
    sheet = parse(Text(5, 5, hostile, "#000000"))
    assert sheet.findall(f".//{SVG}script") == []
    assert sheet.find(f"{SVG}text").text == "</text><script>alert(1)</script>��&amp;"
