"""What can be said of the values at a path: mean, sum, count, deviation; and the loss."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float32

from toolshed.batches import batch_size
from toolshed.metrics import sums
from toolshed.metrics.metric import AUTO, Averaged, averaged, counted, unordered, weights_of
from toolshed.metrics.metric import array as array_at
from toolshed.metrics.moments import Moments, merge_moments, moments, no_moments


def _values(context: Any, path: str, *others: str | None) -> Any:
    """The array at a path; with neither mask nor weights the order of named axes makes no difference."""
    if any(other is not None for other in others):
        return array_at(context, path)
    return unordered(context[path], path)


@dataclasses.dataclass(frozen=True)
class Mean(Averaged):
    """The mean of all values at a path, over all steps.

    Attributes:
      values: a Context path.
      mask: a Context path of what counts, with the first axes of the values: bool, or numbers that
        count once where they are not 0. `AUTO` is ``batch/mask`` where it applies; None counts all.
      weights: a Context path of a weight for each value or for the first axes, float[...]. The mean is
        then the sum of weight times value over the sum of weights.
    """

    values: str
    mask: str | None = AUTO
    weights: str | None = None

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        values = _values(context, self.values, self.mask, self.weights)
        mask = counted(context, self.mask, self.values, values)
        return averaged(values, mask, weights_of(context, self.weights, self.values, values))


@dataclasses.dataclass(frozen=True)
class Sum(Averaged):
    """The sum of all values at a path, over all steps.

    Attributes:
      values: a Context path.
      mask: what counts; see `Mean`.
    """

    values: str
    mask: str | None = AUTO

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        values = _values(context, self.values, self.mask)
        return averaged(values, counted(context, self.mask, self.values, values))

    def compute(self, state: Float32[Array, "2 2"]) -> Float32[Array, ""]:
        total, count = sums.value(state)
        return jnp.where(count > 0, total, jnp.nan)


@dataclasses.dataclass(frozen=True)
class Count(Averaged):
    """How many values there were at a path, over all steps. NaN while there was none.

    Attributes:
      values: a Context path.
      mask: what counts; see `Mean`. To count what is true, count the mask: ``Sum("batch/mask")``.
    """

    values: str
    mask: str | None = AUTO

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        values = _values(context, self.values, self.mask)
        count = sums.count(counted(context, self.mask, self.values, values))
        return sums.pack(count, count)

    def compute(self, state: Float32[Array, "2 2"]) -> Float32[Array, ""]:
        count = sums.value(state)[1]
        return jnp.where(count > 0, count, jnp.nan)


@dataclasses.dataclass(frozen=True)
class Std:
    """The standard deviation of all values at a path, over all steps.

    Attributes:
      values: a Context path.
      mask: what counts; see `Mean`.
      ddof: what is taken from the number of values before dividing by it: 0 for the deviation of these
        values, 1 for an estimate of that of what they were drawn from. NaN where nothing is left.
    """

    values: str
    mask: str | None = AUTO
    ddof: int = 0

    def empty(self) -> Moments:
        return no_moments(1)

    def state_from(self, context: Any) -> Moments:
        values = _values(context, self.values, self.mask)
        return moments(counted(context, self.mask, self.values, values), values)

    def merge(self, a: Moments, b: Moments) -> Moments:
        return merge_moments(a, b, 1)

    def compute(self, state: Moments) -> Float32[Array, ""]:
        count, _, squares = sums.value(state)
        left = count - self.ddof
        return jnp.sqrt(jnp.where(left > 0, squares / jnp.where(left > 0, left, 1), jnp.nan))


@dataclasses.dataclass(frozen=True)
class Loss(Averaged):
    """The mean loss over examples: each batch's loss weighs as much as the batch has real examples.

    Right for a loss function that is a mean over the examples whose ``mask`` is true. The loss of a
    batch of padding alone stays out.

    Attributes:
      values: a Context path of a scalar.
    """

    values: str = "loss_total"

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        loss = array_at(context, self.values).astype(jnp.float32).reshape(())
        size = batch_size(context["batch"])
        weight = unordered(size, "batch/mask").astype(jnp.int32)
        product = jnp.where(weight > 0, loss * weight, 0)
        return sums.pack(sums.exact(product), sums.from_integers(weight))
