"""Trees, figures and the explorer in a real JupyterLab: they follow its theme, and no text runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import jupyterlab
from tests.browser.test_explorer import INK

ROOT = Path(__file__).parents[2]
CELLS = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    "import jax, jax.numpy as jnp, toolshed\n"
    "from penzai.models.simple_mlp import MLP\n"
    "from tests.views.hostile import STRINGS, places\n"
    "from toolshed.views import figures\n"
    "%load_ext toolshed\n"
    "model = MLP.from_config(jax.random.key(0), [16, 32, 4])",
    "model",
    "[places(text) for text in STRINGS[:8]]",
    "figures.heat_map([[1.0, -2.0], [0.5, 1.0]])",
    "bad = {'w': jnp.eye(6), '<img src=x onerror=window.ran=1>': jnp.ones(2)}\n"
    "toolshed.explore({'layer': bad, 'b': jnp.ones(2)})",
)


INK_AND_GROUND = """node => {
    const container = node.querySelector("treescope-container");
    const root = getComputedStyle(container.shadowRoot.querySelector(".treescope_root"));
    return [root.color, root.backgroundColor];
}"""


@pytest.mark.parametrize("lab", ["light"], indirect=True)
def test_views_follow_the_theme_and_an_array_can_be_looked_into(lab: Any, page: Any, screenshot: Any):
    _, server = lab
    jupyterlab.write_notebook(server.root / "see_inside_test.ipynb", CELLS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    jupyterlab.open_notebook(page, server, "see_inside_test.ipynb")
    jupyterlab.run_all(page)
    assert [output for output in jupyterlab.outputs(page) if output["output_type"] == "error"] == []

    tree = page.locator(".toolshed-tree").first
    figure = page.locator("img[class^=toolshed-]")
    explorer = page.locator(".toolshed-explorer")
    for theme in ("light", "dark"):
        jupyterlab.command(page, "apputils:change-theme", theme=f"JupyterLab {theme.title()}")
        light = str(theme == "light").lower()
        expect(page.locator("body")).to_have_attribute("data-jp-theme-light", light)
        page.set_viewport_size({"width": 1200, "height": 900})
        jupyterlab.reveal(page, tree)
        expect(tree.locator(".treescope_root")).to_contain_text("MLP")
        ink, ground = tree.evaluate(INK_AND_GROUND)
        assert ground == "rgba(0, 0, 0, 0)"
        assert ("255" in ink) == (theme == "dark")
        screenshot(page, f"see_inside_{theme}_tree")

        jupyterlab.reveal(page, figure)
        assert (figure.evaluate("node => getComputedStyle(node).content") != "normal") == (theme == "dark")

        jupyterlab.reveal(page, explorer)
        if theme == "light":
            page.locator("[data-path='layer/w'] .te-label").click()
        expect(page.locator(".te-map canvas")).to_be_visible()
        page.wait_for_function(f"(dark) => (({INK})() > 128) === dark", arg=theme == "dark")
        screenshot(page, f"see_inside_{theme}_explorer")
        page.set_viewport_size({"width": 520, "height": 900})
        page.wait_for_timeout(200)
        screenshot(page, f"see_inside_{theme}_narrow")
    jupyterlab.command(page, "apputils:change-theme", theme="JupyterLab Light")  # as other tests found it
    assert page.evaluate("window.ran") is None
    assert errors == []
