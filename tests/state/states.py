"""Small states, and how to compare them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import toolshed
from toolshed import TrainState

FIELDS = [
    "step",
    "root_rng",
    "params",
    "model_without_params",
    "model_state",
    "opt_state",
    "loss_fn_state",
    "metrics",
    "optimizer_def",
]


def small_state(**fields: Any) -> TrainState:
    """A state put together from parts, without a model."""
    parts = {
        "params": {"w": jnp.asarray([1.0, 2.0, 4.0]), "b": jnp.asarray(8.0)},
        "model_without_params": (),
        "optimizer_def": optax.sgd(0.5),
        "root_rng": jax.random.key(1),
    }
    return TrainState.create(**(parts | fields))


def same_bits(one: Any, two: Any) -> bool:
    bits = [
        [
            np.asarray(jax.random.key_data(leaf) if toolshed.keys.is_key(leaf) else leaf).tobytes()
            for leaf in jax.tree.leaves(tree)
        ]
        for tree in (one, two)
    ]
    return bits[0] == bits[1]


def key_bytes(key: jax.Array) -> bytes:
    return np.asarray(jax.random.key_data(key)).tobytes()
