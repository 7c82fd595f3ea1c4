"""The examples of the guide to the live run do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed

GUIDE = Path(__file__).parents[2] / "docs" / "pages" / "guide" / "run.md"


def loss_fn(*, model: Any, state: Any, rng: Any, x: Any, label: Any) -> Any:
    logits = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return losses.mean(), state, {"preds": logits}


def parts() -> dict[str, Any]:
    """What the guide takes as given: a model, data and so on; points are told apart by their sign."""
    x = jnp.linspace(-1, 1, 64).reshape(32, 2)
    batch = {"x": x, "label": (x[:, 0] > 0).astype(jnp.int32)}
    model = MLP.from_config(name="mlp", init_base_rng=jax.random.key(0), feature_sizes=[2, 4, 2])
    metrics = toolshed.metrics.collection(accuracy=toolshed.metrics.Accuracy())
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-2)
    given = {"model": model, "optimizer": optimizer, "loss_fn": loss_fn, "metrics": metrics}
    return {**given, "data": [batch], "test_data": [batch], "toolshed": toolshed, "optax": optax, "pz": pz}


def test_the_guide_s_examples_run_from_top_to_bottom(capsys: Any):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names, steps = parts(), []
    for block in blocks:
        exec(block, names)
        steps.append(int(names["run"].state.step))
    run = names["run"]
    assert steps[:2] == [10_000, 15_100]  # a window until the accuracy is there, and 5,000 more
    assert int(names["context"].step) == 372
    assert [branch.name for branch in run.history.branches] == ["main", "slow", "main-2"]
    assert set(run.state.params) == {"mlp/Affine_1/Linear.weights", "mlp/Affine_1/AddBias.bias"}
    assert names["accuracy"] > 0.9
    assert len(names["losses"]) == 700
    assert "values kept" in capsys.readouterr().out
