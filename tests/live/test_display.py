"""A run as the value of a cell: in a terminal, in a kernel that nobody watches, and in a watched one."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest

from tests.executing import execute
from tests.live.scripted import training
from toolshed.live import show

WIDGET = "application/vnd.jupyter.widget-view+json"

SET_UP = """
import os
import jax, jax.numpy as jnp, optax, toolshed
from penzai import pz
from penzai.models.simple_mlp import MLP

for sign in ("JPY_SESSION_NAME", "VSCODE_PID", "VSCODE_CWD", "COLAB_RELEASE_TAG"):
    os.environ.pop(sign, None)

def loss_fn(*, model, state, rng, x):
    outputs = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    return jnp.mean(outputs**2), state, {}

model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 4, 1])
trainer = toolshed.Trainer(model, optax.sgd(1e-2), loss_fn)
run = toolshed.Run(trainer, [{"x": jnp.ones((4, 2))}], name="<small>")
"""
CELLS = [
    SET_UP,
    "run",
    "run.train(steps=20)",
    "os.environ['JPY_SESSION_NAME'] = 'a.ipynb'\n"
    "watched = toolshed.Run(trainer, [{'x': jnp.ones((4, 2))}], name='watched')\nwatched",
    "watched",
    "from toolshed.live import display\nprint(len(display._SHOWN[watched].twin._places))",
]


def test_outside_of_notebooks_it_is_a_line_of_text(capsys):
    run: Any = training()
    show(run)
    (printed,) = capsys.readouterr().out.splitlines()
    assert printed.startswith("digits: step 1,234 of 5,000")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_in_a_kernel_it_is_the_picture_and_with_somebody_who_looks_the_dashboard_too(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    execute(notebook, tmp_path)
    outputs = [cell["outputs"] for cell in notebook.cells]
    kinds = [[sorted(output.get("data", {})) for output in cell] for cell in outputs]
    picture, widget = sorted(["image/png", "text/html", "text/plain"]), sorted([WIDGET, "text/plain"])

    assert kinds[1] == [picture]
    assert outputs[1][0]["data"]["text/plain"] == "<small>: ready at step 0 · epoch 0.00 · 0:00 · on main"
    # In an earlier cell a picture cannot be changed here: the cell that waited shows it once more.
    assert kinds[2] == [picture]
    assert "finished at step 20 of 20" in outputs[2][0]["data"]["text/plain"]
    assert "&lt;small&gt;: finished" in outputs[2][0]["data"]["text/html"]

    assert kinds[3] == kinds[4] == [widget, picture]
    assert outputs[3][0]["data"][WIDGET]["model_id"] == outputs[4][0]["data"][WIDGET]["model_id"]
    assert outputs[5][0]["text"] == "2\n", "both pictures are kept up to date"
    assert [output for cell in outputs for output in cell if output["output_type"] == "stream"] == outputs[5]
