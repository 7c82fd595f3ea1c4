"""A tree to walk through, in a browser: levels, search, a look into an array; text is text."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from playwright.sync_api import expect

from tests.views.hostile import STRINGS, places
from toolshed.live.explorer import Explorer

STATIC = Path(__file__).parents[2] / "toolshed" / "live" / "static"

_OPEN = """async ([source, css, traits]) => {
    const style = document.createElement("style");
    style.textContent = css;
    document.head.append(style);
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const module = (await import(url)).default;
    const listeners = [];
    window.answer = (message, text) => {
        const codes = Uint8Array.from(atob(text ?? ""), (c) => c.charCodeAt(0));
        const bytes = text === null ? [] : [new DataView(codes.buffer)];
        listeners.forEach((listener) => listener(message, bytes));
    };
    const model = {
        get: (name) => traits[name],
        on: (name, listener) => listeners.push(listener),
        off: (name, listener) => listeners.splice(listeners.indexOf(listener), 1),
        send: (message) => window.ask(message),
    };
    window.close_ = module.render({ model, el: document.body });
    window.listening = () => listeners.length;
}"""


INK = """() => {
    const canvas = document.querySelector(".te-histogram canvas");
    const { data } = canvas.getContext("2d").getImageData(0, canvas.height - 26, canvas.width, 26);
    let most = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 100) most = Math.max(most, data[i]);
    return most;
}"""
"""How bright the numbers below the histogram of an array are, from 0 to 255."""


def opened(page: Any, tree: Any) -> Explorer:
    """The explorer on a page of its own, whose questions are answered at once."""
    explorer = Explorer(tree)
    answers: list[Any] = []
    explorer.send = lambda content, buffers=None: answers.append((content, buffers or []))

    def ask(message: dict[str, Any]) -> None:
        explorer._hear(explorer, message, [])
        for content, buffers in answers:
            picture = base64.b64encode(buffers[0]).decode() if buffers else None
            page.evaluate(
                "([message, text]) => { setTimeout(() => window.answer(message, text)) }", [content, picture]
            )
        answers.clear()

    page.expose_function("ask", lambda message: questions.append(message))
    questions: list[Any] = []
    source, css = ((STATIC / f"explorer.{kind}").read_text() for kind in ("js", "css"))
    page.evaluate(_OPEN, [source, css, {"rows": explorer.rows, "edges": explorer.edges}])

    def pump() -> None:
        page.wait_for_timeout(250)
        while questions:
            ask(questions.pop(0))
        page.wait_for_timeout(50)

    explorer.pump = pump  # type: ignore[attr-defined]
    return explorer


def tree() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    blocks = {
        f"block_{i}": {
            "weights": jnp.asarray(rng.normal(size=(24, 32)) / (i + 1), jnp.float32),
            "inner": {"bias": jnp.zeros(8), "scale": jnp.ones(8)},
        }
        for i in range(30)
    }
    blocks["block_7"]["inner"]["scale"] = jnp.array([1.0, jnp.nan])
    return blocks


def test_levels_open_an_array_is_looked_into_and_found(page: Any, screenshot: Any):
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    explorer = opened(page, tree())
    expect(page.get_by_text("NaN ×1").first).to_be_visible()
    page.locator("[data-path='block_3'] .te-label").click()
    explorer.pump()
    page.locator("[data-path='block_3/weights'] .te-label").click()
    explorer.pump()
    expect(page.locator(".te-histogram canvas")).to_be_visible()
    page.locator(".te-map canvas").hover(position={"x": 3, "y": 3})
    expect(page.locator(".te-map figcaption")).to_contain_text("[0, 0] = ")
    screenshot(page, "explorer_look")

    page.get_by_role("searchbox").fill("block_7/")
    explorer.pump()
    expect(page.get_by_role("status")).to_have_text("3 arrays")
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="worst first").click()
    explorer.pump()
    expect(page.locator(".te-row").first).to_contain_text("block_7/inner/scale")
    screenshot(page, "explorer_worst")
    page.get_by_role("button", name="worst first").click()
    expect(page.locator(".te-row").first).to_contain_text("90 arrays")
    assert errors == []
    page.evaluate("window.close_()")
    assert page.evaluate("window.listening()") == 0
    assert page.locator(".toolshed-explorer").count() == 0


def test_a_look_follows_the_theme(page: Any):
    explorer = opened(page, tree())
    page.locator("[data-path='block_3'] .te-label").click()
    explorer.pump()
    page.locator("[data-path='block_3/weights'] .te-label").click()
    explorer.pump()
    assert page.evaluate(INK) < 100
    page.evaluate("() => document.body.style.setProperty('--jp-content-font-color1', '#eee')")
    page.wait_for_function(f"() => ({INK})() > 200")


def test_columns_stand_in_line_and_fit_into_a_notebook(page: Any):
    explorer = opened(page, {"layer": {"w": jnp.eye(6), "a rather long name of an array": jnp.ones(2)}})
    page.locator("[data-path='layer'] .te-label").click()
    explorer.pump()
    for width in (740, 900, 1400):  # JupyterLab with its side bar on a small screen, and more
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator(".te-tree").evaluate("node => node.scrollWidth - node.clientWidth") <= 0, width
        starts = page.locator(".te-chart").evaluate_all(
            "all => all.map((one) => one.getBoundingClientRect().x)"
        )
        assert len(starts) >= 2
        assert max(starts) - min(starts) < 1, width


def test_hostile_strings_are_text(page: Any):
    explorer = opened(
        page,
        {f"{place} {i}": tree for i, text in enumerate(STRINGS[::4]) for place, tree in places(text).items()},
    )
    page.get_by_role("searchbox").fill("img")
    explorer.pump()
    assert page.evaluate("window.ran") is None
    assert page.locator(".toolshed-explorer :is(img,script,svg,iframe,a,video)").count() == 0
    expect(page.locator(".te-tree")).to_contain_text("<img src=x")


def test_no_text_is_set_as_html():
    source = (STATIC / "explorer.js").read_text()
    assert not any(
        way in source for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write")
    )
