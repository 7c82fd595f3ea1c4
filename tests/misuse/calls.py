"""What the wrong calls are made with, and how to change one thing about it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training.by_hand import new_state, values_of
from toolshed import Trainer, TrainState, build_train_step
from toolshed.data import from_arrays

ADAM = optax.adam(1e-2)
KEY = jax.random.key(1)
CASE = zoo.mlp()
X, Y, BATCH = CASE.batch["x"], CASE.batch["y"], CASE.batch
INPUT = pz.nx.wrap(X).tag("batch", "features")
BIAS = "mlp/Affine_0/AddBias.bias"


@functools.cache
def good_step() -> toolshed.TrainStep:
    return build_train_step(zoo.regression_loss, fields=())


@functools.cache
def state() -> TrainState:
    """One state for the whole table, two steps old: each wrong call is made with it."""
    made = new_state(zoo.mlp(), ADAM)
    for _ in range(2):
        made, _ = good_step()(made, BATCH)
    return made


@functools.cache
def expected() -> dict[str, np.ndarray]:
    return values_of(good_step()(state(), BATCH)[0])


@functools.cache
def trainer() -> Trainer:
    return Trainer(zoo.mlp().model, ADAM, zoo.regression_loss)


@functools.cache
def donating_step() -> toolshed.TrainStep:
    return build_train_step(zoo.regression_loss, fields=(), donate=True)


def donated() -> TrainState:
    old = jax.tree.map(jnp.copy, state())
    donating_step()(old, BATCH)
    return old


def returning(change: Callable[..., Any]) -> Callable[..., Any]:
    """The good loss function with its result changed."""

    def my_loss(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
        loss, _, aux = zoo.regression_loss(model=model, state=None, rng=rng, x=x, y=y)
        return change(loss, state, aux)

    return my_loss


def step_with(change: Callable[..., Any], **parts: Any) -> Any:
    return build_train_step(returning(change))(state().replace(**parts), BATCH)


def without_y(*, model: Any, state: Any, rng: Any, x: Any) -> Any:
    return zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=x[:, :1])


def initial(model: Any = None, optimizer: Any = ADAM, key: Any = KEY, **parts: Any) -> TrainState:
    return TrainState.initial_state(zoo.mlp().model if model is None else model, optimizer, key, **parts)


def scale_by(value: Any, label: Any = "factor") -> zoo.Scale:
    return zoo.Scale(pz.Parameter(value=value, label=label))


def mlp(**options: Any) -> Any:
    return MLP.from_config(**{"init_base_rng": jax.random.key(0), "feature_sizes": [4, 8, 1], **options})


def grads(**changes: Any) -> dict[str, Any]:
    """Right gradients but for the changes; None leaves one out."""
    right = {path: jnp.zeros(value.shape) for path, value in state().params.items()}
    return {path: grad for path, grad in {**right, **changes}.items() if grad is not None}


def snapshot(**changes: Any) -> dict[str, Any]:
    whole = {**state().to_snapshot(), **changes}
    return {name: section for name, section in whole.items() if section is not None}


def load(snapshot: Any) -> TrainState:
    return TrainState.from_snapshot(snapshot, like=new_state(zoo.mlp(), ADAM))


def context(**options: Any) -> toolshed.Context:
    return build_train_step(zoo.regression_loss, **options)(state(), BATCH)[1]


def record(path: str) -> Any:
    step = build_train_step(zoo.regression_loss, fields=(), record=(path,))
    return step(state(), BATCH, step.tape())


def stream(n: int = 8, **options: Any) -> toolshed.data.ArrayStream:
    return from_arrays({"x": np.zeros((n, 4), np.float32)}, **{"batch_size": 4, **options})


class Misuse(NamedTuple):
    """A wrong call, and the error that it must give."""

    name: str
    call: Callable[[], Any]
    error: type[Exception]
    message: str
