"""The examples of the guide to what misbehaves do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed

GUIDE = Path(__file__).parents[2] / "docs" / "pages" / "guide" / "insight.md"


def loss_fn(*, model: Any, state: Any, rng: Any, x: Any, label: Any) -> Any:
    logits = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return losses.mean(), state, {}


def parts() -> dict[str, Any]:
    """What the guide takes as given: a run whose 101st batch is broken."""
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(32, 2)
    label = (x[:, 0] > 0).astype(np.int32)

    def batch(number: int) -> Any:
        return {"x": np.where(number == 100, np.float32("inf"), x), "label": label}

    model = MLP.from_config(name="mlp", init_base_rng=jax.random.key(0), feature_sizes=[2, 4, 2])
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=1e-3)
    run = toolshed.Run(model, optimizer, loss_fn, toolshed.data.from_function(batch, 1000))
    return {"run": run, "toolshed": toolshed, "jnp": jnp}


@pytest.mark.filterwarnings("ignore::toolshed.errors.RetraceWarning")
def test_the_guide_s_examples_run_from_top_to_bottom(capsys: Any):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names = parts()
    for number, block in enumerate(blocks):
        exec(block, names)
        if number == 0:
            assert names["found"].step == 101
            assert names["found"].fault.near == ("batch/x",)
            assert int(names["run"].state.step) == 100
            names["run"].goto(10)  # the batch that is broken would be the next
        if number == 2:
            assert names["found"].suggested is not None
            assert len(names["futures"].losses) == 3
    assert set(names["ratios"]) == set(names["run"].state.params)
    assert names["limit"] > 0
    assert set(names["changes"]) <= set(names["run"].state.params)
    printed = capsys.readouterr().out
    assert "The loss of step 101 is nan. The run went back to step 100." in printed
    assert "noise scale" in printed
    assert "Activations of 1 values" in printed
