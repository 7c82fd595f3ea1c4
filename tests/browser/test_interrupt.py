"""The stop button of JupyterLab in the middle of a training: nothing is lost, and training goes on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser import jupyterlab

SET_UP = """
import itertools
import jax, jax.numpy as jnp, optax, toolshed
from penzai import pz
from penzai.models.simple_mlp import MLP

def loss_fn(*, model, state, rng, x):
    outputs = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    return jnp.mean((outputs - jax.random.normal(rng, outputs.shape)) ** 2), state, {}

model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 16, 1])
trainer = toolshed.Trainer(model, optax.adam(1e-3), loss_fn)
first = trainer.init(jax.random.key(1))
batch = {"x": jnp.ones((8, 2))}
first = trainer.fit(first, [batch], steps=3)
"""
CELLS = [
    SET_UP,
    "trainer.fit(first, itertools.repeat(batch), steps=100_000_000)",
    """
state = trainer.last_state
steps = int(state.step)
again = trainer.fit(first, itertools.repeat(batch), steps=steps - 3)
same = all(bool((again.params[path] == state.params[path]).all()) for path in state.params)
print(f"more than 3 steps: {steps > 3}, as an uninterrupted run: {same}")
print("goes on:", int(trainer.fit(state, [batch], steps=5).step) == steps + 5)
""",
]


@pytest.mark.parametrize("lab", ["light"], indirect=True)
def test_stopping_a_cell_keeps_the_last_completed_step(lab: Any, page: Any):
    _, server = lab
    jupyterlab.write_notebook(server.root / "interrupt.ipynb", CELLS)
    jupyterlab.open_notebook(page, server, "interrupt.ipynb")
    jupyterlab.run_cell(page, 0)
    jupyterlab.start_cell(page, 1)
    jupyterlab.wait_until_busy(page)
    page.wait_for_timeout(1500)  # in the middle of it
    jupyterlab.command(page, "notebook:interrupt-kernel")
    jupyterlab.wait_until_idle(page)
    jupyterlab.run_cell(page, 2)

    outputs = jupyterlab.outputs(page)
    errors = [output for output in outputs if output["output_type"] == "error"]
    assert [error["ename"] for error in errors] == ["KeyboardInterrupt"]
    assert "trainer.last_state" in "".join(errors[0]["traceback"])
    text = "".join("".join(output.get("text", "")) for output in outputs)
    assert "more than 3 steps: True, as an uninterrupted run: True" in text
    assert "goes on: True" in text
