"""Strings of a tree are text in a real browser, whatever they say."""

from __future__ import annotations

from typing import Any

import pytest

import toolshed
from tests.views.hostile import RUN, STRINGS, places
from toolshed.views.panels import printable

_TEXT = """() => [...document.querySelectorAll("treescope-container")]
    .map((node) => node.shadowRoot.querySelector(".treescope_root")?.textContent ?? "").join("\\n")"""
_FOREIGN = """() => [...document.querySelectorAll("treescope-container")].flatMap((node) =>
    [...node.shadowRoot.querySelectorAll("img,svg,iframe,video,a,math,details,body,textarea,title")]
        .map((found) => found.outerHTML))"""
_HANDLERS = """() => [...document.querySelectorAll("treescope-container")].flatMap((node) =>
    [...node.shadowRoot.querySelectorAll("*")].flatMap((found) => found.getAttributeNames()
        .filter((name) => name.startsWith("on") && found.getAttribute(name).includes("window.ran"))))"""


def opened(page: Any, html: str) -> None:
    """A page with views on it, all of which have been drawn, and every copy button pressed."""
    page.set_content(f"<body>{html}</body>")
    page.set_viewport_size({"width": 1200, "height": 30_000})  # treescope draws what is in sight
    page.wait_for_function(
        """() => [...document.querySelectorAll("treescope-container")]
            .every((node) => node.shadowRoot?.querySelector(".treescope_root"))"""
    )
    page.evaluate(
        """() => document.querySelectorAll("treescope-container").forEach((node) =>
            node.shadowRoot.querySelectorAll("*").forEach((found) => {
                found.dispatchEvent(new Event("mouseover"));
                if (found.className === "copybutton") found.click();
            }))"""
    )
    page.wait_for_timeout(50)


@pytest.mark.parametrize("place", list(places("x")))
def test_forty_hostile_strings_are_text(page: Any, place: str):
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    views = [toolshed.show(places(text)[place]) for text in STRINGS]
    views += [toolshed.compare(places(text)[place], places(text)[place]) for text in STRINGS[:4]]
    opened(page, "".join(view.html for view in views))
    assert page.evaluate("window.ran") is None
    assert page.evaluate(_FOREIGN) == []
    assert page.locator("body :is(img,svg,iframe,video,a,math,details,textarea,title)").count() == 0
    assert page.evaluate(_HANDLERS) == []
    text = page.evaluate(_TEXT)
    for string in STRINGS:
        ways = (
            printable(string).strip(),
            printable(string.replace("\0", "")).strip(),
            printable(repr(string))[1:],
        )
        assert any(way[:16] in text for way in ways), string
    assert errors == []


def test_the_same_strings_do_run_where_nothing_escapes_them(page: Any):
    page.set_content("".join(f"<div>{text}</div>" for text in STRINGS[3:8]))
    page.wait_for_function("window.ran > 0")
    assert len(STRINGS) == 40
    assert all(RUN in text for text in STRINGS[:3])
