from __future__ import annotations

from tests.checkpoints.test_manifest import small
from toolshed.checkpoints.table import Row, as_html, as_text, plain

ROWS = [
    Row(100, small(step=100, metrics={"eval/loss": 0.25}, nbytes=1234), "verified"),
    Row(1200, small(step=1200, metrics={"eval/loss": 12.5}, tags=("best", "x"), nbytes=18_600_000), "whole"),
    Row(1300, None, "000000001300-000000009 is damaged: manifest.json is missing."),
]


def test_a_table_for_the_terminal():
    assert as_text("Repository /r · 3 checkpoints", ROWS).splitlines() == [
        "Repository /r · 3 checkpoints",
        " step  saved (UTC)          tags     eval/loss     size  condition",
        "1,300                                                    000000001300-000000009 is damaged:"
        " manifest.json is missing.",
        "1,200  2026-11-21 12:30:05  best, x       12.5  18.6 MB  whole",
        "  100  2026-11-21 12:30:05                0.25   1.2 kB  verified",
    ]


def test_a_table_of_nothing_is_its_title():
    assert as_text("empty", []) == "empty"
    assert as_html("empty", []) == "<div><b>empty</b></div>"


def test_a_table_for_a_notebook_has_the_same_cells_and_no_colours_of_its_own():
    html = as_html("title", ROWS)
    for text in ("1,300", "best, x", "12.5", "18.6 MB", "verified", "manifest.json is missing."):
        assert f">{text}</td>" in html or f"{text}</td>" in html
    assert html.count("<tr>") == 4
    assert "color:#" not in html
    assert "background" not in html
    assert "<style" not in html  # which a notebook that is not trusted strips


def test_text_from_files_is_text():
    evil = "<script>alert(1)</script>"
    rows = [Row(1, small(tags=(evil,), metrics={evil: 1.0}), evil), Row(2, None, evil)]
    html = as_html(evil, rows)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 5
    text = as_text("\x1b[2Jtitle", [Row(1, None, "\x1b[31mred\r\n\u202e")])
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 3


def test_cells_and_rows_are_bounded():
    rows = [
        Row(i, small(step=i, tags=("t" * 100,) * 5, metrics={f"m{j}": 1.0 for j in range(50)}), "x")
        for i in range(500)
    ]
    lines = as_text("title", rows).splitlines()
    assert len(lines) == 1 + 1 + 20 + 1
    assert lines[-1] == "and 480 more"
    assert lines[2].lstrip().startswith("499 ")  # the newest
    assert max(map(len, lines)) < 200
    assert "<div>and 480 more</div>" in as_html("title", rows)
    assert plain("x" * 50) == "x" * 39 + "…"
