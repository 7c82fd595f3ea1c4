"""Deep supervision: losses at intermediates beside the loss at the end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from toolshed import paths
from toolshed.errors import LossError, ToolshedError
from toolshed.gradients.strategy import GradientStrategy, LossOfParams, backprop


@dataclasses.dataclass(frozen=True)
class DeepSupervision:
    """The exact gradient of the loss and weighted auxiliary losses together.

    The loss function returns auxiliary losses in its aux, each a scalar under a name of its own, and
    this strategy adds them to the loss that it returned: total = loss + Σ weight · auxiliary. The total
    is what is differentiated, reported and given to the optimiser; the parts stay in aux.
    ``Trainer.evaluate`` uses no gradient strategy, so it reports the loss without the auxiliary ones.

    Weights are numbers. One that should change while training belongs into the loss function, which can
    keep count in its state.

    Attributes:
      weights: numbers by path in aux; in a path ``*`` stands for any part of a segment, ``**`` for any
        number of segments, and the weight is for each loss that matches.
      strategy: how the gradients of the total are found.

    Raises:
      ContextKeyError: while tracing: a path is not in aux; the nearest ones are named.
      LossError: while tracing: a path leads to something else than a real scalar, or two paths to one.

    Example:
      >>> import jax, jax.numpy as jnp, toolshed
      >>> def loss_fn(params, carry, batch, rng):
      ...     early, late = params["w"] ** 2, (params["w"] - 1.0) ** 2
      ...     return late, (carry, {"losses": {"early": early}})
      >>> strategy = toolshed.gradients.DeepSupervision({"losses/*": 0.5})
      >>> loss, (carry, aux), grads = strategy(loss_fn, {"w": jnp.array(3.0)}, (), {}, jax.random.key(0))
      >>> float(loss), float(grads["w"])  # 4 + 0.5 · 9, and 2 · 2 + 0.5 · 6
      (8.5, 7.0)

    References:
      Lee et al., Deeply-Supervised Nets, arXiv:1409.5185.
    """

    weights: Mapping[str, float]
    strategy: GradientStrategy = backprop

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise ToolshedError(
                f"DeepSupervision got {paths.describe(self.weights)}; expected weights by path in aux, such"
                " as {'losses/*': 0.3}."
            )
        for path, weight in self.weights.items():
            if not isinstance(weight, (int, float)) or not math.isfinite(weight):
                raise ToolshedError(
                    f"DeepSupervision got {paths.describe(weight)} as the weight of {path!r}; expected a"
                    " finite number."
                )
        object.__setattr__(self, "weights", dict(self.weights))  # the caller's may change

    def __hash__(self) -> int:
        return hash((frozenset(self.weights.items()), self.strategy))

    def __call__(
        self, loss_fn: LossOfParams, params: Any, carry: Any, batch: Any, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Any], Any]:
        """The total loss, what was carried and aux, and the total's gradients."""

        def total(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
            loss, (carry, aux) = loss_fn(params, carry, batch, rng)
            return loss + self._auxiliary(aux), (carry, aux)

        return self.strategy(total, params, carry, batch, rng)

    def _auxiliary(self, aux: Any) -> Any:
        """The weighted sum of the auxiliary losses in aux."""
        leaves, taken = paths.flatten(aux), dict[str, str]()
        total: Any = 0.0
        for pattern, weight in self.weights.items():
            found = [pattern] if pattern in leaves else paths.match(pattern, leaves)
            if not found:
                raise paths.missing(pattern, leaves, "the loss function's aux")
            for path in found:
                if path in taken:
                    raise LossError(
                        f"aux/{path} has two weights in DeepSupervision, by {taken[path]!r} and by"
                        f" {pattern!r}. Give one."
                    )
                taken[path] = pattern
                total = total + weight * _scalar(path, leaves[path])
        return total


def _scalar(path: str, value: Any) -> Any:
    if hasattr(value, "named_shape") and not value.named_shape:
        value = value.unwrap()
    real = isinstance(value, float) or (
        paths.is_arraylike(value) and jnp.issubdtype(value.dtype, jnp.floating) and value.shape == ()
    )
    if not real:
        raise LossError(
            f"aux/{path} is {paths.describe(value)}; as an auxiliary loss it must be a real floating-point"
            " scalar. Reduce it, to its mean say, or choose another path."
        )
    return value
