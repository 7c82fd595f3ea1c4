"""Errors of predicted numbers, and how much of the targets' variance is explained.

Predictions and targets have the same shape. Where an example has several numbers, each counts as one
value; for the R2 of each output alone, give each a path of its own.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from toolshed.errors import ToolshedError
from toolshed.metrics import sums
from toolshed.metrics.metric import AUTO, Averaged, array, averaged, check_same_shape, counted, weights_of
from toolshed.metrics.moments import Moments, merge_moments, moments, no_moments


def _pair(context: Any, metric: Any) -> tuple[Any, Any, Any]:
    """Predictions and targets as float32, and which of them count."""
    predictions, targets = array(context, metric.predictions), array(context, metric.targets)
    check_same_shape(predictions, metric.predictions, targets, metric.targets)
    mask = counted(context, metric.mask, metric.targets, targets)
    return predictions.astype(jnp.float32), targets.astype(jnp.float32), mask


@dataclasses.dataclass(frozen=True)
class ErrorMean(Averaged, abc.ABC):
    """What the mean errors share.

    Attributes:
      predictions: a Context path, float[...].
      targets: a Context path, float[...] in the same shape.
      mask: what counts; see `toolshed.metrics.Mean`.
      weights: a Context path of a weight for each value or for the first axes; see
        `toolshed.metrics.Mean`.
    """

    predictions: str = "preds"
    targets: str = "batch/y"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    weights: str | None = None

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        predictions, targets, mask = _pair(context, self)
        errors = self._errors(predictions, targets)
        return averaged(errors, mask, weights_of(context, self.weights, self.targets, targets))

    @abc.abstractmethod
    def _errors(self, predictions: Any, targets: Any) -> Float32[Array, "..."]:
        """The error of each value."""


@dataclasses.dataclass(frozen=True)
class MSE(ErrorMean):
    """The mean squared error. Attributes as in `ErrorMean`."""

    def _errors(self, predictions: Any, targets: Any) -> Float32[Array, "..."]:
        return (predictions - targets) ** 2


@dataclasses.dataclass(frozen=True)
class RMSE(MSE):
    """The root of the mean squared error over all that was seen, not a mean of roots."""

    def compute(self, state: Float32[Array, "2 2"]) -> Float32[Array, ""]:
        return jnp.sqrt(super().compute(state))


@dataclasses.dataclass(frozen=True)
class MAE(ErrorMean):
    """The mean absolute error. Attributes as in `ErrorMean`."""

    def _errors(self, predictions: Any, targets: Any) -> Float32[Array, "..."]:
        return jnp.abs(predictions - targets)


@dataclasses.dataclass(frozen=True)
class MAPE(ErrorMean):
    """The mean of absolute error over absolute target, as a share: 0.1 is 10 %.

    A target nearer to 0 than 2.2e-16 counts as that, as in scikit-learn: the value is then very large.
    """

    def _errors(self, predictions: Any, targets: Any) -> Float32[Array, "..."]:
        least = jnp.float32(np.finfo(np.float64).eps)
        return jnp.abs(predictions - targets) / jnp.maximum(jnp.abs(targets), least)


@dataclasses.dataclass(frozen=True)
class R2:
    """The coefficient of determination: 1 - squared errors / squared deviations of the targets.

    Of equal targets it is 1 where all predictions are right, else 0. Of fewer than two values it is NaN.

    Attributes:
      predictions: a Context path, float[...].
      targets: a Context path, float[...] in the same shape.
      mask: what counts; see `toolshed.metrics.Mean`.
      predictors: 0, or the number p of predictors to adjust for: ``1 - (1 - R2) (n - 1) / (n - p - 1)``,
        NaN unless there are more than p + 1 values.
    """

    predictions: str = "preds"
    targets: str = "batch/y"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    predictors: int = 0

    def __post_init__(self):
        if self.predictors < 0:
            raise ToolshedError(f"R2 with predictors={self.predictors}; expected their number, from 0.")

    def empty(self) -> Moments:
        return no_moments(1, more=1)

    def state_from(self, context: Any) -> Moments:
        predictions, targets, mask = _pair(context, self)
        errors = sums.total(jnp.where(mask, (predictions - targets) ** 2, 0))
        return jnp.concatenate([moments(mask, targets), errors[:, None]], axis=1)

    def merge(self, a: Moments, b: Moments) -> Moments:
        return merge_moments(a, b, 1)

    def compute(self, state: Moments) -> Float32[Array, ""]:
        count, _, squares, errors = sums.value(state)
        unexplained = _share(errors, squares)
        left = count - self.predictors - 1
        if self.predictors:
            unexplained = unexplained * (count - 1) / jnp.where(left > 0, left, 1)
        return jnp.where((left > 0) & (count > 1), 1 - unexplained, jnp.nan)


@dataclasses.dataclass(frozen=True)
class ExplainedVariance:
    """1 - variance of the errors / variance of the targets: R2 that does not see a constant error.

    Of equal targets it is 1 where all errors are equal, else 0. NaN of no value.

    Attributes:
      predictions: a Context path, float[...].
      targets: a Context path, float[...] in the same shape.
      mask: what counts; see `toolshed.metrics.Mean`.
    """

    predictions: str = "preds"
    targets: str = "batch/y"
    mask: str | None = AUTO

    def empty(self) -> Moments:
        return no_moments(2)

    def state_from(self, context: Any) -> Moments:
        predictions, targets, mask = _pair(context, self)
        return moments(mask, targets, predictions - targets)

    def merge(self, a: Moments, b: Moments) -> Moments:
        return merge_moments(a, b, 2)

    def compute(self, state: Moments) -> Float32[Array, ""]:
        count, _, of_targets, _, of_errors = sums.value(state)
        return jnp.where(count > 0, 1 - _share(of_errors, of_targets), jnp.nan)


def _share(part: Any, whole: Any) -> Any:
    """``part / whole``; of nothing, 0 if the part is nothing, too, else 1."""
    return jnp.where(whole != 0, part / jnp.where(whole != 0, whole, 1), jnp.where(part != 0, 1.0, 0.0))
