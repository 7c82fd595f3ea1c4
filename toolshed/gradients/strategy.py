"""Gradient strategies: how the gradients of a loss are found.

A strategy is a function ``(loss_fn, params, carry, batch, rng) -> (loss, (carry, aux), grads)``, where
``loss_fn(params, carry, batch, rng) -> (loss, (carry, aux))`` is the loss of a batch as a function of
the parameters. ``carry`` is what the forward pass changes (model state, loss function's state).
A strategy returns gradients and applies nothing.

Those of this package are frozen dataclasses that can be called, so that they show their settings, and
most take another strategy to work on: ``Accumulate(4, strategy=Remat())``. One of your own is a
function of five lines.

Example:
  Gradients of length 1, whatever the loss, in a strategy of one's own:

  >>> import jax, jax.numpy as jnp, optax, toolshed
  >>> def unit_length(loss_fn, params, carry, batch, rng):
  ...     loss, kept, grads = toolshed.gradients.backprop(loss_fn, params, carry, batch, rng)
  ...     length = optax.tree.norm(grads)
  ...     return loss, kept, jax.tree.map(lambda grad: grad / length, grads)

  It goes where the others go, ``toolshed.Trainer(…, gradient_strategy=unit_length)`` or
  ``Accumulate(4, strategy=unit_length)``, and can be called by hand:

  >>> def loss_fn(params, carry, batch, rng):
  ...     return jnp.sum((params["w"] - batch["x"]) ** 2), (carry, {})
  >>> params, batch = {"w": jnp.array([4.0, 5.0])}, {"x": jnp.array([1.0, 1.0])}
  >>> loss, kept, grads = unit_length(loss_fn, params, (), batch, jax.random.key(0))
  >>> float(loss), [round(float(grad), 6) for grad in grads["w"]]  # 3² + 4²; (6, 8) by its length
  (25.0, [0.6, 0.8])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

LossOfParams = Callable[[Any, Any, Any, Any], tuple[jax.Array, tuple[Any, Any]]]
GradientStrategy = Callable[[LossOfParams, Any, Any, Any, Any], tuple[jax.Array, tuple[Any, Any], Any]]


@dataclasses.dataclass(frozen=True)
class Backprop:
    """The exact gradient by reverse-mode differentiation through the whole loss function."""

    def __call__(
        self, loss_fn: LossOfParams, params: Any, carry: Any, batch: Any, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Any], Any]:
        """Loss, what was carried and aux, and gradients."""
        (loss, kept), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, carry, batch, rng)
        return loss, kept, grads


backprop = Backprop()
"""`Backprop` as every step uses it that is given no other strategy."""
