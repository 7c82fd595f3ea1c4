"""Cases and runs that the tests of the step share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from penzai import pz

import toolshed
from tests import zoo
from tests.training.by_hand import new_state

MODES: dict[str, dict[str, Any]] = {
    "looked at": {},
    "nothing asked for": {"fields": ()},
    "loss asked for": {"fields": ("loss_total",)},
    "donated": {"donate": True},
    "ten at once": {"steps_per_call": 10},
}


def parameters_of(model: Any) -> list[Any]:
    def is_parameter(node: Any) -> bool:
        return isinstance(node, (pz.Parameter, pz.ParameterValue))

    return list(filter(is_parameter, jax.tree.leaves(model, is_leaf=is_parameter)))


def run(step: toolshed.TrainStep, state: toolshed.TrainState, data: list[Any]) -> toolshed.TrainState:
    k = step.steps_per_call
    for at in range(0, len(data), k):
        state, _ = step(state, data[at] if k == 1 else toolshed.data.stack(data[at : at + k]))
    return state


def classification_loss(*, model: Any, state: Any, rng: Any, x: Any, label: Any, mask: Any) -> Any:
    logits = model(pz.nx.wrap(x).tag("batch", "features")).untag("batch", "features").unwrap()
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return jnp.where(mask, losses, 0).sum() / mask.sum(), state, {"preds": logits, "losses": losses}


def classification_state(**parts: Any) -> toolshed.TrainState:
    model = zoo.MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 3])
    return new_state(zoo.Case(model, classification_loss, {}), **parts)


def classification_batches(n: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "x": rng.normal(size=(6, 4)).astype(np.float32),
            "label": rng.integers(0, 3, 6).astype(np.int32),
            "mask": np.arange(6) < count,
        }
        for count in rng.integers(1, 7, n)
    ]
