"""The first notebook's training as a plain program: a penzai MLP learns handwritten digits, in sight."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed

_SHADES = " ░▒▓█"


def loss_fn(
    *, model: Any, state: Any, rng: jax.Array, image: jax.Array, label: jax.Array, mask: jax.Array
) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """Mean cross-entropy over the examples whose mask is true; ``aux["preds"]`` are the logits."""
    del rng  # this model draws nothing at random
    pixels = pz.nx.wrap(image.reshape(len(image), 64), "batch", "features")
    logits = model(pixels).unwrap("batch", "features")
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return jnp.where(mask, losses, 0).sum() / jnp.maximum(mask.sum(), 1), state, {"preds": logits}


def train_digits(steps: int) -> float:
    """Trains in sight, prints losses, speed, test accuracy and a few predictions; returns the accuracy."""
    digits = toolshed.data.digits()
    train = toolshed.data.from_arrays(digits.train, batch_size=128, last="mask")
    test = toolshed.data.from_arrays(digits.test, batch_size=128, shuffle=False, last="mask")
    model = MLP.from_config(name="mlp", init_base_rng=jax.random.key(0), feature_sizes=[64, 128, 10])
    metrics = toolshed.metrics.collection(accuracy=toolshed.metrics.Accuracy(mask="batch/mask"))
    trainer = toolshed.Trainer(model, optax.adam(2e-3), loss_fn, metrics=metrics)
    run = toolshed.Run(trainer, train, eval_data=test, seed=1, name="digits")
    print(f"{len(digits.train['label']):,} digits to learn from, {len(digits.test['label'])} to be tested on")
    print(toolshed.views.summarize_state(run.state), flush=True)
    run.train(steps, wait=True)
    if steps:
        losses, seconds = run.history.series("train/loss").values, run.progress.elapsed
        print(f"{steps:,} steps in {seconds:.1f} s: training loss {losses[0]:.3g} → {losses[-1]:.3g}")
    scores = trainer.evaluate(run.state, test)
    print(f"test loss {scores['loss']:.4f}, test accuracy {scores['accuracy']:.1%}")
    _print_predictions(trainer, run.state, digits.test)
    return scores["accuracy"]


def _print_predictions(
    trainer: toolshed.Trainer, state: Any, test: dict[str, np.ndarray], n: int = 6
) -> None:
    pixels = pz.nx.wrap(jnp.asarray(test["image"][:n]).reshape(n, 64), "batch", "features")
    predicted = np.asarray(trainer.predict(state, pixels).unwrap("batch", "features")).argmax(-1)
    shades = _SHADES if (sys.stdout.encoding or "").lower().startswith("utf") else " .:*#"
    for row in range(8):
        line = (
            "".join(shades[min(int(pixel * 5), 4)] * 2 for pixel in image[row]) for image in test["image"][:n]
        )
        print("  ".join(line))
    print("  ".join(f"{digit!s:^16}" for digit in predicted))
