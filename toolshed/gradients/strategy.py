"""Gradient strategies: how the gradients of a loss are found.

A strategy is a function ``(loss_fn, params, carry, batch, rng) -> (loss, (carry, aux), grads)``, where
``loss_fn(params, carry, batch, rng) -> (loss, (carry, aux))`` is the loss of a batch as a function of
the parameters. ``carry`` is what the forward pass changes (model state, loss function's state).
A strategy returns gradients and applies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

LossOfParams = Callable[[Any, Any, Any, Any], tuple[jax.Array, tuple[Any, Any]]]
GradientStrategy = Callable[[LossOfParams, Any, Any, Any, Any], tuple[jax.Array, tuple[Any, Any], Any]]


def backprop(
    loss_fn: LossOfParams, params: Any, carry: Any, batch: Any, rng: jax.Array
) -> tuple[jax.Array, tuple[Any, Any], Any]:
    """The exact gradient by reverse-mode differentiation through the whole loss function."""
    (loss, kept), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, carry, batch, rng)
    return loss, kept, grads
