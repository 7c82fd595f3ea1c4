"""A run in a real JupyterLab: watched, steered and rewound, in several tabs, and after its kernel is gone.

The tests share one server, one kernel and one run, and come in the order of a day's work.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import ipykernel
import nbformat
import pytest
from playwright.sync_api import expect

from tests.browser import jupyterlab
from tests.browser.live import ROOT, Live, opened

SET_UP = """
import jax, jax.numpy as jnp, optax, toolshed
from penzai import pz
from penzai.models.simple_mlp import MLP

def loss_fn(*, model, state, rng, x):
    outputs = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    return jnp.mean((outputs - 0.1 * jax.random.normal(rng, outputs.shape)) ** 2), state, {}

model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 16, 1])
data = toolshed.data.from_arrays({"x": jnp.linspace(-1, 1, 256).reshape(128, 2)}, batch_size=32, seed=0)
optimizer = optax.inject_hyperparams(optax.adam)(1e-3)
run = toolshed.Run(model, optimizer, loss_fn, data, eval_data=data, eval_every=500, name="small")
"""
CELLS = [
    SET_UP,
    "run",
    "run.train()",
    "leaves = run.state.params.values()\nprint(all(bool(jnp.isfinite(x).all()) for x in leaves), run.status)",
    "import time\nwhile run.status != 'paused':\n    time.sleep(0.05)\nprint('the button came through')",
]
SHOW, TRAIN, LOOK, BUSY = 1, 2, 3, 4


@pytest.fixture(scope="module")
def live(browser: Any, tmp_path_factory: Any) -> Iterator[Live]:
    with opened(browser, tmp_path_factory.mktemp("live") / "live.ipynb", CELLS, height=1100) as live:
        yield live


def test_a_run_as_the_value_of_a_cell_shows_its_dashboard_and_nothing_else(live, screenshot):
    jupyterlab.run_cell(live.page, 0)
    jupyterlab.run_cell(live.page, SHOW)
    live.wait_for_status("ready")
    expect(live.page.locator(ROOT)).to_contain_text("No values yet.")
    expect(live.page.locator(".toolshed-twin")).to_be_hidden()
    screenshot(live.page, "live_ready")


def test_points_arrive_and_the_kernel_is_free_meanwhile(live, screenshot):
    jupyterlab.run_cell(live.page, TRAIN)
    live.wait("+root.dataset.step > 600")
    jupyterlab.run_cell(live.page, LOOK)
    assert jupyterlab.cell_text(live.page, LOOK) in ("True training", "True evaluating")
    step = int(live.attribute("step"))
    live.wait("+root.dataset.step > arg", step)
    expect(live.page.locator('[data-panel="loss"] .tl-entry')).to_have_count(2)  # train and eval
    screenshot(live.page, "live_training")


def test_buttons_pause_step_once_and_go_back(live, screenshot):
    live.press("primary")
    live.wait_for_status("paused")
    step = int(live.attribute("step"))
    assert live.ask("int(run.state.step)") == str(step)
    live.press("step")
    live.wait("+root.dataset.step === arg", step + 1)
    assert live.ask("int(run.state.step)") == str(step + 1)
    live.press("back")
    live.wait("+root.dataset.step === arg", step)
    assert live.ask("int(run.state.step)") == str(step)
    live.press("back")
    live.wait("+root.dataset.step === arg", step - 1)
    live.press("step")  # from an earlier step on it is a branch
    live.wait("root.querySelector('.tl-branch').textContent !== 'on main'")
    assert live.ask("run.history.branch != 'main'") == "True"
    screenshot(live.page, "live_branch")


def test_the_learning_rate_is_edited_in_its_field(live):
    field = live.page.get_by_label("learning rate", exact=True)
    expect(field).to_have_value("0.001")
    field.fill("3e-4")
    field.press("Enter")
    expect(field).to_have_value("0.0003")
    assert live.ask("round(run.hyperparameters['learning_rate'], 7)") == "0.0003"
    live.page.locator("summary", has_text="Events").click()
    expect(live.page.locator(".tl-events li").first).to_contain_text("learning_rate")
    live.page.locator("summary", has_text="Events").click()


def test_an_action_that_cannot_be_done_is_said(live):
    live.ask("run.request('back', n=10_000_000)")
    expect(live.page.locator(f"{ROOT} [role=status]")).not_to_be_empty()
    live.wait_for_status("paused")


def test_dragging_zooms_with_values_from_the_kernel(live):
    box = live.page.locator('[data-panel="loss"] .u-over').bounding_box()
    live.page.mouse.move(box["x"] + 40, box["y"] + 50)
    live.page.mouse.down()
    live.page.mouse.move(box["x"] + 120, box["y"] + 50, steps=5)
    live.page.mouse.up()
    live.wait("root.dataset.fine === 'yes'")
    start, stop = map(int, live.attribute("zoom").split())
    live.page.mouse.move(box["x"] + 60, box["y"] + 50)
    note = live.page.locator('[data-panel="loss"] .tl-note')
    expect(note).to_contain_text("step")
    step = int(note.inner_text().removeprefix("step ").replace(",", ""))
    assert start <= step <= stop
    shown = live.page.locator('[data-panel="loss"] .tl-value').first.inner_text()
    if stop - start < 300:  # a value of its own for each step, shown as it is
        value = live.ask(f"float(run.history.window('train/loss', {step}, {step}, 2).low[0])")
        assert float(shown.replace("−", "-")) == pytest.approx(float(value), rel=2e-3)
    live.page.locator('[data-panel="loss"] .u-over').dblclick()
    live.wait("root.dataset.zoom === ''")


@pytest.mark.skipif(
    int(ipykernel.__version__.split(".")[0]) < 7, reason="its kernels take one message at a time"
)
def test_a_button_works_while_a_cell_runs(live):
    live.press("primary")
    live.wait_for_status("training")
    jupyterlab.start_cell(live.page, BUSY)
    jupyterlab.wait_until_busy(live.page)
    live.press("primary")
    live.wait_for_status("paused")
    jupyterlab.wait_until_idle(live.page)
    assert jupyterlab.cell_text(live.page, BUSY) == "the button came through"


def test_the_theme_is_followed_and_a_narrow_page_holds_all(live, screenshot):
    page = live.page
    jupyterlab.command(page, "apputils:change-theme", theme="JupyterLab Dark")
    live.wait("root.dataset.theme === 'dark'")
    screenshot(page, "live_dark")
    page.set_viewport_size({"width": 620, "height": 1100})
    live.wait("root.getBoundingClientRect().width < 500")
    assert page.locator(ROOT).evaluate("(root) => root.scrollWidth <= root.clientWidth + 1")
    screenshot(page, "live_dark_narrow")
    page.set_viewport_size({"width": 1200, "height": 1100})
    jupyterlab.command(page, "apputils:change-theme", theme="JupyterLab Light")
    live.wait("root.dataset.theme === 'light'")


def test_after_a_reload_in_the_middle_the_history_is_there_and_streaming_goes_on(live):
    live.press("primary")
    live.wait_for_status("training")
    jupyterlab.command(live.page, "docmanager:save")
    jupyterlab.open_notebook(live.page, live.server, "live.ipynb")
    live.wait_for_status("training")
    step = int(live.attribute("step"))
    assert step > 600
    live.wait("+root.dataset.step > arg", step)
    first = live.page.locator('[data-panel="loss"] .tl-plot')
    first.focus()
    first.press("Home")
    expect(live.page.locator('[data-panel="loss"] .tl-note')).to_have_text("step 1")
    expect(live.page.locator(".toolshed-twin")).to_be_hidden()
    live.page.evaluate("() => document.activeElement.blur()")


@contextlib.contextmanager
def another(live: Live, path: str) -> Iterator[Any]:
    page = live.context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{live.server.url}/{path}?token={live.server.token}")
    page.wait_for_selector(ROOT, timeout=120_000)  # a whole JupyterLab starts, beside one that draws
    yield page
    page.close()


def test_three_front_ends_are_in_step(live, screenshot):
    """Two tabs of JupyterLab, and Notebook 7."""
    with (
        another(live, "lab/workspaces/second/tree/live.ipynb") as lab,
        another(live, "notebooks/live.ipynb") as book,
    ):
        for page in (lab, book):
            expect(page.locator(ROOT)).to_have_attribute("data-status", "training")
        book.locator(f'{ROOT} [data-button="primary"]').click()
        for page in (book, lab, live.page):
            expect(page.locator(ROOT)).to_have_attribute("data-status", "paused")
        steps = {page.locator(ROOT).get_attribute("data-step") for page in (book, lab, live.page)}
        assert len(steps) == 1
        expect(book.locator(".toolshed-twin")).to_be_hidden()
        screenshot(book, "live_notebook")


def test_the_saved_notebook_holds_the_picture_of_the_newest_state(live):
    jupyterlab.open_notebook(live.page, live.server, "live.ipynb")
    jupyterlab.run_cell(live.page, SHOW)  # after a reload JupyterLab updates a new output alone
    live.wait_for_status("paused")
    live.press("step")
    step = int(live.ask("int(run.state.step)"))
    live.page.wait_for_function(
        """(step) => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
            .flatMap(cell => cell.outputs ?? [])
            .some(output => String(output.data?.["text/plain"]).includes(`at step ${step}`)
                && output.data["image/png"])""",
        arg=f"{step:,}",
    )
    jupyterlab.command(live.page, "docmanager:save")
    saved = json.loads((live.server.root / "live.ipynb").read_text())
    widget, picture = saved["cells"][SHOW]["outputs"]
    assert "application/vnd.jupyter.widget-view+json" in widget["data"]
    assert set(picture["data"]) == {"text/plain", "text/html", "image/png"}
    assert len(json.dumps(picture)) < 200_000


def test_when_the_kernel_restarts_the_open_view_says_that_it_is_gone(live, screenshot):
    live.page.evaluate(
        "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }"
    )
    expect(live.page.locator(f"{ROOT} [role=alert]")).to_contain_text("The kernel of this run is gone")
    expect(live.page.locator(f'{ROOT} [data-button="primary"]')).to_have_attribute("aria-disabled", "true")
    screenshot(live.page, "live_kernel_gone")


@pytest.mark.parametrize("name", ["live.ipynb", "stranger.ipynb"])
def test_reopened_without_its_kernel_the_notebook_shows_the_picture(live, screenshot, name):
    """One that came from elsewhere is not trusted: styles and scripts are taken out of what it shows."""
    mine = name == "live.ipynb"
    if not mine:
        notebook = nbformat.read(live.server.root / "live.ipynb", as_version=4)
        notebook.cells[LOOK].outputs[0].text = "changed elsewhere"
        nbformat.write(notebook, live.server.root / name)
    jupyterlab.open_notebook(live.page, live.server, name)
    cells = "() => window.jupyterapp.shell.currentWidget.content.widgets.every(cell => cell.model.trusted)"
    assert live.page.evaluate(cells) == mine
    picture = live.page.locator("img[alt^='small: paused at step']")
    expect(picture).to_be_visible()
    assert picture.evaluate("(image) => image.complete && image.naturalWidth") > 500
    expect(live.page.get_by_text("Error displaying widget").filter(visible=True)).to_have_count(0)
    screenshot(live.page, f"live_reopened_{name.removesuffix('.ipynb')}")
    assert live.errors == []
