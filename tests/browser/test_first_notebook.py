"""The first notebook in a real JupyterLab: it runs, its trees can be opened, and it survives a reload."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import jupyterlab


@pytest.mark.parametrize("lab", ["dark"], indirect=True)  # in the light theme are most others
def test_the_first_notebook_shows_what_it_promises_and_shows_it_again_after_a_reload(
    lab: Any, page: Any, screenshot: Any
):
    theme, server = lab
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    jupyterlab.open_notebook(page, server, "01_first_model.ipynb")
    screenshot(page, f"first_{theme}_before")

    jupyterlab.run_all(page)
    outputs = jupyterlab.outputs(page)
    assert [output for output in outputs if output["output_type"] == "error"] == []
    text = "".join("".join(output.get("text", "")) for output in outputs)
    assert "test accuracy 9" in text
    assert "Warning" not in text
    figures = [
        output for output in outputs if "Figure" in "".join(output.get("data", {}).get("text/plain", ""))
    ]
    assert len(figures) == 3  # the digits, the curves, the predictions

    trees = page.locator(".toolshed-tree")
    state, context = (trees.filter(has_text=word) for word in ("TrainState", "loss_total"))
    jupyterlab.reveal(page, state)
    root = state.locator(".treescope_root")
    expect(root).to_contain_text("38.4 kB  ‖·‖ 10.1")
    expect(root).to_contain_text("4 arrays · 9,610 values")
    assert root.evaluate("root => getComputedStyle(root).backgroundColor") == "rgba(0, 0, 0, 0)"
    expect(root.get_by_text("ScaleByAdamState")).not_to_be_visible()
    screenshot(page, f"first_{theme}_state_folded")
    root.get_by_text("opt_state", exact=True).click()
    expect(root.get_by_text("ScaleByAdamState")).to_be_visible()
    screenshot(page, f"first_{theme}_state_open")

    jupyterlab.reveal(page, context)
    screenshot(page, f"first_{theme}_context")

    dashboard = page.locator(".toolshed-live")
    jupyterlab.reveal(page, dashboard)
    expect(dashboard).to_have_attribute("data-status", "finished")
    expect(dashboard).to_have_attribute("data-step", "10003")
    screenshot(page, f"first_{theme}_dashboard")
    page.set_viewport_size({"width": 480, "height": 900})
    screenshot(page, f"first_{theme}_narrow")
    page.set_viewport_size({"width": 1200, "height": 900})
    assert errors == []

    jupyterlab.command(page, "docmanager:save")
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    jupyterlab.reveal(page, state)
    screenshot(page, f"first_{theme}_reloaded")
