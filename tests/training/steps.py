"""Cases and runs that the tests of the step share."""

from __future__ import annotations

from typing import Any

import jax
from penzai import pz

import toolshed

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
