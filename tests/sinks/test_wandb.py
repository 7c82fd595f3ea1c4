"""Without Weights & Biases a run goes on. What it has with it is tested in `with_wandb`."""

from __future__ import annotations

import sys

import toolshed
from tests.run.kept import data
from tests.sinks.small import TRAINER, failure, finish
from toolshed.sinks import WandB


def test_without_wandb_the_run_goes_on_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = toolshed.Run(TRAINER, data(), sinks=[WandB("p", tmp_path)])
    run.train(2, wait=True)
    finish(run)
    assert "Weights & Biases is not installed: pip install 'jax-toolshed[wandb]'." in failure(run)
