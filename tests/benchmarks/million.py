"""A million steps in a real JupyterLab: what they leave in memory and in the notebook, and how fast it draws.

    python tests/benchmarks/million.py [--steps 1000000]

A small model (2-32-32-1, batches of 64) is trained in a notebook in Chromium, with its dashboard in sight.
Of ten moments on the way the memory of the kernel's process and of the page are shown. Then it is trained
for a tenth more, and the updates of the dashboard are timed in the kernel. The page is zoomed by dragging
and panned by keys for some seconds while its frames are counted, and the notebook is saved.

Needs ``pip install 'jax-toolshed[test]'``.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.browser import jupyterlab

SECONDS = 6.0  # of zooming
DASHBOARD = ".toolshed-live"
SET_UP = """
import jax, jax.numpy as jnp, optax, time, toolshed
from penzai import pz
from penzai.models.simple_mlp import MLP

def loss_fn(*, model, state, rng, x, y):
    outputs = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    return jnp.mean((outputs - y) ** 2), state, {}

x = jax.random.normal(jax.random.key(1), (64 * 100, 2))
data = toolshed.data.from_arrays({"x": x, "y": jnp.sin(x.sum(1, keepdims=True))}, batch_size=64, seed=0)
model = MLP.from_config(name="mlp", init_base_rng=jax.random.key(0), feature_sizes=[2, 32, 32, 1])
metrics = toolshed.metrics.collection(mean_loss=toolshed.metrics.Mean("loss_total"))
run = toolshed.Run(model, optax.inject_hyperparams(optax.adam)(1e-3), loss_fn, data, metrics=metrics)

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024

updates = []

def watch_updates():
    from toolshed.live.dashboard import Dashboard
    update = Dashboard._update
    def timed(dashboard, run):
        start = time.thread_time()
        later = update(dashboard, run)
        updates.append((1e3 * (time.thread_time() - start), len(dashboard.overview) / 1e3))
        return later
    Dashboard._update = timed

def update_cost():
    times, sizes = zip(*updates)
    return len(times), sorted(times)[len(times) // 2], sorted(times)[int(0.95 * len(times))], max(sizes)
"""
COUNT_FRAMES = """() => {
    window.frames = [];
    const tick = (now) => { window.frames.push(now); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
}"""


def train(page: Any, steps: int) -> None:
    """Trains, and prints what is in memory ten times on the way."""
    print("| step | kernel, MB | page, MB |\n|---:|---:|---:|")
    for part in range(11):
        goal = steps * part // 10
        page.wait_for_function(
            f"(goal) => +document.querySelector('{DASHBOARD}')?.dataset.step >= goal",
            arg=goal,
            timeout=600_000,
        )
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        print(f"| {goal:,} | {jupyterlab.ask_kernel(page, 'resident()')} | {heap:.0f} |", flush=True)
        if part == 0:
            jupyterlab.run_cell(page, 2)


def update(page: Any, steps: int) -> None:
    """Trains on in sight of the page, and prints what the updates of the dashboard took, sending included."""
    jupyterlab.ask_kernel(page, f"(run.wait(), watch_updates(), run.train({steps // 10}))")
    page.wait_for_function(
        f"(goal) => +document.querySelector('{DASHBOARD}')?.dataset.step >= goal",
        arg=steps + steps // 10,
        timeout=600_000,
    )
    count, median, slow, size = ast.literal_eval(jupyterlab.ask_kernel(page, "update_cost()"))
    print(
        f"{count} updates of the dashboard, as new values come: {median:.2f} ms of their thread's CPU time,"
        f" one in twenty more than {slow:.2f} ms; at most {size:.1f} kB."
    )


def draw(page: Any) -> None:
    """Zooms and pans for some seconds, and prints how many frames a second there were."""
    plot = page.locator('[data-panel="loss"] .u-over')
    plot.scroll_into_view_if_needed()
    page.evaluate(COUNT_FRAMES)
    until, gestures = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        box = plot.bounding_box()
        left, middle = box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2
        page.mouse.move(left, middle)
        page.mouse.down()
        page.mouse.move(left + box["width"] * 0.4, middle, steps=12)
        page.mouse.up()
        for _ in range(6):
            page.mouse.move(left + 20 * gestures % box["width"], middle)
            gestures += 1
        plot.dblclick()
    frames = page.evaluate("window.frames")
    gaps = [b - a for a, b in itertools.pairwise(frames)]
    rate = 1000 * len(gaps) / (frames[-1] - frames[0])
    slow = sorted(gaps)[int(0.95 * len(gaps))]
    print(
        f"Zooming: {rate:.0f} frames a second; a frame takes {statistics.median(gaps):.0f} ms,"
        f" one in twenty more than {slow:.0f} ms."
    )


def main() -> None:
    """Opens the notebook, trains and measures."""
    parser = argparse.ArgumentParser(description="A million steps in a real JupyterLab.")
    parser.add_argument("--steps", type=int, default=1_000_000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        cells = [SET_UP, "run", f"run.train({steps})"]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = Path(folder) / "million.ipynb"
        nbformat.write(notebook, path)
        browser = playwright.chromium.launch(
            executable_path=jupyterlab.CHROMIUM,
            args=[*jupyterlab.CHROMIUM_ARGUMENTS, "--enable-precise-memory-info"],
        )
        with jupyterlab.serve(Path(folder)) as server:
            page = browser.new_context(viewport={"width": 1200, "height": 1100}).new_page()
            page.set_default_timeout(120_000)
            jupyterlab.open_notebook(page, server, path.name)
            for index in (0, 1):
                jupyterlab.run_cell(page, index)
            train(page, steps)
            update(page, steps)
            draw(page)
            jupyterlab.command(page, "docmanager:save")
            page.wait_for_timeout(2_000)
            print(f"The saved notebook: {path.stat().st_size / 1e3:.0f} kB.")
            print(jupyterlab.ask_kernel(page, "repr(run)"))
        browser.close()


if __name__ == "__main__":
    main()
