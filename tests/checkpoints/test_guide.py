"""The guide's examples run."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as orbax

import toolshed
from tests import zoo
from toolshed.data import from_arrays
from toolshed.errors import EnvironmentWarning

GUIDE = Path(__file__).parents[2] / "docs" / "pages" / "guide" / "checkpoints.md"


def test_the_guide_s_examples_run_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    train = from_arrays({"x": x, "y": x.sum(1, keepdims=True)}, batch_size=8, seed=0)
    trainer = toolshed.Trainer(zoo.mlp().model, optax.sgd(0.01), zoo.regression_loss)
    state = trainer.init(jax.random.key(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        orbax.save_checkpointables(
            tmp_path / "old" / "step_300", {"params": {k: v + 1 for k, v in state.params.items()}}
        )
        names: dict[str, Any] = {
            "toolshed": toolshed, "jax": jax, "jnp": jnp, "trainer": trainer, "train": train, "state": state
        }  # fmt: skip
        blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        assert len(blocks) == 5
        for block in blocks:
            if "make_mesh" in block:
                with pytest.warns(EnvironmentWarning, match="no mesh, now the mesh data=1"):
                    exec(block, names)
            else:
                exec(block, names)
    repository = names["repository"]
    repository.close()
    assert repository.steps() == [0, 30, 40, 300]  # the last three, and the one with a tag
    assert repository.manifest("from orbax").step == 300
    weights = "mlp/Affine_0/Linear.weights"
    loaded = repository.restore(300, like=state).state
    np.testing.assert_array_equal(loaded.params[weights], state.params[weights] + 1)
    assert repository.manifest(40).metrics.keys() == {"train/loss"}
