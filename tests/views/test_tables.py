"""Tables show text as text, words to the left and numbers to the right."""

from __future__ import annotations

from toolshed.views.tables import as_html, as_text, plain

CELLS = [["name", "step"], ["a", "1"], ["long", "1,000"]]


def test_words_begin_at_the_left_and_numbers_end_at_the_right():
    assert as_text("Title", CELLS, ["name"]).splitlines() == [
        "Title",
        "name   step",
        "a         1",
        "long  1,000",
    ]
    assert as_text("Title", CELLS[:1], ["name"]) == "Title"
    assert as_text("Title", CELLS, ["name"], 2).splitlines()[-1] == "and 2 more"


def test_whatever_is_in_a_cell_is_text():
    hostile = [["<b>"], ["<script>alert(1)</script>"]]
    page = as_html("<i>", hostile, [])
    assert "<script>" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;" in page
    assert as_html("Title", hostile[:1], []) == "<div><b>Title</b></div>"
    assert plain("a\x1b[31mb\nc") == "a�[31mb�c"
    assert plain("x" * 50) == "x" * 39 + "…"
