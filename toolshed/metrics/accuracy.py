"""The share of examples that are predicted right."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from toolshed.errors import ToolshedError
from toolshed.metrics.metric import (
    AUTO,
    Averaged,
    array,
    averaged,
    check_classes,
    check_same_shape,
    counted,
    weights_of,
)


@dataclasses.dataclass(frozen=True)
class Accuracy(Averaged):
    """The share of examples whose largest prediction is at the target's class.

    Of equal predictions the one of the lower class counts as the larger. A target that is no class is
    never predicted right.

    Attributes:
      predictions: a Context path of scores (logits or probabilities), float[..., classes]; with a
        threshold float[...].
      targets: a Context path of classes, int[...]; with a threshold, positive where not 0.
      mask: a Context path of what counts, bool[...] or its first axes; see `toolshed.metrics.Mean`.
      threshold: for two classes: scores above it are positive. 0.5 for probabilities, 0 for logits.
      top_k: right are examples whose target is among this many largest predictions.
      weights: a Context path of a weight for each example, float[...].

    Raises:
      ToolshedError: both a threshold and top_k above 1 are given, or top_k is below 1.
    """

    predictions: str = "preds"
    targets: str = "batch/label"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    threshold: float | None = None
    top_k: int = 1
    weights: str | None = None

    def __post_init__(self):
        if self.top_k < 1 or (self.threshold is not None and self.top_k > 1):
            raise ToolshedError(
                f"Accuracy with top_k={self.top_k} and threshold={self.threshold}; expected top_k from 1, and"
                " 1 with a threshold, which is for two classes."
            )

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        scores, targets = array(context, self.predictions), array(context, self.targets)
        if self.threshold is not None:
            check_same_shape(scores, self.predictions, targets, self.targets)
            right = (scores > self.threshold) == (targets != 0)
        else:
            check_classes(scores, self.predictions, targets, self.targets)
            right = scores.argmax(-1) == targets if self.top_k == 1 else in_top(scores, targets, self.top_k)
        mask = counted(context, self.mask, self.targets, targets)
        return averaged(right, mask, weights_of(context, self.weights, self.targets, targets))


def in_top(scores: Any, targets: Any, k: int) -> Bool[Array, "..."]:
    """True where fewer than ``k`` classes come before the target's, the lower class first among equals."""
    at = targets[..., None]
    target_score = jnp.take_along_axis(scores, at, axis=-1, mode="clip")
    before = (scores > target_score) | ((scores == target_score) & (jnp.arange(scores.shape[-1]) < at))
    return (before.sum(-1) < k) & (targets >= 0) & (targets < scores.shape[-1])
