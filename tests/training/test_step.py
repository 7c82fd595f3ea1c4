"""The compiled step does what a loop written by hand does, and says what it knew."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from penzai import pz
from penzai.toolshed.basic_training import StatefulTrainer

import toolshed
from tests import zoo
from tests.training import by_hand
from tests.training.by_hand import batches, count_compilations, differing, new_state, values_of
from toolshed import build_train_step
from toolshed.errors import BatchError, FieldNotFilled, NonFiniteError, RetraceWarning, StateError
from toolshed.training.context import FIELDS

STEPS = 50
OPTIMIZERS = {
    "adam": lambda: optax.adam(1e-2),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
    "sgd+momentum": lambda: optax.sgd(1e-2, momentum=0.9),
}
MODES: dict[str, dict[str, Any]] = {
    "looked at": {},
    "nothing asked for": {"fields": ()},
    "loss asked for": {"fields": ("loss_total",)},
    "donated": {"donate": True},
    "ten at once": {"steps_per_call": 10},
}


@functools.cache
def trained_by_hand(model: str, optimizer: str) -> by_hand.Trained:
    case = zoo.ZOO[model]()
    return by_hand.train(case, OPTIMIZERS[optimizer](), jax.random.key(1), batches(case, STEPS))


def run(step: toolshed.TrainStep, state: toolshed.TrainState, data: list[Any]) -> toolshed.TrainState:
    k = step.steps_per_call
    for at in range(0, len(data), k):
        state, _ = step(state, data[at] if k == 1 else toolshed.data.stack(data[at : at + k]))
    return state


# --- the same as by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", ["mlp", "dropout_mlp", "transformer"])
def test_fifty_steps_are_bit_for_bit_those_of_a_loop_written_by_hand(model, optimizer, mode):
    if model == "transformer" and optimizer != "adamw" and mode not in ("looked at", "ten at once"):
        mode = "nothing asked for"
    case = zoo.ZOO[model]()
    state = run(
        build_train_step(case.loss_fn, **MODES[mode]),
        new_state(case, OPTIMIZERS[optimizer]()),
        batches(case, STEPS),
    )
    assert differing(state.params, trained_by_hand(model, optimizer).params) == []
    assert int(state.step) == STEPS
