"""What a run sees inside, in a real JupyterLab: heat maps, ridges on demand, and the autopsy of a NaN.

The tests share one server, one kernel and one run, and come in the order of a day's work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import jupyterlab
from tests.browser.live import ROOT, Live, opened

SET_UP = """
import numpy as np, jax, jax.numpy as jnp, optax, toolshed
from penzai import pz
from penzai.models.simple_mlp import MLP

def loss_fn(*, model, state, rng, x):
    outputs = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    return jnp.mean(jnp.log(jnp.abs(x) + 1e-3)) ** 2 + jnp.mean(outputs**2), state, {}

model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 16, 16, 1])
batches = [{"x": np.random.default_rng(i).normal(size=(8, 2)).astype("f")} for i in range(64)]
run = toolshed.Run(model, optax.adam(1e-3), loss_fn, batches, name="inside", snapshot_every=100)
run.watch("grads/**", every=5)
"""
CELLS = [
    SET_UP,
    "run",
    "run.train()",
    "run.pause()\nrun.wait()\nbatches[3]['x'] = batches[3]['x'].copy()\nbatches[3]['x'][5, 1] = -np.inf",
    "run.train()",
]
SHOW, TRAIN, SPOIL, AGAIN = 1, 2, 3, 4
MAP = f'{ROOT} [data-map="grads/**"]'


@pytest.fixture(scope="module")
def live(browser: Any, tmp_path_factory: Any) -> Iterator[Live]:
    with opened(browser, tmp_path_factory.mktemp("inside") / "inside.ipynb", CELLS, height=1400) as live:
        yield live


def heat(live: Live) -> Any:
    return live.page.locator(f"{MAP} .tl-heat")


def test_a_watch_is_a_heat_map_from_the_start_and_the_page_does_not_jump(live):
    jupyterlab.run_cell(live.page, 0)
    jupyterlab.run_cell(live.page, SHOW)
    live.wait_for_status("ready")
    expect(heat(live)).to_have_attribute("aria-label", "grads/**: nothing seen yet")
    high = heat(live).bounding_box()["height"]
    jupyterlab.run_cell(live.page, TRAIN)
    live.wait("root.querySelector('.tl-map').dataset.columns > 20")
    assert heat(live).bounding_box()["height"] == high
    expect(heat(live)).to_have_attribute("aria-roledescription", "heat map")
    words = heat(live).get_attribute("aria-label")
    assert words.startswith("rms of 6 arrays that match grads/**.")


def test_pointing_at_a_cell_tells_its_path_step_and_value(live, screenshot):
    heat(live).scroll_into_view_if_needed()
    box = heat(live).bounding_box()
    live.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 30)
    tip = live.page.locator(f"{MAP} .tl-tip")
    expect(tip).to_contain_text("grads/")
    path, value = tip.inner_text().split("\n")
    assert path == live.ask("run.watched['grads/**'].paths[1]").strip("'")
    assert value.startswith("step ")
    expect(live.page.locator('[data-panel="loss"] .tl-note')).to_contain_text("step")
    screenshot(live.page, "inside_light")
    live.page.mouse.move(0, 0)


def test_another_statistic_is_chosen(live):
    live.page.get_by_label("Statistic of grads/**").select_option("absmax")
    expect(live.page.locator(MAP)).to_have_attribute("data-statistic", "absmax")
    live.page.get_by_label("Statistic of grads/**").select_option("rms")
    expect(live.page.locator(MAP)).to_have_attribute("data-statistic", "rms")


def test_by_keyboard_a_row_opens_as_ridges_while_the_run_trains(live, screenshot):
    live.wait("+root.dataset.step > 600")
    heat(live).focus()
    heat(live).press("ArrowDown")
    heat(live).press("Home")
    expect(live.page.locator(f"{ROOT} .tl-unseen")).to_contain_text("step 1: rms")
    heat(live).press("Enter")
    ridges = live.page.locator(f"{MAP} .tl-ridges")
    expect(ridges).to_have_attribute("data-state", "shown")
    assert live.attribute("status") == "training"
    picture = live.page.get_by_role("img", name="Histograms of grads/")
    expect(picture).to_be_visible()
    words = picture.get_attribute("aria-label").split("at steps ")[1].partition(";")[0]
    steps = [int(step.replace(",", "")) for step in words.split(", ")]
    assert steps[0] == 1
    assert len(steps) >= 5
    assert {step % 100 for step in steps} == {1}, "the steps after the snapshots"
    screenshot(live.page, "inside_ridges")
    ridges.get_by_label("Close the histograms").press("Escape")
    expect(ridges).to_be_hidden()
    expect(heat(live)).to_be_focused()


def test_a_batch_that_is_not_finite_stops_the_run_and_the_autopsy_is_shown(live, screenshot):
    jupyterlab.run_cell(live.page, SPOIL)
    live.wait_for_status("paused")
    expect(live.page.locator(f"{ROOT} .tl-autopsy")).to_be_hidden()
    jupyterlab.run_cell(live.page, AGAIN)
    live.wait_for_status("failed")
    autopsy = live.page.locator(f"{ROOT} .tl-autopsy")
    expect(autopsy).to_contain_text("batch/x holds -∞")
    expect(autopsy).to_contain_text("batch 4 of epoch")
    row = autopsy.locator("tr.tl-bad td")
    expect(row.last).to_have_text("5")  # the example
    assert live.ask("run.autopsy().fault.index") == "(5, 1)"
    screenshot(live.page, "inside_autopsy")


def test_the_theme_is_followed_and_a_narrow_page_holds_all(live, screenshot):
    page = live.page
    jupyterlab.command(page, "apputils:change-theme", theme="JupyterLab Dark")
    live.wait("root.dataset.theme === 'dark'")
    screenshot(page, "inside_dark")
    page.set_viewport_size({"width": 620, "height": 1400})
    live.wait("root.getBoundingClientRect().width < 500")
    assert page.locator(ROOT).evaluate("(root) => root.scrollWidth <= root.clientWidth + 1")
    heat(live).scroll_into_view_if_needed()
    screenshot(page, "inside_narrow")
    assert live.errors == []
