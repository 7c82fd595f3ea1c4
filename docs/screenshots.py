"""Makes the documentation's screenshots, in a real JupyterLab in a real Chromium.

    python docs/screenshots.py [light] [dark]

Needs ``pip install 'jax-toolshed[test]'``. A notebook is run that trains the digits, and what its cells
show is written to ``docs/pages/images``, light and dark.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser import jupyterlab  # noqa: E402  (found through the line above)

IMAGES = ROOT / "docs" / "pages" / "images"
COLOURS = 128  # of a picture: few enough for a small file, and no eye sees it
DASHBOARD = ".toolshed-live"

SET_UP = """
import jax, jax.numpy as jnp, numpy as np, optax, toolshed
from penzai import pz
from penzai.models.simple_mlp import DropoutMLP

digits = toolshed.data.digits()
data = toolshed.data.from_arrays(digits.train, batch_size=64, last="mask")
test = toolshed.data.from_arrays(digits.test, batch_size=128, shuffle=False, last="mask")

def build(key):
    sizes = [64, 128, 64, 10]
    return DropoutMLP.from_config(name="mlp", init_base_rng=key, feature_sizes=sizes, drop_rate=0.3)

def loss_fn(*, model, state, rng, image, label, mask):
    pixels = pz.nx.wrap(image.reshape(-1, 64), "batch", "features")
    logits = model(pixels, random_stream=pz.RandomStream.from_base_key(rng)).unwrap("batch", "features")
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return jnp.where(mask, losses, 0).sum() / mask.sum(), state, {"preds": logits}

@optax.inject_hyperparams
def optimizer(learning_rate, clip):
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(learning_rate))

def new_run(name):
    accuracy = toolshed.metrics.Accuracy(mask="batch/mask")
    made_with = dict(eval_data=test, metrics=toolshed.metrics.collection(accuracy=accuracy), name=name)
    return toolshed.Run(build, optimizer(1e-3, 1.0), loss_fn, data, **made_with)

run, travels = new_run("digits"), new_run("digits, a second time")
run.train(steps=3, wait=True)
"""
TRAVELS = """
travels.train(steps=400, wait=True)
travels.edit(learning_rate=0.05)
travels.train(steps=300, wait=True)
travels.goto(390)
travels.edit(learning_rate=5e-4)
travels.train(steps=410, wait=True)
"""
TRAIN_AND_EDIT = ["run.train(200_000)", "run", "run.edit(learning_rate=3e-4)", "run.pause()"]
CELLS = [SET_UP, *TRAIN_AND_EDIT, TRAVELS, "travels"]
TRAIN, SHOW, EDIT, PAUSE, TRAVEL, SHOW_TRAVELS = range(1, 7)


def make(browser: Browser, theme: str) -> None:
    """All pictures in one theme."""
    with tempfile.TemporaryDirectory() as folder:
        cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, Path(folder) / "digits.ipynb")
        with jupyterlab.serve(Path(folder), theme=f"JupyterLab {theme.title()}") as server:
            size: Any = {"width": 1100, "height": 1300}
            context = browser.new_context(viewport=size, device_scale_factor=1.5)
            page = context.new_page()
            page.set_default_timeout(120_000)
            jupyterlab.open_notebook(page, server, "digits.ipynb")
            jupyterlab.command(page, "application:toggle-left-area")
            jupyterlab.run_cell(page, 0)
            picture_of_a_training(page, f"dashboard-{theme}")
            picture_of_branches(page, f"branches-{theme}")
            context.close()


def picture_of_a_training(page: Any, name: str) -> None:
    """A dashboard in the middle of a training, with the cells around it."""
    jupyterlab.run_cell(page, TRAIN)
    jupyterlab.run_cell(page, SHOW)
    set_up(page, page.locator(DASHBOARD))
    wait_for_step(page, 2_000)
    jupyterlab.run_cell(page, EDIT)
    wait_for_step(page, 3_500)
    take(page, [SHOW - 1, SHOW], name)
    jupyterlab.run_cell(page, PAUSE)


def picture_of_branches(page: Any, name: str) -> None:
    """A dashboard with an edit that went wrong, and the branch that was begun before it."""
    jupyterlab.run_cell(page, TRAVEL)
    jupyterlab.run_cell(page, SHOW_TRAVELS)
    set_up(page, cell_at(page, SHOW_TRAVELS).locator(DASHBOARD))
    take(page, [TRAVEL, SHOW_TRAVELS], name)


def set_up(page: Any, dashboard: Any) -> None:
    """Smoothing, and a logarithmic loss."""
    dashboard.locator('input[type="range"]').fill("0.9")
    dashboard.locator('[data-panel="loss"] .tl-switch').click()
    page.mouse.move(5, 5)


def cell_at(page: Any, index: int) -> Any:
    """A cell by its number in the notebook."""
    return page.locator(f'.jp-Cell[data-windowed-list-index="{index}"]')


def wait_for_step(page: Any, step: int) -> None:
    """Until the first dashboard has come so far."""
    page.wait_for_function(f"(step) => +document.querySelector('{DASHBOARD}')?.dataset.step > step", arg=step)


def take(page: Any, indices: Sequence[int], name: str) -> None:
    """Writes a picture of some cells that follow one another."""
    page.evaluate(
        """async (index) => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = 0;  // out of sight, as is the frame around it
            notebook.mode = 'command';
            await notebook.scrollToItem(index, 'start');
        }""",
        indices[0],
    )
    page.wait_for_timeout(1_500)  # the charts have their place, and a frame of this moment
    boxes = [cell_at(page, index).bounding_box() for index in indices]
    left = min(box["x"] for box in boxes)
    top = min(box["y"] for box in boxes)
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    kilobytes = path.stat().st_size / 1000
    print(f"{path.relative_to(ROOT)}: {picture.width} × {picture.height}, {kilobytes:.0f} kB")


def main(themes: Sequence[str]) -> None:
    """Makes all pictures in some themes."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=jupyterlab.CHROMIUM, args=jupyterlab.CHROMIUM_ARGUMENTS
        )
        for theme in themes:
            make(browser, theme)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:] or ["light", "dark"])
