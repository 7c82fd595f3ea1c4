"""How often each class was predicted for each."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float32

from toolshed.errors import ToolshedError
from toolshed.metrics import sums
from toolshed.metrics.classification import predicted_and_true, tally
from toolshed.metrics.metric import AUTO


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix:
    """How often each class (row) was predicted as each (column), float32[classes, classes].

    All NaN while nothing was seen, and if a class was out of range.

    Attributes:
      classes: how many classes there are.
      predictions: a Context path of scores, float[..., classes], or of classes, int[...].
      targets: a Context path of classes, int[...].
      mask: what counts; see `toolshed.metrics.Mean`.
      normalize: None for counts, "true" for shares of each row, "pred" for shares of each column, "all"
        for shares of all. The shares of a row or column without any entry are 0.
    """

    classes: int
    predictions: str = "preds"
    targets: str = "batch/label"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    normalize: str | None = None

    def __post_init__(self):
        if self.normalize not in (None, "true", "pred", "all"):
            raise ToolshedError(
                f"ConfusionMatrix with normalize={self.normalize!r}; expected None, 'true', 'pred' or 'all'."
            )

    def empty(self) -> Float32[Array, "2 classes classes"]:
        return sums.zeros(self.classes, self.classes)

    def state_from(self, context: Any) -> Float32[Array, "2 classes classes"]:
        n = self.classes
        predicted, true, mask = predicted_and_true(context, self, n)
        inside = (predicted >= 0) & (predicted < n)
        cell = jnp.where(inside, true * n + predicted, -1)
        return tally(cell.ravel(), mask.ravel(), n * n).reshape(2, n, n)

    def merge(self, a: Any, b: Any) -> Float32[Array, "2 classes classes"]:
        return sums.add(a, b)

    def compute(self, state: Any) -> Float32[Array, "classes classes"]:
        counts = sums.value(state)
        total = counts.sum()
        axis = {"true": 1, "pred": 0}.get(self.normalize or "")
        whole = jnp.ones(()) if self.normalize is None else counts.sum(axis, keepdims=True)
        shares = jnp.where(whole != 0, counts / jnp.where(whole != 0, whole, 1), 0)
        return jnp.where(total != 0, shares, jnp.nan)
