"""What was predicted against what was true, by class: precision, recall, F, overlap, confusion.

The metrics by class keep three counts for each class: predicted and true, predicted, true. They differ
in the ratio that `compute` makes of them. Where a class was seen, in predictions or targets, a ratio
over nothing is 0 (as with scikit-learn's ``zero_division=0``); of a class that was not seen nothing can
be said, so that its value is NaN and a mean over classes leaves it out.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int

from toolshed.errors import ToolshedError
from toolshed.metrics import sums
from toolshed.metrics.metric import AUTO, array, check_classes, check_same_shape, counted
from toolshed.paths import describe

_AVERAGES = ("binary", "macro", "micro", "weighted", None)
# Up to so many comparisons one pass over them is quicker than adding one by one.
_COMPARE = 2**14
Counts = Float32[Array, "2 3 classes"]


def predicted_and_true(
    context: Any, metric: Any, classes: int
) -> tuple[Int[Array, "..."], Int[Array, "..."], Bool[Array, "..."]]:
    """Predicted and true classes at a metric's paths, and which of them count.

    Predictions are scores, float[..., classes], or classes already, int[...].
    """
    scores, targets = array(context, metric.predictions), array(context, metric.targets)
    if jnp.issubdtype(scores.dtype, jnp.integer) and scores.shape == targets.shape:
        predicted = scores
    else:
        check_classes(scores, metric.predictions, targets, metric.targets)
        if scores.shape[-1] != classes:
            raise ToolshedError(
                f"{metric.predictions} is {describe(scores)}: scores of {scores.shape[-1]} classes; the"
                f" metric is for {classes}. Set classes={scores.shape[-1]}."
            )
        predicted = scores.argmax(-1)
    if not jnp.issubdtype(targets.dtype, jnp.integer) and targets.dtype != bool:
        raise ToolshedError(f"{metric.targets} is {describe(targets)}; expected classes as integers.")
    mask = counted(context, metric.mask, metric.targets, targets)
    return predicted.astype(jnp.int32), targets.astype(jnp.int32), mask


def tally(index: Any, mask: Any, size: int) -> Float32[Array, "2 *rows size"]:
    """How often each number below ``size`` is in each row, of those that count.

    All are NaN if one that counts is out of range.

    Args:
      index: int32[*rows, n].
      mask: what counts, bool[*rows, n].
      size: how many numbers there are.
    """
    inside = (index >= 0) & (index < size)
    found = mask & inside
    if index.shape[-1] * size <= _COMPARE:
        numbers = (found[..., None] & (index[..., None] == jnp.arange(size))).sum(-2, dtype=jnp.int32)
    else:
        rows = math.prod(index.shape[:-1])
        # One place for each number of each row; what is not found lies beyond the end and is dropped.
        place = index.reshape(rows, -1) + size * jnp.arange(rows)[:, None]
        place = jnp.where(found.reshape(rows, -1), place, rows * size)
        numbers = jnp.zeros(rows * size, jnp.int32).at[place].add(1, mode="drop")
        numbers = numbers.reshape(*index.shape[:-1], size)
    return sums.from_integers(numbers) + jnp.where((mask & ~inside).any(), jnp.nan, 0)


@dataclasses.dataclass(frozen=True)
class ByClass(abc.ABC):
    """What metrics share that are a ratio of counts by class: float32[2, 3, classes], pairs.

    Attributes:
      predictions: a Context path of scores, float[..., classes], or of classes, int[...]; for
        ``average="binary"`` of scores, float[...].
      targets: a Context path of classes, int[...]; for ``"binary"`` positive where not 0. A class out
        of range makes the metric NaN.
      mask: what counts; see `toolshed.metrics.Mean`.
      average: "binary": of the positive class, by ``threshold``. "macro": the mean over the classes
        that were seen. "weighted": that, weighted by how often a class is true. "micro": of all classes'
        counts together. None: an array, float32[classes].
      classes: how many classes there are; needed for all but "binary".
      threshold: for "binary": scores above it are positive. 0.5 for probabilities, 0 for logits.
    """

    predictions: str = "preds"
    targets: str = "batch/label"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    average: str | None = "macro"
    classes: int | None = None
    threshold: float = 0.5

    def __post_init__(self):
        name = type(self).__name__
        if self.average not in _AVERAGES:
            raise ToolshedError(
                f"{name} with average={self.average!r}; expected one of {', '.join(map(repr, _AVERAGES))}."
            )
        if self.average != "binary" and self.classes is None:
            raise ToolshedError(
                f"{name} needs the number of classes for the size of its state: {name}(classes=…), or"
                f" {name}(average='binary') for two."
            )

    @property
    def _size(self) -> int:
        return 1 if self.average == "binary" or self.classes is None else self.classes

    def empty(self) -> Counts:
        return sums.zeros(3, self._size)

    def merge(self, a: Counts, b: Counts) -> Counts:
        return sums.add(a, b)

    def state_from(self, context: Any) -> Counts:
        if self.average == "binary":
            return self._binary(context)
        predicted, true, mask = predicted_and_true(context, self, self._size)
        predicted, true, mask = predicted.ravel(), true.ravel(), mask.ravel()
        index = jnp.stack([predicted, predicted, true])
        return tally(index, jnp.stack([mask & (predicted == true), mask, mask]), self._size)

    def _binary(self, context: Any) -> Counts:
        scores, targets = array(context, self.predictions), array(context, self.targets)
        check_same_shape(scores, self.predictions, targets, self.targets)
        mask = counted(context, self.mask, self.targets, targets)
        predicted, true = mask & (scores > self.threshold), mask & (targets != 0)
        columns = [sums.count(of) for of in (predicted & true, predicted, true)]
        return sums.pack(*columns)[..., None]

    def compute(self, state: Counts) -> Float32[Array, "..."]:
        both, predicted, true = sums.value(state)
        seen = predicted + true
        if self.average in ("binary", "micro"):
            both, predicted, true = both.sum(), predicted.sum(), true.sum()
            return self._value(both, predicted, true)
        values = self._value(both, predicted, true)
        if self.average is None:
            return values
        weights = true if self.average == "weighted" else jnp.where(seen != 0, 1.0, 0.0)
        weighted = jnp.where(weights == 0, 0, jnp.nan_to_num(values, nan=0.0) * weights)
        total = jnp.where(jnp.isnan(seen).any(), jnp.nan, weighted.sum())
        return sums.ratio(total, weights.sum())

    def _value(self, both: Any, predicted: Any, true: Any) -> Any:
        top, bottom = self._ratio(both, predicted, true)
        value = jnp.where(bottom != 0, top / jnp.where(bottom != 0, bottom, 1), 0)
        return jnp.where(predicted + true != 0, value, jnp.nan)

    @abc.abstractmethod
    def _ratio(self, both: Any, predicted: Any, true: Any) -> tuple[Any, Any]:
        """The metric's numerator and denominator."""


@dataclasses.dataclass(frozen=True)
class Precision(ByClass):
    """Of what was predicted to be of a class, the share that is. Attributes as in `ByClass`."""

    def _ratio(self, both: Any, predicted: Any, true: Any) -> tuple[Any, Any]:
        return both, predicted


@dataclasses.dataclass(frozen=True)
class Recall(ByClass):
    """Of what is of a class, the share that was predicted to be. Attributes as in `ByClass`."""

    def _ratio(self, both: Any, predicted: Any, true: Any) -> tuple[Any, Any]:
        return both, true


@dataclasses.dataclass(frozen=True)
class FBeta(ByClass):
    """The harmonic mean of precision and recall, recall weighing ``beta`` times as much.

    ``(1 + beta²) · both / (beta² · true + predicted)``. Attributes as in `ByClass`, and ``beta``, above 0.
    """

    _: dataclasses.KW_ONLY
    beta: float = 1.0

    def _ratio(self, both: Any, predicted: Any, true: Any) -> tuple[Any, Any]:
        square = self.beta**2
        return (1 + square) * both, square * true + predicted


@dataclasses.dataclass(frozen=True)
class IoU(ByClass):
    """Overlap by class: what is in both prediction and target over what is in either (Jaccard).

    Counted over the pixels of all images together, not image by image. Attributes as in `ByClass`; scores
    float[batch, height, width, classes] and targets int[batch, height, width], say.
    """

    def _ratio(self, both: Any, predicted: Any, true: Any) -> tuple[Any, Any]:
        return both, predicted + true - both


@dataclasses.dataclass(frozen=True)
class Dice(ByClass):
    """Overlap by class: twice what is in both over the sizes of the two. Otherwise as `IoU`."""

    def _ratio(self, both: Any, predicted: Any, true: Any) -> tuple[Any, Any]:
        return 2 * both, predicted + true
