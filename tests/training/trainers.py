"""Trainers and data that several tests share."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from penzai import pz

import toolshed
from tests import zoo
from toolshed import Trainer
from toolshed.data import from_arrays

EXAMPLES = 24


def arrays(n: int = EXAMPLES) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=1, keepdims=True)}


def stream(**options: Any) -> toolshed.data.ArrayStream:
    return from_arrays(arrays(), 8, seed=3, **options)


def trainer_of(model: str = "mlp", **options: Any) -> Trainer:
    case = zoo.ZOO[model]()
    return Trainer(case.model, optax.adam(1e-2), options.pop("loss_fn", case.loss_fn), **options)


@functools.cache
def shared(model: str = "mlp") -> Trainer:
    """A trainer whose compiled programs several tests use; it holds no state of training."""
    return trainer_of(model)


def start(trainer: Trainer) -> toolshed.TrainState:
    return trainer.init(jax.random.key(1))


def named(x: Any) -> pz.nx.NamedArray:
    return pz.nx.wrap(jnp.asarray(x)).tag("batch", "features")
